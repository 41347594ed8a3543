"""`dlltracer report`: one archive for an issue, with the verdict and all that it rests on, without private data."""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import dataclass

import click

from ..api.saving import begin_trace, end_trace
from ..model.run import SavedTrace
from ..model.tracefile import trace_to_lines
from ..report.redact import SECRET_NAME, Redactor
from ..report.render_json import render_verdict_json
from ..report.render_markdown import render_markdown
from ..report.render_verdict import render_verdict
from .about import gather_info, render_info
from .commands import complete_backend, complete_file
from .formats import is_name_of_recording
from .options import PROGRAM, WRITTEN, BadUsage
from .output import CommandFailed, say, say_written
from .program import Asked, choose_python, command_of
from .question import read_question
from .record import own_redactor
from .why import examine, is_saved

_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file in the archive: the same bundle of the same facts has the same bytes."""
_ABOUT = {
    "README.txt": "what this is, and what was left out",
    "issue.md": "Markdown for the text of the issue",
    "verdict.txt": "the verdict, with every place and all evidence",
    "verdict.json": "the same for programs (dlltracer schema verdict)",
    "report.html": "a page for a browser",
    "recording.dlltrace": "all that was seen: dlltracer why recording.dlltrace explains it on any machine",
    "info.txt": "versions, mechanisms and variables of the machine",
    "info.json": "the same for programs (dlltracer schema info)",
}
"""The files of a bundle in their order, and what each is."""


@dataclass(frozen=True)
class _Bundle:
    """Texts by the name of their file, and the sentence on what was redacted."""

    files: dict[str, str]
    redacted: str


@click.command("report", short_help="Make one archive for an issue: verdict, page, recording, without private data.")
@click.argument("module", metavar="[MODULE]", nargs=-1, shell_complete=complete_file)
@click.option("-c", "code", metavar="CODE", help="Run this code instead of importing a module.")
@click.option(
    "-o", "--output", metavar=WRITTEN, shell_complete=complete_file,
    help="The archive; it must not exist.  [default: dlltracer-report-MODULE.zip]",
)  # fmt: skip
@click.option(
    "--python", metavar=PROGRAM, shell_complete=complete_file,
    help="The interpreter to try it with (Python 3.10 or later), or the folder of its environment.",
)  # fmt: skip
@click.option(
    "--backend", metavar="NAME", default="auto", show_default=True, shell_complete=complete_backend,
    help="The mechanism, as for why.",
)  # fmt: skip
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True),
    help="End the import after so many seconds, and report where it hangs.",
)  # fmt: skip
def report(
    module: tuple[str, ...], code: str | None, output: str | None, python: str | None, backend: str,
    timeout: float | None,
) -> None:  # fmt: skip
    """Try MODULE as dlltracer why does, and put the verdict and its evidence into one archive for an issue.

    MODULE may be everything that why takes, except a recording. The archive is made also when the import works. Names
    of users and machines, the home folder and secrets are replaced, and the command says how many.

    Exit status: 0 the archive was made, whether or not the import works; 2 the archive was not made; 3 the import could
    not be traced.
    """
    from ..capture.choose import check_backend_name

    if bool(module) is (code is not None):
        raise BadUsage("say what to report: a MODULE, a file, or -c CODE")
    if len(module) == 1 and is_saved(module[0]):
        raise BadUsage(f"{module[0]} is a recording: dlltracer show --redact -o FILE.dlltrace makes one to attach")
    check_backend_name(backend)
    chosen = choose_python(python)
    asked = read_question(module, code, chosen)
    path = output or name_archive(asked)
    _refuse(path)
    bundle = make_bundle(_try(asked, asked.python or chosen, backend, timeout), gather_info(), _redactor())
    _write(path, pack(bundle.files))
    say_written(path)
    width = max(map(len, bundle.files))
    say("".join(f"  {name:{width}}  {_ABOUT[name]}\n" for name in bundle.files))
    say(f"{bundle.redacted}\nLook through it before you publish it.\n")


def name_archive(asked: Asked) -> str:
    """Return the name of the archive for what was asked: always the same for the same question."""
    import re

    name = os.path.basename(os.path.normpath(asked.what.split("\n", maxsplit=1)[0]))
    words = [word for word in re.split(r"[^A-Za-z0-9_.-]+", name) if word.strip(".-")]
    if words[:1] in (["import"], ["importing"], ["loading"], ["the"]):
        del words[0]
    elif words[:1] == ["from"] and "import" in words:
        words.remove("import")
        del words[0]
    return f"dlltracer-report-{'-'.join(words)[:60].strip('.-') or 'import'}.zip"


def _refuse(path: str) -> None:
    """Raise `CommandFailed` where no archive can be made, before anything runs."""
    if os.path.lexists(path):
        raise CommandFailed(f"{path} exists, and is not overwritten: name another file with -o, or delete it")
    if not path.lower().endswith(".zip") or is_name_of_recording(path):
        raise CommandFailed(f"{path}: the report is a .zip file")
    folder = os.path.dirname(path) or os.curdir
    if not os.path.isdir(folder):
        raise CommandFailed(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise CommandFailed(f"cannot write {path}: {folder} takes no files")


def _try(asked: Asked, python: str | None, backend: str, timeout: float | None) -> SavedTrace:
    run, explained = examine(asked, python, backend, timeout, None)
    return end_trace(begin_trace(asked.what, command_of(asked.program, python), backend), run, explained)


def _redactor() -> Redactor:
    redactor = own_redactor()
    redactor.add_secrets(value for name, value in os.environ.items() if SECRET_NAME.search(name))
    return redactor


def make_bundle(trace: SavedTrace, info: dict[str, object], redactor: Redactor) -> _Bundle:
    """Return the files of a bundle, redacted.

    Arguments: `trace`, with its verdict; `info`, of `about.gather_info`; `redactor`, which knows who runs this.
    """
    from ..report.html import render_html

    redactor.learn(info)
    trace = redactor.redact_trace(trace)
    info = redactor.redact(info)
    assert trace.diagnosis is not None
    texts = {
        "issue.md": render_markdown(trace),
        "verdict.txt": render_verdict(trace.diagnosis).plain,
        "verdict.json": render_verdict_json(trace.diagnosis),
        "report.html": render_html(trace),
        "recording.dlltrace": "".join(trace_to_lines(trace)),
        "info.txt": render_info(info).plain,
        "info.json": json.dumps(info, indent=1) + "\n",
    }
    redacted = redactor.describe()
    about = "".join(f"{name:20}{what}\n" for name, what in _ABOUT.items())
    readme = (
        f"{trace.diagnosis.what}: a report of dlltracer {_version(info)}, for an issue.\n\n{about}\n{redacted}.\n"
        "The same name has the same word in all files.\n"
    )
    files = {"README.txt": readme, **texts}
    return _Bundle({name: files[name] for name in _ABOUT}, redacted)


def _version(info: dict[str, object]) -> object:
    own = info.get("dlltracer")
    return own.get("version", "") if isinstance(own, dict) else ""


def pack(files: dict[str, str]) -> bytes:
    """Return a zip archive of the texts, the same bytes for the same texts."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text.encode("utf-8", "backslashreplace"))
    return stream.getvalue()


def _write(path: str, data: bytes) -> None:
    """Write a file that is not there yet, whole or not at all. Raises `CommandFailed`."""
    try:
        with open(path, "xb") as file:  # somebody else may have made it meanwhile
            try:
                file.write(data)
            except BaseException:
                os.unlink(path)
                raise
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror or error}") from error
