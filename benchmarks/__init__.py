"""Speed and memory of the harness, side by side with alternatives: ``python -m benchmarks --help``."""
