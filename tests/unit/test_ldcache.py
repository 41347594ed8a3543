"""ld.so.cache: every format, made by hand; damage; what ldconfig says of this machine's."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.binary.loader_data import EXTENSION_MAGIC, NEW_MAGIC, OLD_MAGIC, parse_ld_cache
from dlltracer.errors import BinaryFormatError
from dlltracer.model.loader_context import HWCAP_EXTENSION, CacheEntry

Row = tuple[str, str, int, int]


def old_cache(rows: list[Row], order: str = "<") -> bytes:
    texts, places = b"", []
    for soname, path, _, _ in rows:
        places.append((len(texts), len(texts) + len(soname) + 1))
        texts += f"{soname}\0{path}\0".encode()
    table = b"".join(struct.pack(f"{order}III", row[2], *place) for row, place in zip(rows, places, strict=True))
    return OLD_MAGIC + b"\0" + struct.pack(f"{order}I", len(rows)) + table + texts


def new_cache(
    rows: list[Row], subfolders: tuple[str, ...] = (), order: str = "<", flags: int = 0, at: int = 0
) -> bytes:
    """`at`: where in a file with both formats it will begin."""
    base = 48 + 24 * len(rows)
    texts, places, folders = b"", [], []
    for soname, path, _, _ in rows:
        places.append((base + len(texts), base + len(texts) + len(soname) + 1))
        texts += f"{soname}\0{path}\0".encode()
    for folder in subfolders:
        folders.append(base + len(texts))
        texts += folder.encode() + b"\0"
    table = b"".join(
        struct.pack(f"{order}IIIIQ", row[2], *place, 0, row[3]) for row, place in zip(rows, places, strict=True)
    )
    extension = b""
    where = 0
    if subfolders:
        texts += bytes(-(base + len(texts)) % 4)
        where = at + base + len(texts)
        generator = b"made by hand"
        sections = struct.pack(f"{order}IIIIIIII", 0, 0, where + 40, 12, 1, 0, where + 52, 4 * len(folders))
        extension = struct.pack(f"{order}II", EXTENSION_MAGIC, 2) + sections + generator
        extension += struct.pack(f"{order}{len(folders)}I", *folders)
    header = NEW_MAGIC + struct.pack(f"{order}IIB3xI12x", len(rows), len(texts), flags, where)
    return header + table + texts + extension


ROWS: list[Row] = [
    ("libz.so.1", "/lib/libz.so.1", 0x303, 0),
    ("libc.so.6", "/lib/glibc-hwcaps/x86-64-v3/libc.so.6", 0x303, HWCAP_EXTENSION | 1),
    ("libc.so.6", "/lib/libc.so.6", 0x303, 0),
]
PLAIN = tuple(CacheEntry(*row) for row in ROWS[::2])


def test_the_new_format_with_hwcaps() -> None:
    for flags, order in ((2, "<"), (3, ">"), (0, "<"), (0, ">")):
        entries = parse_ld_cache(new_cache(ROWS, ("x86-64-v2", "x86-64-v3"), order, flags))
        assert entries[::2] == PLAIN
        assert entries[1] == CacheEntry(*ROWS[1], subfolder="x86-64-v3")


def test_the_old_format() -> None:
    for order in "<>":
        assert parse_ld_cache(old_cache(ROWS[::2], order)) == PLAIN


def test_of_both_formats_the_new_one_counts() -> None:
    old = old_cache([("libold.so", "/libold.so", 3, 0)])
    end = 16 + 12  # the old names come behind the new part
    head, names = old[:end] + bytes(-end % 8), old[end:]
    data = head + new_cache(ROWS, ("a", "x86-64-v3"), at=len(head)) + names
    assert [entry.subfolder for entry in parse_ld_cache(data)] == [None, "x86-64-v3", None]


def test_an_empty_cache() -> None:
    assert parse_ld_cache(new_cache([])) == parse_ld_cache(old_cache([])) == ()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no known magic"),
        (b"\x7fELF" + bytes(100), "no known magic"),
        (OLD_MAGIC, "inside its header"),
        (NEW_MAGIC, "inside its header"),
        (NEW_MAGIC + struct.pack("<IIB3xI12x", 1 << 31, 0, 2, 0), "inside its table"),
        (OLD_MAGIC + b"\0" + b"\xff" * 4, "inside its table"),
        (new_cache(ROWS[::2], flags=1), "marked as unusable"),
        (new_cache(ROWS), "no glibc-hwcaps folder number 1"),
        (new_cache(ROWS, ("a",)), "no glibc-hwcaps folder number 1"),
        (new_cache(ROWS[::2])[:-1], "has no end"),
    ],
)
def test_damage_is_one_error(data: bytes, problem: str) -> None:
    with pytest.raises(BinaryFormatError, match=problem):
        parse_ld_cache(data)


def test_names_that_share_bytes_are_bounded() -> None:
    """Every entry may point one byte further into the same text: that must not cost more than the file is long."""
    count = 3000
    base = 48 + 24 * count
    table = b"".join(struct.pack("<IIIIQ", 0x303, base + row, base + row, 0, 0) for row in range(count))
    data = NEW_MAGIC + struct.pack("<IIB3xI12x", count, 4000, 2, 0) + table + b"x" * 4000 + b"\0"
    with pytest.raises(BinaryFormatError, match="longer than the file"):
        parse_ld_cache(data)


WHOLE = new_cache(ROWS, ("x86-64-v2", "x86-64-v3"), flags=2)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_cache_cut_short_is_refused_or_read_in_part(length: int) -> None:
    check(WHOLE[:length])


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6))
def test_mutants_raise_nothing_else(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    check(bytes(data))


@given(st.sampled_from((b"", NEW_MAGIC, OLD_MAGIC)), st.binary(max_size=200))
def test_any_bytes(magic: bytes, rest: bytes) -> None:
    check(magic + rest)


def check(data: bytes) -> None:
    try:
        entries = parse_ld_cache(data)
    except BinaryFormatError as error:
        assert error.problem
    else:
        assert all(isinstance(entry, CacheEntry) for entry in entries)


def test_as_ldconfig_prints_it() -> None:
    cache = Path("/etc/ld.so.cache")
    ldconfig = shutil.which("ldconfig", path="/usr/sbin:/sbin:/usr/bin")
    if ldconfig is None or not cache.exists():
        pytest.skip("no ldconfig, or no cache, on this machine")
    printed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^\t(.*) \(([^()]*)\) => (.*)$", printed, re.MULTILINE)
    entries = parse_ld_cache(cache.read_bytes())
    assert [(entry.soname, entry.path) for entry in entries] == [(row[0], row[2]) for row in rows]
    for entry, (_, words, _) in zip(entries, rows, strict=True):
        assert ("libc6" in words) is (entry.flags & 0xFF == 3)
        assert ("x86-64" in words) is (entry.flags & 0xFF00 == 0x300)


def test_a_cache_that_ldconfig_just_made(tmp_path: Path) -> None:
    """With a folder of glibc-hwcaps, which this machine's own cache may not have."""
    ldconfig = shutil.which("ldconfig", path="/usr/sbin:/sbin:/usr/bin")
    if ldconfig is None or shutil.which("gcc") is None:
        pytest.skip("no ldconfig or no gcc on this machine")
    folder = tmp_path / "lib"
    for below in ("", "glibc-hwcaps/x86-64-v2/", "glibc-hwcaps/x86-64-v3/"):
        (folder / below).mkdir(parents=True)
        command = ["gcc", "-shared", "-nostdlib", "-xc", "/dev/null", "-Wl,-soname,libtiny.so.1"]
        subprocess.run([*command, "-o", str(folder / below / "libtiny.so.1")], check=True)
    (tmp_path / "conf").write_text(f"{folder}\n")
    for format_name in ("new", "compat", "old"):
        made = tmp_path / format_name
        command = [ldconfig, "-X", "-c", format_name, "-C", str(made), "-f", str(tmp_path / "conf")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not made.exists():
            pytest.skip(f"this ldconfig cannot do it: {done.stderr}")
        found = {e.subfolder: e.path for e in parse_ld_cache(made.read_bytes()) if e.soname == "libtiny.so.1"}
        levels = () if format_name == "old" else ("x86-64-v2", "x86-64-v3")
        expected = {level: f"{folder}/glibc-hwcaps/{level}/libtiny.so.1" for level in levels}
        assert found == {None: f"{folder}/libtiny.so.1", **expected}, format_name
