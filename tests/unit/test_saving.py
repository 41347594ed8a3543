"""What a recording says of files, packages, machines and places, next to what others say of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.failed_case import image, process, segment
from builders.pe_file import build_pe
from dlltracer.api import saving
from dlltracer.api.saving import facts_of_images, packages_of, read_places
from dlltracer.binary.elf import parse_build_id, read_build_id, read_elf
from dlltracer.host import machine
from dlltracer.host.failure import this_process
from dlltracer.host.machine import describe_host, describe_named_host, sha256_of, stamp_of
from dlltracer.host.packages import find_owners
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, Probe, ProbeOutcome
from dlltracer.model.failure import System
from dlltracer.model.recording import Recording
from dlltracer.model.run import HostFacts, RunResult, SavedTrace
from dlltracer.report.counts import describe_origin

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="ELF files of this machine")
LIBC = "/lib/x86_64-linux-gnu/libc.so.6"


def note(kind: int, name: bytes, content: bytes, order: str = "<") -> bytes:
    pad = b"\0" * (-len(name) % 4), b"\0" * (-len(content) % 4)
    return struct.pack(f"{order}III", len(name), len(content), kind) + name + pad[0] + content + pad[1]


NOTES = image(segments=(replace(segment(), type=4, file_size=200),))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (note(3, b"GNU\0", b"\xab\xcd"), "abcd"),
        (note(1, b"GNU\0", b"1234") + note(5, b"X\0", b"123456") + note(3, b"GNU\0", b"\x01"), "01"),
        (note(3, b"XXX\0", b"\xab"), None),
        (note(3, b"GNU\0", b""), None),
        (note(3, b"GNU\0", b"x" * 100), None),
        (struct.pack("<III", 4, 0xFFFFFFFF, 3) + b"GNU\0", None),
        (b"", None),
    ],
)
def test_build_ids(data: bytes, wanted: str | None) -> None:
    assert parse_build_id(data.ljust(200, b"\0"), NOTES) == wanted


def test_a_build_id_of_the_other_byte_order() -> None:
    big = replace(NOTES, little_endian=False)
    assert parse_build_id(note(3, b"GNU\0", b"\xab", ">").ljust(200, b"\0"), big) == "ab"


@given(st.binary(max_size=40), st.integers(0, 3), st.sampled_from([b"GNU\0", b"XXX\0"]), st.binary(max_size=30))
def test_any_notes_give_an_identification_that_they_hold(junk: bytes, kind: int, name: bytes, mark: bytes) -> None:
    assert parse_build_id(junk, NOTES) is None, "shorter than the header of the file says"
    data = (note(kind, name, mark) + junk).ljust(200, b"\0")
    found = parse_build_id(data, NOTES)
    if (kind, name) == (3, b"GNU\0") and mark:
        assert found == mark.hex()
    elif found is not None:
        assert bytes.fromhex(found) in data


@linux_only
@pytest.mark.parametrize("path", [LIBC, os.path.realpath(sys.executable), "/bin/sh"])
def test_build_ids_as_readelf_has_them(path: str) -> None:
    if shutil.which("readelf") is None or not os.path.exists(path):
        pytest.skip("no readelf, or no such file")
    output = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True).stdout
    wanted = output.partition("Build ID: ")[2].split("\n")[0].strip() or None
    assert read_build_id(path, read_elf(path)) == wanted


def test_stamps_and_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dll"
    path.write_bytes(b"content")
    stamp = stamp_of(str(path))
    assert stamp is not None and (stamp.size, stamp.modified) == (7, path.stat().st_mtime)
    assert sha256_of(str(path)) == hashlib.sha256(b"content").hexdigest()
    monkeypatch.setattr(machine, "LARGEST_HASHED", 6)
    assert sha256_of(str(path)) is None, "a larger file is not read whole"
    assert stamp_of(str(tmp_path)) is stamp_of(str(tmp_path / "none")) is stamp_of("/\0") is None


def test_the_files_of_a_trace(tmp_path: Path) -> None:
    dll, text, refused = tmp_path / "a.dll", tmp_path / "b.so", tmp_path / "c.so"
    dll.write_bytes(build_pe({"kernel32.dll": ["f"], "other.dll": ["g"]}, ["h"]))
    text.write_text("no image")
    refused.write_bytes(b"\x7fELF and no more")
    probe = Probe(str(refused), Phase.RPATH, outcome=ProbeOutcome.PRESENT)
    recording = Recording(
        "rtld",
        (
            LoadEvent(str(dll)),
            LoadEvent("\\Device\\x", display_path=str(text)),
            LoadEvent(str(dll)),
            LoadFailedEvent("libc.so", kind=FailureKind.NOT_FOUND, probes=(probe,)),
            LoadEvent(str(tmp_path / "gone.so")),
        ),
    )
    found = {Path(facts.path).name: facts for facts in facts_of_images(recording, None)}
    assert list(found) == ["a.dll", "b.so", "c.so"]
    assert found["a.dll"].machine == "x86-64" and found["a.dll"].needs == ("kernel32.dll", "other.dll")
    assert found["a.dll"].digest == f"sha256:{hashlib.sha256(dll.read_bytes()).hexdigest()}"
    assert found["b.so"].needs is found["b.so"].machine is None and found["b.so"].size == 8
    assert found["c.so"].machine is None


@linux_only
def test_packages_as_each_manager_says() -> None:
    paths = [LIBC, os.path.realpath(LIBC), "/bin/sh", "/usr/bin/env", "/etc/hostname"]
    paths = [path for path in paths if os.path.exists(path)]
    if shutil.which("dpkg-query") is None:
        pytest.skip("no dpkg here")
    found = packages_of(paths, None)
    for path in paths:
        owners = find_owners([path]).owners.get(path)
        assert found.get(path) == (f"{owners[0].package.partition(':')[0]} {owners[0].version}" if owners else None)
    assert "libc6 2" in found[LIBC] and "/etc/hostname" not in found


def test_packages_of_python_and_conda(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "site-packages"
    info = site / "Some_Pkg-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-pkg\nVersion: 1.2\n")
    (info / "RECORD").write_text("pkg/mod.so,,\npkg/x.so,,\nbroken\n")
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta" / "zlib.json").write_text('{"name": "zlib", "version": "1.3", "files": ["lib/libz.so"]}')
    (tmp_path / "conda-meta" / "bad.json").write_text("[")
    paths = [site / "pkg" / "mod.so", site / "other" / "mod.so", tmp_path / "lib" / "libz.so"]
    found = packages_of([str(path) for path in paths], None)
    assert found == {str(paths[0]): "some-pkg 1.2", str(paths[2]): "zlib 1.3"}


@linux_only
def test_where_this_loader_looks() -> None:
    facts = replace(this_process(), start_environment=(("LD_LIBRARY_PATH", "/a:/b"), ("LD_PRELOAD", "/p.so")))
    recording = Recording("rtld", (LoadEvent(LIBC, need="libc.so.6"),))
    places = read_places(facts, recording, ())
    assert places is not None
    assert places.folders[:2] == (("environment", "/a"), ("environment", "/b"))
    assert any(rule == "system" for rule, _ in places.folders) and places.preload == ("/p.so",)
    if places.cache_size:
        assert {name for name, _ in places.cache} <= {"libc.so.6"}, "of the whole cache, what matters"


def test_places_of_another_system_are_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "this_system", lambda: System.OTHER)
    assert read_places(process(), Recording("rtld"), ()) is None


def test_this_machine() -> None:
    host = describe_host()
    assert host.name is None and host.machine and host.description
    assert describe_named_host().name


def test_origins() -> None:
    trace = SavedTrace(
        Recording("rtld"),
        "import x",
        "0.1.0",
        0.0,
        HostFacts("linux", "Debian", "x86_64", "glibc 2.36", "box"),
        run=RunResult(status=-9),
    )
    assert describe_origin(trace) == (
        "recorded: import x, on box, Debian, x86_64, glibc 2.36, at 1970-01-01 00:00:00 UTC, by dlltracer 0.1.0",
        "it was killed by SIGKILL",
    )
    assert describe_origin(SavedTrace(Recording("rtld"))) == ()
    assert "at 1e+300 s since 1970, by" in describe_origin(replace(trace, started=1e300))[0]
