"""Rules about symbols, versions and copies in the way, on cases made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.failed_case import EXT, PYTHON, bound, case, first, image, process, tree, verdict, version_need
from dlltracer.diagnose.case import Change, Copy, MachineLimits, ShadowedCopy
from dlltracer.diagnose.rules import search_rules, symbols
from dlltracer.model.elf import ElfSymbols
from dlltracer.model.environment import CLibrary
from dlltracer.model.events import LoadEvent, Phase
from dlltracer.model.finding import Confidence
from dlltracer.model.recording import Recording
from dlltracer.model.tree import MissingSymbol, MissingVersion

SYMBOL = f"{EXT}: undefined symbol: extra"
VERSION = f"/lib/libx.so.1: version `X_2' not found (required by {EXT})"
LACK = MissingSymbol("extra", None, EXT, None)
VERSION_LACK = MissingVersion("X_2", "libx.so.1", "/lib/libx.so.1", EXT, ("X_1", "X_1.5", "Y_9"))
SHADOWED = ShadowedCopy(Change.NOTHING_LOADED, "libx.so.1", "/old/libx.so.1", Phase.LOADED, "/new/libx.so.1")
LOADED = Recording(
    "rtld", (LoadEvent("/old/libx.so.1", need="libx.so.1", requested_by="/a/_core.so", imports=("alpha",)),)
)


def test_a_symbol_that_nobody_has() -> None:
    found = first(case(SYMBOL, symbols=(LACK,), tree=tree(bound("libx.so.1", "/lib/libx.so.1"))))
    assert (found.code, found.subject, found.confidence) == ("missing-symbol", "extra", Confidence.CERTAIN)
    assert "libx.so.1 is /lib/libx.so.1, found by RUNPATH" in found.explanation


def test_symbols_that_the_loader_did_not_complain_of_are_no_finding() -> None:
    missing = "libg.so: cannot open shared object file: No such file or directory"
    for made in (case(None, symbols=(LACK,), tree=tree()), case(missing, symbols=(LACK,))):
        assert not list(symbols.check(made))


def test_another_copy_that_has_it() -> None:
    copies = {"libx.so.1": (Copy("/bad/libx.so.1", "x", None, False), Copy("/new/libx.so.1", "PATH", None, True))}
    found = first(case(SYMBOL, symbols=(LACK,), tree=tree(bound("libx.so.1", "/old/libx.so.1")), copies=copies))
    assert "/new/libx.so.1 (PATH) has it" in found.explanation and "/bad" not in found.explanation
    assert found.remedies[0].command == ("env", "LD_LIBRARY_PATH=/new", PYTHON, "-c", "import ext")


def test_a_version_with_what_the_copy_has() -> None:
    found = first(case(VERSION, versions=(VERSION_LACK,), tree=tree(bound("libx.so.1", "/lib/libx.so.1"))))
    assert (found.code, found.subject) == ("missing-version", "X_2")
    assert "none newer than X_1.5" in found.explanation


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("GLIBC_ABI_GNU2_TLS", "newer glibc"), ("GLIBC_ABI_DT_RELR", "newer glibc"),
        ("GLIBC_PRIVATE", "another glibc than the one here"),
    ],
)  # fmt: skip
def test_marks_of_glibc_are_about_glibc(version: str, words: str) -> None:
    message = f"/lib/libc.so.6: version `{version}' not found (required by {EXT})"
    wanted = MissingVersion(version, "libc.so.6", "/lib/libc.so.6", EXT, ("GLIBC_2.36",))
    found = first(case(message, versions=(wanted,), tree=tree()))
    assert found.code == "glibc-too-old" and words in found.explanation
    assert not any("libc.so.6" in remedy.what for remedy in found.remedies)


def test_no_fix_replaces_a_library_of_the_system() -> None:
    message = f"/usr/lib/libstdc++.so.6: version `GLIBCXX_3.4.99' not found (required by {EXT})"
    wanted = MissingVersion("GLIBCXX_3.4.99", "libstdc++.so.6", "/usr/lib/libstdc++.so.6", EXT, ("GLIBCXX_3.4.30",))
    own = first(case(message, versions=(wanted,), tree=tree()))
    assert not any("out of the way" in remedy.what for remedy in own.remedies)
    elsewhere = replace(wanted, provider="/opt/old/libstdc++.so.6")
    other = first(case(message.replace("/usr/lib", "/opt/old"), versions=(elsewhere,), tree=tree()))
    assert any("out of the way" in remedy.what for remedy in other.remedies)


def test_a_version_says_whose_the_symbol_is() -> None:
    wanted = MissingSymbol("extra", "V_1", EXT, "libx.so.1")
    found = first(case(f"{EXT}: undefined symbol: extra, version V_1", symbols=(wanted,),
                       tree=tree(bound("libx.so.1", "/lib/libx.so.1"))))  # fmt: skip
    assert found.title == "libx.so.1 lacks extra in version V_1, which ext.so needs"


def test_a_newer_glibc() -> None:
    message = f"/lib/libc.so.6: version `GLIBC_2.99' not found (required by {EXT})"
    wanted = MissingVersion(
        "GLIBC_2.99", "libc.so.6", "/lib/libc.so.6", EXT, ("GLIBC_2.9", "GLIBC_2.36", "GLIBC_PRIVATE")
    )
    found = first(case(message, versions=(wanted,), tree=tree()))
    assert (found.code, found.confidence) == ("glibc-too-old", Confidence.CERTAIN)
    assert "none newer than GLIBC_2.36" in found.explanation


def test_the_first_wins() -> None:
    made = case(SYMBOL, symbols=(LACK,), tree=tree(bound("libx.so.1", "/old/libx.so.1", phase=Phase.LOADED)),
                shadowed=(SHADOWED,), recording=LOADED)  # fmt: skip
    assert [f.code for f in verdict(made).findings] == ["first-wins"]
    found = first(made)
    assert found.subject == "/old/libx.so.1"
    assert "import alpha loaded it for /a/_core.so" in found.explanation
    assert found.remedies[0].what.startswith("import ext before alpha")


def test_the_first_wins_though_nobody_knows_who_loaded_it() -> None:
    found = first(case(VERSION, versions=(VERSION_LACK,), tree=tree(), shadowed=(SHADOWED,)))
    assert found.code == "first-wins" and "before the trace began" in found.explanation


def test_the_library_path_wins() -> None:
    shadowed = replace(SHADOWED, change=Change.NO_LIBRARY_PATH, phase=Phase.ENVIRONMENT)
    facts = process(environment=(("LD_LIBRARY_PATH", "/old"),))
    found = first(case(VERSION, versions=(VERSION_LACK,), tree=tree(), shadowed=(shadowed,), process=facts))
    assert (found.code, found.subject) == ("library-path-wins", "/old/libx.so.1")


def test_a_shadowed_copy_without_a_dl_error_is_no_finding() -> None:
    assert not list(search_rules.check_first_wins(case(None, shadowed=(SHADOWED,), symbols=(LACK,))))


OLD_NAME = "_ZN3c105ErrorC2ERKSs"
NEW_NAME = "_ZN3c105ErrorC2ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"


def _with_provider(asked: str, provided: str) -> object:
    library = image(symbols=ElfSymbols((), {provided: (None,)}))
    loaded = tree(bound("libc10.so", "/t/libc10.so"))
    wanted = MissingSymbol(asked, None, EXT, None)
    return case(f"{EXT}: undefined symbol: {asked}", symbols=(wanted,), tree=loaded, images={"/t/libc10.so": library})


def test_the_other_string_of_gcc() -> None:
    for asked, provided in ((OLD_NAME, NEW_NAME), (NEW_NAME, OLD_NAME)):
        found = first(_with_provider(asked, provided))  # type: ignore[arg-type]
        assert (found.code, found.confidence) == ("other-string-abi", Confidence.CERTAIN)
        assert "/t/libc10.so" in found.explanation


def test_another_function_with_the_other_string_is_no_twin() -> None:
    found = first(_with_provider(OLD_NAME, NEW_NAME.replace("5Error", "5Other")))  # type: ignore[arg-type]
    assert found.code == "missing-symbol" and "PyTorch" in found.explanation


def test_a_function_of_python() -> None:
    wanted = MissingSymbol("PyThreadState_GetFromTheFuture", None, EXT, None)
    made = case(f"{EXT}: undefined symbol: {wanted.name}", symbols=(wanted,), tree=tree())
    assert [f.code for f in verdict(made).findings] == ["python-api-missing"]


def test_a_symbol_of_glibc_on_musl() -> None:
    message = f"Error relocating {EXT}: gnu_get_libc_version: symbol not found"
    wanted = MissingSymbol("gnu_get_libc_version", None, EXT, None)
    built = image(version_needs=(version_need("libc.so.6", "GLIBC_2.2.5"),))
    made = case(message, symbols=(wanted,), tree=tree(), images={EXT: built})
    assert first(made).code == "glibc-symbol-on-musl"
    without = first(replace(made, images={EXT: image()}))
    assert (without.code, without.confidence) == ("glibc-symbol-on-musl", Confidence.LIKELY)


def test_a_build_for_musl_with_a_name_of_glibc_is_not_helped_by_a_build_for_musl() -> None:
    lack = (MissingSymbol("__cxa_thread_atexit_impl", None, EXT, None),)
    message = f"Error relocating {EXT}: __cxa_thread_atexit_impl: symbol not found"
    found = first(case(message, symbols=lack, tree=tree(), images={EXT: image(needed=("libc.musl-x86_64.so.1",))}))
    assert found.code == "glibc-symbol-on-musl" and "was built for musl" in found.title
    assert "musllinux" not in found.remedies[0].what


@pytest.mark.parametrize(("version", "code"), [("1.2.3", "musl-too-old"), ("1.2.5", "missing-symbol")])
def test_a_function_of_a_newer_musl(version: str, code: str) -> None:
    lack = (MissingSymbol("preadv2", None, EXT, None),)
    limits = MachineLimits(c_library=CLibrary("musl", version))
    message = f"Error relocating {EXT}: preadv2: symbol not found"
    found = first(case(message, symbols=lack, tree=tree(), images={EXT: image()}, limits=limits))
    assert found.code == code
    if code == "musl-too-old":
        assert found.title == f"{EXT} needs preadv2 of musl 1.2.5, and musl here is 1.2.3"


@pytest.mark.parametrize(
    ("name", "code"),
    [("__vsnprintf_chk", "glibc-symbol-on-musl"), ("fcntl64", "glibc-symbol-on-musl"), ("mine", "missing-symbol")],
)
def test_a_name_of_glibc_without_a_version_on_musl(name: str, code: str) -> None:
    """As in libraries linked with -nostdlib, or by tools that drop the versions."""
    lack = (MissingSymbol(name, None, EXT, None),)
    made = case(f"Error relocating {EXT}: {name}: symbol not found", symbols=lack, tree=tree(), images={EXT: image()})
    assert first(made).code == code
    other = case(f"{EXT}: undefined symbol: {name}", symbols=lack, tree=tree(), images={EXT: image()})
    assert first(other).code == "missing-symbol", "with glibc, its own names mean nothing"


@pytest.mark.parametrize(
    ("symbol", "definer", "offered"),
    [
        ("SSL_library_init", "/lib/libgnutls-openssl.so.27", False),  # OpenSSL has it no more, and this is another
        ("SSL_new", "/lib/libssl.so.3", True),
        ("GOMP_parallel", "/site/x.libs/libgomp-a34b3233.so.1.0.0", True),
        ("nobody_knows_it", "/lib/libany.so.1", True),
    ],
)
def test_a_library_that_defines_the_symbol_is_offered_if_it_may_be_meant(
    symbol: str, definer: str, offered: bool
) -> None:
    lack = (MissingSymbol(symbol, None, EXT, None),)
    found = first(case(f"{EXT}: undefined symbol: {symbol}", symbols=lack, tree=tree(), definers=(definer,)))
    assert (definer in found.explanation) is offered
    assert any("patchelf" in remedy.command for remedy in found.remedies) is offered
    assert ("which lib" in found.title) is offered
