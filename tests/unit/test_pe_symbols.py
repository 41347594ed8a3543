"""Which imported symbols are missing, on images made by hand."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from builders.pe_file import Export, Exports, Symbols, build_pe
from dlltracer.binary.pe import parse_pe
from dlltracer.model.pe import MissingForwarder, PeImage, PeSymbol
from dlltracer.model.tree import Binding, BindingState, MissingSymbol
from dlltracer.resolve.windows import find_missing_imports

TOP = r"C:\app\top.pyd"


def importer(imports: dict[str, Symbols], delayed: dict[str, Symbols] | None = None) -> PeImage:
    return parse_pe(build_pe(imports, delayed=delayed), symbols=True)


def exporter(*exports: str | Export) -> PeImage:
    return parse_pe(build_pe(exports=list(exports)), symbols=True)


def bound(need: str, requested_by: str = TOP, *, delayed: bool = False) -> Binding:
    return Binding(need, requested_by, BindingState.BOUND, path_of(need), delayed=delayed)


def absent(need: str, requested_by: str, state: BindingState = BindingState.MISSING) -> Binding:
    return Binding(need, requested_by, state)


def path_of(library: str) -> str:
    return rf"C:\lib\{library}"


def missing(
    imports: dict[str, Symbols], libraries: dict[str, Exports], further: Iterable[Binding] = ()
) -> tuple[MissingSymbol | MissingForwarder, ...]:
    images = {TOP: importer(imports)} | {path_of(name): exporter(*exports) for name, exports in libraries.items()}
    return find_missing_imports([*(bound(name) for name in imports), *further], images)


def test_nothing_is_missing() -> None:
    libraries: dict[str, Exports] = {"a.dll": ["f", "g", Export(ordinal=9)]}
    assert missing({"a.dll": ["f", 2, 9]}, libraries) == ()


def test_a_name_that_is_not_exported_and_what_was_meant_perhaps() -> None:
    names = ["ucnv_open_73", "ucnv_openU_73", "ucnv_close_73", "u_strlen_73"]
    assert missing({"icuuc.dll": ["ucnv_open"]}, {"icuuc.dll": names}) == (
        MissingSymbol("ucnv_open", None, TOP, "icuuc.dll", nearest=("ucnv_open_73", "ucnv_openU_73")),
    )


@pytest.mark.parametrize(
    ("wanted", "exported", "nearest"),
    [
        ("_function", "function", ("function",)),  # decoration before the name
        ("EVP_MD_size", "EVP_MD_get_size", ("EVP_MD_get_size",)),  # a part put in
        ("?f@@YAHH@Z", "?f@@YAHXZ", ("?f@@YAHXZ",)),  # the same function with another signature
        ("PyObject_Call", "sqlite3_open", ()),
    ],
)
def test_nearest_names(wanted: str, exported: str, nearest: tuple[str, ...]) -> None:
    (found,) = missing({"a.dll": [wanted]}, {"a.dll": [exported, "zzz", "AAA"]})
    assert isinstance(found, MissingSymbol) and found.nearest == nearest


def test_an_ordinal_that_is_not_exported() -> None:
    assert missing({"a.dll": [242]}, {"a.dll": ["f"]}) == (MissingSymbol("", None, TOP, "a.dll", ordinal=242),)


def test_an_image_without_an_export_table_exports_nothing() -> None:
    images = {TOP: importer({"A.dll": ["f"]}), path_of("a.DLL"): parse_pe(build_pe(), symbols=True)}
    assert find_missing_imports([bound("a.DLL")], images) == (MissingSymbol("f", None, TOP, "A.dll"),)


def test_what_is_not_known_is_not_missing() -> None:
    imports = importer({"a.dll": ["f"]})
    names_only = parse_pe(build_pe(exports=[]))
    assert find_missing_imports([bound("a.dll")], {TOP: imports}) == ()
    assert find_missing_imports([bound("a.dll")], {TOP: imports, path_of("a.dll"): names_only}) == ()
    for state in (BindingState.MISSING, BindingState.REFUSED, BindingState.SYSTEM):
        assert find_missing_imports([absent("a.dll", TOP, state)], {TOP: imports}) == ()


def test_delayed_imports_are_left_out() -> None:
    images = {TOP: importer({"a.dll": ["f"]}, delayed={"a.dll": ["late"]}), path_of("a.dll"): exporter("f")}
    assert find_missing_imports([bound("a.dll"), bound("a.dll", delayed=True)], images) == ()
    assert find_missing_imports([bound("a.dll", delayed=True)], images) == ()


class TestForwarders:
    def follow(self, further: Iterable[Binding], **libraries: Exports) -> tuple[MissingSymbol | MissingForwarder, ...]:
        """TOP imports `f` and ordinal 5 of icuuc.dll."""
        named = {f"{name}.dll": exports for name, exports in libraries.items()}
        return missing({"icuuc.dll": ["f", 5]}, named, further)

    def test_followed_to_the_end(self) -> None:
        further = [bound("icu.dll", path_of("icuuc.dll")), bound("base.dll", path_of("icu.dll"))]
        assert not self.follow(
            further,
            icuuc=[Export("f", forwarder="ICU.g"), Export(ordinal=5, forwarder="icu.#7")],
            icu=[Export("g", forwarder="base.#3"), Export(ordinal=7)],
            base=[Export(ordinal=3)],
        )

    def test_to_a_library_that_is_not_there(self) -> None:
        exports = [Export("f", forwarder="icu.f"), Export(ordinal=5)]
        for state in (BindingState.MISSING, BindingState.REFUSED):
            found = self.follow([absent("icu.dll", path_of("icuuc.dll"), state)], icuuc=exports)
            assert found == (MissingForwarder(PeSymbol("f"), TOP, path_of("icuuc.dll"), "icu.f"),)

    def test_to_a_symbol_that_is_not_there(self) -> None:
        further = [bound("icu.dll", path_of("icuuc.dll"))]
        found = self.follow(
            further, icuuc=[Export("f", forwarder="icu.#9"), Export(ordinal=5, forwarder="icu.h")], icu=["g"]
        )
        assert found == (
            MissingForwarder(PeSymbol("f"), TOP, path_of("icuuc.dll"), "icu.#9", path_of("icu.dll")),
            MissingForwarder(PeSymbol(None, 5), TOP, path_of("icuuc.dll"), "icu.h", path_of("icu.dll")),
        )

    def test_to_the_system_or_without_a_binding_is_not_known(self) -> None:
        exports = [Export("f", forwarder="ntdll.f"), Export(ordinal=5)]
        assert not self.follow([], icuuc=exports)
        assert not self.follow([absent("ntdll.dll", path_of("icuuc.dll"), BindingState.SYSTEM)], icuuc=exports)

    def test_in_a_circle(self) -> None:
        further = [bound("icu.dll", path_of("icuuc.dll")), bound("icuuc.dll", path_of("icu.dll"))]
        exports = [Export("f", forwarder="icu.f"), Export(ordinal=5)]
        (found,) = self.follow(further, icuuc=exports, icu=[Export("f", forwarder="icuuc.f")])
        assert isinstance(found, MissingForwarder)
        assert (found.symbol, found.requested_by, found.exporter) == (PeSymbol("f"), TOP, path_of("icuuc.dll"))


def test_thousands_of_missing_symbols_take_no_time() -> None:
    wanted = [f"{'x' * 2000}{number}" for number in range(3000)]
    exports = [f"{'x' * 2000}{number}_" for number in range(3000)]
    start = time.process_time()
    assert len(missing({"a.dll": wanted}, {"a.dll": exports})) == 3000
    assert time.process_time() - start < 5
