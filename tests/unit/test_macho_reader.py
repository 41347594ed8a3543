"""The Mach-O reader on files made by hand, whole, cut short and damaged."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.macho_file import (
    ARM64,
    ARM64_32,
    DYLIB,
    I386,
    LAZY,
    MACOS,
    MUST_KNOW,
    REEXPORT,
    SIMULATOR,
    UPWARD,
    WEAK,
    X86_64,
    build_fat,
    build_macho,
    sign,
    version,
)
from dlltracer.binary.macho import parse_macho, read_macho
from dlltracer.errors import BinaryFormatError
from dlltracer.model.macho import MachoImage, MachoImport, MachoTarget, NeedKind, SymbolPlace, describe_cpu

NEEDS = ["@rpath/liba.dylib", ("@loader_path/libw.dylib", WEAK), ("/usr/lib/libr.dylib", REEXPORT),
         ("/usr/lib/libu.dylib", UPWARD), ("/usr/lib/libz.dylib", LAZY)]  # fmt: skip
IMPORTS = [("_one", 1), ("_maybe", 2, True), ("_PyList_New", -2), ("_main_has", -1)]
EXPORTS = {"_PyInit_x": None, "_passed": (3, "_other"), "_same": (3, "")}


def rich(**changes: object) -> bytes:
    """A library with one of everything."""
    options: dict[str, object] = {
        "kind": DYLIB, "install_name": "@rpath/libx.dylib", "rpaths": ["@loader_path/.dylibs", "/opt/x", "/opt/x"],
        "signature": 32, **changes,
    }  # fmt: skip
    return build_macho(NEEDS, IMPORTS, EXPORTS, **options)  # type: ignore[arg-type]


def only(data: bytes) -> MachoImage:
    file = parse_macho(data, symbols=True)
    (image,) = file.images
    return image


def problem(data: bytes) -> str:
    with pytest.raises(BinaryFormatError) as caught:
        parse_macho(data, symbols=True)
    assert caught.value.offset >= 0
    return caught.value.problem


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("cpu", [ARM64, X86_64, I386, ARM64_32])
def test_everything_that_a_library_says(cpu: int, order: str) -> None:
    image = only(rich(cpu=cpu, order=order))

    assert (image.cpu, image.bits, image.kind) == (cpu, 64 if cpu & 0x01000000 else 32, DYLIB)
    assert image.install_name == "@rpath/libx.dylib"
    assert [(need.name, need.kind) for need in image.needs] == [
        ("@rpath/liba.dylib", NeedKind.LOAD), ("@loader_path/libw.dylib", NeedKind.WEAK),
        ("/usr/lib/libr.dylib", NeedKind.REEXPORT), ("/usr/lib/libu.dylib", NeedKind.UPWARD),
        ("/usr/lib/libz.dylib", NeedKind.LAZY),
    ]  # fmt: skip
    assert image.needs[0].current_version == (1, 2, 3)
    assert image.needs[0].compatibility_version == (1, 0, 0)
    assert image.rpaths == ("@loader_path/.dylibs", "/opt/x", "/opt/x")
    assert image.targets == (MachoTarget(MACOS, (11, 0, 0), (13, 3, 0)),)
    assert image.lowest_macos == (11, 0, 0)
    assert image.uuid == "55" * 16
    assert image.is_signed
    assert not image.is_chained
    assert image.unknown_commands == ()


@pytest.mark.parametrize("order", ["<", ">"])
def test_symbols_of_the_symbol_table_and_the_trie(order: str) -> None:
    symbols = only(rich(order=order)).symbols

    assert symbols is not None
    assert tuple(symbols.imports) == (
        MachoImport("_one", 1), MachoImport("_maybe", 2, True), MachoImport("_PyList_New", SymbolPlace.FLAT),
        MachoImport("_main_has", SymbolPlace.MAIN),
    )  # fmt: skip
    assert symbols.exports == {"_PyInit_x": None, "_passed": (3, "_other"), "_same": (3, "_same")}


@pytest.mark.parametrize("layout", [1, 2, 3])
def test_imports_of_chained_fixups_where_the_symbol_table_was_stripped(layout: int) -> None:
    imports = [*IMPORTS, ("__ZdlPv", -3)]
    image = only(build_macho(NEEDS, imports, chained=layout, in_table=False))

    assert image.is_chained
    assert image.symbols is not None
    assert [(one.name, one.ordinal, one.weak) for one in image.symbols.imports] == [
        ("_one", 1, False), ("_maybe", 2, True), ("_PyList_New", -2, False), ("_main_has", -1, False),
        ("__ZdlPv", -3, False),
    ]  # fmt: skip


def test_an_import_of_both_tables_counts_once() -> None:
    symbols = only(build_macho(NEEDS, IMPORTS, chained=1)).symbols
    assert symbols is not None
    assert len(symbols.imports) == len(IMPORTS)


def test_exports_of_the_symbol_table_where_there_is_no_trie() -> None:
    image = only(build_macho(NEEDS, IMPORTS, {"_a": None, "_b": None}, with_trie=False))
    assert image.symbols is not None
    assert list(image.symbols.exports) == ["_a", "_b"]
    assert len(image.symbols.imports) == len(IMPORTS)


@pytest.mark.parametrize("wide", [False, True])
def test_a_universal_file(wide: bool) -> None:
    file = parse_macho(build_fat([rich(cpu=X86_64), rich(cpu=ARM64, signature=0)], wide=wide), symbols=True)

    assert file.is_universal
    assert [image.architecture for image in file.images] == ["x86_64", "arm64"]
    assert [image.is_signed for image in file.images] == [True, False]
    assert file.images[1].symbols is not None
    assert file.images[1].symbols.exports.keys() == EXPORTS.keys()


def test_symbols_are_read_only_where_they_are_asked_for() -> None:
    assert parse_macho(rich()).images[0].symbols is None


def test_versions_of_old_and_of_several_systems() -> None:
    old = only(build_macho(minimum=(0x24, version(10, 9), version(10, 15, 4))))
    assert old.targets == (MachoTarget(MACOS, (10, 9, 0), (10, 15, 4)),)
    both = only(build_macho(targets=[(6, version(14), version(15)), (MACOS, version(11), version(15))]))
    assert both.lowest_macos == (11, 0, 0)
    assert only(build_macho(targets=[(SIMULATOR, version(14), version(15))])).lowest_macos is None
    assert only(build_macho(targets=[])).targets == ()


def test_load_commands_that_dyld_must_know_and_others() -> None:
    image = only(build_macho(more=[(0x7F | MUST_KNOW, b"\0" * 8), (0x7E, b"\0" * 8), (0x28 | MUST_KNOW, b"\0" * 16)]))
    assert image.unknown_commands == (0x7F | MUST_KNOW,)


def test_names_of_processors() -> None:
    assert describe_cpu(ARM64, 2) == "arm64e"
    assert describe_cpu(X86_64, 8) == "x86_64h"
    assert describe_cpu(X86_64, 3) == "x86_64"
    assert describe_cpu(99, 0) == "cpu 99"


def test_names_that_are_no_text() -> None:
    image = only(build_macho(["lib\udcff.dylib"], rpaths=["/\udcfe"]))
    assert (image.needs[0].name, image.rpaths) == ("lib\udcff.dylib", ("/\udcfe",))


def test_what_is_no_macho_file() -> None:
    assert "an ELF file" in problem(b"\x7fELF" + bytes(60))
    assert "an empty file" in problem(b"")
    java = struct.pack(">4I", 0xCAFEBABE, 61, 0, 0)
    assert problem(java) == "not a Mach-O file"
    assert "without an image" in problem(struct.pack(">2I", 0xCAFEBABE, 0))


def test_damage_is_named() -> None:
    whole = build_macho(["/usr/lib/libSystem.B.dylib"], IMPORTS, EXPORTS)
    assert "segment __LINKEDIT" in problem(whole[:-1])
    assert "the load commands" in problem(whole[:40])
    no_size = bytearray(whole)
    struct.pack_into("<I", no_size, 36, 0)
    assert "load command 1 has 0 bytes" in problem(bytes(no_size))
    outside = bytearray(whole)
    struct.pack_into("<I", outside, 40, 0xFFFF)  # where the name of the first library begins
    assert "the name of a library" in problem(bytes(outside))
    fat = build_fat([rich()])
    assert "image 1 of a universal file" in problem(fat[:-1])


def test_exports_that_lead_in_a_circle() -> None:
    data = build_macho(exports={"_a": None})
    root = data.index(b"\0\x01_a\0")
    looping = data[: root + 5] + b"\x80\x80\x80\x00" + data[root + 9 :]
    assert "circle" in problem(looping)


def test_a_table_of_symbols_that_is_too_large(tmp_path: Path) -> None:
    data = bytearray(build_macho(imports=IMPORTS))
    at = data.index(struct.pack("<2I", 0x2, 24)) + 12
    struct.pack_into("<I", data, at, 0x7FFFFFFF)
    begun = time.process_time()
    assert problem(bytes(data))
    assert time.process_time() - begun < 5
    file = tmp_path / "x.dylib"
    file.write_bytes(data)
    with pytest.raises(BinaryFormatError):
        read_macho(str(file), symbols=True)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_damage_raises_anything_else(data: st.DataObject) -> None:
    """Any bytes changed or cut off: an image, or `BinaryFormatError`."""
    whole = data.draw(
        st.sampled_from([rich(), rich(chained=1), rich(cpu=I386, order=">"), build_fat([rich(), rich(cpu=X86_64)])])
    )
    changed = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, max(len(changed) - 1, 0)), max_size=6)):
        if at < len(changed):
            changed[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    try:
        file = parse_macho(bytes(changed), symbols=True)
    except BinaryFormatError as error:
        assert error.offset >= 0
    else:
        assert file.images


@given(
    needs=st.lists(st.text("ab/@.é", min_size=1, max_size=30), max_size=5),
    names=st.lists(st.text("_abé", min_size=1, max_size=20), max_size=8, unique=True),
    chained=st.sampled_from([0, 1, 2, 3]),
    cpu=st.sampled_from([ARM64, X86_64, I386]),
    order=st.sampled_from(["<", ">"]),
)
@settings(max_examples=100, deadline=None)
def test_what_was_built_is_read(needs: list[str], names: list[str], chained: int, cpu: int, order: str) -> None:
    imports = [(name, -2) for name in names]
    image = only(
        build_macho(needs, imports, dict.fromkeys(names), cpu=cpu, order=order, chained=chained, rpaths=needs)
    )
    assert [need.name for need in image.needs] == needs
    assert list(image.rpaths) == needs
    assert image.symbols is not None
    assert list(image.symbols.imports) == [MachoImport(name, -2) for name in names]
    assert set(image.symbols.exports) == set(names)


def test_names_that_overlap_are_bounded() -> None:
    """A table of 60,000 symbols whose names are the ends of one text of 60,000 letters would take 1.8 GB."""
    count = 60_000
    data = bytearray(build_macho(imports=[("_" + "a" * count, -2)] * 1))
    table_at = data.index(struct.pack("<2I", 0x2, 24)) + 8
    symbols_at, _, names_at, size = struct.unpack_from("<4I", data, table_at)
    entries = b"".join(struct.pack("<I2BHQ", 1 + number, 1, 0, 0xFE00, 0) for number in range(count))
    moved = bytes(data) + entries
    moved = bytearray(moved)
    struct.pack_into("<4I", moved, table_at, len(data), count, names_at, size)
    undefined_at = moved.index(struct.pack("<2I", 0xB, 80)) + 8 + 16
    struct.pack_into("<2I", moved, undefined_at, 0, count)
    begun = time.process_time()
    assert "longer than any real file's" in problem(bytes(moved))
    assert time.process_time() - begun < 5
    assert symbols_at < names_at


@pytest.mark.parametrize(("method", "page_bits"), [(2, 12), (2, 14), (1, 12)])
def test_a_page_that_was_changed_after_it_was_signed(method: int, page_bits: int) -> None:
    exports: dict[str, tuple[int, str] | None] = {f"_{n}_{chr(120) * 300}": None for n in range(200)}
    image = sign(build_macho([], [], exports, signature=4096), method=method, page_bits=page_bits)
    (sound,) = parse_macho(image, sums=True).images
    assert sound.changed_page is None
    changed = bytearray(image)
    changed[3 << page_bits >> 1] ^= 1
    (found,) = parse_macho(bytes(changed), sums=True).images
    assert found.changed_page == 1
    (not_asked,) = parse_macho(bytes(changed)).images
    assert not_asked.changed_page is None


def test_a_signature_that_cannot_be_read_says_nothing() -> None:
    image = build_macho([], [], {}, signature=64)
    for signature in (b"", b"\xfa\xde\x0c\xc0" + b"\xff" * 60, struct.pack(">5I", 0xFADE0CC0, 64, 1, 0, 60)):
        (found,) = parse_macho(image[:-64] + signature.ljust(64, b"\0"), sums=True).images
        assert found.changed_page is None
