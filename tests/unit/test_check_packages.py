"""`dlltracer check` of conda packages and single files, on packages made by hand."""

from __future__ import annotations

import bz2
import importlib.util
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from builders.conda_file import build_conda
from builders.elf_file import ElfFile, Symbol, need
from builders.macho_file import ARM64, DYLIB, X86_64, build_fat, build_macho
from builders.pe_file import build_pe
from dlltracer.check.targets import CheckTarget, check_target, classify_target
from dlltracer.model.check import CheckReport, Severity

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
SITE = "lib/python3.12/site-packages"
SO = f"{SITE}/pkg/mod.cpython-312-x86_64-linux-gnu.so"
PYTHON = ["python >=3.12,<3.13.0a0", "python_abi 3.12.* *_cp312"]
DECODERS = ("compression.zstd", "backports.zstd", "zstandard", "pyarrow")


def can_decode() -> bool:
    for name in DECODERS:
        package = name.partition(".")[0]
        if importlib.util.find_spec(package) is not None and importlib.util.find_spec(name) is not None:
            return True
    return False


FORMS = ["tar.bz2", pytest.param("conda", marks=pytest.mark.skipif(not can_decode(), reason="no decoder of Zstandard"))]


def check(path: Path) -> CheckReport:
    return check_target(CheckTarget(path=str(path), kind=classify_target(str(path))))


def module(*names: str, **more: object) -> bytes:
    symbols = (Symbol("PyInit_mod"), *map(need, names))
    return ElfFile(loadable=True, symbols=symbols, **more).build()  # type: ignore[arg-type]


def library(name: str, *symbols: Symbol, **more: object) -> bytes:
    return ElfFile(loadable=True, soname=name, symbols=symbols, **more).build()  # type: ignore[arg-type]


def output(report: CheckReport) -> list[tuple[str, Severity]]:
    assert report.unreadable == ""
    return [(problem.code, problem.severity) for problem in report.problems]


@pytest.mark.parametrize("form", FORMS)
def test_a_sound_package(tmp_path: Path, form: str) -> None:
    files = {
        SO: module("f", "PyArg_ParseTuple", needed=("liba.so.1", "libc.so.6"), rpath="$ORIGIN/../../../"),
        "lib/liba.so.1.2": library("liba.so.1", Symbol("f")), "bin/tool": b"#!/bin/sh\n",
    }  # fmt: skip
    path = build_conda(tmp_path, files, links={"lib/liba.so.1": "liba.so.1.2"}, depends=PYTHON, form=form)
    report = check(path)
    assert report.unreadable == "" and report.problems == ()
    assert (report.files, report.platforms) == (2, ("linux-64",))


@pytest.mark.parametrize("form", FORMS)
def test_broken_packages(tmp_path: Path, form: str) -> None:
    files = {SO: module("_PyDict_GetItemId"), "lib/liba.so": library("liba.so", machine=183), "lib/x.py": b"x"}
    report = check(build_conda(tmp_path, files, depends=PYTHON, form=form, sums={"lib/x.py": "0" * 64}))
    assert set(output(report)) == {("other-python", ERROR), ("wrong-machine", NOTE), ("record-mismatch", ERROR)}


def test_what_other_packages_bring_is_a_note(tmp_path: Path) -> None:
    files = {SO: module(needed=("libhdf5.so.310",), rpath="$ORIGIN/../../../")}
    (problem,) = check(build_conda(tmp_path, files, depends=[*PYTHON, "hdf5 >=1.14"])).problems
    assert (problem.code, problem.severity) == ("missing-image", NOTE)
    assert "a package that it depends on" in problem.title


def test_the_lowest_glibc(tmp_path: Path) -> None:
    content = module(needed=("libc.so.6",), version_needs=(("libc.so.6", "GLIBC_2.28", False),))
    assert output(check(build_conda(tmp_path, {SO: content}))) == [("glibc-above-tag", ERROR)]
    assert output(check(build_conda(tmp_path, {SO: content}, depends=["__glibc >=2.28,<3.0.a0"]))) == []


def test_other_systems(tmp_path: Path) -> None:
    for subdir, place, content in (
        ("win-64", "Lib/site-packages/pkg/mod.pyd", build_pe({"a.dll": ["f"], "python312.dll": ["PyArg_Parse"]}, [])),
        ("osx-arm64", f"{SITE}/mod.so", build_macho(["@rpath/libx.dylib"], [], {"_PyInit_mod": None}, signature=16)),
    ):  # fmt: skip
        folder = tmp_path / subdir
        folder.mkdir()
        report = check(build_conda(folder, {place: content}, subdir=subdir, depends=PYTHON))
        assert output(report) == [("missing-image", NOTE)], subdir
    report = check(build_conda(tmp_path, {"site-packages/a.so": module()}, subdir="noarch"))
    assert report.problems == () and "noarch" in report.notes[0]


def test_a_dll_of_library_bin_is_found(tmp_path: Path) -> None:
    files = {
        "Lib/site-packages/mod.cp312-win_amd64.pyd": build_pe({"a.dll": ["f"]}, []),
        "Library/bin/a.dll": build_pe({}, ["f"]),
    }
    assert check(build_conda(tmp_path, files, subdir="win-64", depends=PYTHON)).problems == ()


def entry(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found, b""


def test_hostile_members(tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside"
    members = [
        entry("../../outside", tarfile.REGTYPE), entry("/etc/outside", tarfile.REGTYPE),
        entry("lib/up", tarfile.SYMTYPE, "../../outside"), entry("lib/root", tarfile.SYMTYPE, "/etc"),
        entry("lib/hard", tarfile.LNKTYPE, "../../etc/passwd"), entry("lib/fifo", tarfile.FIFOTYPE),
        entry("lib/a", tarfile.REGTYPE), entry("lib/a", tarfile.REGTYPE), entry("lib/loop", tarfile.SYMTYPE, "loop"),
        entry(f"lib/{'x' * 300}", tarfile.SYMTYPE, "a"),
    ]  # fmt: skip
    report = check(build_conda(tmp_path, {"lib/b.so": module()}, members=members))
    found = {(problem.code, problem.file) for problem in report.problems if problem.code != "record-mismatch"}
    assert found == {
        ("unsafe-entry", "../../outside"), ("unsafe-entry", "/etc/outside"), ("unsafe-entry", "lib/up"),
        ("unsafe-entry", "lib/root"), ("unsafe-entry", "lib/hard"), ("unsafe-entry", "lib/fifo"),
        ("duplicate-entry", "lib/a"), ("unsafe-entry", f"lib/{'x' * 300}"),
    }  # fmt: skip
    assert not outside.exists()


def test_a_file_written_through_a_link_stays_inside(tmp_path: Path) -> None:
    evil, _ = entry("lib/sub/evil.so", tarfile.REGTYPE)
    content = module()
    evil.size = len(content)
    members = [entry("lib/sub", tarfile.SYMTYPE, "../other"), (evil, content)]
    assert check(build_conda(tmp_path, {}, members=members)).unreadable == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pkg-1.0-0.tar.bz2"]


@pytest.mark.parametrize("form", FORMS)
def test_damaged_packages(tmp_path: Path, form: str) -> None:
    path = build_conda(tmp_path, {SO: module()}, form=form)
    whole = path.read_bytes()
    for at in range(0, len(whole) - 1, max(1, len(whole) // 20)):
        path.write_bytes(whole[:at])
        assert check(path).unreadable, at
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 0xFF,)) + whole[at + 1 :])
        assert "\n" not in check(path).unreadable


def test_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "pkg-1.0-0.tar.bz2"
    head = tarfile.TarInfo("lib/zeros")
    head.size = 1 << 28
    chunk = bz2.compress(bytes(1 << 24))
    path.write_bytes(bz2.compress(head.tobuf()) + chunk * 16)
    assert "bomb" in check(path).unreadable


def test_without_a_decoder_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DECODERS:
        monkeypatch.setitem(sys.modules, name, None)
    report = check(build_conda(tmp_path, {SO: module()}, form="conda"))
    assert re.search("Zstandard cannot be read here.*zstandard", report.unreadable)


def test_single_files(tmp_path: Path) -> None:
    def report(name: str, content: bytes) -> CheckReport:
        path = tmp_path / name
        path.write_bytes(content)
        return check(path)

    assert ("missing-image", ERROR) in output(report("mod.abi3.so", module(needed=("libgone.so.9",))))
    # A library that somebody asks about is no note about a file that perhaps nobody loads.
    library = ElfFile(soname="libmid.so", needed=("libgone.so.9",)).build()
    assert output(report("libmid.so", library)) == [("missing-image", ERROR)]
    asked = report("libpath.so", ElfFile(soname="libpath.so", needed=("/home/builder/libx.so",)).build())
    (by_path,) = asked.problems
    assert "by that very path" in by_path.title and "--replace-needed /home/builder/libx.so libx.so" in by_path.fix
    assert output(report("tool.dll", build_pe({"gone.dll": ["f"]}, []))) == [("missing-image", WARNING)]
    (tmp_path / "beside.dll").write_bytes(build_pe({}, ["f"]))
    assert output(report("m.pyd", build_pe({"beside.dll": ["f"], "python313.dll": ["PyArg_Parse"]}, []))) == []
    mac = [build_macho(["@loader_path/gone.dylib"], cpu=cpu, kind=DYLIB, signature=16) for cpu in (X86_64, ARM64)]
    both = report("lib.dylib", build_fat(mac))
    assert both.platforms == ("macOS x86_64", "macOS arm64")
    assert output(both) == [("missing-image", WARNING)] * 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("pkg-1.0.tar.gz", b"\x1f\x8b", "it is a source distribution.*pip wheel"),
        ("pkg-1.0.zip", b"PK\x03\x04", "it is a source distribution"),
        ("pkg.egg", b"PK\x03\x04", "egg"),
        ("empty.so", b"", "empty"),
        ("text.so", b"/* GNU ld script */", "no native file"),
        ("lib.a", b"!<arch>\n", "object files"),
        ("layer.gz", b"\x1f\x8b\x08", "it is an archive"),
        ("cut.so", b"\x7fELF\x02", "cut short"),
        ("cut.dll", b"MZ", "cut short"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    report = check(path)
    reported = report.unreadable or report.problems[0].title
    assert re.search(words, reported) and "\n" not in reported


def test_a_zip_archive_is_a_source_distribution_by_what_it_holds(tmp_path: Path) -> None:
    for name, words in (("pkg-1.0/PKG-INFO", "a source distribution"), ("pkg.whl", "an archive: unpack it")):
        with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
            archive.writestr(name, b"")
        assert words in check(tmp_path / "some.zip").unreadable
