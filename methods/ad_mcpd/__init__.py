"""AD-MCPD: anchor-driven multi-channel prompt distillation, reconstructed.

Neither a paper nor running code exist in public; this follows the documentation of the released
code and repairs its defects. One module per component, each of which can be called on its own:

    encoder      adapters, pseudo-labels, fusion of the available modalities
    graph        cross-modal semantic graph, residual graph convolution, support bank
    prototypes   class prototypes from prompts, texts, given tensors, or free parameters
    anchors      similarity, top-k selection, anchors and their moving average
    channels     distributions over anchors, divergences, classification losses
    completion   completion of incomplete samples through the frozen language model
    model        the method: how they are wired, losses, optimiser, evaluation
    reference    the released code's parameter names
    parity       golden cases
"""
