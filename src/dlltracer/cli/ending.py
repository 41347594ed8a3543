"""Ends the command: with the status or signal of the program, or with an error of dlltracer."""

from __future__ import annotations

import os
import sys

from ..errors import DlltracerError
from ..model.printable import escape
from .output import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

EXIT_USAGE = 2
"""Status when dlltracer itself could not do what was asked. A program's own status passes through unchanged."""


EXIT_MISSING = 1
"""Status when something was found to be missing."""


class BadUsage(DlltracerError):
    """The command line contradicts itself, or lacks something; the text says what. Raised before anything is done."""


class CommandFailed(DlltracerError):
    """What was asked for cannot be done; the text is one line."""


def say_error(message: str) -> int:
    """Write one line on stderr, whatever the message holds; return the status to leave with."""
    say(f"dlltracer: error: {escape(message)}\n", err=True)
    return EXIT_USAGE


def end_like(status: int) -> NoReturn:
    """Leave with a status of `subprocess.Popen`: a negative one is a signal, which then kills us as well."""
    if status >= 0:
        # Windows: a status is 32 bits without a sign, sys.exit takes a C int.
        sys.exit(status - (1 << 32) if status >> 31 else status)
    if sys.platform != "win32":
        import resource
        import signal

        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        # The program has left a core dump if one was wanted; one of ours would take its place.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-status])
        os.kill(os.getpid(), -status)
    sys.exit(128 - status)  # as a shell says it; reached for a signal that does not kill


def describe_ending(status: int) -> str:
    """Return how a program ended that did not end its trace: "was killed by SIGSEGV"."""
    if status < 0 or status >> 31:
        from ..model.words import describe_end

        return describe_end(status)
    why = "os._exit, another program took its place, no right or no room to write its result"
    return f"left without a word ({why}; status {status})"
