"""Integrations of dlltracer into other programs: excepthook, pytest, IPython."""
