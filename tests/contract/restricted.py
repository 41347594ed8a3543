"""Runs a command where the system refuses some calls: `python restricted.py REFUSAL... -- COMMAND...`.

A filter of seccomp(2) answers the calls with an error, as the sandboxes of containers and of hardened systems do; it
holds for the command and for all that the command starts. The refusals: memfd (no file in memory), tmpfile (no file
without a name), listener (of a filter of seccomp), mprotect (no page is made writable again), threads (none can be
started; processes can), clone3 (as by a sandbox that is older than the call).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

NUMBERS = {
    "x86_64": {"mprotect": 10, "clone": 56, "openat": 257, "memfd_create": 319, "seccomp": 317, "clone3": 435},
    "aarch64": {"mprotect": 226, "clone": 220, "openat": 56, "memfd_create": 279, "seccomp": 277, "clone3": 435},
}
"""asm/unistd.h"""

LOAD, EQUAL, GREATER, BITS, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
"""linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP with JEQ, JGT, JSET and a constant, BPF_RET."""

ALLOW, ERROR = 0x7FFF0000, 0x00050000
NUMBER, ARGUMENTS = 0, 16  # offsets in struct seccomp_data
CLONE_THREAD = 0x10000  # linux/sched.h
TMPFILE = 0x400000  # the bit of O_TMPFILE that O_DIRECTORY does not have (asm-generic/fcntl.h)

Step = tuple[int, int, int, int]


def refuse(call: int, error: int, *conditions: Step) -> list[Step]:
    """Return the steps that refuse a call where all conditions (their jump if true goes on) hold."""
    steps = [(LOAD, 0, 0, NUMBER), (EQUAL, 0, len(conditions) + 1, call)]
    for place, (code, *_, value) in enumerate(conditions):
        is_test = code in (EQUAL, GREATER, BITS)
        steps.append((code, 0, len(conditions) - place if is_test else 0, value))
    return [*steps, (RETURN, 0, 0, ERROR | error)]


def load(argument: int) -> Step:
    """Return the step that loads the low half of an argument of the call."""
    return (LOAD, 0, 0, ARGUMENTS + 8 * argument)


def steps_of(refusal: str) -> list[Step]:
    """Return the steps of one refusal."""
    numbers = NUMBERS[platform.machine()]
    if refusal == "memfd":
        return refuse(numbers["memfd_create"], errno.EPERM)
    if refusal == "tmpfile":
        return refuse(numbers["openat"], errno.EOPNOTSUPP, load(2), (BITS, 0, 0, TMPFILE))
    if refusal == "clone3":  # Docker before 20.10.10: the C library does not take EPERM for "there is no such call"
        return refuse(numbers["clone3"], errno.EPERM)
    if refusal == "threads":
        # clone3 has its flags in memory, where a filter cannot look; the C library then takes clone.
        thread = refuse(numbers["clone"], errno.EAGAIN, load(0), (BITS, 0, 0, CLONE_THREAD))
        return [*refuse(numbers["clone3"], errno.ENOSYS), *thread]
    if refusal == "listener":  # SECCOMP_FILTER_FLAG_NEW_LISTENER, as in gVisor
        return refuse(numbers["seccomp"], errno.EINVAL, load(1), (BITS, 0, 0, 8))
    if refusal == "mprotect":
        # Of a few pages only: the stack of a thread and a heap are made writable too, and must be.
        writable = (load(2), (EQUAL, 0, 0, 3), load(1), (GREATER, 0, 0, 0x4000))
        steps = refuse(numbers["mprotect"], errno.EPERM, *writable)
        # The last test is the other way round: a long range is allowed.
        code, _, otherwise, value = steps[-2]
        return [*steps[:-2], (code, otherwise, 0, value), steps[-1]]
    raise ValueError(refusal)


def install(refusals: list[str]) -> None:
    """Install the filter in this process. Raises `OSError` where the system has no seccomp."""
    steps = [step for refusal in refusals for step in steps_of(refusal)]
    program = b"".join(struct.pack("HBBI", *step) for step in [*steps, (RETURN, 0, 0, ALLOW)])
    code = ctypes.create_string_buffer(program, len(program))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, ctypes.byref(Filter(len(program) // 8, ctypes.addressof(code)))) != 0:  # PR_SET_SECCOMP
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    split = sys.argv.index("--")
    try:
        install(sys.argv[1:split])
    except OSError:
        sys.exit(77)  # the status of a test that cannot run here
    os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])
