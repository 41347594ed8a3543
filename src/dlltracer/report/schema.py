"""The JSON Schemas (json-schema.org, draft 2020-12) of what dlltracer writes: one a format, and what they share."""

from __future__ import annotations

import json
from importlib.resources import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA_NAMES = ("verdict", "deps", "diff", "order", "jsonl", "recording", "info", "common")
"""Those of whole formats first. "common" has what they share under `$defs`, for the schemas of others too."""

_SHARED = {
    "verdict": ("common",),
    "deps": ("common",),
    "order": ("common", "verdict"),
    "jsonl": ("common", "verdict"),
    "recording": ("common",),
}


def read_schema(name: str) -> dict[str, Any]:
    """The schema of that name as it is kept: what it shares is named by `urn:dlltracer:schema:...`."""
    text = files(f"{__package__}.schemas").joinpath(f"{name}.schema.json").read_text(encoding="ascii")
    schema: dict[str, Any] = json.loads(text)
    return schema


def bundle_schema(name: str) -> dict[str, Any]:
    """The schema with all that it refers to inside, each under its own `$id`: it stands alone.

    That is a "compound schema document" (JSON Schema Core, draft 2020-12, 9.3): validators follow the names in it.
    """
    schema = read_schema(name)
    shared = {other: read_schema(other) for other in _SHARED.get(name, ())}
    return {**schema, "$defs": {**schema["$defs"], **shared}} if shared else schema


def render_schema(name: str) -> str:
    """The whole schema as JSON, ASCII only."""
    return json.dumps(bundle_schema(name), indent=1) + "\n"
