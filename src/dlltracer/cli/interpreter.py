"""Which Python a command looks at: the one that was named, the one of the active environment, or our own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from .output import CommandFailed, say

_IN_ENVIRONMENT = ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe", "python", "python3")
"""Where an environment (venv, conda) has its Python, from its folder or from the folder of its programs."""
_VARIABLES = ("VIRTUAL_ENV", "CONDA_PREFIX")
"""Set by what activates an environment: the scripts of venv (PEP 405), and conda activate."""
_OF_TOOLS = ("uv-receipt.toml", "pipx_metadata.json", "pipx_expired_flag")
"""Files of environments that hold one tool: of `uv tool install`, and of pipx (install and run)."""
_OLDEST = (3, 10)
_SECONDS = 30.0
"""How long a Python may take to start: the first start of one in a file system of the network takes some seconds."""

_LOADER_STATUS = 127
"""With which ld.so and the loader of musl end a program that they cannot start (elf/rtld.c; ldso/dynlink.c)."""


def choose_python(named: str | None) -> str | None:
    """Return the interpreter to use: the one that --python names, else that of the active environment.

    Returns `None` for our own. Says in one line on stderr when another one than ours is taken unasked. Raises
    `CommandFailed` for what is no Python that can be used.
    """
    if named is not None:
        return find_python(named)
    other = _of_active_environment(os.environ)
    if other is None:
        return None
    variable, path = other
    say(f"dlltracer: taking the Python of {variable}: {path} (--python PATH takes another one)\n", err=True)
    return find_python(path)


def find_python(named: str) -> str:
    """Return the program that `--python` means: a path, a name of PATH, a version ("3.12"), or a folder that has one.

    It is asked for its version, so that nothing else is started with our arguments. One that cannot be started is
    returned as it is: why it cannot is for the verdict. Raises `CommandFailed`.
    """
    import re

    path = named
    if os.path.isdir(named):
        inside = python_in(named)
        if inside is None:
            raise CommandFailed(
                f"--python {named}: this folder has no Python (no bin/python, no Scripts\\python.exe): name an "
                "interpreter, or the folder of an environment"
            )
        path = inside
    elif re.fullmatch(r"3\.\d{1,2}t?", named) and not os.path.exists(named):
        import shutil

        path = shutil.which(f"python{named}") or ""
        if not path:
            raise CommandFailed(f"--python {named}: there is no python{named} on PATH: name the path of one")
    _check_version(named, path)
    return path


def python_in(folder: str) -> str | None:
    """Return the Python of an environment; `None` if the folder is none."""
    candidates = (os.path.join(folder, *name.split("/")) for name in _IN_ENVIRONMENT)
    return next((path for path in candidates if os.path.isfile(path)), None)


def _check_version(named: str, path: str) -> None:
    """Raise `CommandFailed` unless the program is a Python that we can run, or one that its loader cannot start."""
    import subprocess  # not above, as in every function here: most commands look at no other Python

    try:
        done = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"--python {named}: it did not answer --version within {_SECONDS:.0f} seconds") from error
    except (OSError, ValueError):
        return  # the run of it says why it cannot be started
    import re

    answer = done.stdout[:4096].decode("utf-8", "replace")
    found = re.search(r"^Python (\d+)\.(\d+)", answer, re.M)
    if found is None:
        if done.returncode < 0 or done.returncode >> 31 or done.returncode == _LOADER_STATUS:
            return  # a Python whose own libraries are missing looks like this
        raise CommandFailed(f"--python {named}: that is no Python: its --version does not say so")
    if (int(found[1]), int(found[2])) < _OLDEST:
        raise CommandFailed(f"--python {named}: that is Python {found[1]}.{found[2]}: 3.10 or later is needed")


def _of_active_environment(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the variable and the Python of the active environment, if it is another one than ours.

    A tool that was started by `uvx`, by `pipx` or by its script in an environment of its own is asked about the
    environment that is active. Who writes `/this/python -m dlltracer` has chosen that Python, unless it belongs to an
    environment that was made for the tool alone.
    """
    if not _is_script() and not _is_of_tool():
        return None
    for variable in _VARIABLES:
        prefix = environment.get(variable)
        if not prefix:
            continue
        if _is_same(prefix, sys.prefix):
            return None
        path = python_in(prefix)
        if path is not None:
            return variable, path
    return None


def _is_script() -> bool:
    """Whether we were started by the script of the installation, and not by a Python that somebody named.

    `python -m` gives its module a spec, and so does a zip archive that Python runs (runpy).
    """
    has_spec = getattr(sys.modules.get("__main__"), "__spec__", None) is not None
    return not has_spec and os.path.basename(sys.argv[0]).startswith("dlltracer")


def _is_of_tool() -> bool:
    """Whether our environment holds this tool alone. uvx keeps those in a cache whose folders are called archive-v0."""
    if any(os.path.isfile(os.path.join(sys.prefix, name)) for name in _OF_TOOLS):
        return True
    return sys.prefix != sys.base_prefix and os.path.basename(os.path.dirname(sys.prefix)).startswith("archive-v")


def _is_same(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


_FIND = """\
import importlib.util, os, sys
spec = importlib.util.find_spec(sys.argv[1])
places = list(spec.submodule_search_locations or ()) if spec is not None and spec.origin is None else ()
sys.exit(3 if places and all(os.path.realpath(one) == os.path.realpath(sys.argv[2]) for one in places) else 0)
"""


def is_namespace_of(name: str, folder: str, python: str | None) -> bool:
    """Return whether importing `name` would give a package without any code, whose one place is that folder."""
    import subprocess

    try:
        done = subprocess.run(
            [python or sys.executable, "-c", _FIND, name, folder], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 3
