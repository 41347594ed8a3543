"""Lines that GitHub Actions shows as errors beside the code.

Source: docs.github.com "Workflow commands for GitHub Actions"; what is escaped how is in actions/toolkit,
packages/core/src/command.ts (`escapeData`, `escapeProperty`).
"""

from __future__ import annotations

import ntpath
import posixpath

from ..model.failure import System
from ..model.finding import Confidence, Outcome
from ..model.printable import escape
from .commands import remedy_line, remedy_words
from .drawing import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.failure import PythonError
    from ..model.finding import Diagnosis, Finding
    from ..model.tree import LoadTree

MOST = 3
"""Annotations of one run: GitHub shows ten errors a step, which are not all ours."""


def annotate_verdict(diagnosis: Diagnosis, *, workspace: str = "") -> str:
    """An error for each cause that is at least likely, at the line of Python that failed; empty if nothing failed.

    Argument: `workspace`, the folder of the checkout, whose files GitHub knows by their paths in it.
    """
    if diagnosis.outcome is Outcome.IMPORTED:
        return ""
    place = _place(diagnosis.error, workspace)
    if diagnosis.outcome is not Outcome.EXPLAINED:
        title = diagnosis.undecided_title
        said = "" if diagnosis.error is None else f"{diagnosis.error.type}: {diagnosis.error.message}"
        return _error(title, " ".join(filter(None, (said, *diagnosis.undecided))), place)
    sure = [finding for finding in diagnosis.findings if finding.confidence is not Confidence.POSSIBLE]
    messages = [(f"{diagnosis.what} failed: {one.title}", _message(one, diagnosis.system)) for one in sure[:MOST]]
    return "".join(_error(title, message, place) for title, message in messages)


def annotate_missing(tree: LoadTree, *, workspace: str = "") -> str:
    """An error for each name that is missing; empty if none is. Argument: as of `annotate_verdict`."""
    place = {"file": _inside(tree.top, workspace)}
    first = {binding.need: binding for binding in reversed(tree.missing)}
    names = list(dict.fromkeys(binding.need for binding in tree.missing))
    shown = names if len(names) <= MOST else names[: MOST - 1]
    lines = [
        _error(f"{name} {first[name].state.value}", f"{name} is needed by {first[name].requested_by}", place)
        for name in shown
    ]
    if len(shown) < len(names):
        rest = names[len(shown) :]
        lines.append(_error(f"{number(len(rest), 'more name')} missing", ", ".join(rest[:20]), place))
    return "".join(lines)


def _message(finding: Finding, system: System) -> str:
    lines = ((remedy_words(one), remedy_line(one, system)) for one in finding.remedies[:1])
    remedies = (f"fix: {what}{f': {line}' if line else ''}" for what, line in lines)
    return "\n".join(filter(None, (finding.explanation or finding.title, *remedies, f"[{finding.code}]")))


def _place(error: PythonError | None, workspace: str) -> dict[str, str]:
    """The innermost line of the traceback that is a file's: of the checkout, if one is, for others cannot be shown."""
    frames = [frame for frame in error.frames if not frame.file.startswith("<")] if error is not None else []
    own = [frame for frame in frames if workspace and _inside(frame.file, workspace) != frame.file]
    if not frames:
        return {}
    frame = (own or frames)[-1]
    return {"file": _inside(frame.file, workspace), "line": str(frame.line)}


def _inside(path: str, workspace: str) -> str:
    """The path in the checkout, with slashes; as it is if it lies outside."""
    rules = ntpath if "\\" in workspace or workspace[1:2] == ":" else posixpath
    if not workspace or not rules.isabs(path):
        return path
    try:
        top = rules.normcase(rules.normpath(workspace))
        if rules.commonpath((top, rules.normcase(rules.normpath(path)))) != top:
            return path
    except ValueError:  # another drive
        return path
    inside: str = rules.relpath(path, workspace).replace(rules.sep, "/")
    return inside


def _error(title: str, message: str, place: dict[str, str]) -> str:
    properties = {**place, "title": title}
    shown = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    rows = "\n".join(escape(row) for row in message.split("\n"))
    return f"::error {shown}::{_escape_data(rows)}\n"


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(escape(text)).replace(":", "%3A").replace(",", "%2C")
