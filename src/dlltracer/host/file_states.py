"""Makes a sum over the states of files and folders, which differs when any of them has changed.

The state of a file is its device, number, mode, owner, size and both times; nothing is opened. A folder counts by the
names in it, as its own times also change where Python writes its compiled files (`__pycache__`, which is left out).
On Unix no program can set the time of the last change (st_ctime, stat(2)). So a file that was written again with its
size and its time of modification has another state.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
from collections.abc import Iterable, Iterator

from .copies import MOST_PARENTS
from .filesystem import HostFilesystem

MOST_ENTRIES = 2_000_000
"""Entries of folders that are looked at; a larger target has no sum."""
_MOST_OUTSIDE = 50_000
"""Entries of folders outside that links of packages lead to, as those of editable installations do."""
_COMPILED = "__pycache__"
_CURRENT = "/proc/"
"""Files that are another one in each process, or a moment later: only what they lead to counts."""

_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
_HEAD_OF_LIST = 1 << 14
_OF_PROCESSOR = (b"model name", b"flags", b"Features", b"isa")


class FileStates:
    """The sum, to be added to in the same order each time.

    Attributes:
        newest: when anything that was added changed last, in nanoseconds.
        is_complete: whether all that was to be added was.
    """

    def __init__(self) -> None:
        self.newest = 0
        self.is_complete = True
        self._sum = hashlib.blake2b(digest_size=20)
        self._folders: set[tuple[int, int]] = set()
        self._entries = 0

    def digest(self) -> str:
        """Return the sum of all that was added so far."""
        return self._sum.hexdigest()

    def add_folders(self, tops: Iterable[str], *, one_system: bool = False) -> None:
        """Add all that is below some folders; each folder counts once, whatever links lead to it.

        Argument: `one_system`, as for `list_native_files`: links are not followed.
        """
        outside: list[str] = []
        for top in dict.fromkeys(tops):
            self._walk(top, None if one_system else outside)
        self._entries, most = 0, _MOST_OUTSIDE
        for top in outside:
            self._walk(top, outside, most)

    def add_paths(self, paths: Iterable[str], files: HostFilesystem) -> None:
        """Add what is at some paths of a system, and where their folders really are."""
        parents: dict[str, None] = {}
        for path in paths:
            try:
                status = os.stat(files.host_path(path))
            except (OSError, ValueError) as error:
                # Whether the folder is there tells more than that the file is not.
                lines = _describe_error(error), str(files.kind(path.rpartition("/")[0] or "/"))
                self._add(f"{path}\0{lines}")
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            self._add(f"{path}\0{self._describe_folder(status) if is_folder else self._describe(status)}")
            if not path.startswith(_CURRENT):
                parents[path.rpartition("/")[0]] = None
        for parent in parents:
            self._add(f"{parent}\0{files.real_path(parent or '/')}")

    def add_names(self, folders: Iterable[str], files: HostFilesystem) -> None:
        """Add which names are in some folders of a system: what a search did not find there depends on that."""
        for folder in folders:
            if folder.startswith(_CURRENT):
                continue
            try:
                here = files.host_path(folder)
                names = sorted(name for name in os.listdir(here) if name != _COMPILED)
                self._note_time(os.stat(here))
            except (OSError, ValueError) as error:
                names = [_describe_error(error)]
            self._add("\0".join((folder, *names)))

    def _walk(self, top: str, outside: list[str] | None, most: int = MOST_ENTRIES) -> None:
        stack = [top]
        while stack:
            folder = stack.pop()
            lines = [folder]
            try:
                status = os.stat(folder)
                key = status.st_dev, status.st_ino
                if key in self._folders:
                    continue
                self._folders.add(key)
                with os.scandir(folder) as entries:
                    ordered = sorted(entries, key=lambda entry: entry.name)
            except (OSError, ValueError) as error:
                self._add(f"{folder}\0{_describe_error(error)}")
                continue
            self._entries += len(ordered)
            if self._entries > most:
                self.is_complete = False
                return
            lines.append(self._describe_folder(status))
            below: list[str] = []
            for entry in ordered:
                if entry.name == _COMPILED:
                    continue
                try:
                    lines += entry.name, self._state_of(entry, below, outside)
                except OSError as error:
                    lines += entry.name, _describe_error(error)
            self._add("\0".join(lines))
            stack += reversed(below)

    def _state_of(self, entry: os.DirEntry[str], below: list[str], outside: list[str] | None) -> str:
        # On Windows what a folder knows of its files lacks their numbers (Python documentation, os.DirEntry.stat).
        status = os.lstat(entry.path) if sys.platform == "win32" else entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            below.append(entry.path)
            return self._describe_folder(status)
        state = self._describe(status)
        if stat.S_ISLNK(status.st_mode):
            target = os.stat(entry.path)
            if not stat.S_ISDIR(target.st_mode):
                return f"{state} {self._describe(target)}"
            if outside is not None:
                outside.append(entry.path)
            return f"{state} {os.path.realpath(entry.path)}"
        return state

    def _describe(self, status: os.stat_result) -> str:
        self._note_time(status)
        return (
            f"{status.st_dev} {status.st_ino} {status.st_mode} {status.st_uid} {status.st_gid} {status.st_size}"
            f" {status.st_mtime_ns} {status.st_ctime_ns}"
        )

    def _describe_folder(self, status: os.stat_result) -> str:
        return f"{status.st_dev} {status.st_ino} {status.st_mode} {status.st_uid} {status.st_gid}"

    def _note_time(self, status: os.stat_result) -> None:
        # On Windows st_ctime is the time of creation.
        latest = max(status.st_ctime_ns, status.st_mtime_ns) if sys.platform == "win32" else status.st_ctime_ns
        self.newest = max(self.newest, latest)

    def _add(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        self._sum.update(len(data).to_bytes(8, "big"))
        self._sum.update(data)


def has_linked_folders(folders: Iterable[str]) -> bool:
    """Return whether some of the folders have links to other folders in them."""
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                if any(entry.is_symlink() and entry.is_dir() for entry in entries):
                    return True
        except OSError:
            continue
    return False


def code_above(folders: Iterable[str]) -> Iterator[str]:
    """Yield where an __init__.py above some folders would be, as far up as `copies.read_added_folders` looks."""
    for folder in folders:
        parent = os.path.abspath(folder)
        for _ in range(MOST_PARENTS):
            parent = os.path.dirname(parent)
            yield os.path.join(parent, "__init__.py")


def own_folder() -> str:
    """Return the folder of this very package, with its code and what it knows."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def describe_process() -> list[str]:
    """Return what a search for libraries takes from this process and this machine, besides files."""
    try:
        current = os.getcwd()
    except OSError:
        current = ""
    user = 0
    if sys.platform != "win32":
        user = os.geteuid()
    machine = platform.uname()
    # Not all of it: for its last part a program is run.
    names = machine.system, machine.node, machine.release, machine.version, machine.machine
    settings = [os.environ.get(name) for name in _VARIABLES]
    return [sys.version, *names, _describe_processor(), repr(settings), current, str(user)]


def _describe_processor() -> str:
    """Return the model and the features of this machine's processor as Linux tells them; "" elsewhere."""
    try:
        with open("/proc/cpuinfo", "rb") as file:
            text = file.read(_HEAD_OF_LIST)
    except OSError:
        return ""
    kept = [line for line in text.split(b"\n\n")[0].splitlines() if line.startswith(_OF_PROCESSOR)]
    return b"\n".join(kept).decode("ascii", "replace")


def _describe_error(error: Exception) -> str:
    return f"error {getattr(error, 'errno', None)}"
