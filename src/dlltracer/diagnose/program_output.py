"""Reads the output of a program for messages of loaders, runtimes and Python itself.

A loader that ends a process by itself, an abort, a sanitizer, and the exception of a thread or of a child process leave
no exception in the program: their lines on stderr are all there is. Sources of the words: glibc's elf/rtld.c,
elf/dl-error-skeleton.c, debug/ and malloc/malloc.c; libstdc++'s vterminate.cc; LLVM's compiler-rt (asan_linux.cpp);
Qt's qguiapplication.cpp; protobuf's descriptor_database.cc; CPython's Lib/traceback.py and Python/pylifecycle.c.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace

from ..model.failure import Frame, PythonError
from ..model.run import ProgramOutput
from .loader_errors import DlError, DlProblem, classify_dlerror


class OutputKind(enum.Enum):
    """The author of a message."""

    LOADER = "loader"
    """A loader that ended a process, or one that could not preload a library."""
    SANITIZER = "sanitizer"
    """The runtime of AddressSanitizer and its kind."""
    ABORT = "abort"
    """A library that gave up: glibc's checks, an uncaught C++ exception, an assertion, protobuf, Qt."""
    CRASH = "crash"
    """Python's faulthandler, in a process that died."""
    TRACEBACK = "traceback"
    """Python: an exception that ended a thread or a process, or that the program wrote down."""


@dataclass(frozen=True, kw_only=True)
class OutputMessage:
    """One message in the output.

    Attributes:
        kind: who wrote it.
        lines: its text.
        program: the program whose loader says it, as the loader names it.
        dl_error: the loader's message, taken apart.
        error: the exception of a traceback.
        frames: where a process was that died, outermost first.
        thread: the thread that the exception ended, as Python names it.
        child: the multiprocessing child that it ended, as Python names it.
    """

    kind: OutputKind
    lines: tuple[str, ...]
    program: str | None = None
    dl_error: DlError | None = None
    error: PythonError | None = None
    frames: tuple[Frame, ...] = ()
    thread: str | None = None
    child: str | None = None


_LOADER = re.compile(
    r"^(?P<program>[^:\n]{1,1000}): (?:error while loading shared libraries|symbol lookup error|relocation error): "
    r"|^(?P<other>[^:\n]{1,1000}): [^:\n]{1,1000}: (?:weak )?version [`'\u2018].{1,300} not found \(required by "
    r"|^Error (?:loading shared library|relocating) |^Inconsistency detected by ld\.so: "
    r"|^ERROR: ld\.so: object '"
)
_SANITIZER = re.compile(
    r"(?:Address|Thread|Memory|UndefinedBehavior|Leak|HWAddress)Sanitizer\b|ASan runtime does not come first"
    r"|Your application is linked against incompatible ASan runtimes"
)
_ABORT = re.compile(
    r"^(?:terminate called |  what\(\):|\*\*\* (?:stack smashing|buffer overflow|.{1,80}invalid) |Fatal glibc error"
    r"|double free or corruption|free\(\): |malloc\(\): |realloc\(\): |corrupted (?:size|double)|munmap_chunk\(\): "
    r"|The futex facility returned)"
    r"|\bAssertion [`'].{1,500} failed|File already exists in database|\[libprotobuf FATAL|CHECK failed: "
    r"|descriptor_database\.cc|[Cc]ould not (?:find|load) the Qt platform plugin"
    r"|no Qt platform plugin could be initialized"
    r"|Available platform plugins are|\bFATAL(?: ERROR)?\b|OMP: Error #|Fatal error in"
)
_CRASH = re.compile(r"^(?:Fatal Python error: |Windows fatal exception: )(.+)$")
_STACK = re.compile(r"^(?:(Current thread|Thread) 0x[0-9a-f]+.*|Stack) \(most recent call first\):$")
_STACK_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'^\s*File "(.+)", line (\d+), in (.+)$')
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?([A-Za-z_]\w*)(?:: (.*))?$")
_MARKS = re.compile(r"^\s*[~^]+\s*$")
_THREAD = re.compile(r"^Exception in thread (.+?):?$")
_CHILD = re.compile(r"^Process (\S*Process-\S+):$")
_NO_MODULE = re.compile(r"^No module named '([^']{1,500})'")
_NOISE = re.compile(
    r"^(?:Fatal Python error|Windows fatal|Current thread|Thread 0x|Stack \(most recent|<Cannot show all"
    r"|  File |Extension modules:|  <no Python frame>|Python runtime state|  Binary file )"
)
IMPORT_LINE = re.compile(r"^(?:import|from)\s+([\w.]+)")
"""A line of Python that imports, with the module."""
OF_POOLS = re.compile(r"[/\\](?:multiprocessing|concurrent[/\\]futures)[/\\]\w+\.py$")
"""Files of the library that run workers: no line of the program is in them."""
_MOST_MESSAGES = 50
_MOST_FRAMES = 100
_LONGEST_LINE = 2000
_MOST_SHOWN = 8


def read_output(text: str, *, hidden: str = "") -> tuple[OutputMessage, ...]:
    """The messages in what a program wrote, in order; the last `_MOST_MESSAGES` of them.

    Arguments:
        text: of one stream, or of both.
        hidden: frames of files below this folder are left out: the tracer's own.
    """
    lines = [line[:_LONGEST_LINE] for line in text.splitlines()]
    found: list[OutputMessage] = []
    at = 0
    while at < len(lines):
        message, used = _message_at(lines, at, hidden)
        if message is not None:
            last = found[-1] if found else None
            if message.kind is OutputKind.ABORT and last is not None and last.kind is OutputKind.ABORT:
                message = OutputMessage(kind=OutputKind.ABORT, lines=(*last.lines, *message.lines))
                found.pop()
            found.append(message)
        at += max(used, 1)
    return tuple(found[-_MOST_MESSAGES:])


def _message_at(lines: list[str], at: int, hidden: str) -> tuple[OutputMessage | None, int]:
    """The message that begins at a line, and how many lines it takes."""
    line = lines[at]
    if line.strip().endswith(_TRACEBACK):
        return _traceback(lines, at, hidden)
    if (crash := _CRASH.match(line)) is not None:
        frames, used = _stack(lines, at + 1, hidden)
        return OutputMessage(kind=OutputKind.CRASH, lines=(crash[0],), frames=frames), used + 1
    if (loader := _LOADER.search(line)) is not None:
        found = classify_dlerror(line)
        return OutputMessage(
            kind=OutputKind.LOADER, lines=(line,), program=loader["program"] or loader["other"],
            dl_error=found if found.problem is not DlProblem.UNDECIDED else None,
        ), 1  # fmt: skip
    for kind, pattern in ((OutputKind.SANITIZER, _SANITIZER), (OutputKind.ABORT, _ABORT)):
        if pattern.search(line):
            return OutputMessage(kind=kind, lines=(line.strip(),)), 1
    return None, 1


def _stack(lines: list[str], at: int, hidden: str) -> tuple[tuple[Frame, ...], int]:
    """The frames of the thread that died, outermost first, and the lines down to their end."""
    for start in range(at, min(at + _MOST_FRAMES, len(lines))):
        head = _STACK.match(lines[start])
        if head is None or head[1] == "Thread":
            continue
        frames: list[Frame] = []
        for line in lines[start + 1 : start + 1 + _MOST_FRAMES]:
            one = _STACK_FRAME.match(line)
            if one is None:
                break
            if not (hidden and one[1].startswith(hidden)):
                frames.append(Frame(one[1], int(one[2]), one[3]))
        return tuple(frames[::-1]), start + len(frames) - at + 1
    return (), 0


def _traceback(lines: list[str], at: int, hidden: str) -> tuple[OutputMessage | None, int]:
    """A traceback: frames, each with its line of source behind it, then the exception, which is not indented."""
    indent = len(lines[at]) - len(lines[at].lstrip())
    frames: list[Frame] = []
    for place in range(at + 1, min(at + 1 + 4 * _MOST_FRAMES, len(lines))):
        line = lines[place]
        frame = _FRAME.match(line)
        if frame is not None:
            after = lines[place + 1].strip() if place + 1 < len(lines) else ""
            source = after if after and not _FRAME.match(lines[place + 1]) and not _MARKS.match(after) else None
            if not frame[1].startswith("<frozen ") and not (hidden and frame[1].startswith(hidden)):
                frames.append(Frame(frame[1], int(frame[2]), frame[3], source))
            continue
        if line[indent:].startswith(" ") or not line.strip():
            continue
        last = _EXCEPTION.match(line.strip())
        if last is None:
            return None, place - at
        head = lines[at - 1].strip() if at else ""
        thread, child = _THREAD.match(head), _CHILD.match(head)
        return OutputMessage(
            kind=OutputKind.TRACEBACK, lines=(line.strip(),), error=_error(last[1], last[2] or "", frames),
            thread=thread[1] if thread is not None else None, child=child[1] if child is not None else None,
        ), place - at + 1  # fmt: skip
    return None, 1


def _error(name: str, message: str, frames: list[Frame]) -> PythonError:
    module = _NO_MODULE.match(message) if name == "ModuleNotFoundError" else None
    bases = _BASES.get(name, (name, "Exception"))
    return PythonError(name, message, bases, module[1] if module is not None else None, frames=tuple(frames))


_BASES = {
    name: (name, *((base,) if base != name else ()), "Exception")
    for base, names in {
        "ImportError": ("ImportError", "ModuleNotFoundError"),
        "OSError": ("OSError", "FileNotFoundError", "PermissionError"),
    }.items()
    for name in names
}


def thread_failure(messages: tuple[OutputMessage, ...]) -> OutputMessage | None:
    """The last exception that ended a thread."""
    return next((message for message in reversed(messages) if message.thread is not None), None)


def last_traceback(messages: tuple[OutputMessage, ...]) -> OutputMessage | None:
    """The last exception whose traceback was written."""
    return next((message for message in reversed(messages) if message.error is not None), None)


def child_failure(messages: tuple[OutputMessage, ...]) -> OutputMessage | None:
    """The last message of a loader that ended a process, or of a child process that an exception ended or that died.

    For a program that ended itself with an exception: what is written there comes from the processes it started.
    """
    kinds = (OutputKind.LOADER, OutputKind.CRASH)
    return next((message for message in reversed(messages) if message.kind in kinds or message.child), None)


def modules_in_crashes(messages: tuple[OutputMessage, ...]) -> tuple[str, ...]:
    """The modules that processes were importing when they died, by the lines that ran."""
    lines = (frame.source for message in messages if message.kind is OutputKind.CRASH for frame in message.frames)
    return tuple(dict.fromkeys(found[1] for line in lines if line and (found := IMPORT_LINE.match(line))))


def with_remote_errors(errors: tuple[PythonError, ...]) -> tuple[PythonError, ...]:
    """The exceptions, where a pool handed one over from its worker with the frames that it had there.

    `multiprocessing` and `concurrent.futures` raise it again here, and chain the worker's traceback to it as a text.
    """
    found: list[PythonError] = []
    for error in errors:
        if error.type not in ("RemoteTraceback", "_RemoteTraceback"):
            found.append(error)
            continue
        shown = last_traceback(read_output(error.message))
        remote = shown.error if shown is not None else None
        if remote is None:
            found.append(error)
        elif found and found[-1].type == remote.type:
            frames = tuple(frame for frame in remote.frames if not OF_POOLS.search(frame.file))
            found[-1] = replace(found[-1], frames=frames or remote.frames)
        else:
            found.append(remote)
    return tuple(found)


def relevant_lines(output: ProgramOutput, messages: tuple[OutputMessage, ...]) -> tuple[str, ...]:
    """The lines that a reader wants to see, at most `_MOST_SHOWN`: those of messages, else the last of stderr.

    Tracebacks are left out where there is any other message: the exception is shown by itself.
    """
    written = [line for message in messages if message.kind not in _SHOWN_APART for line in message.lines]
    if not written:
        text = output.stderr if output.stderr.strip() else output.stdout
        skip, lines = False, []
        for line in text.splitlines():
            if line.strip().endswith(_TRACEBACK):
                skip = True
            elif skip and line and not line.startswith(" "):
                skip = False
            elif not skip and line.strip() and not _NOISE.match(line) and not _THREAD.match(line):
                lines.append(line.strip())
        written = lines
    return tuple(line[:500] for line in dict.fromkeys(written))[-_MOST_SHOWN:]


_SHOWN_APART = (OutputKind.TRACEBACK, OutputKind.CRASH)
