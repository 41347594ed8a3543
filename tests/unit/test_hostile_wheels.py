"""Wheels made to harm or to mislead: told in a sentence, in bounded time and memory, nothing written elsewhere."""

from __future__ import annotations

import io
import resource
import stat
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builders.elf_file import ElfFile, Symbol
from builders.wheel_file import build_wheel
from dlltracer.check.packages import check_wheel
from dlltracer.model.check import CheckReport, Severity

PURE = "py3-none-any"
SO = "pkg/mod.cpython-312-x86_64-linux-gnu.so"
MODULE = ElfFile(loadable=True, symbols=(Symbol("PyInit_mod"),)).build()
MOST_SECONDS, MOST_BYTES = 5, 500 << 20
Add = Callable[[zipfile.ZipFile], None]


@pytest.fixture
def wheel(tmp_path: Path) -> Callable[[Add], Path]:
    def build(add: Add) -> Path:
        path = build_wheel(tmp_path, {SO: MODULE}, tag="cp312-cp312-manylinux_2_17_x86_64")
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are there twice
            add(archive)
        return path

    return build


def codes(report: CheckReport) -> set[tuple[str, str]]:
    assert report.unreadable == ""
    return {(problem.code, problem.file) for problem in report.problems if problem.code != "record-mismatch"}


def bounded(path: Path) -> str:
    """Check in a process of its own, within the bounds, and return what it says."""
    child = (
        "import sys\n"
        "from dlltracer.check.packages import check_wheel\n"
        "report = check_wheel(sys.argv[1])\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "print(report.unreadable or [p.code for p in report.problems])\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", child, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    memory, text = ran.stdout.split("\n", 1)
    # Not ru_maxrss: a program that a fork started has its parent's there too (proc(5); kernel, setmax_mm_hiwater_rss).
    assert int(memory) * 1024 < MOST_BYTES
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MOST_SECONDS
    return text


def test_a_bomb_in_one_file(wheel: Callable[[Add], Path]) -> None:
    path = wheel(lambda archive: archive.writestr("pkg/zeros.bin", bytes(66 << 20)))
    assert "pkg/zeros.bin is a zip bomb" in bounded(path)


def test_a_bomb_in_many_files(wheel: Callable[[Add], Path]) -> None:
    content = bytes(32 << 20)

    def add(archive: zipfile.ZipFile) -> None:
        for number in range(5):
            archive.writestr(f"pkg/{number}.bin", content, compresslevel=1)

    path = wheel(add)
    assert "it is a zip bomb" in bounded(path)


def test_a_bomb_of_entries_that_share_their_bytes(wheel: Callable[[Add], Path]) -> None:
    path = wheel(lambda archive: archive.writestr("pkg/a.bin", bytes(range(256)) * 4096))
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", data, end + 10)
    directory = bytes(data[start : start + size])
    at = directory.rindex(b"PK\x01\x02")
    entry = directory[at:]
    length = struct.unpack_from("<H", entry, 28)[0]
    names = [f"pk{number:04}".encode().ljust(length, b"x")[:length] for number in range(2000)]
    whole = directory + b"".join(entry[:46] + name + entry[46 + length :] for name in names)
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count + 2000, count + 2000, len(whole), start, 0)
    path.write_bytes(bytes(data[:start]) + whole + tail)
    assert "overlap" in bounded(path)


def test_a_size_that_is_not_true(wheel: Callable[[Add], Path]) -> None:
    path = wheel(lambda archive: archive.writestr("pkg/a.bin", bytes(1 << 20)))
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.rindex(mark) + place, 10)
    path.write_bytes(data)
    assert check_wheel(str(path)).unreadable


def test_many_entries(wheel: Callable[[Add], Path]) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        for number in range(6_000):
            archive.writestr(f"p/{number}", b"")

    assert "record-mismatch" in bounded(wheel(add))


def test_many_native_files(wheel: Callable[[Add], Path]) -> None:
    small = ElfFile(loadable=True, symbols=(), needed=("liba.so", "libb.so")).build()

    def add(archive: zipfile.ZipFile) -> None:
        for number in range(500):
            archive.writestr(f"p/lib{number}.so", small)

    assert "missing-image" in bounded(wheel(add))


@pytest.mark.parametrize(
    "name", ["../../out.so", "/out.so", "a/../../out.so", "..\\out.so", "C:\\out.so", "C:out.so", "\\\\host\\out.so"]
)
def test_paths_that_lead_out(wheel: Callable[[Add], Path], name: str) -> None:
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name
    report = check_wheel(str(wheel(lambda archive: archive.writestr(entry, MODULE))))
    assert {code for code, _ in codes(report)} == {"unsafe-entry"}
    assert report.files == 1, "it was not unpacked"


def test_two_files_for_one_place(wheel: Callable[[Add], Path]) -> None:
    def twice(archive: zipfile.ZipFile) -> None:
        archive.writestr("pkg-1.0.data/platlib/" + SO, MODULE)
        archive.writestr("pkg/a.so", MODULE)
        archive.writestr("pkg/a.so/b.so", MODULE)
        archive.writestr("pkg/a.so", MODULE)

    found = {(problem.code, problem.file, problem.title) for problem in check_wheel(str(wheel(twice))).problems}
    assert found >= {
        ("duplicate-entry", "pkg-1.0.data/platlib/" + SO, f"it is installed to the place of {SO}"),
        ("duplicate-entry", "pkg/a.so", "the archive has two files of that name"),
        ("duplicate-entry", "pkg/a.so", "the archive has a file and a folder of one name there"),
    }


def test_names_that_no_file_system_takes(wheel: Callable[[Add], Path]) -> None:
    long, deep = "x" * 300 + ".so", "/".join(["d" * 200] * 40) + "/a.so"

    def add(archive: zipfile.ZipFile) -> None:
        archive.writestr(long, MODULE)
        archive.writestr(deep, MODULE)

    assert codes(check_wheel(str(wheel(add)))) == {("unsafe-entry", long), ("unsafe-entry", deep)}


def test_links(wheel: Callable[[Add], Path]) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        for name, target in (("pkg/liba.so", "/etc/passwd"), ("pkg/loop", "loop"), ("pkg/out", "../../..")):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, target)

    report = check_wheel(str(wheel(add)))
    assert codes(report) == {("link-entry", "pkg/liba.so"), ("link-entry", "pkg/loop"), ("link-entry", "pkg/out")}
    assert {p.severity for p in report.problems if p.code == "link-entry"} == {Severity.WARNING}


def test_a_wheel_in_a_wheel_is_data(wheel: Callable[[Add], Path], tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    inner = build_wheel(folder, {SO: MODULE[:100]}, tag="cp312-cp312-manylinux_2_17_x86_64").read_bytes()
    report = check_wheel(str(wheel(lambda archive: archive.writestr("pkg/inner-1.0-py3-none-any.whl", inner))))
    assert codes(report) == set() and report.files == 1


def changed(path: Path, name: str, content: bytes | None) -> Path:
    """Write the wheel again with another content of one file, or without it."""
    with zipfile.ZipFile(path) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    files[name] = content or b""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, data in files.items():
            if one != name or content is not None:
                archive.writestr(one, data)
    return path


INFO = "pkg-1.0.dist-info"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        (f"{INFO}/WHEEL", None, "metadata-mismatch"),
        (f"{INFO}/METADATA", None, "metadata-mismatch"),
        (f"{INFO}/METADATA", b"Name: pkg\nVersion: 2.0\n", "metadata-mismatch"),
        ("other-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\n", "metadata-mismatch"),
        (f"{INFO}/RECORD", None, "record-mismatch"),
        (f"{INFO}/RECORD", b"\xff\xfe,,,\n\"", "record-mismatch"),
    ],
)  # fmt: skip
def test_metadata_that_installers_refuse(tmp_path: Path, name: str, content: bytes | None, code: str) -> None:
    path = changed(build_wheel(tmp_path, {"pkg/a.py": b""}, tag=PURE), name, content)
    assert code in {problem.code for problem in check_wheel(str(path)).problems}


def test_a_wheel_renamed_by_hand(tmp_path: Path) -> None:
    path = build_wheel(tmp_path, {"pkg/a.py": b""}, tag=PURE)
    (problem,) = check_wheel(str(path.rename(tmp_path / f"other-1.0-{PURE}.whl"))).problems
    assert (problem.code, problem.file) == ("metadata-mismatch", INFO)


def test_a_version_in_another_spelling_is_the_same(tmp_path: Path) -> None:
    metadata = b"Name: pkg\r\nVersion: 1.0.0\r\n\r\nText\r\n"
    path = changed(build_wheel(tmp_path, {}, tag=PURE), f"{INFO}/METADATA", metadata)
    assert {problem.code for problem in check_wheel(str(path)).problems} == {"record-mismatch"}


def test_a_record_that_is_no_table(tmp_path: Path) -> None:
    path = changed(build_wheel(tmp_path, {}, tag=PURE), f"{INFO}/RECORD", b'"' + b"x" * 200_000)
    assert "its RECORD is no table" in check_wheel(str(path)).unreadable


def test_other_hashes_and_separators_in_a_record(tmp_path: Path) -> None:
    record = {
        "pkg/a.py": "sha512=aOKjoTxmvjQx2SZVDe9fXVM2oRtZ3UVqpN6fkm2SVXfiXyEmbKnmfrBEVLsF1fHuHnTAgr8J0N2T-o0fDRZj8w,6",
        "pkg/b.py": "md5=AAAA,6",
    }
    path = build_wheel(tmp_path, {"pkg/a.py": b"a = 1\n", "pkg/b.py": b"b = 1\n"}, tag=PURE, record=record)
    (problem,) = check_wheel(str(path)).problems
    assert (problem.code, problem.file) == ("record-mismatch", "pkg/a.py")
    with zipfile.ZipFile(path) as archive:
        text = archive.read(f"{INFO}/RECORD").decode().replace(f"{INFO}/WHEEL", f"{INFO}\\WHEEL")
    lines = [line for line in text.splitlines() if not line.startswith("pkg/a.py")]
    path = changed(path, f"{INFO}/RECORD", "\n".join(lines).encode())
    assert [problem.file for problem in check_wheel(str(path)).problems] == [f"{INFO}/RECORD", "pkg/a.py"]


def damaged() -> Iterator[bytes]:
    """Yield archives cut short or changed at each of many places."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(SO, MODULE)
        archive.writestr(f"{INFO}/RECORD", f"{SO},,\n{INFO}/RECORD,,\n")
    whole = target.getvalue()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        yield whole[:at]
        for value in (0, 0xFF):
            yield whole[:at] + bytes((value,)) + whole[at + 1 :]


def test_damage_anywhere_ends_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "pkg-1.0-cp312-cp312-manylinux_2_17_x86_64.whl"
    started = time.process_time()
    refused = 0
    for data in damaged():
        path.write_bytes(data)
        report = check_wheel(str(path))
        refused += bool(report.unreadable)
        assert "\n" not in report.unreadable
    assert refused > 60
    assert time.process_time() - started < 20
