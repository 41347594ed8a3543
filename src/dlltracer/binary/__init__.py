"""Readers: they turn the bytes of an image into plain values."""
