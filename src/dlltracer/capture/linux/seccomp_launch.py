"""Runs in the process that becomes the program: puts the filter on, hands the listener to the tracer, and execs.

Run as a script, by path: `seccomp_launch.py SOCKET WAY PASSED LOCALE PROGRAM [ARGUMENTS]`. SOCKET is the number of a
connected socket (AF_UNIX, SOCK_SEQPACKET) that the tracer has the other end of. WAY is "notify", "ptrace" (a filter for
a tracer that uses ptrace) or "calls" (no filter). PASSED has numbers (`seccomp_filter.make_program`), with commas
between. LOCALE is "-" where the environment had no LC_CTYPE: the interpreter may have set one for itself (PEP 538).
Messages, the first byte says which:

    here -> tracer   L  the listener, and a socket to the keeper (SCM_RIGHTS); for ptrace: ready to be seized
                     F  the filter cannot be had; errno and a text follow
                     X  the program cannot be started; errno and a text follow. The end of the stream: it has started
    tracer -> here   G  go on

A filter outlives its tracer. When the last descriptor of a listener is closed, every system call that would stop
fails with ENOSYS (seccomp_unotify(2)): the program could open no file any more. Hence the **keeper**: a process of
its own session that holds the listener too, sleeps while the tracer lives, and lets every call pass when the tracer is
gone: killed, or done while processes go on that the program has left behind. It ends with the last process that has
the filter. It is forked here, before the filter is on, twice, so that it is no child of the program.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import signal
import struct
import sys

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from typing import Any, NoReturn

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


class FilterError(Exception):
    """The filter could not be put on: `code` is the errno."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def install(way: str, passed: tuple[int, ...] = ()) -> int:
    """Put the filter on this process. Returns the listener for "notify", -1 for "ptrace". Raises `FilterError`.

    Arguments: `passed`, as of `seccomp_filter.make_program`.
    """
    import ctypes

    from dlltracer.capture.linux.seccomp_filter import (
        RET_TRACE,
        RET_USER_NOTIF,
        architectures_of,
        make_program,
    )

    architectures = architectures_of(os.uname().machine, 8 * ctypes.sizeof(ctypes.c_void_p))
    if not architectures:
        raise FilterError(errno.ENOSYS, f"the system calls of this processor ({os.uname().machine}) are not known")
    code = make_program(architectures, RET_USER_NOTIF if way == "notify" else RET_TRACE, passed)

    class FilterProgram(ctypes.Structure):  # struct sock_fprog
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    library = ctypes.CDLL(None, use_errno=True)
    program = FilterProgram(len(code) // 8, code)

    def put_on(flags: int) -> int:
        number, mode, word = ctypes.c_long(architectures[0].seccomp), ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong
        result = library.syscall(number, mode, word(flags), ctypes.byref(program))
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
    import ctypes

    from dlltracer.capture.linux.seccomp_filter import architectures_of

    architectures = architectures_of(os.uname().machine, 8 * ctypes.sizeof(ctypes.c_void_p))
    if not architectures:
        return errno.ENOSYS
    library, zero = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
    result = library.syscall(ctypes.c_long(architectures[0].seccomp), ctypes.c_ulong(_SET_MODE_FILTER), zero, zero)
    code = ctypes.get_errno() if result < 0 else 0
    return 0 if code == errno.EFAULT else code


def fork_keeper() -> Any:
    """Start the keeper; returns the socket to it. Its end wakes the keeper, and the listener has to be sent there."""
    import _socket

    mine, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    between = os.fork()
    if not between:
        try:
            if not os.fork():
                keep(other.fileno())
        finally:
            os._exit(0)
    os.waitpid(between, 0)
    other.close()
    return mine


def keep(number: int) -> None:
    """Answer the filter's stops until the last process with the filter ends. `number`: the descriptor of the socket."""
    import _socket

    os.setsid()
    os.chdir("/")
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
                    fcntl.ioctl(listener, SEND, ANSWER.pack(int.from_bytes(room[:8], sys.byteorder), 0, 0, CONTINUE))
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EINTR):  # ENOENT: its process was killed meanwhile
                        return
            elif event:
                return


def send(socket: Any, message: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message, with descriptors (SCM_RIGHTS)."""
    import _socket

    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    socket.sendmsg([message], ancillary)


def receive(socket: Any, most: int) -> tuple[bytes, tuple[int, ...]]:
    """Return one message, empty at the end of the stream, and at most so many descriptors, which are not
    inheritable."""
    import _socket

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


def main() -> NoReturn:
    """Become the program that the arguments name."""
    import _socket

    number, way, passed, locale, *command = sys.argv[1:]
    os.set_inheritable(int(number), False)
    tracer = _socket.socket(fileno=int(number))
    if way != "notify":
        send(tracer, b"L")
        _await_go(tracer)  # it has seized us: the filter's stops find their tracer
    keeper = fork_keeper() if way == "notify" else None
    try:
        listener = install(way, tuple(map(int, filter(None, passed.split(","))))) if way != "calls" else -1
    except FilterError as error:
        send(tracer, _failure(b"F", error.code, str(error)))
        os._exit(_CANNOT_START)
    except Exception as error:  # noqa: BLE001 - no ctypes, no memory: the tracer says it
        send(tracer, _failure(b"F", 0, f"{type(error).__name__}: {error}"))
        os._exit(_CANNOT_START)
    if keeper is not None:
        send(keeper, b"L", (listener,))
        send(tracer, b"L", (listener, keeper.fileno()))
        os.close(listener)
        keeper.close()
        _await_go(tracer)
    if locale == "-":
        os.environ.pop("LC_CTYPE", None)
    for number_of in (signal.SIGPIPE, signal.SIGXFSZ):  # the interpreter ignores them; subprocess had set the default
        signal.signal(number_of, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the program
    except OSError as error:
        send(tracer, _failure(b"X", error.errno, error.strerror or ""))
    os._exit(_CANNOT_START)


def _await_go(tracer: Any) -> None:
    if receive(tracer, 0)[0] != b"G":
        os._exit(_CANNOT_START)  # the tracer is gone, and nothing has begun


if __name__ == "__main__":
    # From where this file lies and nowhere else, as child_main.py does.
    root = os.path.abspath(__file__).rsplit("/", 4)[0]
    sys.path.insert(0, root)
    main()
