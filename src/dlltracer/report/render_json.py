"""Renders everything that programs read as JSON, and the JSON Schemas (json-schema.org, draft 2020-12) that describe
it.

Everything is ASCII. Keys whose value is `None` are left out (`model.encode`); docs/reference/json.md has the rest.
"""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.resources import files
from typing import Any

from ..model.encode import encode
from ..model.events import LoadFailedEvent
from ..model.finding import Comparison, Diagnosis, OrderSearch
from ..model.recording import Recording
from ..model.tracefile import HEADER, PROCESS, SUMMARY, encode_verdict
from ..model.tree import LoadTree
from .counts import count

VERSION = 1
"""Of each of these formats but the verdict's; counted up when a reader of the former version would misread the new."""

SCHEMA_NAMES = ("verdict", "deps", "check", "diff", "order", "jsonl", "recording", "info", "common")
"""Those of whole formats first. "common" has what they share under `$defs`, for the schemas of others too."""

_SHARED = {
    "verdict": ("common",),
    "deps": ("common",),
    "order": ("common", "verdict"),
    "jsonl": ("common", "verdict"),
    "recording": ("common", "verdict"),
}
_TABLES = ("symbols", "exports", "imports", "segments", "resources", "version_needs", "version_defs")
"""Fields of images that are long, and that nobody reads in a tree."""


def render_jsonl(recording: Recording, *, failed_only: bool = False, verdict: Diagnosis | None = None) -> str:
    """Return JSON lines: the recording, the processes that were followed, the events, the verdict, a summary.

    The summary counts the whole recording, also with `failed_only`. A file without it was cut off.
    """
    header = {
        "type": HEADER, "version": VERSION, "backend": recording.backend, "pid": recording.pid,
        "notes": encode(recording.notes),
    }  # fmt: skip
    processes = [{"type": PROCESS, **encode(process)} for process in recording.processes]
    events = [encode(e) for e in recording.events if not failed_only or isinstance(e, LoadFailedEvent)]
    verdicts = [] if verdict is None else [encode_verdict(verdict)]
    summary = {"type": SUMMARY, **encode(count(recording)), "losses": encode(recording.losses)}
    return "".join(f"{json.dumps(line)}\n" for line in (header, *processes, *events, *verdicts, summary))


def render_verdict_json(diagnosis: Diagnosis) -> str:
    """Return all of a verdict."""
    return _document(encode_verdict(diagnosis))


def render_deps_json(tree: LoadTree) -> str:
    """Return all of a load tree but the tables of symbols."""
    return _document({
        "type": "deps",
        "version": VERSION,
        "top": tree.top,
        "images": [{"path": path, **_header_facts(image)} for path, image in tree.images.items()],
        "bindings": encode(tree.bindings),
        "missing": list(dict.fromkeys(binding.need for binding in tree.missing)),
        "notes": encode(tree.notes),
        "unresolved": tree.unresolved,
        "symbols": encode(tree.symbols),
        "versions": encode(tree.versions),
    })


def render_diff_json(comparison: Comparison) -> str:
    """Return all of a comparison."""
    return _document({"type": "diff", "version": VERSION, **encode(comparison)})


def render_order_json(search: OrderSearch, verdict: Diagnosis | None) -> str:
    """Return all of a search for the order that breaks, with the verdict on it if there is one."""
    more = {} if verdict is None else {"verdict": encode_verdict(verdict)}
    return _document({"type": "order", "version": VERSION, **encode(search), **more})


def _header_facts(image: Any) -> dict[str, Any]:
    """Return what the header of an image says."""
    names = [field.name for field in fields(image) if field.name not in _TABLES]
    facts = {name: encode(getattr(image, name)) for name in names}
    return {"type": image.TAG, **{name: fact for name, fact in facts.items() if fact is not None}}


def _document(plain: dict[str, Any]) -> str:
    return json.dumps(plain, indent=1) + "\n"


def read_schema(name: str) -> dict[str, Any]:
    """Return the schema of that name as it is kept: shared parts are named by `urn:dlltracer:schema:...`."""
    text = (files(__package__) / "schemas" / f"{name}.schema.json").read_text(encoding="ascii")
    schema: dict[str, Any] = json.loads(text)
    return schema


def bundle_schema(name: str) -> dict[str, Any]:
    """Return the schema with all that it refers to inside, each under its own `$id`: it stands alone.

    That is a "compound schema document" (JSON Schema Core, draft 2020-12, 9.3): validators follow the names in it.
    """
    schema = read_schema(name)
    shared = {other: read_schema(other) for other in _SHARED.get(name, ())}
    return {**schema, "$defs": {**schema.get("$defs", {}), **shared}} if shared else schema


def render_schema(name: str) -> str:
    """Return the whole schema as JSON."""
    return _document(bundle_schema(name))
