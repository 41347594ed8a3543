"""Capture: what an operating system says about loads, turned into events. Platform code lives here and in host."""
