"""Decoder of the events that the loader of Windows (ntdll) writes about its own work. Pure: runs on any system.

Sources: "DLL loader tracing from ntdll.dll" in wmicore.mof of the Windows Driver Kit, whose events have the GUID of
images and types above 127; the manifest of Microsoft-Windows-User-Loader; for type 215, which no file describes,
LoaderSnapAssistantTool of microsoft/devhome. P is the pointer size of the event; texts are UTF-16 up to a NUL.

    164, 171, 211        status u64, u8, s8, text       LoaderError, AbnormalTermination, ApiSetUnresolved
    176, 177             new base P, parent base P, reason u32, path    NewDllLoad, NewDllLoadAsData
    192, 193             u64, u8, s8, description, name or path         DllSearchPathExternal, -Internal
    212                  u32, u32, u32, u32, path       DllSearchResults
    213                  u32, then the current, the application's, the DLL's, the loading folder   DllPathSearchResults
    215                  u64, u8, s8, text              a line of the loader's snaps
    User-Loader 3, 8, 10 reason u32, name of the DLL, image of the process (8: the exporting module)
    User-Loader 6, 7, 9  file name                      fatal errors
    User-Loader 11, 12   image of the process, DLL in the current folder, DLL that was found

**None of these has been seen on a real Windows yet**: an event that is not understood is kept as text, and never called
a failure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from ....model.events import FailureKind
from ..image_records import text_at

USER_LOADER = bytes.fromhex("3fb859b046d9134b87ca4292839dc2f2")
"""{b059b83f-d946-4b13-87ca-4292839dc2f2}, Microsoft-Windows-User-Loader, as it lies in memory."""

IMAGE_OPCODES = frozenset({164, 171, 176, 177, 192, 193, 211, 212, 213, 215})
"""Types under the GUID of images that `decode_image_loader` knows."""
USER_LOADER_IDS = frozenset({3, 6, 7, 8, 9, 10, 11, 12})
"""Events of Microsoft-Windows-User-Loader that `decode_user_loader` knows."""

DLL_NOT_FOUND = 0xC0000135
_NOT_FOUND = frozenset({DLL_NOT_FOUND, 0xC0000034, 0xC000003A, 126})
"""STATUS_DLL_NOT_FOUND, _OBJECT_NAME_NOT_FOUND, _OBJECT_PATH_NOT_FOUND (ntstatus.h); ERROR_MOD_NOT_FOUND."""

_SNAP = re.compile(
    r'Unable to load DLL: "(?P<name>[^"]+)", Parent Module: "(?P<parent>[^"]*)", '
    r"Status: 0x(?P<status>[0-9a-fA-F]{1,8})\b"
)
_NO_PARENT = "(null)"


@dataclass(frozen=True)
class FailedLoad:
    """An image could not be loaded. `parent`: path of the one that needed it; `status`, an NTSTATUS; `source`, the kind
    of event that reports it."""

    name: str
    parent: str | None
    status: int
    source: str

    @property
    def kind(self) -> FailureKind:
        return FailureKind.NOT_FOUND if self.status in _NOT_FOUND else FailureKind.REFUSED

    @property
    def reason(self) -> str:
        return f"the loader of Windows: status {self.status:#010x}"


@dataclass(frozen=True)
class NewImage:
    """An image was loaded because of another one, whose base is `parent_base`."""

    base: int
    parent_base: int
    reason: int
    path: str


@dataclass(frozen=True)
class SearchPlacesMessage:
    """Where a name is looked for: `text` is folders with semicolons between them, a folder, or a file."""

    description: str
    text: str


@dataclass(frozen=True)
class SearchHit:
    """A search ended at this file."""

    path: str


@dataclass(frozen=True)
class SearchFolders:
    """The folders of a search by their kinds; empty where it had none."""

    current: str
    application: str
    dll: str
    loading: str


@dataclass(frozen=True)
class LoaderRemark:
    """Text about an error in which no missing image can be recognized."""

    text: str


LoaderMessage = FailedLoad | NewImage | SearchPlacesMessage | SearchHit | SearchFolders | LoaderRemark

_SEARCHES: dict[int, Callable[..., LoaderMessage]] = {
    192: SearchPlacesMessage, 193: SearchPlacesMessage, 212: SearchHit, 213: SearchFolders,
}  # fmt: skip


def decode_image_loader(opcode: int, data: bytes, pointer_size: int) -> LoaderMessage | None:
    """The payload of an event of `IMAGE_OPCODES`; `None` when it is cut short."""
    if opcode in (176, 177):
        layout = struct.Struct("<QQI" if pointer_size == 8 else "<III")
        texts = _texts(data, layout.size, 1)
        return None if texts is None else NewImage(*layout.unpack_from(data), *texts)
    if opcode == 215:
        return _snap(data)
    texts = _texts(data, *{212: (16, 1), 213: (4, 4), 192: (10, 2), 193: (10, 2)}.get(opcode, (10, 1)))
    if texts is None:
        return None
    if opcode in _SEARCHES:
        return _SEARCHES[opcode](*texts)
    status = int.from_bytes(data[:8], "little") & 0xFFFF_FFFF
    if texts[0] and status in _NOT_FOUND:
        return FailedLoad(texts[0], None, status, f"loader {opcode}")
    return LoaderRemark(f"status {status:#010x} {texts[0]}".rstrip())


def decode_user_loader(number: int, data: bytes) -> LoaderMessage | None:
    """The payload of an event of `USER_LOADER_IDS`; `None` when it is cut short."""
    if number in (6, 7, 9):
        texts = _texts(data, 0, 1)
        return None if texts is None else LoaderRemark(f"fatal error while loading {texts[0]}")
    if number in (11, 12):
        texts = _texts(data, 0, 3)
        return None if texts is None else LoaderRemark(f"{texts[1]} is in the current folder; loaded was {texts[2]}")
    texts = _texts(data, 4, 2)
    if texts is None:
        return None
    status = int.from_bytes(data[:4], "little")
    if texts[0] and status in _NOT_FOUND:
        return FailedLoad(texts[0], texts[1] if number == 8 and texts[1] else None, status, f"user loader {number}")
    return LoaderRemark(f"{texts[0]} could not be loaded (reason {status:#x})")


def _snap(data: bytes) -> LoaderMessage | None:
    """Decode a line of the loader's snaps: parts with NULs between them. Most lines are of no use here."""
    if len(data) < 12:
        return None
    even = data[10 : len(data) - len(data) % 2]
    text = even.decode("utf-16-le", "surrogatepass").replace("\0", " ").strip()
    found = _SNAP.search(text)
    if found is None:
        return LoaderRemark("") if " - ERROR" not in text else LoaderRemark(text)
    parent = None if found["parent"] in ("", _NO_PARENT) else plain_path(found["parent"])
    return FailedLoad(found["name"], parent, int(found["status"], 16), "snaps")


def plain_path(path: str) -> str:
    r"""A path without the prefix `\\?\` that the loader puts before some."""
    if path.startswith("\\\\?\\UNC\\"):
        return "\\\\" + path[8:]
    return path.removeprefix("\\\\?\\")


def _texts(data: bytes, start: int, count: int) -> list[str] | None:
    if len(data) < start:
        return None
    texts: list[str] = []
    for _ in range(count):
        found = text_at(data, start)
        if found is None:
            return None
        texts.append(found[0])
        start = found[1]
    return texts
