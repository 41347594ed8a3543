"""Formats numbers, times and addresses as text."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

from ...model.events import Probe
from ...model.words import OUTCOMES, rule_title

_IMPORTS = 20
"""Names of a chain of imports that are shown."""

_ABI_TAG = re.compile(r"\.(?:cpython-[^.]+|cp\d[^.]*|abi3)(?=\.(?:so|pyd)$)")
"""What an extension module's file name says of the Python it is for (PEP 3149)."""


def size_in_words(size: int | None) -> str:
    """Bytes as people read them: "4.4 MiB"."""
    if size is None:
        return ""
    if abs(size) < 1024:
        return f"{size} B"
    # In whole numbers: a file may say any size, also one that no float has.
    power = min((abs(size).bit_length() - 1) // 10, 4)
    tenths = size * 10 // 1024**power
    return f"{tenths // 10}.{tenths % 10} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def time_in_words(seconds: float | None) -> str:
    """A time since the epoch, in UTC; empty for none, and for one that no calendar has."""
    if seconds is None:
        return ""
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s since 1970"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def imports_in_words(imports: tuple[str, ...]) -> str:
    """The chain of imports; of a long one, its two ends and how many are between them."""
    if len(imports) > _IMPORTS:
        half = _IMPORTS // 2
        imports = (*imports[:half], f"… {len(imports) - 2 * half} more", *imports[-half:])
    return " > ".join(imports)


def shorten(texts: Sequence[str], most: int, what: str) -> list[str]:
    """The first ones, and how many more there are: "… 3210 more lines"."""
    return [*texts] if len(texts) <= most else [*texts[:most], f"… {len(texts) - most} {what}"]


def span_in_words(seconds: float) -> str:
    """A time since the first load: "0.153 s"."""
    return f"{seconds:.3f} s"


def without_abi_tag(name: str) -> str:
    """The name of an extension module, its ABI tag cut short: "_ssl….so"."""
    return _ABI_TAG.sub("…", name, count=1)


def label_of(name: str, room: int) -> str:
    """A file name that fits into so many characters: without its ABI tag, else without its middle."""
    if len(name) > room:
        name = without_abi_tag(name)
    if len(name) > room:
        tail = room // 3
        name = f"{name[: room - tail - 1]}…{name[-tail:]}"
    return name


def place_row(probe: Probe) -> tuple[str, str, str, str]:
    """A place tried: the rule, the path, what became of it, why."""
    return rule_title(probe.phase, probe.origin), probe.path, OUTCOMES[probe.outcome], probe.reason or ""
