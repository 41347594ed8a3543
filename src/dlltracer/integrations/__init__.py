"""Dlltracer inside of other programs."""
