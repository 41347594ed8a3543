"""`dataclass`, and columns of values, for what is made while a program is traced: without the modules and the time.

`dataclasses` imports `inspect`, which imports `dis` and `_opcode`; on many builds that is an extension module, and an
image that we load is missing in the trace (docs/adr/0003). It also compiles six functions a class, half a millisecond
each; one function is compiled here. `fields`, `replace`, `is_dataclass` and `get_type_hints` work as on any dataclass:
the first of them that is asked makes the description of the fields.
"""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - exported, with what checkers know of it
    from dataclasses import replace as replace  # noqa: PLC0414
    from typing import Any, overload
    from typing import Protocol as Protocol  # noqa: PLC0414
    from typing import TypeVar as TypeVar  # noqa: PLC0414
else:
    # Names for type checkers only. `typing` costs as much as all that reads an ELF file.
    Protocol = object

    def TypeVar(name, **bounds):  # noqa: N802
        return None

    def dataclass(*, frozen, repr=True, init=True, kw_only=False):
        """Return a decorator that makes a class a frozen dataclass, as `dataclasses.dataclass(frozen=True)` would.

        Defaults are values, not factories. A type checker sees the decorator of the standard library.

        Arguments: `frozen`, which must be true; `repr`, `init`, `kw_only` as there.
        """
        assert frozen
        return lambda given: _make(given, has_repr=repr, has_init=init, kw_only=kw_only)

    def replace(value, /, **changes):
        """Return the value with other fields, as `dataclasses.replace` does, which is asked for all other classes."""
        if getattr(type(value), "__replace__", None) is _replace:
            return _replace(value, **changes)
        import dataclasses

        return dataclasses.replace(value, **changes)


def _make(kind: Any, *, has_repr: bool, has_init: bool, kw_only: bool) -> Any:
    inherited = getattr(kind, "__match_args__", ())
    own = tuple(name for name in kind.__annotations__ if name not in inherited)
    names = (*inherited, *own)
    kind.__match_args__ = names  # type: ignore[misc]
    if has_init:
        kind.__init__ = _init_later(kind, names, kw_only)
    kind.__setattr__ = _refuse_to_set
    kind.__delattr__ = _refuse_to_delete
    kind.__eq__ = _is_equal
    if "__hash__" not in vars(kind) or kind.__hash__ is None:
        kind.__hash__ = _hash
    kind.__replace__ = _replace
    if has_repr:
        kind.__repr__ = _repr
    kind.__dataclass_fields__ = _Described(kind, "__dataclass_fields__")
    kind.__dataclass_params__ = _Described(kind, "__dataclass_params__")
    return kind


_MANY = 40
"""Values of a class from which on the time to compile an `__init__` (400,000 instructions) comes back."""


def _init_later(kind: Any, names: tuple[str, ...], kw_only: bool) -> Any:
    """Return an `__init__` for the first values of a class, which compiles one of its own when many are made."""
    made = 0

    def __init__(self: Any, /, *values: object, **named: object) -> None:  # noqa: N807
        nonlocal made
        made += 1
        rest = names[len(values) :]
        own = dict(zip(names, values, strict=False))
        for name in rest:
            if name in named:
                own[name] = named[name]
            elif hasattr(kind, name):
                own[name] = getattr(kind, name)
        is_right = len(own) == len(names) >= len(values) and named.keys() <= set(rest) and not (kw_only and values)
        if is_right and made < _MANY:
            self.__dict__.update(own)
            if hasattr(kind, "__post_init__"):
                self.__post_init__()
            return
        kind.__init__ = _make_init(kind, names, kw_only)  # which also says what is wrong with arguments
        kind.__init__(self, *values, **named)

    return __init__


def _make_init(kind: type[Any], names: tuple[str, ...], kw_only: bool) -> Any:
    given: dict[str, Any] = {"__builtins__": {}}
    arguments = ["self", "*"] if kw_only else ["self"]
    for name in names:
        if hasattr(kind, name):
            given[f"default_{name}"] = getattr(kind, name)
            arguments.append(f"{name}=default_{name}")
        else:
            arguments.append(name)
    # Through the dictionary: __setattr__ refuses, and object.__setattr__ takes three times as long.
    # A field may have any name ("values"), so this variable has one that no field may have.
    lines = [f"def __init__({', '.join(arguments)}):", " __own__ = self.__dict__"]
    lines += [f" __own__['{name}'] = {name}" for name in names]
    if hasattr(kind, "__post_init__"):
        lines.append(" self.__post_init__()")
    exec("\n".join(lines), given)  # noqa: S102 - the names of fields of our own
    init = given["__init__"]
    init.__qualname__ = f"{kind.__qualname__}.__init__"
    init.__module__ = kind.__module__
    return init


def _values(value: Any) -> tuple[object, ...]:
    return tuple([getattr(value, name) for name in value.__match_args__])


def _is_equal(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({shown})"


def _refuse_to_set(self: object, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _replace(self: Any, /, **changes: object) -> Any:
    kind, own = type(self), self.__dict__
    if hasattr(kind, "__post_init__") or len(own) != len(kind.__match_args__) or not changes.keys() <= own.keys():
        return kind(**{name: getattr(self, name) for name in kind.__match_args__} | changes)
    changed = object.__new__(kind)  # a copy costs a tenth of a call with fifteen arguments
    changed.__dict__.update(own)
    changed.__dict__.update(changes)
    return changed


class _Described:
    """The attribute of a class that `dataclasses` keeps its fields in, made when it is first read."""

    def __init__(self, kind: type[Any], attribute: str) -> None:
        self._kind = kind
        self._attribute = attribute

    def __get__(self, instance: object, owner: type[Any] | None = None) -> object:
        import dataclasses

        kind = self._kind
        # A twin without bases, with the fields of all of them.
        hints: dict[str, object] = {}
        for base in reversed(kind.__mro__[:-1]):
            hints.update(base.__annotations__)
        twin = type(kind.__name__, (), {"__annotations__": hints, "__module__": kind.__module__, **_defaults(kind)})
        described: Any = dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)(twin)
        for attribute in ("__dataclass_fields__", "__dataclass_params__"):
            setattr(kind, attribute, getattr(described, attribute))
        return getattr(kind, self._attribute)


def _defaults(kind: type[Any]) -> dict[str, object]:
    names: tuple[str, ...] = kind.__match_args__
    return {name: getattr(kind, name) for name in names if hasattr(kind, name)}


T = TypeVar("T")


class Rows(Sequence[T]):
    """Many values of one kind, kept as columns: equal to every other sequence of the same values, of whatever type.

    A large library has ten thousand symbols, and of most of them nobody asks more than the name. Columns are filled
    without a call for each value. The values are made when they are looked at.

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

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, index: int) -> T: ...

        @overload
        def __getitem__(self, index: slice) -> Sequence[T]: ...

        def __getitem__(self, index: int | slice) -> T | Sequence[T]: ...

    else:

        def __getitem__(self, index):
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
