"""Collects the facts of an interpreter about the exception that ends its program, and about itself. Runs in the
program's process.

Imports nothing that is not there already. The dictionaries have the form of `model.encode`, of `PythonError` and
`ProcessFacts`; `host.failure` reads them.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "CONDA_PREFIX", "VIRTUAL_ENV", "PYTHONHOME")
_LOADER_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES")
_MOST_ERRORS = 16
_MOST_FRAMES = 40


def describe_errors(error: BaseException) -> list[dict[str, Any]]:
    """The exception and those below it (`__cause__`, `__context__`), outermost first."""
    found: list[dict[str, Any]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(found) < _MOST_ERRORS:
        seen.add(id(current))
        found.append(_describe(current))
        current = current.__cause__ or current.__context__
    return found


def _describe(error: BaseException) -> dict[str, Any]:
    code = getattr(error, "winerror", None) or getattr(error, "errno", None)
    frames = []
    where = error.__traceback__
    while where is not None:
        code_object = where.tb_frame.f_code
        frames.append({
            "file": _text(code_object.co_filename), "line": where.tb_lineno or 0, "function": _text(code_object.co_name)
        })  # fmt: skip
        where = where.tb_next
    return {
        "type": _text(type(error).__name__),
        "bases": [_text(base.__name__) for base in type(error).__mro__],
        "message": _text(error),
        "name": _text_or_none(getattr(error, "name", None)),
        "path": _text_or_none(getattr(error, "path", None)),
        "code": int(code) if isinstance(code, int) and abs(code) < 1 << 63 else None,
        "frames": frames[-_MOST_FRAMES:],
    }


def _text(value: object) -> str:
    try:
        return "".join([str(value)])  # of a class derived from str: what marshal cannot write would cost the report
    except Exception:  # noqa: BLE001 - a class of the program's own may do anything
        return ""


def _text_or_none(value: object) -> str | None:
    return _text(value) if isinstance(value, str) else None


def describe_process(added_folders: list[str]) -> dict[str, Any]:
    """Return the facts of this interpreter about itself and its process."""
    # Where importlib.machinery has them from; that package imports `warnings`, and need not be there already.
    suffixes: list[str] = sys.modules["_frozen_importlib_external"].EXTENSION_SUFFIXES
    site = sys.modules.get("site")
    return {
        "system": {"linux": "linux", "win32": "windows"}.get(sys.platform, "other"),
        "version": list(sys.version_info[:3]),
        "suffixes": list(suffixes),
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
        "is_debug": hasattr(sys, "gettotalrefcount"),
        "is_free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
        "executable": sys.executable or "",
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "user_base": _text_or_none(getattr(site, "USER_BASE", None)),
        "path": [_text(entry) for entry in sys.path if isinstance(entry, str)],
        "loaded": _list_loaded(),
        "environment": [[name, os.environ[name]] for name in _VARIABLES if name in os.environ],
        "current_folder": current_folder(),
        "added_folders": list(added_folders),
        "dll_directory": _dll_directory(),
        **_address_space(),
        **_loader_settings(),
    }


_AT_SECURE = 23


def _loader_settings() -> dict[str, Any]:
    """Return the settings that the loader of Linux goes by, which os.environ may not show any more.

    ld.so reads LD_LIBRARY_PATH once, before main (elf/rtld.c, process_envvars): setting it in os.environ reaches child
    processes only. In secure mode it reads none of its variables, and takes them out of the environment
    (sysdeps/generic/unsecvars.h). /proc/self/environ is the environment at the start, proc_pid_environ(5).
    """
    found: dict[str, Any] = {}
    if sys.platform == "linux":
        try:
            with open("/proc/self/environ", "rb") as environ:
                pairs = [part.partition(b"=") for part in environ.read().split(b"\0")]
            start = {os.fsdecode(name): os.fsdecode(value) for name, equals, value in reversed(pairs) if equals}
            found["start_environment"] = [[name, start[name]] for name in _LOADER_VARIABLES if name in start]
        except OSError:
            pass
        found["is_secure"] = _is_secure()
    return found


def _is_secure() -> bool:
    """Return whether the process is in secure mode (getauxval(3), AT_SECURE)."""
    # The environment cannot show it: the loader of such a process removes LD_LIBRARY_PATH from it before Python starts
    # (ld.so(8), "Secure-execution mode"; sysdeps/generic/unsecvars.h of glibc). The auxiliary vector is what the loader
    # itself asks: pairs of words, a type and a value, left by the kernel (proc_pid_auxv(5)).
    if sys.platform != "linux":
        return False
    size = 8 if sys.maxsize > 1 << 32 else 4
    try:
        with open("/proc/self/auxv", "rb") as auxv:
            data = auxv.read()
    except OSError:
        # A process in secure mode may not even read its own /proc files that are for the owner alone: they are root's
        # (PR_SET_DUMPABLE, prctl(2)). The file's capabilities and the two pairs of ids tell it from others.
        if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
            return True
        try:
            return os.getuid() != 0 and bool(os.getxattr(sys.executable, "security.capability"))
        except OSError:
            return False
    numbers = [int.from_bytes(data[at : at + size], sys.byteorder) for at in range(0, len(data) - size + 1, size)]
    return dict(zip(numbers[::2], numbers[1::2], strict=False)).get(_AT_SECURE, 0) != 0


def _address_space() -> dict[str, int]:
    """Bytes in use (proc_pid_statm(5)), and allowed (proc_pid_limits(5)), as far as they can be read."""
    found: dict[str, int] = {}
    if sys.platform == "linux":
        try:
            with open("/proc/self/statm", encoding="ascii") as statm:
                found["address_space"] = int(statm.read().split(" ")[0]) * os.sysconf("SC_PAGE_SIZE")
            with open("/proc/self/limits", encoding="ascii") as limits:
                allowed = [line.split()[3] for line in limits if line.startswith("Max address space ")]
        except (OSError, ValueError, IndexError):
            return found
        if allowed and allowed[0].isdecimal():
            found["address_space_limit"] = int(allowed[0])
    return found


def current_folder() -> str:
    """Return the current folder of this process; "" where it was deleted, or may not be known."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _dll_directory() -> str | None:
    """Return the folder of SetDllDirectoryW: no other process can read it."""
    if sys.platform == "win32":
        try:
            from .windows import read_dll_directory
        except ImportError:  # a Python that cannot load its own _ctypes may be what is asked about
            return None
        return read_dll_directory()
    return None


def _list_loaded() -> list[str]:
    """The files of the images in this process."""
    if sys.platform == "win32":
        try:
            from .windows import list_loaded_images
        except ImportError:  # as above; the debugger has seen them all the same
            return []
        return list(list_loaded_images())
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            lines = [line.rstrip("\n").split(None, 5) for line in maps]
    except OSError:
        return []
    files = (parts[5] for parts in lines if len(parts) == 6 and "x" in parts[1])
    return list(dict.fromkeys(name for name in files if name.startswith("/")))
