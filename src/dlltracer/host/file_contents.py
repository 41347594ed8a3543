"""Which files define a symbol or hold a text: libraries that no image lists, and the image whose words were written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator

from ..errors import BinaryFormatError
from .bounded import read_regular_file

_MOST_OF_A_FILE = 32 << 20
_MOST_BYTES = 400 << 20
"""What is read for one question, in all: a second's work."""
_MOST_OF_A_FOLDER = 200
_LIBRARY = re.compile(r"\.so(?:\.\d+)*$")
_SHORTEST_TEXT = 16
"""Characters of a line that no other file has by accident."""
_FILLED_IN = re.compile(r"0x[0-9a-fA-F]+|\d+|/\S+|'[^']*'|\"[^\"]*\"|[^\x20-\x7e]+")
"""What a program puts into a text that it has: numbers, paths, names in quotes."""


def find_definers(
    symbol: str, folders: Iterable[str], others: Iterable[str], *, fits: Callable[[str], bool]
) -> tuple[str, ...]:
    """Return the libraries that define a symbol: those in the folders, else those among `others`.

    Arguments:
        symbol: as the dynamic symbol table has it.
        folders: the likely places.
        others: files of libraries, such as all of ld.so.cache.
        fits: whether a file that has the name in it defines it, and can be loaded.
    """
    wanted = symbol.encode() + b"\0"
    left = _MOST_BYTES
    for paths in (_libraries_in(folders), others):
        found: dict[str, str] = {}
        for path in paths:
            real = os.path.realpath(path)
            if real in found or left <= 0:
                continue
            data = _read(real)
            left -= len(data)
            if wanted in data and fits(path):
                found[real] = path
        if found:
            return tuple(found.values())
    return ()


def find_speaker(lines: Iterable[str], paths: Iterable[str]) -> str | None:
    """Return the one file of `paths` that holds the texts of those lines; `None` if none does, or several do alike.

    Numbers, paths and quoted names are filled in when a text is written, and are not looked for.
    """
    texts = [part.strip().encode() for line in lines for part in _FILLED_IN.split(line)]
    texts = [text for text in texts if len(text) >= _SHORTEST_TEXT]
    left, counts = _MOST_BYTES, dict[str, int]()
    for path in paths if texts else ():
        if left <= 0:
            break
        data = _read(path)
        left -= len(data)
        counts[path] = sum(text in data for text in texts)
    best = max(counts.values(), default=0)
    speakers = [path for path, count in counts.items() if count == best and best]
    return speakers[0] if len(speakers) == 1 else None


def _libraries_in(folders: Iterable[str]) -> Iterator[str]:
    for folder in dict.fromkeys(folders):
        try:
            names = sorted(name for name in os.listdir(folder) if _LIBRARY.search(name))
        except (OSError, ValueError):
            continue
        yield from (f"{folder}/{name}" for name in names[:_MOST_OF_A_FOLDER])


def _read(path: str) -> bytes:
    try:
        return read_regular_file(path, _MOST_OF_A_FILE)
    except (OSError, ValueError, BinaryFormatError):
        return b""
