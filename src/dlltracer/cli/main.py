"""Runs the command `dlltracer`: reads a plain command line here and any other by click, and turns errors into exit
statuses."""

from __future__ import annotations

import gc
import os
import sys

from ..errors import DlltracerError, Interrupted

EXIT_INTERRUPTED = 130
"""The status of a shell for a command that SIGINT ended."""

_PLAIN = ("run", "why", "deps")
"""Commands that are described by values (options.py), in modules of their names."""


def main() -> None:
    """Run the command line of this process; never returns."""
    # Imports and the reading of images make many objects and hardly any garbage, yet the collector looks at all of
    # them again and again: a tenth of the time of `deps`. Let it run after more new objects than the usual 700.
    if hasattr(gc, "set_threshold"):  # PyPy's collector has none
        gc.set_threshold(50_000)
    _undo_coercion()
    try:
        status = _call_plain(sys.argv[1:])
        if status is None:
            from .commands import call_by_click

            status = call_by_click()
    except (DlltracerError, OSError) as error:
        from .output import say_error

        status = say_error(str(error))
    except ImportError as error:
        from .output import say_error

        package = (error.name or "dlltracer").partition(".")[0]
        if package == "dlltracer":
            raise
        # ctypes is what such a Python lacks most often; one that is linked statically loads no extension module at all.
        needed = "ctypes" if error.name == "_ctypes" else error.name
        advice = "pip installs it with dlltracer"
        if package in sys.stdlib_module_names:
            there = f"dlltracer why --python {sys.executable} {needed}"
            advice = f"Install dlltracer into another Python, and run there: {there}"
        status = say_error(
            f"dlltracer needs {needed}, which this Python cannot import ({str(error).rstrip('.')}). {advice}"
        )
    except (KeyboardInterrupt, Interrupted):
        from .output import say

        say("dlltracer: interrupted\n", err=True)
        status = EXIT_INTERRUPTED
    sys.exit(status)


def _undo_coercion() -> None:
    """Take LC_CTYPE out of our environment where this interpreter has put it there.

    In the locale "C", that of most containers, Python sets it to C.UTF-8 and turns its UTF-8 mode on (PEP 538, 540). A
    Python that inherits it does not turn that mode on, and another program has a locale that it would not have.
    """
    if os.environ.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        try:
            with open("/proc/self/environ", "rb") as file:  # as it was at the start (proc(5))
                is_given = b"\0LC_CTYPE=" in b"\0" + file.read()
        except OSError:
            return
        if not is_given:
            del os.environ["LC_CTYPE"]


def _call_plain(words: list[str]) -> int | None:
    """Run a plain command line, and return the status to leave with; `None` if click is to read it.

    click is not imported for it, nor what only other commands need: dlltracer then starts in half the time. What is
    wrong with a command line is for click to say.
    """
    if words in (["--version"], ["-V"]):
        from .. import __version__
        from .output import say

        say(f"dlltracer {__version__}\n")
        return 0
    if not words or words[0] not in _PLAIN:
        return None
    import importlib

    from ..host.configfile import may_have_settings
    from .options import BadUsage, CommandLine

    command = importlib.import_module(f".{words[0]}", __package__).COMMAND
    assert isinstance(command, CommandLine)
    given = command.read_plain(words[1:])
    if given is None or may_have_settings():
        return None
    try:
        command.call(given, frozenset())
    except BadUsage:  # raised before anything is done
        return None
    return 0
