"""Backend "debugger": this process, with a helper process of its own as its debugger. Needs no Administrator.

The helper attaches at the start of a block and detaches at its end. What Windows tells a debugger of images is written
down as the image records of the kernel. So one rule judges both mechanisms (see `image_events`).

A process can have one debugger only, so it has one helper. Traces that nest or run side by side share it; each reads
its own stretch of the helper's file. A thread that loads an image stands still until the helper has written that down,
so what is in the file at a moment is all that was loaded by then: nobody has to be asked.

The helper must never need this process, which it holds at every event. So it inherits handles and is asked by events;
what it writes lies in a file that disappears with the last process that has it open.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import RLock, allocate_lock, start_new_thread

if sys.platform != "win32":
    raise ImportError("this module is only for Windows")

import _winapi

from ....errors import ERROR_ACCESS_DENIED, BackendUnavailable, TracePermissionError, TraceStartError
from ...backend import Availability, LibraryFirst
from ...requests import Watch
from .bindings import create_event, is_debugged, program_path, set_event, temporary_folder
from .loop import END, REFUSED, decode_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ....model.events import Event
    from ....model.recording import Recording
    from ....model.request import Request
    from .process_log import LiveLog

NAME = "debugger"

_HELPER = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from dlltracer.capture.windows.debugger.helper import serve; serve(*map(int, sys.argv[2:]))"
)
_START_MS = 60_000
_STOP_MS = 30_000
_DETACHED_PROCESS = 0x8  # no console: neither a window nor the user's Ctrl-C
_SHARE_ALL = 7  # FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE
_SYNCHRONIZE = 0x100000
_ATTACH = "DebugActiveProcess"
HELD = "another debugger holds this process, and Windows allows one"
_USE_ETW = "Use backend='etw' as Administrator"
LET_GO = "End that debugger, or use backend='etw' as Administrator"


class DebuggerBackend:
    """The mechanism."""

    name = NAME

    def availability(self) -> Availability:
        """Return whether this process is free for a debugger, and a Python exists that can be the debugger."""
        try:
            find_pythons()
        except BackendUnavailable as error:
            return Availability(False, error.reason, error.remedy)
        return Availability(False, HELD, LET_GO) if is_debugged() else Availability(True)

    def start(self, *, raw: bool = False, live: bool = False) -> DebuggerSession:
        """Attach. Raises `BackendUnavailable`, `TracePermissionError` or `TraceStartError`."""
        return DebuggerSession(the_attachment(), raw, live)


class DebuggerSession:
    """A running capture of this process.

    Attributes: those of `Session`. `missed` is 0: what waits for `drain` waits in the helper's file.
    """

    missed = 0
    is_completed_later = False
    can_wait = True
    hides_failures = True  # that an import has failed is known some time after its images came and went

    def __init__(self, attachment: Attachment, raw: bool, live: bool = False) -> None:
        self._attachment = attachment
        self._raw = raw
        self._wall, self._clock = time.time(), time.perf_counter_ns()
        self._watch = Watch()
        self._lock = RLock()
        self._read_until = 0
        self._live = _make_live_log(self._watch, self._wall, self._clock, raw) if live else None
        self._has_stopped = False
        self._raw_drained = 0
        self._watch.start()
        try:
            self._helper, self._start = attachment.open()
        except BaseException:
            self._watch.stop()
            raise

    def progress(self) -> int:
        """Number of bytes that the helper has written."""
        try:
            return 0 if self._has_stopped else self._helper.position()
        except OSError:  # it has stopped in this moment
            return 0

    def drain(self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False) -> Sequence[Event]:
        """The events that have come to light since the last call; at the end, all."""
        with self._lock:
            if self._live is None:
                return ()
            if not self._has_stopped:
                now = time.perf_counter_ns()
                self._feed(self._helper.read(self._read_until))
                self._live.decode(now, is_end=is_end)
            return self._take()

    def _feed(self, text: bytes) -> None:
        """Give what the helper has written to the live log, as far as it has whole lines."""
        assert self._live is not None
        text = text[: text.rfind(b"\n") + 1]
        before = max(0, min(self._start - self._read_until, len(text)))
        self._read_until += len(text)
        self._live.feed(text, before)

    def _take(self) -> Sequence[Event]:
        assert self._live is not None
        if not self._raw:
            fresh, self._live.fresh = self._live.fresh, []
            return fresh
        from ..image_events import debug_events

        records = self._live.log.records[self._raw_drained :]
        self._raw_drained += len(records)
        return debug_events(records)

    def stop(self) -> Callable[[], Recording]:
        """Detach, unless another trace needs the helper. Returns what decodes this trace's stretch of its output."""
        self._watch.note_return()
        try:
            with self._lock:
                self._has_stopped = True
                output = self._attachment.close(self._helper)
        finally:
            requests = self._watch.stop()
        return lambda: self._recording(output, requests)

    def _recording(self, output: HelperOutput, requests: Sequence[Request]) -> Recording:
        from ....model.recording import Losses, Recording
        from ..image_events import debug_events
        from ..system import query_dos_devices, with_final_path
        from .process_log import ProcessLog, replay_lines

        pid = os.getpid()
        if self._live is None:
            log = ProcessLog(query_dos_devices())
            undecodable = replay_lines(output.text, self._start, pid, log)
        else:
            with self._lock:
                rest = output.text[self._read_until :]
                self._feed(rest if not rest or rest.endswith(b"\n") else rest + b"\n")
                self._live.decode(time.perf_counter_ns(), is_end=True)
                log, undecodable = self._live.log, self._live.undecodable
        notes = log.notes() + output.notes
        if not output.is_whole:
            notes += (f"the helper process {self._helper.pid} ended before the block did: what came then is not known",)
        notes += self._watch.notes
        if self._live is not None and not self._raw:
            events: tuple[Event, ...] = tuple(self._live.events)
        elif self._raw:
            events = debug_events(log.records)
        else:
            events = log.events([with_final_path(one) for one in requests], pid, self._wall, self._clock)
        return Recording(NAME, events, pid, Losses(events=output.lost, undecodable=undecodable), notes)


def _make_live_log(watch: Watch, wall: float, clock: int, raw: bool) -> LiveLog:
    with LibraryFirst():  # now: what is imported while the traced code runs would be in the trace
        if raw:
            import uuid  # noqa: F401

        from .process_log import LiveLog

    return LiveLog(watch, os.getpid(), wall, clock)


class Helper:
    """A helper from its start to its end.

    Raises `BackendUnavailable`, `TracePermissionError` or `TraceStartError`; then no helper is left.

    Attributes: `pid` of the helper; `listeners`, how many traces read it.
    """

    def __init__(self) -> None:
        if is_debugged():
            raise BackendUnavailable(NAME, HELD, LET_GO)
        pythons = find_pythons()
        self.listeners = 0
        self._reading = allocate_lock()
        self._file, path = _make_file()
        handed: list[int] = []
        try:
            writing = _winapi.CreateFile(path, _winapi.GENERIC_WRITE, _SHARE_ALL, 0, _winapi.OPEN_EXISTING, 0, 0)
            handed.append(writing)
            handed += [create_event(), create_event()]
            handed.append(_winapi.OpenProcess(_SYNCHRONIZE, False, os.getpid()))
            self._process, self.pid = _start_one_of(pythons, handed)
        except BaseException:
            os.close(self._file)
            for handle in handed:
                _winapi.CloseHandle(handle)
            raise
        writing, ready, self._stop, target = handed
        try:
            self._await(ready)
        except BaseException:
            self._leave()
            raise
        finally:
            for handle in (writing, ready, target):
                _winapi.CloseHandle(handle)

    @property
    def has_ended(self) -> bool:
        return _winapi.WaitForSingleObject(self._process, 0) != _winapi.WAIT_TIMEOUT

    def position(self) -> int:
        """Number of bytes that can be read now."""
        with self._reading:
            return os.lseek(self._file, 0, os.SEEK_END)

    def read(self, start: int = 0) -> bytes:
        """Return all that it wrote until now, from byte `start` on."""
        parts = []
        with self._reading:
            os.lseek(self._file, start, os.SEEK_SET)
            while part := os.read(self._file, 1 << 20):
                parts.append(part)
        return b"".join(parts)

    def stop(self) -> tuple[int, tuple[str, ...]]:
        """Make it detach, and wait until it has: how many lines it could not write, and notes on what went wrong."""
        set_event(self._stop)
        _cause_debug_event()
        _winapi.WaitForSingleObject(self._process, _STOP_MS)
        ends = [line[1] for line in decode_lines(self.read()) if line is not None and line[0] == END]
        notes: tuple[str, ...] = ()
        if not self.has_ended:
            notes = (f"the helper process {self.pid} did not leave within {_STOP_MS // 1000} seconds",)
        elif not ends:
            status = _winapi.GetExitCodeProcess(self._process)
            notes = (f"the helper process {self.pid} ended without its last word (status {status})",)
        self._leave()
        return (ends[0] if ends else 0), notes

    def _await(self, ready: int) -> None:
        """Wait until it is attached and has the list of what is loaded."""
        _winapi.WaitForMultipleObjects((ready, self._process), False, _START_MS)
        if _winapi.WaitForSingleObject(ready, 0) != _winapi.WAIT_TIMEOUT:
            return
        if not self.has_ended:
            raise TraceStartError(_ATTACH, _winapi.WAIT_TIMEOUT, "the helper process did not attach: is it held up?")
        refused = [line[1] for line in decode_lines(self.read()) if line is not None and line[0] == REFUSED]
        if not refused:
            status = _winapi.GetExitCodeProcess(self._process)
            raise BackendUnavailable(NAME, f"its helper process ended at once, with status {status}", _USE_ETW)
        if is_debugged():
            raise BackendUnavailable(NAME, HELD, LET_GO)
        if refused[0] == ERROR_ACCESS_DENIED:
            raise TracePermissionError(_ATTACH, f"Windows protects this process even from its own user. {_USE_ETW}")
        raise TraceStartError(_ATTACH, refused[0], f"this process cannot be debugged. {_USE_ETW}")

    def _leave(self) -> None:
        # It is asked to leave, and never ended by force: before its first word to Windows, its end would be ours.
        set_event(self._stop)
        with self._reading:
            file, self._file = self._file, -1  # its number may be another file's at once
            os.close(file)
        _winapi.CloseHandle(self._stop)
        _winapi.CloseHandle(self._process)


def find_pythons() -> tuple[str, ...]:
    """Return the python.exe of this interpreter, by every way to it, the best first.

    In a virtual environment that is the one behind it: the other is a launcher. Of the Python of Microsoft's Store
    `sys` knows the alias, which Windows may refuse to start for us; the program of this process is the file behind it.

    Raises `BackendUnavailable`, in a program that has Python inside.
    """
    found: list[str] = []
    for path in (
        getattr(sys, "_base_executable", "") or "", os.path.join(sys.base_prefix, "python.exe"), program_path(),
    ):  # fmt: skip
        if path not in found and os.path.basename(path).lower().startswith("python") and os.path.isfile(path):
            found.append(path)
    if found:
        return tuple(found)
    raise BackendUnavailable(NAME, f"there is no python.exe in {sys.base_prefix} for the helper process", _USE_ETW)


def _make_file() -> tuple[int, str]:
    """Return a new file for this process and its helper, and its path. Windows deletes it when both have closed it.

    Raises `BackendUnavailable`.
    """
    folder = temporary_folder()
    path = f"{folder}dlltracer-{os.getpid()}-{os.urandom(8).hex()}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_TEMPORARY | os.O_BINARY | os.O_NOINHERIT
    try:
        return os.open(path, flags, 0o600), path
    except OSError as error:
        reason = f"no file can be made in {folder} ({error.strerror})"
        raise BackendUnavailable(NAME, reason, "Set TEMP to a folder that can be written") from error


class _StartupInfo:
    """As `subprocess.STARTUPINFO`, which would bring modules into the traced program: nothing but these handles."""

    dwFlags = wShowWindow = hStdInput = hStdOutput = hStdError = 0  # noqa: N815

    def __init__(self, handles: list[int]) -> None:
        self.lpAttributeList = {"handle_list": handles}


def _start_one_of(pythons: tuple[str, ...], handles: list[int]) -> tuple[int, int]:
    """Start the helper with the first of these that Windows starts. Raises the `TraceStartError` of the first."""
    first: TraceStartError | None = None
    for python in pythons:
        try:
            return _start(python, handles)
        except TraceStartError as error:
            first = first or error
    assert first is not None
    raise first


def _start(python: str, handles: list[int]) -> tuple[int, int]:
    """Start the helper, with these handles as its own: its handle and id. Raises `TraceStartError`."""
    # A final backslash before the closing quote would escape it (see command_line), and a drive's root ends in one.
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 4, os.curdir)
    # Isolated: nothing of the user's environment, site or folders can change what it imports. It finds the standard
    # library alone, and dlltracer where this file lies.
    options = ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]
    if sys.pycache_prefix:
        options += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    words = [python, *options, "-c", _HELPER, root, str(os.getpid()), *map(str, handles)]
    command = " ".join(f'"{word}"' for word in words)
    for handle in handles:
        os.set_handle_inheritable(handle, True)
    try:
        process, thread, pid, _ = _winapi.CreateProcess(
            python, command, None, None, True, _DETACHED_PROCESS, dict(os.environ), os.path.dirname(python),
            _StartupInfo(handles),
        )  # fmt: skip
    except OSError as error:
        code = error.winerror or 0
        raise TraceStartError("CreateProcess", code, f"{python} could not be started: {error.strerror}") from error
    finally:
        for handle in handles:
            os.set_handle_inheritable(handle, False)
    _winapi.CloseHandle(thread)
    return process, pid


def _cause_debug_event() -> None:
    """Wake the debugger of this process: a thread that starts is an event."""
    try:
        start_new_thread(int, ())
    except RuntimeError:  # the interpreter is at its end: the helper looks by itself after a while
        return


class HelperOutput:
    """The lines that a helper wrote for one listener.

    Attributes: `text`, everything until the end of the block; `is_whole`, whether the helper was there until then;
    `lost`, how many lines it could not write; `notes` on what went wrong at its end.
    """

    __slots__ = ("is_whole", "lost", "notes", "text")

    def __init__(self, text: bytes, is_whole: bool, lost: int, notes: tuple[str, ...]) -> None:
        self.text = text
        self.is_whole = is_whole
        self.lost = lost
        self.notes = notes


class Attachment:
    """The helper of this process while at least one listener is there."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._helper: Helper | None = None

    def open(self) -> tuple[Helper, int]:
        """Start to listen: the helper, and the position where the listener's stretch of its file begins."""
        with self._lock:
            if self._helper is None or self._helper.has_ended:
                self._helper = Helper()
            self._helper.listeners += 1
            return self._helper, self._helper.position()

    def close(self, helper: Helper) -> HelperOutput:
        """Stop to listen."""
        with self._lock:
            text = helper.read()
            was_there = not helper.has_ended
            helper.listeners -= 1
            if helper.listeners:
                return HelperOutput(text, was_there, 0, ())
            if helper is self._helper:
                self._helper = None
            return HelperOutput(text, was_there, *helper.stop())


def the_attachment() -> Attachment:
    """The one of this process (docs/adr/0002)."""
    return _ATTACHMENT


_ATTACHMENT = Attachment()
