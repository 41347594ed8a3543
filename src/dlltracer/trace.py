"""`Trace`: the context manager that traces this process. `delivery` gives its events to the outputs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Literal

    from .capture.backend import Backend, Session
    from .delivery import Delivery, Outputs, TextSink
    from .model.events import Event
    from .model.recording import Recording


class Trace:
    """Record every image that the process loads, or fails to load, in a `with` block.

    Arguments:
        collect: bind a list that gets the events.
        out: a file, as `print(file=...)` accepts it; gets one line an event, `LoadLibrary <path>` or `Failed <path>`,
            and nothing else.
        audit: raise `sys.audit` events `dlltracer.load` and `dlltracer.failed`, each with `(path,)`.
        debug: raw events (`DebugEvent`) instead of the regular ones; audit event `dlltracer.debug` with
            `(provider, opcode, header, data)`.
        backend: a mechanism by name ("etw", "etw+loader", "debugger", "rtld", "snapshot", "auto"), or a backend
            object. Default: "etw" on Windows, "auto" on Linux.
        unloads: benign unloads too, as `UnloadEvent`, as lines `UnloadLibrary <path>`, and as audit events
            `dlltracer.unload`. A failed load is `LoadFailedEvent` and `Failed` with or without it.
        live: deliver events while the block runs, as soon as they are known; else all of them when it ends.

    The outputs may be combined. They are called in a thread of the trace. Every event of the block is delivered before
    `close` returns; an exception of the block passes through. Traces may nest, overlap and run in several threads; each
    sees every load of the process between its start and its end. A child made by `fork` inside the block has a trace of
    its own, which holds its loads since the fork.

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
        live: bool = True,
    ) -> None:
        from .capture.choose import check_backend_name, default_backend_name

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
        self._live = live
        self._outputs: Outputs | None = None
        self._delivery: Delivery | None = None
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
        """Begin to record. Returns the list that gets the events, or `None` without `collect`.

        A trace that runs already runs on: another start changes nothing, and returns the same list.
        """
        if self._session is not None:
            return self._collected
        from .capture.backend import LibraryFirst
        from .capture.choose import make_backend, start_best

        collected: list[Event] | None = None if self._collected is None else []
        has_outputs = collected is not None or self._out is not None or self._audit
        live = self._live and has_outputs
        if live:
            # Before the trace begins: what is imported while it runs would be in it.
            with LibraryFirst():
                from .delivery import Delivery, Outputs

            self._outputs = Outputs(collected, self._out, self._audit, self._unloads)
        if self._backend == "auto":
            session, self._refusals = start_best(raw=self._debug, live=live)
        else:
            backend = make_backend(self._backend) if isinstance(self._backend, str) else self._backend
            session = backend.start(raw=self._debug, live=live)
        self._session, self._collected = session, collected
        if live:
            assert self._outputs is not None
            self._delivery = Delivery(self._outputs, session)
            self._delivery.start()
        return collected

    def close(self) -> None:
        """Stop, and deliver the events that were not delivered yet. Does nothing when not started, or closed."""
        session, self._session = self._session, None
        delivery, self._delivery = self._delivery, None
        if session is None:
            return
        self._record = session.stop()
        notes: tuple[str, ...] = ()
        if delivery is not None:
            notes = delivery.finish(self._finished)
        elif self._collected is not None or self._out is not None or self._audit:
            from .capture.backend import LibraryFirst

            with LibraryFirst():
                from .delivery import Outputs

            self._outputs = Outputs(self._collected, self._out, self._audit, self._unloads)
            for event in self._outputs.choose(self._finished().events):
                self._outputs.give(event)
        outputs, self._outputs = self._outputs, None
        if outputs is None:
            return
        notes += outputs.end()
        if notes:
            from .model.light import replace

            recording = self._finished()
            self._recording = replace(recording, notes=(*recording.notes, *notes))
        if outputs.interrupt is not None:
            raise outputs.interrupt

    def _finished(self) -> Recording:
        """The recording of a trace that has ended."""
        recording = self.recording
        assert recording is not None
        return recording

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
            from .delivery import report_error

            report_error("the trace could not be ended", own)
        return False


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
