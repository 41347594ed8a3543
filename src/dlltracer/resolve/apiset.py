"""Contracts: names such as api-ms-win-crt-heap-l1-1-0.dll, which the loader maps to files of its own choice.

Source: MS Learn "Windows API sets" and "API set loader operation".
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from .knowledge import contract_stems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.windows_context import WindowsContext

_CONTRACT = re.compile(r"(?:api|ext)-[a-z0-9-]+-l\d+-\d+-\d+(?:\.dll)?", re.IGNORECASE | re.ASCII)


class ContractState(enum.Enum):
    """What is known about a contract."""

    MAPPED = "mapped"
    """The map of that Windows names its host."""
    KNOWN = "known"
    """There is no map at hand; Windows has this contract (some versions may not)."""
    ABSENT = "absent"
    """The map of that Windows does not have it, or no host for it: the name is searched for as any other."""
    UNKNOWN = "unknown"
    """There is no map at hand, and the bundled table does not have it."""


@dataclass(frozen=True)
class Contract:
    """What is known about a contract; `host` is a base name, lower case, if it is MAPPED."""

    state: ContractState
    host: str | None = None


def is_contract(name: str) -> bool:
    """Whether the name is built as a contract's (any case): api-...-lN-N-N or ext-...-lN-N-N, with or without ".dll".

    The loader itself looks at the first four characters only, and then into its map.
    """
    return _CONTRACT.fullmatch(name) is not None


def is_optional_contract(name: str) -> bool:
    """Whether a program must expect that the contract is not there: ext-*."""
    return name.lower().startswith("ext-")


def contract_stem(name: str) -> str:
    """The part of a contract's name that counts, lower case: without ".dll" and the last number.

    >>> contract_stem("api-ms-win-core-file-L1-2-4.dll")
    'api-ms-win-core-file-l1-2'
    """
    return name.lower().removesuffix(".dll").rpartition("-")[0]


def look_up_contract(name: str, importer: str, context: WindowsContext) -> Contract:
    """What the context's map says about the contract `name`, asked for by the image with base name `importer`.

    Without a map, what the bundled table says.
    """
    stem = contract_stem(name)
    if context.api_sets is None:
        return Contract(ContractState.KNOWN if stem in contract_stems() else ContractState.UNKNOWN)
    entry = context.api_sets.get(stem)
    host = entry.host_for(importer) if entry else ""
    return Contract(ContractState.MAPPED, host) if host else Contract(ContractState.ABSENT)
