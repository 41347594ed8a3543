"""Facts about a process from /proc (proc(5)). Where they cannot be read, results are empty."""

from __future__ import annotations

import os
from dataclasses import dataclass


def read_text(path: str) -> str:
    """A file of the kernel; empty where there is none or it may not be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
            return stream.read()
    except OSError:
        return ""


def read_status_field(pid: int, name: str) -> str:
    """A field of /proc/PID/status, by its name there."""
    for line in read_text(f"/proc/{pid}/status").split("\n"):
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return ""


def read_threads(pid: int) -> set[int]:
    """The native ids of the threads of a process."""
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    except OSError:
        return set()


def locate(address: int, maps: str, *, runs: bool = False) -> tuple[str, int] | None:
    """The file that an address lies in, and the offset from where the loader put its beginning.

    Arguments:
        address: in the process.
        maps: text of its /proc/PID/maps (proc(5)).
        runs: only where code may run.
    `None` outside of every mapped file. A file deleted or replaced since has the name that it had.
    """
    base = None
    file: list[str] = []
    for line in maps.split("\n"):
        # Start-end, rights, offset in the file, device, inode, path.
        fields = line.split(None, 5)
        if len(fields) < 6 or not fields[5].startswith("/"):
            continue
        low, high = (int(part, 16) for part in fields[0].split("-"))
        # The file may be mapped twice: each time it begins anew.
        if fields[3:] != file or not int(fields[2], 16):
            base, file = low, fields[3:]
        if low <= address < high and base is not None:
            if runs and "x" not in fields[1]:
                return None
            return fields[5].removesuffix(" (deleted)").replace("\\012", "\n"), address - base
    return None


@dataclass(frozen=True)
class Stat:
    """Of /proc/PID/stat: `parent`, `ticks` (start, in clock ticks since the boot), `is_zombie`, `exit_code` (as of
    waitpid(2), known of a zombie only)."""

    parent: int
    ticks: int
    is_zombie: bool
    exit_code: int


def read_stat(pid: int) -> Stat | None:
    """`None` when there is no such process."""
    # The name stands in brackets, and may hold anything.
    fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    try:
        return Stat(int(fields[1]), int(fields[19]), fields[0] in "ZX", int(fields[49]))
    except (IndexError, ValueError):
        return None


def read_command(pid: int) -> tuple[str, ...] | None:
    """The command line; `None` for a zombie, and where there is none."""
    text = read_text(f"/proc/{pid}/cmdline")
    return tuple(text.removesuffix("\0").split("\0")) if text else None


def read_link(path: str) -> str | None:
    """The target of a link of the kernel; `None` where it may not be read."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def mapped_span(path: str, maps: str) -> tuple[int, int] | None:
    """First address and length in bytes of a file in the text of /proc/PID/maps."""
    lines = [line.split(None, 5) for line in maps.split("\n")]
    spans = [fields[0].split("-") for fields in lines if len(fields) == 6 and fields[5] == path]
    if not spans:
        return None
    low, high = int(spans[0][0], 16), int(spans[-1][1], 16)
    return low, high - low
