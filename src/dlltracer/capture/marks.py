"""What dlltracer writes between the lines of a loader log, or between the system calls of a process, and reads there.

The writing half: it is imported before the traced code runs. The reading half, `linux.decode`, needs more.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .requests import RawRequest

MARK_START, MARK_END = b"\x1e", b"\x1f"
"""The frame of a mark in a stream of text: ASCII's record and unit separators, which no path has."""

MARK_MODE = 0x6C6C6474
"""The mode of an access(2) whose path is a mark, for a tracer that watches system calls. The kernel refuses any mode
above 7 with EINVAL before it looks at the path (do_faccessat in fs/open.c): whether somebody watches or not, the call
does nothing. Python raises no audit event for it."""

OWN_BEGIN, OWN_END = b"\x1eown\x1f", b"\x1enot own\x1f"
"""The next loads are dlltracer's own, until the second."""
FORKED = b"\x1eforked\x1f"
"""The log is that of a process made by fork: it does not begin with the start of a program."""
GAP = b"\x1egap\x1f"
"""Lines may be missing here: the program had closed the log."""


def encode_request(raw: RawRequest) -> bytes:
    """A request as a mark that can stand anywhere in a stream of text, even inside a line (see `linux.decode`)."""
    kind, target, imports, tid, wall, clock, places, flags = raw
    given = "" if flags is None else str(flags)
    names = " ".join((target, *imports))
    if not (names.isascii() and names.isprintable() and names.count(" ") == len(imports) and "%" not in names):
        names = " ".join([f"%{name.encode('utf-8', 'surrogatepass').hex()}" for name in (target, *imports)])
    return f"\x1e{kind} {tid} {wall!r} {clock} {','.join(places)} {given} {names}\x1f".encode("ascii")
