"""Decodes glibc's loader log, with the marks that dlltracer wrote into it, into events. Pure: bytes in, values out, on
any system."""

from __future__ import annotations

import enum
import re

from ...model.failure import Request, RequestKind
from .lines import Line, parse_line
from .loaderstate import Change, LoaderState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .loaderstate import OnStart


class LogMark(enum.Enum):
    """A mark other than of a request; the values are what stands in the frame (`requests`)."""

    OWN_BEGIN = b"own"
    """The next loads are dlltracer's own."""
    OWN_END = b"not own"
    FORKED = b"forked"
    """The log is that of a process made by fork: it does not begin with the start of a program."""
    GAP = b"gap"
    """Lines may be missing here: the program had closed the log."""


_MARKS = {mark.value: mark for mark in LogMark}

_MARK = re.compile(rb"\x1e([\x20-\x7e]*)\x1f")
"""A mark as `requests.encode_request` writes it."""

_PID = re.compile(rb" *\d{1,18}")
"""The process id before the colon and the tab of a line."""

_HOLE = re.compile(rb"\0+")

_BLANK = re.compile(rb"\n *\d{1,18}:\t(?=\n)")
"""An empty line with another one after it. Nearly half of all lines are empty. They matter as the last line of a
process only (`LoaderState.note_blank`), so in the log of one process those before are dropped."""

_SIMPLE_DLOPEN = re.compile(
    rb"^(?:\x1e([\x20-\x7e]*)\x1f(?: *\d{1,18}:\t\n)*)?"
    rb"( *\d{1,18}):\tfile=(/[^\n;\[]*) \[0\];  dynamically loaded by ([^\n;\[]+) \[0\]\n"
    rb"\2:\tfile=\3 \[0\];  generating link map\n"
    rb"\2:\t  dynamic: 0x[0-9a-f]+  base: 0x([0-9a-f]+)   size: 0x([0-9a-f]+)\n"
    rb"\2:\t    entry: 0x[0-9a-f]+  phdr: 0x[0-9a-f]+  phnum: +\d+\n"
    rb"(?:\2:\t\n)*\2:\tcalling init: \3\n"
    rb"(?:\2:\t\n)*\2:\topening file=\3 \[0\]; direct_opencount=\d+(?:\n\2:\t(?=\n))*$",
    re.MULTILINE,
)
"""A dlopen, with or without the mark of its request, that mapped one image by its absolute path and needed no other
one. Most extension modules are loaded so. No part can match in two ways, so that hostile text costs no more."""

_MOST_PARSED = 4096

_MOST_PROCESSES = 4096
"""Processes that may write into one log, which they have inherited by fork; lines of more are counted as foreign."""

_SECOND_PREFIX = re.compile(rb" *\d{1,18}:\t(?!\t*\()")
"""The beginning of a line inside another one, whose rest is missing. (Two tabs and a bracket are the end of a "search
path" line, before which a folder may end in digits and a colon.)"""


def decode_request(mark: bytes) -> Request | None:
    """The inverse of `requests.encode_request`, given a mark without its frame bytes; `None` when it is damaged."""
    try:
        kind, tid, wall, clock, places, flags, *names = mark.decode("ascii").split(" ")
        target, *imports = [_decode(name) if name.startswith("%") else name for name in names]
        return Request(
            RequestKind(kind), target, tuple(imports), int(tid), float(wall), int(clock),
            places=tuple(places.split(",")) if places else (), flags=int(flags) if flags else None,
        )  # fmt: skip
    except ValueError:
        return None


def _decode(text: str) -> str:
    """The inverse of how `encode_request` writes what is not plain."""
    return bytes.fromhex(text[1:]).decode("utf-8", "surrogatepass")


def decode_mark(mark: bytes) -> Request | LogMark | None:
    """The request or mark in the bytes between two frame bytes; `None` when it is damaged."""
    known = _MARKS.get(mark)
    return decode_request(mark) if known is None else known


def split_text(text: bytes) -> Iterator[Request | LogMark | bytes | None]:
    """Yield lines and marks in order; `None` for a damaged mark. A mark inside a line comes before that line."""
    begun: list[bytes] = []
    position = 0
    for match in _MARK.finditer(text):
        lines, end, rest = text[position : match.start()].rpartition(b"\n")
        position = match.end()
        if end:
            yield from b"".join((*begun, lines)).split(b"\n")
            begun = []
        begun.append(rest)
        yield decode_mark(match[1])
    yield from b"".join((*begun, text[position:])).split(b"\n")


class LoaderTextDecoder:
    """The log of one file, decoded piece by piece as it grows: any cut of the text gives the same events.

    Arguments:
        pid: the process that the log belongs to; `None` for the process of the first line.
        others: decode what other processes write into it, which that one has forked; else they are counted.
        fresh: the log begins with the start of the process.
        on_start, names: as of `LoaderState`.
    """

    def __init__(
        self, pid: int | None, *, others: bool = False, fresh: bool = False, on_start: OnStart | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._pid = pid
        self._others = others
        self._changes: list[Change] = []
        self._first = LoaderState(pid, self._changes, fresh=fresh, on_start=on_start, names=names)
        self._states = {} if pid is None else {pid: self._first}
        self._rest = b""
        self._pids: dict[bytes, int] = {}
        self._parsed: dict[bytes, Line] = {}
        self._broken = 0
        self.foreign = 0

    @property
    def undecodable(self) -> int:
        """Lines and marks that could not be read."""
        return self._broken + sum(state.undecodable for state in {self._first, *self._states.values()})

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that have written, and the one that the log belongs to."""
        return tuple(self._states)

    def initialising(self, pid: int | None = None) -> str | None:
        """The image whose initialiser ran when the process last wrote; `None` for the log's own process."""
        state = self._first if pid is None else self._states.get(pid)
        return None if state is None else state.initialising

    def feed(self, data: bytes, wall: float | None = None) -> list[Change]:
        """Return the changes that the next bytes show; `wall`, in seconds since the epoch: when they were read.

        A line, and a mark in it, are looked at when they are whole. NUL bytes, which no line has, are a hole in the
        file: text that was released before it was read, or never written.
        """
        if b"\0" in data:
            changes = []
            for number, part in enumerate(_HOLE.split(data)):
                if number:
                    self.resynchronise()
                changes += self.feed(part, wall)
            return changes
        text = self._rest + data
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        if end:
            self._read(text[: end - 1], wall)
        return self._take()

    def finish(self, ended: bool | None = True, pid: int | None = None) -> list[Change]:
        """Return the changes that follow from the end of the text: of all, or of process `pid`.

        `ended` as of `LoaderState.finish`.
        """
        if pid is None and self._rest:
            self._read(self._rest, None)
            self._rest = b""
        for state in self._states.values():
            if pid in (None, state.pid):
                state.finish(ended)
        return self._take()

    def note_return(self, tid: int, clock: int) -> list[Change]:
        """Return the changes that follow when a thread has come back from the loader: `LoaderState.note_return`."""
        self._first.note_return(tid, clock)
        return self._take()

    def _take(self) -> list[Change]:
        taken = self._changes[:]
        self._changes.clear()  # the states have this list
        return taken

    def resynchronise(self) -> None:
        """Text is missing before the next bytes: what stood there is counted as one undecodable line."""
        self._rest = b""
        self._note_damage()

    def _note_damage(self) -> None:
        self._broken += 1
        for state in {self._first, *self._states.values()}:
            state.resynchronise()

    def _read(self, text: bytes, wall: float | None) -> None:
        if self._others:
            self._read_items(text, wall)
            return
        position = 0
        for match in _SIMPLE_DLOPEN.finditer(text):
            if position < match.start():
                self._read_items(_BLANK.sub(b"", text[position : match.start() - 1]), wall)
            if not self._read_simple_dlopen(match, wall):
                self._read_items(match[0], wall)
            position = match.end() + 1
        if position < len(text):
            self._read_items(_BLANK.sub(b"", text[position:]), wall)

    def _read_simple_dlopen(self, match: re.Match[bytes], wall: float | None) -> bool:
        """Take in what `_SIMPLE_DLOPEN` matched at once. `False` if it must be read line by line."""
        mark, prefix, name, by, base, size = match.groups()
        request = None if mark is None else decode_request(mark)
        state = self._first
        is_known = self._pid is not None and self._pids.get(prefix) == self._pid
        if not is_known or not state.can_load_at_once or (mark is not None and request is None):
            return False
        if request is not None:
            state.ask(request)
        state.load_at_once(
            name.decode("utf-8", "surrogateescape"), by.decode("utf-8", "surrogateescape"), int(base, 16),
            int(size, 16), wall,
        )  # fmt: skip
        return True

    def _read_items(self, text: bytes, wall: float | None) -> None:
        for item in split_text(text):
            if isinstance(item, bytes):
                self._read_line(item, wall)
            elif isinstance(item, Request):
                self._first.ask(item)
            elif item is LogMark.FORKED:
                self._first.set_running()
            elif item is LogMark.GAP:
                self._first.resynchronise()
            elif isinstance(item, LogMark):
                self._first.set_own(item is LogMark.OWN_BEGIN)
            else:
                self._note_damage()

    def _read_line(self, item: bytes, wall: float | None) -> None:
        if not item:
            return
        prefix, is_line, rest = item.partition(b":\t")
        pid = self._pids.get(prefix)
        if pid is None:
            if not is_line or _PID.fullmatch(prefix) is None:
                self._note_damage()
                return
            pid = int(prefix)
            if len(self._pids) < _MOST_PROCESSES:
                self._pids[prefix] = pid
        if b":\t" in rest and (inner := _SECOND_PREFIX.search(rest)) is not None:
            # The rest of the first line, and all up to the second, is missing. The second one is whole.
            self._note_damage()
            self._read_line(rest[inner.start() :], wall)
            return
        state = self._state_of(pid)
        if not rest:  # nearly half of all lines are empty
            if state is not None:
                state.note_blank()
            return
        if state is None:
            self.foreign += 1
            return
        if not rest.startswith(b"    entry: "):
            state.handle(self._parse(rest), wall)

    def _parse(self, text: bytes) -> Line:
        """The line; of a program that loads the same again and again, most were parsed before."""
        line = self._parsed.get(text)
        if line is None:
            if len(self._parsed) >= _MOST_PARSED:
                self._parsed.clear()
            # The file system's encoding for every Python this runs on (PEP 383): undecodable bytes survive.
            line = self._parsed[text] = parse_line(text.decode("utf-8", "surrogateescape"))
        return line

    def _state_of(self, pid: int) -> LoaderState | None:
        if not self._states:
            self._pid = self._first.pid = pid
            self._states[pid] = self._first
        state = self._states.get(pid)
        if state is None and self._others and len(self._states) < _MOST_PROCESSES:
            state = self._states[pid] = self._first.forked(pid)
        return state
