"""Finds the two words that switch the loader log on, by starting the interpreter three times.

LD_DEBUG sets one word of `_rtld_global_ro` to a value that we know. LD_DEBUG_OUTPUT sets another one to the number of a
descriptor that the child can look up (process_dl_debug and dl_main in elf/rtld.c of glibc). A child without the
variables and two with different values of them leave one place for each word, wherever a glibc has put it. Takes a
quarter of a second, so it is for where the pattern of `debug_mask` fits no place, or several.
"""

from __future__ import annotations

import os
import sys
import time

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.choose keeps other systems away")

from ...errors import BackendUnavailable

_VALUES = (("libs", 1, 64), ("files", 64, 1))
"""A value of LD_DEBUG, a bit of the mask that it sets, and one that it does not (DL_DEBUG_LIBS, DL_DEBUG_FILES)."""

_LARGEST = 1 << 16
"""Beyond any mask and any descriptor: other words are halves of addresses."""

FIRST_SECONDS = 90.0
"""How long the first answer may take. A start took 5 s under qemu-user on a busy machine, and only a file system that
hangs keeps an interpreter from starting at all."""

_MORE_SECONDS = 10.0
"""How much later the others may answer; or four times as long as the first took, if that is more: they start together,
on a machine that is as slow."""

_MOST_TEXT = 1 << 16

CHILD = """\
import ctypes, os, sys
start = ctypes.addressof(ctypes.c_char.in_dll(ctypes.PyDLL(None), "_rtld_global_ro"))
for line in open("/proc/self/maps"):
    span, _, _, device, inode = line.split(None, 5)[:5]
    low, high = (int(part, 16) for part in span.split("-"))
    if low <= start < high:
        break
log, wanted = -1, f"{sys.argv[1]}.{os.getpid()}"
for name in os.listdir("/proc/self/fd"):
    try:
        log = int(name) if os.readlink(f"/proc/self/fd/{name}") == wanted else log
    except OSError:
        pass
words = (ctypes.c_int * min(256, (high - start) // 4)).from_address(start)
os.write(1, " ".join(map(str, (f"{device}:{inode}", log, *words))).encode())
"""


class Start:
    """The values that one start of the interpreter showed.

    Attributes: `loader`, device and inode of its ld.so; `log`, the descriptor of the loader's log, -1 for none;
    `words`, the leading ints of `_rtld_global_ro`.
    """

    __slots__ = ("loader", "log", "words")

    def __init__(self, loader: str, log: int, words: tuple[int, ...]) -> None:
        self.loader = loader
        self.log = log
        self.words = words


def compare_starts(loader: str) -> tuple[int, int]:
    """The indexes of mask and descriptor among the ints of `_rtld_global_ro`, from three starts of this interpreter.

    Arguments: `loader`, device and inode of this process's ld.so as in /proc/self/maps ("08:01:1234").
    Raises `BackendUnavailable`.
    """
    program = _own_interpreter()
    folder = _make_folder()
    children: list[tuple[int, int]] = []
    answers: list[bytes] = []
    try:
        for number in range(3):
            children.append(_start(program, folder, number))
        began = time.monotonic()
        deadline = began + FIRST_SECONDS
        for _, out in children:
            answers.append(_read(out, deadline))
            if len(answers) == 1:
                now = time.monotonic()
                deadline = now + max(_MORE_SECONDS, 4 * (now - began))
    finally:
        for number, (pid, out) in enumerate(children):
            _end(pid, out, has_answered=number < len(answers) and answers[number] != b"")
        _remove(folder)
    starts = [parse_starts(answer) for answer in answers]
    if {start.loader for start in starts} != {loader}:
        raise _unavailable(f"{program} starts with another loader than this process")
    return find_compared_words(*starts)


def find_compared_words(plain: Start, first: Start, second: Start) -> tuple[int, int]:
    """The indexes of mask and descriptor.

    Arguments: a start without LD_DEBUG, and one with each of `_VALUES`. Raises `BackendUnavailable` unless there is one
    place for each.
    """
    masks, descriptors = [], []
    for at, values in enumerate(zip(plain.words, first.words, second.words, strict=False)):
        if not all(0 <= value < _LARGEST for value in values):
            continue
        nothing, *both = values
        if nothing == 0 and all(
            value & (wanted | other) == wanted for value, (_, wanted, other) in zip(both, _VALUES, strict=True)
        ):
            masks.append(at)
        if nothing <= 2 and both == [first.log, second.log] and first.log != second.log:  # 2: stderr, by default
            descriptors.append(at)
    if len(masks) != 1 or len(descriptors) != 1:
        raise _unavailable(
            f"three starts of the interpreter leave {len(masks)} places for the loader's debug mask and "
            f"{len(descriptors)} for its descriptor"
        )
    return masks[0], descriptors[0]


def _unavailable(reason: str) -> BackendUnavailable:
    return BackendUnavailable("rtld", reason, "Use backend='snapshot', which sees less")


def _own_interpreter() -> str:
    """The interpreter of this process. An application with Python inside is refused: it would run three times over."""
    program = sys.executable
    try:
        # By its name: stat(2) of /proc/self/exe shows qemu-user where that stands in for the processor.
        own = os.stat(os.readlink("/proc/self/exe"))
        named = os.stat(program)
    except (OSError, TypeError, ValueError):
        raise _unavailable("sys.executable does not name this process's program") from None
    is_python = program.rpartition("/")[2].startswith("python") and not getattr(sys, "frozen", False)
    if not is_python or (own.st_dev, own.st_ino) != (named.st_dev, named.st_ino):
        raise _unavailable("this program is not a plain Python interpreter that could be started to compare")
    return program


def _make_folder() -> str:
    """A folder for the logs of the children. Not tempfile: it imports much (docs/adr/0003)."""
    problem: OSError | None = None
    for parent in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - mkdir refuses what is there
        if parent and parent.startswith("/"):
            folder = f"{os.path.realpath(parent)}/dlltracer-starts-{os.getpid()}-{os.urandom(8).hex()}"
            try:
                os.mkdir(folder, 0o700)
            except OSError as error:
                problem = error
            else:
                return folder
    raise _unavailable(f"no temporary folder can be written ({problem and problem.strerror})")


def _start(program: str, folder: str, number: int) -> tuple[int, int]:
    """Start a child; return its process ID and the end of a pipe that it answers to."""
    environment = {name: value for name, value in os.environ.items() if name not in ("LD_DEBUG", "LD_DEBUG_OUTPUT")}
    prefix = f"{folder}/log"
    # The log takes the lowest free descriptor: 3 in the first child that has one, and 4 in the second.
    files: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    out, answers = os.pipe()
    try:
        if number:
            environment.update(LD_DEBUG=_VALUES[number - 1][0], LD_DEBUG_OUTPUT=prefix)
        files.append((os.POSIX_SPAWN_DUP2, answers, 1))
        files += [(os.POSIX_SPAWN_OPEN, at, "/dev/null", os.O_RDWR, 0) for at in (0, 2, 3)]
        if number != 2:
            files.append((os.POSIX_SPAWN_CLOSE, 3))
        command = (program, "-I", "-S", "-c", CHILD, prefix)
        return os.posix_spawn(program, command, environment, file_actions=files), out
    except OSError as error:
        os.close(out)
        raise _unavailable(f"the interpreter could not be started to compare ({error.strerror})") from error
    finally:
        os.close(answers)


def _read(out: int, deadline: float) -> bytes:
    """Return all that a child answers; nothing for one that answers endlessly. Raises `BackendUnavailable` if none
    came in time.

    Without select, which is an extension module: importing it would be in the trace.
    """
    began = time.monotonic()
    os.set_blocking(out, False)
    text = b""
    while len(text) < _MOST_TEXT:
        if time.monotonic() >= deadline:
            seconds = f"{deadline - began:.0f} s"
            raise _unavailable(f"an interpreter that was started to compare gave no answer within {seconds}")
        try:
            piece = os.read(out, _MOST_TEXT)
        except BlockingIOError:
            time.sleep(0.002)
            continue
        if not piece:
            return text
        text += piece
    return b""


def parse_starts(answer: bytes) -> Start:
    """Parse the answer of one start: the fields of `Start`, with blanks between them. Raises `BackendUnavailable`."""
    loader, *numbers = answer.decode("ascii", "replace").split()[:300] or [""]
    try:
        log, *words = map(int, numbers)
    except ValueError:
        raise _unavailable("an interpreter that was started to compare gave no answer") from None
    return Start(loader, log, tuple(words))


def _end(pid: int, out: int, *, has_answered: bool) -> None:
    os.close(out)
    try:
        if not has_answered:
            os.kill(pid, 9)
        os.waitpid(pid, 0)
    except OSError:  # the program has a handler of SIGCHLD that collects all children
        return


def _remove(folder: str) -> None:
    try:
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
        os.rmdir(folder)
    except OSError:  # it is empty, private and among the temporary files
        return
