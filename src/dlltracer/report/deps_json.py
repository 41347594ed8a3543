"""A load tree as JSON."""

from __future__ import annotations

import json

from ..model.plain import to_plain
from ..model.tree import LoadTree

VERSION = 1
"""Counted up when a reader of the former version would misread the new one."""


def render_deps_json(tree: LoadTree) -> str:
    """The whole tree, ASCII only, as docs/reference/json.md describes it."""
    images = [{"path": path, **_facts(image)} for path, image in tree.images.items()]
    plain = {
        "type": "deps",
        "version": VERSION,
        "top": tree.top,
        "images": images,
        "bindings": [to_plain(binding) for binding in tree.bindings],
        "missing": list(dict.fromkeys(binding.need for binding in tree.missing)),
        "notes": list(tree.notes),
        "unresolved": tree.unresolved,
    }
    return json.dumps(plain, indent=1) + "\n"


def _facts(image: object) -> dict[str, object]:
    """What the image's header says, without its tables of symbols."""
    left_out = ("symbols", "exports", "imports", "segments", "resources", "version_needs", "version_defs")
    facts = {name: value for name, value in vars(image).items() if name not in left_out and value is not None}
    return {name: to_plain(value) for name, value in facts.items()}
