"""ld.so.cache, as ldconfig writes it, read.

Source: sysdeps/generic/dl-cache.h and elf/cache.c of glibc (struct cache_file, cache_file_new, cache_extension).
"""

from __future__ import annotations

import struct
from functools import lru_cache

from ..errors import BinaryFormatError
from ..model.loader_context import HWCAP_EXTENSION, CacheEntry

OLD_MAGIC = b"ld.so-1.7.0"
NEW_MAGIC = b"glibc-ld.so.cache1.1"
EXTENSION_MAGIC = 0xEAA42174

_OLD_HEADER, _OLD_ENTRY = 16, 12
_NEW_HEADER, _NEW_ENTRY = 48, 24
_SECTION = 16
_HWCAPS_TAG = 1
_LONGEST = 4096
"""PATH_MAX: a longer text is no path."""


@lru_cache(1)
def parse_ld_cache(data: bytes) -> tuple[CacheEntry, ...]:
    """Parse ld.so.cache: the format of glibc 2.2 ("new"), that of libc5 ("old"), or a file with both.

    Arguments: `data`, the whole file. The same again is not parsed again: who asks for many files asks often.
    Returns the entries in its order; of a file with both formats those of the new one, as glibc does.
    Raises `BinaryFormatError` when it is none of them, or damaged.
    """
    if data.startswith(NEW_MAGIC):
        return _parse_new(data, 0)
    if not data.startswith(OLD_MAGIC):
        raise BinaryFormatError(0, "not an ld.so.cache: no known magic")
    order = _order_of_old(data)
    (count,) = struct.unpack_from(f"{order}I", data, 12)
    end = _OLD_HEADER + count * _OLD_ENTRY
    start = (end + 7) & ~7
    if data.startswith(NEW_MAGIC, start):
        return _parse_new(data, start)
    texts = _Texts(data, end)
    rows = struct.iter_unpack(f"{order}III", data[_OLD_HEADER:end])
    return tuple(CacheEntry(texts.at(key), texts.at(value), flags) for flags, key, value in rows)


def _order_of_old(data: bytes) -> str:
    """The byte order for `struct`: the one in which the table fits the file. Nothing in the old format tells it."""
    if len(data) < _OLD_HEADER:
        raise BinaryFormatError(len(data), "ld.so.cache ends inside its header")
    for order in "<>":
        (count,) = struct.unpack_from(f"{order}I", data, 12)
        if _OLD_HEADER + count * _OLD_ENTRY <= len(data):
            return order
    raise BinaryFormatError(12, "ld.so.cache ends inside its table")


def _parse_new(data: bytes, start: int) -> tuple[CacheEntry, ...]:
    if len(data) - start < _NEW_HEADER:
        raise BinaryFormatError(len(data), "ld.so.cache ends inside its header")
    flags = data[start + 28] & 3
    if flags == 1:
        raise BinaryFormatError(start + 28, "ld.so.cache was marked as unusable by the one who wrote it")
    orders = {2: "<", 3: ">"}.get(flags, "<>")  # 0: written before the byte order was kept, by glibc 2.32 or older
    for order in orders:
        (count,) = struct.unpack_from(f"{order}I", data, start + 20)
        end = start + _NEW_HEADER + count * _NEW_ENTRY
        if end <= len(data):
            break
    else:
        raise BinaryFormatError(start + 20, "ld.so.cache ends inside its table")
    texts = _Texts(data, start)
    (extension,) = struct.unpack_from(f"{order}I", data, start + 32)
    subfolders = _subfolders(data, order, extension, texts)
    rows = struct.iter_unpack(f"{order}IIIIQ", data[start + _NEW_HEADER : end])
    entries = []
    for kind, key, value, _, hwcap in rows:
        subfolder = None
        if hwcap & HWCAP_EXTENSION:
            index = hwcap & 0xFFFFFFFF
            if index >= len(subfolders):
                raise BinaryFormatError(start, f"ld.so.cache has no glibc-hwcaps folder number {index}")
            subfolder = subfolders[index]
        entries.append(CacheEntry(texts.at(key), texts.at(value), kind, hwcap, subfolder))
    return tuple(entries)


def _subfolders(data: bytes, order: str, extension: int, texts: _Texts) -> tuple[str, ...]:
    """The names of the glibc-hwcaps folders: a section of the extension (glibc 2.33)."""
    if not extension:
        return ()
    if extension + 8 > len(data):
        raise BinaryFormatError(extension, "the extension of ld.so.cache lies behind its end")
    magic, count = struct.unpack_from(f"{order}II", data, extension)
    if magic != EXTENSION_MAGIC:
        raise BinaryFormatError(extension, "the extension of ld.so.cache has a wrong magic")
    if extension + 8 + count * _SECTION > len(data):
        raise BinaryFormatError(extension, "ld.so.cache ends inside the table of its extension")
    for number in range(count):
        tag, _, offset, size = struct.unpack_from(f"{order}IIII", data, extension + 8 + number * _SECTION)
        if tag != _HWCAPS_TAG:
            continue
        if size % 4 or offset + size > len(data):
            raise BinaryFormatError(offset, "the glibc-hwcaps section of ld.so.cache is damaged")
        return tuple(texts.at(where) for (where,) in struct.iter_unpack(f"{order}I", data[offset : offset + size]))
    return ()


class _Texts:
    """The string table. Texts may share bytes, so what they add up to is bounded, not only each of them."""

    def __init__(self, data: bytes, base: int) -> None:
        self._data = data
        self._base = base
        self._known: dict[int, str] = {}
        self._left = 4 * len(data)

    def at(self, offset: int) -> str:
        text = self._known.get(offset)
        if text is None:
            start = self._base + offset
            end = self._data.find(b"\0", start, start + _LONGEST)
            if end < 0:
                raise BinaryFormatError(start, "a name in ld.so.cache has no end")
            self._left -= end - start
            if self._left < 0:
                raise BinaryFormatError(start, "the names in ld.so.cache are longer than the file")
            text = self._known[offset] = self._data[start:end].decode("utf-8", "surrogateescape")
        return text
