"""Renderers: each is a pure function from a recording to text."""
