"""Build what the loader of Windows says of itself, in the layouts of wmicore.mof and of the User-Loader manifest."""

from __future__ import annotations

import struct

from dlltracer.capture.windows.etw.loader_messages import DLL_NOT_FOUND

ERROR, NEW_DLL, SEARCH_PATH, API_SET_UNRESOLVED, FOUND, FOLDERS, SNAPS = 164, 176, 192, 211, 212, 213, 215


def wide(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass") + b"\0\0"


def coded(*texts: str, status: int = DLL_NOT_FOUND) -> bytes:
    """164, 171, 192, 193, 211: a status or address, two bytes, and texts."""
    return struct.pack("<QBb", status, 0, 0) + b"".join(map(wide, texts))


def snap(name: str, parent: str = "(null)", status: int = DLL_NOT_FOUND) -> bytes:
    """215: the line that gflags shows in a debugger; its parts have NULs between them."""
    line = f'LdrpProcessWork - ERROR: Unable to load DLL: "{name}", Parent Module: "{parent}", Status: {status:#x}\n'
    return struct.pack("<QBb", 0, 0, 0) + wide("1ed8:0c80 @ 12843406") + wide(line)


def new_dll(base: int, parent: int, path: str, *, reason: int = 0, pointer_size: int = 8) -> bytes:
    return struct.pack("<QQI" if pointer_size == 8 else "<III", base, parent, reason) + wide(path)


def found(path: str) -> bytes:
    return struct.pack("<IIII", 0, 0, 1, 0) + wide(path)


def folders(current: str = "", application: str = "", dll: str = "", loading: str = "") -> bytes:
    return struct.pack("<I", 0) + b"".join(map(wide, (current, application, dll, loading)))


def failure(name: str, image: str = r"C:\Py\python.exe", reason: int = DLL_NOT_FOUND) -> bytes:
    """User-Loader 3, 8, 10."""
    return struct.pack("<I", reason) + wide(name) + wide(image)
