"""`dlltracer selftest`: checks this machine against what dlltracer assumes, and writes a report."""

from __future__ import annotations

import time
from dataclasses import replace

import click

from .. import __version__
from ..host.machine import describe_host
from ..host.recording_files import TraceFileWriter
from ..model.recording import Recording
from ..model.run import RunResult, SavedTrace, SelfTestStep, StepState
from ..model.tracefile import closing_lines, header_line, step_line
from ..selftest.runner import SelfTest
from ..selftest.step import GROUPS, list_groups
from .commands import complete_file
from .formats import RECORDING_SUFFIX
from .output import EXIT_MISSING, EXIT_USAGE, open_target, say_error, table_width, write_styled
from .progress import progress

BACKEND = "selftest"
"""In the place of a mechanism's name."""
_NOTHING_PRIVATE = "names of users and machines and the folders outside of the self-test are left out"
EXIT_INTERRUPTED = 130
_INTERRUPTED = "the self-test was interrupted: steps are missing"


@click.command("selftest", short_help="Check on this machine what dlltracer assumes of it.")
@click.option(
    "-o", "--report", metavar="FILE", shell_complete=complete_file,
    help=f"Write the report to FILE as well: a recording ({RECORDING_SUFFIX}) for dlltracer show.",
)  # fmt: skip
@click.option(
    "--only", metavar="GROUP", multiple=True, type=click.Choice(tuple(GROUPS)),
    help=f"Ask the questions of this group only; may be repeated ({', '.join(GROUPS)}).",
)  # fmt: skip
def selftest(report: str | None, only: tuple[str, ...]) -> None:
    """Check on this machine what dlltracer assumes of its loader, its mechanisms and its limits.

    The self-test loads tiny libraries that dlltracer brings, and prints a table. Each question is asked in a process of
    its own, which may crash or hang without harm. The self-test takes less than a minute. It installs and changes
    nothing, and leaves nothing behind.

    On Windows run the command twice: once as usual, and once from an elevated prompt, which ETW needs.

    The report has no names of users or machines, no values of the environment, and none of your folders.

    Exit status: 0 every answer is right, 1 some answer is wrong, 2 the self-test or its report could not be made, 130
    the self-test was interrupted. Questions that this machine does not allow do not count.
    """
    foreign = [group for group in only if group not in list_groups()]
    if foreign:
        raise click.UsageError(f"{foreign[0]} is about another system: here there is {', '.join(list_groups())}")
    report_file = None if report is None else _ReportFile(report)
    steps: list[SelfTestStep] = []
    interrupted = False
    try:
        with SelfTest(tuple(dict.fromkeys(only)) or None) as test:
            begun = SavedTrace(
                Recording(BACKEND), what="the self-test of dlltracer", written_by=__version__, started=time.time(),
                host=test.privacy.clean_host(describe_host()), command=("dlltracer", "selftest"),
            )  # fmt: skip
            if report_file is not None:
                report_file.write(header_line(begun))

            def take(step: SelfTestStep) -> None:
                steps.append(step)
                if report_file is not None:
                    report_file.write(step_line(step))

            try:
                with progress("asking this machine"):
                    test.run(take)
            except KeyboardInterrupt:
                interrupted = True
        trace = _finish(begun, tuple(steps), interrupted)
        if report_file is not None:
            report_file.write("".join(closing_lines(trace)))
    finally:
        if report_file is not None:
            report_file.close()
    _print(trace)
    status = trace.run.status
    raise click.exceptions.Exit(EXIT_USAGE if report_file is not None and report_file.failed else status or 0)


class _ReportFile:
    """The file of the report, written while the self-test runs: what is there survives whatever happens.

    Attributes: `failed`, whether it could not take all. Raises `click.ClickException` if it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.failed = False
        try:
            self._file = TraceFileWriter(path, self._say)
        except OSError as error:
            raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from error

    def write(self, lines: str) -> None:
        self._file.write(lines)

    def close(self) -> None:
        self._file.close()

    def _say(self, trouble: str) -> None:
        self.failed = True
        say_error(f"{self._file.path} cannot be written any more: {trouble}; what is there stays")


def _finish(begun: SavedTrace, steps: tuple[SelfTestStep, ...], interrupted: bool) -> SavedTrace:
    """Return the whole report; its status is that of the command."""
    failed = any(step.state is StepState.FAILED for step in steps)
    status = EXIT_INTERRUPTED if interrupted else EXIT_MISSING if failed else 0
    took = f"it took {time.time() - (begun.started or 0.0):.0f} s, two groups of steps at a time"
    notes = (_NOTHING_PRIVATE, took, *([_INTERRUPTED] if interrupted else []))
    return replace(begun, recording=Recording(BACKEND, notes=notes), run=RunResult(status=status), steps=steps)


def _print(trace: SavedTrace) -> None:
    from ..report.render_selftest import render_selftest

    target = open_target("-")
    write_styled(target, lambda _: render_selftest(trace, width=table_width(target)))
