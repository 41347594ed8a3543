"""The usual tree leaves out what is obvious, and counts it; failures and what hangs on an image always stay."""

from __future__ import annotations

import pytest

from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, Probe, ProbeOutcome
from dlltracer.model.recording import Recording
from dlltracer.report.render_text import LARGE, is_of_system, render_text

EXT = "/app/ext.so"


def load(path: str, requester: str | None = None, *imports: str, phase: Phase = Phase.CACHE) -> LoadEvent:
    need = path.rpartition("/")[2] if requester is not None else None
    return LoadEvent(path, need=need, requested_by=requester, imports=imports or ("ext",), phase=phase)


def module(name: str, *imports: str) -> LoadEvent:
    return load(f"/app/{name}.so", None, *imports, phase=Phase.DIRECT)


def brief(*events: LoadEvent | LoadFailedEvent, **more: bool) -> list[str]:
    return render_text(Recording("rtld", events), ascii_only=True, is_brief=True, **more).plain.splitlines()


OBVIOUS = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "ld-linux-x86-64.so.2",
           "ld-musl-x86_64.so.1", "libc-2.31.so", "KERNEL32.dll", "api-ms-win-crt-heap-l1-1-0.dll")  # fmt: skip


@pytest.mark.parametrize("name", OBVIOUS)
def test_parts_of_the_c_library_are_counted(name: str) -> None:
    lines = brief(module("ext", "ext"), load(f"/lib/{name}", EXT), load("/lib/libz.so.1", EXT))
    assert not any(name in line for line in lines) and any("libz.so.1" in line for line in lines)
    assert lines[-2:] == ["... 1 part of the C library and the loader", "3 images loaded, 0 failed; traced by rtld"]
    whole = render_text(Recording("rtld", (module("ext", "ext"), load(f"/lib/{name}", EXT)))).plain
    assert name in whole, "-v shows it"


@pytest.mark.parametrize("name", ["libcrypto.so.3", "libmkl.so", "libc++.so.1", "libdlib.so", "libm-mine.so.6"])
def test_others_are_shown(name: str) -> None:
    assert any(name in line for line in brief(module("ext", "ext"), load(f"/lib/{name}", EXT)))


@pytest.mark.parametrize("requester", [None, "/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so"])
def test_what_the_program_loads_by_name_is_shown(requester: str | None) -> None:
    own = LoadEvent("/lib/libresolv.so.2", need="libresolv.so.2", requested_by=requester, phase=Phase.CACHE)
    lines = brief(own)
    assert any("/lib/libresolv.so.2" in line for line in lines) and not any("part of" in line for line in lines)


def test_what_something_hangs_on_and_what_failed_stay() -> None:
    lines = brief(
        module("ext", "ext"), load("/lib/libm.so.6", EXT), load("/lib/libsvml.so", "/lib/libm.so.6"),
        LoadFailedEvent("libc.so.7", need="libc.so.7", requested_by=EXT, imports=("ext",), kind=FailureKind.NOT_FOUND),
    )  # fmt: skip
    text = "\n".join(lines)
    assert "libm.so.6" in text and "libsvml.so" in text and "libc.so.7  NOT FOUND" in text


def test_modules_of_a_large_tree_are_folded() -> None:
    many = [module(f"m{number}", "big", "big.part", f"big.m{number}") for number in range(LARGE + 10)]
    lines = brief(module("ext", "big", "ext"), load("/lib/libz.so.1", EXT, "big", "ext"), *many)
    assert len(lines) == 5 and lines[0] == "import big"
    assert lines[1].startswith("|- ext.so") and lines[2].startswith("|  `- libz.so.1")
    assert lines[3].startswith("`- ... 50 modules that needed no other library: big.m0, big.m1, ")
    few = brief(*many[:5])
    assert sum("m" in line and ".so" in line for line in few) == 5


def test_the_path_of_a_rule_is_not_repeated() -> None:
    found = LoadEvent(
        "/app/lib/x.so", need="x.so", requested_by=EXT, imports=("ext",), phase=Phase.RUNPATH,
        probes=(Probe("/app/lib/x.so", Phase.RUNPATH, EXT, ProbeOutcome.LOADED),),
    )  # fmt: skip
    assert brief(module("ext", "ext"), found)[2].endswith("x.so  found by RUNPATH")


def test_what_a_program_did_without_is_no_failure() -> None:
    probes = tuple(Probe(f"/{folder}/mkl.avx2", Phase.SYSTEM) for folder in ("a", "b"))
    gone = LoadFailedEvent("mkl.avx2", need="mkl.avx2", imports=(), kind=FailureKind.NOT_FOUND, probes=probes)
    lines = brief(gone, ended_well=True)
    assert "0 failed, 1 not found or refused, which the program did without" in lines[-1]
    assert len(lines) == 3 and "mkl.avx2  NOT FOUND" in lines[1]
    assert brief(gone)[-1].startswith("0 images loaded, 1 failed;") and len(brief(gone)) > 3


@pytest.mark.parametrize(
    ("names", "is_so"),
    [
        (("libc.so.6", "libm-2.31.so", "libdl.so", "ld-linux-x86-64.so.2", "ld-2.31.so", "LIBC.so.6"), True),
        (("ld64.so.2", "ld-musl-x86_64.so.1", "libc.musl-x86_64.so.1", "linux-vdso.so.1", "KERNEL32.DLL"), True),
        (("api-ms-win-core-file-l1-1-0.dll", "ext-ms-win-ntuser-window-l1-1-0.dll"), True),
        (("libcrypt.so.1", "libc++.so.1", "libc.so.6x", "libm-2.x.so", "libc", "libssl.so.3", "user32.dll", ""), False),
        (("libmvec2.so.1", "my-libc.so.6", "msvcp140.dll", "apims.dll", "ldap.so", "libc.so.6.1"), False),
    ],
)  # fmt: skip
def test_parts_of_the_system(names: tuple[str, ...], is_so: bool) -> None:
    assert {name: is_of_system(name) for name in names} == dict.fromkeys(names, is_so)
