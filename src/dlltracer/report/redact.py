"""A saved trace without names of people and machines, and without secrets: for whoever gives it away.

Every text of the trace is gone through (`report.private_text` says for what), and the same thing gets the same word
everywhere: paths stay different where they were, so that rules and readers come to the same conclusions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from ..model.events import DebugEvent
from ..model.saved import HostFacts, SavedTrace
from .drawing import number
from .private_text import SECRET_NAME, PrivateText

AnyT = TypeVar("AnyT")

_WORDS_OF_FORMAT = frozenset(("is", "system", "kind", "phase", "outcome", "state", "manager", "problem", "change"))
"""Keys of plain values that hold words of ours."""


class Redactor:
    """Redacts one value after the other; what it met once it knows from then on.

    Arguments: `users`, `hosts`: names known beforehand, for values that are handed over as they come.
    """

    def __init__(self, users: tuple[str, ...] = (), hosts: tuple[str, ...] = ()) -> None:
        self._text = PrivateText(users, hosts)

    def learn(self, value: object) -> None:
        """Take note of all names in a value."""
        self._change(value, "")

    def redact_trace(self, trace: SavedTrace) -> SavedTrace:
        """Return the trace, redacted; a note of its recording says so."""
        self.learn(trace)
        done = self.redact(trace)
        notes = (*done.recording.notes, self.describe())
        return replace(done, recording=replace(done.recording, notes=notes))

    def redact(self, value: AnyT) -> AnyT:
        """Return the value with every text in it redacted. The payload of a raw event is left out."""
        changed: AnyT = self._change(value, "")
        return changed

    def describe(self) -> str:
        """Return a sentence on what was replaced."""
        users, hosts, secrets = self._text.counts
        names = f"the names of {number(users, 'user')} and {number(hosts, 'machine')}"
        return f"redacted: {names}, {number(secrets, 'secret')}; what has no usual form is not found"

    def _change(self, value: Any, key: str) -> Any:
        if isinstance(value, str):
            return value if key in _WORDS_OF_FORMAT else self._text.replace(value)
        if isinstance(value, DebugEvent):
            return replace(value, data=b"")
        if isinstance(value, tuple | list):
            return self._change_list(value, key)
        if isinstance(value, Mapping):
            return {name: self._change(item, name) for name, item in value.items()}
        return self._change_fields(value) if is_dataclass(value) and not isinstance(value, type) else value

    def _change_fields(self, value: Any) -> Any:
        changed: dict[str, Any] = {}
        if isinstance(value, HostFacts) and value.name:
            value = replace(value, name=self._text.host(value.name))
        for field in fields(value):
            former = getattr(value, field.name)
            new = self._change(former, "" if isinstance(former, str) else field.name)
            if new is not former and new != former:
                changed[field.name] = new
        return replace(value, **changed) if changed else value

    def _change_list(self, value: Any, key: str) -> Any:
        if key in ("environment", "start_environment"):
            return type(value)(self._change_variable(pair) for pair in value)
        found = []
        is_secret = False
        for item in value:
            text = isinstance(item, str)
            found.append(self._text.secret(item) if text and is_secret else self._change(item, "" if text else key))
            is_secret = key == "command" and text and item.startswith("-") and _is_secret_option(item)
        return type(value)(found)

    def _change_variable(self, pair: Any) -> Any:
        if not isinstance(pair, tuple | list) or [type(item) for item in pair] != [str, str]:
            return self._change(pair, "")
        name, value = pair
        return type(pair)((name, self._text.secret(value) if SECRET_NAME.search(name) else self._text.replace(value)))


def redact(trace: SavedTrace) -> SavedTrace:
    """Return the trace, redacted; a note in it says so."""
    return Redactor().redact_trace(trace)


def _is_secret_option(word: str) -> bool:
    return "=" not in word and SECRET_NAME.search(word) is not None
