"""Data sets: records, native format, import, splits, generated data."""
