"""Members of zip archives: the same content and sums as by `zipfile`, whatever thread reads them."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import zipfile
from pathlib import Path

import pytest

from dlltracer.host.zip_members import LARGEST_WHOLE, Member, open_archive, read_members


def read_all(path: Path, methods: dict[str, str] | None = None) -> list[Member]:
    archive, fd = open_archive(str(path))
    try:
        return list(read_members(fd, archive.infolist(), methods or {}))
    finally:
        os.close(fd)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """An archive that is worth a second thread."""
    path = tmp_path / "many.zip"
    noise = random.Random(7).randbytes(1 << 20)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60):
            method = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)[number % 2]
            archive.writestr(f"pkg/größe{number}", noise[: number * 1500], compress_type=method)
        archive.writestr("other", b"in another way", compress_type=zipfile.ZIP_BZIP2)
    return path


def test_members_are_those_of_zipfile(many: Path) -> None:
    found = read_all(many, {"pkg/größe7": "sha512"})
    with zipfile.ZipFile(many) as archive:
        names = archive.namelist()
        assert sorted(member.entry.filename for member in found) == sorted(names)
        for entry, content, digest in found[:-1]:
            assert content == archive.read(entry.filename)
            method = "sha512" if entry.filename == "pkg/größe7" else "sha256"
            assert digest == hashlib.new(method, content).digest()
    assert (found[-1].entry.filename, found[-1].content) == ("other", None)


def test_whoever_stops_early_leaves_no_thread(many: Path) -> None:
    before = threading.active_count()
    archive, fd = open_archive(str(many))
    members = read_members(fd, archive.infolist(), {})
    next(members)
    members.close()
    os.close(fd)
    assert threading.active_count() == before


@pytest.mark.parametrize("damage", ["sum", "size", "name", "overlap", "cut"])
def test_what_is_damaged_is_left_to_zipfile(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("aaa", b"a" * 500)
        archive.writestr("bbb", b"b" * 500)
    archive, fd = open_archive(str(path))
    first, second = archive.infolist()
    if damage == "sum":
        first.CRC ^= 1
    elif damage == "size":
        first.file_size = 100  # less than there is: no more than that may be unpacked
    elif damage == "name":
        first.orig_filename = "aab"
    elif damage == "overlap":
        second.header_offset = first.header_offset + 5
    else:
        os.truncate(path, first.header_offset + 35)
    members = list(read_members(fd, [first, second], {}))
    os.close(fd)
    assert next(member.entry.filename for member in members if member.content is None) == "aaa"
    assert len(members) == 2


def test_large_members_are_left_to_zipfile(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("large", bytes(LARGEST_WHOLE + 1))
        archive.writestr("small", b"s")
    small, large = read_all(path)
    assert (small.content, large.content, large.entry.filename) == (b"s", None, "large")
