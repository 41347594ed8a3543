"""Windows paths on any system."""

from __future__ import annotations

import ntpath
import os
from pathlib import Path

import pytest

from builders.pe_file import build_pe
from dlltracer.errors import BinaryFormatError
from dlltracer.host.filesystem import WindowsFiles
from dlltracer.model.loader_context import FileKind, context_for_wheel
from dlltracer.resolve.windows import resolve_windows


@pytest.fixture
def files(tmp_path: Path) -> WindowsFiles:
    folder = tmp_path / "c" / "Site" / "Pkg"
    folder.mkdir(parents=True)
    (folder / "Mod.pyd").write_bytes(build_pe({"dep.DLL": ["f"]}, ["f"]))
    (folder / "DEP.dll").write_bytes(build_pe(None, ["f"]))
    (folder / "text.dll").write_bytes(b"not an image")
    (tmp_path / "share").mkdir()
    return WindowsFiles({"c:": str(tmp_path / "c"), "\\\\server\\share": str(tmp_path / "share")})


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("C:\\site\\pkg\\mod.PYD", FileKind.FILE),
        ("c:/SITE/pkg/../Pkg/./mod.pyd", FileKind.FILE),
        ("C:\\site", FileKind.FOLDER),
        ("C:\\", FileKind.FOLDER),
        ("\\\\SERVER\\share\\", FileKind.FOLDER),
        ("C:\\site\\pkg\\mod.pyd\\x", FileKind.ABSENT),
        ("C:\\site\\pkg\\gone", FileKind.ABSENT),
        ("C:\\..\\c\\Site", FileKind.ABSENT),
        ("D:\\site", FileKind.ABSENT),
        ("C:site", FileKind.ABSENT),
        ("site\\pkg", FileKind.ABSENT),
        ("C:\\site\\a\0b", FileKind.ABSENT),
        ("", FileKind.ABSENT),
    ],
)
def test_what_is_at_a_path(files: WindowsFiles, path: str, kind: FileKind) -> None:
    assert files.kind(path) is kind
    assert (files.identity(path) is None) == (kind is FileKind.ABSENT)


def test_two_spellings_are_one_file(files: WindowsFiles) -> None:
    assert files.identity("C:\\site\\pkg\\dep.dll") == files.identity("c:\\SITE\\Pkg\\DEP.DLL")


def test_reading(files: WindowsFiles) -> None:
    assert files.read_head("C:\\site\\pkg\\mod.pyd", 2) == b"MZ"
    assert files.read_image("C:\\site\\pkg\\mod.pyd") is files.read_image("C:\\Site\\pkg\\mod.pyd")
    assert [need.library for need in files.read_image("C:\\site\\pkg\\mod.pyd").imports] == ["dep.DLL"]
    with pytest.raises(BinaryFormatError):
        files.read_image("C:\\site\\pkg\\text.dll")
    with pytest.raises(FileNotFoundError):
        files.read_image("C:\\site\\pkg\\gone.dll")


def test_a_module_of_a_wheel(files: WindowsFiles) -> None:
    tree = resolve_windows("C:\\Site\\Pkg\\Mod.pyd", context_for_wheel(0x8664, (3, 13)), files)
    assert not tree.missing
    assert [ntpath.basename(path) for path in tree.images] == ["Mod.pyd", "dep.DLL"]


def test_without_drives_the_paths_are_this_systems(tmp_path: Path) -> None:
    (tmp_path / "a.dll").write_bytes(build_pe(None, ["f"]))
    files = WindowsFiles()
    path = os.path.join(str(tmp_path), "a.dll")
    assert files.kind(path) is FileKind.FILE
    assert files.read_image(path).is_dll
    assert files.kind(path + ".gone") is FileKind.ABSENT
