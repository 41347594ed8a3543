"""Starts a program with a filter on it: forks, puts the filter on, hands the listener to the tracer, and execs.

A fork of the tracer has at hand what this takes, ctypes above all. To start another Python costs ten times as much.

The new process and the tracer have one end each of a pair of sockets (SOCK_SEQPACKET). Messages, the first byte says
which:

    here -> tracer   L  the listener, and a socket to the keeper (SCM_RIGHTS); for ptrace: ready to be seized
                     F  the filter cannot be had; errno and a text follow
                     X  the program cannot be started; errno and a text follow. The end of the stream: it has started
    tracer -> here   G  go on

A filter outlives its tracer. When the last descriptor of a listener is closed, every system call that would stop
fails with ENOSYS (seccomp_unotify(2)): the program could open no file any more. Hence the **keeper**: a process of
its own session that holds the listener too, sleeps while the tracer lives, and lets every call pass when the tracer is
gone: killed, or done while processes go on that the program has left behind. It ends with the last process that has
the filter. It is forked by the new process, before the filter is on, twice, so that it is no child of the program.

A call that the tracer has taken up is nobody else's to take up again, whatever becomes of the tracer. The keeper can
only answer it, by its number. So the kernel writes what it hands to the tracer into memory that the keeper has too.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import struct
import sys
import warnings

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

import _socket

from .seccomp_filter import RET_TRACE, RET_USER_NOTIF, architectures_of, make_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ROOM = 4096
"""Bytes of memory that tracer and keeper share, for one notification. From 1,025 bytes on, `fcntl.ioctl` lets the
kernel write there itself: the tracer cannot be killed between taking up a call and leaving its number there."""
NOTIFICATION = 80
"""Bytes of struct seccomp_notif (linux/seccomp.h)."""
ANSWER = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, value, error, flags."""
RECEIVE = (3 << 30) | (NOTIFICATION << 16) | (0x21 << 8)
"""SECCOMP_IOCTL_NOTIF_RECV."""
SEND = (3 << 30) | (ANSWER.size << 16) | (0x21 << 8) | 1
"""SECCOMP_IOCTL_NOTIF_SEND."""
CONTINUE = 1
"""SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5: the system call is carried out as if nobody had looked."""

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
"""SECCOMP_FILTER_FLAG_NEW_LISTENER; _WAIT_KILLABLE_RECV (Linux 5.19): signals do not interrupt a call that the tracer
has taken up. Without it a timer of the program may stop the same call again and again."""

_CANNOT_START = 127

KEEPER = "dlltracer-keep"
"""The name of the keeper, as ps(1) and top(1) show it; its command line is that of the tracer."""


class FilterError(Exception):
    """The filter could not be put on: `code` is the errno."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Launch:
    """The start of one program, in a process that is its first.

    Arguments:
        command: the program and its arguments, its name first.
        environment: of the program.
        output: the descriptors that get its stdout and stderr; `None`: it has ours.
        way: "notify", "ptrace" (a filter for a tracer that uses ptrace) or "calls" (no filter).
        passed: as of `seccomp_filter.make_program`.

    Attributes: `socket`, the tracer's end; `pid`, of the new process, a child of this one; `room`, the memory for
    notifications. Raises `OSError` if there can be none.
    """

    def __init__(
        self, command: list[str], environment: dict[str, str], output: tuple[int, int] | None, way: str,
        passed: frozenset[int],
    ) -> None:  # fmt: skip
        self._command = command
        self._environment = environment
        self._output = output
        self._way = way
        self._passed = passed
        self.room = mmap.mmap(-1, ROOM)
        self.socket, self._other = make_sockets()
        try:
            self.pid = _fork(self._become)
        except BaseException:
            self.socket.close()
            raise
        finally:
            self._other.close()

    def _become(self) -> None:
        """In the new process: become the program. Returns if it cannot, and has said so."""
        self.socket.close()  # or the keeper would hold it, and wait for ever
        tracer, way = self._other, self._way
        for name in ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGXFSZ"):
            number = getattr(signal, name)
            # A handler of the tracer's would swallow the signal; SIGPIPE and SIGXFSZ are ignored by the interpreter.
            if name in ("SIGPIPE", "SIGXFSZ") or callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        if way != "notify":
            send(tracer, b"L")
            if not _may_go(tracer):  # it has seized us: the filter's stops find their tracer
                return
        keeper = fork_keeper(self.room) if way == "notify" else None
        try:
            listener = install(way, self._passed) if way != "calls" else -1
        except FilterError as error:
            send(tracer, _failure(b"F", error.code, str(error)))
            return
        except Exception as error:  # noqa: BLE001 - no memory: the tracer says it
            send(tracer, _failure(b"F", 0, f"{type(error).__name__}: {error}"))
            return
        if keeper is not None:
            send(keeper, b"L", (listener,))
            send(tracer, b"L", (listener, keeper.fileno()))
            os.close(listener)
            keeper.close()
            if not _may_go(tracer):
                return
        try:
            for target, descriptor in zip((1, 2), [os.dup(one) for one in self._output or ()], strict=False):
                os.dup2(descriptor, target)
            os.execvpe(self._command[0], self._command, self._environment)  # noqa: S606 - the program
        except OSError as error:
            send(tracer, _failure(b"X", error.errno, error.strerror or ""))


def _fork(become: Callable[[], None]) -> int:
    """Return the process id of a fork of this process, which calls the function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12, where a thread reads a pipe for `why`
        pid = os.fork()
    if not pid:
        try:
            become()
        finally:
            os._exit(_CANNOT_START)
    return pid


def install(way: str, passed: frozenset[int] = frozenset()) -> int:
    """Put the filter on this process. Returns the listener for "notify", -1 for "ptrace". Raises `FilterError`.

    Arguments: `passed`, as of `seccomp_filter.make_program`.
    """
    architectures = architectures_of(os.uname().machine, 8 * ctypes.sizeof(ctypes.c_void_p))
    if not architectures:
        raise FilterError(errno.ENOSYS, f"the system calls of this processor ({os.uname().machine}) are not known")
    code = ctypes.create_string_buffer(
        make_program(architectures, RET_USER_NOTIF if way == "notify" else RET_TRACE, passed)
    )  # fmt: skip
    # struct sock_fprog: how many instructions, of eight bytes each, and where.
    program = struct.pack("@HP", (len(code) - 1) // 8, ctypes.addressof(code))
    library = ctypes.CDLL(None, use_errno=True)

    def put_on(flags: int) -> int:
        number, mode, word = ctypes.c_long(architectures[0].seccomp), ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong
        result = library.syscall(number, mode, word(flags), ctypes.c_char_p(program))
        return -ctypes.get_errno() if result < 0 else int(result)

    tried = (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER) if way == "notify" else (0,)
    # With CAP_SYS_ADMIN a filter needs no no_new_privs, and setuid programs keep their rights.
    for is_privileged in (True, False):
        if not is_privileged:
            zero = ctypes.c_ulong(0)
            library.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero)
        for flags in tried:
            result = put_on(flags)
            if result >= 0:
                return result if way == "notify" else -1
            if -result != errno.EINVAL:
                break
        if -result != errno.EACCES:
            break
    raise FilterError(-result, os.strerror(-result))


def refusal_of_filters() -> int:
    """Return the error with which this system refuses every filter, 0 if it takes one. Changes nothing.

    A filter without a program is refused with EFAULT where filters exist: the program is read first
    (seccomp_set_mode_filter in kernel/seccomp.c). qemu-user has no seccomp(2), whatever the kernel under it can do, and
    a sandbox may forbid it.
    """
    architectures = architectures_of(os.uname().machine, 8 * ctypes.sizeof(ctypes.c_void_p))
    if not architectures:
        return errno.ENOSYS
    library, zero = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
    result = library.syscall(ctypes.c_long(architectures[0].seccomp), ctypes.c_ulong(_SET_MODE_FILTER), zero, zero)
    code = ctypes.get_errno() if result < 0 else 0
    return 0 if code == errno.EFAULT else code


def fork_keeper(room: mmap.mmap) -> Any:
    """Start the keeper; returns the socket to it. Its end wakes the keeper, and the listener has to be sent there.

    Arguments: `room`, of the launch.
    """
    mine, other = make_sockets()
    between = os.fork()
    if not between:
        try:
            if not os.fork():
                keep(other.fileno(), room)
        finally:
            os._exit(0)
    os.waitpid(between, 0)
    other.close()
    return mine


def keep(number: int, room: mmap.mmap) -> None:
    """Answer the filter's stops until the last process with the filter ends.

    Arguments: `number`, the descriptor of the socket; `room`, where the call is that the tracer has taken up last.
    """
    os.setsid()
    os.chdir("/")
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(KEEPER)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGPIPE", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.closerange(0, number)
    os.closerange(number + 1, max(1 << 16, number + 1))
    mine = _socket.socket(fileno=number)
    _, given = receive(mine, 1)
    if not given:
        return  # no filter came of it
    listener = given[0]
    poller = select.poll()
    poller.register(listener, 0)  # POLLHUP: no process has the filter any more (Linux 5.9)
    poller.register(number, select.POLLIN)
    events = dict(poller.poll())
    if listener not in events:
        with contextlib.suppress(OSError):  # it was answered, or there was none
            _let_pass(listener, room)
        pass_everything(listener)


def pass_everything(listener: int) -> None:
    """Let every system call pass, until no process has the filter any more."""
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    while True:
        for _, event in poller.poll():
            if event & select.POLLIN:
                room = bytearray(NOTIFICATION)
                try:
                    fcntl.ioctl(listener, RECEIVE, room)
                    _let_pass(listener, room)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EINTR):  # ENOENT: its process was killed meanwhile
                        return
            elif event:
                return


def _let_pass(listener: int, notification: bytearray | mmap.mmap) -> None:
    """Let the call go on that a notification is about. Raises `OSError`."""
    fcntl.ioctl(listener, SEND, ANSWER.pack(int.from_bytes(notification[:8], sys.byteorder), 0, 0, CONTINUE))


def make_sockets() -> tuple[Any, Any]:
    """Return a connected pair of sockets, which a program does not inherit. Raises `OSError`."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)


def send(socket: Any, message: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message, with descriptors (SCM_RIGHTS)."""
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    socket.sendmsg([message], ancillary)


def receive(socket: Any, most: int) -> tuple[bytes, tuple[int, ...]]:
    """Return one message, empty at the end of the stream, and at most so many descriptors, which are not
    inheritable."""
    numbers = array.array("i")
    room = _socket.CMSG_SPACE(most * numbers.itemsize)
    # PyPy lacks the constant (linux/socket.h).
    message, ancillary, _, _ = socket.recvmsg(4096, room, getattr(_socket, "MSG_CMSG_CLOEXEC", 0x40000000))
    for level, kind, data in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return message, tuple(numbers)


def _failure(letter: bytes, code: int | None, text: str) -> bytes:
    return letter + f"{code or 0} {text}".encode("utf-8", "replace")[:2000]


def _may_go(tracer: Any) -> bool:
    """Wait for the tracer's word; `False` if it is gone, and nothing has begun."""
    return receive(tracer, 0)[0] == b"G"
