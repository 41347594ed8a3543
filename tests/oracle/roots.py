"""Linux roots to run Python in: old and new glibc from Debian, musl, and other processors (`oracle.processors`).

``find_root(name)`` builds one on first use in a cache folder outside of the checkout and returns either a ``Root`` or
the reason why this machine cannot have it, which tests pass to ``pytest.skip``. Programs run by chroot in a mount
namespace of their own: nothing stays mounted, and nothing is left in the root.

A suite whose own Python is too old for dlltracer, and musl, get a portable CPython of the running version: the
executable and extension modules that freeze-core ships in its wheels (for glibc 2.17 and up, and for musl), with the
pure modules of the running Python's standard library.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oracle.processors import PROCESSORS, Processor, enter_command, find_obstacle, unpack_root

MIRROR = "http://deb.debian.org/debian"
KEYS = Path("/usr/share/keyrings")

PORTABLE = "freeze-core==0.8.1"
PORTABLE_PYTHON = "/opt/freeze_core/python"
PORTABLE_START = """\
def run(name):
    import runpy, sys
    del sys.argv[0]
    while sys.argv[0].startswith("-") and sys.argv[0] != "-":
        del sys.argv[: 2 if sys.argv[0] in ("-X", "-W") else 1]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""What its executable imports and calls at start: it passes over the options of an interpreter, and takes a script."""

UNUSED = ("site-packages", "dist-packages", "lib-dynload", "test", "idlelib", "lib2to3", "ensurepip", "__pycache__")

IN_ROOT = """
root=$1; shared=$2; portable=$3; shift 3
mount -t proc proc "$root/proc"
mount --bind "$shared" "$root/mnt"
test -z "$portable" || mount --bind "$portable" "$root/opt"
cd "$root"
exec chroot . "$@"
"""


class RootError(RuntimeError):
    """A root could not be built, or does not run here; the text says why."""


@dataclass(frozen=True)
class Recipe:
    """How to make a root: a Debian suite with these packages; the platform of the portable Python to run in it;
    Debian's name of the processor, if it is another one; the name of its folder, if another root is of that suite."""

    suite: str
    packages: tuple[str, ...] = ()
    portable: str | None = None
    architecture: str | None = None
    folder: str | None = None


FRESH = ("python3", "python3-venv", "ca-certificates")
"""What README.md asks a reader of Debian to have."""
TRIXIE = ("python3", "musl", "pypy3")

RECIPES = {
    # glibc 2.31; its own Python is 3.9
    "bullseye": Recipe("bullseye", portable="manylinux2014_x86_64"),
    "trixie": Recipe("trixie", TRIXIE, folder="trixie-pypy"),
    "fresh-bookworm": Recipe("bookworm", FRESH, folder="fresh-bookworm"),
    "fresh-trixie": Recipe("trixie", FRESH, folder="fresh-trixie"),
    "sid": Recipe("sid", ("python3",)),
    # the older musl of bookworm lacks functions that the portable Python needs
    "musl": Recipe("trixie", TRIXIE, portable="musllinux_1_2_x86_64", folder="trixie-pypy"),
    "arm64-bullseye": Recipe("bullseye", ("zlib1g",), "manylinux2014_aarch64", "arm64"),
    "arm64-bookworm": Recipe("bookworm", ("python3",), architecture="arm64"),
    **{f"{name}-trixie": Recipe("trixie", ("python3",), architecture=name) for name in PROCESSORS},
}

FOREIGN = tuple(name for name, recipe in RECIPES.items() if recipe.architecture is not None)
"""The roots of other processors."""


@dataclass(frozen=True)
class Root:
    """A root: its folder (`None` for this system as it is), its Python as named inside, what becomes /opt there, its
    processor if that is another one."""

    folder: Path | None
    python: str
    portable: Path | None = None
    processor: Processor | None = None

    def run(self, shared: Path, script: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a Python script of the folder `shared`, which is /mnt inside the root."""
        place = str(shared / script) if self.folder is None else f"/mnt/{script}"
        return self.execute(shared, [self.python, place, *arguments], timeout=timeout)

    def execute(
        self, shared: Path, command: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the folder `shared` as /mnt; `environment` is added to a small one."""
        enter: list[str] = []
        if self.folder is not None and self.processor is not None:
            enter = enter_command(self.processor, self.folder, shared, self.portable)
        elif self.folder is not None:
            enter = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", IN_ROOT, "sh"]
            enter += [str(self.folder), str(shared), str(self.portable or "")]
        small = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        if self.processor is None:
            small["PYTHONDONTWRITEBYTECODE"] = "1"
        else:
            small.update(self.processor.environment)
        return subprocess.run(
            [*enter, *command],
            env={**small, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def _tool(command: Sequence[str | Path], *, timeout: float = 600) -> None:
    try:
        done = subprocess.run(
            command, timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RootError(f"{command[0]}: {error}") from error
    if done.returncode:
        words = f"{done.stdout}\n{done.stderr}".strip()
        raise RootError(f"{command[0]} ended with status {done.returncode}: {words[-1000:]}")


def _debootstrap(recipe: Recipe, folder: Path) -> None:
    command: list[str | Path] = ["debootstrap", "--variant=minbase"]
    if recipe.packages:
        command.append(f"--include={','.join(recipe.packages)}")
    # An older keyring than the suite's keys: the packages are run here only, in a folder of the test's own.
    if recipe.suite != "sid" and not (KEYS / f"debian-archive-{recipe.suite}-automatic.gpg").exists():
        command.append("--no-check-gpg")
    _tool([*command, recipe.suite, folder, MIRROR])
    shutil.rmtree(folder / "var/cache/apt", ignore_errors=True)


def _portable_python(platform: str, folder: Path) -> None:
    """A CPython of the running version, as `freeze_core/python` in `folder`."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    _tool([*pip, "--platform", platform, "--python-version", version, "--target", str(folder), PORTABLE])
    home = folder / "freeze_core"
    shutil.copytree(
        sysconfig.get_paths()["stdlib"], home / "lib", symlinks=True, dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(*UNUSED, "config-*", "*.so"),
    )  # fmt: skip
    (executable,) = (home / "bases").glob("console-cpython-*")
    shutil.copy(executable, home / "python")
    (home / "python").chmod(0o755)
    (home / "lib/__init__python.py").write_text(PORTABLE_START)
    # The extension modules look for their libraries in that other folder, the executable for its own in lib.
    for library in (folder / "freeze_core.libs").iterdir():
        (home / "lib" / library.name).symlink_to(f"../../freeze_core.libs/{library.name}")


ZLIB_SHIM = """\
#include <stdarg.h>
#include <stddef.h>
int vsnprintf(char *, size_t, const char *, va_list);
long lseek(int, long, int);
long lseek64(int file, long offset, int whence) { return lseek(file, offset, whence); }
int __vsnprintf_chk(char *room, size_t size, int flag, size_t whole, const char *format, va_list list)
{ return vsnprintf(room, size, format, list); }
int __snprintf_chk(char *room, size_t size, int flag, size_t whole, const char *format, ...)
{ va_list list; va_start(list, format); int done = vsnprintf(room, size, format, list); va_end(list); return done; }
"""
"""What Debian's libz.so.1 needs of glibc that musl does not have."""


def _zlib_for_musl(folder: Path, root: Path) -> None:
    """The libz.so.1 that modules of the portable Python need: musllinux wheels expect it of the system (PEP 656).

    It is that of the root, which needs little of its C library, under another name behind a library that has the rest.
    """
    path = folder / "libz.so.1"
    if path.exists() or shutil.which("gcc") is None:
        return
    (folder / "libZ.so.1").write_bytes(
        (root / "usr/lib/x86_64-linux-gnu/libz.so.1").read_bytes().replace(b"\0libz.so.1\0", b"\0libZ.so.1\0")
    )
    source = folder / "libz.c"
    source.write_text(ZLIB_SHIM)
    options = ["-shared", "-fPIC", "-nostdlib", "-fno-stack-protector", "-w", "-Wl,-soname,libz.so.1"]
    _tool(["gcc", *options, "-o", path, source, "-Wl,--no-as-needed", folder / "libZ.so.1"])


def _once(folder: Path, build: Callable[[Path], None]) -> Path:
    """The folder, built first if need be: under another name, and renamed when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(unfinished, ignore_errors=True)
            build(unfinished)
            unfinished.rename(folder)
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two test runs build one after the other: the second finds everything done."""
    import fcntl

    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _obstacle() -> str | None:
    """Why this machine cannot have roots, as far as can be known before trying."""
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        return "roots are built on x86-64 Linux only"
    if os.geteuid() != 0:
        return "needs root: a chroot in a mount namespace"
    needed = ("unshare", "chroot", "debootstrap")
    missing = [program for program in needed if shutil.which(program) is None]
    if missing:
        return f"no {', '.join(missing)} on this machine"
    allowed = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return allowed.stderr.strip() or None


def _folder_name(recipe: Recipe) -> str:
    if recipe.folder is not None:
        return recipe.folder
    return recipe.suite if recipe.architecture is None else f"{recipe.suite}-{recipe.architecture}"


def _build(recipe: Recipe, processor: Processor | None, folder: Path) -> None:
    if processor is None:
        _debootstrap(recipe, folder)
    else:
        unpack_root(processor, recipe.suite, recipe.packages, MIRROR, folder, _tool)


@functools.cache
def find_root(name: str) -> Root | str:
    """The root of that name, built on first use; or the reason why there is none."""
    recipe = RECIPES[name]
    processor = None if recipe.architecture is None else PROCESSORS[recipe.architecture]
    if reason := _obstacle() if processor is None else find_obstacle(processor):
        return reason
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlltracer-roots"
    try:
        folder = _once(cache / _folder_name(recipe), functools.partial(_build, recipe, processor))
        if recipe.portable is None:
            return Root(folder, "/usr/bin/python3", None, processor)
        python = cache / f"python{sys.version_info[0]}.{sys.version_info[1]}-{recipe.portable}"
        portable = _once(python, functools.partial(_portable_python, recipe.portable))
        start = portable / "freeze_core/lib/__init__python.py"
        if start.read_text() != PORTABLE_START:
            start.write_text(PORTABLE_START)
        if recipe.portable.startswith("musl"):
            _zlib_for_musl(portable / "freeze_core/lib", folder)
        return Root(folder, PORTABLE_PYTHON, portable, processor)
    except (RootError, OSError, shutil.Error) as error:
        return f"the {name} root could not be built: {error}"


def this_system() -> Root:
    """The machine as it is, with the Python that runs the tests."""
    return Root(None, sys.executable)
