"""Questions about Windows and its loader: versions, rights, layouts, error codes, and where a DLL is looked for."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

if sys.platform != "win32":
    raise ImportError("only for Windows")

from ..capture.windows.debugger import bindings as debugging
from ..capture.windows.etw import bindings as etw
from ..capture.windows.image_records import display_path
from ..capture.windows.system import query_dos_devices
from ..host.failure import read_system_texts
from ..host.filesystem import WindowsFiles
from ..host.windows import list_loaded_images, read_api_sets, read_registry_value, read_windows_context
from ..model.loader_context import LoadFlags
from ..resolve.windows import resolve_windows
from .step import Answer, CannotAsk, Question, Room, other_machines, read_image
from .windows_api import ALTERED, IMPORT, STANDARD, SYSTEM32, WindowsApi

_LOADS_SYMBOLS = "it loads what lacks a symbol, and fails at the first call"
_CODES: tuple[tuple[str, str, str, tuple[int, ...], str], ...] = (
    ("a good DLL", "good", "", (0,), ""),
    ("a DLL with its need", "needs-good", "good", (0,), ""),
    ("a missing need", "needs-missing", "", (126,), ""),
    ("no file", "absent", "", (126,), ""),
    ("a missing function", "needs-symbol", "good", (127,), _LOADS_SYMBOLS),
    ("a missing ordinal", "needs-ordinal", "good", (182,), _LOADS_SYMBOLS),
    ("a DllMain that refuses", "refuses", "", (1114,), ""),
    ("a need that refuses", "needs-good", "refuses", (1114,), "it gives 126 for a need"),
    ("a text file", "text", "", (193,), ""),
    ("an empty file", "empty", "", (193,), ""),
    ("a need that is a text file", "needs-good", "text", (193,), "it gives 126 for a need"),
    ("a need without its own need", "needs-good", "needs-missing", (126,), ""),
    ("a forwarder to nowhere", "needs-good", "forwards-nowhere", (126, 127), _LOADS_SYMBOLS),
    ("an absent assembly", "asks-for-assembly", "", (14001,), "it takes no notice of the manifest"),
    ("DependentLoadFlags", "needs-good-from-system", "good", (126,), "it takes no notice of the flags"),
    ("a delayed need", "delays-missing", "", (0,), ""),
    ("an API set", "needs-contract", "", (0,), ""),
)
"""Name, image, what lies beside it under the name that it needs, the code of Windows, how Wine differs."""

_SIZES = {
    "EVENT_TRACE_PROPERTIES": (120, 120), "EVENT_TRACE_LOGFILEW": (448, 416), "TRACE_LOGFILE_HEADER": (280, 272),
    "EVENT_RECORD": (112, 104), "EVENT_HEADER": (80, 80), "EVENT_TRACE": (88, 88), "WNODE_HEADER": (48, 48),
    "EVENT_DESCRIPTOR": (16, 16), "TIME_ZONE_INFORMATION": (172, 172), "PROPERTIES_WITH_NAMES": (4216, 4216),
}  # fmt: skip
_DEBUG_SIZES = {
    "DEBUG_EVENT": (176, 96), "EXCEPTION_RECORD": (152, 80), "EXCEPTION_DEBUG_INFO": (160, 84),
    "CREATE_PROCESS_DEBUG_INFO": (72, 40), "LOAD_DLL_DEBUG_INFO": (40, 24), "OUTPUT_DEBUG_STRING_INFO": (16, 8),
}  # fmt: skip
"""Bytes on x64 and ARM64, and on x86: those of the SDK's headers (evntrace.h, evntcons.h, minwinbase.h)."""

_PLACES: tuple[tuple[str, tuple[str, ...], int, str | None], ...] = (
    ("import: beside the module", ("beside", "added", "path"), IMPORT, "beside"),
    ("import: os.add_dll_directory", ("added", "path", "current"), IMPORT, "added"),
    ("import: PATH is not searched", ("path",), IMPORT, None),
    ("import: the current folder is not searched", ("current",), IMPORT, None),
    ("LoadLibrary: the current folder, then PATH", ("current", "path"), STANDARD, "current"),
    ("LoadLibrary: PATH", ("path",), STANDARD, "path"),
    ("LoadLibrary: not beside the DLL", ("beside",), STANDARD, None),
    ("LoadLibrary, altered: beside the DLL", ("beside", "path"), ALTERED, "beside"),
)
"""Name, the folders with a copy of the need, the flags of the load, the folder whose copy is taken."""


def questions() -> tuple[Question, ...]:
    """Return the questions of the groups "windows", "structures", "codes" and "lookups"."""
    return (
        Question(
            "windows", "version", "RtlGetVersion and the registry name the same build, Python the same Windows",
            _ask_version, on_wine="it has a version for each of them",
        ),
        Question("windows", "rights", "elevation and groups are known", _ask_rights),
        Question("windows", "machine", "process and system: which machine they are for", _ask_machine),
        Question("windows", "clock", "Python's clock is the performance counter", _ask_clock),
        Question("windows", "devices", "the kernel's path of a loaded DLL leads back to its file", _ask_devices),
        Question(
            "windows", "long paths", "a DLL behind 260 characters is loaded by its \\\\?\\ path", _ask_long_path,
            on_wine="it has limits of its own",
        ),
        Question(
            "structures", "of ETW", "as large as in the SDK's headers", lambda room: _ask_sizes(room, etw, _SIZES)
        ),
        Question(
            "structures", "of the debugger", "as large as in the SDK's headers",
            lambda room: _ask_sizes(room, debugging, _DEBUG_SIZES),
        ),
        *(
            Question(
                "codes", name, f"error {' or '.join(map(str, codes))}" if codes != (0,) else "it is loaded",
                _code_question(image, beside, codes), on_wine,
            )
            for name, image, beside, codes, on_wine in _CODES
        ),
        Question("codes", "other machines", "error 193 for each", _ask_machines),
        Question("codes", "an import", "ImportError with the words of error 126", _ask_import),
        Question("codes", "ctypes", "FileNotFoundError for a missing need", _ask_ctypes),
        *(
            Question(
                "lookups", name, "it is not found" if wanted is None else f"the copy in the folder: {wanted}",
                _place_question(places, flags, wanted),
            )
            for name, places, flags, wanted in _PLACES
        ),
        Question("lookups", "SetDllDirectory", "its folder comes before the current one", _ask_dll_directory),
        Question("lookups", "the first of a name wins", "a second copy is not looked at", _ask_first_wins),
        Question("lookups", "KnownDLLs", "all that are loaded are those of System32", _ask_known_dlls),
        Question(
            "lookups", "a copy of a known DLL", "it is not taken", _ask_known_copy, on_wine="it has no known DLLs"
        ),
        Question("lookups", "API sets", "each contract leads to the file that its map names", _ask_api_sets),
    )  # fmt: skip


def _ask_version(room: Room) -> Answer:
    own = sys.getwindowsversion()
    real = WindowsApi().version()
    room.note("platform_version", own.platform_version)
    room.note("version of the manifest", own[:3])
    room.note("RtlGetVersion", real)
    key = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
    registry = ""
    for name in ("CurrentBuildNumber", "UBR", "EditionID", "InstallationType", "DisplayVersion"):
        value = read_registry_value(key, name)
        room.note(name, value)
        registry = str(value) if name == "CurrentBuildNumber" else registry
    # The build of platform_version is that of kernel32.dll, which updates like 22H2 leave as it is (19041, not 19045).
    right = registry == str(real[2]) and own.platform_version[:2] == real[:2]
    return right, f"{'.'.join(map(str, real))}, platform_version {own.platform_version}, registry {registry}"


def _ask_rights(room: Room) -> Answer:
    api = WindowsApi()
    elevated, log_users = etw.is_administrator(), api.is_member(559)
    room.note("elevated", elevated)
    room.note("enabled member of Administrators", api.is_member(544))
    room.note("enabled member of Performance Log Users", log_users)
    return True, f"{'elevated' if elevated else 'not elevated'}{', Performance Log Users' if log_users else ''}"


def _ask_machine(room: Room) -> Answer:
    found = WindowsApi().machines()
    if found is None:
        raise CannotAsk("this Windows has no IsWow64Process2")
    process, native = found
    room.note("bits of this process", 8 * struct.calcsize("P"))
    room.note("process", hex(process))
    room.note("native", hex(native))
    is_wide = struct.calcsize("P") == 8
    right = process in ((0, 0x8664, 0xAA64) if is_wide else (0, 0x14C, 0x1C4)) and (process or native) != 0
    return right, f"process {process:#x} (0: native), Windows {native:#x}"


def _ask_clock(room: Room) -> Answer:
    api, frequency = WindowsApi(), etw.counter_frequency()
    before, own, after = api.counter(), time.perf_counter_ns(), api.counter()
    low, high = before * 10**9 // frequency, after * 10**9 // frequency
    room.note("frequency", frequency)
    room.note("between", f"{low} {own} {high}")
    # One tick more on each side: both are rounded.
    slack = 10**9 // frequency + 1
    return low - slack <= own <= high + slack, f"{frequency} ticks a second"


def _ask_devices(room: Room) -> Answer:
    api, devices = WindowsApi(), query_dos_devices()
    handle, code = api.load(room.place("good", "good.dll"))
    if code:
        return False, f"error {code}"
    kernel, file = api.mapped_name(handle), api.file_of(handle)
    shown = display_path(kernel, devices, os.environ.get("SYSTEMROOT")) or kernel
    room.note("drives", len(devices))
    room.note("shapes of devices", ", ".join(sorted({device.rstrip("0123456789")[:30] for device in devices})))
    room.note("kernel", kernel)
    room.note("shown", shown)
    room.note("loader", file)
    return os.path.samefile(shown, file), f"{kernel} is {shown}"


def _ask_long_path(room: Room) -> Answer:
    api = WindowsApi()
    enabled = read_registry_value(r"SYSTEM\CurrentControlSet\Control\FileSystem", "LongPathsEnabled")
    room.note("LongPathsEnabled", enabled)
    folder = "\\\\?\\" + room.folder
    for _ in range(6):
        folder += "\\" + "long" * 12
        os.mkdir(folder)
    path = f"{folder}\\good.dll"
    with open(path, "wb") as file:
        file.write(read_image("good", _own(), room.letter))
    plain, prefixed = api.load(path[4:]), api.load(path)
    room.note("length", len(path) - 4)
    room.note("code of the plain path", plain[1])
    room.note("code of the \\\\?\\ path", prefixed[1])
    for handle in (plain[0], prefixed[0]):
        if handle:
            room.note("file", len(api.file_of(handle)))
            api.free(handle)
    return not prefixed[1], f"{len(path) - 4} characters: error {plain[1]}, with the prefix {prefixed[1]}"


def _own() -> str:
    from .step import own_machine

    return own_machine()


def _ask_sizes(room: Room, module: object, sizes: dict[str, tuple[int, int]]) -> Answer:
    column = 0 if struct.calcsize("P") == 8 else 1
    wrong = []
    for name, wanted in sizes.items():
        size = ctypes.sizeof(getattr(module, name))
        room.note(name, size)
        wrong += [f"{name} has {size}, not {wanted[column]} bytes"] if size != wanted[column] else []
    return not wrong, "; ".join(wrong) or f"{len(sizes)} structures"


def _write(room: Room, image: str, name: str) -> str:
    """Write an image, or what is none, under a name."""
    if image in ("text", "empty"):
        return room.write(b"" if image == "empty" else b"version https://git-lfs.github.com/spec/v1\n" * 4, name)
    return room.place(image, name)


def _code_question(image: str, beside: str, codes: tuple[int, ...]) -> Callable[[Room], Answer]:
    def ask(room: Room) -> Answer:
        if beside:
            _write(room, beside, room.dependency)
        path = room.path(f"{image}-{room.letter}.dll")
        if image != "absent":
            _write(room, image, f"{image}-{room.letter}.dll")
        handle, code = WindowsApi().load(path)
        room.note("code", code)
        room.note("text", read_system_texts((code,)).get(code) if code else None)
        if handle:
            room.note("file", WindowsApi().file_of(handle))
        return code in codes, f"error {code}" if code else "it is loaded"

    return ask


def _ask_machines(room: Room) -> Answer:
    seen = {}
    for machine in other_machines():
        seen[machine] = WindowsApi().load(room.place("good", f"{machine}-{room.letter}.dll", machine=machine))[1]
        room.note(machine, seen[machine])
    return set(seen.values()) == {193}, ", ".join(f"{machine}: error {code}" for machine, code in seen.items())


def _ask_import(room: Room) -> Answer:
    name = f"dt_module_{room.letter}"
    room.place("needs-missing", f"{name}.pyd")
    sys.path.insert(0, room.folder)
    try:
        __import__(name)
    except ImportError as error:
        words = read_system_texts((126,)).get(126, "")
        room.note("message", error)
        room.note("words of 126", words)
        return bool(words) and words in str(error), str(error)
    finally:
        sys.path.remove(room.folder)
    return False, "it was imported"


def _ask_ctypes(room: Room) -> Answer:
    try:
        ctypes.CDLL(room.place("needs-missing", f"needs-{room.letter}.dll"))
    except OSError as error:
        room.note("message", error)
        room.note("winerror", error.winerror)
        return isinstance(error, FileNotFoundError), f"{type(error).__name__}, winerror {error.winerror}"
    return False, "it was loaded"


@contextmanager
def _arranged(room: Room, places: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """A copy of the need in each of these folders; the process looks there as their names say, during the block."""
    folders = {place: room.path(place, "") for place in ("beside", "added", "path", "current")}
    for place in places:
        room.place("good", place, room.dependency)
    path, current = os.environ.get("PATH", ""), os.getcwd()
    os.environ["PATH"] = folders["path"] + ";" + path
    os.chdir(folders["current"])
    try:
        with os.add_dll_directory(folders["added"]):
            yield folders
    finally:
        os.environ["PATH"] = path
        os.chdir(current)


def _place_question(places: tuple[str, ...], flags: int, wanted: str | None) -> Callable[[Room], Answer]:
    def ask(room: Room) -> Answer:
        with _arranged(room, places) as folders:
            top = room.place("needs-good", "beside", f"top-{room.letter}.dll")
            return _load_and_compare(room, top, flags, folders[wanted] if wanted else None, folders["added"])

    return ask


def _load_and_compare(room: Room, top: str, flags: int, wanted: str | None, added: str) -> Answer:
    """Resolve a load, perform it, and compare both with what is wanted: the need's folder, or that it fails."""
    api = WindowsApi()
    context = read_windows_context(added_folders=(added,), flags=LoadFlags(flags))
    tree = resolve_windows(top, context, WindowsFiles(resources=True))
    predicted = next((binding.path for binding in tree.bindings if binding.need.lower() == room.dependency), None)
    handle, code = api.load(top, flags)
    need = api.find(room.dependency) if handle else 0
    actual = api.file_of(need) if need else None
    room.note("safe search", context.safe_search)
    room.note("code", code)
    room.note("the loader took", actual)
    room.note("the resolver says", predicted)
    if wanted is None:
        return code == 126 and predicted is None, f"error {code}; the resolver says {predicted or 'missing'}"
    right = all(path is not None and os.path.samefile(os.path.dirname(path), wanted) for path in (predicted, actual))
    return right, f"both: {actual}" if right else f"the loader took {actual}, the resolver says {predicted}"


def _ask_dll_directory(room: Room) -> Answer:
    api = WindowsApi()
    with _arranged(room, ("added", "current")) as folders:
        top = room.place("needs-good", "beside", f"top-{room.letter}.dll")
        api.kernel32.SetDllDirectoryW(folders["added"])
        try:
            return _load_and_compare(room, top, STANDARD, folders["added"], folders["path"])
        finally:
            api.kernel32.SetDllDirectoryW(None)


def _ask_first_wins(room: Room) -> Answer:
    api = WindowsApi()
    with _arranged(room, ("beside", "added")) as folders:
        handle, code = api.load(os.path.join(folders["added"], room.dependency))
        if not handle:
            return False, f"the first copy: error {code}"
        top = room.place("needs-good", "beside", f"top-{room.letter}.dll")
        return _load_and_compare(room, top, IMPORT, folders["added"], folders["added"])


def _ask_known_dlls(room: Room) -> Answer:
    context = read_windows_context()
    known = context.known_dlls or frozenset()
    system = os.path.normcase(context.system_folder)
    foreign = [
        path for path in list_loaded_images()
        if os.path.basename(path).lower() in known and os.path.normcase(os.path.dirname(path)) != system
    ]
    room.note("known DLLs", ", ".join(sorted(known)))
    room.note("from elsewhere", ", ".join(foreign))
    if not known:
        raise CannotAsk("this Windows names no known DLLs")
    return not foreign, f"{len(known)} known DLLs, {len(foreign)} loaded from elsewhere"


def _ask_known_copy(room: Room) -> Answer:
    """A copy in the folder of SetDllDirectory comes before System32 for any name that is not known."""
    api, context = WindowsApi(), read_windows_context()
    names = [name for name in sorted(context.known_dlls or ()) if not api.find(name)]
    if not names:
        raise CannotAsk("every known DLL is loaded already")
    name = names[0]
    room.place("good", name)
    api.kernel32.SetDllDirectoryW(room.folder)
    try:
        handle, code = api.load(name, STANDARD)
    finally:
        api.kernel32.SetDllDirectoryW(None)
    file = api.file_of(handle) if handle else ""
    room.note("name", name)
    room.note("code", code)
    room.note("file", file)
    right = bool(file) and os.path.normcase(os.path.dirname(file)) == os.path.normcase(context.system_folder)
    return right, f"{name}: {file or f'error {code}'}"


_MOST_CONTRACTS = 60


def _ask_api_sets(room: Room) -> Answer:
    api, sets = WindowsApi(), read_api_sets()
    if not sets:
        raise CannotAsk("this process has no map of API sets")
    room.note("contracts", len(sets))
    names = sorted(name for name, host in sets.items() if name.startswith("api-ms-win-") and host.host)
    wrong, asked = [], 0
    for name in names[:: max(1, len(names) // _MOST_CONTRACTS)]:
        handle, code = api.load(f"{name}-0.dll", SYSTEM32)  # the map leaves the last number out
        if not handle:
            room.note(name, f"error {code}")
            continue
        asked += 1
        file = os.path.basename(api.file_of(handle)).lower()
        if file != sets[name].host:
            wrong.append(f"{name}: {file}, not {sets[name].host}")
        api.free(handle)
    for text in wrong:
        room.note("wrong", text)
    return not wrong and asked > 0, f"{asked} of {len(sets)} contracts asked, {len(wrong)} lead elsewhere"
