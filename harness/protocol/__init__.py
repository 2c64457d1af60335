"""Protocol files: what they may say, how they are read, and the runs they expand into."""
