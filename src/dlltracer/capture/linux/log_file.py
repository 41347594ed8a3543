"""The log of a process that another process follows: which file it is, and how the process joins it.

ld.so opens `$LD_DEBUG_OUTPUT.PID`, to append to it, as it starts with LD_DEBUG set (elf/rtld.c of glibc): one file an
image started by execve, inherited by what that forks. A program that we run ourselves opens the same file. Both sides
use this; in the program, it runs before the program does (docs/adr/0003).
"""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

from ..requests import OWN_BEGIN, OWN_END

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .rtld import RtldSession

CATEGORIES = "libs,files"
MASK, OUTPUT = "LD_DEBUG", "LD_DEBUG_OUTPUT"
_SAVED = "DLLTRACER_SAVED_"
"""Before the name of a variable: what the user had there, for the moment between two programs."""

_OUT_OF_THE_WAY = range(200, 232)
"""Descriptors for the log: the first file that a program opens is often descriptor 3, and some count on it."""


def variables(prefix: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What makes programs write logs, to be put into their environment; the user's own LD_DEBUG is kept in it."""
    theirs = environment.get(MASK)
    return {MASK: f"{theirs},{CATEGORIES}" if theirs else CATEGORIES, OUTPUT: prefix}


def variables_for_one(prefix: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The same for a program that `join`s, which decides whether its children get them."""
    saved = {_SAVED + name: environment[name] for name in (MASK, OUTPUT) if name in environment}
    return {**variables(prefix, environment), **saved}


def log_path(prefix: str, pid: int) -> str:
    """The file for the log of a process."""
    return f"{prefix}.{pid}"


def open_log(prefix: str) -> int:
    """Open this process's own file as ld.so would. Raises `OSError`."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return os.open(log_path(prefix, os.getpid()), flags, 0o666)


def begin_own_loads(prefix: str) -> None:
    """Note in the log that what follows is dlltracer's own doing, until `join` is done."""
    descriptor = open_log(prefix)
    try:
        os.write(descriptor, OWN_BEGIN)
    finally:
        os.close(descriptor)


def join(prefix: str, *, children: bool) -> RtldSession:
    """Let the loader of this process write to its log, with Python's requests noted in it.

    `children`: whether the programs that it starts are to do the same. Raises `BackendUnavailable`, `OSError`.
    """
    from .rtld import RtldBackend

    descriptor = out_of_the_way(open_log(prefix))
    try:
        session = RtldBackend(descriptor, prefix if children else None).start()
    except BaseException:
        os.close(descriptor)
        raise
    _close_loaders_own(session.former_fd, descriptor)
    _set_for_children(prefix, children)
    os.write(descriptor, OWN_END)
    return session


def out_of_the_way(low: int) -> int:
    """The same file under a number where it disturbs nobody; `low` is closed, unless there is no other."""
    for number in _OUT_OF_THE_WAY:
        try:
            os.fstat(number)
        except OSError:
            break
    else:
        return low
    try:
        os.dup2(low, number, inheritable=False)
    except OSError:  # beyond the limit of this process
        return low
    os.close(low)
    return number


def _close_loaders_own(former: int, descriptor: int) -> None:
    """Close what ld.so had opened for the same log: in its place, a program finds what it opens itself."""
    try:
        if former > 2 and os.path.samestat(os.fstat(former), os.fstat(descriptor)):
            os.close(former)
    except OSError:
        return


def _set_for_children(prefix: str, children: bool) -> None:
    was_on = os.environ.get(OUTPUT) == prefix
    saved = {name: os.environ.pop(_SAVED + name, None) for name in (MASK, OUTPUT)}
    if children:
        if not was_on:
            os.environ.update(variables(prefix, os.environ))
    elif was_on:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
