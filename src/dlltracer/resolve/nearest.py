"""Names that look like one that is missing: a suffix or a prefix more, another part in the middle, other arguments.

A guess, for whoever reads the verdict. Made for mangled names of thousands of letters, and for libraries that provide
some ten thousand: only the neighbours in the order of the alphabet are compared, forwards and spelled backwards.
"""

from __future__ import annotations

from bisect import bisect_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NEAREST = 200
"""Missing symbols that get a guess of what was meant; who lacks more has another library altogether."""

_NEIGHBOURS = 16
_ALIKE = 0.6


class Nearest:
    """Answers for one set of names."""

    def __init__(self, names: Iterable[str]) -> None:
        self._forwards = sorted(names)
        self._backwards = sorted([name[::-1] for name in self._forwards])

    def to(self, wanted: str) -> tuple[str, ...]:
        """Up to three names that begin or end alike, the most alike first."""
        near = set(_around(self._forwards, wanted))
        near |= {name[::-1] for name in _around(self._backwards, wanted[::-1])}
        alike = sorted((-_likeness(wanted, name), name) for name in near)
        return tuple(name for value, name in alike[:3] if -value >= _ALIKE)


def _around(names: list[str], wanted: str) -> list[str]:
    at = bisect_left(names, wanted)
    return names[max(at - _NEIGHBOURS, 0) : at + _NEIGHBOURS]


def _likeness(one: str, other: str) -> float:
    """How much of the longer name its common beginning and end with the shorter are: 0 to 1."""
    shorter, longer = sorted((one, other), key=len)
    front = _common(shorter, longer)
    back = min(_common(shorter[::-1], longer[::-1]), len(shorter) - front)
    return (front + back) / max(len(longer), 1)


def _common(one: str, other: str) -> int:
    """The length of the common beginning; halving, as mangled names have thousands of letters."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return low
