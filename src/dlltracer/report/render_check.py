"""Renders the result of a check: text, JSON, SARIF 2.1.0, JUnit's XML, annotations of GitHub Actions, an HTML page.

Sources: "Static Analysis Results Interchange Format 2.1.0", OASIS; "SARIF support for code scanning" and "Workflow
commands" of GitHub; the JUnit XML that Jenkins and GitLab read (junit-10.xsd of Jenkins' xUnit plugin).
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..model.check import UNREADABLE, CheckReport, PackageContent, Problem, Severity
from ..model.encode import encode
from ..model.environment import MODULE_ENDING
from ..model.screen import escape, escape_lines
from .drawing import BOLD, DIM, FAILED, PLAIN, WARNING, Line, Styled, number

_STYLES = {Severity.ERROR: FAILED, Severity.WARNING: WARNING, Severity.NOTE: DIM}
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LABEL = 9
_ALIKE_SHOWN = 3
"""Files of one problem that are named; of the others, the number."""


def render_check(reports: Sequence[CheckReport], *, width: int = 100, verbose: bool = False) -> Styled:
    """Return the problems of each target, the worst first, and a line that sums up.

    Args:
        reports: in the order of the targets.
        width: in characters.
        verbose: also the notes, and the evidence of everything.
    """
    return Styled(_lines(reports, max(60, width), verbose))


def _lines(reports: Sequence[CheckReport], width: int, verbose: bool) -> Iterator[Line]:
    for report in reports:
        yield from _report_lines(report, width, verbose)
    if len(reports) > 1:
        bad = sum(1 for report in reports if report.unreadable or report.count(Severity.ERROR))
        yield ((f"{number(len(reports), 'target')}, {bad} with errors", BOLD),)


def _report_lines(report: CheckReport, width: int, verbose: bool) -> Iterator[Line]:
    name = report.target.replace("\\", "/").rpartition("/")[2]
    if report.unreadable:
        yield ((f"{name}: ", BOLD), ("could not be read", FAILED))
        yield from _wrapped("", report.unreadable, width, PLAIN)
        return
    style = FAILED if report.count(Severity.ERROR) else BOLD
    yield ((f"{name}: ", BOLD), (summarize_report(report), style))
    shown = [problem for problem in report.problems if verbose or problem.severity is not Severity.NOTE]
    for alike in group_problems(shown):
        yield from _problem_lines(alike, width, verbose)
    hidden = len(report.problems) - len(shown)
    if hidden:
        yield ((f"{'':>{_LABEL}}  {number(hidden, 'note')}: -v shows them", DIM),)
    for note in report.notes:
        yield from _wrapped("", note, width, DIM)


def summarize_report(report: CheckReport) -> str:
    """Return what is wrong with a target, "; ", and what was looked at, in numbers."""
    counts = [(report.count(severity), severity.value) for severity in (Severity.ERROR, Severity.WARNING)]
    found = ", ".join(number(count, noun) for count, noun in counts if count)
    on = f" on {', '.join(report.platforms)}" if report.platforms else ""
    return f"{found or 'nothing wrong'}; {number(report.files, 'native file')} checked{on}"


def group_problems(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Put together what is the same of several files, in the order of the first of each."""
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.code, problem.severity, problem.title, problem.platform), []).append(problem)
    return list(groups.values())


def _problem_lines(alike: Sequence[Problem], width: int, verbose: bool) -> Iterator[Line]:
    first = alike[0]
    style = _STYLES[first.severity]
    files = [problem.file for problem in alike if problem.file]
    shown = files if verbose or len(files) <= _ALIKE_SHOWN + 1 else files[:_ALIKE_SHOWN]
    label = first.severity.value
    for file in shown:
        yield ((f"{label:>{_LABEL}}  ", style), (file, BOLD))
        label = ""
    if len(shown) < len(files):
        yield ((f"{'':>{_LABEL}}  and {number(len(files) - len(shown), 'more file')}", DIM),)
    on = f" ({first.platform})" if first.platform else ""
    yield from _wrapped(label, f"{first.title}{on} [{first.code}]", width, PLAIN, style)
    for fact in first.evidence if verbose else ():
        yield from _wrapped("", fact, width, DIM)
    if first.fix:
        yield from _wrapped("fix", first.fix, width, BOLD)


def _wrapped(label: str, text: str, width: int, style: str, label_style: str = DIM) -> Iterator[Line]:
    rows = textwrap.wrap(text, width - _LABEL - 2, break_long_words=False, break_on_hyphens=False) or [""]
    for place, row in enumerate(rows):
        yield ((f"{label if place == 0 else '':>{_LABEL}}  ", label_style), (row, style))


def render_check_json(reports: Sequence[CheckReport]) -> str:
    """Return everything; docs/reference/json.md describes it, and `dlltracer schema check`."""
    return json.dumps({"type": "check", "version": 1, "targets": encode(tuple(reports))}, indent=1) + "\n"


def render_check_sarif(reports: Sequence[CheckReport]) -> str:
    """Return a SARIF 2.1.0 log. A file of a wheel is a location below the wheel's own."""
    codes = sorted({problem.code for report in reports for problem in report.problems})
    results = [_sarif_result(report, problem) for report in reports for problem in report.problems]
    failures = [
        {"level": "error", "message": {"text": report.unreadable}, "locations": [_sarif_location(report.target, "")]}
        for report in reports if report.unreadable
    ]  # fmt: skip
    rules = [{"id": code, "shortDescription": {"text": code.replace("-", " ").capitalize()}} for code in codes]
    run = {
        "tool": {"driver": {"name": "dlltracer", "version": __version__, "rules": rules}},
        "invocations": [{"executionSuccessful": not failures, "toolExecutionNotifications": failures}],
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _sarif_result(report: CheckReport, problem: Problem) -> dict[str, Any]:
    about = "; ".join((problem.title, *problem.evidence, *([f"fix: {problem.fix}"] if problem.fix else [])))
    where = f"{problem.file}: " if problem.file else ""
    return {
        "ruleId": problem.code,
        "level": _LEVELS[problem.severity],
        "message": {"text": escape(f"{where}{about}")},
        "locations": [_sarif_location(report.target, problem.file)],
        "partialFingerprints": {"problem/v1": _fingerprint(problem)},
    }


def _fingerprint(problem: Problem) -> str:
    """Return what stays the same for a problem when the wheel gets a new version."""
    facts = "\0".join((problem.code, problem.platform, problem.file, problem.title))
    return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).hexdigest()


def _sarif_location(target: str, file: str) -> dict[str, Any]:
    # Code scanning takes results with a region only; a binary has no lines, so it is the first character.
    first = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(target)}, "region": first}}
    if file:
        place["logicalLocations"] = [{"fullyQualifiedName": escape(file), "kind": "resource"}]
    return place


def _uri(target: str) -> str:
    """Return the target as a reference to a URI (RFC 3986): relative for a relative path, which code scanning wants."""
    from urllib.parse import quote

    if re.match(r"https?://", target, re.IGNORECASE):
        return quote(target, safe="/:?#[]@!$&'()*+,;=%~", errors="surrogatepass")
    path = target.replace("\\", "/")
    if re.match(r"[A-Za-z]:/", path):
        return f"file:///{path[:2]}{quote(path[2:], errors='surrogatepass')}"
    if path.startswith("//"):
        return f"file:{quote(path, errors='surrogatepass')}"
    return f"{'file://' if path.startswith('/') else ''}{quote(path, errors='surrogatepass')}"


def render_check_junit(reports: Sequence[CheckReport]) -> str:
    """Return JUnit's XML: a suite for each target, a failed case for each error, one that passed if there is none."""
    suites = "".join(map(_suite, reports))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="dlltracer check">\n{suites}</testsuites>\n'


def _suite(report: CheckReport) -> str:
    failed = [problem for problem in report.problems if problem.severity is Severity.ERROR]
    cases = [
        _case(f"{problem.code} {problem.file}".strip(), "failure", problem.code, problem.title, _details(problem))
        for problem in failed
    ]  # fmt: skip
    if report.unreadable:
        cases.append(_case("readable", "error", "unreadable", report.unreadable, ""))
    counts = f'tests="{max(len(cases), 1)}" failures="{len(failed)}" errors="{int(bool(report.unreadable))}"'
    if not cases:
        cases.append(f'  <testcase classname={_xml("dlltracer.check")} name={_xml("loads")}/>\n')
    return f" <testsuite name={_xml(report.target)} {counts}>\n{''.join(cases)} </testsuite>\n"


def _details(problem: Problem) -> str:
    platform = f"on {problem.platform}" if problem.platform else ""
    return "\n".join(filter(None, (*problem.evidence, platform, problem.fix and f"fix: {problem.fix}")))


def _case(name: str, kind: str, code: str, message: str, details: str) -> str:
    from xml.sax.saxutils import escape as escape_markup

    text = escape_markup(escape_lines(details).replace("\t", " "))
    return (
        f'  <testcase classname={_xml("dlltracer.check")} name={_xml(name)}>\n'
        f"   <{kind} type={_xml(code)} message={_xml(message)}>{text}</{kind}>\n  </testcase>\n"
    )


def _xml(text: str) -> str:
    from xml.sax.saxutils import quoteattr

    return quoteattr(escape(text), {"\n": "&#10;"})


def render_check_github(reports: Sequence[CheckReport]) -> str:
    """Return workflow commands, which GitHub Actions shows as annotations: one for each problem."""
    lines = []
    for report in reports:
        name = report.target.replace("\\", "/").rpartition("/")[2]
        if report.unreadable:
            lines.append(f"::error title={_property(f'{name} could not be read')}::{_data(report.unreadable)}\n")
        for problem in report.problems:
            title = _property(f"{name}: {problem.code}")
            where = f"{problem.file}: " if problem.file else ""
            text = f"{where}{problem.title}{f'; fix: {problem.fix}' if problem.fix else ''}"
            lines.append(f"::{_COMMANDS[problem.severity]} title={title}::{_data(text)}\n")
    return "".join(lines)


def _data(text: str) -> str:
    return escape(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


_MOST_PAGES, _MOST_GROUPS, _SHOWN_FILES, _MOST_FILES, _MOST_EVIDENCE = 200, 300, 5, 200, 20
_LIBRARY = re.compile(r"\.(?:dll|dylib)$|^lib.*\.so(?:\.[\d.]+)?$", re.IGNORECASE)
_MODULE = re.compile(rf"{MODULE_ENDING}|\.pyd$")
_TONES = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.NOTE: "good"}


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Problems that differ in their files only."""

    severity: str
    code: str
    title: str
    platform: str
    fix: str
    shown: tuple[str, ...]
    more: tuple[str, ...]
    left_out: int
    evidence: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A package of the table."""

    name: str
    version: str
    errors: int
    warnings: int
    count: int
    files: tuple[str, ...]
    left_out: int

    @property
    def tone(self) -> str:
        return "bad" if self.errors else ""


@dataclass(frozen=True, kw_only=True)
class _Page:
    """One target."""

    name: str
    tone: str
    headline: str
    summary: str
    notes: tuple[str, ...]
    groups: tuple[_Group, ...]
    left_out: int
    shared: tuple[tuple[str, tuple[str, ...]], ...]
    packages: tuple[_Row, ...]


def render_check_html(reports: Sequence[CheckReport]) -> str:
    """Return the page of some targets; those with errors come first.

    The page has no script. It is bounded: what is not shown is counted.
    """
    # Here and not above: the other forms of a result do without jinja2, which takes longer to import than they take.
    from .html import as_markup, environment, hash_for_policy, join_templates, theme_css

    ordered = sorted(reports, key=lambda report: report.worst)
    kept = [report for place, report in enumerate(ordered) if place < _MOST_PAGES]
    style = theme_css() + join_templates(("base.css", "check.css"))
    return environment().get_template("check.html.j2").render(
        title=kept[0].target if len(reports) == 1 else number(len(reports), "target"),
        pages=list(map(_page_of, kept)), pages_left_out=len(ordered) - len(kept), version=__version__,
        style=as_markup(style), style_hash=hash_for_policy(style),
    )  # fmt: skip


def _page_of(report: CheckReport) -> _Page:
    groups = group_problems(report.problems)
    worst = report.worst
    tone = "bad" if worst == UNREADABLE else next((_TONES[one] for one in Severity if one.rank == worst), "good")
    summary = summarize_report(report)
    headline, _, rest = summary.partition("; ")
    return _Page(
        name=report.target, tone=tone, headline="could not be read" if report.unreadable else headline,
        summary=report.unreadable or rest, notes=report.notes,
        groups=tuple(map(_group_of, groups[:_MOST_GROUPS])), left_out=max(0, len(groups) - _MOST_GROUPS),
        shared=tuple(_shared_names(report.packages)), packages=tuple(_rows_of(report)),
    )  # fmt: skip


def _group_of(alike: Sequence[Problem]) -> _Group:
    first = alike[0]
    files = [problem.file for problem in alike if problem.file]
    evidence = tuple(dict.fromkeys(fact for problem in alike for fact in problem.evidence))
    return _Group(
        severity=first.severity.value, code=first.code, title=first.title, platform=first.platform, fix=first.fix,
        shown=tuple(files[:_SHOWN_FILES]), more=tuple(files[_SHOWN_FILES:_MOST_FILES]),
        left_out=max(0, len(files) - _MOST_FILES), evidence=evidence[:_MOST_EVIDENCE],
    )  # fmt: skip


def _shared_names(packages: Sequence[PackageContent]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the names of libraries that several packages bring, with the packages. Modules have names of their own."""
    owners: dict[str, dict[str, None]] = defaultdict(dict)
    for package in packages:
        for file in package.files:
            name = posixpath.basename(file)
            if _LIBRARY.search(name) and not _MODULE.search(name):
                owners[name][package.name] = None
    for name, found in sorted(owners.items()):
        if len(found) > 1:
            yield name, tuple(found)


def _rows_of(report: CheckReport) -> list[_Row]:
    counts: dict[tuple[str, Severity], int] = defaultdict(int)
    for problem in report.problems:
        counts[problem.file, problem.severity] += 1
    rows = []
    for package in report.packages:
        errors, warnings = (
            sum(counts.get((file, severity), 0) for file in package.files)
            for severity in (Severity.ERROR, Severity.WARNING)
        )
        rows.append(_Row(
            name=package.name, version=package.version, errors=errors, warnings=warnings, count=len(package.files),
            files=package.files[:_MOST_FILES], left_out=max(0, len(package.files) - _MOST_FILES),
        ))  # fmt: skip
    return sorted(rows, key=lambda row: (-row.errors, -row.warnings, -row.count, row.name))
