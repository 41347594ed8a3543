"""Commands about dlltracer itself: `info`, `schema`, `completion` and `hook`; and `explain`, the page of a code."""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import os
import platform
import site
import sys
import sysconfig
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from .. import __version__
from ..capture.backend import Availability
from ..capture.choose import BACKEND_NAMES, make_backend
from ..errors import BackendUnavailable
from ..host.failure import this_process
from ..host.machine import describe_host
from ..model.encode import encode
from ..model.environment import is_libpython
from ..report.causes import PAGES, read_causes, render_cause
from ..report.drawing import BOLD, PLAIN, Line, Styled
from ..report.render_json import SCHEMA_NAMES, render_schema
from .commands import complete_file
from .formats import is_json_asked
from .options import BadUsage
from .output import open_target, say, screen_of, write_styled

VERSION = 1
"""Counted up when a reader of the former version would misread the new one."""

_VARIABLES = (
    "LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "LD_DEBUG", "LD_BIND_NOW", "GLIBC_TUNABLES", "PATH", "PYTHONHOME",
    "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONSAFEPATH", "CONDA_PREFIX", "VIRTUAL_ENV", "DLLTRACER", "NO_COLOR",
    "FORCE_COLOR", "TERM", "GITHUB_ACTIONS",
)  # fmt: skip
"""What a loader, Python, or dlltracer itself looks at."""

_PACKAGES = ("click", "rich", "jinja2", "pip", "setuptools")


@click.command("info", short_help="Print what the report of a bug needs.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@click.option(
    "-o", "--output", metavar="FILE", shell_complete=complete_file, help="Write to FILE instead of stdout."
)
def info(as_json: bool, output: str | None) -> None:
    """Print what the report of a bug needs: versions, the build of Python, the system, which mechanisms work here.

    The output has paths and environment variables. Look for private data before you publish it.
    """
    as_json = is_json_asked(as_json, output)
    found = gather_info()
    target = open_target(output or "-")
    try:
        if as_json:
            target.write(json.dumps(found, indent=1) + "\n")
        else:
            write_styled(target, lambda plain: render_info(found))
    finally:
        target.discard()


def gather_info() -> dict[str, Any]:
    """All of it, as plain values; docs/reference/json.md describes them."""
    return {
        "type": "info",
        "version": VERSION,
        "dlltracer": {"version": __version__, "folder": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))},
        "python": _describe_python(),
        "host": encode(describe_host()),
        "backends": _describe_backends(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "packages": {name: _version_of(name) for name in _PACKAGES},
    }


def _describe_python() -> dict[str, Any]:
    process = this_process()
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "bits": process.bits,
        "debug": process.is_debug,
        "free_threaded": process.is_free_threaded,
        "shared_library": _has_shared_library(process.loaded),
        "compiler": platform.python_compiler(),
        "executable": process.executable,
        "prefix": process.prefix,
        "environment_of": _environment_of(process.prefix, process.base_prefix),
        "suffixes": list(process.suffixes),
    }


def _has_shared_library(loaded: tuple[str, ...]) -> bool:
    """Return whether the interpreter is in a library; `loaded` are the images of its process.

    Debian builds the library, and its own program without it, so the options of the build do not say it. Frozen and
    stripped installations lack the `_sysconfigdata` module, where they are.
    """
    if sys.platform == "win32":
        return True
    if loaded:
        return any(is_libpython(path) or os.path.basename(path).startswith("libpypy") for path in loaded)
    try:
        return bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
    except ImportError:
        return False


def _environment_of(prefix: str, base_prefix: str) -> str:
    """Source: conda keeps its records in conda-meta of each environment; PEP 405 for venv."""
    if os.path.isdir(os.path.join(prefix, "conda-meta")):
        return "conda"
    return "venv" if prefix != base_prefix else "system"


def _describe_backends() -> list[dict[str, Any]]:
    """Each mechanism: whether it can work here, else why not; last the one that `why` takes for crashes on Linux."""
    found = [_describe_backend(name) for name in BACKEND_NAMES if name != "auto"]
    if sys.platform == "linux":
        try:
            from ..capture.linux.ptrace import availability
        except ImportError as error:  # no _ctypes, which may be what the report is about
            answer = Availability(False, f"this Python cannot call C functions ({error})")
        else:
            answer = availability()
        found.append(_plain_answer("crashwatch", answer.ok, answer.reason, answer.remedy))
    return found


def _describe_backend(name: str) -> dict[str, Any]:
    try:
        answer = make_backend(name).availability()
    except BackendUnavailable as error:
        return _plain_answer(name, False, error.reason, "")
    return _plain_answer(name, answer.ok, answer.reason, answer.remedy)


def _plain_answer(name: str, ok: bool, reason: str, remedy: str) -> dict[str, Any]:
    why = {key: text for key, text in (("reason", reason), ("remedy", remedy)) if text and not ok}
    return {"name": name, "available": ok, **why}


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def render_info(found: dict[str, Any]) -> Styled:
    """The same for people."""
    from ..report.drawing import BOLD, DIM, FAILED, PLAIN, Styled

    python, host = found["python"], found["host"]
    kinds = [f"{python['bits']} bits", *(["debug build"] if python["debug"] else [])]
    kinds += ["free-threaded"] if python["free_threaded"] else []
    kinds += [f"{'shared' if python['shared_library'] else 'static'} libpython", python["compiler"]]
    rows = [
        ("dlltracer", found["dlltracer"]["version"], found["dlltracer"]["folder"]),
        ("Python", f"{python['implementation']} {python['version']}", ", ".join(kinds)),
        ("", python["executable"], f"{python['environment_of']}, {python['prefix']}"),
        ("system", host["description"], host["machine"]),
    ]
    if host.get("c_library"):
        rows.append(("C library", host["c_library"], ""))
    lines: list[Line] = [((f"{label:>11}  ", DIM), (value, BOLD), (f"  {more}", PLAIN)) for label, value, more in rows]
    label = "mechanisms"
    for backend in found["backends"]:
        why = ". ".join(backend[key] for key in ("reason", "remedy") if key in backend)
        refused = (f"no: {why}", FAILED if "remedy" in backend else DIM)
        state = ("works here", PLAIN) if backend["available"] else refused
        lines.append(((f"{label:>11}  ", DIM), (f"{backend['name']:11}", BOLD), state))
        label = ""
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in found["packages"].items())
    lines.append(((f"{'packages':>11}  ", DIM), (versions, PLAIN)))
    label = "variables"
    for name, value in found["environment"].items():
        lines.append(((f"{label:>11}  ", DIM), (f"{name}=", BOLD), (value, PLAIN)))
        label = ""
    return Styled(lines)


_ABOUT = {
    "verdict": "dlltracer why --json",
    "deps": "dlltracer deps --json",
    "check": "dlltracer check --json",
    "diff": "dlltracer diff --json",
    "order": "dlltracer order --json",
    "jsonl": "a line of dlltracer run --format jsonl",
    "recording": "a line of a recording, FILE.dlltrace",
    "info": "dlltracer info --json",
    "common": "what these share: events, probes, errors, crashes",
}


@click.command("schema", short_help="Print the JSON Schema of an output.")
@click.argument("name", type=click.Choice(SCHEMA_NAMES), required=False)
def schema(name: str | None) -> None:
    """Print the JSON Schema (draft 2020-12) of what a command writes; without NAME, list them.

    Each schema is complete: it includes the definitions that it shares with others.
    """
    if name is None:
        for known in SCHEMA_NAMES:
            say(f"{known:9} {_ABOUT[known]}\n")
        return
    say(render_schema(name))


SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_DLLTRACER_COMPLETE"
"""The script sets it when it asks the command for what could follow; click answers and leaves."""


@click.command("completion", short_help="Print a script that completes commands in a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script for SHELL that completes commands, options, mechanisms, formats and files.

    \b
    bash: dlltracer completion bash > ~/.local/share/bash-completion/completions/dlltracer
    zsh:  dlltracer completion zsh > FOLDER/_dlltracer, FOLDER being one of $fpath
    fish: dlltracer completion fish > ~/.config/fish/completions/dlltracer.fish
    """
    from .commands import cli

    made = get_completion_class(shell)
    assert made is not None
    # Not `made.source()`: for bash it asks the bash of this machine for its version, and may print a warning.
    say(ShellComplete.source(made(cli, {}, "dlltracer", VARIABLE)) + "\n")


HOOK_FILE = "dlltracer-hook.pth"
HOOK_LINE = (
    "import os; os.environ.get('DLLTRACER') == '1' and __import__('importlib.util').util.find_spec('dlltracer') "
    "and __import__('dlltracer').install()\n"
)
"""Read by site at every start of the environment's Python: without the variable it asks for it, and no more.

It may outlive dlltracer, which pip uninstalls without it.
"""


@click.group("hook", short_help="Let DLLTRACER=1 explain failed imports in any program.")
def hook() -> None:
    """Let DLLTRACER=1 in the environment add the verdict to any program that ends with a failed import.

    The hook is a .pth file in the site-packages of this Python. Only `dlltracer hook enable` puts it there.
    """


@hook.command("enable")
def enable() -> None:
    """Put the hook into this environment."""
    path = _hook_path()
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write(HOOK_LINE)
    say(f"{path} is in place: DLLTRACER=1 python ... explains a failed import\n")


@hook.command("disable")
def disable() -> None:
    """Remove the hook from this environment."""
    try:
        os.unlink(_hook_path())
    except FileNotFoundError:
        say(f"{_hook_path()} was not there\n")
    else:
        say(f"{_hook_path()} is gone\n")


@hook.command("status")
def status() -> None:
    """Say whether this environment has the hook."""
    there = os.path.exists(_hook_path())
    say(f"{_hook_path()} {'is in place' if there else 'is not there'}\n")


def _hook_path() -> str:
    try:
        folder = sysconfig.get_path("purelib")
    except (ImportError, AttributeError, KeyError):  # no _sysconfigdata, as above; 3.13 lacks a variable of it then
        folder = site.getsitepackages()[0]
    return os.path.join(folder, HOOK_FILE)


def _complete_code(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    codes = sorted({cause.code for cause in read_causes()})
    return [CompletionItem(code) for code in codes if code.startswith(incomplete)]


@click.command("explain", short_help="Print the page of a code: what it means, how to check, fix and avoid it.")
@click.argument("code", required=False, shell_complete=_complete_code)
def explain(code: str | None) -> None:
    """Print what CODE means, how to check it, how to fix it, and how the maintainer of a package avoids it.

    CODE stands in the last line of a verdict and behind each problem of dlltracer check. Without CODE, all are listed.

    Exit status: 0 it was printed, 2 there is no such code.
    """
    target = open_target("-")
    screen = screen_of(target)
    if code is None:
        write_styled(target, lambda _: Styled(_list_of_codes()))
        return
    asked = code.strip().strip("[]").lower()
    causes = read_causes(asked)
    if not causes:
        codes = sorted({cause.code for cause in read_causes()})
        near = difflib.get_close_matches(asked, codes, 3, 0.5)
        near = near or [known for known in codes if asked and (asked in known or known in asked)][:3]
        meant = f"did you mean {' or '.join(near)}?" if near else "dlltracer explain lists all"
        raise BadUsage(f"there is no code {code}: {meant}")
    write_styled(target, lambda _: render_cause(causes, screen))


def _list_of_codes() -> list[Line]:
    lines: list[Line] = []
    for page, command in PAGES.items():
        lines.append(((f"{command}:", BOLD),))
        lines += [((f"  {cause.code}", PLAIN),) for cause in read_causes() if cause.page == page]
    return lines
