"""What an exception's parameters lead to: the DLL that a delayed load wanted, the type of a C++ exception. Pure.

Whoever raises these exceptions leaves pointers in EXCEPTION_RECORD.ExceptionInformation; a debugger follows them in the
memory of the process. All of it is the program's own memory: every pointer may be anything, and every text is bounded.

Sources: DelayLoadInfo of delayimp.h (Visual C++; mingw's helper fills the same); _ThrowInfo, CatchableType and
TypeDescriptor of ehdata.h, whose addresses are offsets from the base of an image in 64-bit code; __cxa_exception of the
Itanium C++ ABI and unwind-seh.c of libgcc, which throws with one parameter, the address of its _Unwind_Exception.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .bindings import EXCEPTION_RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[int, int], bytes]
    """Returns up to so many bytes at an address of the process; fewer where memory ends."""

DELAY_LOAD = (0xC06D007E, 0xC06D007F)
"""VcppException(ERROR_SEVERITY_ERROR, ERROR_MOD_NOT_FOUND or ERROR_PROC_NOT_FOUND) of delayimp.h."""
VISUAL_CPP = 0xE06D7363
GNU_CPP = 0x20474343
"""STATUS_GCC_THROW of libgcc's unwind-seh.c: "GCC" with the bit of programs' own codes."""

_LONGEST_TEXT = 512
_MOST_TYPES = 32
_THROW_MAGIC = range(0x19930520, 0x19930530)
_PACKED = {8: struct.Struct("<Q"), 4: struct.Struct("<I")}
_DELAY_SIZES = {72: 8, 36: 4}
"""sizeof(DelayLoadInfo), its first field, to the size of its pointers."""
_STANDARD = ("St13runtime_error", "St11logic_error", "St16invalid_argument", "St12domain_error", "St12length_error",
             "St12out_of_range", "St11range_error", "St14overflow_error", "St15underflow_error")  # fmt: skip
"""Names of libstdc++'s types that have their text right behind the pointer to their functions."""


@dataclass(frozen=True)
class ExceptionFacts:
    """What is known of an exception besides its code. A field is `None` where it could not be read.

    Attributes:
        wanted, wanted_symbol: the DLL, and the function ("ordinal 7" without a name), that a delayed load asked for.
        requester: an address in the image whose delayed load that was.
        reason: the error of Windows with which that failed.
        thrown: the type of a C++ exception as its compiler spells it.
        message: the text of a C++ exception.
    """

    wanted: str | None = None
    wanted_symbol: str | None = None
    requester: int | None = None
    reason: int | None = None
    thrown: str | None = None
    message: str | None = None


def read_exception_facts(record: EXCEPTION_RECORD, read: Reader) -> ExceptionFacts:
    """Return the facts that a record leads to; no facts for an exception of another kind."""
    count = min(record.NumberParameters, len(record.ExceptionInformation))
    parameters = tuple(record.ExceptionInformation[:count])
    if record.ExceptionCode in DELAY_LOAD and parameters:
        return _read_delay_load(parameters[0], read)
    if record.ExceptionCode == VISUAL_CPP and len(parameters) >= 3 and parameters[0] in _THROW_MAGIC:
        return _read_visual_cpp(parameters, read)
    if record.ExceptionCode == GNU_CPP and parameters:
        return _read_gnu_cpp(parameters[0], read)
    return ExceptionFacts()


def _read_delay_load(at: int, read: Reader) -> ExceptionFacts:
    width = _DELAY_SIZES.get(_number(read, at, 4) or 0)
    if width is None:
        return ExceptionFacts()
    library = _text(read, _number(read, at + 3 * width, width))
    # DelayLoadProc: whether it is by name, then the name or the ordinal; both in a pointer's room.
    is_name, procedure = _number(read, at + 4 * width, 4), _number(read, at + 5 * width, width)
    symbol = _text(read, procedure) if is_name else f"ordinal {procedure & 0xFFFF}" if procedure else None
    reason = _number(read, at + 8 * width, 4)
    # The description of the delayed import, its second field, lies in the image that has the import.
    return ExceptionFacts(library, symbol, _number(read, at + width, width), reason or None)


def _read_visual_cpp(parameters: tuple[int, ...], read: Reader) -> ExceptionFacts:
    """Read the type from _ThrowInfo. 64-bit code gives a fourth parameter, the base that its addresses count from."""
    thrown, info = parameters[1:3]
    base = parameters[3] if len(parameters) > 3 else 0
    width = 8 if len(parameters) > 3 else 4
    offset = _number(read, info + 12, 4)
    types = base + offset if offset else 0
    names: list[str] = []
    for index in range(min(_number(read, types, 4) or 0, _MOST_TYPES)):
        catchable = _number(read, types + 4 + 4 * index, 4)
        descriptor = _number(read, base + catchable + 4, 4) if catchable else None
        name = _text(read, base + descriptor + 2 * width) if descriptor else None
        if name:
            names.append(name)
    message = None
    if any(name.startswith(".?AVexception@std@@") for name in names):
        # std::exception of vcruntime_exception.h: the table of functions, then the pointer to what().
        message = _text(read, _number(read, thrown + width, width))
    return ExceptionFacts(thrown=names[0] if names else None, message=message)


def _read_gnu_cpp(unwind: int, read: Reader) -> ExceptionFacts:
    """Read the type from the __cxa_exception before the _Unwind_Exception: its first field, 10 words up (x86-64)."""
    # The exception class, a number: "GNUCC++" and 0, 1 for one that only refers to another (std::rethrow_exception).
    if read(unwind, 8) != b"GNUCC++\0"[::-1]:
        return ExceptionFacts()
    type_info = _number(read, unwind - 80, 8)
    name = _text(read, _number(read, type_info + 8, 8)) if type_info else None
    message = None
    if name in _STANDARD:
        # The object follows _Unwind_Exception: two words and six private ones (unwind.h, SEH).
        message = _text(read, _number(read, unwind + 64 + 8, 8))
    # A name that begins with * is compared by address, so its spelling may repeat (type_info::name in libstdc++).
    return ExceptionFacts(thrown=name.removeprefix("*") if name else None, message=message)


def _number(read: Reader, at: int | None, width: int) -> int | None:
    if at is None or at <= 0:
        return None
    data = read(at, width)
    return int(_PACKED[width].unpack(data)[0]) if len(data) == width else None


def _text(read: Reader, at: int | None) -> str | None:
    """Return a NUL-terminated text; `None` for none, an empty or an endless one, or one with control characters."""
    if not at:
        return None
    data = b""
    # In small pieces: the end of a text may lie close to the end of readable memory.
    while b"\0" not in data and len(data) < _LONGEST_TEXT:
        part = read(at + len(data), 64)
        if not part:
            return None
        data += part
    text, mark, _ = data.partition(b"\0")
    decoded = text.decode("utf-8", "replace")
    return decoded if mark and decoded and decoded.isprintable() else None
