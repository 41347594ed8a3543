"""Decodes the NT kernel's reports into plain values: image events, device paths, command lines. Pure.

Source: the Image_Load class and its older versions in wmicore.mof of the Windows Driver Kit ("Image_Load class", MS
Learn). P is the pointer size of the *event* (32-bit Python on 64-bit Windows gets 64-bit payloads); nothing is padded.

    V0          ImageBase P, ModuleSize u32, FileName
    V1          ImageBase P, ImageSize P, ProcessId u32, FileName
    V2, V3      ImageBase P, ImageSize P, ProcessId u32, ImageChecksum u32, TimeDateStamp u32, 4 bytes, DefaultBase P,
                4 x u32, FileName

In V3 the first two of the 4 bytes are SignatureLevel and SignatureType. FileName is UTF-16LE up to a NUL.

Shapes of kernel paths, seen in recordings: a device, `\\SystemRoot\\`, `\\??\\C:\\`, a redirector
(`\\Device\\Mup\\`), and in those of Windows 8 and older one of the system volume without its device
(`\\Windows\\System32\\x.dll`).

A command line is one text. The C runtime splits it into words ("Parsing C command-line arguments", MS Learn;
`subprocess.list2cmdline` is the inverse). A program may split its text in another way.
"""

from __future__ import annotations

import ntpath
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

IMAGE_PROVIDER = bytes.fromhex("1d5db12cc15fd211abe100a0c911f518")
"""{2cb15d1d-5fc1-11d2-abe1-00a0c911f518} as it lies in memory (ImageLoadGuid, evntrace.h)."""

HEADER_SIZE = 112
"""sizeof(EVENT_RECORD) on x64; every field used here lies at the same place on x86."""

_OLDEST = {8: struct.Struct("<QI"), 4: struct.Struct("<II")}
_LAYOUTS = {
    8: (struct.Struct("<QQI"), struct.Struct("<IIBB2xQ16x")),
    4: (struct.Struct("<III"), struct.Struct("<IIBB2xI16x")),
}
"""By the size of a pointer: what every version but the oldest begins with, and what follows in versions 2 and 3."""

_FLAG_32_BIT = 0x20
_FLAG_64_BIT = 0x40


class Opcode(IntEnum):
    """EVENT_TRACE_TYPE_ values of the image provider."""

    UNLOAD = 2
    RUNDOWN_START = 3
    RUNDOWN_END = 4
    LOAD = 10


class ImagePayload(NamedTuple):
    """The payload of an image event, decoded; `None` where its version has no such field."""

    base: int
    size: int
    pid: int | None
    path: str
    checksum: int | None = None
    link_time: int | None = None
    signature_level: int | None = None
    signature_type: int | None = None
    default_base: int | None = None


@dataclass(frozen=True)
class RawRecord:
    """An event as it came: `header` is the EVENT_RECORD (at least its first 88 bytes), `data` the payload."""

    header: bytes
    data: bytes

    @property
    def provider(self) -> bytes:
        """The provider's GUID, as it lies in memory (EVENT_HEADER.ProviderId)."""
        return self.header[24:40]

    @property
    def descriptor(self) -> bytes:
        """The EVENT_DESCRIPTOR: id, version, channel, level, opcode, task, keywords."""
        return self.header[40:56]

    @property
    def version(self) -> int:
        """The version of the event's layout."""
        return self.header[42]

    @property
    def opcode(self) -> int:
        """The opcode, which the classic providers call the type of the event."""
        return self.header[45]

    @property
    def tid(self) -> int:
        """The thread that caused the event."""
        return int.from_bytes(self.header[8:12], "little")

    @property
    def ticks(self) -> int:
        """The time stamp, in ticks of the clock of the session."""
        return int.from_bytes(self.header[16:24], "little", signed=True)

    @property
    def pointer_size(self) -> int:
        """4 or 8, as the event's header says (EVENT_HEADER_FLAG_32_BIT_HEADER, evntcons.h)."""
        return 4 if int.from_bytes(self.header[4:6], "little") & _FLAG_32_BIT else 8


def decode_image_payload(data: bytes, version: int, pointer_size: int) -> ImagePayload | None:
    """Decode the payload of an image event; `None` when it is cut short or is no such payload.

    Arguments: `version` of the event, `pointer_size` (4 or 8). Source: Image_Load, MS Learn.
    """
    head, tail = _LAYOUTS[pointer_size]
    try:
        if version == 0:
            base, size = _OLDEST[pointer_size].unpack_from(data)
            path = _text(data, pointer_size + 4)
            return None if path is None else ImagePayload(base, size, None, path)
        base, size, pid = head.unpack_from(data)
        if version == 1:
            path = _text(data, head.size)
            return None if path is None else ImagePayload(base, size, pid, path)
        checksum, link_time, level, kind, default_base = tail.unpack_from(data, head.size)
    except struct.error:
        return None
    path = _text(data, head.size + tail.size)
    if path is None:
        return None
    if version == 2:
        level = kind = None
    return ImagePayload(base, size, pid, path, checksum, link_time, level, kind, default_base)


def decode_manifest_image(data: bytes, pointer_size: int) -> ImagePayload | None:
    """Decode events 5 (load) and 6 (unload) of Microsoft-Windows-Kernel-Process; `None` when it is cut short.

    Source: its manifest. ImageBase P, ImageSize P, ProcessID u32, ImageCheckSum u32, TimeDateStamp u32, DefaultBase P,
    ImageName, without padding.
    """
    pointer = "Q" if pointer_size == 8 else "I"
    layout = f"<{pointer}{pointer}III{pointer}"
    if len(data) < struct.calcsize(layout):
        return None
    base, size, pid, checksum, link_time, default_base = struct.unpack_from(layout, data)
    path = _text(data, struct.calcsize(layout))
    return None if path is None else ImagePayload(base, size, pid, path, checksum, link_time, default_base=default_base)


def text_at(data: bytes, start: int) -> tuple[str, int] | None:
    """UTF-16 text from `start` to its NUL, and where the NUL ends; `None` if there is no NUL."""
    end = data.find(b"\0\0", start)
    while end >= 0 and (end - start) % 2:
        end = data.find(b"\0\0", end + 1)
    return None if end < 0 else (data[start:end].decode("utf-16-le", "surrogatepass"), end + 2)


def _text(data: bytes, start: int) -> str | None:
    """The UTF-16 text from `start` to its NUL; `None` if there is no NUL, or nothing before it."""
    found = text_at(data, start)
    return found[0] or None if found else None


_REDIRECTORS = ("\\device\\mup\\", "\\device\\lanmanredirector\\")


def display_path(path: str, devices: Mapping[str, str], system_root: str | None) -> str | None:
    """The path with its drive letter or share; `None` where that is not known, or nothing would change.

    Arguments: `devices` maps a device to its drive ("\\Device\\HarddiskVolume3" -> "C:"); `system_root` is the folder
    of Windows ("C:\\Windows").
    """
    lower = path.lower()
    if lower.startswith("\\??\\"):
        return "\\\\" + path[8:] if lower.startswith("\\??\\unc\\") else path[4:]
    for redirector in _REDIRECTORS:
        if lower.startswith(redirector):
            return _share(path[len(redirector) :])
    prefixes = dict(devices)
    if system_root is not None:
        drive, root = ntpath.splitdrive(system_root)
        prefixes |= {"\\SystemRoot": system_root, root: drive + root}
    for prefix, shown in prefixes.items():
        if lower.startswith(prefix.lower() + "\\"):
            return shown + path[len(prefix) :]
    return None


def _share(rest: str) -> str:
    """`[;DfsClient\\][;Z:0123\\]server\\share\\x`, with the parts that only the redirector knows left out."""
    parts = rest.split("\\")
    while parts and (parts[0].startswith(";") or parts[0].lower() == "dfsclient"):
        parts.pop(0)
    return "\\\\" + "\\".join(parts)


def is_same_path(kernel_path: str, shown: str | None, target: str) -> bool:
    """Whether an image's path is the file `target` ("C:\\x\\y.pyd").

    Where the drive of the kernel's path is not known, the rest of the path has to be the same.
    """
    wanted = ntpath.normcase(ntpath.normpath(target))
    if shown is not None:
        return ntpath.normcase(shown) == wanted
    drive, rest = ntpath.splitdrive(wanted)
    return len(drive) == 2 and ntpath.normcase(kernel_path).endswith(rest)


def is_same_name(kernel_path: str, target: str) -> bool:
    """Return whether an image has the base name that LoadLibrary was asked for; ".dll" is added where it has no
    extension ("LoadLibraryW", MS Learn)."""
    name = ntpath.basename(target).lower()
    if name.endswith("."):
        name = name[:-1]
    elif "." not in name:
        name += ".dll"
    return ntpath.basename(kernel_path).lower() == name


def split_command_line(text: str) -> tuple[str, ...]:
    """The words of a command line, the program first."""
    program, rest = _split_program(text.lstrip(" \t"))
    words = [program] if text.strip(" \t") else []
    word: list[str] = []
    is_word = is_quoted = False
    at = 0
    while at < len(rest):
        start = at
        while rest[at : at + 1] == "\\":
            at += 1
        backslashes = at - start
        character = rest[at : at + 1]
        if character == '"':
            word.append("\\" * (backslashes // 2))
            is_word = True
            if backslashes % 2:
                word.append('"')
            elif is_quoted and rest[at + 1 : at + 2] == '"':
                word.append('"')  # two in a quoted part are one of the text
                at += 1
            else:
                is_quoted = not is_quoted
        else:
            word.append("\\" * backslashes)
            is_word = is_word or backslashes > 0
            if character in (" ", "\t") and not is_quoted:
                if is_word:
                    words.append("".join(word))
                word, is_word = [], False
            elif character:
                word.append(character)
                is_word = True
        at += 1
    return (*words, "".join(word)) if is_word else tuple(words)


def _split_program(text: str) -> tuple[str, str]:
    """The first word, for which a backslash means nothing, and the rest."""
    quoted = False
    for at, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character in " \t" and not quoted:
            return text[:at].replace('"', ""), text[at:]
    return text.replace('"', ""), ""
