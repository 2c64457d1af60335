"""Data-set cards: sizes, labels, signal of each modality, leaks, and what is really missing."""
