"""`dlltracer check`: whether wheels load where their tags promise it, and all that an environment has."""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from ..check.targets import CheckTarget, TargetKind, check_target, classify_target
from ..model.check import CheckReport, Problem, Severity
from .commands import complete_file, complete_folder, settings_of
from .options import prefer_command_line
from .output import Target, open_target, write_styled
from .progress import progress

_EXIT_PROBLEMS, _EXIT_UNREADABLE = 1, 3
_BASELINE_LIMIT = 16 << 20
_TEXT = "text"
_FORMATS = (_TEXT, "json", "sarif", "junit", "github")
_ENDINGS = {".json": "json", ".sarif": "sarif", ".xml": "junit"}


@dataclass(frozen=True, kw_only=True)
class _CheckOptions:
    """What was given on the command line, by the names of the parameters below."""

    targets: tuple[str, ...]
    python: str | None
    root: str | None
    no_cache: bool
    fail_on: str
    ignore: tuple[str, ...]
    baseline: str | None
    form: str | None
    as_json: bool
    jobs: int
    verbose: bool
    output: str | None

    def chosen_targets(self) -> tuple[CheckTarget, ...]:
        """Return the targets; without any, and without --python, the environment of this Python.

        Raises `click.UsageError` when options contradict each other.
        """
        if self.python is not None and self.root is not None:
            raise click.UsageError("choose one of --python and --root: nothing of another system is run")
        kinds = [(path, classify_target(path)) for path in self.targets]
        if self.python is not None or not kinds:
            kinds.append((self.python or "", TargetKind.ENVIRONMENT))
        return tuple(
            CheckTarget(path=path, kind=kind, root=self.root, use_cache=not self.no_cache) for path, kind in kinds
        )

    def chosen_format(self) -> str:
        """Return the format to write. Raises `click.UsageError` when options contradict each other."""
        if self.as_json and self.form not in (None, "json"):
            raise click.UsageError(f"choose one of --json and --format {self.form}")
        ending = os.path.splitext(self.output or "")[1].lower()
        return "json" if self.as_json else self.form or _ENDINGS.get(ending, _TEXT)


@click.command("check", short_help="Check wheels and environments: would everything in them load?")
@click.argument("targets", metavar="[TARGET]...", nargs=-1, shell_complete=complete_file)
@click.option(
    "--python", metavar="EXE", shell_complete=complete_file, help="Check the environment of another interpreter.",
)  # fmt: skip
@click.option(
    "--root", metavar="DIR", shell_complete=complete_folder,
    help="Check a whole system in a folder: an unpacked image of a container, a mounted disk.",
)  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Read every file anew, and keep nothing for the next check.")
@click.option(
    "--fail-on", type=click.Choice([severity.value for severity in Severity]), default=Severity.ERROR.value,
    show_default=True, help="The least severity that makes the exit status 1.",
)  # fmt: skip
@click.option(
    "--ignore", metavar="CODE[:PATTERN]", multiple=True,
    help="Leave out problems with this code, in files whose path fits the pattern (*, ?); may be repeated.",
)  # fmt: skip
@click.option(
    "--baseline", metavar="JSON", shell_complete=complete_file,
    help="Leave out the problems that an earlier result, written by --format json, has.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="[default: by the name of FILE, else text]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes to use.")
@click.option("-v", "--verbose", is_flag=True, help="Show the notes and all evidence, too.")
@click.option("-o", "--output", metavar="FILE", shell_complete=complete_file, help="Write to FILE instead of stdout.")
def check(**given: Any) -> None:
    """Check wheels before they are shipped, and whole environments; for Windows, Linux and macOS, on any of them.

    A TARGET is a wheel or a folder (a virtual environment, site-packages); without any, the environment of this Python
    is checked. Nothing of a target is run or installed. Each extension module, library and program is held against
    the rules of the loader: of every platform that the tags of a wheel promise, or of the system that an environment is
    on. The exit status is 0 when nothing is wrong, 1 for errors, 2 for a wrong command line, and 3 when a target
    could not be read.
    """
    options = _CheckOptions(**prefer_command_line(given, settings_of(click.get_current_context()), ("form", "as_json")))
    form, targets = options.chosen_format(), options.chosen_targets()
    known = _read_baseline(options.baseline) if options.baseline is not None else frozenset()
    patterns = [_parse_ignore(text) for text in options.ignore]
    target = open_target(options.output or "-")
    try:
        what = f"{len(targets)} targets" if len(targets) > 1 else targets[0].path or "this environment"
        with progress(f"checking {what}"):
            reports = [_without(report, patterns, known) for report in _check_all(targets, options.jobs)]
        _write(target, reports, form, options.verbose)
    finally:
        target.discard()
    least = Severity(options.fail_on)
    if any(report.unreadable for report in reports):
        raise click.exceptions.Exit(_EXIT_UNREADABLE)
    if any(problem.severity.rank <= least.rank for report in reports for problem in report.problems):
        raise click.exceptions.Exit(_EXIT_PROBLEMS)


def _check_all(targets: Sequence[CheckTarget], jobs: int) -> Iterable[CheckReport]:
    """Yield a report for each target, in their order."""
    if jobs == 1 or len(targets) == 1:
        return map(check_target, targets)
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(min(jobs, len(targets)), mp_context=get_context("spawn")) as pool:
        return list(pool.map(check_target, targets))


def _parse_ignore(text: str) -> tuple[str, str]:
    code, _, pattern = text.partition(":")
    if not code:
        raise click.UsageError(f"--ignore {text}: a code is missing, as in --ignore executable-stack:pkg/*.so")
    return code, pattern or "*"


_Key = tuple[str, str, str, str]


def _key(problem: Problem) -> _Key:
    return problem.code, problem.file, problem.title, problem.platform


def _read_baseline(path: str) -> frozenset[_Key]:
    """Return what identifies the problems of an earlier result. Raises `click.ClickException`."""
    try:
        with open(path, "rb") as file:
            text = file.read(_BASELINE_LIMIT + 1)
        if len(text) > _BASELINE_LIMIT:
            raise click.ClickException(f"{path} is too large for a baseline: {_BASELINE_LIMIT >> 20} MiB are the most")
        plain = json.loads(text)
        found = [problem for target in plain["targets"] for problem in target["problems"]]
        return frozenset((one["code"], one["file"], one["title"], one["platform"]) for one in found)
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise click.ClickException(f"{path} is not a result of dlltracer check --json") from error


def _without(report: CheckReport, ignored: Sequence[tuple[str, str]], known: frozenset[_Key]) -> CheckReport:
    """Return the report without what is ignored or known; its notes count what was left out."""
    kept = tuple(
        problem for problem in report.problems
        if _key(problem) not in known
        and not any(problem.code == code and fnmatch.fnmatchcase(problem.file, pattern) for code, pattern in ignored)
    )  # fmt: skip
    left = len(report.problems) - len(kept)
    notes = (*report.notes, f"problems left out by --ignore and --baseline: {left}") if left else report.notes
    return replace(report, problems=kept, notes=notes)


def _write(target: Target, reports: Sequence[CheckReport], form: str, verbose: bool) -> None:
    from ..report import render_check as render

    if form == _TEXT:
        import shutil

        width = min(shutil.get_terminal_size((100, 24)).columns, 120)
        write_styled(target, lambda plain: render.render_check(reports, width=width, verbose=verbose))
        return
    renderers: dict[str, Callable[[Sequence[CheckReport]], str]] = {
        "json": render.render_check_json, "sarif": render.render_check_sarif, "junit": render.render_check_junit,
        "github": render.render_check_github,
    }  # fmt: skip
    target.write(renderers[form](reports))
