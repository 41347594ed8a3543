"""Opens the system DLLs that every mechanism of Windows needs. They are opened from System32 only: we may run as
Administrator, and a DLL of the same name beside the program must not be taken. Importable on any system."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import c_uint16, c_uint32, c_void_p, c_wchar_p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...model.request import Request

_LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800
_LOAD_LIBRARY_AS_IMAGE_RESOURCE = 0x20
_DONT_RESOLVE_DLL_REFERENCES = 0x1

RARELY_LOADED = ("lz32.dll", "sfc.dll", "msimg32.dll")
"""Small DLLs that every Windows has and few programs load: for `cause_image_event`."""


def open_system_library(name: str) -> ctypes.CDLL:
    """Open a DLL of Windows. Raises `OSError` on other systems, and where there is no such DLL."""
    if sys.platform == "win32":
        return ctypes.WinDLL(name, use_last_error=True, winmode=_LOAD_LIBRARY_SEARCH_SYSTEM32)
    raise OSError(f"{name} exists on Windows only")


def last_error() -> int:
    """Return the Windows error that the last call into a library of `open_system_library` left."""
    if sys.platform == "win32":
        return ctypes.get_last_error()
    return 0


def query_dos_devices() -> dict[str, str]:
    """Return the drive of each device, as `{"\\Device\\HarddiskVolume3": "C:"}` (QueryDosDeviceW). Raises `OSError`."""
    if sys.platform != "win32":
        return {}
    query = open_system_library("kernel32.dll").QueryDosDeviceW
    query.argtypes, query.restype = (c_wchar_p, c_void_p, c_uint32), c_uint32
    room = (c_uint16 * 1024)()
    found: dict[str, str] = {}
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        if query(f"{letter}:", room, len(room)):
            device = bytes(room).decode("utf-16-le", "surrogatepass").split("\0", 1)[0]
            found.setdefault(device, f"{letter}:")
    return found


def make_module_counter() -> Callable[[], int]:
    """Return what counts the modules of this process (K32EnumProcessModules, MS Learn). Raises `OSError`."""
    if sys.platform != "win32":
        return lambda: 0
    kernel32 = open_system_library("kernel32.dll")
    enumerate_modules = kernel32.K32EnumProcessModules
    enumerate_modules.argtypes = (c_void_p, c_void_p, c_uint32, c_void_p)
    this_process, needed = c_void_p(-1), c_uint32()

    def count() -> int:
        # Without room for the modules it says how many bytes there must be.
        enumerate_modules(this_process, None, 0, ctypes.byref(needed))
        return needed.value // ctypes.sizeof(c_void_p)

    return count


def cause_image_event(*, as_resource: bool) -> bool:
    """Map a DLL of Windows that no program needs, and unmap it: the kernel reports both. `False` if none was free.

    Argument: `as_resource`, map it as resources only. Otherwise it is loaded, without its dependencies and its code.
    Raises `OSError`.
    """
    if sys.platform != "win32":
        return False
    kernel32 = open_system_library("kernel32.dll")
    kernel32.GetModuleHandleW.argtypes, kernel32.GetModuleHandleW.restype = (c_wchar_p,), c_void_p
    kernel32.LoadLibraryExW.argtypes = (c_wchar_p, c_void_p, c_uint32)
    kernel32.LoadLibraryExW.restype = c_void_p
    kernel32.FreeLibrary.argtypes = (c_void_p,)
    kernel32.GetSystemDirectoryW.argtypes = (c_void_p, c_uint32)
    room = (c_uint16 * 300)()
    length = kernel32.GetSystemDirectoryW(room, len(room))
    folder = bytes(room).decode("utf-16-le", "surrogatepass")[:length]
    for name in RARELY_LOADED:
        if kernel32.GetModuleHandleW(name):
            continue  # one that is loaded would not be mapped again
        flags = _LOAD_LIBRARY_AS_IMAGE_RESOURCE if as_resource else _DONT_RESOLVE_DLL_REFERENCES
        handle = kernel32.LoadLibraryExW(f"{folder}\\{name}", None, flags)
        if handle:
            kernel32.FreeLibrary(handle)
            return True
    return False


def with_final_path(request: Request, cwd: str | None = None) -> Request:
    """Return a request for an extension module with the path that a debugger gets: no links, short names or SUBST.

    Argument: `cwd`, the current folder of the process that asked; ours if `None`.
    """
    from dataclasses import replace  # this module is part of a light start (docs/adr/0003)

    from ...model.request import RequestKind

    if request.kind is not RequestKind.EXTENSION:
        return request
    path = os.path.join(cwd or "", request.target)
    try:
        return replace(request, target=os.path.realpath(path))
    except OSError:  # a path of 260 characters or more: Windows does not open what it cannot load either
        return request
