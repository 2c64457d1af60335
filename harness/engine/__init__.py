"""Training and evaluation of one run: batches on the device, stages, selection, checkpoints."""
