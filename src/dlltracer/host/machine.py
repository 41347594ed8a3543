"""Describes this machine: its system in words, and what a Linux system allows a process.

A limit on the address space makes a mapping fail. A limit of a control group does not: the process is killed (SIGKILL)
when it touches more than it may. The amount of free static TLS cannot be known (`model.environment`).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import platform
import posixpath
import re
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..binary.elf import read_elf
from ..binary.reading import read_kernel_file, read_regular
from ..errors import BinaryFormatError
from ..model.environment import CLibrary, Enforcement, MemoryLimit, Mount, SecurityModule
from ..model.failure import System
from ..model.run import HostFacts
from .bounded import ask_loader_program


def this_system() -> System:
    """The family of loaders of the running Python."""
    return {"linux": System.LINUX, "win32": System.WINDOWS}.get(sys.platform, System.OTHER)


def summary_of_job() -> str | None:
    """The file whose Markdown a runner of GitHub Actions shows on the page of the job; `None` where there is none."""
    return os.environ.get("GITHUB_STEP_SUMMARY") or None


def is_macos() -> bool:
    """Return whether this Python runs on macOS."""
    return sys.platform == "darwin"


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
    """Size and time of a regular file: `size` in bytes, `modified` in seconds since the epoch."""

    size: int
    modified: float


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether there is a regular file, as far as we may look. No name raises.

    `pathlib.Path.is_file` does not serve: before Python 3.14 it raises `PermissionError` below a folder that is closed
    to us, and `OSError` for a name that is too long. Stages that judge files of other systems have no `os.path`.
    """
    return os.path.isfile(path)


def is_folder(path: str | os.PathLike[str], *names: str) -> bool:
    """Return whether there is a folder, as `is_file` does. Arguments: `names`, those of it below `path`."""
    return os.path.isdir(os.path.join(path, *names))


def real_path(path: str) -> str:
    """Return the path without links; as it is where that cannot be told.

    That is so for a name with a NUL, below a current folder that was deleted, and for long paths of Windows.
    """
    try:
        return os.path.realpath(path) if path else path
    except (OSError, ValueError):
        return path


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


ADDRESS_SPACE = "RLIMIT_AS"

_ESCAPE = re.compile(r"\\([01][0-7]{2})")
_NO_LIMIT = 1 << 62
"""Control groups of version 1 write a number of about 2**63 for no limit."""
_MUSL_VERSION = re.compile(r"^musl libc.*\n(?:Version (\S+))?", re.MULTILINE)
_PROFILE = re.compile(r"(.+) \(([a-z]+)\)")


def read_mount(path: str) -> Mount | None:
    """The mount that a path is on: that of its nearest folder if it does not exist. `None` if it is not known."""
    mounts = parse_mountinfo(read_kernel_file("/proc/self/mountinfo"))
    here = real_path(path)
    while not os.path.exists(here) and here != "/":
        here = posixpath.dirname(here)
    number = _read_mount_number(here)
    exact = next((mount for mount in mounts if mount.number == number), None)
    return exact or find_mount(mounts, here)


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """The mounts in the text of /proc/PID/mountinfo, in its order (proc_pid_mountinfo(5)). Lines unlike it are left."""
    mounts = []
    for line in text.split("\n"):
        fields = [_unescape(field) for field in line.split(" ")]
        number = _number(fields[0])
        if "-" not in fields[6:] or number is None:
            continue
        end = fields.index("-", 6)  # before it a number of optional fields
        rest = (*fields[end + 1 :], "", "", "")
        mounts.append(
            Mount(number, fields[3], fields[4], tuple(fields[5].split(",")), rest[0], rest[1],
                  tuple(rest[2].split(",")) if rest[2] else ())
        )  # fmt: skip
    return tuple(mounts)


def find_mount(mounts: Sequence[Mount], path: str) -> Mount | None:
    """The mount with the longest mount point above an absolute path without links; of equals, the last.

    A guess where a mount was hidden by a later one above it. `None` if none fits.
    """
    found = None
    for mount in mounts:
        if _is_in(path, mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def read_address_space_limit() -> MemoryLimit:
    """RLIMIT_AS of this process, and the size of its address space."""
    pages = _number(read_kernel_file("/proc/self/statm").split(" ")[0])
    used = None if pages is None else pages * read_page_size()
    return MemoryLimit(ADDRESS_SPACE, parse_process_limits(read_kernel_file("/proc/self/limits")), used)


def parse_process_limits(text: str) -> int | None:
    """The soft limit of the address space in the text of /proc/PID/limits (proc_pid_limits(5)); `None` for no limit."""
    found = re.search(r"^Max address space +(\S+) ", text, re.MULTILINE)
    return None if found is None else _number(found[1])


def read_cgroup_limit(pid: int | None = None) -> MemoryLimit | None:
    """The memory limit of the control groups of a process, this one for `None`.

    Of its group and those above the one that leaves the least; without a limit its own group. `None` where none can
    be read. A container may hide the groups above its own.
    """
    process = "self" if pid is None else str(pid)
    mounts = parse_mountinfo(read_kernel_file("/proc/self/mountinfo"))
    folders = memory_folders(read_kernel_file(f"/proc/{process}/cgroup"), mounts)
    levels = [level for level in map(read_memory_level, folders) if level is not None]
    limited = [level for level in levels if level.limit is not None]
    if limited:
        return min(limited, key=lambda level: (level.limit or 0) if level.free is None else level.free)
    return levels[0] if levels else None


def memory_folders(cgroup: str, mounts: Sequence[Mount]) -> tuple[str, ...]:
    """The folders with the memory limits of a process: of its group first, then those above it.

    Arguments: `cgroup`, the text of its /proc/PID/cgroup (cgroups(7)): "0::/path" for version 2, and where version 1
    has the memory controller "N:...,memory,...:/path". Empty if no such file system is mounted.
    """
    groups = [line.split(":", 2) for line in cgroup.split("\n") if line.count(":") >= 2]
    old = next((group[2] for group in groups if "memory" in group[1].split(",")), None)
    new = next((group[2] for group in groups if group[0] == "0" and not group[1]), None)
    path = new if old is None else old
    if path is None:
        return ()
    for mount in mounts:
        fits = mount.kind == "cgroup2" if old is None else mount.kind == "cgroup" and "memory" in mount.system_options
        if fits:
            return _folders_up(path, mount)
    return ()


def parse_memory_amount(text: str) -> int | None:
    """Bytes in a file of a control group; `None` for "max", the huge number of version 1, and what is no number."""
    amount = _number(text.strip())
    return None if amount is None or amount >= _NO_LIMIT else amount


def read_page_size() -> int:
    """Size of a page of memory in bytes: the segments of an image must be aligned to it."""
    return mmap.PAGESIZE


def read_security_modules() -> tuple[SecurityModule, ...]:
    """SELinux and AppArmor, and what each does with this process."""
    enabled = read_kernel_file("/sys/module/apparmor/parameters/enabled").strip() == "Y"
    label = read_kernel_file("/proc/self/attr/current")
    # Before Linux 5.8 the profile was only where the label of any module is.
    profile = read_kernel_file("/proc/self/attr/apparmor/current") or (label if enabled else "")
    return (
        parse_selinux(read_kernel_file("/sys/fs/selinux/enforce"), "" if label == profile else label),
        parse_apparmor(profile, enabled=enabled),
    )


def parse_selinux(enforce: str, label: str) -> SecurityModule:
    """SELinux, from /sys/fs/selinux/enforce ("" where there is none) and /proc/PID/attr/current (selinux(8))."""
    context = label.strip("\0\n ")
    known = {"0": Enforcement.PERMISSIVE, "1": Enforcement.ENFORCING}.get(enforce.strip())
    if context.count(":") < 2:
        return SecurityModule("SELinux", known or Enforcement.OFF)
    # A container has a context, and often not the file that tells.
    return SecurityModule("SELinux", known or Enforcement.UNKNOWN, context)


def parse_apparmor(profile: str, *, enabled: bool) -> SecurityModule:
    """AppArmor, from the profile of the process: "unconfined" or "name (mode)" (aa_getcon(2))."""
    label = profile.strip("\0\n ")
    if not label:
        return SecurityModule("AppArmor", Enforcement.UNKNOWN if enabled else Enforcement.OFF)
    found = _PROFILE.fullmatch(label)
    if label == "unconfined" or (found and found[2] == "unconfined"):
        return SecurityModule("AppArmor", Enforcement.OFF, label)
    modes = {"enforce": Enforcement.ENFORCING, "kill": Enforcement.ENFORCING, "complain": Enforcement.PERMISSIVE}
    mode = modes.get(found[2], Enforcement.UNKNOWN) if found else Enforcement.UNKNOWN
    return SecurityModule("AppArmor", mode, found[1] if found else label)


def read_c_library() -> CLibrary:
    """The C library of this process, by its own word."""
    if sys.platform != "linux":
        return CLibrary()
    try:
        found = parse_glibc_version(os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (OSError, ValueError):  # musl has no such name
        found = CLibrary()
    if found.name is not None:
        return found
    try:
        loader = read_elf(sys.executable or "/proc/self/exe").interpreter
        if loader is None or "ld-musl-" not in loader:
            return found
        # Without a program it says who it is, and ends with status 1 (ldso/dynlink.c).
    except (OSError, BinaryFormatError):
        return found
    answer = ask_loader_program((loader,), {}, seconds=10)
    return found if isinstance(answer, str) else parse_musl_version(answer.output)


def parse_glibc_version(text: str) -> CLibrary:
    """From what confstr(3) says of _CS_GNU_LIBC_VERSION: "glibc 2.36"."""
    name, _, version = text.partition(" ")
    return CLibrary("glibc", version or None) if name == "glibc" else CLibrary()


def parse_musl_version(text: str) -> CLibrary:
    """From what musl's loader says when it is given no program: "musl libc (x86_64)", "Version 1.2.5"."""
    found = _MUSL_VERSION.search(text)
    return CLibrary("musl", found[1]) if found else CLibrary()


def _number(word: str) -> int | None:
    """A number as the kernel writes it, of at most 64 bits."""
    return int(word) if word.isascii() and word.isdecimal() and len(word) <= 20 else None


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")


def _unescape(field: str) -> str:
    """Space, tab, newline, backslash and # are written in octal."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), field)


def _read_mount_number(path: str) -> int | None:
    """The number of the mount that a path is on, from /proc/PID/fdinfo (proc_pid_fdinfo(5), Linux 3.15)."""
    if sys.platform != "linux":
        return None
    try:
        # PyPy lacks the constant (asm-generic/fcntl.h).
        fd = os.open(path, getattr(os, "O_PATH", 0o10000000) | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = re.search(r"^mnt_id:\s*(\d+)$", read_kernel_file(f"/proc/self/fdinfo/{fd}"), re.MULTILINE)
        return None if found is None else _number(found[1])
    finally:
        os.close(fd)


def _folders_up(path: str, mount: Mount) -> tuple[str, ...]:
    """The folder of a group and those above it, as far as this mount shows them."""
    # A container without a namespace of its own for groups sees its full path here, and only the end of it there.
    inside = path[len(mount.root) :] if _is_in(path, mount.root) else ""
    parts = [part for part in inside.split("/") if part]
    if ".." in parts:  # above what its namespace shows
        parts = []
    return tuple(posixpath.join(mount.point, *parts[:depth]) for depth in range(len(parts), -1, -1))


def read_memory_level(folder: str) -> MemoryLimit | None:
    """The limit of one group, whatever its version (cgroups(7); Documentation/admin-guide/cgroup-v1/memory.rst)."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        text = read_kernel_file(f"{folder}/{limit}")
        if text:
            in_use = parse_memory_amount(read_kernel_file(f"{folder}/{used}"))
            return MemoryLimit(folder, parse_memory_amount(text), in_use)
    return None
