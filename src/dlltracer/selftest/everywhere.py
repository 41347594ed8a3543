"""Questions for every system: what machine this is, how tiny images are read, and what the commands do as a whole."""

from __future__ import annotations

import json
import os
import platform
import struct
import subprocess
import sys
import sysconfig
import tempfile
from typing import Any

from .. import __version__
from ..binary.elf import read_elf
from ..binary.pe import read_pe
from ..binary.reading import read_regular
from ..capture.choose import BACKEND_NAMES, candidates, make_backend
from ..errors import BackendUnavailable
from ..host.failure import this_process
from ..host.machine import describe_host
from ..host.recording_files import read_trace_file
from .step import MACHINES, Answer, CannotAsk, Question, Room, read_images

_ELF = {"x86_64": 62, "i386": 3, "aarch64": 183, "arm": 40, "riscv64": 243}
_PE = {"x64": 0x8664, "x86": 0x14C, "arm64": 0xAA64}
_NEEDS = {
    "needs-good": "dt_dep", "needs-missing": "dt_gone", "needs-symbol": "dt_dep", "needs-ordinal": "dt_dep",
    "needs-good-rpath": "dt_dep", "needs-good-runpath": "dt_dep", "needs-version": "dt_dep",
    "needs-good-from-system": "dt_dep", "delays-missing": "dt_gone", "needs-contract": "api-ms-win-crt-heap",
}  # fmt: skip
"""What the images need, as they are named in both formats. (needs-symbol of ELF needs a symbol and no library.)"""


def questions() -> tuple[Question, ...]:
    """Return the questions of the groups "system", "images", "seccomp" and "commands"."""
    return (
        Question("system", "this Python", "CPython or PyPy, 3.10 or later", _ask_python),
        Question("system", "this system", "its version and machine are known", _ask_system),
        Question("system", "mechanisms", "one of them can work here", _ask_mechanisms),
        Question("images", "tiny images", "each is read as it was made, whatever its machine", _ask_images),
        *_questions_about_commands(),
    )


def _ask_python(room: Room) -> Answer:
    process = this_process()
    room.note("dlltracer", __version__)
    room.note("version", sys.version)
    room.note("bits", struct.calcsize("P") * 8)
    room.note("built for", sysconfig.get_platform())
    room.note("free-threaded", process.is_free_threaded)
    room.note("debug build", process.is_debug)
    room.note("kind", _kind_of_python())
    room.note("suffixes", ", ".join(process.suffixes))
    room.note("file system encoding", sys.getfilesystemencoding())
    room.note("isolated", bool(sys.flags.isolated))
    kind = f"{platform.python_implementation()} {platform.python_version()}"
    seen = f"{kind}, {struct.calcsize('P') * 8} bits, {_kind_of_python()}"
    return sys.implementation.name in ("cpython", "pypy") and sys.version_info >= (3, 10), seen


def _kind_of_python() -> str:
    """Return who made this Python, by the signs that each leaves. Sources: PEP 405, conda's conda-meta, PEP 668, MS
    Store."""
    executable = sys.executable or ""
    found = []
    if sys.prefix != sys.base_prefix:
        found.append("virtual environment of")
    if os.path.isdir(os.path.join(sys.base_prefix, "conda-meta")):
        found.append("conda")
    elif "windowsapps" in executable.lower() or "windowsapps" in sys.base_prefix.lower():
        found.append("Microsoft Store")
    elif os.path.join("uv", "python") in sys.base_prefix:
        found.append("uv")
    elif ".pyenv" in sys.base_prefix:
        found.append("pyenv")
    elif any(name.endswith("._pth") for name in _names_in(os.path.dirname(executable))):
        found.append("embeddable package")
    elif sys.platform != "win32" and sys.base_prefix == "/usr":
        found.append("the system's own")
    else:
        found.append("installed")
    return " ".join(found)


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _ask_system(room: Room) -> Answer:
    host = describe_host()
    room.note("system", host.system)
    room.note("description", host.description)
    room.note("machine", host.machine)
    room.note("C library", host.c_library)
    room.note("processors", os.cpu_count())
    room.note("byte order", sys.byteorder)
    seen = ", ".join(filter(None, (host.description, host.machine, host.c_library)))
    return bool(host.machine and host.description), seen


def _ask_mechanisms(room: Room) -> Answer:
    works = []
    for name in BACKEND_NAMES:
        if name == "auto":
            continue
        try:
            found = make_backend(name).availability()
        except BackendUnavailable:
            continue  # it is of another system
        room.note(name, "available" if found.ok else f"no: {found.reason}. {found.remedy}")
        works += [name] if found.ok else []
    if not candidates():
        raise CannotAsk(f"no mechanism exists for {sys.platform}: there, dlltracer reads files and recordings only")
    return bool(works), ", ".join(works) or "none"


def _ask_images(room: Room) -> Answer:
    wrong = []
    count = 0
    with tempfile.TemporaryDirectory(dir=room.folder) as folder:
        for machine, images in read_images().items():
            for name in images:
                count += 1
                problem = _check_image(room, folder, machine, name)
                if problem:
                    wrong.append(f"{name} for {machine}: {problem}")
    for text in wrong:
        room.note("wrong", text)
    return not wrong, f"{count} images for {'; '.join(MACHINES.values())}" if not wrong else "; ".join(wrong[:3])


def _check_image(room: Room, folder: str, machine: str, name: str) -> str | None:
    """Return what is wrong with an image as our readers see it; `None` if nothing is."""
    path = room.place(name, folder, f"{machine}-{name}", machine=machine)
    wanted = _NEEDS.get(name)
    if machine in _PE:
        pe = read_pe(path, symbols=True)
        if pe.machine != _PE[machine] or not pe.is_dll:
            return f"machine {pe.machine:#x}"
        names = [one.library for one in pe.imports]
        exports = [export.name for export in pe.exports or ()]
    else:
        elf = read_elf(path, symbols=True)
        if elf.machine != _ELF[machine] or elf.bits != (32 if machine in ("i386", "arm") else 64):
            return f"machine {elf.machine}, {elf.bits} bits"
        names = list(elf.needed)
        exports = list(elf.symbols.provides) if elf.symbols is not None else []
        wanted = None if name == "needs-symbol" else wanted
    if [one for one in names if wanted is None or wanted not in one]:
        return f"it needs {', '.join(names)}"
    if wanted is not None and not names:
        return "it needs nothing"
    return None if name != "good" or exports == ["dt_answer"] else f"it exports {exports}"


_SECONDS = 50
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from dlltracer.__main__ import main; main()"
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
_PARENT = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {_LOAD!r}, sys.argv[1]]).returncode)"
_CRASH = "import faulthandler; faulthandler.disable(); faulthandler._read_null()"
_FAULTS = (11, 0xC0000005)
"""SIGSEGV, and the access violation of Windows."""


def _questions_about_commands() -> tuple[Question, ...]:
    """Return the questions of the groups "commands" and "seccomp"."""
    return (
        Question("seccomp", "a good load", "an event with its path, from outside of the program", _ask_watched),
        Question("seccomp", "a missing need", "the missing library is named, with status 1", _ask_watched_why),
        Question("commands", "dlltracer deps", "the need of a library of another system is named", _ask_deps),
        Question("commands", "dlltracer run", "a recording with the load, and the status of the program", _ask_run),
        Question("commands", "dlltracer run --follow", "the load of a process that the program started", _ask_follow),
        Question("commands", "dlltracer why", "the missing library is named, with status 1", _ask_why),
        Question(
            "commands", "dlltracer why, a crash", "the fault, and the image that it happened in", _ask_crash,
            on_wine="Wine 8 does not tell every debugger of a fault",
        ),
    )  # fmt: skip


def _run(room: Room, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = [sys.executable, "-c", _PROGRAM, root, "--no-config", *arguments]
    ran = subprocess.run(
        command, cwd=room.folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False,
        text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    room.note("status", ran.returncode)
    room.note("stderr", ran.stderr[-1500:])
    return ran


def _need_system() -> None:
    if sys.platform not in ("linux", "win32"):
        raise CannotAsk(f"programs are traced on Linux and Windows only, not on {sys.platform}")


def _read_json(text: str) -> dict[str, Any]:
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


def _ask_deps(room: Room) -> Answer:
    machine, name = ("x86_64", "libdt_gone") if sys.platform == "win32" else ("x64", "dt_gone")
    path = room.place("needs-missing", "foreign.bin", machine=machine)
    ran = _run(room, "deps", "--json", path)
    try:
        needs = [binding["need"] for binding in _read_json(ran.stdout)["bindings"]]
    except (ValueError, KeyError):
        return False, f"no JSON, status {ran.returncode}"
    return ran.returncode == 1 and any(name in need for need in needs), f"status {ran.returncode}: {', '.join(needs)}"


def _ask_run(room: Room) -> Answer:
    _need_system()
    suffix = "dll" if sys.platform == "win32" else "so"
    path, report = room.place("good", f"good.{suffix}"), room.path("run.dlltrace")
    ran = _run(room, "run", "-o", report, "-c", f"{_LOAD}; sys.exit(7)", path)
    return _find_load(room, ran, report, path, 7)


def _need_seccomp() -> None:
    found = make_backend("seccomp").availability()
    if not found.ok:
        raise CannotAsk(f"{found.reason}. {found.remedy}".rstrip(". "))


def _ask_watched(room: Room) -> Answer:
    _need_seccomp()
    path, report = room.place("good", "good.so"), room.path("watched.dlltrace")
    ran = _run(room, "run", "--backend", "seccomp", "-o", report, "-c", f"{_LOAD}; sys.exit(7)", path)
    return _find_load(room, ran, report, path, 7)


def _ask_watched_why(room: Room) -> Answer:
    _need_seccomp()
    ran = _run(room, "why", "--backend", "seccomp", "--json", "--no-try", room.place("needs-missing", "needy.so"))
    return _find_cause(room, ran)


def _ask_follow(room: Room) -> Answer:
    _need_system()
    suffix = "dll" if sys.platform == "win32" else "so"
    path, report = room.place("good", f"good.{suffix}"), room.path("follow.dlltrace")
    ran = _run(room, "run", "--follow", "-o", report, "-c", _PARENT, path)
    return _find_load(room, ran, report, path, 0)


def _find_load(room: Room, ran: subprocess.CompletedProcess[str], report: str, path: str, status: int) -> Answer:
    if not os.path.exists(report) or not read_regular(report, 1):
        return False, f"no recording, status {ran.returncode}"
    trace = read_trace_file(report)
    recording = trace.recording
    room.note("mechanism", recording.backend)
    room.note("losses", recording.losses)
    room.note("processes", len(recording.processes))
    for note in (*recording.notes, *trace.problems):
        room.note("note", note)
    loads = [event for event in recording.loads if event.shown_path.lower() == path.lower()]
    right = len(loads) == 1 and ran.returncode == status and trace.run.status == status and not trace.problems
    return right, f"{recording.backend}: {len(loads)} of 1 load, status {ran.returncode}"


def _ask_why(room: Room) -> Answer:
    _need_system()
    suffix = "dll" if sys.platform == "win32" else "so"
    return _find_cause(room, _run(room, "why", "--json", "--no-try", room.place("needs-missing", f"needy.{suffix}")))


def _find_cause(room: Room, ran: subprocess.CompletedProcess[str]) -> Answer:
    """Return whether the verdict names the library that `needs-missing` needs."""
    try:
        findings = _read_json(ran.stdout)["findings"]
    except (ValueError, KeyError):
        return False, f"no JSON, status {ran.returncode}"
    named = [f"{one['code']}: {one['title']}" for one in findings]
    for text in named:
        room.note("finding", text)
    right = ran.returncode == 1 and bool(findings) and findings[0]["code"] == "missing-image"
    return right and f"dt_gone{room.letter}" in named[0], f"status {ran.returncode}, {named[0] if named else 'nothing'}"


def _ask_crash(room: Room) -> Answer:
    _need_system()
    ran = _run(room, "why", "--json", "--no-try", "-c", _CRASH)
    try:
        crash = _read_json(ran.stdout).get("crash")
    except ValueError:
        return False, f"no JSON, status {ran.returncode}"
    if crash is None:
        return False, f"no crash is in the verdict, status {ran.returncode}"
    for name in ("code", "name", "offset", "fault_address"):
        room.note(name, crash.get(name))
    image = os.path.basename(str(crash.get("image")).replace("\\", "/"))
    return crash.get("code") in _FAULTS and bool(crash.get("image")), f"{crash.get('name')} in {image}"
