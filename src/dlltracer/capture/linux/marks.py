"""The loader's text, with the requests of Python that were written into it: taken apart again. Pure."""

from __future__ import annotations

import enum
import re

from ...model.request import Request, RequestKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Mark(enum.Enum):
    """What is noted in a log besides requests; the values are what stands in the frame (`requests`)."""

    OWN_BEGIN = b"own"
    """What follows is dlltracer's own doing."""
    OWN_END = b"not own"
    FORKED = b"forked"
    """The log is that of a process made by fork: it does not begin with the start of a program."""


_MARK = re.compile(rb"\x1e([\x20-\x7e]*)\x1f")
"""What `requests.encode_request` writes."""


def decode_request(mark: bytes) -> Request | None:
    """The inverse of `requests.encode_request`, given a mark without its frame bytes; `None` when it is damaged."""
    try:
        fields = (bytes.fromhex(part).decode("utf-8", "surrogatepass") for part in mark.decode("ascii").split("."))
        kind, tid, wall, clock, target, *imports = fields
        return Request(RequestKind(kind), target, tuple(imports), int(tid), float(wall), int(clock))
    except ValueError:
        return None


def decode_mark(mark: bytes) -> Request | Mark | None:
    """What a mark says, given without its frame bytes; `None` when it is damaged."""
    for known in Mark:
        if mark == known.value:
            return known
    return decode_request(mark)


def split_text(text: bytes) -> Iterator[Request | Mark | bytes | None]:
    """Lines and marks in order; `None` for a damaged mark. A mark inside a line comes before that line."""
    marks: list[tuple[int, bytes]] = []
    removed = 0
    for match in _MARK.finditer(text):
        marks.append((match.start() - removed, match[1]))
        removed += match.end() - match.start()
    clean = _MARK.sub(b"", text)
    position = 0
    waiting = iter([*marks, (len(clean) + 1, b"")])
    where, mark = next(waiting)
    for line in clean.split(b"\n"):
        position += len(line) + 1
        while where < position:
            yield decode_mark(mark)
            where, mark = next(waiting)
        yield line
