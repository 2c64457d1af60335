"""Late fusion: a head per modality, averaged over the available ones."""
