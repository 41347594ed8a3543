"""`Trace`: the context manager, and its outputs (a list, a file, audit events)."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Literal, Protocol

    from .capture.backend import Backend, Session
    from .model.events import Event
    from .model.recording import Recording

    class TextSink(Protocol):
        """What `print(file=...)` accepts."""

        def write(self, text: str, /) -> object: ...


class Trace:
    """Record every image that the process loads, or fails to load, in a `with` block.

    Arguments:
        collect: bind a list that holds the events after the block.
        out: a file, as `print(file=...)` accepts it; gets one line an event, `LoadLibrary <path>` or `Failed <path>`,
            and nothing else.
        audit: raise `sys.audit` events `dlltracer.load` and `dlltracer.failed`, each with `(path,)`.
        debug: raw events (`DebugEvent`) instead of the regular ones; audit event `dlltracer.debug` with
            `(provider, opcode, header, data)`.
        backend: a mechanism by name ("etw", "etw+loader", "debugger", "rtld", "snapshot", "auto"), or a backend
            object. Default: "etw" on Windows, "rtld" on Linux.
        unloads: benign unloads too, as `UnloadEvent`, as lines `UnloadLibrary <path>`, and as audit events
            `dlltracer.unload`. A failed load is `LoadFailedEvent` and `Failed` with or without it.

    The outputs may be combined. Every event of the block is delivered when it ends, and before `close` returns; an
    exception of the block passes through. Traces may nest, overlap and run in several threads; each sees every load of
    the process between its start and its end. A child made by `fork` inside the block has a trace of its own, which
    holds its loads since the fork.

    Raises, from the constructor: `UnknownBackend` (a `ValueError`). From `start`: `TracePermissionError` (a
    `PermissionError`, `winerror` 5), `TraceStartError` or `BackendUnavailable` (each an `OSError`). A failed start
    leaves nothing behind.
    """

    def __init__(
        self,
        collect: bool = False,
        out: TextSink | None = None,
        audit: bool = False,
        debug: bool = False,
        *,
        backend: str | Backend | None = None,
        unloads: bool = False,
    ) -> None:
        from .capture.backend import check_backend_name, default_backend_name

        if backend is None:
            backend = default_backend_name()
        if isinstance(backend, str):
            check_backend_name(backend)
        self._backend = backend
        self._collected: list[Event] | None = [] if collect else None
        self._out = out
        self._audit = audit
        self._debug = debug
        self._unloads = unloads
        self._session: Session | None = None
        self._refusals: tuple[str, ...] = ()
        self._record: Callable[[], Recording] | None = None
        self._recording: Recording | None = None

    @property
    def recording(self) -> Recording | None:
        """Everything the last block recorded: events, the mechanism that spoke, what was lost, notes; `None` before.

        It is decoded when it is first asked for, unless an output needed it before.
        """
        record, self._record = self._record, None
        if record is not None:
            recording = without_own_loads(record())
            if self._refusals:
                from .model.light import replace

                recording = replace(recording, notes=self._refusals + recording.notes)
            self._recording = recording
        return self._recording

    def start(self) -> list[Event] | None:
        """Begin to record. Returns the list that `close` fills, or `None` without `collect`.

        A trace that runs already runs on: another start changes nothing, and returns the same list.
        """
        if self._session is not None:
            return self._collected
        from .capture.backend import make_backend, start_best

        if self._backend == "auto":
            self._session, self._refusals = start_best(raw=self._debug)
        else:
            backend = make_backend(self._backend) if isinstance(self._backend, str) else self._backend
            self._session = backend.start(raw=self._debug)
        if self._collected is not None:
            self._collected = []
        return self._collected

    def close(self) -> None:
        """Stop, and deliver every event of the block to the outputs. Does nothing when not started, or closed."""
        session, self._session = self._session, None
        if session is None:
            return
        self._record = session.stop()
        if self._collected is not None or self._out is not None or self._audit:
            recording = self.recording
            assert recording is not None
            self._deliver(recording)

    def __enter__(self) -> list[Event] | None:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> Literal[False]:
        try:
            self.close()
        except Exception as own:
            if error is None:
                raise
            # The exception of the block is what the user came for: ours must not take its place.
            report_error("the trace could not be ended", own)
        return False

    def _deliver(self, recording: Recording) -> None:
        from .model.events import DebugEvent, UnloadEvent
        from .model.printable import escape, is_terminal

        on_terminal = is_terminal(self._out)
        failed_writes = _Failures()
        failed_hooks = _Failures()
        for event in recording.events:
            if isinstance(event, UnloadEvent) and not self._unloads:
                continue
            if self._collected is not None:
                self._collected.append(event)
            if self._out is not None:
                with failed_writes:
                    # A terminal would obey escape sequences in names of files. Programs get the names as they are.
                    print_escaped = on_terminal and not isinstance(event, DebugEvent)
                    print(escape(str(event)) if print_escaped else event, file=self._out)
                    # print(file=...) takes objects that have `write` alone; print(flush=True) does not.
                    flush = getattr(self._out, "flush", None)
                    if flush is not None:
                        flush()
            if self._audit:
                with failed_hooks:
                    sys.audit(*audit_arguments(event))
        notes = []
        if failed_writes.count:
            notes.append(failed_writes.report("lines could not be written to out"))
        if failed_hooks.count:
            notes.append(failed_hooks.report("audit events made a hook raise"))
        if notes:
            from .model.light import replace

            self._recording = replace(recording, notes=(*recording.notes, *notes))
        for failures in (failed_writes, failed_hooks):
            if failures.interrupt is not None:
                raise failures.interrupt


def without_own_loads(recording: Recording) -> Recording:
    """Leave out, and note, the loads of imports inside dlltracer: an inner trace decodes while an outer one listens."""
    from .capture.requests import is_own_load

    events = tuple(event for event in recording.events if not is_own_load(event))
    left_out = len(recording.events) - len(events)
    if not left_out:
        return recording
    from .model.light import replace

    note = f"{left_out} events of modules that dlltracer itself imported to end another trace are left out"
    return replace(recording, events=events, notes=(*recording.notes, note))


def audit_arguments(event: Event) -> tuple[Any, ...]:
    """The arguments of `sys.audit` for an event: its name, then what the hook gets."""
    from .model.events import DebugEvent, LoadFailedEvent, UnloadEvent

    if isinstance(event, DebugEvent):
        return ("dlltracer.debug", event.provider, event.opcode, event.header, event.data)
    if isinstance(event, LoadFailedEvent):
        return ("dlltracer.failed", event.path)
    return ("dlltracer.unload" if isinstance(event, UnloadEvent) else "dlltracer.load", event.path)


def report_error(what: str, error: BaseException) -> None:
    """Write an error to stderr, with its traceback. Never raises; does nothing where there is no stderr."""
    if sys.stderr is None:
        return
    import traceback

    from .model.printable import escape_for

    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        text = escape_for(sys.stderr, f"dlltracer: {what}:\n{''.join(lines)}")
        print(text, end="", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


class _Failures:
    """Swallows what one output raises, so that the others get their events; keeps the first error and the count.

    KeyboardInterrupt is the user's, not the output's: it is kept in `interrupt`, to be raised when all is delivered.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: BaseException | None = None
        self.interrupt: KeyboardInterrupt | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        if isinstance(error, KeyboardInterrupt):
            self.interrupt = error
        elif error is not None:
            self.count += 1
            self.first = self.first or error
        return error is not None

    def report(self, what: str) -> str:
        """Say it once on stderr, and return it as a note."""
        assert self.first is not None
        note = f"{self.count} {what}; the first error was {self.first!r}"
        report_error(note, self.first)
        return note
