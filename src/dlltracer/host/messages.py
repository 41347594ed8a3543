"""The words of this system for its errors: Windows' FormatMessage, and glibc's translations."""

from __future__ import annotations

import gettext
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

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
