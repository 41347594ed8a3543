"""Whether this system lets a process trace its children, and why not.

Sources: ptrace(2), "Ptrace access mode checking"; Documentation/admin-guide/LSM/Yama.rst of Linux.
"""

from __future__ import annotations

import errno
import os
import sys

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

from ..backend import Availability
from .proc import read_status_field, read_text

ENDED = "the child had ended before it could be watched"

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_CAP_SYS_PTRACE = 19


def availability() -> Availability:
    """Whether a child can be watched here, as far as that can be found out without one."""
    try:
        from .ptrace import Ptrace

        Ptrace().seize(0)  # there is no such process, so a system that allows the call says just that
    except ImportError as error:
        return Availability(False, f"this Python cannot call C functions ({error})")
    except OSError as error:
        if error.errno != errno.ESRCH:
            remedy = "Allow ptrace in the container (--cap-add SYS_PTRACE), or look at a core file"
            return Availability(False, _refusal(error), remedy)
    reason = _read_yama()
    if reason is not None:
        return Availability(False, reason, "Look at a core file, or have root set it to 1")
    return Availability(True)


def why_refused(pid: int, error: OSError) -> str:
    """Why a child of ours could not be seized, after the attempt failed with this error."""
    try:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return ENDED
    except OSError:
        pass  # not ours to wait for any more: what follows still says something
    tracer = read_status_field(pid, "TracerPid")
    if tracer not in ("", "0"):
        return f"process {tracer} traces it already (a debugger, strace)"
    return _read_yama() or _refusal(error)


def parse_yama(scope: str, capabilities: str) -> str | None:
    """Why Yama forbids to trace a child; `None` if it does not.

    Arguments: the text of /proc/sys/kernel/yama/ptrace_scope, empty where there is none (1 allows descendants), and
    CapEff of the process (capabilities(7)).
    """
    if scope.strip() == "3":
        return f"{_YAMA} is 3: nobody may trace, not even root"
    if scope.strip() == "2" and not int(capabilities or "0", 16) >> _CAP_SYS_PTRACE & 1:
        return f"{_YAMA} is 2: only root may trace"
    return None


def _read_yama() -> str | None:
    return parse_yama(read_text(_YAMA), read_status_field(os.getpid(), "CapEff"))


def _refusal(error: OSError) -> str:
    return (
        f"the system refuses ptrace ({error.strerror}): a container or sandbox without CAP_SYS_PTRACE, or a child that"
        " changed its user"
    )
