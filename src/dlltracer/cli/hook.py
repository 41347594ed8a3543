"""`dlltracer hook`: let DLLTRACER=1 add the verdict to every program of an environment."""

from __future__ import annotations

import os
import sysconfig

import click

from .output import say

FILE = "dlltracer-hook.pth"
LINE = (
    "import os; os.environ.get('DLLTRACER') == '1' and __import__('importlib.util').util.find_spec('dlltracer') "
    "and __import__('dlltracer').install()\n"
)
"""Read by site at every start of the environment's Python: without the variable it asks for it, and no more.

It may outlive dlltracer, which pip uninstalls without it.
"""


@click.group("hook", short_help="Let DLLTRACER=1 explain failed imports in any program.")
def hook() -> None:
    """Let DLLTRACER=1 in the environment add the verdict to any program that ends with a failed import.

    Works by a .pth file in the site-packages of this Python, which nothing else puts there.
    """


@hook.command("enable")
def enable() -> None:
    """Put the file into this environment."""
    path = _path()
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write(LINE)
    say(f"{path} is in place: DLLTRACER=1 python ... explains a failed import\n")


@hook.command("disable")
def disable() -> None:
    """Take it away again."""
    try:
        os.unlink(_path())
    except FileNotFoundError:
        say(f"{_path()} was not there\n")
    else:
        say(f"{_path()} is gone\n")


@hook.command("status")
def status() -> None:
    """Say whether it is there."""
    there = os.path.exists(_path())
    say(f"{_path()} {'is in place' if there else 'is not there'}\n")


def _path() -> str:
    return os.path.join(sysconfig.get_path("purelib"), FILE)
