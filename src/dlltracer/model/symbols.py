"""Symbols that no image provides, and versions of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MissingSymbol:
    """A symbol that an image needs and that nothing in its reach provides.

    Attributes:
        name: the symbol; empty when it is asked for by `ordinal` alone.
        version: the version asked for (ELF); `None` if any will do.
        requested_by: path of the image that needs it.
        library: the library expected to have it, as `requested_by` spells it; `None` where the format does not say.
        weak: nothing fails without it.
        nearest: up to three names that are provided and look alike, with "@VERSION" where it is the version that
            differs; a guess.
        ordinal: the number asked for (PE); `None` when it is asked for by name.
    """

    name: str
    version: str | None
    requested_by: str
    library: str | None
    weak: bool = False
    nearest: tuple[str, ...] = ()
    ordinal: int | None = None


@dataclass(frozen=True)
class MissingVersion:
    """A symbol version that a library was expected to define, and does not.

    Attributes:
        version: the version asked for ("GLIBC_2.38").
        library: whose it should be, as `requested_by` spells it.
        provider: path of the image found under that name.
        requested_by: path of the image that needs it.
        provider_has: the versions that `provider` does define, in its order.
    """

    version: str
    library: str
    provider: str
    requested_by: str
    provider_has: tuple[str, ...] = ()
