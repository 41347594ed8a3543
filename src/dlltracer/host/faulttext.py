"""The Python lines that a dying interpreter was at, as its faulthandler wrote them."""

from __future__ import annotations

import linecache
import re

from ..model.failure import Frame

_HEAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):$")
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
_MOST = 100


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
