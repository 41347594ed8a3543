"""Controls one ETW session from start to stop, with the thread that consumes its events.

Order of ending: stop the session, which flushes every buffer to the consumer; wait for ProcessTrace, which returns by
itself when all is delivered; close the consumer. The other way round loses the last events (CloseTrace, MS Learn).
"""

from __future__ import annotations

import atexit
import ctypes
import os
import time
from _thread import allocate_lock, start_new_thread

from ....errors import TracePermissionError, TraceStartError
from ..system import cause_image_event, last_error
from . import bindings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEM_TRACE_CONTROL_GUID = bytes.fromhex("ad4a819e0432d2119a82006008a86939")
"""{9e814aad-3204-11d2-9a82-006008a86939}: the NT Kernel Logger (evntrace.h)."""

_JOIN_SECONDS = 60
_START_TRIES, _START_PAUSE = 10, 0.1
_ENABLE_MILLISECONDS = 1000
_READY_TRIES, _READY_SECONDS = 10, 0.2
_NOT_READY = "no event arrived while the session started: the first ones of the block may be missing"
_ELEVATE = "run it as Administrator (from an elevated prompt); the debugger needs no privilege (backend='debugger')"
_REMEDIES = {
    bindings.ERROR_NO_SYSTEM_RESOURCES: "all sessions are taken, of which Windows has eight for the "
    "kernel's events: 'logman query -ets' lists them, "
    "'logman stop NAME -ets' stops one that was left behind",
    bindings.ERROR_ALREADY_EXISTS: "a session of that name runs already, and would not stop",
    bindings.ERROR_INVALID_PARAMETER: "this Windows does not know such a session "
    "(EtwBackend(kernel_logger=True) takes the NT Kernel Logger, and stops whoever holds it)",
}


class Stopped:
    """The end of a session: its losses, and `notes` on what went wrong."""

    __slots__ = ("buffers_lost", "events_lost", "notes")

    def __init__(self, events_lost: int, buffers_lost: int, notes: tuple[str, ...]) -> None:
        self.events_lost = events_lost
        self.buffers_lost = buffers_lost
        self.notes = notes


def make_properties(name_guid: bytes | None, mode: int, flags: int) -> bindings.PROPERTIES_WITH_NAMES:
    """Fresh properties: StartTrace and ControlTrace overwrite what they are given.

    Arguments: `name_guid`, the session's GUID as 16 bytes in memory order, `None` for one to be queried or stopped;
    `mode`, bits EVENT_TRACE_..._MODE (LogFileMode); `flags`, bits EVENT_TRACE_FLAG_... (EnableFlags).
    """
    room = bindings.PROPERTIES_WITH_NAMES()
    properties = room.Properties
    properties.Wnode.BufferSize = ctypes.sizeof(room)
    properties.Wnode.Flags = bindings.WNODE_FLAG_TRACED_GUID
    properties.Wnode.ClientContext = bindings.CLIENT_CONTEXT_QPC
    if name_guid is not None:
        ctypes.memmove(ctypes.addressof(properties.Wnode.Guid), name_guid, 16)
    properties.LoggerNameOffset = bindings.PROPERTIES_WITH_NAMES.LoggerName.offset
    # A start of a real-time session has no log file, and then the offset is 0 (EVENT_TRACE_PROPERTIES_V2, MS Learn);
    # Windows writes the name of one there when a session is queried or stopped.
    is_start = name_guid is not None
    properties.LogFileNameOffset = 0 if is_start else bindings.PROPERTIES_WITH_NAMES.LogFileName.offset
    properties.LogFileMode = mode
    properties.EnableFlags = flags
    if flags:
        # A stop logs every image of every process again, some 4 MB at once: small buffers lose part of it.
        properties.BufferSize = 64
        properties.MinimumBuffers = max(64, 4 * (os.cpu_count() or 1))
        properties.MaximumBuffers = properties.MinimumBuffers + 64
        properties.FlushTimer = 1
    return room


def raise_start_error(call: str, code: int) -> None:
    """Raise what the error `code` of a `call` means: `TracePermissionError` or `TraceStartError`."""
    if code == bindings.ERROR_ACCESS_DENIED:
        raise TracePermissionError(call, _ELEVATE)
    raise TraceStartError(call, code, _REMEDIES.get(code, "see the 'System Error Codes' of MS Learn"))


class ProviderConfig:
    """A provider that a session listens to: its GUID as 16 bytes in memory order, the most talkative level, the bits of
    its keywords."""

    __slots__ = ("guid", "keywords", "level")

    def __init__(self, guid: bytes, level: int, keywords: int) -> None:
        self.guid = guid
        self.level = level
        self.keywords = keywords


class RunningSession:
    """A session and its consumer.

    Arguments:
        name, guid: of the session.
        mode: its LogFileMode bits beyond real time.
        flags: the kernel's events that it records (EVENT_TRACE_FLAG_...); 0 for an ordinary session.
        on_record: called with the address of each EVENT_RECORD, in the consumer's thread.
        providers: what an ordinary session listens to. One that is refused is noted; if all are, that is raised.

    `notes` says what went wrong at the start without ending it. Raises `TracePermissionError` or `TraceStartError`;
    then neither session nor thread is left.
    """

    def __init__(
        self, etw: bindings.Etw, name: str, guid: bytes, mode: int, flags: int, on_record: Callable[[int], None],
        providers: tuple[ProviderConfig, ...] = (),
    ) -> None:  # fmt: skip
        self._etw = etw
        self._name = name
        self._lock = allocate_lock()
        self.notes: tuple[str, ...] = ()
        self._stopped: Stopped | None = None
        self._code = 0
        self._consumer: ctypes.c_uint64 | None = None
        self._handle = ctypes.c_uint64()
        self._start(guid, mode | bindings.EVENT_TRACE_REAL_TIME_MODE, flags)
        try:
            # Kept until ProcessTrace has returned: Windows holds pointers to all three.
            self._ready = allocate_lock()
            self._ready.acquire()
            self._callback = etw.callback_type(self._with_first_event(on_record))
            self._name_buffer = ctypes.create_unicode_buffer(name)
            self._logfile = bindings.EVENT_TRACE_LOGFILEW()
            self._consumer = self._open()
            self.notes = self._listen(providers)
            self._done = allocate_lock()
            self._done.acquire()
            start_new_thread(self._consume, ())
            self.notes += self._await_consumer() if flags else self._await_listener()
        except BaseException:
            self._control_stop()
            if self._consumer is not None:
                etw.CloseTrace(self._consumer)
            raise
        atexit.register(self.stop)

    @property
    def counter_frequency(self) -> int:
        """Ticks of the events' clock in a second; 0 if Windows did not say."""
        return int(self._logfile.LogfileHeader.PerfFreq)

    def _start(self, guid: bytes, mode: int, flags: int) -> None:
        for attempt in range(_START_TRIES):
            properties = make_properties(guid, mode, flags)
            code = self._etw.StartTraceW(ctypes.byref(self._handle), self._name, ctypes.byref(properties.Properties))
            if code == bindings.ERROR_ALREADY_EXISTS and attempt < _START_TRIES - 1:
                # A session that was stopped keeps its name until its last consumer has left.
                stop_by_name(self._etw, self._name)
                time.sleep(_START_PAUSE)
            elif code != bindings.ERROR_SUCCESS:
                raise_start_error("StartTrace", code)
            else:
                return

    def _open(self) -> ctypes.c_uint64:
        logfile = self._logfile
        logfile.LoggerName = ctypes.addressof(self._name_buffer)
        logfile.ProcessTraceMode = (
            bindings.PROCESS_TRACE_MODE_REAL_TIME
            | bindings.PROCESS_TRACE_MODE_EVENT_RECORD
            | bindings.PROCESS_TRACE_MODE_RAW_TIMESTAMP
        )
        logfile.EventRecordCallback = ctypes.cast(self._callback, ctypes.c_void_p).value
        handle = self._etw.OpenTraceW(ctypes.byref(logfile))
        if handle in bindings.INVALID_PROCESSTRACE_HANDLES:
            raise_start_error("OpenTrace", last_error())
        return ctypes.c_uint64(handle)

    def _listen(self, providers: tuple[ProviderConfig, ...]) -> tuple[str, ...]:
        """Enable providers (EnableTraceEx2, MS Learn). The end of the session takes that back."""
        refused: list[int] = []
        for provider in providers:
            code = self._etw.EnableTraceEx2(
                self._handle, provider.guid, bindings.EVENT_CONTROL_CODE_ENABLE_PROVIDER, provider.level,
                provider.keywords, 0, _ENABLE_MILLISECONDS, None,
            )  # fmt: skip
            # Too slow is enabled all the same: the time is for waiting until it is.
            if code not in (bindings.ERROR_SUCCESS, bindings.ERROR_TIMEOUT):
                refused.append(code)
        if refused and len(refused) == len(providers):
            raise_start_error("EnableTraceEx2", refused[0])
        return tuple(f"Windows refused a provider (EnableTraceEx2, error {code})" for code in refused)

    def _with_first_event(self, on_record: Callable[[int], None]) -> Callable[[int], None]:
        """Return `on_record`, which also wakes the starting thread when the first event arrives."""
        waiting = [True]

        def on_event(record: int) -> None:
            if waiting:
                waiting.clear()
                self._ready.release()
            on_record(record)

        return on_event

    def _await_consumer(self) -> tuple[str, ...]:
        """Wait until events arrive: a session that is stopped before ProcessTrace has begun delivers nothing (4201).

        Most starts tell the images of all processes, so there is something to deliver once the buffers are flushed.
        That is not promised for a private session, and then a quiet machine has nothing to tell: from the second try on
        we make an event. Windows may map resources without one, so later tries load a DLL.
        """
        for attempt in range(_READY_TRIES):
            if attempt:
                cause_image_event(as_resource=attempt == 1)
            if self._arrives():
                return ()
        return (_NOT_READY,)

    def _await_listener(self) -> tuple[str, ...]:
        """Do the same for a session whose providers may be silent: write events as a provider of our own."""
        guid, registered = os.urandom(16), ctypes.c_uint64()
        etw, marker = self._etw, bindings.EVENT_DESCRIPTOR(Id=1, Level=1)
        if etw.EventRegister(guid, None, None, ctypes.byref(registered)) != bindings.ERROR_SUCCESS:
            return (_NOT_READY,)
        try:
            self._listen((ProviderConfig(guid, 1, 0),))
            for _ in range(_READY_TRIES):
                etw.EventWrite(registered, ctypes.byref(marker), 0, None)
                if self._arrives():
                    return ()
        except OSError:
            pass  # then it is not known when it is ready
        finally:
            etw.EventUnregister(registered)
        return (_NOT_READY,)

    def flush(self) -> None:
        """Have Windows deliver what it has buffered, soon."""
        room = make_properties(None, 0, 0)
        self._etw.ControlTraceW(self._handle, None, ctypes.byref(room.Properties), bindings.EVENT_TRACE_CONTROL_FLUSH)

    def _arrives(self) -> bool:
        """Flush the buffers; whether an event has come through by now, or does so soon."""
        self.flush()
        return self._ready.acquire(timeout=_READY_SECONDS)

    def _consume(self) -> None:
        assert self._consumer is not None
        try:
            self._code = self._etw.ProcessTrace(ctypes.byref(self._consumer), 1, None, None)
        finally:
            self._done.release()

    def stop(self) -> Stopped:
        """Stop the session, wait until everything is delivered, and close. Again: the same answer."""
        with self._lock:
            if self._stopped is None:
                self._stopped = self._stop()
                atexit.unregister(self.stop)
            return self._stopped

    def _stop(self) -> Stopped:
        # Stop, join, close: in this order. The stop logs the end of every loaded image (DCEnd) and flushes all buffers.
        # Then ProcessTrace delivers them and returns by itself, which takes seconds at times. After CloseTrace the
        # callback "will not receive any new events" (CloseTrace, MS Learn), so to close first loses the last ones. The
        # counts of lost events are final only in the properties that the stop fills in (ControlTrace, MS Learn).
        notes = []
        code, properties = self._control_stop()
        if code == bindings.ERROR_WMI_INSTANCE_NOT_FOUND:
            notes.append(f"another program stopped the session {self._name}: events after that are missing")
        elif code not in (bindings.ERROR_SUCCESS, bindings.ERROR_MORE_DATA):
            notes.append(f"the session {self._name} could not be stopped (Windows error {code})")
            # Without the stop ProcessTrace would wait for ever.
            self._etw.CloseTrace(self._consumer)
        if not self._done.acquire(timeout=_JOIN_SECONDS):
            notes.append(f"the last events were not delivered within {_JOIN_SECONDS} seconds")
        elif self._code != bindings.ERROR_SUCCESS:
            notes.append(f"ProcessTrace ended with Windows error {self._code}: events are missing")
        self._etw.CloseTrace(self._consumer)
        return Stopped(
            int(properties.EventsLost), int(properties.RealTimeBuffersLost + properties.LogBuffersLost), tuple(notes)
        )

    def _control_stop(self) -> tuple[int, bindings.EVENT_TRACE_PROPERTIES]:
        room = make_properties(None, 0, 0)
        properties = ctypes.byref(room.Properties)
        code = self._etw.ControlTraceW(self._handle, None, properties, bindings.EVENT_TRACE_CONTROL_STOP)
        return int(code), room.Properties


def stop_by_name(etw: bindings.Etw, name: str) -> bool:
    """Stop a session of any process; return whether there was one. Raises what `raise_start_error` does."""
    room = make_properties(None, 0, 0)
    code = etw.ControlTraceW(0, name, ctypes.byref(room.Properties), bindings.EVENT_TRACE_CONTROL_STOP)
    if code in (bindings.ERROR_SUCCESS, bindings.ERROR_MORE_DATA):
        return True
    if code != bindings.ERROR_WMI_INSTANCE_NOT_FOUND:
        raise_start_error("ControlTrace", code)
    return False


def session_names(etw: bindings.Etw) -> tuple[str, ...]:
    """The names of the sessions that run on this machine; none when Windows will not say (QueryAllTracesW)."""
    most = 64
    rooms = [make_properties(None, 0, 0) for _ in range(most)]
    pointer_type = ctypes.POINTER(bindings.EVENT_TRACE_PROPERTIES)
    pointers = (pointer_type * most)(*(ctypes.pointer(room.Properties) for room in rooms))
    count = ctypes.c_uint32()
    code = etw.QueryAllTracesW(pointers, most, ctypes.byref(count))
    if code not in (bindings.ERROR_SUCCESS, bindings.ERROR_MORE_DATA):
        return ()
    names = (bytes(room.LoggerName).decode("utf-16-le", "replace") for room in rooms[: count.value])
    return tuple(name.split("\0", 1)[0] for name in names)
