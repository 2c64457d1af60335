"""Early fusion: zero-filled concatenation through a small network."""
