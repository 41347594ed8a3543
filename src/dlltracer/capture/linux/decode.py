"""Decodes glibc's loader log, with the marks that dlltracer wrote into it, into events. Pure: bytes in, values out, on
any system."""

from __future__ import annotations

import re

from ...model.request import Request, RequestKind
from ..marks import FORKED, GAP, MARK_END, MARK_START, OWN_BEGIN, OWN_END
from ..requests import IMPORT
from .lines import Line, parse_line, parse_place
from .loaderstate import Change, LoaderState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .loaderstate import OnStart


_MARKS = {mark[1:-1].decode(): mark for mark in (OWN_BEGIN, OWN_END, FORKED, GAP)}
"""By the text between the two characters of a frame."""

_REQUEST_KINDS = {kind.value: kind for kind in RequestKind}

_MARK_START, _MARK_END = MARK_START.decode(), MARK_END.decode()

# Patterns that few logs need are compiled when they are: that takes longer than to decode a short log.
_HOLE = rb"\0+"

_MOST_DIGITS = 18
"""Of a process id."""

_MOST_PARSED = 4096

_MOST_PROCESSES = 4096
"""Processes that may write into one log, which they have inherited by fork; lines of more are counted as foreign."""

_SECOND_PREFIX = r" *\d{1,18}:\t(?!\t*\()"
"""The beginning of a line inside another one, whose rest is missing. (Two tabs and a bracket are the end of a "search
path" line, before which a folder may end in digits and a colon.)"""


def _line_start(pid: int) -> str:
    """What each line of a process begins with, and an empty one is; the width: _dl_debug_vdprintf in elf/dl-printf.c"""
    return f"{pid:>10}:\t"


def decode_request(mark: str) -> Request | None:
    """The inverse of `marks.encode_request`, given a mark without its frame; `None` when it is damaged."""
    try:
        kind, tid, wall, clock, places, flags, *names = mark.split(" ")
        if "%" in mark:
            names = [_decode(name) if name.startswith("%") else name for name in names]
        return Request(
            _REQUEST_KINDS[kind], names[0], tuple(names[1:]), int(tid), float(wall), int(clock), None, None, None,
            tuple(places.split(",")) if places else (), int(flags) if flags else None,
        )  # fmt: skip
    except (ValueError, LookupError):
        return None


def _decode(text: str) -> str:
    """The inverse of how `encode_request` writes what is not plain."""
    return bytes.fromhex(text[1:]).decode("utf-8", "surrogatepass")


def decode_mark(mark: str) -> Request | bytes | None:
    """The request or mark in the text between the two characters of a frame; `None` when it is damaged."""
    known = _MARKS.get(mark)
    return decode_request(mark) if known is None else known


def split_text(text: str) -> Iterator[Request | bytes | str | None]:
    """Yield lines and marks in order; `None` for a damaged mark. A mark inside a line comes before that line.

    A damaged one ends the line: what stands before and behind it may be parts of two.
    """
    begun, position = "", 0
    for start, end, _ in _find_frames(text):
        mark = text[start + 1 : end]
        if "\n" not in mark:
            lines, is_ended, rest = text[position:start].rpartition("\n")
            if is_ended:
                yield from f"{begun}{lines}".split("\n")
                begun = ""
            begun += rest
            decoded = decode_mark(mark)
            if decoded is None:
                yield begun
                begun = ""
            yield decoded
            position = end + 1
    yield from f"{begun}{text[position:]}".split("\n")


def _find_frames(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield where each mark begins and ends, and where the next one begins, or the text ends."""
    start = text.find(_MARK_START)
    while start >= 0 and (end := text.find(_MARK_END, start)) >= 0:
        following = text.find(_MARK_START, end)
        yield text.rfind(_MARK_START, start, end), end, len(text) if following < 0 else following
        start = following


SimpleDlopen = tuple[str, str, int, int, int, float, tuple[str, ...]]
"""A dlopen for an import that mapped one image by its path and needed no other: most extension modules are loaded so.

The image; the image that asked; base and size in memory; `tid`, `wall` and `imports` as of the `Request`.
"""


class SimpleDlopens:
    """Reads the whole text of a simple dlopen at once, in the log of process `pid`."""

    def __init__(self, pid: int) -> None:
        line = _line_start(pid)
        # The text between the places that have the name of the image, and others that change.
        self._before = f"{line}\n{line}file="
        self._asked = ""
        self._mapped = f" [0];  generating link map\n{line}"
        self._entry = f"\n{line}    entry: 0x"
        self._initialised = f"\n{line}\n{line}\n{line}calling init: "
        self._opened = f"\n{line}\n{line}opening file="
        self._end = f" [0]; direct_opencount=1\n{line}\n"
        self._between = f" [0]\n{line}file="
        self._by = ""

    def read(self, mark: str, lines: str) -> SimpleDlopen | None:
        """Return the dlopen that a mark, without its frame, and all lines behind it show.

        `None` if anything is not as it is in a simple dlopen: then it is read line by line. By methods of strings: a
        regular expression for it costs three times as much.
        """
        parts = mark.split(" ", 7)
        if len(parts) < 8 or parts[0] != IMPORT or parts[4] or parts[5]:
            return None
        _, tid, wall, clock, _, _, name, imports = parts
        opened = f"{self._before}{name}{self._asked}{name}{self._mapped}"
        if not lines.startswith(opened):
            self._read_asker(lines, name)
            opened = f"{self._before}{name}{self._asked}{name}{self._mapped}"
            if not lines.startswith(opened):
                return None
        last = f"{self._initialised}{name}{self._opened}{name}{self._end}"
        mapped, _, entry = lines[len(opened) : -len(last)].partition(self._entry)
        place = parse_place(mapped)
        if place is None or place.base is None or place.size is None or not (entry and lines.endswith(last)):
            return None
        is_torn = "\t" in entry or "\n" in entry or "\n" in mark or "%" in mark
        if is_torn or not name.startswith("/") or _is_ambiguous(name) or not clock.isdecimal():
            return None
        try:
            return name, self._by, place.base, place.size, int(tid), float(wall), tuple(imports.split(" "))
        except ValueError:
            return None

    def _read_asker(self, lines: str, name: str) -> None:
        """Another image asks than for the dlopen before: remember it."""
        first = f"{self._before}{name} [0];  dynamically loaded by "
        by, is_whole, _ = lines[len(first) :].partition(self._between)
        if is_whole and lines.startswith(first) and not _is_ambiguous(by):
            self._by, self._asked = by, f" [0];  dynamically loaded by {by}{self._between}"


def _is_ambiguous(name: str) -> bool:
    """Return whether a line with this name in it may be read otherwise than at once."""
    return ";" in name or "[" in name or "\t" in name or "\n" in name


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
        self._writers: dict[str, LoaderState] = {}
        self._parsed: dict[str, Line] = {}
        self._simple: SimpleDlopens | None = None
        self._blank = "\n" if pid is None else _line_start(pid)
        self._broken = 0
        self._is_in_hole = False
        self.foreign = 0

    @property
    def undecodable(self) -> int:
        """Lines and marks that could not be read."""
        return self._broken + sum(state.undecodable for state in self._states.values() or (self._first,))

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
            self._read(text[:end], wall)
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
        for state in self._states.values() or (self._first,):
            state.resynchronise()

    def _read(self, data: bytes, wall: float | None) -> None:
        # The file system's encoding for every Python this runs on (PEP 383): undecodable bytes survive.
        text = data.decode("utf-8", "surrogateescape")
        if self._others or self._pid is None:
            self._read_items(text, wall)
            return
        simple = self._simple = self._simple or SimpleDlopens(self._pid)
        position = 0
        for start, end, until in _find_frames(text):
            if start == 0 or text[start - 1] == "\n":
                dlopen = simple.read(text[start + 1 : end], text[end + 1 : until])
                if dlopen is not None:
                    if position < start:
                        self._read_items(text[position:start], wall)
                    position = until if self._first.load_at_once(*dlopen, read=wall) else start
        if position < len(text):
            self._read_items(text[position:], wall)

    def _read_items(self, text: str, wall: float | None) -> None:
        for item in split_text(text):
            if isinstance(item, str):
                if item == self._blank:  # nearly half of all lines are empty
                    self._first.note_blank()
                elif item:
                    self._read_line(item, wall)
            elif isinstance(item, Request):
                self._first.ask(item)
            elif item == FORKED:
                self._first.set_running()
            elif item == GAP:
                self._first.resynchronise()
            elif isinstance(item, bytes):
                self._first.set_own(item == OWN_BEGIN)
            else:
                self._note_damage()

    def _read_line(self, item: str, wall: float | None) -> None:
        prefix, is_line, rest = item.partition(":\t")
        state = self._writers.get(prefix)
        if state is None:
            digits = prefix.lstrip(" ")
            if not is_line or not (digits.isascii() and digits.isdigit()) or len(digits) > _MOST_DIGITS:
                self._note_damage()
                return
            state = self._state_of(int(digits))
            if state is not None and len(self._writers) < _MOST_PROCESSES:
                self._writers[prefix] = state
        if "\t" in rest and ":\t" in rest and (inner := [*re.finditer(_SECOND_PREFIX, rest)]):
            # The rest of the first line, and all up to the last one, is missing. The last one is whole.
            for _ in inner:
                self._note_damage()
            self._read_line(rest[inner[-1].start() :], wall)
            return
        if state is None:
            self.foreign += rest != ""
        elif not rest:
            state.note_blank()
        elif not rest.startswith("    entry: "):
            line = self._parsed.get(rest)  # of a program that loads the same again and again, most were parsed before
            if line is None:
                if len(self._parsed) >= _MOST_PARSED:
                    self._parsed.clear()
                line = self._parsed[rest] = parse_line(rest)
            state.handle(line, wall)

    def _state_of(self, pid: int) -> LoaderState | None:
        if not self._states:
            self._pid = self._first.pid = pid
            self._states[pid] = self._first
        state = self._states.get(pid)
        if state is None and self._others and len(self._states) < _MOST_PROCESSES:
            state = self._states[pid] = self._first.forked(pid)
        return state
