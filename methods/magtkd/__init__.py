"""MAGTKD: every modality in turn asks the others, gated; text is built last and teaches the rest."""
