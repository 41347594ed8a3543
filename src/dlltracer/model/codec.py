"""A recording as plain values, and back.

Plain means what JSON can hold: dictionaries with string keys, lists, strings, numbers, booleans and `None`. The format
is described in docs/reference/recording-format.md. Text may hold lone surrogates (an undecodable byte of a file name).
"""

from __future__ import annotations

from dataclasses import fields
from enum import Enum

from ..errors import DlltracerError
from .crash import Crash
from .events import DebugEvent, Event, FailureKind, LoadEvent, LoadFailedEvent, UnloadEvent
from .probe import Phase, Probe, ProbeOutcome
from .process import TracedProcess
from .recording import Losses, Recording

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERSION = 1
"""Counted up when a reader of the former version would misread the new one; new optional keys do not count."""


class DamagedRecording(DlltracerError, ValueError):
    """Something that is not a recording.

    Attributes: `where` (the place in the value, as "events[3].path"), `problem`.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"this is not a whole recording: {where}: {problem}")
        self.where = where
        self.problem = problem


class NewerRecording(DlltracerError, ValueError):
    """A recording written by a later dlltracer.

    Attributes: `version` (of the recording), `known` (the latest that this dlltracer reads).
    """

    def __init__(self, version: int, known: int) -> None:
        super().__init__(
            f"the recording has format version {version}, and this dlltracer reads up to {known}: use a newer dlltracer"
        )
        self.version = version
        self.known = known


def to_plain(recording: Recording) -> dict[str, Any]:
    """The recording as plain values; `from_plain` gives it back. Of one process: `processes` are not in it."""
    return {
        "version": VERSION,
        "backend": recording.backend,
        "pid": recording.pid,
        "losses": losses_to_plain(recording.losses),
        "notes": list(recording.notes),
        "events": [event_to_plain(event) for event in recording.events],
    }


def losses_to_plain(losses: Losses) -> dict[str, int]:
    return {"events": losses.events, "buffers": losses.buffers, "undecodable": losses.undecodable}


def process_to_plain(process: TracedProcess) -> dict[str, Any]:
    """One process; a field that is `None` is left out."""
    return {"type": "process", **_fields_to_plain(process)}


def event_to_plain(event: Event) -> dict[str, Any]:
    """One event; a field that is `None` is left out."""
    if isinstance(event, DebugEvent):
        return {
            "type": "debug",
            "provider": str(event.provider),
            "opcode": event.opcode,
            "header": event.header.hex(),
            "data": event.data.hex(),
        }
    name = next(name for name, kind in _IMAGE_EVENTS.items() if type(event) is kind)
    return {"type": name, **_fields_to_plain(event)}


def from_plain(plain: object) -> Recording:
    """The recording in `plain`. Raises `DamagedRecording`, or `NewerRecording` for one of a later format.

    Keys that it does not know are passed over: a later dlltracer may add some without a new version.
    """
    whole = _as_dict(plain, "recording")
    version = _as_int(_get(whole, "version", "recording"), "version")
    if version > VERSION:
        raise NewerRecording(version, VERSION)
    if version < 1:
        raise DamagedRecording("version", f"there is no version {version}")
    losses = _as_dict(_get(whole, "losses", "recording"), "losses")
    pid = whole.get("pid")
    return Recording(
        backend=_as_str(_get(whole, "backend", "recording"), "backend"),
        events=tuple(
            event_from_plain(event, f"events[{index}]")
            for index, event in enumerate(_as_list(_get(whole, "events", "recording"), "events"))
        ),
        pid=None if pid is None else _as_int(pid, "pid"),
        losses=Losses(
            *(_as_int(_get(losses, name, "losses"), f"losses.{name}") for name in ("events", "buffers", "undecodable"))
        ),
        notes=_as_texts(_get(whole, "notes", "recording"), "notes"),
    )


def event_from_plain(plain: object, where: str = "event") -> Event:
    """One event. Raises `DamagedRecording`, which names the place by `where`."""
    items = _as_dict(plain, where)
    kind = _as_str(_get(items, "type", where), f"{where}.type")
    if kind == "debug":
        return _debug_event(items, where)
    if kind not in _IMAGE_EVENTS:
        raise DamagedRecording(f"{where}.type", f"no event is called {kind!r}")
    make = _IMAGE_EVENTS[kind]
    _as_str(_get(items, "path", where), f"{where}.path")
    known = {field.name for field in fields(make)}
    return make(
        **{
            name: _READERS[name](value, f"{where}.{name}")
            for name, value in items.items()
            if name in known and value is not None
        }
    )


def _debug_event(items: dict[str, object], where: str) -> DebugEvent:
    import uuid

    texts = {name: _as_str(_get(items, name, where), f"{where}.{name}") for name in ("provider", "header", "data")}
    try:
        provider = uuid.UUID(texts["provider"])
        header, data = bytes.fromhex(texts["header"]), bytes.fromhex(texts["data"])
    except ValueError as error:
        raise DamagedRecording(where, str(error)) from error
    return DebugEvent(provider, _as_int(_get(items, "opcode", where), f"{where}.opcode"), header, data)


def _fields_to_plain(
    value: LoadEvent | LoadFailedEvent | UnloadEvent | Probe | TracedProcess | Crash,
) -> dict[str, Any]:
    found = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {name: _value_to_plain(item) for name, item in found if item is not None}


def _value_to_plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_fields_to_plain(item) if isinstance(item, Probe) else item for item in value]
    if isinstance(value, Crash):
        return _fields_to_plain(value)
    return value


def _get(items: dict[str, object], name: str, where: str) -> object:
    if name not in items:
        raise DamagedRecording(where, f"has no {name!r}")
    return items[name]


def _as_dict(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise DamagedRecording(where, f"an object is wanted, not {type(value).__name__}")
    return value


def _as_list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise DamagedRecording(where, f"a list is wanted, not {type(value).__name__}")
    return value


def _as_str(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise DamagedRecording(where, f"text is wanted, not {type(value).__name__}")
    return value


def _as_int(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise DamagedRecording(where, f"a whole number is wanted, not {type(value).__name__}")
    return value


def _as_float(value: object, where: str) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise DamagedRecording(where, f"a number is wanted, not {type(value).__name__}")
    try:
        return float(value)
    except OverflowError as error:
        raise DamagedRecording(where, str(error)) from error


def _as_texts(value: object, where: str) -> tuple[str, ...]:
    return tuple(_as_str(item, f"{where}[{index}]") for index, item in enumerate(_as_list(value, where)))


def _as_member(kind: type[Enum]) -> Callable[[object, str], Enum]:
    def read(value: object, where: str) -> Enum:
        try:
            return kind(_as_str(value, where))
        except ValueError as error:
            if isinstance(error, DamagedRecording):
                raise
            raise DamagedRecording(where, f"no {kind.__name__} is called {value!r}") from error

    return read


def _as_probes(value: object, where: str) -> tuple[Probe, ...]:
    probes = []
    for index, item in enumerate(_as_list(value, where)):
        place = f"{where}[{index}]"
        items = _as_dict(item, place)
        origin, reason = items.get("origin"), items.get("reason")
        probes.append(
            Probe(
                path=_as_str(_get(items, "path", place), f"{place}.path"),
                phase=_as_phase(_get(items, "phase", place), f"{place}.phase"),
                origin=None if origin is None else _as_str(origin, f"{place}.origin"),
                outcome=_as_outcome(_get(items, "outcome", place), f"{place}.outcome"),
                reason=None if reason is None else _as_str(reason, f"{place}.reason"),
            )
        )
    return tuple(probes)


_as_phase: Callable[[object, str], Any] = _as_member(Phase)
_as_outcome: Callable[[object, str], Any] = _as_member(ProbeOutcome)

_IMAGE_EVENTS: dict[str, type[LoadEvent | LoadFailedEvent | UnloadEvent]] = {
    "load": LoadEvent,
    "failed": LoadFailedEvent,
    "unload": UnloadEvent,
}

_READERS: dict[str, Callable[[object, str], Any]] = {
    "path": _as_str,
    "display_path": _as_str,
    "base": _as_int,
    "size": _as_int,
    "timestamp": _as_float,
    "pid": _as_int,
    "tid": _as_int,
    "need": _as_str,
    "requested_by": _as_str,
    "phase": _as_phase,
    "probes": _as_probes,
    "imports": _as_texts,
    "checksum": _as_int,
    "link_time": _as_int,
    "kind": _as_member(FailureKind),
    "reason": _as_str,
}
