"""DMD: decoupled parts of each modality that teach one another over two small graphs."""
