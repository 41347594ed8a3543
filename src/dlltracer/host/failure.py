"""Read back what `host.facts` gathered in another process, which may be damaged."""

from __future__ import annotations

import linecache
import os
from dataclasses import fields

from ..model.failure import Frame, ProcessFacts, PythonError, System
from .facts import describe_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_errors(errors: object) -> tuple[PythonError, ...]:
    """The exceptions in what `host.facts.describe_errors` made; () if it is nothing of the kind."""
    try:
        return tuple(_error(item) for item in errors) if isinstance(errors, list) else ()
    except (TypeError, ValueError, KeyError, IndexError):
        return ()


def read_process(process: object) -> ProcessFacts | None:
    """The process in what `host.facts.describe_process` made; `None` if it is nothing of the kind."""
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
    if item.get("start_environment") is not None:
        values["start_environment"] = tuple((name, value) for name, value in item["start_environment"])
    return ProcessFacts(**values)
