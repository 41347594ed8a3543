"""Backend "etw": the image events of the NT kernel, through Event Tracing for Windows, in pure ctypes.

Takes a system-logger session of its own, so that nobody else's trace is stopped. Only when asked,
it takes the NT Kernel Logger, of which a machine has one: a session that holds it is stopped, and a note says so.

When asked, a second, ordinary session listens to the loader itself (`loader_messages`), which can name a file that is
missing. Its failures never cost the first session anything.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from _thread import RLock, allocate_lock

from ....errors import BackendUnavailable, TraceStartError
from ...backend import Availability, LibraryFirst
from ...requests import Watch
from ..system import make_module_counter, query_dos_devices, with_final_path
from . import bindings
from .session import SYSTEM_TRACE_CONTROL_GUID, ProviderConfig, RunningSession, Stopped, session_names, stop_by_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ....model.events import DebugEvent, Event, ImageChange
    from ....model.recording import Recording
    from ....model.request import Request
    from ..image_events import LiveImages, RecordContext
    from ..image_records import RawRecord

NAME = "etw"
NAME_WITH_LOADER = "etw+loader"
SESSION_PREFIX = "dlltracer-"

# image_records.IMAGE_PROVIDER and Opcode.LOAD, UNLOAD and RUNDOWN_START, loader_messages.USER_LOADER: those modules
# bring dataclasses.
_IMAGE_PROVIDER = bytes.fromhex("1d5db12cc15fd211abe100a0c911f518")
_CHANGES = (10, 2)
_KEPT = (10, 2, 3)
# RTLostEvent of the RT_LostEvent class (MS Learn): 32 says that events were lost, 33 buffers, 34 a file of events.
_LOST_PROVIDER = bytes.fromhex("e09a396ac64be94d870b3657f8947e7e")
_LOST_EVENTS, _LOST_BUFFERS = 32, (33, 34)
_USER_LOADER = bytes.fromhex("3fb859b046d9134b87ca4292839dc2f2")
# 0x80 is ETW_UMGL_LDR_SNAPS_FLAG (LoaderSnapAssistantTool, microsoft/devhome); what the bits below it turn on is not
# written anywhere. Level 5 is TRACE_LEVEL_VERBOSE (evntrace.h). Of the other provider every keyword is taken.
_LOADER_PROVIDERS = (ProviderConfig(_IMAGE_PROVIDER, 5, 0xFF), ProviderConfig(_USER_LOADER, 5, 0xFFFF_FFFF_FFFF_FFFF))
_DELIVERED_BY = 250_000_000
"""Nanoseconds after a flush in which Windows has delivered what was buffered."""
_AWAITED = 50_000_000
"""Nanoseconds that a thread which has loaded something waits for its events."""
_POLL_SECONDS = 0.001
_QUIET_POLLS = 2
_SILENT = (
    "the loader itself wrote no events: Windows turns them on for a program that has TracingFlags in the registry "
    "(docs/reference/backends.md, etw+loader)"
)


class EtwBackend:
    """The mechanism. `kernel_logger`: take the NT Kernel Logger even where private sessions exist. `loader_events`:
    listen to the loader itself too, with a session more."""

    def __init__(self, kernel_logger: bool = False, loader_events: bool = False) -> None:
        self._kernel_logger = kernel_logger
        self._loader_events = loader_events

    @property
    def name(self) -> str:
        return NAME_WITH_LOADER if self._loader_events else NAME

    def availability(self) -> Availability:
        """Return whether the user has the rights for a session. Only a start tells whether Windows allows it."""
        if sys.platform != "win32":
            return Availability(False, "ETW exists on Windows only")
        if not bindings.is_administrator():
            return Availability(False, "it needs Administrator", "Run it from an elevated prompt")
        return Availability(True)

    def start(self, *, raw: bool = False, live: bool = False) -> EtwSession:
        """Start a session. Raises `TracePermissionError`, `TraceStartError` or `BackendUnavailable`."""
        if sys.platform != "win32":
            raise BackendUnavailable(NAME, "ETW exists on Windows only")
        return EtwSession(raw, self._kernel_logger, self._loader_events, live)


class EtwSession:
    """A running capture of this process.

    What the loader's own messages add to events, and the failures that only they tell of, are known at the end.

    Attributes: those of `Session`. `missed` is 0: what waits for `drain` is kept as records.
    """

    missed = 0
    hides_failures = True
    can_wait = False  # a call of `drain` returns what was there at the one before it

    def __init__(self, raw: bool, kernel_logger: bool, loader_events: bool = False, live: bool = False) -> None:
        self._lock = RLock()
        self._live: LiveImages | None = None
        self._fed = self._taken = self._flushed = self._settled = 0
        self._waiting: list[RawRecord] = []
        self._debug_events: list[DebugEvent] = []
        self._count_modules = _prepare_live_delivery(raw) if live else None
        self._raw = raw
        self.is_completed_later = live and loader_events and not raw
        self._name = NAME_WITH_LOADER if loader_events else NAME
        self._loader_records: list[tuple[bytes, bytes]] = []
        self._listener: RunningSession | None = None
        self._pid = os.getpid()
        self._kept: list[tuple[bytes, bytes]] = []
        self._failures: list[int] = []
        self._lost: list[int] = []
        self._notes: list[str] = []
        self._holds_kernel_logger = False
        etw = bindings.Etw()
        self._reap(etw)
        self._wall, self._clock = time.time(), time.perf_counter_ns()
        self._fresh: list[Event] = []
        self._has_stopped = False
        self._watch = Watch()
        self._watch.start()
        try:
            self._session = self._start(etw, kernel_logger)
        except BaseException:
            self._watch.stop()
            if self._holds_kernel_logger:
                _KERNEL_LOGGER.release()
            raise
        # Loads before this moment are of the start itself.
        self._ready = time.perf_counter_ns()
        self._frequency = self._session.counter_frequency or bindings.counter_frequency()
        if live and not raw:
            self._live = self._make_live_images()
        if loader_events:
            self._listen(etw)

    def _listen(self, etw: bindings.Etw) -> None:
        """Start the session that listens to the loader; one that does not start is noted."""
        on_record = make_listener(self._pid, self._loader_records, self._failures, self._lost)
        # The name of the first session has the number id(self), and no other object has the next one.
        name = own_session_name(id(self) + 1)
        try:
            self._listener = RunningSession(etw, name, os.urandom(16), 0, 0, on_record, _LOADER_PROVIDERS)
        except (OSError, RuntimeError) as error:
            self._notes.append(f"the loader itself was not listened to: {error}")
        except BaseException:
            self.stop()
            raise

    def _reap(self, etw: bindings.Etw) -> None:
        """Stop the sessions that killed processes of ours left behind: a machine has few."""
        for name in session_names(etw):
            owner = owner_of(name)
            try:
                if owner is not None and not bindings.is_process_alive(*owner) and stop_by_name(etw, name):
                    self._notes.append(f"stopped the session {name}, left behind by a process that was killed")
            except OSError as error:  # of another user, say: our own session may start all the same
                self._notes.append(f"the session {name}, left behind by a process that was killed, stays: {error}")

    def _start(self, etw: bindings.Etw, kernel_logger: bool) -> RunningSession:
        on_record = make_callback(self._pid, self._raw, self._kept, self._failures, self._lost)
        flags = bindings.EVENT_TRACE_FLAG_IMAGE_LOAD | (0 if self._raw else bindings.EVENT_TRACE_FLAG_NO_SYSCONFIG)
        if not kernel_logger:
            # An error is reported. We never take over the NT Kernel Logger: that would stop the trace of somebody else.
            session = RunningSession(
                etw, own_session_name(id(self)), os.urandom(16), bindings.EVENT_TRACE_SYSTEM_LOGGER_MODE, flags,
                on_record,
            )  # fmt: skip
            self._notes.append("session: private system logger")
            return session
        if not _KERNEL_LOGGER.acquire(blocking=False):
            raise TraceStartError(
                "StartTrace", bindings.ERROR_ALREADY_EXISTS,
                "another trace of this process holds the NT Kernel Logger, of which a machine has one",
            )  # fmt: skip
        self._holds_kernel_logger = True
        stopped = stop_by_name(etw, bindings.KERNEL_LOGGER_NAMEW)
        session = RunningSession(etw, bindings.KERNEL_LOGGER_NAMEW, SYSTEM_TRACE_CONTROL_GUID, 0, flags, on_record)
        self._notes.append(
            "session: NT Kernel Logger" + (", taken from whoever held it: their trace was stopped" if stopped else "")
        )
        return session

    def progress(self) -> int:
        """Number of modules in the process: the kernel's events come later."""
        return 0 if self._count_modules is None else self._count_modules()

    def drain(self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False) -> Sequence[Event]:
        """The events that have come to light since the last call; at the end, all."""
        with self._lock:
            if self._count_modules is not None and not self._has_stopped:
                self._settle(is_awaited=is_end or bool(returned))
                if self._live is None:
                    self._take_debug_events(self._settled)
                else:
                    self._feed()
                    self._fresh += self._live.take(self._settled, is_end=is_end)
            fresh, self._fresh = self._fresh, []
            return fresh

    def _settle(self, *, is_awaited: bool) -> None:
        """Set the moment up to which all records have come.

        Windows delivers its buffers when they are full, once a second, or when asked. Then they come some milliseconds
        later, in the thread of ProcessTrace. `is_awaited`: a thread that has loaded something waits for its events.
        """
        now = time.perf_counter_ns()
        if is_awaited:
            self._await_records(now + _AWAITED)
            self._settled = self._flushed = now
        elif now - self._flushed >= _DELIVERED_BY:
            self._settled = max(self._settled, self._flushed)
            self._flush()
            self._flushed = now

    def _await_records(self, deadline: int) -> None:
        """Wait until the records of what was just loaded have come, and no more of them come."""
        count = len(self._kept)
        self._flush()
        while time.perf_counter_ns() < deadline and len(self._kept) == count:
            time.sleep(_POLL_SECONDS)
        quiet = 0
        while time.perf_counter_ns() < deadline and quiet < _QUIET_POLLS:
            count = len(self._kept)
            time.sleep(_POLL_SECONDS)
            quiet = quiet + 1 if len(self._kept) == count else 0

    def _flush(self) -> None:
        """Have all buffers delivered.

        Each processor has a buffer of its own, and they come in no promised order ("About Event Tracing", MS Learn).
        So they are asked for twice: what one processor was still writing the first time comes with the second.
        """
        for session in (self._session, self._listener):
            if session is not None:
                session.flush()
                session.flush()

    def _feed(self) -> None:
        """Give the live images the records that have come."""
        assert self._live is not None
        self._live.add(self._new_records())

    def _new_records(self) -> list[RawRecord]:
        from ..image_records import RawRecord

        count = len(self._kept)
        fresh = [RawRecord(header, data) for header, data in self._kept[self._fed : count]]
        self._fed = count
        return fresh

    def _take_debug_events(self, until: int | None) -> None:
        """Make raw events of all records until a moment; `None`: of all that are left."""
        from ..image_events import debug_events
        from ..image_records import RawRecord

        count = len(self._loader_records)
        messages = [RawRecord(header, data) for header, data in self._loader_records[self._taken : count]]
        self._taken = count
        waiting = [*self._waiting, *self._without_start(self._new_records()), *messages]
        waiting.sort(key=lambda one: one.ticks)
        number = len(waiting) if until is None else sum(self._clock_of(one) <= until for one in waiting)
        self._waiting = waiting[number:]
        fresh = debug_events(waiting[:number])
        self._debug_events += fresh
        self._fresh += fresh

    def _clock_of(self, record: RawRecord) -> int:
        """The time of a record as `time.perf_counter_ns()`."""
        return record.ticks * 1_000_000_000 // self._frequency

    def _make_live_images(self) -> LiveImages:
        from ..image_events import ImageDecoder, LiveImages

        return LiveImages(ImageDecoder(self._context()), self._clock_of, self._watch, with_final_path)

    def _context(self) -> RecordContext:
        from ..image_events import RecordContext

        return RecordContext(
            self._pid, query_dos_devices(), os.environ.get("SYSTEMROOT"), self._frequency, self._wall, self._clock,
            self._ready,
        )  # fmt: skip

    def stop(self) -> Callable[[], Recording]:
        """Stop the sessions. Returns what makes the recording, with everything of the block."""
        self._watch.note_return()
        listened = Stopped(0, 0, ())
        try:
            with self._lock:
                self._has_stopped = True
            ended = self._session.stop()
        finally:
            try:
                if self._listener is not None:
                    listened = self._listener.stop()
            finally:
                requests = self._watch.stop()
                self._notes += self._watch.notes
                if self._holds_kernel_logger:
                    _KERNEL_LOGGER.release()
                    self._holds_kernel_logger = False
        return lambda: self._recording(ended, listened, requests)

    def _recording(self, ended: Stopped, listened: Stopped, requests: Sequence[Request]) -> Recording:
        from ....model.recording import Losses, Recording
        from ..image_records import RawRecord
        from .loader_messages import decode_messages, merge_messages

        notes = [*self._notes, *self._session.notes, *ended.notes]
        if self._listener is not None:
            notes += [f"listening to the loader: {note}" for note in (*self._listener.notes, *listened.notes)]
            notes += [] if self._loader_records else [_SILENT]
        # Both tell of the same losses: records while the trace runs, and the counts of the stop.
        events_lost = max(ended.events_lost + listened.events_lost, self._lost.count(_LOST_EVENTS))
        buffers_lost = max(ended.buffers_lost + listened.buffers_lost, sum(one in _LOST_BUFFERS for one in self._lost))
        if self._raw:
            self._take_debug_events(None)
            losses = Losses(events_lost, buffers_lost, len(self._failures))
            return Recording(self._name, tuple(self._debug_events), self._pid, losses, tuple(notes))
        context = self._context()
        requests = [with_final_path(one) for one in requests]
        images, undecodable = self._images(requests, context)
        messages = [RawRecord(header, data) for header, data in self._loader_records]
        loader = decode_messages(messages, requests, context)
        merged = merge_messages(images, loader.messages)
        # The images that the loader names have been delivered already, as the kernel named them.
        self._fresh += [one for one in merged.events if self._live is None or getattr(one, "base", None) is None]
        losses = Losses(events_lost, buffers_lost, len(self._failures) + undecodable + loader.undecodable)
        return Recording(self._name, merged.events, self._pid, losses, (*notes, *merged.notes))

    def _images(self, requests: Sequence[Request], context: RecordContext) -> tuple[Sequence[ImageChange], int]:
        """The events of the kernel, and how many of its records could not be decoded."""
        from ..image_events import decode_records

        if self._live is None:
            decoded = decode_records(self._new_records(), requests, context)
            return decoded.events, decoded.undecodable
        with self._lock:
            self._feed()
            self._fresh += self._live.take(time.perf_counter_ns(), is_end=True)
        return self._live.events, self._live.undecodable

    def _without_start(self, records: list[RawRecord]) -> list[RawRecord]:
        """Leave out the loads and unloads that the start itself caused."""
        since = self._ready * self._frequency // 1_000_000_000
        return [one for one in records if one.ticks >= since or one.opcode not in _CHANGES]


def _prepare_live_delivery(raw: bool) -> Callable[[], int]:
    """Import what makes events: what is imported while the traced code runs would be in the trace. Return what counts
    the modules of the process."""
    with LibraryFirst():
        from .. import image_events  # noqa: F401

        if raw:
            import uuid  # noqa: F401
    return make_module_counter()


def own_session_name(number: int) -> str:
    """Return a session name that tells its process, also when that is dead and its id is used again.

    Arguments: `number`, which no other session of this process has.
    """
    pid = os.getpid()
    return f"{SESSION_PREFIX}{pid}-{bindings.process_start(pid) or 0:x}-{number:x}"


def owner_of(name: str) -> tuple[int, int] | None:
    """Return process id and start time (`bindings.process_start`) in a session name of ours; `None` for any other
    name."""
    parts = name.removeprefix(SESSION_PREFIX).split("-")
    if not name.startswith(SESSION_PREFIX) or len(parts) != 3:
        return None
    try:
        return int(parts[0]), int(parts[1], 16)
    except ValueError:
        return None


def make_callback(
    pid: int, raw: bool, kept: list[tuple[bytes, bytes]], failures: list[int], lost: list[int]
) -> Callable[[int], None]:
    """Return the consumer of EVENT_RECORDs: it copies those of this process into `kept`, as (record, payload).

    A stop logs some 20,000 images of other processes, so a record that is not ours is rejected after two reads. It
    never raises: ctypes would print and go on. A record that could not be copied leaves its opcode in `failures`, one
    that reports lost events leaves its own in `lost`.
    """
    string_at, byte, word = ctypes.string_at, ctypes.c_uint8.from_address, ctypes.c_uint16.from_address
    dword, pointer = ctypes.c_uint32.from_address, ctypes.c_void_p.from_address
    data_at = bindings.EVENT_RECORD.UserData.offset
    record_size = ctypes.sizeof(bindings.EVENT_RECORD)

    def is_ours(record: int, data: int, length: int) -> bool:
        """By the pid in the payload: the rundown has none in its header. Version 0 has none in its payload."""
        if string_at(record + 24, 16) != _IMAGE_PROVIDER:
            return raw and dword(record + 12).value == pid
        pid_at = 8 if word(record + 4).value & 0x20 else 16
        if byte(record + 42).value == 0 or length < pid_at + 4:
            return dword(record + 12).value == pid
        return dword(data + pid_at).value == pid

    def on_record(record: int) -> None:
        opcode = 0
        try:
            opcode = byte(record + 45).value
            if opcode >= _LOST_EVENTS and string_at(record + 24, 16) == _LOST_PROVIDER:
                lost.append(opcode)
            if not raw and opcode not in _KEPT:
                return
            data, length = pointer(record + data_at).value or 0, word(record + 86).value
            if is_ours(record, data, length):
                kept.append((string_at(record, record_size), string_at(data, length) if length else b""))
        except Exception:  # noqa: BLE001 - Windows called us: there is nobody to raise to
            failures.append(opcode)

    return on_record


def make_listener(
    pid: int, kept: list[tuple[bytes, bytes]], failures: list[int], lost: list[int]
) -> Callable[[int], None]:
    """Return the consumer of the loader's messages: it copies those of this process into `kept`.

    Arguments and the rest as of `make_callback`.
    """
    string_at, byte, dword = ctypes.string_at, ctypes.c_uint8.from_address, ctypes.c_uint32.from_address
    word, pointer = ctypes.c_uint16.from_address, ctypes.c_void_p.from_address
    data_at = bindings.EVENT_RECORD.UserData.offset
    record_size = ctypes.sizeof(bindings.EVENT_RECORD)

    def on_record(record: int) -> None:
        try:
            if string_at(record + 24, 16) == _LOST_PROVIDER:
                lost.append(byte(record + 45).value)
            if dword(record + 12).value != pid or string_at(record + 24, 16) not in (_IMAGE_PROVIDER, _USER_LOADER):
                return
            data, length = pointer(record + data_at).value or 0, word(record + 86).value
            kept.append((string_at(record, record_size), string_at(data, length) if length else b""))
        except Exception:  # noqa: BLE001 - Windows called us: there is nobody to raise to
            failures.append(0)

    return on_record


_KERNEL_LOGGER = allocate_lock()
"""Held by the trace of this process that has the NT Kernel Logger, of which a machine has one (docs/adr/0002)."""
