"""`dlltracer check`: checks whether wheels load where their tags promise it, and whether an environment loads."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import fnmatch
import glob
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from ..check.targets import CheckTarget, TargetKind, check_anything, classify_target
from ..model.check import NOTHING, UNREADABLE, CheckReport, Problem, Severity
from .check_results import Results, make_line, open_results
from .commands import complete_file, complete_folder, settings_of
from .options import PROGRAM, prefer_command_line
from .output import CommandFailed, Target, open_target, say, write_styled
from .program import choose_python
from .progress import progress

_EXIT_PROBLEMS, _EXIT_UNREADABLE = 1, 3
_BASELINE_LIMIT = 16 << 20
_TEXT = "text"
_FORMATS = (_TEXT, "json", "html", "sarif", "junit", "github", "jsonl", "parquet")
_GROWING = ("jsonl", "parquet")
"""Formats of which a file grows while targets are checked, and which a second run goes on with."""
_ENDINGS = {
    ".json": "json", ".html": "html", ".htm": "html", ".sarif": "sarif", ".xml": "junit", ".jsonl": "jsonl",
    ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip
_LIST_LIMIT = 1 << 30
_DASK_SECONDS = 30
"""How long a scheduler, and a first worker of it, are waited for."""


@dataclass(frozen=True, kw_only=True)
class _CheckOptions:
    """Values of the command line, by the names of the parameters below."""

    targets: tuple[str, ...]
    python: str | None
    root: str | None
    no_cache: bool
    fail_on: str
    ignore: tuple[str, ...]
    baseline: str | None
    form: str | None
    as_json: bool
    from_file: str | None
    jobs: int
    dask: str | None
    retry_unreadable: bool
    verbose: bool
    output: str | None

    def chosen_targets(self) -> tuple[CheckTarget, ...]:
        """Return the targets; without any, and without --python, the environment of this Python.

        Raises `click.UsageError` when options contradict each other.
        """
        if self.python is not None and self.root is not None:
            raise click.UsageError("choose one of --python and --root: nothing of another system is run")
        if self.root is not None and not os.path.isdir(self.root):
            raise click.UsageError(f"--root {self.root}: there is no such folder")
        listed = _read_list(self.from_file) if self.from_file is not None else ()
        named = (path for target in self.targets for path in _expand(target))
        kinds = [(path, classify_target(path)) for path in dict.fromkeys((*named, *listed))]
        if self.from_file is not None and not kinds:
            raise click.UsageError(f"{self.from_file} names no target")
        if self.python is not None or not kinds:
            python = choose_python(self.python) if self.root is None else None
            kinds.append((python or "", TargetKind.ENVIRONMENT))
        return tuple(
            CheckTarget(path=path, kind=kind, root=self.root, use_cache=not self.no_cache) for path, kind in kinds
        )

    def chosen_format(self) -> str:
        """Return the format to write. Raises `click.UsageError` when options contradict each other."""
        if self.as_json and self.form not in (None, "json"):
            raise click.UsageError(f"choose one of --json and --format {self.form}")
        if self.dask is not None and self.jobs > 1:
            raise click.UsageError("choose one of --jobs and --dask: a cluster has workers of its own")
        ending = os.path.splitext(self.output or "")[1].lower()
        form = "json" if self.as_json else self.form or _ENDINGS.get(ending, _TEXT)
        if form == "parquet" and self.output in (None, "-"):
            raise click.UsageError("--format parquet needs a file: -o FILE")
        if self.retry_unreadable and (form not in _GROWING or self.output in (None, "-")):
            raise click.UsageError("--retry-unreadable is for a file of results that grows: -o FILE.jsonl")
        return form


@click.command("check", short_help="Check whether everything in wheels and environments would load.")
@click.argument("targets", metavar="[TARGET]...", nargs=-1, shell_complete=complete_file)
@click.option(
    "--python", metavar=PROGRAM, shell_complete=complete_file,
    help="Check the environment of another interpreter, or in another folder.",
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
@click.option(
    "--from-file", metavar="LIST", shell_complete=complete_file,
    help="Check the targets that a file names, one a line; - is stdin.",
)  # fmt: skip
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes to use.")
@click.option("--dask", metavar="ADDRESS", help="Use the workers of a Dask cluster, by its scheduler's address.")
@click.option("--retry-unreadable", is_flag=True, help="Check again the targets that the results list as unreadable.")
@click.option("-v", "--verbose", is_flag=True, help="Show the notes and all evidence, too.")
@click.option("-o", "--output", metavar="FILE", shell_complete=complete_file, help="Write to FILE instead of stdout.")
def check(**given: Any) -> None:
    """Check whether wheels and whole environments would load; for Windows, Linux and macOS, on any of them.

    A TARGET is a wheel, a conda package, a single native file or a folder (a virtual environment, site-packages).
    Without a TARGET, the environment of this Python is checked. No file of a target is run or installed. Each extension
    module, library and program is compared with the rules of a loader. For a wheel, these are the loaders of all
    platforms that its tags promise; for an environment, the loader of its system. The exit status is 0 when nothing is
    wrong; 1 for errors; 2 for a wrong command line; 3 when a target could not be read.
    """
    options = _CheckOptions(**prefer_command_line(given, settings_of(click.get_current_context()), ("form", "as_json")))
    form, targets = options.chosen_format(), options.chosen_targets()
    known = _read_baseline(options.baseline) if options.baseline is not None else frozenset()
    patterns = [_parse_ignore(text) for text in options.ignore]

    def reports(targets: Sequence[CheckTarget]) -> Iterator[CheckReport]:
        with _open_executor(targets, options) as executor:
            found: Iterator[CheckReport] = map(check_anything, targets)
            if executor is not None:
                from ..check.many import check_many

                found = check_many(targets, executor)
            what = f"{len(targets)} targets" if len(targets) > 1 else targets[0].path or "this environment"
            with progress(f"checking {what}", len(targets) if len(targets) > 1 else None) as shown:
                for report in found:
                    yield _without(report, patterns, known)
                    shown.advance()

    if form in _GROWING and options.output not in (None, "-"):
        assert options.output is not None
        worst = _fill_results(open_results(options.output, form, again=options.retry_unreadable), targets, reports)
    else:
        worst = _write_all(options, form, targets, reports)
    if worst == UNREADABLE:
        raise click.exceptions.Exit(_EXIT_UNREADABLE)
    if worst <= Severity(options.fail_on).rank:
        raise click.exceptions.Exit(_EXIT_PROBLEMS)


_Reports = Callable[[Sequence[CheckTarget]], Iterator[CheckReport]]


def _write_all(options: _CheckOptions, form: str, targets: Sequence[CheckTarget], reports: _Reports) -> int:
    """Write the reports in the order of their targets, and return the worst rank."""
    target = open_target(options.output or "-")
    try:
        if form == "jsonl":
            worst = NOTHING
            for report in reports(targets):
                target.write(make_line(report))
                worst = min(worst, report.worst)
            return worst
        places = {one.path: place for place, one in enumerate(targets)}
        found = sorted(reports(targets), key=lambda report: places.get(report.target, len(places)))
        _write(target, found, form, options.verbose)
        return min((report.worst for report in found), default=NOTHING)
    finally:
        target.discard()


def _fill_results(results: Results, targets: Sequence[CheckTarget], reports: _Reports) -> int:
    """Check the targets that a file of results does not have yet, and return the worst rank of all that are asked for.

    What is there stays there, however this run ends.
    """
    try:
        left = [one for one in targets if one.path not in results.done]
        for report in reports(left) if left else ():
            if report.target not in results.done:
                results.add(report)
        results.finish()
    except OSError as error:
        raise CommandFailed(f"the results could not be written: {error.strerror or error}") from error
    finally:
        results.close()
    ranks = [results.done[one.path] for one in targets if one.path in results.done]
    errors, unreadable = ranks.count(Severity.ERROR.rank), ranks.count(UNREADABLE)
    there = f", {len(targets) - len(left)} of them earlier" if len(left) < len(targets) else ""
    say(f"{len(ranks)} targets checked{there}: {errors} with errors, {unreadable} could not be read\n")
    return min(ranks, default=NOTHING)


@contextlib.contextmanager
def _open_executor(targets: Sequence[CheckTarget], options: _CheckOptions) -> Iterator[Any]:
    """Give the `Executor` that runs the checks: processes, or the workers of a cluster; `None` for this process.

    The module of `Executor` takes longer to import than a small wheel to check.
    """
    if options.dask is not None:
        with _open_cluster(options.dask) as executor:
            yield executor
    elif options.jobs == 1 or len(targets) == 1:
        yield None
    else:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        from ..check.many import end_with_parent

        count = min(options.jobs, len(targets))
        with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
            yield pool


@contextlib.contextmanager
def _open_cluster(address: str) -> Iterator[Any]:
    """Give an executor whose workers are those of a Dask scheduler. Raises `CommandFailed`."""
    from .. import __version__

    try:
        from distributed import Client
    except ImportError as error:
        raise CommandFailed("--dask needs dask.distributed: pip install 'dlltracer[dask]'") from error
    try:
        client = Client(address, timeout=_DASK_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_DASK_SECONDS)
        except TimeoutError as error:
            raise CommandFailed(f"the Dask scheduler at {address} has no worker") from error
        versions = client.run(lambda: __import__("dlltracer").__version__, on_error="return")
        for worker, version in versions.items():
            if version != __version__:
                has = version if isinstance(version, str) else f"none ({version})"
                raise CommandFailed(f"the worker {worker} has another dlltracer than this one, {__version__}: {has}")
        yield client.get_executor(pure=False)


def _expand(target: str) -> list[str]:
    """Return the files that a target names.

    A target may be a pattern, as in "dist/*.whl" where no shell has expanded it (tox, a CI's action). It may also be a
    folder of wheels and conda packages, as dist/ is; source distributions beside them are passed over.
    """
    if "\0" in target or "://" in target:
        return [target]
    target = target.rstrip("/") or target
    if glob.has_magic(target) and not os.path.lexists(target):
        return sorted(glob.glob(target, recursive=True)) or [target]
    try:
        entries = sorted(os.scandir(target), key=lambda entry: entry.name)
    except OSError:
        return [target]
    packages = [entry.path for entry in entries if entry.name.lower().endswith((".whl", ".conda", ".tar.bz2"))]
    holds_more = any(entry.is_dir() for entry in entries) or os.path.lexists(os.path.join(target, "pyvenv.cfg"))
    return packages if packages and not holds_more else [*packages, target]


def _read_list(path: str) -> list[str]:
    """Return the targets that a file names, one a line, without empty lines and lines that begin with #.

    Raises `CommandFailed`.
    """
    try:
        with click.open_file(path, "rb") as file:
            text = file.read(_LIST_LIMIT + 1)
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror or error}") from error
    if len(text) > _LIST_LIMIT:
        raise CommandFailed(f"{path} is too large for a list of targets: {_LIST_LIMIT >> 30} GiB are the most")
    lines = (os.fsdecode(line.strip()) for line in text.removeprefix(codecs.BOM_UTF8).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _parse_ignore(text: str) -> tuple[str, str]:
    from ..report.causes import read_causes

    code, _, pattern = text.partition(":")
    if not code:
        raise click.UsageError(f"--ignore {text}: a code is missing, as in --ignore executable-stack:pkg/*.so")
    known = [cause.code for cause in read_causes() if cause.page == "checks"]
    if code not in known:
        close = difflib.get_close_matches(code, known, 1)
        advice = f"did you mean {close[0]!r}?" if close else f"see {PROGRAM} explain"
        raise click.UsageError(f"--ignore {text}: there is no code {code!r}; {advice}")
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
    if form == "html":
        from ..report.render_check import render_check_html

        target.write(render_check_html(reports))
        return
    renderers: dict[str, Callable[[Sequence[CheckReport]], str]] = {
        "json": render.render_check_json, "sarif": render.render_check_sarif, "junit": render.render_check_junit,
        "github": render.render_check_github,
    }  # fmt: skip
    target.write(renderers[form](reports))
