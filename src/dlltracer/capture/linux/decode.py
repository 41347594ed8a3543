"""Decodes glibc's loader log, with the marks that dlltracer wrote into it, into events. Pure: bytes in, values out, on
any system."""

from __future__ import annotations

import enum
import re

from ...model.failure import Request, RequestKind
from ..requests import MARK_END, MARK_START
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

_REQUEST_KINDS = {kind.value: kind for kind in RequestKind}

_MARK = re.compile(rb"\x1e([\x20-\x7e]*)\x1f")
"""A mark as `requests.encode_request` writes it."""

# Patterns that few logs need are compiled when they are: that takes longer than to decode a short log.
_HOLE = rb"\0+"

_REQUESTED = b" [0];  dynamically loaded by "
"""In the first line of a dlopen: between its file and the image that asked."""

_MOST_DIGITS = 18
"""Of a process id."""

_MOST_PARSED = 4096

_MOST_PROCESSES = 4096
"""Processes that may write into one log, which they have inherited by fork; lines of more are counted as foreign."""

_SECOND_PREFIX = rb" *\d{1,18}:\t(?!\t*\()"
"""The beginning of a line inside another one, whose rest is missing. (Two tabs and a bracket are the end of a "search
path" line, before which a folder may end in digits and a colon.)"""


def decode_request(mark: bytes) -> Request | None:
    """The inverse of `requests.encode_request`, given a mark without its frame bytes; `None` when it is damaged."""
    try:
        kind, tid, wall, clock, places, flags, *names = mark.decode("ascii").split(" ")
        if b"%" in mark:
            names = [_decode(name) if name.startswith("%") else name for name in names]
        return Request(
            _REQUEST_KINDS[kind], names[0], tuple(names[1:]), int(tid), float(wall), int(clock),
            places=tuple(places.split(",")) if places else (), flags=int(flags) if flags else None,
        )  # fmt: skip
    except (ValueError, LookupError):
        return None


def _decode(text: str) -> str:
    """The inverse of how `encode_request` writes what is not plain."""
    return bytes.fromhex(text[1:]).decode("utf-8", "surrogatepass")


def decode_mark(mark: bytes) -> Request | LogMark | None:
    """The request or mark in the bytes between two frame bytes; `None` when it is damaged."""
    known = _MARKS.get(mark)
    return decode_request(mark) if known is None else known


def split_text(text: bytes) -> Iterator[Request | LogMark | bytes | None]:
    """Yield lines and marks in order; `None` for a damaged mark. A mark inside a line comes before that line.

    A damaged one ends the line: what stands before and behind it may be parts of two.
    """
    begun: list[bytes] = []
    position = 0
    for match in _MARK.finditer(text):
        lines, end, rest = text[position : match.start()].rpartition(b"\n")
        position = match.end()
        if end:
            yield from b"".join((*begun, lines)).split(b"\n")
            begun = []
        begun.append(rest)
        mark = decode_mark(match[1])
        if mark is None:
            yield b"".join(begun)
            begun = []
        yield mark
    yield from b"".join((*begun, text[position:])).split(b"\n")


class SimpleDlopen:
    """A dlopen that mapped one image by its absolute path and needed no other: most extension modules are loaded so.

    Attributes: `start` and `end` of its lines in the text; `request`, the mark before them; `name`, the image; `by`,
    the image that asked; `base` and `size` in memory.
    """

    __slots__ = ("base", "by", "end", "name", "request", "size", "start")

    def __init__(
        self, start: int, end: int, request: Request | None, name: bytes, by: bytes, base: int, size: int
    ) -> None:
        self.start = start
        self.end = end
        self.request = request
        self.name = name.decode("utf-8", "surrogateescape")
        self.by = by.decode("utf-8", "surrogateescape")
        self.base = base
        self.size = size


def find_simple_dlopen(text: bytes, position: int, found: int, line: bytes) -> SimpleDlopen | None:
    """Return the dlopen whose first line has `_REQUESTED` at `found`, with the mark of its request if it has one.

    Arguments: `position`, where the text begins that was not read yet; `line`, the beginning of each line. `None` if
    anything is not as it is in a simple dlopen, which is then read line by line.

    By methods of bytes: a regular expression for it was a third of the cost of decoding.
    """
    start = text.rfind(b"\n", position, found) + 1 or position
    first = line + b"file="
    name, end = text[start + len(first) : found], text.find(b"\n", found)
    by, is_base, _ = text[found + len(_REQUESTED) : end].rpartition(b" [0]")
    mapped = b"\n%bfile=%b [0];  generating link map\n%b" % (line, name, line)
    if not (is_base and text.startswith(first, start) and name[:1] == b"/" and text.startswith(mapped, end)):
        return None
    at = end + len(mapped)
    end = text.find(b"\n", at)
    place = parse_line(text[at:end].decode("utf-8", "surrogateescape"))
    if place.base is None or place.size is None or b";" in name + by or b"[" in name + by:
        return None
    if not text.startswith(line + b"    entry: 0x", end + 1):
        return None
    end = text.find(b"\n", end + 1)
    is_whole = True
    for what in (b"calling init: %b" % name, b"opening file=%b [0]; direct_opencount=1" % name):
        end = _skip_blanks(text, end, line)
        is_whole = is_whole and text.startswith(b"\n" + line + what, end)
        end += 1 + len(line) + len(what)
    # A mark, or a line, inside of a line.
    is_torn = MARK_START in text[start:end] or text.count(b":\t", start, end) != text.count(b"\n", start, end) + 1
    request, start = _find_mark(text, position, start, line + b"\n")
    if start < 0 or is_torn or not is_whole or text[end : end + 1] not in (b"\n", b""):
        return None
    return SimpleDlopen(start, _skip_blanks(text, end, line), request, name, by, place.base, place.size)


def _skip_blanks(text: bytes, end: int, line: bytes) -> int:
    """Return the end of the last of the empty lines behind `end`, the end of a line, that have a line behind them."""
    blank = b"\n" + line + b"\n"
    while text.startswith(blank, end):
        end += len(blank) - 1
    return end


def _find_mark(text: bytes, position: int, start: int, blank: bytes) -> tuple[Request | None, int]:
    """Return the request whose mark stands before the line at `start`, and where both begin; -1 if that is not clear.

    Arguments: as of `find_simple_dlopen`; `blank`, an empty line, which may be between them.
    """
    end = start
    while text.endswith(blank, position, end):
        end -= len(blank)
    if text[end - 1 : end] != MARK_END or end <= position:
        return None, start
    begin = text.rfind(MARK_START, position, end)
    others = text[text.rfind(b"\n", position, begin) + 1 or position : begin]  # of requests that loaded nothing
    mark = _MARK.fullmatch(text, begin, end) if begin >= 0 and not _MARK.sub(b"", others) else None
    request = None if mark is None else decode_request(mark[1])
    return request, -1 if request is None else begin


def _without_blanks(text: bytes, line: bytes) -> bytes:
    """Return the text without the empty lines of a process that have another line of it behind them.

    Nearly half of all lines are empty. They matter as the last line of a process only (`LoaderState.note_blank`).
    """
    blank = b"\n" + line + b"\n"
    while blank in text:
        text = text.replace(blank, b"\n")
    return text


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
        self._is_in_hole = False
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
        if self._is_in_hole:
            data = data.lstrip(b"\0")
        if b"\0" in data:
            changes = []
            for number, part in enumerate(re.split(_HOLE, data)):
                if number:
                    self.resynchronise()
                changes += self.feed(part, wall)
            self._is_in_hole = data.endswith(b"\0")
            return changes
        self._is_in_hole = self._is_in_hole and not data
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
        if self._others or self._pid is None:
            self._read_items(text, wall)
            return
        line = b"%10d:\t" % self._pid  # the width: _dl_debug_vdprintf in elf/dl-printf.c
        position, found = 0, text.find(_REQUESTED)
        while found >= 0:
            dlopen = find_simple_dlopen(text, position, found, line)
            if dlopen is None:
                found = text.find(_REQUESTED, found + 1)
                continue
            if position < dlopen.start:
                self._read_items(_without_blanks(text[position : dlopen.start], line), wall)
            if self._first.can_load_at_once:
                if dlopen.request is not None:
                    self._first.ask(dlopen.request)
                self._first.load_at_once(dlopen.name, dlopen.by, dlopen.base, dlopen.size, wall)
            else:
                self._read_items(text[dlopen.start : dlopen.end], wall)
            position = dlopen.end + 1
            found = text.find(_REQUESTED, position)
        if position < len(text):
            self._read_items(_without_blanks(text[position:], line), wall)

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
            digits = prefix.lstrip(b" ")
            if not is_line or not digits.isdigit() or len(digits) > _MOST_DIGITS:
                self._note_damage()
                return
            pid = int(digits)
            if len(self._pids) < _MOST_PROCESSES:
                self._pids[prefix] = pid
        if b":\t" in rest and (inner := re.search(_SECOND_PREFIX, rest)) is not None:
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
