"""Reads the facts about this process and this Windows that its loader goes by.

Sources: MS Learn, the page of each function; "Dynamic-link library search order" for the registry values.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("this module is only for Windows")

import ctypes
import os
import struct
import winreg
from collections.abc import Iterator
from ctypes import c_int32, c_size_t, c_ubyte, c_uint16, c_uint32, c_void_p, c_wchar_p

from ..binary.loader_data import HEADER_SIZE, decode_api_set_map, decode_api_set_size
from ..binary.pe import read_pe
from ..errors import BinaryFormatError
from ..model.loader_context import EXTENSION_MODULE_SEARCH, ApiSetHost, LoadFlags, WindowsContext
from ..model.pe import PeImage

_SYSTEM32_ONLY = 0x800  # LOAD_LIBRARY_SEARCH_SYSTEM32
_SESSION_MANAGER = r"SYSTEM\CurrentControlSet\Control\Session Manager"
_EXECUTION_OPTIONS = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion\Image File Execution Options"
_FIRST_WITH_DEPENDENT_FLAGS = (10, 0, 14393)  # Windows 10 1607
_PATH_ROOM = 32768
_DIRECTORY_QUERY = 1
_SHARED_ASSEMBLIES = ("microsoft.vc", "microsoft.windows.common-controls", "microsoft.windows.gdiplus")
"""What the manifests of programs ask for: the other ten thousand folders in WinSxS are Windows' own components."""


def read_windows_context(
    *, added_folders: tuple[str, ...] = (), flags: LoadFlags = EXTENSION_MODULE_SEARCH
) -> WindowsContext:
    """Return the context of a load in this process, now.

    Args:
        added_folders: of os.add_dll_directory, in order. Windows has no function that lists them: only who has seen the
            calls knows them.
        flags: how the image is going to be loaded.
    """
    program = _ask_module(None)
    image = read_pe(program, resources=True)
    windows_folder = _ask_folder("GetWindowsDirectoryW")
    redirection = f"{program}.local"
    overrides = read_registry_value(_EXECUTION_OPTIONS, "DevOverrideEnable") == 1 and os.path.exists(redirection)
    return WindowsContext(
        image.machine,
        application_folder=os.path.dirname(program),
        # A 32-bit process on 64-bit Windows gets the name "System32", and the files of SysWOW64 for it. Others see the
        # real folder: a debugger, and whoever reads a recording ("File System Redirector", MS Learn).
        system_folder=_ask_folder("GetSystemWow64DirectoryW" if _is_wow64() else "GetSystemDirectoryW"),
        windows_folder=windows_folder,
        current_folder=os.getcwd(),
        path=tuple(part.strip('"') for part in os.environ.get("PATH", "").split(";") if part),
        added_folders=added_folders,
        dll_directory=read_dll_directory(),
        flags=flags,
        safe_search=read_registry_value(_SESSION_MANAGER, "SafeDllSearchMode") != 0,
        known_dlls=frozenset(_list_known_objects() or _list_known_values()),
        api_sets=read_api_sets(),
        loaded=tuple(list_loaded_images()),
        redirection=redirection if overrides else None,
        assemblies=image.resources.assemblies if image.resources else (),
        assembly_folders=tuple(_list_assembly_folders(windows_folder, image)),
        honours_dependent_flags=sys.getwindowsversion().platform_version >= _FIRST_WITH_DEPENDENT_FLAGS,
    )


def list_loaded_images() -> Iterator[str]:
    """Paths of the images in this process, in the order of the loader's list, the program first.

    Those that are unloaded while the list is made are left out.
    """
    kernel32 = _open_kernel32()
    enumerate_modules = kernel32.K32EnumProcessModules
    enumerate_modules.argtypes = (c_void_p, c_void_p, c_uint32, ctypes.POINTER(c_uint32))
    kernel32.GetCurrentProcess.restype = c_void_p
    room = 1024
    while True:
        handles, needed = (c_void_p * room)(), c_uint32()
        if not enumerate_modules(kernel32.GetCurrentProcess(), handles, ctypes.sizeof(handles), ctypes.byref(needed)):
            return
        count = needed.value // ctypes.sizeof(c_void_p)
        if count <= room:
            break
        room = count + 64
    for handle in handles[:count]:
        path = _ask_module(handle)
        if path:
            yield path


def read_api_sets() -> dict[str, ApiSetHost] | None:
    """The API set map of this process; `None` where it has none that we know (before Windows 10).

    It lies in the process' own memory, at PEB.ApiSetMap: the offsets are those of Windows' public symbols (ntdll.pdb).
    """
    ntdll = ctypes.WinDLL("ntdll.dll", winmode=_SYSTEM32_ONLY)
    query = ntdll.NtQueryInformationProcess
    query.argtypes = (c_void_p, c_uint32, c_void_p, c_uint32, ctypes.POINTER(c_uint32))
    query.restype = c_int32
    is_wide = struct.calcsize("P") == 8
    basic = (c_size_t * 6)()  # PROCESS_BASIC_INFORMATION: the second word is PebBaseAddress
    if query(c_void_p(-1), 0, basic, ctypes.sizeof(basic), None) < 0:
        return None
    address = c_size_t.from_address(basic[1] + (0x68 if is_wide else 0x38)).value
    if not address:
        return None
    try:
        size = decode_api_set_size(ctypes.string_at(address, HEADER_SIZE))
        return decode_api_set_map(ctypes.string_at(address, size))
    except BinaryFormatError:
        return None


def _open_kernel32() -> ctypes.CDLL:
    return ctypes.WinDLL("kernel32.dll", use_last_error=True, winmode=_SYSTEM32_ONLY)


def _ask_module(handle: int | None) -> str:
    """Path of a module, `None` for the program; "" if there is none."""
    function = _open_kernel32().GetModuleFileNameW
    function.argtypes = (c_void_p, c_wchar_p, c_uint32)
    room = ctypes.create_unicode_buffer(_PATH_ROOM)
    return room.value if function(handle, room, _PATH_ROOM) else ""


def _ask_folder(name: str) -> str:
    """Return what GetSystemDirectoryW, GetSystemWow64DirectoryW or GetWindowsDirectoryW says."""
    function = getattr(_open_kernel32(), name)
    function.argtypes = (c_wchar_p, c_uint32)
    room = ctypes.create_unicode_buffer(_PATH_ROOM)
    return room.value if function(room, _PATH_ROOM) else ""


def read_dll_directory() -> str | None:
    """The folder that this process has given to SetDllDirectoryW; `None` if there is none (GetDllDirectoryW)."""
    function = _open_kernel32().GetDllDirectoryW
    function.argtypes = (c_uint32, c_wchar_p)
    room = ctypes.create_unicode_buffer(_PATH_ROOM)
    return room.value if function(_PATH_ROOM, room) else None


class _UnicodeString(ctypes.Structure):
    _fields_ = (("Length", c_uint16), ("MaximumLength", c_uint16), ("Buffer", c_wchar_p))


class _ObjectAttributes(ctypes.Structure):
    """OBJECT_ATTRIBUTES (ntdef.h)."""

    _fields_ = (
        ("Length", c_uint32), ("RootDirectory", c_void_p), ("ObjectName", ctypes.POINTER(_UnicodeString)),
        ("Attributes", c_uint32), ("SecurityDescriptor", c_void_p), ("SecurityQualityOfService", c_void_p),
    )  # fmt: skip


class _DirectoryEntry(ctypes.Structure):
    """OBJECT_DIRECTORY_INFORMATION ("NtQueryDirectoryObject", MS Learn)."""

    _fields_ = (("Name", _UnicodeString), ("TypeName", _UnicodeString))


def _list_known_objects() -> list[str]:
    """Return the names of the sections in `\\KnownDlls`, lower case; [] where there is no such directory of objects.

    The loader takes known DLLs from there ("Windows Internals"). The registry holds what the session manager started
    with: without the dependencies that it has added, and with names that it left out. A 32-bit process on 64-bit
    Windows has a directory of its own.
    """
    name = "\\KnownDlls32" if _is_wow64() else "\\KnownDlls"
    ntdll = ctypes.WinDLL("ntdll.dll", winmode=_SYSTEM32_ONLY)
    open_directory, query, close = ntdll.NtOpenDirectoryObject, ntdll.NtQueryDirectoryObject, ntdll.NtClose
    open_directory.argtypes = (ctypes.POINTER(c_void_p), c_uint32, ctypes.POINTER(_ObjectAttributes))
    query.argtypes = (
        c_void_p, c_void_p, c_uint32, c_ubyte, c_ubyte, ctypes.POINTER(c_uint32), ctypes.POINTER(c_uint32),
    )  # fmt: skip
    close.argtypes = (c_void_p,)
    open_directory.restype = query.restype = c_int32
    text = _UnicodeString(2 * len(name), 2 * len(name) + 2, name)
    attributes = _ObjectAttributes(ctypes.sizeof(_ObjectAttributes), None, ctypes.pointer(text), 0x40, None, None)
    handle, position, used = c_void_p(), c_uint32(), c_uint32()
    if open_directory(ctypes.byref(handle), _DIRECTORY_QUERY, ctypes.byref(attributes)) < 0:
        return []
    room = ctypes.create_string_buffer(4096)
    found: list[str] = []
    try:
        # One entry a call: Wine 8 knows no other way.
        while query(handle, room, len(room), 1, 0, ctypes.byref(position), ctypes.byref(used)) >= 0:
            entry = _DirectoryEntry.from_buffer(room)
            if _text_of(entry.TypeName) == "Section":
                found.append(_text_of(entry.Name).lower())
    finally:
        close(handle)
    return found


def _text_of(string: _UnicodeString) -> str:
    """Return the text of a UNICODE_STRING, which need not end in a NUL."""
    address = c_void_p.from_buffer(string, _UnicodeString.Buffer.offset).value
    return ctypes.string_at(address, string.Length).decode("utf-16-le", "replace") if address else ""


def _is_wow64() -> bool:
    """Return whether this is a 32-bit process on 64-bit Windows (IsWow64Process, MS Learn)."""
    kernel32, answer = _open_kernel32(), c_int32()
    kernel32.GetCurrentProcess.restype = c_void_p
    kernel32.IsWow64Process.argtypes = (c_void_p, ctypes.POINTER(c_int32))
    return bool(kernel32.IsWow64Process(kernel32.GetCurrentProcess(), ctypes.byref(answer)) and answer.value)


def _list_known_values() -> Iterator[str]:
    """Yield the names of the registry's list of known DLLs, lower case."""
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{_SESSION_MANAGER}\KnownDLLs") as key:
            for index in range(winreg.QueryInfoKey(key)[1]):
                _, value, _ = winreg.EnumValue(key, index)
                if isinstance(value, str) and value.lower().endswith(".dll"):
                    yield value.lower()
    except OSError:
        return


def read_registry_value(key: str, name: str) -> object:
    """Return a value of a key of HKEY_LOCAL_MACHINE; `None` if there is none, or it may not be read."""
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
            value: object = winreg.QueryValueEx(opened, name)[0]
            return value
    except OSError:
        return None


def _list_assembly_folders(windows_folder: str, image: PeImage) -> Iterator[str]:
    try:
        names = os.listdir(os.path.join(windows_folder, "WinSxS"))
    except OSError:
        return
    asked = {reference.name.lower() for reference in (image.resources.assemblies if image.resources else ())}
    for name in names:
        rest = name.lower().partition("_")[2]
        if rest.startswith((*_SHARED_ASSEMBLIES, *asked)):
            yield name
