"""Runs the command `dlltracer`: reads a plain command line here and any other by click, and turns errors into exit
statuses."""

from __future__ import annotations

import gc
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
    try:
        status = _call_plain(sys.argv[1:])
        if status is None:
            from .commands import call_by_click

            status = call_by_click()
    except (DlltracerError, OSError) as error:
        from .output import say_error

        status = say_error(str(error))
    except ImportError as error:
        if error.name not in sys.stdlib_module_names:
            raise
        from .output import say_error

        # ctypes is what such a Python lacks most often; one that is linked statically loads no extension module at all.
        needed = "ctypes" if error.name == "_ctypes" else error.name
        status = say_error(
            f"dlltracer needs {needed}, which this Python cannot import ({str(error).rstrip('.')}). "
            f"Install dlltracer into another Python, and run there: dlltracer why --python {sys.executable} {needed}"
        )
    except (KeyboardInterrupt, Interrupted):
        from .output import say

        say("dlltracer: interrupted\n", err=True)
        status = EXIT_INTERRUPTED
    sys.exit(status)


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
