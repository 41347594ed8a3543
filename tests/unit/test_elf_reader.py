"""The ELF reader on files made by hand, and on damage of every kind."""

from __future__ import annotations

import os
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.elf_file import BASE, TLS, WEAK, ElfFile, Symbol, need
from dlltracer.binary.elf import parse_elf, read_elf
from dlltracer.binary.reading import describe_not_image
from dlltracer.errors import BinaryFormatError
from dlltracer.model.elf import ElfImage, ElfNeed, VersionNeed

SHAPES = [(bits, little) for bits in (32, 64) for little in (True, False)]


def rich(bits: int = 64, little: bool = True, *, hashed: str = "gnu", with_addend: bool = True) -> ElfFile:
    """A file that has some of everything."""
    return ElfFile(
        bits=bits,
        little=little,
        hash=hashed,
        with_addend=with_addend,
        needed=("libc.so.6", "libm.so.6"),
        soname="libx.so.1",
        rpath="/opt/lib",
        runpath="$ORIGIN/../lib:/usr/local/lib",
        interpreter="/lib/ld.so",
        tags=((30, 0x10), (0x6FFFFFFB, 0x800)),
        relative=3,
        version_defs=("X_1", "X_2", "X_3"),
        version_needs=(("libm.so.6", "GLIBC_2.29", True),),
        symbols=(
            need("printf", "GLIBC_2.2.5", "libc.so.6"),
            need("PyList_New"),
            need("__gmon_start__", binding=WEAK),
            need("unused", "GLIBC_2.3", "libc.so.6", relocated=False),
            need("own_business", binding=0),
            need("kept_inside", visibility=2),
            Symbol("f", "X_1", hidden=True),
            Symbol("f", "X_2", hidden=True),
            Symbol("f", "X_3"),
            Symbol("old", "X_2", hidden=True),
            Symbol("plain"),
            Symbol("grüße"),
            Symbol("local", binding=0),
            Symbol("inside", visibility=2),
            Symbol("protected", visibility=3),
            Symbol("nowhere", value=0),
            Symbol("per_thread", value=0, kind=TLS),
            Symbol("section", kind=3),
        ),
    )


def refuse(data: bytes, *, symbols: bool = True) -> BinaryFormatError:
    with pytest.raises(BinaryFormatError) as caught:
        parse_elf(data, symbols=symbols)
    return caught.value


@pytest.mark.parametrize(("bits", "little"), SHAPES)
@pytest.mark.parametrize("hashed", ["gnu", "sysv"])
@pytest.mark.parametrize("with_addend", [True, False])
def test_everything_is_read(bits: int, little: bool, hashed: str, with_addend: bool) -> None:
    image = parse_elf(rich(bits, little, hashed=hashed, with_addend=with_addend).build(), symbols=True)
    assert (image.bits, image.little_endian, image.machine, image.kind) == (bits, little, 62, 3)
    assert (image.interpreter, image.soname) == ("/lib/ld.so", "libx.so.1")
    assert image.needed == ("libc.so.6", "libm.so.6")
    assert (image.rpath, image.runpath) == ("/opt/lib", "$ORIGIN/../lib:/usr/local/lib")
    assert (image.dynamic_flags, image.dynamic_flags_1) == (0x10, 0x800)
    assert [segment.type for segment in image.segments] == [1, 3, 2]
    assert (image.segments[0].address, image.segments[0].offset, image.segments[0].flags) == (BASE, 0, 6)
    assert image.version_defs == ("X_1", "X_2", "X_3")
    assert image.is_versioned
    assert image.version_needs == (
        VersionNeed("libc.so.6", "GLIBC_2.2.5"),
        VersionNeed("libc.so.6", "GLIBC_2.3"),
        VersionNeed("libm.so.6", "GLIBC_2.29", weak=True),
    )
    assert image.symbols is not None
    assert image.symbols.needs == (
        ElfNeed("printf", "GLIBC_2.2.5", "libc.so.6"),
        ElfNeed("PyList_New"),
        ElfNeed("__gmon_start__", weak=True),
    )
    assert image.symbols.provides == {
        "f": ("X_1", "X_2", "X_3"), "old": ("X_2",), "plain": (None,), "grüße": (None,), "protected": (None,),
        "per_thread": (None,),
    }  # fmt: skip
    assert image.symbols.versioned_only == {"old"}


def test_symbols_are_read_only_when_asked_for() -> None:
    assert parse_elf(rich().build()).symbols is None


def test_a_file_that_says_nothing() -> None:
    image = parse_elf(ElfFile(dynamic=False).build(), symbols=True)
    assert (image.is_dynamic, image.needed, image.soname, image.version_defs) == (False, (), None, ())
    assert image.symbols is not None
    assert image.symbols.needs == ()


def test_what_no_hash_table_lists_is_not_provided_but_needs_count() -> None:
    symbols = parse_elf(ElfFile(hash="none", symbols=(need("a"), Symbol("b"))).build(), symbols=True).symbols
    assert symbols is not None
    assert symbols.needs == (ElfNeed("a"),)
    assert symbols.provides == {}


def test_a_gnu_hash_table_without_entries_hides_no_needs() -> None:
    symbols = parse_elf(ElfFile(symbols=(need("a"), need("b"))).build(), symbols=True).symbols
    assert symbols is not None
    assert [n.name for n in symbols.needs] == ["a", "b"]


def test_hash_tables_of_s390_have_wide_numbers() -> None:
    file = ElfFile(machine=22, little=False, hash="sysv", symbols=(need("a"), Symbol("b"), Symbol("c")))
    symbols = parse_elf(file.build(), symbols=True).symbols
    assert symbols is not None
    assert symbols.provides == {"b": (None,), "c": (None,)}


def test_references_on_mips_need_no_relocations() -> None:
    file = ElfFile(machine=8, little=False, hash="sysv", symbols=(need("a", relocated=False), Symbol("b")))
    symbols = parse_elf(file.build(), symbols=True).symbols
    assert symbols is not None
    assert symbols.needs == (ElfNeed("a"),)


def test_names_that_are_no_utf8_survive() -> None:
    image = parse_elf(ElfFile(needed=("lib\udcff.so",), symbols=(Symbol("f\udcfe"),)).build(), symbols=True)
    assert image.needed == ("lib\udcff.so",)
    assert image.symbols is not None
    assert "f\udcfe" in image.symbols.provides


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_will_do(kind: type) -> None:
    data = rich().build()
    assert parse_elf(kind(data), symbols=True) == parse_elf(data, symbols=True)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "an HTML or XML page"),
        (b"/* GNU ld script */\nOUTPUT_FORMAT(elf64-x86-64)", "a script of the GNU linker"),
        (b"INPUT(libncurses.so.6 -ltinfo)", "a script of the GNU linker"),
        (b"GROUP ( /lib/libc.so.6 )", "a script of the GNU linker"),
        (b"MZ\x90\0", "a PE file"),
        (bytes.fromhex("cffaedfe0c000001"), "a Mach-O file"),
        (bytes.fromhex("cafebabe00000002"), "a Mach-O file"),
        (b"!<arch>\n", "an ar archive"),
        (b"PK\x03\x04", "a zip archive"),
        (b"#!/bin/sh\n", "a script"),
        (b"\x1f\x8b\x08\0", "a compressed file (gzip)"),
        (b"\x28\xb5\x2f\xfd\x04", "a compressed file (zstd)"),
        (b"\0GITCRYPT\0\1\2", "a file encrypted by git-crypt"),
        (b"BC\xc0\xde\x35", "a file of LLVM bitcode"),
        (b"\0asm\1\0\0\0", "a WebAssembly module"),
        (b'{"message": "404: Not Found"}', "a JSON text"),
        (b'{\n  "error"', "a JSON text"),
        (bytes(64), "nothing but zeros"),
        (b"abc", "a file of 3 bytes, too short"),
    ],
)
def test_what_it_is_instead(head: bytes, what: str) -> None:
    error = refuse(head)
    assert error.problem.startswith("not an ELF file: it is " + what)
    assert error.offset == 0


def test_the_unknown_is_not_guessed_at() -> None:
    assert refuse(b"something else altogether").problem == "not an ELF file"
    assert describe_not_image(bytes.fromhex("cafebabe00000034")) is None  # a Java class
    assert describe_not_image(b"\x7fELF\2\1\1") == "an ELF file (Linux)"


@pytest.mark.parametrize(
    ("offset", "value", "what"), [(4, 3, "word size 3"), (5, 0, "byte order 0"), (6, 0, "version")]
)
def test_an_unknown_kind_of_elf(offset: int, value: int, what: str) -> None:
    data = bytearray(rich().build())
    data[offset] = value
    error = refuse(bytes(data))
    assert error.offset == offset
    assert what in error.problem


@pytest.mark.parametrize(("bits", "little"), SHAPES)
def test_every_truncation_is_refused_as_such(bits: int, little: bool) -> None:
    data = rich(bits, little).build()
    for size in range(1, len(data)):
        for symbols in (False, True):
            error = refuse(data[:size], symbols=symbols)
            expected = "cut short" if size >= 4 else f"it is a file of {size} bytes, too short for any image"
            assert expected in error.problem, (size, error)


def test_a_table_outside_of_every_segment_is_refused() -> None:
    data = bytearray(rich().build())
    segment = 64  # the first program header: make its part of the file small
    struct.pack_into("<Q", data, segment + 32, 0x100)
    assert "no part of the file is loaded to" in refuse(bytes(data)).problem


def test_tables_that_share_their_rows_end() -> None:
    """All offsets of version tables lead forward, so that no circle is possible; but many rows may lead to the same."""
    libraries, versions = 100, 200
    needs = [(f"lib{number}.so", "V", False) for number in range(libraries)]
    needs += [("last.so", f"V{number}", False) for number in range(versions)]
    data = bytearray(ElfFile(version_needs=tuple(needs)).build())
    step = 16 + 16  # Elf64_Verneed with one Elf64_Vernaux behind it
    first = data.index(struct.pack("<HH", 1, 1), 64 + 3 * 56)
    chain = first + libraries * step + 16
    for number in range(libraries):
        struct.pack_into("<I", data, first + number * step + 8, chain - (first + number * step))  # vn_aux
    image = parse_elf(bytes(data), symbols=True)
    assert len(image.version_needs) == (libraries + 1) * versions
    struct.pack_into("<I", data, first + 12, 1)  # vn_next: the second library begins inside the first
    assert "the table of needed versions has revision" in refuse(bytes(data)).problem


def test_a_table_of_versions_without_end_is_refused() -> None:
    needs = tuple(("lib.so", f"V{number}", False) for number in range(0x8001))
    assert "the table of needed versions has no end" in refuse(ElfFile(version_needs=needs).build()).problem


def test_names_that_overlap_without_end_are_refused() -> None:
    # 20,000 symbols that share one name of 20,000 characters: 400 MB of names in a file of 500 kB.
    count = 20_000
    data = bytearray(ElfFile(symbols=(Symbol("x" * count), *(Symbol("") for _ in range(count)))).build())
    table = 64 + 2 * 56
    for number in range(1, count + 2):
        struct.pack_into("<I", data, table + 24 * number, 1 + number % 3)
    assert "the name of a symbol" in refuse(bytes(data)).problem


def test_a_great_many_symbols_of_one_name() -> None:
    versions = tuple(f"V{number}" for number in range(3000))
    image = parse_elf(
        ElfFile(version_defs=versions, symbols=tuple(Symbol("f", v) for v in versions)).build(), symbols=True
    )
    assert image.symbols is not None
    assert image.symbols.provides["f"] == versions


def read_anything(data: bytes) -> ElfImage | None:
    """Return the image, which is the same with symbols but for them; `None` for an error that says what is wrong."""
    try:
        image = parse_elf(data)
    except BinaryFormatError as error:
        assert error.problem
        assert refuse(data).problem, "symbols make no image of what is none"
        return None
    assert image.symbols is None
    try:
        with_symbols = parse_elf(data, symbols=True)
    except BinaryFormatError as error:
        assert error.problem
    else:
        assert with_symbols.symbols is not None and replace(with_symbols, symbols=None) == image
    return image


names = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=12)


@given(
    st.lists(names, max_size=4, unique=True), st.one_of(st.none(), names), st.one_of(st.none(), names),
    st.lists(st.tuples(names, names, st.booleans()), max_size=3, unique_by=lambda item: item[1]),
    st.integers(0, (1 << 32) - 1),
)  # fmt: skip
def test_both_orders_and_sizes_say_the_same(
    needed: list[str], soname: str | None, runpath: str | None, versions: list[tuple[str, str, bool]], flags: int
) -> None:
    """What is written for one byte order and word size is read as for any other."""
    read = [
        parse_elf(ElfFile(
            bits=bits, little=little, machine=22, flags=flags, needed=tuple(needed), soname=soname, runpath=runpath,
            version_needs=tuple(versions),
        ).build())
        for bits, little in SHAPES
    ]  # fmt: skip
    assert [(image.bits, image.little_endian) for image in read] == SHAPES
    for image in read:
        assert (image.machine, image.flags, image.soname, image.runpath) == (22, flags, soname, runpath)
        assert image.needed == tuple(needed)
        found = {(need.library, need.version, need.weak) for need in image.version_needs}
        assert found == set(versions)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_random_bytes_give_an_image_or_an_error(data: bytes) -> None:
    if not data.startswith(b"\x7fELF"):
        assert read_anything(data) is None
    read_anything(b"\x7fELF\2\1\1" + data)


@given(
    st.sampled_from(SHAPES), st.sampled_from(["gnu", "sysv"]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=6),
)  # fmt: skip
@settings(max_examples=600, deadline=None, derandomize=True)
def test_mutants_give_an_image_or_an_error(
    shape: tuple[int, bool], hashed: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(rich(*shape, hashed=hashed).build())
    for position, value in changes:
        data[position % len(data)] = value
    image = read_anything(bytes(data))
    if image is not None:
        assert image.machine == int.from_bytes(data[18:20], "little" if shape[1] else "big")


def test_a_file_is_read_mapped_or_whole(tmp_path: Path) -> None:
    data = rich().build()
    for size in (0, 0x20000):
        path = tmp_path / f"lib{size}.so"
        path.write_bytes(data + bytes(size))
        assert read_elf(str(path), symbols=True) == parse_elf(data, symbols=True)
        path.write_bytes(b"")  # nothing holds it any more


def test_little_of_a_large_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.so"
    path.write_bytes(rich().build())
    os.truncate(path, 300_000_000)
    read_elf(str(path))
    tracemalloc.start()
    try:
        read_elf(str(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(BinaryFormatError, match="an empty file"):
        read_elf(str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError):
        read_elf(str(tmp_path / "absent"))
    with pytest.raises(OSError, match=r"irectory|denied") as caught:
        read_elf(str(tmp_path))
    assert caught.value.filename == str(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no fifos")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BinaryFormatError, match="not a regular file"):
        read_elf(str(tmp_path / "fifo"))
