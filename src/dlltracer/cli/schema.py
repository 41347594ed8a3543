"""`dlltracer schema`: the JSON Schema of what a command writes."""

from __future__ import annotations

import click

from ..report.render_json import SCHEMA_NAMES, render_schema
from .output import say

_ABOUT = {
    "verdict": "dlltracer why --json",
    "deps": "dlltracer deps --json",
    "diff": "dlltracer diff --json",
    "order": "dlltracer order --json",
    "jsonl": "a line of dlltracer run --format jsonl",
    "recording": "a line of a recording, FILE.dlltrace",
    "info": "dlltracer info --json",
    "common": "what these share: events, probes, errors, crashes",
}


@click.command("schema", short_help="Print the JSON Schema of an output.")
@click.argument("name", type=click.Choice(SCHEMA_NAMES), required=False)
def schema(name: str | None) -> None:
    """Print the JSON Schema (draft 2020-12) of what a command writes; without NAME, list them.

    A schema is whole: what it shares with others is inside.
    """
    if name is None:
        for known in SCHEMA_NAMES:
            say(f"{known:9} {_ABOUT[known]}\n")
        return
    say(render_schema(name))
