"""The result of a check as one HTML page: what is wrong, the worst first; what conflicts; which package brings what.

The page has no script. It is bounded: what is not shown is counted.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ... import __version__
from ...model.check import UNREADABLE, CheckReport, PackageContent, Problem, Severity
from ..drawing import number
from ..render_check import group_problems, summarize_report
from . import as_markup, environment, hash_for_policy
from .styles import join_templates, theme_css

_MOST_PAGES, _MOST_GROUPS, _SHOWN_FILES, _MOST_FILES, _MOST_EVIDENCE = 200, 300, 5, 200, 20
_LIBRARY = re.compile(r"\.(?:dll|dylib)$|^lib.*\.so(?:\.[\d.]+)?$", re.IGNORECASE)
_MODULE = re.compile(r"\.(?:cpython-[\w-]+|abi3|pypy[\w-]+)\.so$|\.pyd$")
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
    """Return the page of some targets; those with errors come first."""
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
