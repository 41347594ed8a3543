"""This machine as values: its files, and what its loaders know."""
