"""A case as plain values and back: what a verdict rests on, for rules of another version, on another machine.

Of the images it keeps what rules look at: of the tens of thousands of symbols only those that a verdict may name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..diagnose.case import Case, Image
from ..model.decode import DamagedRecording, NewerRecording, decode
from ..model.elf import ElfImage, ElfSymbols
from ..model.encode import encode
from ..model.pe import PeImport
from ..model.recording import Recording

VERSION = 1
"""Counted up when rules of the former version would misread a case of the new one."""

_MOST_SYMBOLS = 5000
_MOST_NAMED = 3
_SHORTEST_START, _LONGEST_START = 6, 12
"""Symbols that begin like one of the first that are missing are kept: among them is the same function for another
std::string."""
_ENTRIES = ("PyInit_", "init")
_RUNTIMES = re.compile(r"(?:msvcp|vcruntime|concrt)\d", re.IGNORECASE)


def encode_case(case: Case) -> dict[str, Any]:
    """Return the case as plain values, without its recording, which is saved beside it."""
    return {"version": VERSION, "traced": case.run.recording is not None, **encode(_without_bulk(case))}


def decode_case(plain: object, recording: Recording) -> Case:
    """Return the case in `plain`, of that recording. Raises `DamagedRecording`, `NewerRecording`."""
    if not isinstance(plain, Mapping):
        raise DamagedRecording("case", f"an object is wanted, not {type(plain).__name__}")
    version = plain.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedRecording("case.version", "it is no version")
    if version > VERSION:
        raise NewerRecording(version, VERSION)
    found: Case = decode(Case, plain, "case")
    return replace(found, run=replace(found.run, recording=recording if plain.get("traced") is True else None))


def _without_bulk(case: Case) -> Case:
    starts = (*_ENTRIES, *(_start_of(symbol.name) for symbol in case.symbols[:_MOST_NAMED] if symbol.name))
    tree = case.tree
    if tree is not None:
        tree = replace(tree, images={path: _slim(image, starts) for path, image in tree.images.items()})
    images = {path: _slim(image, starts) for path, image in case.images.items()}
    return replace(case, run=replace(case.run, recording=None, requests=()), tree=tree, images=images)


def _start_of(symbol: str) -> str:
    return symbol[: max(_SHORTEST_START, len(symbol) // 4)][:_LONGEST_START]


def _slim(image: Image, starts: tuple[str, ...]) -> Image:
    if isinstance(image, ElfImage):
        if image.symbols is None:
            return image
        kept = {name: versions for name, versions in image.symbols.provides.items() if name.startswith(starts)}
        first = dict(list(kept.items())[:_MOST_SYMBOLS])
        return replace(image, symbols=ElfSymbols((), first, image.symbols.versioned_only & first.keys()))
    return replace(image, exports=None, imports=tuple(map(_slim_import, image.imports)))


def _slim_import(imported: PeImport) -> PeImport:
    return imported if _RUNTIMES.match(imported.library) else replace(imported, symbols=None)
