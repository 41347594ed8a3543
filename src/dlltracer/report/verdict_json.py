"""A verdict as JSON."""

from __future__ import annotations

import json

from ..model.finding import Diagnosis
from ..model.plain import to_plain

VERSION = 1
"""Counted up when a reader of the former version would misread the new one."""


def render_verdict_json(diagnosis: Diagnosis) -> str:
    """All of it, ASCII only."""
    return json.dumps(verdict_to_plain(diagnosis), indent=1) + "\n"


def verdict_to_plain(diagnosis: Diagnosis) -> dict[str, object]:
    """All of it; `outcome` is a word: imported, explained, undecided, not traced."""
    plain = to_plain(diagnosis)
    assert isinstance(plain, dict)
    plain["outcome"] = diagnosis.outcome.name.lower().replace("_", " ")
    return {"type": "verdict", "version": VERSION, **plain}
