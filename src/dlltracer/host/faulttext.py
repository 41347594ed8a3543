"""The Python lines that a dying interpreter was at, as its faulthandler wrote them."""

from __future__ import annotations

import linecache
import re

from ..model.failure import Frame, PythonError

_HEAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):$")
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
_MOST = 100
_TRACEBACK = "Traceback (most recent call last):"
_TRACED = re.compile(r'^  File "(.+)", line (\d+), in (.+)$')
_LAST = re.compile(r"^(?:[\w.]+\.)?(\w+): (.*)$")


def read_fault_frames(said: str, *, hidden: str = "") -> tuple[Frame, ...]:
    """The lines of the thread that died, outermost first.

    Arguments:
        said: what the program wrote; the format is that of CPython's Python/traceback.c.
        hidden: frames of files below this folder are left out.
    """
    lines = said.splitlines()
    starts = [number for number, line in enumerate(lines) if _HEAD.match(line)]
    current = [number for number in starts if lines[number].startswith("Current thread")]
    frames: list[Frame] = []
    for line in lines[current[-1] + 1 :][:_MOST] if current else ():
        found = _FRAME.match(line)
        if found is None:
            break
        file = found[1]
        if not (hidden and file.startswith(hidden)):
            number = int(found[2])
            frames.append(Frame(file, number, found[3], linecache.getline(file, number).strip() or None))
    return tuple(frames[::-1])


def read_traceback(said: str, *, hidden: str = "") -> PythonError | None:
    """The last exception whose traceback was written; `None` if there is none.

    For a process that could not tell itself.     Arguments are those of `read_fault_frames`.
    """
    lines = said.splitlines()
    starts = [number for number, line in enumerate(lines) if line.strip() == _TRACEBACK]
    frames: list[Frame] = []
    for line in lines[starts[-1] + 1 :] if starts else ():
        traced, last = _TRACED.match(line), _LAST.match(line)
        if (
            traced is not None
            and not traced[1].startswith("<frozen ")
            and not (hidden and traced[1].startswith(hidden))
        ):
            number = int(traced[2])
            frames.append(Frame(traced[1], number, traced[3], linecache.getline(traced[1], number).strip() or None))
        elif last is not None:
            return PythonError(last[1], last[2], _BASES.get(last[1], (last[1],)), frames=tuple(frames))
    return None


_BASES = {
    name: (name, base, "Exception")
    for base, names in {
        "ImportError": ("ImportError", "ModuleNotFoundError"),
        "OSError": ("OSError", "FileNotFoundError"),
    }.items()
    for name in names
}
