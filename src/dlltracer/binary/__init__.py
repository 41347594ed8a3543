"""Readers: bytes of an image to plain values."""
