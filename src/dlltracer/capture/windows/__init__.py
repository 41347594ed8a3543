"""Capture on Windows."""
