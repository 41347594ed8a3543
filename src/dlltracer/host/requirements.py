"""Which requirements of a Python package apply to an interpreter: Requires-Dist with its markers.

Source: "Dependency specifiers", Packaging User Guide (PEP 508), as far as metadata of wheels uses it. What is not known
is not called missing: a requirement with a marker that cannot be read does not count.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from ..model.failure import ProcessFacts, System

_NAME = re.compile(
    r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*\(?([^;@()]*)\)?\s*(@[^;]*)?(?:;(.*))?"
)
_TOKEN = re.compile(
    r"\s*(?:(\(|\)|and\b|or\b|not\s+in\b|in\b|===|==|~=|!=|<=|>=|<|>)|'([^']*)'|\"([^\"]*)\"|([A-Za-z_.]+))"
)
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_MOST_TOKENS = 200


@dataclass(frozen=True)
class Requirement:
    """A package that another one requires: its `name`, and the `versions` that will do, as written (">=1.2")."""

    name: str
    versions: str


def read_requirement(text: str, process: ProcessFacts) -> Requirement | None:
    """Return the requirement if it applies to the interpreter, without any extra; `None` if not, or if unreadable."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    if found[4] is not None and _Marker(found[4], _values(process)).holds() is not True:
        return None
    return Requirement(found[1], found[2].replace(" ", ""))


def _values(process: ProcessFacts) -> dict[str, str]:
    windows = process.system is System.WINDOWS
    version = ".".join(map(str, process.version[:3]))
    return {
        "python_version": ".".join(map(str, process.version[:2])), "python_full_version": version,
        "implementation_version": version, "os_name": "nt" if windows else "posix",
        "sys_platform": "win32" if windows else "linux", "platform_system": "Windows" if windows else "Linux",
        "platform_machine": platform.machine(), "platform_python_implementation": platform.python_implementation(),
        "implementation_name": platform.python_implementation().lower(), "extra": "",
    }  # fmt: skip


class _Marker:
    """A marker being read from left to right. Truth is `None` for what is not known."""

    def __init__(self, text: str, values: dict[str, str]) -> None:
        self._values = values
        self._tokens: list[tuple[str, str | None]] | None = []
        at, end = 0, len(text.rstrip())
        while at < end and self._tokens is not None:
            found = _TOKEN.match(text, at)
            if found is None or len(self._tokens) >= _MOST_TOKENS:
                self._tokens = None
                break
            quoted = found[2] if found[2] is not None else found[3]
            kind = re.sub(r"\s+", " ", found[1]) if found[1] else "value"
            self._tokens.append((kind, quoted if quoted is not None or found[1] else values.get(found[4])))
            at = found.end()

    def holds(self) -> bool | None:
        """Return whether the marker holds; `None` if it cannot be read."""
        if self._tokens is None:
            return None
        try:
            truth = self._any()
        except (IndexError, RecursionError):
            return None
        return truth if not self._tokens else None

    def _any(self) -> bool | None:
        truths = [self._all()]
        while self._tokens and self._tokens[0][0] == "or":
            self._tokens.pop(0)
            truths.append(self._all())
        return True if True in truths else None if None in truths else False

    def _all(self) -> bool | None:
        truths = [self._one()]
        while self._tokens and self._tokens[0][0] == "and":
            self._tokens.pop(0)
            truths.append(self._one())
        return False if False in truths else None if None in truths else True

    def _one(self) -> bool | None:
        assert self._tokens is not None
        if self._tokens[0][0] == "(":
            self._tokens.pop(0)
            truth = self._any()
            self._tokens.pop(0)
            return truth
        (_, left), (operator, _), (_, right) = (self._tokens.pop(0) for _ in range(3))
        return None if left is None or right is None else _compare(left, operator, right)


def _compare(left: str, operator: str, right: str) -> bool | None:
    if operator in ("in", "not in"):
        return (left in right) is (operator == "in")
    if _NUMBERS.fullmatch(left) and _NUMBERS.fullmatch(right):
        one, other = _release(left), _release(right)
        return {
            "==": one == other, "!=": one != other, "<": one < other, ">": one > other, "<=": one <= other,
            ">=": one >= other, "===": left == right,
        }.get(operator)  # fmt: skip
    return {"==": left == right, "!=": left != right, "===": left == right}.get(operator)


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
