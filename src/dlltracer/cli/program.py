"""Splits our options from the program to run, and says why the system could not start it."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence

from ..model.light import dataclass
from .output import CommandFailed, say


class ProgramKind(enum.Enum):
    """The way in which the program is named. `child_main.py` gets these values, except for a command, which it does not
    run."""

    CODE = "code"
    MODULE = "module"
    SCRIPT = "script"
    COMMAND = "command"
    """Any program: `name` is a file, or is looked for on PATH."""


@dataclass(frozen=True)
class Program:
    """A program to run: its `kind`, the `name` (code, module, or path), its own `arguments`.

    `must_return`: the question is whether all of it runs, as for an import. A script may end itself (sys.exit).
    `python`: the interpreter to run it with; `None` for ours.
    """

    kind: ProgramKind
    name: str
    arguments: tuple[str, ...] = ()
    must_return: bool = False
    python: str | None = None

    def with_python(self, python: str | None) -> Program:
        """Return the same program for an interpreter; `None` for ours."""
        return Program(self.kind, self.name, self.arguments, self.must_return, python)

    @property
    def words(self) -> tuple[str, ...]:
        """The program as one writes it behind `python`; a command, as one writes it."""
        option = {ProgramKind.CODE: ("-c",), ProgramKind.MODULE: ("-m",)}.get(self.kind, ())
        return (*option, self.name, *self.arguments)


@dataclass(frozen=True)
class Asked:
    """An import or program to try: `what`, in words; the `program` that does it; the interpreter that a script names,
    or `None`."""

    what: str
    program: Program
    python: str | None = None


_SOURCES = (".py", ".pyw", ".pyc", ".pyz", ".pyzw")


def is_command(word: str) -> bool:
    """Return whether the word behind `--` names a command: what the system would run, unless its name says Python."""
    if word.lower().endswith(_SOURCES):
        return False
    import shutil

    return shutil.which(word) is not None


def what_is_meant(script: str) -> str | None:
    """Return what to type for a SCRIPT that is a program, or the name of one; `None` for what Python is to read.

    A native file with a zip archive behind it is for Python, too: the launchers of pip are.
    """
    if not os.path.lexists(script):
        if os.path.dirname(script) or "\0" in script or not is_command(script):
            return None
        return f"there is no script {script} here, and there is a program of that name: dlltracer run -- {script}"
    if not _is_elf(script):
        return None
    import shlex
    import zipfile

    path = shlex.quote(script if os.path.dirname(script) else os.path.join(os.curdir, script))
    if zipfile.is_zipfile(script):
        return None
    if is_command(os.path.abspath(script)) and ".so" not in os.path.basename(script):  # some libraries may be executed
        return f"{script} is a program, not a script of Python: dlltracer run -- {path}"
    return f"{script} is a native file, not a script of Python: dlltracer why {path} tries to load it"


def _is_elf(path: str) -> bool:
    if not os.path.isfile(path):  # to read a pipe would take the program from it
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def command_of(program: Program, python: str | None = None) -> tuple[str, ...]:
    """The command line of a program, as it would be without us."""
    if program.kind is ProgramKind.COMMAND:
        return program.words
    return (python or program.python or sys.executable or "python", *program.words)


class NoValue(Exception):
    """`-c` or `-m` stands last: what belongs to it is missing. `option` is which."""

    def __init__(self, option: str) -> None:
        super().__init__(option)
        self.option = option


def split_command_line(
    arguments: Sequence[str], takes_value: Collection[str], runs: Callable[[str], bool] = is_command
) -> tuple[list[str], Program | None]:
    """Our options, and the program with everything after it; `None` if there is no program.

    `takes_value` names our options whose value is the next argument; `runs` tells whether the word behind `--` is a
    command. Nothing is checked here. Raises `NoValue`.
    """
    at = 0
    while at < len(arguments):
        argument = arguments[at]
        if argument == "--":
            words = arguments[at + 1 :]
            kind = ProgramKind.COMMAND if words and runs(words[0]) else ProgramKind.SCRIPT
            return list(arguments[:at]), _file(kind, words)
        if argument[:2] in ("-c", "-m"):
            return list(arguments[:at]), _code_or_module(arguments[at:])
        if not argument.startswith("-") or argument == "-":
            return list(arguments[:at]), _file(ProgramKind.SCRIPT, arguments[at:])
        at += 2 if argument in takes_value else 1
    return list(arguments), None


def _file(kind: ProgramKind, words: Sequence[str]) -> Program | None:
    return Program(kind, words[0], tuple(words[1:])) if words else None


def _code_or_module(words: Sequence[str]) -> Program:
    option, attached = words[0][:2], words[0][2:]
    kind = ProgramKind.CODE if option == "-c" else ProgramKind.MODULE
    if attached:
        return Program(kind, attached, tuple(words[1:]))
    if len(words) < 2:
        raise NoValue(option)
    return Program(kind, words[1], tuple(words[2:]))


_MOST_LINKS = 40
"""Links that Linux follows for one path; path_resolution(7)."""
_MOST_OF_A_LINE = 256
"""Bytes of a script's first line that Linux reads (BINPRM_BUF_SIZE, linux/binfmts.h)."""


def describe_start_failure(program: str, error: OSError) -> str:
    """Return the sentence on a program that could not be started.

    execve(2) says "No such file or directory" for a program that is there, too: of a link that leads nowhere, of the
    interpreter that a script names, and of the loader that an ELF program names (PT_INTERP).

    Arguments: `program`, a path or a name of PATH; `error`, what starting it raised.
    """
    import errno

    failure = f"{program} could not be started: {error.strerror or error}"
    if error.errno != errno.ENOENT or os.sep not in program:
        return failure
    cause = _broken_link(program) or _missing_interpreter(program)
    return f"{failure}: {cause}" if cause else failure


def _broken_link(program: str) -> str | None:
    path = program
    for _ in range(_MOST_LINKS):
        try:
            target = os.readlink(path)
        except OSError:
            break
        path = os.path.join(os.path.dirname(path), target)
    if path == program or os.path.lexists(path):
        return None
    import shlex

    environment = os.path.dirname(os.path.dirname(os.path.abspath(program)))
    words = f"it is a link that leads to {os.path.normpath(path)}, and there is no such file"
    if os.path.basename(program).startswith("python"):
        is_venv = os.path.basename(os.path.dirname(program)) == "bin"
        made = f" (python3 -m venv --clear {shlex.quote(environment)})" if is_venv else ""
        words += f". Install that Python again, or make the environment anew with one that is there{made}"
    return words


def _missing_interpreter(program: str) -> str | None:
    from ..binary.elf import read_elf
    from ..binary.reading import read_regular
    from ..errors import BinaryFormatError

    try:
        head = read_regular(program, _MOST_OF_A_LINE)
        if head.startswith(b"#!"):
            words = head[2:].splitlines()[0].split()
            named = os.fsdecode(words[0]) if words else ""
            if named and not os.path.exists(named):
                return f"its first line names {named}, and there is no such file"
            return None
        loader = read_elf(program).interpreter
    except (OSError, BinaryFormatError):
        return None
    if loader and not os.path.exists(loader):
        return (
            f"its loader is {loader}, and there is no such file: it was built for another C library, another kind of "
            "processor or another system"
        )
    return None


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
        no_python = "that is no Python: its --version does not say so"
        raise CommandFailed(f"--python {named}: {_without_base(path) or no_python}")
    if (int(found[1]), int(found[2])) < _OLDEST:
        raise CommandFailed(f"--python {named}: that is Python {found[1]}.{found[2]}: 3.10 or later is needed")


_LONGEST_CONFIGURATION = 1 << 16


def _without_base(path: str) -> str | None:
    """Return what to say of a virtual environment whose Python is gone; `None` for anything else.

    On Windows its python.exe is a program that starts the Python of `home` in pyvenv.cfg (PEP 405; PC/launcher.c).
    """
    environment = os.path.dirname(os.path.dirname(os.path.abspath(path)))
    try:
        with open(os.path.join(environment, "pyvenv.cfg"), encoding="utf-8", errors="replace") as file:
            text = file.read(_LONGEST_CONFIGURATION)
    except OSError:
        return None
    pairs = (line.partition("=") for line in text.splitlines())
    home = next((value.strip() for key, _, value in pairs if key.strip().lower() == "home"), "")
    if not home or os.path.exists(os.path.join(home, "python.exe" if os.name == "nt" else "python3")):
        return None
    return (
        f"the Python that this virtual environment was made from is gone: its pyvenv.cfg names {home}. Install "
        "that Python again, or make the environment anew with one that is there (python -m venv --clear)"
    )


def _of_active_environment(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the variable and the Python of the active environment, if it is another one than ours.

    A tool that was started by `uvx` or `pipx`, or by its script in an environment of its own, is asked about the active
    environment. Who writes `/this/python -m dlltracer` has chosen that Python, unless it belongs to an
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
    """Return whether we were started by the script of the installation, and not by a Python that somebody named.

    `python -m` gives its module a spec, and so does a zip archive that Python runs (runpy).
    """
    has_spec = getattr(sys.modules.get("__main__"), "__spec__", None) is not None
    return not has_spec and os.path.basename(sys.argv[0]).startswith("dlltracer")


def _is_of_tool() -> bool:
    """Return whether our environment holds this tool alone. uvx keeps those in a cache whose folders are called
    archive-v0."""
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
