"""Studies: search for hyper-parameters on validation data, with an equal, recorded budget.

- ``space``: what is searched, from the method's record narrowed by the protocol;
- ``definition``: what one study trains on; the test rows are taken out here;
- ``objective``: one trial;
- ``study``: storage, budget, queue, and the loop of a worker;
- ``parallel``: several workers;
- ``estimates``: aggregates, expected best of k trials, gain with its interval;
- ``output``, ``plots``: what a study leaves in the results folder;
- ``mirror``: its copy in MLflow.
"""
