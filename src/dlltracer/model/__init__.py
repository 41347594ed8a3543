"""Frozen values that the stages exchange. No I/O, no platform."""
