"""The process that asks the questions of one group: started by `runner`, it writes a line for each, and may die.

What a question does to the process (a loaded image, a session, a debugger) stays in it. A question that ends the
process, or hangs, costs its own answer only: the runner starts another process behind it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

from ..model.encode import encode
from .step import Question, Room, answer

GROUPS = {
    "system": "everywhere",
    "images": "everywhere",
    "limits": "linux",
    "loader": "linux",
    "rtld": "linux_mechanisms",
    "snapshot": "linux_mechanisms",
    "seccomp": "commands",
    "search": "linux",
    "commands": "commands",
    "windows": "windows_loader",
    "structures": "windows_loader",
    "codes": "windows_loader",
    "lookups": "windows_loader",
    "names": "windows_names",
    "etw": "windows_etw",
    "debugger": "windows_debugger",
}
"""The groups, and the module of each: its function `questions` returns those of all groups in it."""

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def list_groups() -> tuple[str, ...]:
    """Return the groups of this system, in the order in which they are asked."""
    own = {
        "linux": ("limits", "loader", "rtld", "seccomp", "snapshot", "search", "commands"),
        "win32": ("windows", "structures", "codes", "lookups", "names", "debugger", "etw", "commands"),
    }.get(sys.platform, ("commands",))
    return ("system", "images", *own)


def list_questions(group: str) -> tuple[Question, ...]:
    """Return the questions of a group."""
    module = importlib.import_module(f".{GROUPS[group]}", __package__)
    return tuple(question for question in module.questions() if question.group == group)


def is_wine() -> bool:
    """Return whether this Windows is Wine, whose ntdll says so (wine_get_version)."""
    if sys.platform != "win32":
        return False
    from ..capture.windows.system import open_system_library

    return hasattr(open_system_library("ntdll.dll"), "wine_get_version")


def main(arguments: list[str]) -> None:
    """Ask the questions of a group from a number on.

    Arguments: the group, the number of its first question, the folder for the rooms, the file for the answers.
    """
    group, first, folder, results = arguments
    if sys.platform == "win32":
        _silence_windows()
    wine = is_wine()
    with open(results, "a", encoding="ascii") as file:

        def write(**line: object) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        for number, question in enumerate(list_questions(group)):
            if number < int(first):
                continue
            write(begun=number)
            room = Room(os.path.join(folder, f"{group}-{number}"), _LETTERS[number % len(_LETTERS)])
            os.makedirs(room.folder, exist_ok=True)
            write(number=number, step=encode(answer(question, room, wine)))


def _silence_windows() -> None:
    """No message boxes: for a missing drive or a damaged image (1), a crash (2), a file not found (0x8000).

    Source: SetErrorMode, MS Learn. Processes that this one starts inherit it.
    """
    if sys.platform == "win32":
        from ..capture.windows.system import open_system_library

        open_system_library("kernel32.dll").SetErrorMode(0x1 | 0x2 | 0x8000)
