"""Recognizes programs that start Python as another process, which a debugger must then follow. Reads files only.

A launcher is started in place of Python and waits for it. Whoever debugs the launcher alone sees nothing of Python.
"""

from __future__ import annotations

import os
import re

_PYTHON_NAME = re.compile(r"py(w|thonw?|py\w*|manager|wmanager)?[\d.]*t?(-\d+)?\.exe", re.IGNORECASE)
"""py.exe and pyw.exe (PEP 397), those of the install manager (PEP 773), python.exe, and their names with a version."""

_PYTHON_LIBRARY = re.compile(r"(python\d{2,}t?(_d)?|libpypy[\w.-]*)\.dll", re.IGNORECASE)
"""What an interpreter loads, and a launcher never. python3.dll is not it: that one only leads to the other."""

_TAIL = 65_536 + 22
"""Bytes: where the end record of a ZIP archive may lie, whose comment takes up to 65,535 bytes (APPNOTE.TXT 4.3.16)."""

_MARKS = (b"PK\x05\x06", b"UVSC", b"UVPY", b"MEI\x0c\x0b\x0a\x0b\x0e")
"""In the tail of launchers: the end record of a ZIP archive with the script (distlib, pip, setuptools, uv); marks of
uv; the one of PyInstaller, whose program of one file starts itself again."""


def is_python_library(path: str) -> bool:
    """Return whether an image is the library of an interpreter: the process that loads it runs Python."""
    return _PYTHON_LIBRARY.fullmatch(re.split(r"[\\/]", path)[-1]) is not None


def is_launcher(program: str) -> bool:
    """Return whether a program may start Python as another process.

    That is so for py.exe and python.exe without an interpreter's library beside them, and for the entry points of
    packages: a script or an archive at the end of the file, or a script beside it. It is so for every other program in
    the Scripts folder of a virtual environment, too.
    """
    path = program if os.path.splitext(program)[1] else f"{program}.exe"
    if not os.path.isfile(path):
        return False
    folder, name = os.path.split(os.path.abspath(path))
    if _PYTHON_NAME.fullmatch(name):
        return not _has_python_library(folder)
    stem = os.path.join(folder, os.path.splitext(name)[0])
    # conda and older setuptools put the script beside a copy of one launcher, the install manager and scoop a file that
    # names the target.
    beside = (f"{stem}-script.py", f"{stem}-script.pyw", f"{stem}.exe.__target__", f"{stem}.shim")
    if any(map(os.path.exists, beside)) or os.path.exists(os.path.join(os.path.dirname(folder), "pyvenv.cfg")):
        return True
    return _has_mark(path)


def _has_python_library(folder: str) -> bool:
    try:
        return any(map(is_python_library, os.listdir(folder)))
    except OSError:
        return False


def _has_mark(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            tail = file.read(_TAIL)
    except OSError:
        return False
    return any(mark in tail for mark in _MARKS) or _ends_in_script_line(tail)


def _ends_in_script_line(tail: bytes) -> bool:
    """Return whether the last line of a file is `#!` and a program: the script is in another file."""
    start = tail.rstrip(b"\r\n\0 ").rfind(b"#!")
    rest = tail[start:].strip(b"\r\n\0 ")
    return start >= 0 and len(rest) < 1024 and b"python" in rest.lower() and rest.isascii()


def find_behind_redirector(program: str) -> str | None:
    """Return the python.exe that the one of a virtual environment starts as another process; `None` for any other
    program.

    dlltracer then starts that one itself, as the redirector would (PC/venvlauncher.c of CPython) and as multiprocessing
    does.
    """
    folder, name = os.path.split(os.path.abspath(program))
    places = (folder, os.path.dirname(folder)) if os.path.isfile(program) else ()
    for place in places:
        try:
            with open(os.path.join(place, "pyvenv.cfg"), encoding="utf-8", errors="replace") as file:
                settings = [line.partition("=") for line in file]
        except OSError:
            continue
        for key, _, value in settings:
            base = os.path.join(value.strip(), name)
            if key.strip().lower() == "home" and os.path.isfile(base):
                return base
    return None
