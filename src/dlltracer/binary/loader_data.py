"""Reads data that loaders keep for their searches: ld.so.cache of glibc, and the API set map of Windows.

Source of ld.so.cache: sysdeps/generic/dl-cache.h and elf/cache.c of glibc (struct cache_file, cache_file_new,
cache_extension).

Layout of the API set map: API_SET_NAMESPACE and its entries, version 6 (Windows 10 and later), as Windows' symbols and
phnt's ntpebteb.h name them. All offsets count from its start, all lengths are in bytes, the text is UTF-16.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from ..errors import BinaryFormatError
from ..model.loader_context import HWCAP_EXTENSION, ApiSetHost, CacheEntry

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


_NAMESPACE = struct.Struct("<7I")  # Version, Size, Flags, Count, EntryOffset, HashOffset, HashFactor
_ENTRY = struct.Struct("<6I")  # Flags, NameOffset, NameLength, HashedLength, ValueOffset, ValueCount
_VALUE = struct.Struct("<5I")  # Flags, NameOffset, NameLength, ValueOffset, ValueLength
_VERSION = 6
_VALUES_AT_MOST = 64
"""Values of one contract: Windows 11 has 3 at most."""

HEADER_SIZE = _NAMESPACE.size
SIZE_AT_MOST = 1 << 22
"""The map of Windows 11 has 130 KB."""


def decode_api_set_size(header: bytes) -> int:
    """Bytes of the whole map, from its first `HEADER_SIZE` bytes. Raises `BinaryFormatError` for another version."""
    version, size, *_ = _unpack(_NAMESPACE, header, 0)
    if version != _VERSION or not HEADER_SIZE <= size <= SIZE_AT_MOST:
        raise BinaryFormatError(0, f"an API set map of version {version} and {size} bytes is not known")
    return size


def decode_api_set_map(data: bytes) -> dict[str, ApiSetHost]:
    """Contract, lower case, without ".dll" and its last number (which does not count), to its host.

    Args:
        data: the whole map.

    Raises:
        BinaryFormatError: another version, or it does not fit into its own size.
    """
    size = decode_api_set_size(data)
    if len(data) < size:
        raise BinaryFormatError(len(data), f"an API set map of {size} bytes ends too early")
    _, _, _, count, entries, _, _ = _unpack(_NAMESPACE, data, 0)
    if count > len(data) // _ENTRY.size:
        raise BinaryFormatError(12, f"{count} contracts do not fit")
    found: dict[str, ApiSetHost] = {}
    for index in range(count):
        _, name, _, hashed, values, value_count = _unpack(_ENTRY, data, entries + index * _ENTRY.size)
        found[_text(data, name, hashed)] = _decode_host(data, values, value_count)
    return found


def _decode_host(data: bytes, offset: int, count: int) -> ApiSetHost:
    if count > _VALUES_AT_MOST:
        raise BinaryFormatError(offset, f"{count} hosts of one contract")
    host, exceptions = "", []
    for index in range(count):
        _, name, name_length, value, length = _unpack(_VALUE, data, offset + index * _VALUE.size)
        if name_length:
            exceptions.append((_text(data, name, name_length), _text(data, value, length)))
        else:
            host = _text(data, value, length)
    return ApiSetHost(host, tuple(exceptions))


def _text(data: bytes, offset: int, length: int) -> str:
    raw = data[offset : offset + length]
    if len(raw) != length or length > 1024:
        raise BinaryFormatError(offset, "a name is outside of the map")
    return raw.decode("utf-16-le", "replace").lower()


def _unpack(layout: struct.Struct, data: bytes, offset: int) -> tuple[int, ...]:
    try:
        return layout.unpack_from(data, offset)
    except struct.error:
        raise BinaryFormatError(offset, "the API set map ends too early") from None
