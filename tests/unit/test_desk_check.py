"""Findings of the desk check against real Windows that need no Windows; the others are in tests/windows."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from builders.image_event import FREQUENCY, PID, payload, record
from dlltracer.capture.requests import Watch
from dlltracer.capture.windows.debugger.process_log import EventOrigin, ImageHeader, ProcessLog
from dlltracer.capture.windows.etw.bindings import Etw
from dlltracer.capture.windows.etw.session import RunningSession, make_properties
from dlltracer.capture.windows.image_events import RecordContext, decode_records
from dlltracer.capture.windows.image_records import Opcode, RawRecord
from dlltracer.errors import TraceStartError
from dlltracer.model.request import Request, RequestKind

VOLUME = r"\Device\HarddiskVolume3"
MACHINE = RecordContext(PID, {VOLUME: "C:"}, r"C:\Windows", FREQUENCY, wall=1000.0, clock=0)
PYD, DLL = rf"{VOLUME}\Py\_ssl.pyd", rf"{VOLUME}\Py\libssl.dll"
TARGET = r"C:\Py\_ssl.pyd"


def image(opcode: Opcode, path: str, base: int, at: int, tid: int = 1) -> RawRecord:
    """A record at so many microseconds."""
    return record(opcode, payload(path, base=base), ticks=at * 10, tid=tid)


def asked(target: str = TARGET, at: int = 5, idle: int | None = 20, succeeded: bool | None = None) -> Request:
    idle_clock = None if idle is None else idle * 1000
    return Request(
        RequestKind.EXTENSION, target, ("ssl", "_ssl"), 1, 1000.0, at * 1000, succeeded=succeeded, idle_clock=idle_clock
    )


def kinds(records: list[RawRecord], *requests: Request, machine: RecordContext = MACHINE) -> list[str]:
    return [str(event).split()[0] for event in decode_records(records, requests, machine).events]


def failing(kernel: str) -> list[RawRecord]:
    """A module and its dependency, mapped and dropped."""
    return [
        image(Opcode.LOAD, kernel, 1, 10), image(Opcode.LOAD, DLL, 3, 11),
        image(Opcode.UNLOAD, DLL, 3, 12), image(Opcode.UNLOAD, kernel, 1, 13),
    ]  # fmt: skip


def test_finding_1_only_a_start_leaves_out_the_name_of_a_log_file() -> None:
    assert make_properties(bytes(16), 0x100, 4).Properties.LogFileNameOffset == 0
    assert make_properties(None, 0, 0).Properties.LogFileNameOffset > 0, "ControlTrace writes a name there"


class RefusingEtw:
    """ETW whose sessions start and cannot be read."""

    callback_type = staticmethod(ctypes.CFUNCTYPE(None, ctypes.c_void_p))

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*_: object) -> int:
            self.calls.append(name)
            return self.handle if name == "OpenTraceW" else 0

        return call


@pytest.mark.parametrize("bits", [32, 64])
def test_a_trace_that_cannot_be_opened_is_refused_in_both_widths(bits: int) -> None:
    """The failure of OpenTraceW is (UINT64)UINTPTR_MAX: 0xFFFFFFFF in a process of 32 bits ("OpenTraceW", MS Learn)."""
    etw = RefusingEtw((1 << bits) - 1)
    with pytest.raises(TraceStartError, match="OpenTrace"):
        RunningSession(cast("Etw", etw), "name", bytes(16), 0, 4, lambda _: None)
    assert etw.calls == ["StartTraceW", "OpenTraceW", "ControlTraceW"], "its session is stopped"


@pytest.mark.parametrize(
    ("target", "kernel"),
    [
        pytest.param(TARGET, rf"{VOLUME}\uv\cache\_ssl.pyd", id="junction"),
        pytest.param(r"S:\_ssl.pyd", PYD, id="SUBST"),
        pytest.param(r"\\server\share\_ssl.pyd", r"\Device\Mup\server\share\_ssl.pyd", id="UNC"),
        pytest.param(r"Z:\_ssl.pyd", r"\Device\Mup\;LanmanRedirector\;Z:1\server\share\_ssl.pyd", id="mapped drive"),
        pytest.param(r"C:\mounted\_ssl.pyd", r"\Device\HarddiskVolume9\_ssl.pyd", id="mount point"),
        pytest.param(r"C:\PROGRA~1\_ssl.pyd", rf"{VOLUME}\Program Files\_ssl.pyd", id="8.3 folder"),
        pytest.param(r"C:\Py\_SSLMO~1.PYD", rf"{VOLUME}\Py\_sslmodule.cp311-win_amd64.pyd", id="8.3 file"),
        pytest.param(TARGET, rf"{VOLUME}\pkgs\openssl\_ssl.pyd", id="hard link"),
        pytest.param(TARGET, rf"{VOLUME}\pkgs\0f3a91", id="hard link of another name"),
        pytest.param(TARGET, rf"{VOLUME}\Py\_ssl.pyd.part", id="renamed"),
        pytest.param(r"C:\link\_ssl.pyd", PYD, id="directory link"),
        pytest.param(TARGET, rf"{VOLUME}\PY\_SSL.PYD", id="case"),
    ],
)
def test_finding_2_the_kernel_spells_the_path_otherwise(target: str, kernel: str) -> None:
    assert kinds(failing(kernel), asked(target)) == ["LoadLibrary", "LoadLibrary", "Failed", "Failed"]


@pytest.mark.parametrize(("succeeded", "wanted"), [(False, "Failed"), (True, "UnloadLibrary"), (None, "UnloadLibrary")])
def test_finding_2_a_hard_link_that_ctypes_asked_for(succeeded: bool | None, wanted: str) -> None:
    """Without its name in the kernel's path only a call that is known to have failed makes it a failure."""
    kernel = rf"{VOLUME}\pkgs\0f3a91"
    request = replace(asked(r"C:\Py\libssl.dll", succeeded=succeeded), kind=RequestKind.CTYPES)
    records = [image(Opcode.LOAD, kernel, 1, 10), image(Opcode.UNLOAD, kernel, 1, 13)]
    assert kinds(records, request) == ["LoadLibrary", wanted]
    other = rf"{VOLUME}\Py\other.dll"
    needed = [image(Opcode.LOAD, other, 5, 14), image(Opcode.UNLOAD, other, 5, 15)]
    same = [image(Opcode.LOAD, DLL, 3, 11), *needed]
    assert kinds(same, request)[2] == "UnloadLibrary", "the image of that name stays"


def test_finding_2_the_whole_path_decides_between_several() -> None:
    other = rf"{VOLUME}\other\_ssl.pyd"
    records = [
        image(Opcode.LOAD, other, 2, 10), image(Opcode.LOAD, PYD, 1, 11), image(Opcode.UNLOAD, other, 2, 12),
    ]  # fmt: skip
    assert kinds(records, asked())[2] == "UnloadLibrary"


def test_finding_2_what_a_loaded_module_maps_and_drops_is_not_the_module() -> None:
    """Without a load of its name the first load counts, but not where that name was there all the time."""
    there = image(Opcode.RUNDOWN_START, PYD, 1, 0)
    records = [image(Opcode.LOAD, DLL, 3, 11), image(Opcode.UNLOAD, DLL, 3, 12)]
    assert kinds([there, *records], asked()) == ["LoadLibrary", "UnloadLibrary"]


def test_finding_2_a_guess_needs_the_end_of_the_call() -> None:
    kernel = rf"{VOLUME}\pkgs\0f3a91"
    records = [image(Opcode.LOAD, kernel, 1, 10), image(Opcode.UNLOAD, kernel, 1, 30)]
    assert kinds(records, asked(idle=20)) == ["LoadLibrary", "UnloadLibrary"], "gone after the call"
    assert kinds(records, asked(idle=None)) == ["LoadLibrary", "UnloadLibrary"], "nobody knows when the call was over"


def test_finding_4_two_queues_of_one_thread_out_of_order() -> None:
    ordered = failing(PYD)
    for late in ([ordered[1], ordered[3], ordered[0], ordered[2]], ordered[::-1]):
        assert kinds(late, asked()) == ["LoadLibrary", "LoadLibrary", "Failed", "Failed"]


class Newer(ctypes.CDLL):
    """As in CPython 3.15, whose `CDLL.__init__` leaves the opening to another method."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle = self._load_library(name, 0)

    def _load_library(self, name: str, mode: int) -> int:
        opened: int = ctypes._dlopen(name, mode)  # type: ignore[attr-defined]
        return opened


@pytest.mark.parametrize("kind", [ctypes.CDLL, Newer])
def test_finding_7_the_frame_of_ctypes_is_found_in_both_shapes(kind: type[ctypes.CDLL]) -> None:
    watch = Watch()
    watch.start()
    libraries = []
    for name in ("libc.so.6" if sys.platform == "linux" else "kernel32.dll", "no such library"):
        with contextlib.suppress(OSError):
            libraries.append(kind(name))
    requests = [one for one in watch.stop() if one.kind is RequestKind.CTYPES]
    assert [one.succeeded for one in requests] == [True, False]


def test_finding_8_what_the_start_itself_maps_is_no_event() -> None:
    marker = rf"{VOLUME}\Windows\System32\lz32.dll"
    records = [image(Opcode.LOAD, marker, 5, 1), image(Opcode.UNLOAD, marker, 5, 2), image(Opcode.LOAD, PYD, 1, 10)]
    assert kinds(records, machine=replace(MACHINE, since=5000)) == ["LoadLibrary"]


def test_finding_11_the_same_module_by_another_path_has_not_failed() -> None:
    again = rf"{VOLUME}\link\_ssl.pyd"
    mapped = [image(Opcode.LOAD, again, 2, 30), image(Opcode.UNLOAD, again, 2, 31)]
    request = asked(r"C:\link\_ssl.pyd", at=25, idle=40)
    by_trace = [image(Opcode.LOAD, PYD, 1, 10), *mapped]
    assert kinds(by_trace, asked(), request)[1:] == ["LoadLibrary", "UnloadLibrary"], "loaded in this trace"
    by_rundown = [image(Opcode.RUNDOWN_START, PYD, 1, 0), *mapped]
    assert kinds(by_rundown, request) == ["LoadLibrary", "UnloadLibrary"], "loaded before it"
    assert kinds(mapped, replace(request, succeeded=True)) == ["LoadLibrary", "UnloadLibrary"], "the import succeeded"
    assert kinds(mapped, request) == ["LoadLibrary", "Failed"]


def test_finding_11_an_import_that_succeeded_is_known(tmp_path: Path) -> None:
    """Of two requests for one file only the later one is known to have succeeded: the first may have failed."""
    watch = Watch()
    watch.start()
    files = {"_good": str(tmp_path / "_good.so"), "_bad": str(tmp_path / "_bad.so")}
    spec = type(sys.__spec__)("_good", None, origin=files["_good"])
    made = type(sys)("_good")
    made.__spec__ = spec
    sys.modules["_good"] = made
    try:
        for name in ("_good", "_good", "_bad"):
            watch.note_request(("import", files[name], (name,), 1, 0.0, 1, (), None))
        assert [one.succeeded for one in watch.stop()] == [None, True, None]
    finally:
        del sys.modules["_good"]


def test_finding_5_the_runner_of_windows_does_not_skip_the_lab() -> None:
    """The workflow runs every backend, attach and debugger natively, and keeps the report of the self-test.

    That the lab is Windows itself there is tried under Wine (tests/windows/test_desk_check.py).
    """
    root = Path(__file__).parents[2]
    workflow = (root / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "DLLTRACER_TEST_BACKEND: ${{ matrix.backend }}" in workflow
    for wanted in ("backend: debugger", "DLLTRACER_LAB: native", "test_attach_under_wine.py", "upload-artifact"):
        assert wanted in workflow, wanted
    assert "dlltracer selftest" in workflow
    tests = {word for word in workflow.split() if word.startswith("tests/")}
    assert len(tests) > 4 and [word for word in tests if not (root / word).exists()] == []


def test_finding_11_the_debugger_knows_what_was_there_before() -> None:
    log, size = ProcessLog({}), ImageHeader(0x2000)
    log.note_loaded_before(PID, 0x10000, r"\??\C:\Py\_ssl.pyd", size)
    log.note_load(EventOrigin(PID, 1, 10_000), 0x90000, r"\??\C:\link\_ssl.pyd", size)
    log.note_unload(EventOrigin(PID, 1, 11_000), 0x90000)
    events = log.events([asked(r"C:\link\_ssl.pyd", at=5, idle=20)], PID, 1000.0, 0)
    assert [str(event).split()[0] for event in events] == ["LoadLibrary", "UnloadLibrary"]
