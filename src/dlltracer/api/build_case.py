"""Gathers all facts about a failed import, for the rules, by the builder of the system where it failed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from ..diagnose.case import Case
from ..diagnose.program_output import OutputMessage, child_failure, modules_in_crashes
from ..model.failure import System
from ..model.run import RunResult
from .linux_case import LinuxProcess, build_linux_case
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
    return replace(
        case, messages=messages, module_files=_module_files(run, messages), child_copies=_child_copies(run, messages)
    )


def _child_copies(run: RunResult, messages: tuple[OutputMessage, ...]) -> dict[str, str]:
    """Find, in a child's LD_LIBRARY_PATH, the libraries that the image in an error of the child's loader needs."""
    message = child_failure(messages)
    error = message.dl_error if message is not None else None
    if message is None or error is None or error.library is None or run.process is None:
        return {}
    name = Path(message.program or "").name
    failed = error.library if "/" in error.library else shutil.which(error.library) or error.library
    image = LinuxProcess(run.process, run.recording).read_image(failed) if Path(failed).is_file() else None
    needs = [error.library] if image is None else list(image.needed)
    found: dict[str, str] = {}
    for child in run.children:
        for folder in child.library_path.split(":") if Path(child.program).name == name else ():
            for need in needs:
                copy = Path(run.process.current_folder, folder, Path(need).name)
                if need not in found and copy.is_file():
                    found[need] = str(copy)
    return found


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
