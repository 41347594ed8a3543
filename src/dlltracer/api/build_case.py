"""Everything about a failed import, together for the rules: made by what knows the system it failed on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..diagnose.case import Case
from ..diagnose.engine import diagnose
from ..diagnose.program_output import OutputMessage, modules_in_crashes
from ..model.failure import System
from ..model.run import RunResult
from .environment import find_stray_files, find_unmet, read_install_facts
from .linux_case import build_linux_case
from .windows_case import build_windows_case


def build_case(
    what: str, run: RunResult, notes: tuple[str, ...] = (), messages: tuple[OutputMessage, ...] = ()
) -> Case:
    """Return all that the rules need. What cannot be read is in the notes of the case.

    Arguments:
        what: what was tried, in words ("import x").
        run: what came of it; its `process` must be known.
        notes: what a reader must know besides.
        messages: what loaders, runtimes and Python wrote, in the output of the run.
    """
    assert run.process is not None
    if run.process.system is System.WINDOWS:
        case = build_windows_case(what, run, notes)
    else:
        case = build_linux_case(what, run, notes, messages)
    case = replace(
        case, messages=messages, module_files=_module_files(run, messages), unmet=find_unmet(case),
        strays=find_stray_files(case),
    )  # fmt: skip
    # What can be installed is asked for the packages that the rules would name, which only they know.
    return replace(case, install=read_install_facts(case, diagnose(case).findings))


def _module_files(run: RunResult, messages: tuple[OutputMessage, ...]) -> dict[str, str]:
    """The extension modules that child processes were importing when they died, as the import path has them."""
    if run.process is None:
        return {}
    found = {}
    for module in modules_in_crashes(messages):
        *packages, stem = module.split(".")
        names = [stem + suffix for suffix in run.process.suffixes]
        files = (Path(folder, *packages, name) for folder in run.process.path for name in names)
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            found[module] = str(file)
    return found
