"""Values of a check of packages: problems with their codes, evidence and fixes, target by target."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.Enum):
    """The severity of a problem."""

    ERROR = "error"
    """On a platform that the tags promise, something of it does not load, or an installer refuses it."""
    WARNING = "warning"
    """It loads, or may load by means that are not in the files; what is reported may fail later."""
    NOTE = "note"
    """Worth knowing."""

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


UNREADABLE = -1
"""In the place of the severity's rank, of a target that could not be read."""
NOTHING = len(Severity)
"""In that place, of a target without problems."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with a file of a target.

    Attributes:
        code: stable name of the kind; report/pages/checks.md has an entry for each.
        severity: how bad it is.
        file: the file's path in the target, "/" between its parts; empty for the target as a whole.
        title: what is wrong, in one sentence without a full stop.
        evidence: what that rests on, a sentence each.
        fix: what to do; empty where nothing is known.
        platform: the tag that promises otherwise; empty where it is wrong on all.
    """

    code: str
    severity: Severity
    file: str
    title: str
    evidence: tuple[str, ...] = ()
    fix: str = ""
    platform: str = ""


@dataclass(frozen=True, kw_only=True)
class PackageContent:
    """The native files that a package brought into an environment.

    Attributes:
        name, version: as its metadata has them.
        files: their paths in the target.
    """

    name: str
    version: str
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The result for one target.

    Attributes:
        target: as it was given.
        problems: the worst first.
        files: how many native files were looked at.
        platforms: the tags that they were held against.
        unreadable: why it could not be read at all, or not to its end; empty if it was.
        notes: what could not be taken into account.
        packages: of an environment, those that have native files.
    """

    target: str
    problems: tuple[Problem, ...] = ()
    files: int = 0
    platforms: tuple[str, ...] = ()
    unreadable: str = ""
    notes: tuple[str, ...] = ()
    packages: tuple[PackageContent, ...] = ()

    def count(self, severity: Severity) -> int:
        """Return the number of problems of a severity."""
        return sum(problem.severity is severity for problem in self.problems)

    @property
    def worst(self) -> int:
        """The rank of the worst problem, `UNREADABLE` or `NOTHING`."""
        if self.unreadable:
            return UNREADABLE
        return min((problem.severity.rank for problem in self.problems), default=NOTHING)
