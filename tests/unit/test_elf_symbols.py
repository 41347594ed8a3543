"""Missing symbols and versions, for scopes of small images made by hand."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.elf_file import WEAK, ElfFile, Symbol, gnu_hash, need
from dlltracer.binary.elf import parse_elf, read_elf, read_provided
from dlltracer.binary.elf_symbols import hash_names
from dlltracer.errors import BinaryFormatError
from dlltracer.model.elf import ElfImage
from dlltracer.model.tree import MissingSymbol, MissingVersion
from dlltracer.resolve.symbols import find_missing_symbols, find_missing_versions

APP, LIB = "/app/mod.so", "/lib/libx.so.1"


def image(*symbols: Symbol, soname: str | None = None, defs: tuple[str, ...] = (), **more: object) -> ElfImage:
    file = ElfFile(soname=soname, symbols=symbols, version_defs=defs, **more)  # type: ignore[arg-type]
    return parse_elf(file.build(), symbols=True)


def library(*symbols: Symbol, defs: tuple[str, ...] = ("X_1", "X_2", "X_3")) -> ElfImage:
    return image(*symbols, soname="libx.so.1", defs=defs)


def missing(*images: ElfImage, complete: bool = True) -> tuple[MissingSymbol, ...]:
    scope = dict(zip((APP, LIB, "/lib/liby.so"), images, strict=False))
    return find_missing_symbols(scope, tuple(scope), complete=complete)


def missing_versions(*images: ElfImage) -> tuple[MissingVersion, ...]:
    scope = dict(zip((APP, LIB), images, strict=False))
    return find_missing_versions(scope, tuple(scope))


def test_what_is_there_is_not_missing() -> None:
    app = image(need("f", "X_1", "libx.so.1"), need("g"), need("h", binding=WEAK))
    assert missing(app, library(Symbol("f", "X_1"), Symbol("g"))) == ()
    assert missing_versions(app, library(Symbol("f", "X_1"))) == ()


@pytest.mark.parametrize("bits", [32, 64])
def test_tables_that_were_lost(bits: int) -> None:
    data = ElfFile(bits=bits, machine=3 if bits == 32 else 62, symbols=(need("asked_for"), Symbol("given"))).build()
    table = (64 + 2 * 56, 24) if bits == 64 else (-(-(52 + 2 * 32) // 8) * 8, 16)
    zeroed = data[: table[0]] + bytes(3 * table[1]) + data[table[0] + 3 * table[1] :]
    names = data.replace(b"asked_for\0given\0", bytes(16))
    for lost, problem in ((zeroed, "the symbol table is all zeros"), (names, "the symbols have no names")):
        for how in ({"symbols": True}, {"needs": True}):
            with pytest.raises(BinaryFormatError, match=f"damaged: {problem}"):
                parse_elf(lost, **how)
        assert parse_elf(lost).is_dynamic, "the loader maps it"
    assert parse_elf(ElfFile(bits=bits).build(), symbols=True).symbols is not None, "a table of none"


def test_a_missing_symbol_names_who_needs_it_and_whose_it_is() -> None:
    app = image(need("f", "X_1", "libx.so.1"))
    assert missing(app, library(Symbol("e", "X_1"))) == (MissingSymbol("f", "X_1", APP, "libx.so.1"),)


def test_a_version_found_in_another_library_will_do() -> None:
    app = image(need("f", "X_1", "libx.so.1"))
    other = image(Symbol("f", "X_1"), soname="liby.so", defs=("X_1",))
    assert missing(app, library(), other) == ()


def test_a_definition_without_a_version_serves_every_reference() -> None:
    app = image(need("f", "X_1", "libx.so.1"))
    assert missing(app, library(Symbol("f"))) == ()
    assert missing(app, image(Symbol("f"), soname="libx.so.1")) == ()


def test_another_version_does_not_serve_and_is_named() -> None:
    app = image(need("f", "X_3", "libx.so.1"))
    found = missing(app, library(Symbol("f", "X_1"), Symbol("f", "X_2", hidden=True)))
    assert [(m.name, m.version, m.nearest) for m in found] == [("f", "X_3", ("f@X_1", "f@X_2"))]


def test_a_reference_without_a_version_takes_the_first_version_or_the_only_default() -> None:
    app = image(need("f"))
    hidden = [Symbol("f", version, hidden=True) for version in ("X_1", "X_2", "X_3")]
    assert missing(app, library(hidden[0])) == ()  # number 2, the first: taken even when hidden
    assert len(missing(app, library(hidden[1]))) == 1
    assert missing(app, library(hidden[1], Symbol("f", "X_3"))) == ()
    assert len(missing(app, library(Symbol("f", "X_2"), Symbol("f", "X_3")))) == 1  # two defaults


def test_weak_references_are_never_missing() -> None:
    assert missing(image(need("f", binding=WEAK))) == ()


def test_references_that_nothing_uses_are_never_missing() -> None:
    assert missing(image(need("f", relocated=False))) == ()


def test_nothing_is_said_of_what_an_unknown_image_may_provide() -> None:
    app = image(need("f"), need("g", "X_1", "libx.so.1"), need("h", "Y_1", "liby.so"))
    assert missing(app, image(Symbol("e"), soname="libx.so.1"), complete=False) == ()
    assert [m.name for m in missing(app, library(), complete=False)] == ["g"]
    without_symbols = parse_elf(ElfFile(soname="libx.so.1").build())
    assert missing(image(need("f")), without_symbols) == ()


def test_a_missing_version_says_what_there_is() -> None:
    app = image(need("f", "X_9", "libx.so.1"))
    expected = MissingVersion("X_9", "libx.so.1", LIB, APP, ("X_1", "X_2", "X_3"))
    assert missing_versions(app, library()) == (expected,)
    assert missing(app, library()) == ()  # said once


def test_no_version_is_missing_of_a_library_that_has_none_nor_a_weak_one() -> None:
    app = image(need("f", "X_9", "libx.so.1"))
    assert missing_versions(app, image(Symbol("f"), soname="libx.so.1")) == ()
    assert missing_versions(image(version_needs=(("libx.so.1", "X_9", True),)), library()) == ()


def test_a_library_is_also_known_by_the_name_of_its_file() -> None:
    app = image(need("f", "X_9", "libx.so.1"))
    assert len(missing_versions(app, image(defs=("X_1",)))) == 1


def test_similar_names_are_offered() -> None:
    app = image(need("PyUnicodeUCS2_Decode"), need("_ZN3foo3barESs"))
    names = ["PyUnicodeUCS4_Decode", "PyTuple_New", "_ZN3foo3barENSt7__cxx1112basic_stringE", "_ZN3foo3barESt"]
    found = {m.name: m.nearest for m in missing(app, library(*(Symbol(name) for name in names)))}
    assert found["PyUnicodeUCS2_Decode"] == ("PyUnicodeUCS4_Decode",)
    assert found["_ZN3foo3barESs"][0] == "_ZN3foo3barESt"


def test_many_missing_symbols_are_all_reported() -> None:
    app = image(*(need(f"f{number}") for number in range(2000)))
    assert len(missing(app, library(*(Symbol(f"g{number}") for number in range(2000))))) == 2000


def test_the_hash_of_a_name_is_that_of_the_table() -> None:
    names = ["", "f", "SSL_CTX_new", "_ZNSt6vectorIiSaIiEE9push_backEOi", "caf\u00e9"]
    expected = {gnu_hash(name.encode()) | bit for name in names for bit in (0, 1)}
    assert hash_names(names) == {value & ~1 for value in expected} | {value | 1 for value in expected}


_NAMES = st.sampled_from([f"name_{number}" for number in range(12)])
_SYMBOLS = st.builds(
    Symbol, name=_NAMES, version=st.sampled_from((None, "X_1", "X_2", "X_3")), binding=st.sampled_from((0, 1, 2, 10)),
    kind=st.sampled_from((0, 1, 2, 3, 6, 10)), visibility=st.integers(0, 3), hidden=st.booleans(),
    defined=st.booleans(), value=st.sampled_from((0, 0x1000)),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    st.lists(_SYMBOLS, max_size=20), st.sets(_NAMES), st.sampled_from((32, 64)), st.booleans(),
    st.sampled_from(("gnu", "sysv", "none")),
)  # fmt: skip
def test_names_are_found_by_their_hashes_as_without(
    symbols: list[Symbol], wanted: set[str], bits: int, little: bool, table: str
) -> None:
    file = ElfFile(
        bits=bits, little=little, soname="libx.so.1", symbols=tuple(symbols), version_defs=("X_1", "X_2", "X_3"),
        hash=table,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "libx.so.1")
        Path(path).write_bytes(file.build())
        assert read_provided(path, wanted, hash_names(wanted)) == read_provided(path, wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries of Linux")
def test_names_of_a_real_library_are_found_by_their_hashes() -> None:
    image = read_elf(getattr(sys.modules["math"], "__file__", sys.executable), needs=True)
    assert image.symbols is not None
    wanted = {need.name for need in image.symbols.needs}
    with open("/proc/self/maps") as maps:
        libraries = {line.split()[-1] for line in maps if ".so" in line and "/" in line and line.split()[-1][0] == "/"}
    assert libraries
    for path in sorted(libraries):
        assert read_provided(path, wanted, hash_names(wanted)) == read_provided(path, wanted)
