"""Everything about a failed import, together for the rules: made by what knows the system it failed on."""

from __future__ import annotations

from dataclasses import replace

from ..diagnose.case import Case
from ..diagnose.engine import diagnose
from ..model.failure import System
from ..model.run import RunResult
from .environment import read_install_facts
from .linux_case import build_linux_case
from .windows_case import build_windows_case


def build_case(what: str, run: RunResult, notes: tuple[str, ...] = ()) -> Case:
    """Return all that the rules need. What cannot be read is in the notes of the case.

    Arguments:
        what: what was tried, in words ("import x").
        run: what came of it; its `process` must be known.
        notes: what a reader must know besides.
    """
    assert run.process is not None
    build = build_windows_case if run.process.system is System.WINDOWS else build_linux_case
    case = build(what, run, notes)
    # What can be installed is asked for the packages that the rules would name, which only they know.
    return replace(case, install=read_install_facts(case, diagnose(case).findings))
