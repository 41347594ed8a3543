"""The API set map that Windows keeps in the memory of every process: contracts and the files that implement them.

Layout: API_SET_NAMESPACE and its entries, version 6 (Windows 10 and later), as Windows' symbols and phnt's ntpebteb.h
name them. All offsets count from its start, all lengths are in bytes, the text is UTF-16.
"""

from __future__ import annotations

import struct

from ..errors import BinaryFormatError
from ..model.loader_context import ApiSetHost

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
