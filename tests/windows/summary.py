"""How many tests ran inside Windows Python under Wine, for the summary of the run on Linux."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(frozen=True)
class WineRun:
    """One run of pytest under Wine, from its report."""

    python: str
    passed: int
    skipped: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass
class WineRuns:
    """The runs of this session, a line each."""

    lines: list[str] = field(default_factory=list)

    def add(self, run: WineRun) -> None:
        """Note a run."""
        counts = f"{run.passed} passed, {len(run.skipped)} skipped, {len(run.failed)} failed"
        self.lines.append(f"under Wine, CPython {run.python} for Windows: {counts}")


_KEY = pytest.StashKey[WineRuns]()


def runs_of(config: pytest.Config) -> WineRuns:
    """The runs of this session, kept in pytest's own stash."""
    return config.stash.setdefault(_KEY, WineRuns())


def read_report(report: Path, python: str) -> WineRun:
    """Read what the plugin `wine_report` left."""
    outcomes: list[tuple[str, str, str]] = json.loads(report.read_text(encoding="utf-8"))

    def named(wanted: str) -> tuple[str, ...]:
        return tuple(f"{name}\n{detail}" for name, outcome, detail in outcomes if outcome == wanted)

    return WineRun(python, len(named("passed")), named("skipped"), named("failed"))
