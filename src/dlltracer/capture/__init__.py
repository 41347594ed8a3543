"""Captures: turns an operating system's reports on loads into events. Platform code lives here and in host."""
