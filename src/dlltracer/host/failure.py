"""Reads what other processes know of a failure: facts, Windows' code for a file, translated messages.

An ImportError has a message in the language of the user, and no code of Windows. Where the message is not known,
`reload_code` asks another process for the code. That process starts with nothing loaded, so a load that fails only
after others may succeed in it.
"""

from __future__ import annotations

import gettext
import linecache
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence

from ..model.decode import DamagedRecording, decode
from ..model.failure import Frame, ProcessFacts, PythonError
from ..model.light import replace
from .facts import describe_process


def read_errors(errors: object) -> tuple[PythonError, ...]:
    """The exceptions in what `host.facts.describe_errors` made; () if it is nothing of the kind."""
    try:
        found: tuple[PythonError, ...] = decode(tuple[PythonError, ...], errors, "errors")
    except DamagedRecording:
        return ()
    return tuple(replace(error, frames=tuple(_own_frames(error.frames))) for error in found)


def read_process(process: object) -> ProcessFacts | None:
    """The process in what `host.facts.describe_process` made; `None` if it is nothing of the kind."""
    try:
        found: ProcessFacts = decode(ProcessFacts, process, "process")
    except DamagedRecording:
        return None
    return found


def this_process() -> ProcessFacts:
    """The same facts about the running interpreter, for a program that died before it could tell."""
    found: ProcessFacts = decode(ProcessFacts, describe_process([]), "process")
    return found


def _own_frames(frames: tuple[Frame, ...]) -> Iterator[Frame]:
    """The frames of the program, with the text of each line."""
    for frame in frames:
        if not _is_machinery(frame.file):
            yield replace(frame, source=linecache.getline(frame.file, frame.line).strip() or None)


def _is_machinery(file: str) -> bool:
    """Return whether a frame is ours or the import system's: nobody looks for a cause there."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return file.startswith("<frozen importlib") or os.path.dirname(os.path.dirname(file)) == folder


# A free-threaded Python shows the thread that died only, as "Stack" (Python/traceback.c, Modules/faulthandler.c).
_HEAD = re.compile(r"^(?:(?:Current thread|Thread) 0x[0-9a-f]+.*|Stack) \(most recent call first\):$")
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
_ESCAPED = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(000[0-9a-f]{5}|0010[0-9a-f]{4}))")
_MOST = 100


def read_fault_frames(output: str, *, hidden: str = "", main: bool = False) -> tuple[Frame, ...]:
    """The lines of the thread that died, outermost first.

    Arguments:
        output: what the program wrote; the format is that of CPython's Python/traceback.c.
        hidden: frames of files below this folder are left out.
        main: no thread died; the lines of the main thread are wanted. It is the last one, since CPython puts new
            threads first in its list (Python/pystate.c).
    """
    lines = output.splitlines()
    starts = [number for number, line in enumerate(lines) if _HEAD.match(line)]
    current = [number for number in starts if main or lines[number].startswith(("Current thread", "Stack"))]
    frames: list[Frame] = []
    for line in lines[current[-1] + 1 :][:_MOST] if current else ():
        found = _FRAME.match(line)
        if found is None:
            break
        file = _unescaped(found[1])
        if not (hidden and file.startswith(hidden)):
            number = int(found[2])
            frames.append(Frame(file, number, found[3], linecache.getline(file, number).strip() or None))
    return tuple(frames[::-1])


def _unescaped(file: str) -> str:
    r"""Return the name of a file that CPython wrote in ASCII: "\xe9.py" is "é.py" where there is that file alone.

    A backslash itself is written as it is (_Py_DumpASCII, Python/traceback.c), so the text alone does not decide.
    """
    name = _ESCAPED.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), file)
    return name if name != file and not os.path.lexists(file) and os.path.lexists(name) else file


FORMAT_MESSAGE_IGNORE_INSERTS = 0x200
FORMAT_MESSAGE_FROM_SYSTEM = 0x1000
LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800
LOCALES = "/usr/share/locale"
"""Where glibc has its translations, on every distribution."""


def read_system_texts(codes: Iterable[int]) -> dict[int, str]:
    """Return Windows' text for each code in the language of the user, "%1" left in; {} on other systems.

    CPython formats its messages by the same call with the same language (0).
    Source: FormatMessageW, MS Learn.
    """
    if sys.platform != "win32":
        return {}
    import ctypes  # not above: on Linux a Python whose ctypes cannot load may be what is asked about

    kernel32 = ctypes.WinDLL("kernel32.dll", winmode=LOAD_LIBRARY_SEARCH_SYSTEM32)
    call = kernel32.FormatMessageW
    call.argtypes = (
        ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_wchar_p, ctypes.c_uint32,
        ctypes.c_void_p,
    )  # fmt: skip
    call.restype = ctypes.c_uint32
    room = ctypes.create_unicode_buffer(2048)
    found: dict[int, str] = {}
    for code in codes:
        flags = FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS
        if call(flags, None, code & 0xFFFFFFFF, 0, room, len(room), None):
            found[code] = room.value.strip()
    return found


def read_loader_translations(messages: Iterable[str], languages: list[str] | None = None) -> dict[str, str]:
    """Translated message of glibc to the English one, for those of `messages` that are translated.

    A program that called setlocale gets the loader's messages in its language.

    Arguments:
        languages: locale names, the best first; `None` for those that the environment asks for.
    """
    catalogue = gettext.translation("libc", LOCALES, languages, fallback=True)
    pairs = ((catalogue.gettext(message), message) for message in messages)
    return {translated: message for translated, message in pairs if translated != message}


LOADED = 0
"""The code of a load that succeeded."""

_TIMEOUT = 30.0
_NO_MESSAGE_BOXES = 0x1 | 0x2
"""SEM_FAILCRITICALERRORS, about a damaged or missing file, and SEM_NOGPFAULTERRORBOX, about a crash (SetErrorMode)."""

_SCRIPT = """\
import ctypes, os, sys
kernel32 = ctypes.WinDLL("kernel32.dll", use_last_error=True, winmode=0x800)
kernel32.SetErrorMode({mode})
for folder in sys.argv[3:]:
    try:
        os.add_dll_directory(folder)
    except OSError:
        pass
load = kernel32.LoadLibraryExW
load.argtypes, load.restype = (ctypes.c_wchar_p, ctypes.c_void_p, ctypes.c_uint32), ctypes.c_void_p
code = 0 if load(sys.argv[1], None, int(sys.argv[2])) else ctypes.get_last_error()
sys.stdout.write(f"code {{code}}.")
sys.stdout.flush()
os._exit(0)
"""


def reload_code(python: str, path: str, flags: int, added_folders: Sequence[str] = ()) -> int | None:
    """Return the error code of LoadLibraryExW(path, 0, flags) in a fresh process; `LOADED` if it succeeds.

    Arguments: `python`, the interpreter to do it in; `added_folders`, for os.add_dll_directory.
    Returns `None` where that cannot be found out: the process died or hung, or this is not Windows.
    """
    if sys.platform != "win32":
        return None
    script = _SCRIPT.format(mode=_NO_MESSAGE_BOXES)
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", script, path, str(flags), *added_folders],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_answer(done.stdout)


def parse_answer(output: bytes) -> int | None:
    """Return the code in the output of the other process; the DLL may have written before it."""
    _, mark, rest = output.rpartition(b"code ")
    number = rest.partition(b".")[0]
    return int(number) if mark and number.isdigit() else None
