"""One folder a method: ``info.py`` (its record) and ``model.py`` (its network)."""
