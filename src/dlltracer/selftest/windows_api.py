"""What questions about Windows share: calls that the self-test makes itself, and what both mechanisms must see."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, c_int32, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar_p
from typing import Any

from ..capture.windows.system import last_error, open_system_library
from ..model.events import ImageEvent, LoadEvent, LoadFailedEvent, UnloadEvent
from ..model.loader_context import EXTENSION_MODULE_SEARCH, LoadFlags
from ..model.recording import Recording
from ..trace import Trace
from .step import Answer, Room

if sys.platform != "win32":
    raise ImportError("only for Windows")


IMPORT, STANDARD = int(EXTENSION_MODULE_SEARCH), 0
"""Flags of LoadLibraryExW: those of `import`, none."""
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
        """Return whether the token of this process has a group of BUILTIN (544, 559), and it is enabled."""
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
        """The address of this process' environment block (NtQueryInformationProcess); 0 where it is not known."""
        call = self.ntdll.NtQueryInformationProcess
        _type(call, c_int32, c_void_p, c_uint32, c_void_p, c_uint32, c_void_p)
        basic = (c_size_t * 6)()
        done = call(c_void_p(-1), 0, basic, ctypes.sizeof(basic), None)
        return int(basic[1]) if done >= 0 else 0


def _type(function: Any, result: Any, *arguments: Any) -> None:
    function.restype, function.argtypes = result, arguments


if sys.platform != "win32":
    raise ImportError("only for Windows")



def load_traced(room: Room, backend: str, path: str, *, free: bool = False) -> tuple[Recording, int]:
    """Load a DLL in a trace; what was recorded, and Windows' error."""
    api = WindowsApi()
    trace = Trace(backend=backend, unloads=True)
    with trace:
        handle, code = api.load(path)
        if handle and free:
            api.free(handle)
    assert trace.recording is not None
    note_recording(room, trace.recording)
    room.note("code", code)
    return trace.recording, code


def note_recording(room: Room, recording: Recording) -> None:
    """Note what a trace recorded, as far as it is about the self-test."""
    room.note("mechanism", recording.backend)
    room.note("losses", recording.losses)
    room.note("events", len(recording.events))
    for note in recording.notes:
        room.note("note", note)
    for event in recording.events:
        if isinstance(event, ImageEvent) and _name(event).startswith("dt_"):
            room.note("event", f"{event} (the kernel: {event.path}, base {event.base}, for {event.imports})")


def _name(event: ImageEvent) -> str:
    return os.path.basename(event.shown_path).lower()


def events_of(recording: Recording, path: str) -> list[str]:
    """The kinds of events of a DLL, in order: "load", "failed", "unload"."""
    words = {LoadEvent: "load", LoadFailedEvent: "failed", UnloadEvent: "unload"}
    wanted = os.path.basename(path).lower()
    return [
        words[type(event)] for event in recording.events
        if isinstance(event, LoadEvent | LoadFailedEvent | UnloadEvent) and _name(event) == wanted
    ]  # fmt: skip


def _judge(recording: Recording, path: str, wanted: list[str], *more: tuple[str, list[str]]) -> Answer:
    seen = {os.path.basename(one): events_of(recording, one) for one in (path, *(name for name, _ in more))}
    right = list(seen.values()) == [wanted, *(kinds for _, kinds in more)] and not recording.losses
    return right, "; ".join(f"{name}: {', '.join(kinds) or 'nothing'}" for name, kinds in seen.items())


def ask_good(room: Room, backend: str) -> Answer:
    """A DLL that is loaded and stays."""
    path = room.place("good", f"dt_good_{room.letter}.dll")
    recording, code = load_traced(room, backend, path)
    right, seen = _judge(recording, path, ["load"])
    shown = [event.shown_path for event in recording.loads if _name(event) == os.path.basename(path).lower()]
    return right and code == 0 and os.path.samefile(shown[0], path), seen


def ask_dependency(room: Room, backend: str) -> Answer:
    """A DLL and its need, which lies beside it."""
    need = room.place("good", room.dependency)
    path = room.place("needs-good", f"dt_top_{room.letter}.dll")
    recording, code = load_traced(room, backend, path)
    right, seen = _judge(recording, path, ["load"], (need, ["load"]))
    return right and code == 0, seen


def ask_unload(room: Room, backend: str) -> Answer:
    """A DLL that is loaded and let go: no failure."""
    path = room.place("good", f"dt_free_{room.letter}.dll")
    recording, code = load_traced(room, backend, path, free=True)
    right, seen = _judge(recording, path, ["load", "unload"])
    return right and code == 0, seen


def ask_failed(room: Room, backend: str) -> Answer:
    """A DLL whose need is missing: a load by ctypes, so that the request is known."""
    return _ask_load_that_fails(room, backend, room.place("needs-missing", f"dt_needs_{room.letter}.dll"))


def ask_refused(room: Room, backend: str) -> Answer:
    """A DLL whose DllMain returns FALSE."""
    return _ask_load_that_fails(room, backend, room.place("refuses", f"dt_refuses_{room.letter}.dll"))


def _ask_load_that_fails(room: Room, backend: str, path: str) -> Answer:
    trace = Trace(backend=backend, unloads=True)
    with trace:
        try:
            ctypes.CDLL(path)
        except OSError as error:
            room.note("error", error)
    assert trace.recording is not None
    note_recording(room, trace.recording)
    return _judge(trace.recording, path, ["load", "failed"])


def ask_import(room: Room, backend: str) -> Answer:
    """A module whose file needs a DLL that is missing."""
    name = f"dt_module_{room.letter}"
    path = room.place("needs-missing", f"{name}.pyd")
    sys.path.insert(0, room.folder)
    trace = Trace(backend=backend, unloads=True)
    try:
        with trace:
            __import__(name)
    except ImportError as error:
        room.note("error", error)
    finally:
        sys.path.remove(room.folder)
    assert trace.recording is not None
    note_recording(room, trace.recording)
    right, seen = _judge(trace.recording, path, ["load", "failed"])
    named = [event.imports for event in trace.recording.failures if _name(event) == os.path.basename(path)]
    return right and bool(named) and name in (named[0] or ()), f"{seen}; imports {named}"
