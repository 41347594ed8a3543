"""Symbols and versions that are not there, and copies that are in the way."""

from __future__ import annotations

from scenarios.linux.workshop import Workshop
from scenarios.scenario import Question, Scenario

ORIGIN = "-Wl,-rpath,$ORIGIN"
OLD = "int base(void) { return 1; }\n"
NEW = OLD + "int extra(void) { return 2; }\n"
MAP_1 = "V_1 { global: base; local: *; };\n"
MAP_2 = MAP_1 + "V_2 { global: extra; } V_1;\n"
SONAME = "-Wl,-soname,libshared.so.1"


def _two_copies(shop: Workshop, *, versions: bool = False) -> None:
    """old/libshared.so.1 without `extra`, new/libshared.so.1 with it."""
    shop.write("v1.map", MAP_1)
    shop.write("v2.map", MAP_2)
    script = ("-Wl,--version-script,v1.map", "-Wl,--version-script,v2.map") if versions else ("", "")
    shop.library("old/libshared.so.1", OLD, options=[o for o in (SONAME, script[0]) if o])
    shop.library("new/libshared.so.1", NEW, options=[o for o in (SONAME, script[1]) if o])


def _wants_new(shop: Workshop, name: str, *options: str) -> None:
    shop.module(name, "int extra(void);", ["new/libshared.so.1"], options, init="extra()")


def plain(shop: Workshop) -> Question:
    shop.library("libshared.so.1", NEW)
    shop.module("ext", "int extra(void);", ["libshared.so.1"], [ORIGIN], init="extra()")
    shop.library("libshared.so.1", OLD)
    return shop.ask("ext")


def nobody(shop: Workshop) -> Question:
    shop.module("ext", "int flush_all_the_caches(void);", init="flush_all_the_caches()")
    return shop.ask("ext")


def elsewhere(shop: Workshop) -> Question:
    _two_copies(shop)
    _wants_new(shop, "ext", "-Wl,-rpath,$ORIGIN/old")
    return shop.ask("ext")


def version(shop: Workshop) -> Question:
    _two_copies(shop, versions=True)
    _wants_new(shop, "ext", "-Wl,-rpath,$ORIGIN/old")
    return shop.ask("ext")


def library_path(shop: Workshop) -> Question:
    _two_copies(shop, versions=True)
    _wants_new(shop, "ext", "-Wl,--enable-new-dtags,-rpath,$ORIGIN/new")
    return shop.ask("ext", environment={"LD_LIBRARY_PATH": str(shop.folder / "old")})


def library_path_symbol(shop: Workshop) -> Question:
    _two_copies(shop)
    _wants_new(shop, "ext", "-Wl,--enable-new-dtags,-rpath,$ORIGIN/new")
    return shop.ask("ext", environment={"LD_LIBRARY_PATH": str(shop.folder / "old")})


def _first(shop: Workshop, *, versions: bool) -> Question:
    _two_copies(shop, versions=versions)
    shop.module("alpha/_core", "int base(void);", ["old/libshared.so.1"], ["-Wl,-rpath,$ORIGIN/../old"], init="base()")
    shop.write("alpha/__init__.py", "from alpha import _core\n")
    shop.module("beta/_core", "int extra(void);", ["new/libshared.so.1"], ["-Wl,-rpath,$ORIGIN/../new"], init="extra()")
    shop.write("beta/__init__.py", "from beta import _core\n")
    return shop.ask("-c", "import alpha\nimport beta")


def first_wins(shop: Workshop) -> Question:
    return _first(shop, versions=False)


def first_wins_version(shop: Workshop) -> Question:
    return _first(shop, versions=True)


def first_wins_other_order(shop: Workshop) -> Question:
    _first(shop, versions=True)
    return shop.ask("-c", "import beta\nimport alpha")


def glibc(shop: Workshop) -> Question:
    shop.write("libc.map", "GLIBC_2.99 { global: new_in_libc; };\n")
    shop.library(
        "libc.so.6", "int new_in_libc(void) { return 1; }", options=["-nostdlib", "-Wl,--version-script,libc.map"]
    )  # fmt: skip
    shop.module("ext", "int new_in_libc(void);", ["libc.so.6"], init="new_in_libc()")
    shop.remove("libc.so.6")
    return shop.ask("ext")


def libstdcxx(shop: Workshop) -> Question:
    shop.write("std.map", "GLIBCXX_3.4.99 { global: new_in_std; };\n")
    shop.library(
        "libstdc++.so.6", "int new_in_std(void) { return 1; }", options=["-nostdlib", "-Wl,--version-script,std.map"]
    )  # fmt: skip
    shop.module("ext", "int new_in_std(void);", ["libstdc++.so.6"], init="new_in_std()")
    shop.remove("libstdc++.so.6")
    return shop.ask("ext")


BASE_CODE = "#include <string>\nnamespace c10 { void report(std::string const& text, int line); }\n"


def _string_abi(shop: Workshop, library: int, module: int) -> Question:
    code = BASE_CODE + "namespace c10 { void report(std::string const& text, int line) {} }\n"
    shop.library("libc10x.so", code, options=[f"-D_GLIBCXX_USE_CXX11_ABI={library}"], cplusplus=True)
    shop.module(
        "flash", BASE_CODE, ["libc10x.so"], [ORIGIN, f"-D_GLIBCXX_USE_CXX11_ABI={module}"],
        init='c10::report("hello", 3)', cplusplus=True,
    )  # fmt: skip
    return shop.ask("flash")


def old_strings(shop: Workshop) -> Question:
    return _string_abi(shop, library=1, module=0)


def new_strings(shop: Workshop) -> Question:
    return _string_abi(shop, library=0, module=1)


def cplusplus(shop: Workshop) -> Question:
    code = "namespace c10 { struct Tensor {}; void report(Tensor const&, long line); }\n"
    shop.library("libc10x.so", "namespace c10 { struct Tensor {}; void report(Tensor const&) {} }", cplusplus=True)
    shop.module("flash", code, ["libc10x.so"], [ORIGIN], init="c10::report(c10::Tensor(), 3)", cplusplus=True)
    return shop.ask("flash")


def python_api(shop: Workshop) -> Question:
    shop.module("ext.so", "int PyUnicode_FromTheFuture(void);", init="PyUnicode_FromTheFuture()")
    return shop.ask("ext")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("symbol-gone", "the library that was linked lacks the symbol now", plain, "missing-symbol", "extra",
             ("libshared.so.1",)),
    Scenario("symbol-nobody", "a symbol that no library has", nobody, "missing-symbol", "flush_all_the_caches"),
    Scenario("symbol-elsewhere", "another copy has the symbol", elsewhere, "missing-symbol", "extra",
             ("old/libshared.so.1", "new/libshared.so.1", "RUNPATH")),
    Scenario("version-missing", "the copy found has V_1, V_2 is needed", version, "missing-version", "V_2",
             ("old/libshared.so.1", "new/libshared.so.1", "V_1")),
    Scenario("version-library-path", "LD_LIBRARY_PATH leads to an older copy", library_path, "library-path-wins",
             "old/libshared.so.1", ("V_2", "new/libshared.so.1")),
    Scenario("symbol-library-path", "the same, without versions", library_path_symbol, "library-path-wins",
             "old/libshared.so.1", ("extra", "new/libshared.so.1")),
    Scenario("first-wins", "an import loaded another copy first (ldd is clean)", first_wins, "first-wins",
             "old/libshared.so.1", ("import alpha", "new/libshared.so.1", "import beta before alpha")),
    Scenario("first-wins-version", "the same, with versions", first_wins_version, "first-wins", "old/libshared.so.1",
             ("V_2", "alpha")),
    Scenario("first-wins-reversed", "the other order works", first_wins_other_order, "imported"),
    Scenario("glibc-too-old", "built for a newer glibc", glibc, "glibc-too-old", "GLIBC_2.99", ("libc.so.6",)),
    Scenario("libstdcxx-too-old", "built with a newer GCC", libstdcxx, "missing-version", "GLIBCXX_3.4.99",
             ("libstdc++.so.6", "GLIBCXX_3.4.3")),
    Scenario("string-abi-old", "built with the old std::string", old_strings, "other-string-abi", "",
             ("_GLIBCXX_USE_CXX11_ABI=1", "libc10x.so")),
    Scenario("string-abi-new", "built with the new std::string", new_strings, "other-string-abi", "", ("libc10x.so",)),
    Scenario("symbol-cplusplus", "a function has other parameters now", cplusplus, "missing-symbol", "",
             ("c10::report(c10::Tensor const&, long)", "PyTorch")),
    Scenario("python-api", "a function that this interpreter does not have", python_api, "python-api-missing",
             "PyUnicode_FromTheFuture"),
)  # fmt: skip
