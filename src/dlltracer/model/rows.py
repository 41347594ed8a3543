"""Many values of one kind, kept as columns.

A large library has ten thousand symbols, and of most of them nobody asks more than the name. Columns are filled without
a call for each value; the values are made when they are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

T = TypeVar("T")


class Rows(Sequence[T]):
    """A sequence that does not change, equal to every other sequence of the same values, of whatever type.

    A subclass says in `_row` what one value of each column makes, and gives the columns names.
    """

    __slots__ = ("_columns",)

    _row: type[T]

    def __init__(self, *columns: tuple[Any, ...]) -> None:
        """Take the columns, all of the same length, in the order of the arguments of `_row`."""
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[T]:
        return map(self._row, *self._columns)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return type(self)(*(column[index] for column in self._columns))
        return self._row(*(column[index] for column in self._columns))

    def __eq__(self, other: object) -> bool:
        if type(other) is type(self):
            return self._columns == other._columns
        if isinstance(other, Sequence) and not isinstance(other, str | bytes):
            return tuple(self) == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"
