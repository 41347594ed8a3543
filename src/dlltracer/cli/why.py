"""`dlltracer why`: try an import in a child, or read a recording, and say why it fails."""

from __future__ import annotations

import os
import time

from ..capture.choose import check_backend_name
from ..model.light import dataclass, replace
from ..model.recording import Recording
from ..model.run import RunResult, SavedTrace, StopReason
from .formats import (
    GITHUB,
    HTML,
    HTML_OPTION,
    RECORDING_SUFFIX,
    STDIN,
    form_of_name,
    is_name_of_recording,
    refuse_other_format,
    refuse_same_file,
    write_form,
)
from .options import (
    ANNOTATIONS_OPTION,
    BACKEND_OPTION,
    PROGRAM,
    WRITTEN,
    BadUsage,
    CommandLine,
    Option,
    prefer_command_line,
)
from .output import EXIT_USAGE, Target, open_target, say_annotations, say_error, screen_of, write_styled
from .program import choose_python, command_of
from .progress import progress
from .question import read_question
from .try_import import try_and_explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..api.explain import Explained
    from ..model.finding import Diagnosis
    from .program import Asked, Program


@dataclass(frozen=True)
class _WhyOptions:
    """Values of the command line, by the names of the parameters below."""

    module: tuple[str, ...]
    code: str | None
    as_json: bool
    github: bool
    output: str | None
    html: str | None
    python: str | None
    backend: str
    redact: bool
    annotations: bool | None
    timeout: float | None
    tries: bool | None
    verbose: bool
    quiet: bool

    @property
    def is_recorded(self) -> bool:
        """True if the output is a recording."""
        return is_name_of_recording(self.output)

    @property
    def file(self) -> str | None:
        """The one word that may name a recording."""
        return self.module[0] if len(self.module) == 1 else None

    @property
    def form(self) -> str:
        """The format of the verdict: asked for, or by the name of the file."""
        if self.as_json or self.github:
            return "json" if self.as_json else GITHUB
        named = form_of_name(self.output)
        if named is not None and named.name in (GITHUB, HTML):
            return named.name
        return "json" if (self.output or "").lower().endswith(".json") else "text"

    def check(self) -> None:
        """Raise `BadUsage` when options contradict each other."""
        if self.code is not None and self.module[:1] and self.module[0].startswith(("python", "pypy")):
            raise BadUsage(f"the interpreter is named by --python: dlltracer why --python {self.module[0]} -c CODE")
        if bool(self.module) is (self.code is not None):
            raise BadUsage("say what to import: a MODULE, a file, or -c CODE")
        if self.as_json and self.github:
            raise BadUsage("choose one of --json and --github")
        if self.verbose and self.quiet:
            raise BadUsage("choose one of -v and -q")
        if (self.verbose or self.quiet) and self.form != "text":
            raise BadUsage(f"-v and -q are for text: {self.form} has its own size")
        if not self.as_json and not self.github:
            refuse_other_format(self.output, ".html", ".htm", ".md", ".json", RECORDING_SUFFIX)
        refuse_same_file("-" if self.is_recorded else self.output or "-", self.html)
        check_backend_name(self.backend)


def why(given: Mapping[str, Any], settings: frozenset[str]) -> None:
    """Import MODULE in a process of its own, and say why it fails: which file, needed by whom, looked for where.

    MODULE may be the name of a module, an import statement (from PIL import Image) or a script (*.py, *.pyz). It may
    also be the folder of a package, or the file of an extension module or a shared library. A recording, made here or
    on another machine, is explained from its contents, and nothing is imported.

    Fixes that need no installation are tried: the verdict says which of them work.

    An import that hangs is ended by --timeout or Ctrl-C, and the verdict says where it was.

    Exit status: 0 the import works; 1 a cause was found; 4 the import fails and the evidence does not decide; 3 the
    import could not be traced; 2 the command line is wrong; 124 --timeout ended the import; 130 Ctrl-C ended it.
    """
    options = _WhyOptions(**_without_settings(given, settings))
    options.check()
    prepared: list[Target] = []
    try:
        target = open_target("-" if options.is_recorded else options.output or "-")
        prepared.append(target)
        page = open_target(options.html) if options.html is not None else None
        if page is not None:
            prepared.append(page)
        trace, stopped = _answer(options)
        _write(options, trace, target, page)
    finally:
        for one in prepared:
            one.discard()
    diagnosis = _verdict_of(trace)
    say_annotations(options.annotations, lambda folder: _annotate(diagnosis, folder))
    raise SystemExit(diagnosis.outcome.exit_status if stopped is None else _STATUSES[stopped])


COMMAND = CommandLine(
    "why", "Say why an import fails.", why,
    Option("code", "-c", metavar="CODE", help="Run this code instead of importing a module."),
    Option("as_json", "--json", help="JSON, with all evidence."),
    Option("github", "--github", help="Markdown for an issue, at most 60 lines, with versions and the loads."),
    Option(
        "output", "-o", "--output", metavar=WRITTEN, completes="file",
        help="Write the verdict to FILE instead of stdout (.html, .md, .json: in that format); FILE.dlltrace: save the "
        "recording there as well.",
    ),
    HTML_OPTION,
    Option(
        "python", "--python", metavar=PROGRAM, completes="file",
        help="The interpreter to try it with (Python 3.10 or later), or the folder of its environment.",
    ),
    BACKEND_OPTION,
    Option(
        "timeout", "--timeout", metavar="SECONDS", is_positive=True,
        help="End the import after so many seconds, and say where it hangs.",
    ),
    Option(
        "tries", "--try", off="--no-try",
        help="Try the import again with each fix that needs no installation, at most three. [default: for modules]",
    ),
    Option("redact", "--redact", help="Leave out names of users and of this machine, and secrets."),
    Option("verbose", "-v", "--verbose", help="The whole verdict, with every place, all evidence and the notes."),
    Option("quiet", "-q", "--quiet", help="The cause alone, in one line."),
    ANNOTATIONS_OPTION,
    argument="module", takes_words=True,
)  # fmt: skip


def _annotate(diagnosis: Diagnosis, folder: str) -> str:
    from ..report.render_verdict import annotate_verdict

    return annotate_verdict(diagnosis, workspace=folder)


def _without_settings(given: Mapping[str, Any], settings: frozenset[str]) -> dict[str, Any]:
    """The options as given, without settings that contradict the command line."""
    kept = prefer_command_line(given, settings, ("as_json", "github"), ("verbose", "quiet"))
    if len(kept["module"]) == 1 and is_saved(kept["module"][0]):  # which settings for a trial are not about
        names = ["python"] + ["output"] * is_name_of_recording(kept["output"])
        kept.update({name: None for name in names if name in settings})
    return kept


_STATUSES = {StopReason.TIMED_OUT: 124, StopReason.INTERRUPTED: 130}
"""Exit statuses: those of timeout(1), and of a shell for SIGINT."""


def _answer(options: _WhyOptions) -> tuple[SavedTrace, StopReason | None]:
    """All that is known, the verdict in it; and why the import was ended, if it was."""
    if options.file is not None and is_saved(options.file):
        if options.python is not None or options.is_recorded:
            raise BadUsage("a recording is explained as it is: leave out --python and -o FILE.dlltrace")
        return _explain_file(options.file, options.redact), None
    chosen = choose_python(options.python)
    question = read_question(options.module, options.code, chosen)
    what, python = question.what, question.python or chosen
    command = command_of(question.program, python)
    recorder = None
    if options.is_recorded:
        assert options.output is not None
        from .record import TraceRecorder

        recorder = TraceRecorder(options.output, what, command, options.backend, redact=options.redact)
    try:
        run, explained = examine(question, python, options.backend, options.timeout, options.tries)
        if recorder is not None:
            return recorder.finish(run, explained), run.stopped
        if options.html is None and options.form not in (GITHUB, HTML):
            recording = run.recording or Recording(options.backend)
            trace = SavedTrace(recording, run=RunResult(process=run.process), diagnosis=explained.diagnosis)
        else:
            from ..api.saving import begin_trace, end_trace

            trace = end_trace(begin_trace(what, command, options.backend), run, explained)
        if options.redact:
            from .record import own_redactor

            trace = own_redactor().redact_trace(trace)
        return trace, run.stopped
    except SystemExit:  # it was not traced, or did not begin
        if recorder is not None:
            recorder.discard()
        raise
    finally:
        if recorder is not None:
            recorder.close()


def examine(
    asked: Asked, python: str | None, backend: str, timeout: float | None, tries: bool | None
) -> tuple[RunResult, Explained]:
    """Try what was asked, and explain what came of it.

    Arguments: `python`, the interpreter, `None` for ours; `tries`, whether fixes are tried, `None` for imports only.
    Raises `SystemExit` when it could not be traced, or could not begin.
    """
    program = asked.program
    with progress(f"trying {asked.what}"):
        begun = time.monotonic()
        run, explained = try_and_explain(asked.what, program, python, backend, timeout)
        seconds = time.monotonic() - begun
    # A script has effects that nobody wants thrice; an import should have none.
    if (program.must_return if tries is None else tries) and run.stopped is None and explained.case is not None:
        explained = replace(explained, diagnosis=_try_fixes(explained, program, python, seconds))
    return run, explained


def _try_fixes(explained: Explained, program: Program, python: str | None, seconds: float) -> Diagnosis:
    """The verdict, with what trials of its fixes have shown."""
    from .try_import import try_fixes

    assert explained.case is not None
    with progress("trying fixes"):
        return try_fixes(explained.case, explained.diagnosis, program, python, seconds)


def _verdict_of(trace: SavedTrace) -> Diagnosis:
    assert trace.diagnosis is not None
    return trace.diagnosis


def is_saved(name: str) -> bool:
    """Return whether that is a recording to be explained, not a module to be tried."""
    if name.lower().endswith((RECORDING_SUFFIX, ".etl")):
        return os.path.exists(name)  # a FIFO of that name is refused, not imported
    return name == STDIN or (os.path.isfile(name) and _looks_like_recording(name))


def _looks_like_recording(name: str) -> bool:
    from ..host.recording_files import looks_like_recording

    return looks_like_recording(name)


def _explain_file(file: str, redact: bool) -> SavedTrace:
    """A recording with the verdict on it, which says where it is from."""
    from ..api.saving import explain_saved
    from ..report.counts import describe_origin, notes_on_children
    from .show import open_recording

    trace: SavedTrace = open_recording(file)
    if trace.steps:
        raise BadUsage(f"{file} is the report of a self-test, where no import failed: dlltracer show has it")
    if redact:
        from ..report.redact import redact as without_names

        trace = without_names(trace)
    diagnosis = explain_saved(trace)
    notes = trace.recording.notes[-1:] if redact else ()
    notes = (
        *describe_origin(trace), *notes_on_children(trace.recording), *trace.problems, *diagnosis.notes, *notes
    )  # fmt: skip
    return replace(trace, diagnosis=replace(diagnosis, notes=notes))


def _write(options: _WhyOptions, trace: SavedTrace, target: Target, page: Target | None) -> None:
    """Write what was asked for: the verdict, and the page beside it."""
    diagnosis = _verdict_of(trace)
    try:
        if options.form == "json":
            from ..report.render_json import render_verdict_json

            target.write(render_verdict_json(diagnosis))
        elif options.form in (GITHUB, HTML):
            write_form(options.form, target, trace)
        else:
            _write_text(options, trace, target)
        if page is not None:
            write_form(HTML, page, trace)
    except OSError as error:
        say_error(f"the verdict could not be written: {error.strerror or error}")
        raise SystemExit(EXIT_USAGE) from error


def _write_text(options: _WhyOptions, trace: SavedTrace, target: Target) -> None:
    """Write the verdict for people, as long as it is wanted."""
    diagnosis = _verdict_of(trace)
    if options.verbose:
        from ..report.render_verdict import render_verdict

        write_styled(target, lambda plain: render_verdict(diagnosis, ascii_only=plain))
        return
    from ..report.counts import count
    from ..report.drawing import number
    from ..report.render_short import render_first_line, render_short_verdict

    screen = screen_of(target, trace.run.process.current_folder if trace.run.process is not None else "")
    if options.quiet:
        write_styled(target, lambda _: render_first_line(diagnosis, screen))
        return
    outcomes = count(trace.recording)
    counts = f"{number(outcomes.loaded, 'image')}, 0 failed" if trace.recording.events else ""
    if counts and outcomes.failed:
        counts += f", {outcomes.failed} done without"
    write_styled(target, lambda _: render_short_verdict(diagnosis, screen, counts=counts))
