"""The code that Windows gives for a file: loaded once more, in a Python of its own, by the same call as `import`.

An ImportError has words in the language of the user and no code. Where those are not known, this is the way to it.
It is another process, with nothing loaded before: a load that fails only after others may succeed in it.
"""

from __future__ import annotations

import gettext
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


FORMAT_MESSAGE_IGNORE_INSERTS = 0x200
FORMAT_MESSAGE_FROM_SYSTEM = 0x1000
LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800
LOCALES = "/usr/share/locale"
"""Where glibc has its translations, on every distribution."""


def read_system_texts(codes: Iterable[int]) -> dict[int, str]:
    """What Windows says for each code in the language of the user, "%1" left in; {} on other systems.

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
