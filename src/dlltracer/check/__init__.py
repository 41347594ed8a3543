"""Checks wheels, files and environments: whether they would load where their tags promise it."""
