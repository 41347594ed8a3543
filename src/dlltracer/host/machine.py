"""This machine: its system, its distribution, and a few words about it for people."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
from dataclasses import dataclass, replace

from ..binary.reading import read_regular
from ..errors import BinaryFormatError
from ..model.failure import System
from ..model.saved import HostFacts
from .linux_limits import read_c_library


def this_system() -> System:
    """The family of loaders of the running Python."""
    return {"linux": System.LINUX, "win32": System.WINDOWS}.get(sys.platform, System.OTHER)


def read_distribution() -> str | None:
    """ID and ID_LIKE of os-release(5), separated by spaces; `None` where there is no such file."""
    try:
        release = platform.freedesktop_os_release()
    except (OSError, ValueError):
        return None
    return " ".join(part for part in (release.get("ID"), release.get("ID_LIKE")) if part) or None


def describe_host() -> HostFacts:
    """This machine, without its name: that is nobody's business in the report of a bug."""
    system = this_system()
    library = read_c_library()
    c_library = " ".join(filter(None, (library.name, library.version))) or None
    return HostFacts(system.value, _describe_system(system), platform.machine(), c_library)


def _describe_system(system: System) -> str:
    if system.value == "windows":
        release, build, _, _ = platform.win32_ver()
        return f"Windows {release} build {build}"
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME")
    except (OSError, ValueError):
        name = None
    kernel = f"{'kernel' if system.value == 'linux' else platform.system()} {platform.release()}"
    return f"{name}, {kernel}" if name else kernel


def describe_named_host() -> HostFacts:
    """The same with its name: for a recording, which its owner keeps, and may redact."""
    return replace(describe_host(), name=platform.node() or None)


LARGEST_HASHED = 4 << 20
"""In bytes: what takes a few milliseconds to read."""


@dataclass(frozen=True)
class FileStamp:
    """Of a regular file: `size` in bytes, `modified` in seconds since the epoch."""

    size: int
    modified: float


def stamp_of(path: str) -> FileStamp | None:
    """`None` where there is no regular file, or it may not be looked at."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileStamp(found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else None


def sha256_of(path: str) -> str | None:
    """In hexadecimal; `None` for a file that is larger than `LARGEST_HASHED`, or cannot be read."""
    try:
        data = read_regular(path, LARGEST_HASHED + 1)
    except (OSError, ValueError, BinaryFormatError):
        return None
    return hashlib.sha256(data).hexdigest() if len(data) <= LARGEST_HASHED else None
