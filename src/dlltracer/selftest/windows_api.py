"""The calls of Windows that the self-test makes by itself, to compare what dlltracer says with them.

Source: MS Learn, the page of each function.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_int32, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar_p
from typing import Any

if sys.platform != "win32":
    raise ImportError("only for Windows")

from ..capture.windows.system import last_error, open_system_library
from ..model.loader_context import CTYPES_NAME_SEARCH, EXTENSION_MODULE_SEARCH, LoadFlags

IMPORT, BY_NAME, STANDARD = int(EXTENSION_MODULE_SEARCH), int(CTYPES_NAME_SEARCH), 0
"""Flags of LoadLibraryExW: those of `import`, those of ctypes for a bare name, none."""
ALTERED = int(LoadFlags.ALTERED_SEARCH_PATH)
SYSTEM32 = int(LoadFlags.SYSTEM32)

_LONGEST = 32768


class WindowsApi:
    """Functions of kernel32.dll, ntdll.dll and advapi32.dll, by what they are for."""

    def __init__(self) -> None:
        self.kernel32 = open_system_library("kernel32.dll")
        self.ntdll = open_system_library("ntdll.dll")
        self._room = ctypes.create_unicode_buffer(_LONGEST)
        _type(self.kernel32.LoadLibraryExW, c_void_p, c_wchar_p, c_void_p, c_uint32)
        _type(self.kernel32.FreeLibrary, c_int32, c_void_p)
        _type(self.kernel32.GetModuleFileNameW, c_uint32, c_void_p, c_wchar_p, c_uint32)
        _type(self.kernel32.GetModuleHandleW, c_void_p, c_wchar_p)
        _type(self.kernel32.GetCurrentProcess, c_void_p)
        _type(self.kernel32.K32GetMappedFileNameW, c_uint32, c_void_p, c_void_p, c_wchar_p, c_uint32)
        _type(self.kernel32.GetShortPathNameW, c_uint32, c_wchar_p, c_wchar_p, c_uint32)
        _type(self.kernel32.DefineDosDeviceW, c_int32, c_uint32, c_wchar_p, c_wchar_p)
        _type(self.kernel32.SetDllDirectoryW, c_int32, c_wchar_p)
        _type(self.kernel32.QueryPerformanceCounter, c_int32, POINTER(c_uint64))

    def load(self, path: str, flags: int = IMPORT) -> tuple[int, int]:
        """Load an image; its handle and 0, or 0 and Windows' error."""
        handle = self.kernel32.LoadLibraryExW(path, None, flags)
        return (int(handle), 0) if handle else (0, last_error())

    def free(self, handle: int) -> bool:
        """Take back one load of an image."""
        return bool(self.kernel32.FreeLibrary(handle))

    def file_of(self, handle: int) -> str:
        """The path of a loaded image, as the loader has it."""
        return self._room.value if self.kernel32.GetModuleFileNameW(handle, self._room, _LONGEST) else ""

    def find(self, name: str) -> int:
        """The handle of a loaded image; 0 if there is none of that name."""
        return int(self.kernel32.GetModuleHandleW(name) or 0)

    def mapped_name(self, handle: int) -> str:
        """The path of a loaded image, as the kernel has it."""
        process = self.kernel32.GetCurrentProcess()
        done = self.kernel32.K32GetMappedFileNameW(process, handle, self._room, _LONGEST)
        return self._room.value if done else ""

    def short_path(self, path: str) -> str:
        """The path in names of 8.3; the same where the volume has none."""
        return self._room.value if self.kernel32.GetShortPathNameW(path, self._room, _LONGEST) else path

    def counter(self) -> int:
        """The performance counter."""
        ticks = c_uint64()
        self.kernel32.QueryPerformanceCounter(ctypes.byref(ticks))
        return ticks.value

    def is_member(self, group: int) -> bool:
        """Whether the token of this process has a group of BUILTIN (544, 559), and it is enabled."""
        advapi32 = open_system_library("advapi32.dll")
        _type(advapi32.CheckTokenMembership, c_int32, c_void_p, c_void_p, POINTER(c_int32))
        # SID: revision 1, two sub-authorities, authority 5 (NT), 32 (BUILTIN), the group.
        sid = bytes((1, 2, 0, 0, 0, 0, 0, 5)) + (32).to_bytes(4, "little") + group.to_bytes(4, "little")
        found = c_int32()
        if not advapi32.CheckTokenMembership(None, ctypes.create_string_buffer(sid, len(sid)), ctypes.byref(found)):
            return False
        return bool(found.value)

    def version(self) -> tuple[int, int, int]:
        """Major, minor and build by RtlGetVersion, which no manifest changes."""
        info = (c_uint32 * 71)()  # RTL_OSVERSIONINFOW has 276 bytes: five numbers and 128 characters
        info[0] = 276
        self.ntdll.RtlGetVersion(ctypes.byref(info))
        return info[1], info[2], info[3]

    def machines(self) -> tuple[int, int] | None:
        """The machine of this process (0: the native one) and that of Windows; `None` before Windows 10 1511."""
        call = getattr(self.kernel32, "IsWow64Process2", None)
        if call is None:
            return None
        _type(call, c_int32, c_void_p, POINTER(c_uint16), POINTER(c_uint16))
        process, native = c_uint16(), c_uint16()
        if not call(self.kernel32.GetCurrentProcess(), ctypes.byref(process), ctypes.byref(native)):
            return None
        return process.value, native.value

    def peb(self) -> int:
        """The address of this process' environment block (NtQueryInformationProcess); 0 where it is not told."""
        call = self.ntdll.NtQueryInformationProcess
        _type(call, c_int32, c_void_p, c_uint32, c_void_p, c_uint32, c_void_p)
        basic = (c_size_t * 6)()
        done = call(c_void_p(-1), 0, basic, ctypes.sizeof(basic), None)
        return int(basic[1]) if done >= 0 else 0


def _type(function: Any, result: Any, *arguments: Any) -> None:
    function.restype, function.argtypes = result, arguments
