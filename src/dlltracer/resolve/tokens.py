"""$ORIGIN, $LIB and $PLATFORM, and lists of folders.

Source: ld.so(8) "Dynamic string tokens"; _dl_dst_substitute and fillin_rpath in elf/dl-load.c of glibc.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TOKEN = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM))(?![A-Za-z0-9_])", re.ASCII)


def expand_tokens(text: str, values: Mapping[str, str | None]) -> str | None:
    """Put the values of tokens in.

    Arguments: `values`, of ORIGIN, LIB and PLATFORM.
    Returns the text; `None` when it has a token whose value is `None`, for glibc then drops the whole text. A dollar
    sign before any other word stays.
    """
    if "$" not in text:
        return text
    parts = []
    end = 0
    for match in _TOKEN.finditer(text):
        value = values.get(match[1] or match[2])
        if value is None:
            return None
        parts += [text[end : match.start()], value]
        end = match.end()
    return "".join((*parts, text[end:]))


def expand_folders(elements: Iterable[str], values: Mapping[str, str | None]) -> tuple[str, ...]:
    """The folders that the elements of a search path stand for, each once, in order, with a slash at the end.

    An empty element is the current folder, and stays empty; one that tokens make empty is dropped.
    """
    folders: dict[str, None] = {}
    for element in elements:
        folder = expand_tokens(element, values)
        if folder is None or (element and not folder):
            continue
        if folder:
            folder = f"{folder.rstrip('/')}/"
        folders[folder] = None
    return tuple(folders)
