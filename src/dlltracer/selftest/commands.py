"""Questions about the commands as a whole, each run in a process of its own as a user would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ..binary.reading import read_regular
from ..capture.backend import make_backend
from ..host.recording_files import read_trace_file
from .step import Answer, CannotAsk, Question, Room

_SECONDS = 50
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from dlltracer.__main__ import main; main()"
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
_PARENT = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {_LOAD!r}, sys.argv[1]]).returncode)"
_CRASH = "import faulthandler; faulthandler.disable(); faulthandler._read_null()"
_FAULTS = (11, 0xC0000005)
"""SIGSEGV, and the access violation of Windows."""


def questions() -> tuple[Question, ...]:
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
    """Whether the verdict names the library that `needs-missing` needs."""
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
