"""What the checks of all platforms share: making problems, each once for its file, and knowing whose a library is."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from ..host.wheel import Wheel
from ..model.check import Problem, Severity
from .platforms import Platform


class PlatformCheck:
    """The check of a wheel on one platform; a subclass has the rules of its loader.

    Arguments: `wheel`, opened; `platform`, what its tag promises.
    """

    def __init__(self, wheel: Wheel, platform: Platform) -> None:
        self._wheel = wheel
        self._platform = platform
        self._told: set[tuple[str, str]] = set()

    def _once(self, problem: Problem) -> Iterator[Problem]:
        """Yield a problem the first time that its file has it: many loads share a library."""
        key = problem.file, problem.title
        if key not in self._told:
            self._told.add(key)
            yield problem

    def _problem(
        self, code: str, severity: Severity, place: str, title: str, evidence: Sequence[str] = (), fix: str = ""
    ) -> Problem:  # fmt: skip
        return Problem(
            code=code, severity=severity, file=self._wheel.native.get(place, place), title=title,
            evidence=tuple(evidence), fix=fix, platform=self._platform.tag,
        )  # fmt: skip

    def _owner_by_name(self, name: str) -> str | None:
        """Return the package, of those that the wheel requires, that has such a library by its name."""
        return next((one for one in self._wheel.requires if is_named_after(one, name, r"\..*$")), None)


def is_named_after(package: str, library: str, ending: str) -> bool:
    """Whether a library's name has a package's in it, or the reverse.

    Argument: `ending`, a regular expression for what ends the names of libraries.
    """
    stem = re.sub(rf"^lib|{ending}|[^a-z]", "", library.lower())
    words = re.sub(r"[^a-z]", "", package)
    return len(words) > 2 and (words in stem or (len(stem) > 2 and stem in words))


def place_of(path: str) -> str:
    """Return where a file is, from the top of site-packages; search paths lead there by "..", too."""
    return posixpath.normpath(path).lstrip("/") if path else ""
