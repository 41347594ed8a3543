"""Renders the verdict as text, as commands for a shell, and as annotations of GitHub Actions.

The usual verdict has at most 25 lines.

All other modules keep a command as a tuple of words. Words come from file names, recordings and package metadata, which
may be hostile: a folder may be named `$(touch x)`. Only this module joins them, and a word that cannot be quoted is not
shown.

Source of annotations: docs.github.com "Workflow commands for GitHub Actions"; for escapes actions/toolkit,
packages/core/src/command.ts (`escapeData`, `escapeProperty`).
"""

from __future__ import annotations

import ntpath
import posixpath
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence

from ..model.events import Probe, ProbeOutcome
from ..model.failure import PythonError, System
from ..model.finding import Confidence, Diagnosis, Finding, Outcome, Remedy
from ..model.screen import escape
from ..model.tree import LoadTree
from ..model.words import OUTCOMES, describe_crash
from .drawing import BOLD, DIM, FAILED, PLAIN, WARNING, Line, Styled, fold_places, number

_PLAIN_ON_WINDOWS = re.compile(r"--?[A-Za-z][A-Za-z0-9-]*|[A-Za-z0-9_:\\/][A-Za-z0-9_:\\/.+=~-]*")
"""Words that neither cmd.exe nor PowerShell reads anything into."""

_NEVER_ON_WINDOWS = re.compile('["%$`!\u2018-\u201f]')
"""Between double quotes cmd.exe still expands %NAME% (and !NAME! where that is turned on) and PowerShell $NAME, $(...)
and the backtick; PowerShell also takes curly quotes for quotes. No quoting keeps these from both shells.
Sources: `cmd /?`; about_Quoting_Rules and about_Special_Characters of PowerShell, MS Learn."""


def join_command(words: Sequence[str], system: System) -> str | None:
    """Return the command as one line to paste; `None` if some word cannot be written safely.

    For Windows the line means the same to cmd.exe and PowerShell, but for a program whose path needs quotes: before
    that PowerShell wants "& ", and without it reports an error and runs nothing. Elsewhere the line is for sh.
    """
    # What does not print would be escaped on the screen (model.screen): what is pasted would name another file.
    if not words or not all(map(str.isprintable, words)):
        return None
    if system is not System.WINDOWS:
        return shlex.join(words)
    if any(_NEVER_ON_WINDOWS.search(word) for word in words):
        return None
    return " ".join(word if _PLAIN_ON_WINDOWS.fullmatch(word) else _quoted(word) for word in words)


def _quoted(word: str) -> str:
    # A backslash before the closing quote would escape it: "Parsing C command-line arguments", MS Learn.
    trailing = len(word) - len(word.rstrip("\\"))
    return '"' + word + "\\" * trailing + '"'


def remedy_words(remedy: Remedy) -> str:
    """Return what a remedy does, as a sentence, and whether it was seen to work."""
    return f"{remedy.what} (tried: the import works)" if remedy.tried else remedy.what


def remedy_line(remedy: Remedy, system: System) -> str:
    """Return what to type for a remedy, a command or Python code; empty if there is nothing to type, or no safe way."""
    if remedy.code.isprintable() and remedy.code:
        return remedy.code
    return join_command(remedy.command, system) or ""


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
        message = "" if diagnosis.error is None else f"{diagnosis.error.type}: {diagnosis.error.message}"
        return _error(title, " ".join(filter(None, (message, *diagnosis.undecided))), place)
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


_LABEL = 12
_WIDTH = 110
_PLACES = 6
_STEPS = 7
_OTHERS = 3


def render_verdict(diagnosis: Diagnosis, *, ascii_only: bool = False) -> Styled:
    """The whole verdict, as styled text."""
    more = "..." if ascii_only else "…"
    return Styled(verdict_lines(diagnosis, more))


def verdict_lines(diagnosis: Diagnosis, more: str = "…") -> Iterator[Line]:
    """The lines of it; `more` stands where something was left out."""
    if diagnosis.outcome is Outcome.IMPORTED:
        yield ((f"{diagnosis.what} works: nothing to explain", BOLD),)
    elif diagnosis.findings and diagnosis.outcome is Outcome.EXPLAINED:
        first, *others = diagnosis.findings
        yield ((f"{diagnosis.what} failed: ", BOLD), (first.title, FAILED))
        yield from _output(diagnosis)
        yield from _finding(first, more, diagnosis.system)
        yield from _others(others, more, diagnosis.system)
    else:
        yield ((diagnosis.undecided_title, BOLD),)
        yield from _output(diagnosis)
        for text in diagnosis.undecided:
            yield from _block("would tell", text)
        yield from _others(diagnosis.findings, more, diagnosis.system)
    for note in diagnosis.notes:
        yield (("note: ", WARNING), (note, PLAIN))


def _output(diagnosis: Diagnosis) -> Iterator[Line]:
    if diagnosis.error is not None:
        yield from _block("Python says", f"{diagnosis.error.type}: {diagnosis.error.message}")
    crash = diagnosis.crash
    if crash is not None:
        yield from _block("it died", f"of {describe_crash(crash)}")
    for place, line in enumerate(diagnosis.output):
        yield from _block("it said" if place == 0 else "", line)


def _finding(finding: Finding, more: str, system: System) -> Iterator[Line]:
    yield from _steps(finding.chain, more)
    yield from _places(finding.probes, more)
    if finding.explanation:
        yield from _block("why", finding.explanation)
    for remedy in finding.remedies:
        line = remedy_line(remedy, system)
        yield from _block("fix", f"{remedy_words(remedy)}:" if line else remedy_words(remedy))
        if line:
            yield ((" " * (_LABEL + 2), PLAIN), (line, BOLD))
    says = "; ".join(dict.fromkeys(f"{evidence.source.value}: {evidence.says}" for evidence in finding.evidence))
    yield from _block(finding.confidence.value, f"{says} [{finding.code}]")


def _others(findings: Sequence[Finding], more: str, system: System) -> Iterator[Line]:
    for finding in findings[:_OTHERS]:
        label = "also" if finding.confidence is not Confidence.POSSIBLE else "perhaps"
        yield from _block(label, f"{finding.title} [{finding.code}]")
        for remedy in finding.remedies[:1]:
            line = remedy_line(remedy, system)
            yield from _block("", f"{remedy_words(remedy)}{f': {line}' if line else ''}")
    if len(findings) > _OTHERS:
        yield from _block("", f"{more} {len(findings) - _OTHERS} more (--json has all)", DIM)


def _steps(chain: Sequence[str], more: str) -> Iterator[Line]:
    shown = list(chain)
    if len(shown) > _STEPS:
        shown = [*shown[:2], f"{more} {len(shown) - _STEPS + 1} more", *shown[3 - _STEPS :]]
    for place, step in enumerate(shown):
        last = place == len(shown) - 1
        label = "needed by" if place == 0 else ""
        arrow = "" if place == 0 else "> "
        yield ((f"{label:>{_LABEL}}", DIM), (f"  {arrow}", DIM), (step, FAILED if last and place else PLAIN))


def _places(probes: Sequence[Probe], more: str) -> Iterator[Line]:
    """A line a place, with the rule that leads there; variants of the processor and long lists are counted."""
    label, hidden, room = "looked for", 0, _PLACES
    for rule in fold_places([probe for probe in probes if probe.outcome is not ProbeOutcome.LOADED]):
        if not rule.shown:
            yield ((f"{label:>{_LABEL}}  ", DIM), (rule.title, PLAIN))
            label = ""
        hidden += rule.more
        for probe in rule.shown:
            if room <= 0 and probe.outcome is not ProbeOutcome.PRESENT:
                hidden += 1
                continue
            room -= 1
            yield ((f"{label:>{_LABEL}}  ", DIM), (f"{rule.title}: {probe.path}", PLAIN), (f"  {_outcome(probe)}", DIM))
            label = ""
    if hidden:
        yield ((" " * (_LABEL + 2), PLAIN), (f"{more} {number(hidden, 'more place')}", DIM))


def _outcome(probe: Probe) -> str:
    return f"{OUTCOMES[probe.outcome]}{f': {probe.reason}' if probe.reason else ''}"


def _block(label: str, text: str, style: str = PLAIN) -> Iterator[Line]:
    """A label and text, wrapped: words are for reading, paths are not broken."""
    rows = textwrap.wrap(text, _WIDTH - _LABEL - 2, break_long_words=False, break_on_hyphens=False) or [""]
    for place, row in enumerate(rows):
        yield ((f"{label if place == 0 else '':>{_LABEL}}  ", DIM), (row, style))
