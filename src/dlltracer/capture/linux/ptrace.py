"""Wraps ptrace(2): the few requests that watching a process needs, and the layouts of their answers.

Every method raises `OSError`: ESRCH for a thread that is gone or not stopped, EPERM where the system does not allow it.
All calls for a thread must come from the thread that seized it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from ...binary.reading import read_kernel_file
from ..backend import Availability
from .processes import read_status_field

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

EVENT_STOP = 128
"""PTRACE_EVENT_STOP (linux/ptrace.h): a stop of the whole group, or the first stop of a new thread."""

# linux/ptrace.h
_CONT = 7
_DETACH = 17
_GETSIGINFO = 0x4202
_GETREGSET = 0x4204
_SEIZE = 0x4206
_LISTEN = 0x4208
_OPTION_TRACECLONE = 8

_NT_PRSTATUS = 1
_MOST_REGISTERS = 1024

SI_USER, SI_QUEUE, SI_TKILL, SI_KERNEL = 0, -1, -6, 0x80
"""si_code (asm-generic/siginfo.h): sent by kill, sigqueue, tgkill; a fault whose address the processor does not say."""

_LAYOUTS = {
    ("x86_64", 27 * 8): (16, 19),
    ("aarch64", 34 * 8): (32, 31),
}
"""Machine and size of the registers to the places of program counter and stack pointer, in words: user_regs_struct
(x86: sys/user.h) and user_pt_regs (arm64: asm/ptrace.h)."""


class _Sender(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_int), ("uid", ctypes.c_uint))


class _Rest(ctypes.Union):
    _fields_ = (("sender", _Sender), ("address", ctypes.c_void_p), ("room", ctypes.c_ubyte * 112))


class SignalInfo(ctypes.Structure):
    """The head of siginfo_t (sigaction(2)); of 128 bytes in all."""

    _fields_ = (("number", ctypes.c_int), ("error", ctypes.c_int), ("code", ctypes.c_int), ("rest", _Rest))

    code: int
    rest: _Rest

    @property
    def sender(self) -> int | None:
        """Process id of the sender (0: outside of our PID namespace); `None` if the kernel made it."""
        return int(self.rest.sender.pid) if self.code in (SI_USER, SI_QUEUE, SI_TKILL) else None

    @property
    def fault_address(self) -> int | None:
        """The address of a fault (si_addr); `None` for another signal, or if the processor does not report it."""
        return int(self.rest.address or 0) if 0 < self.code < SI_KERNEL else None


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Ptrace:
    """The requests of ptrace(2), bound to the C library; each raises `OSError` where the kernel refuses it.

    Making it raises `ImportError` or `OSError` in a Python that cannot call C. Arguments of all: `tid`, the thread.
    """

    def __init__(self) -> None:
        self._function = ctypes.CDLL(None, use_errno=True).ptrace
        self._function.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._function.restype = ctypes.c_long

    def seize(self, tid: int, options: int = _OPTION_TRACECLONE) -> None:
        """Attach to a thread without stopping it; threads that it starts are attached to as well."""
        self.ask(_SEIZE, tid, 0, options)

    def resume(self, tid: int, number: int = 0) -> None:
        """Let a stopped thread go on, with a signal; 0 for none."""
        self.ask(_CONT, tid, 0, number)

    def listen(self, tid: int) -> None:
        """Leave a thread in its group-stop (Ctrl-Z), which only SIGCONT ends."""
        self.ask(_LISTEN, tid, 0, 0)

    def detach(self, tid: int) -> None:
        """Let a stopped thread go on, and go."""
        self.ask(_DETACH, tid, 0, 0)

    def signal_info(self, tid: int) -> SignalInfo:
        """The siginfo_t of the signal that stopped the thread."""
        info = SignalInfo()
        self.ask(_GETSIGINFO, tid, 0, ctypes.addressof(info))
        return info

    def registers(self, tid: int) -> bytes:
        """The general registers of a stopped thread (NT_PRSTATUS)."""
        room = ctypes.create_string_buffer(_MOST_REGISTERS)
        vector = _Vector(ctypes.addressof(room), len(room))
        self.ask(_GETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(vector))
        return room.raw[: vector.length]

    def ask(self, request: int, tid: int, address: int = 0, data: int = 0) -> None:
        """Make one request, by its number in linux/ptrace.h. Raises `OSError`."""
        if self._function(request, tid, address, data) == -1:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def decode_registers(registers: bytes, machine: str) -> tuple[int, int] | None:
    """Program counter and stack pointer in the bytes of NT_PRSTATUS.

    Arguments: `machine` as of uname(2). `None` for a layout that is not known (also: a 32-bit process).
    """
    places = _LAYOUTS.get((machine, len(registers)))
    if places is None:
        return None
    counter, stack = (int.from_bytes(registers[8 * place : 8 * place + 8], sys.byteorder) for place in places)
    return counter, stack


def parse_syscall(text: str) -> tuple[int, int] | None:
    """Program counter and stack pointer in the text of /proc/PID/syscall (proc(5)), which is the same on any machine.

    `None` if it does not say: "running".
    """
    words = text.split()
    try:
        return int(words[-1], 16), int(words[-2], 16)
    except (IndexError, ValueError):
        return None


if sys.platform != "linux":
    raise ImportError("this module is only for Linux")


ENDED = "the child had ended before it could be watched"

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_CAP_SYS_PTRACE = 19


def availability() -> Availability:
    """Return whether a child can be watched here, as far as that is known without starting one."""
    try:
        Ptrace().seize(0)  # there is no such process, so a system that allows the call says just that
    except OSError as error:
        if error.errno != errno.ESRCH:
            remedy = "Look at a core file"
            if error.errno != errno.ENOSYS:
                remedy = "Allow ptrace in the container (--cap-add SYS_PTRACE), or look at a core file"
            return Availability(False, _refusal(error), remedy)
    reason = _read_yama()
    if reason is not None:
        return Availability(False, reason, "Look at a core file, or have root set it to 1")
    return Availability(True)


def why_refused(pid: int, error: OSError) -> str:
    """Return why a child of ours could not be seized, after the attempt failed with this error."""
    try:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return ENDED
    except (OSError, AttributeError):
        pass  # not ours to wait for any more, or PyPy, which has no waitid: what follows still says something
    tracer = read_status_field(pid, "TracerPid")
    if tracer not in ("", "0"):
        return f"process {tracer} traces it already (a debugger, strace)"
    return _read_yama() or _refusal(error)


def parse_yama(scope: str, capabilities: str) -> str | None:
    """Return why Yama forbids to trace a child; `None` if Yama allows it.

    Arguments: the text of /proc/sys/kernel/yama/ptrace_scope, empty where there is none (1 allows descendants), and
    CapEff of the process (capabilities(7)).
    """
    if scope.strip() == "3":
        return f"{_YAMA} is 3: nobody may trace, not even root"
    if scope.strip() == "2" and not int(capabilities or "0", 16) >> _CAP_SYS_PTRACE & 1:
        return f"{_YAMA} is 2: only root may trace"
    return None


def _read_yama() -> str | None:
    return parse_yama(read_kernel_file(_YAMA), read_status_field(os.getpid(), "CapEff"))


def _refusal(error: OSError) -> str:
    if error.errno == errno.ENOSYS:  # as by qemu-user, which knows no ptrace
        return f"this kernel, or what stands in for it (qemu-user), has no ptrace ({error.strerror})"
    return (
        f"the system refuses ptrace ({error.strerror}): a container or sandbox without CAP_SYS_PTRACE, or a child that"
        " changed its user"
    )
