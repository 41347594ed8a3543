"""What failures mean: error codes, loader messages, symbols, and who provides a library. Pure, no I/O but own data."""
