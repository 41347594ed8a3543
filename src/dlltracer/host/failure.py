"""What `host.facts` gathered in another process, read back: never trusted to be whole."""

from __future__ import annotations

import linecache
import os
from dataclasses import fields

from ..model.failure import Failure, Frame, ProcessFacts, PythonError, System
from .facts import describe_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_failure(said: dict[str, object] | None) -> Failure | None:
    """The failure in what that process said; `None` if there is none, or it is damaged."""
    if said is None:
        return None
    errors, process = said.get("errors"), said.get("process")
    if not isinstance(errors, list) or not isinstance(process, dict):
        return None
    try:
        return Failure(tuple(_error(item) for item in errors), _process(process))
    except (TypeError, ValueError, KeyError, IndexError):
        return None


def read_process(said: dict[str, object] | None) -> ProcessFacts | None:
    """What that process said about itself, whether it failed or not; `None` if nothing, or something damaged."""
    process = said.get("process") if said is not None else None
    try:
        return _process(process) if isinstance(process, dict) else None
    except (TypeError, ValueError, KeyError, IndexError):
        return None


def _error(item: dict[str, Any]) -> PythonError:
    return PythonError(
        type=item["type"], message=item["message"], bases=tuple(item["bases"]), name=item["name"], path=item["path"],
        code=item["code"],
        frames=tuple(_frame(*frame) for frame in item["frames"] if not _is_machinery(frame[0])),
    )  # fmt: skip


def _is_machinery(file: str) -> bool:
    """Whether a frame is ours or the import system's: nobody looks for a cause there."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return file.startswith("<frozen importlib") or os.path.dirname(os.path.dirname(file)) == folder


def _frame(file: str, line: int, function: str) -> Frame:
    return Frame(file, line, function, linecache.getline(file, line).strip() or None)


def this_process() -> ProcessFacts:
    """The same facts about the running interpreter, for a program that died before it could tell."""
    return _process(describe_process([]))


def _process(item: dict[str, Any]) -> ProcessFacts:
    known = {field.name for field in fields(ProcessFacts)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in item.items() if name in known
    }
    values["system"] = System(values["system"])
    values["environment"] = tuple((name, value) for name, value in item["environment"])
    return ProcessFacts(**values)
