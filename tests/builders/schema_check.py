"""A value held against a schema of ours; and the same schema made to refuse every key that it does not name."""

from __future__ import annotations

from typing import Any

import pytest

from dlltracer.report.render_json import bundle_schema

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")


def problems(name: str, value: object, *, closed: bool = True) -> list[str]:
    """What the schema has against the value. `closed`: also keys that it does not describe."""
    schema = bundle_schema(name)
    validator = jsonschema.Draft202012Validator(_close(schema) if closed else schema)
    return [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(value)]


def check_schema(name: str) -> None:
    """Raise unless it is a schema."""
    jsonschema.Draft202012Validator.check_schema(bundle_schema(name))


def _close(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: item if key in ("if", "then") else _close(item) for key, item in schema.items()}
    is_object = schema.get("type") == "object" and "properties" in schema
    return {**closed, "additionalProperties": False} if is_object else closed
