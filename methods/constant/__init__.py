"""The trained constant: the reference row that every method must beat."""
