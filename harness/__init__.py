"""What every method shares: protocol, masks, data, engine, metrics, results, command line."""
