"""Capture on Linux."""
