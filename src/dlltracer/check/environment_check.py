"""What the checks of environments on all systems share: problems told once, and what the packages say of a name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from ..host.environments import PythonEnvironment
from ..model.check import Problem, Severity

_HASH = re.compile(r"-[0-9a-f]{8,}(?=\.)")


class EnvironmentCheck:
    """The check of an environment; a subclass has the rules of its loader.

    Arguments: `environment`; `places`, path of each native file to its path in the target, "/" between its parts.
    """

    def __init__(self, environment: PythonEnvironment, places: dict[str, str]) -> None:
        self._environment = environment
        self._places = places
        self._told: set[tuple[str, str]] = set()
        self._by_name: dict[str, list[str]] | None = None

    def _once(self, problem: Problem) -> Iterator[Problem]:
        """Yield a problem the first time that its file has it: many loads share a library."""
        key = problem.file, problem.title
        if key not in self._told:
            self._told.add(key)
            yield problem

    def _problem(
        self, code: str, severity: Severity, path: str, title: str, evidence: Sequence[str] = (), fix: str = ""
    ) -> Problem:  # fmt: skip
        return Problem(
            code=code, severity=severity, file=self._place(path), title=title, evidence=tuple(evidence), fix=fix
        )  # fmt: skip

    def _place(self, path: str) -> str:
        """Return a path in the target; the path itself for a file that is elsewhere."""
        return self._places.get(path, path)

    def _named(self, name: str) -> list[str]:
        """Return the files of the environment that have a name, or would have it without the hash of a repair tool."""
        if self._by_name is None:
            self._by_name = {}
            for path in sorted(self._places):
                base = posixpath.basename(self._places[path]).lower()
                for key in dict.fromkeys((base, _HASH.sub("", base))):
                    self._by_name.setdefault(key, []).append(path)
        return self._by_name.get(name.lower(), [])


def without_hash(name: str) -> str:
    """Return the name of a library without the hash that auditwheel and delvewheel put into it."""
    return _HASH.sub("", name)
