"""Recorded ETW: reads .etl files, on any system."""

from __future__ import annotations

from .buffers import is_etl
from .reader import read_etl

__all__ = ["is_etl", "read_etl"]
