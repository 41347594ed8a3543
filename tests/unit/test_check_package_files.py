"""Files of an environment against the RECORDs of its packages, and an environment that is hard to look through."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.elf_file import ElfFile, Symbol
from dlltracer.check.environment import check_environment
from dlltracer.host.native_files import list_native_files
from dlltracer.model.check import CheckReport, Severity

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the environment is one of Linux")
SO = "pkg/mod.cpython-311-x86_64-linux-gnu.so"


def module(**more: object) -> bytes:
    return ElfFile(loadable=True, symbols=(Symbol("PyInit_mod"),), **more).build()  # type: ignore[arg-type]


def install(site: Path, files: dict[str, bytes], name: str = "pkg") -> None:
    """Write files and their RECORD, as an installer does: the RECORD last."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    rows = []
    for path, content in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
        os.utime(site / path, (10**9, 10**9))
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(content)}")
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")
    os.utime(info / "RECORD", (10**9 + 10, 10**9 + 10))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "target"
    files = {SO: module(), "pkg/__init__.py": b"x = 1\n", "pkg/data/table.txt": b"t", "pkg/tests/_t.so": module()}
    install(site, files)
    return site


def check(site: Path) -> CheckReport:
    return check_environment(str(site), is_folder=True, use_cache=False)


def codes(report: CheckReport) -> list[tuple[str, str, str]]:
    return [(problem.severity.value, problem.code, problem.file) for problem in report.problems]


def test_a_whole_package_is_quiet(site: Path) -> None:
    assert codes(check(site)) == []


CHANGES: dict[str, tuple[Callable[[Path], object], list[tuple[str, str, str]]]] = {
    "another content of the same size": (
        lambda site: flip(site / SO), [("error", "changed-file", SO)]
    ),
    "more at its end": (
        lambda site: (site / SO).write_bytes((site / SO).read_bytes() + b"more"), [("warning", "changed-file", SO)]
    ),
    "cut": (
        lambda site: (site / SO).write_bytes((site / SO).read_bytes()[:100]),
        [("error", "damaged-image", SO), ("warning", "changed-file", SO)],
    ),
    "a module gone": (lambda site: (site / SO).unlink(), [("error", "missing-file", SO)]),
    "tests removed": (
        lambda site: shutil.rmtree(site / "pkg/tests"), [("note", "missing-file", "pkg-1.0.dist-info")]
    ),
    "code gone": (
        lambda site: (site / "pkg/__init__.py").unlink(), [("warning", "missing-file", "pkg-1.0.dist-info")]
    ),
    "code edited": (
        lambda site: (site / "pkg/__init__.py").write_text("x = 123\n"), [("note", "changed-file", "pkg-1.0.dist-info")]
    ),
    "only metadata left": (
        lambda site: shutil.rmtree(site / "pkg"), [("warning", "missing-file", "pkg-1.0.dist-info")]
    ),
}  # fmt: skip


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed(what: str, site: Path) -> None:
    change, expected = CHANGES[what]
    change(site)
    assert codes(check(site)) == expected


def test_what_conda_changes_is_a_note(site: Path) -> None:
    (site / "pkg-1.0.dist-info/INSTALLER").write_text("conda\n")
    flip(site / SO)
    assert codes(check(site)) == [("note", "changed-file", "pkg-1.0.dist-info")]


def test_records_of_others_are_hostile(site: Path) -> None:
    for text in ("\0" * 1000, '"', "a,b\n" * 1000, "../../../../etc/passwd,sha256=x,1\n" + "x" * 200_000, ",,\n\udcff"):
        (site / "pkg-1.0.dist-info/RECORD").write_text(text, errors="surrogateescape")
        assert check(site).unreadable == ""


def test_links_in_circles_and_what_cannot_be_read(site: Path) -> None:
    (site / "pkg/loop").symlink_to(site / "pkg")
    (site / "pkg/self.so").symlink_to("self.so")
    (site / "pkg/nowhere.so").symlink_to("/nonexistent")
    (site / "up").symlink_to("/")
    os.mkfifo(site / "pkg/pipe.so")
    report = check(site)
    assert codes(report) == [] and report.files == 2
    closed = site / "closed"
    closed.mkdir()
    (closed / "x.so").write_bytes(module())
    closed.chmod(0)
    try:
        report = check(site)
        if os.geteuid() != 0:  # root reads everything
            assert any("1 folders or files could not be read" in note for note in report.notes)
        assert report.unreadable == ""
    finally:
        closed.chmod(0o700)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert check(tmp_path / "nowhere").unreadable == "No such file or directory"


def test_a_large_tree_is_looked_through_once(tmp_path: Path) -> None:
    """Each file once, by whatever names: links between folders multiply nothing."""
    for number in range(300):
        folder = tmp_path / f"{number % 7}/{number}"
        folder.mkdir(parents=True)
        (folder / "lib.so").write_bytes(module())
        (folder / "back").symlink_to(tmp_path)
        os.link(folder / "lib.so", folder / "hard.so")
    listing = list_native_files([str(tmp_path), str(tmp_path / "1"), str(tmp_path)])
    assert len(listing.files) == 300 and listing.is_complete and listing.describe_losses() == []


def test_links_to_folders_elsewhere_are_reported(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "lib.so").write_bytes(module())
    for name in ("first", "second"):
        (inside / name).symlink_to(outside)
    listing = list_native_files([str(inside)])
    assert [file.path for file in listing.files] == [str(inside / "lib.so")]
    assert listing.describe_losses() == [f"links to folders elsewhere, which were not followed: {inside / 'first'}"]
    assert list_native_files([str(inside), str(outside)]).describe_losses() == []


def test_more_entries_than_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlltracer.host.native_files.MOST_ENTRIES", 10)
    for number in range(20):
        (tmp_path / f"{number:02}.so").write_bytes(module())
    report = check(tmp_path)
    assert report.files == 10 and any("only the first 10 entries" in note for note in report.notes)
    assert Severity.ERROR not in [problem.severity for problem in report.problems]
