"""The issue form: valid by what GitHub documents, the same in the documentation, and its commands exist.

Source: "Syntax for issue forms" and "Syntax for GitHub's form schema", GitHub Docs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from dlltracer.cli.commands import cli
from docs.blocks import parse_blocks

yaml = pytest.importorskip("yaml", reason="needs pyyaml (.ci/tools.txt)")

ROOT = Path(__file__).resolve().parents[2]
FORM = ROOT / ".github" / "ISSUE_TEMPLATE" / "native-import.yml"
PAGE = ROOT / "docs" / "how-to" / "maintainers.md"

pytestmark = pytest.mark.skipif(not FORM.is_file(), reason="the sdist has no forms")

TEXT = {"type": "string", "minLength": 1}
WORDS = {"oneOf": [TEXT, {"type": "array", "items": TEXT}]}


def element(attributes: dict[str, Any], required: list[str], *, validated: bool = True) -> dict[str, Any]:
    """The schema of an element of a form with these attributes."""
    properties: dict[str, Any] = {
        "type": {}, "attributes": {
            "type": "object", "properties": attributes, "required": required, "additionalProperties": False,
        },
    }  # fmt: skip
    if validated:
        properties["id"] = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
        properties["validations"] = {
            "type": "object", "properties": {"required": {"type": "boolean"}}, "additionalProperties": False,
        }  # fmt: skip
    return {"properties": properties, "required": ["type", "attributes"], "additionalProperties": False}


LABELLED = {"label": TEXT, "description": {"type": "string"}}
FIELD = {**LABELLED, "placeholder": {"type": "string"}, "value": {"type": "string"}}
OPTIONS = {"type": "array", "minItems": 1, "uniqueItems": True}
ELEMENTS = {
    "markdown": element({"value": TEXT}, ["value"], validated=False),
    "input": element(FIELD, ["label"]),
    "textarea": element({**FIELD, "render": TEXT}, ["label"]),
    "dropdown": element(
        {
            **LABELLED, "multiple": {"type": "boolean"}, "default": {"type": "integer", "minimum": 0},
            "options": {**OPTIONS, "items": {**TEXT, "not": {"pattern": "^(?i:none)$"}}},
        },
        ["label", "options"],
    ),
    "checkboxes": element(
        {**LABELLED, "options": {**OPTIONS, "items": {
            "type": "object", "properties": {"label": TEXT, "required": {"type": "boolean"}}, "required": ["label"],
            "additionalProperties": False,
        }}},
        ["label", "options"],
    ),
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {
        "name": TEXT, "description": TEXT, "title": {"type": "string"}, "labels": WORDS, "assignees": WORDS,
        "projects": WORDS, "type": TEXT,
        "body": {"type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["type"], "properties": {"type": {"enum": sorted(ELEMENTS)}},
            "allOf": [
                {"if": {"properties": {"type": {"const": name}}}, "then": one} for name, one in ELEMENTS.items()
            ],
        }},
    },
    "required": ["name", "description", "body"],
    "additionalProperties": False,
}  # fmt: skip


def problems(form: dict[str, Any]) -> list[str]:
    found = [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(form)]
    fields = [one for one in form.get("body", ()) if one.get("type") != "markdown"]
    labels = [one.get("attributes", {}).get("label") for one in fields]
    ids = [one["id"] for one in fields if "id" in one]
    found += ["a form needs a field that is no markdown"] * (not fields)
    found += ["labels must be unique"] * (len(set(labels)) < len(labels)) + ["ids must be unique"] * (
        len(set(ids)) < len(ids)
    )
    return found


def read() -> dict[str, Any]:
    form: dict[str, Any] = yaml.safe_load(FORM.read_text("utf-8"))
    return form


def test_the_form_is_valid() -> None:
    assert problems(read()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda form: form.pop("description"),
        lambda form: form.update(bodies=[]),
        lambda form: form["body"][1].update(id="a b"),
        lambda form: form["body"][1]["attributes"].pop("label"),
        lambda form: form["body"][1].update(type="number"),
        lambda form: form["body"][2].update(id=form["body"][1]["id"]),
        lambda form: form["body"][4]["attributes"].update(options=["pip", "pip"]),
        lambda form: form["body"][4]["attributes"].update(options=["None"]),
        lambda form: form["body"][0]["attributes"].update(label="x"),
        lambda form: form.update(body=form["body"][:1]),
    ],
)
def test_what_github_refuses_is_seen(spoil: Any) -> None:
    form = read()
    spoil(form)
    assert problems(form) != []


def test_the_documentation_shows_the_form() -> None:
    shown = [block.code for block in parse_blocks(PAGE) if block.language == "yaml"]
    assert FORM.read_text("utf-8") in shown


def test_commands_and_options_of_the_form_exist() -> None:
    seen = set()
    for command, rest in re.findall(r"dlltracer (\w+)([^`]*)`", FORM.read_text("utf-8")):
        known = cli.get_command(click.Context(cli), command)
        assert known is not None, command
        options = {option for one in known.params for option in one.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= options, (command, rest)
        seen.add(command)
    assert {"why", "report"} <= seen
