"""`dlltracer show`: a recording made anywhere, in any format."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import click

from ..binary.reading import read_regular
from ..errors import BinaryFormatError
from ..host.recording_files import read_trace_file, read_trace_stream
from ..model.run import SavedTrace
from ..model.tracereader import NotARecording
from .commands import complete_file, settings_of
from .formats import FORMS, GITHUB, HTML, RECORDING, STDIN, Form, choose_form, formats_help, refuse_as_recording
from .options import BadUsage, prefer_command_line
from .output import EXIT_USAGE, CommandFailed, open_target, say_error

_HEAD = 4096


@dataclass(frozen=True)
class _ShowOptions:
    """What was given on the command line, by the names of the parameters below."""

    file: str
    output: str | None
    form: str | None
    html: str | None
    github: bool
    failed_only: bool
    verbose: bool
    redact: bool
    startup: bool
    process: str | None
    pid: int | None

    def chosen_form(self, settings: frozenset[str]) -> Form:
        """Return the format to write. Raises `BadUsage` when options contradict each other."""
        if self.html is not None and (self.output is not None or self.form not in (None, HTML)):
            raise BadUsage("--html FILE is an output of its own: leave out -o and --format")
        if self.github and (self.html is not None or self.form not in (None, GITHUB)):
            raise BadUsage("--github is a format of its own: leave out --html and --format")
        if self.html is not None:
            refuse_as_recording(self.html, HTML)
            return choose_form(HTML, False, None, self.failed_only, settings)
        return choose_form(self.form, self.github, self.output, self.failed_only, settings)


@click.command("show", short_help="Show a recording, made here or on another machine.")
@click.argument("file", shell_complete=complete_file)
@click.option("-o", "--output", metavar="FILE", shell_complete=complete_file, help="Write to FILE instead of stdout.")
@click.option(
    "--format", "form", type=click.Choice(list(FORMS)),
    help=f"{formats_help()}  [default: by the name of the output, else text]",
)  # fmt: skip
@click.option("--html", metavar="FILE", shell_complete=complete_file, help="Write an HTML page to FILE.")
@click.option("--github", is_flag=True, help="Markdown for an issue, at most 60 lines: the same as --format github.")
@click.option("-v", "--verbose", is_flag=True, help="Text: show all images and places, and the whole verdict.")
@click.option("--failed-only", is_flag=True, help="Show failures only, and what leads to them.")
@click.option("--redact", is_flag=True, help="Leave out names of users and of the machine, and secrets.")
@click.option("--startup", is_flag=True, help="Of an .etl file: show the images that were there when it began, too.")
@click.option("--process", metavar="NAME", help="Of a file that has many processes (.etl): those of that program.")
@click.option("--pid", metavar="N", type=int, help="Of a file that has many processes (.etl): that one.")
def show(**given: Any) -> None:
    """Show what a recording has: what was loaded and what failed, and the verdict if there is one.

    FILE was made by dlltracer run or dlltracer why (-o FILE.dlltrace), on this machine or another one, whatever its
    system; "-" reads one from standard input. A damaged or torn one is shown as far as it can be read.

    Exit status: 0 it was shown, 2 it is no recording, or the question was wrong.
    """
    settings = settings_of(click.get_current_context())
    options = _ShowOptions(**prefer_command_line(given, settings, ("form", "github", "html"), ("output", "html")))
    chosen = options.chosen_form(settings)
    chosen = chosen.in_full(options.verbose and (chosen.write_full is not None or "verbose" not in settings))
    trace = open_recording(options.file, options.process, options.pid, startup=options.startup)
    if trace.steps and not chosen.can_show_steps:
        shown = ", ".join(form.name for form in FORMS.values() if form.can_show_steps)
        raise BadUsage(f"this is the report of a self-test, which is shown as {shown} only, not {chosen.name}")
    if options.redact:
        from ..report.redact import redact as without_names

        trace = without_names(trace)
    if chosen.name != RECORDING:
        trace = _with_own_verdict(trace)
    _write(trace, chosen, options.html or options.output or "-", options.failed_only)


def open_recording(
    file: str, process: str | None = None, pid: int | None = None, *, startup: bool = False
) -> SavedTrace:
    """Return the trace in a file, of whatever kind it is; "-" is standard input, which must hold a recording.

    Arguments, for a file that has many processes (.etl): `process`, `pid`, the name of the program, the number of the
    one; `startup`, also the images that were there when it began.
    Raises `CommandFailed` with one line on what is wrong.
    """
    try:
        if file == STDIN:
            return read_trace_stream(sys.stdin.buffer)
        from ..capture.etl import is_etl, read_etl

        if is_etl(read_regular(file, _HEAD)):
            return read_etl(file, process=process, pid=pid, startup=startup)
        if process is not None or pid is not None or startup:
            raise BadUsage("--process, --pid and --startup are for .etl files: this is a recording of one run")
        return read_trace_file(file)
    except OSError as error:
        raise CommandFailed(f"cannot read {file}: {error.strerror or error}") from error
    except BinaryFormatError as error:
        raise CommandFailed(f"cannot read {file}: {error.problem}; - reads a recording from a pipe") from error
    except NotARecording as error:
        raise CommandFailed(f"{file}: {error}") from error


def _with_own_verdict(trace: SavedTrace) -> SavedTrace:
    """Return the trace with the verdict that our rules give on its facts, in the place of the one that it brought."""
    if trace.diagnosis is None:
        return trace
    from ..api.saving import explain_saved

    return replace(trace, diagnosis=explain_saved(trace))


def _write(trace: SavedTrace, form: Form, output: str, failed_only: bool) -> None:
    target = open_target(output)
    try:
        form.write(target, trace, failed_only)
    except OSError as error:
        say_error(f"the report could not be written: {error.strerror or error}")
        raise click.exceptions.Exit(EXIT_USAGE) from error
    finally:
        target.discard()
