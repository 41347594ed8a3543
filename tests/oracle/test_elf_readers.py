"""The ELF reader against other readers, and what it says is missing against the real loader."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builders.elf_file import ElfFile, Symbol, need
from dlltracer.binary.elf import parse_elf, read_elf
from dlltracer.errors import BinaryFormatError
from dlltracer.model.elf import ElfImage
from dlltracer.resolve.symbols import find_missing_symbols, find_missing_versions
from oracle.elf_peers import Summary, lief_summary, own_summary, pyelftools_summary, readelf_summary

PLACES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", f"{sys.base_prefix}/lib")
SAMPLE = 90
LARGEST = 4_000_000
"""Bytes; beyond, pyelftools takes seconds for a file."""

needs_gcc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("gcc") is None, reason="needs Linux and gcc"
)


@pytest.fixture(params=["readelf", "lief", "elftools"])
def peer(request: pytest.FixtureRequest) -> Callable[[str], Summary]:
    name: str = request.param
    if name == "readelf":
        if shutil.which("readelf") is None:
            pytest.skip("no readelf on this machine (binutils)")
        return readelf_summary
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (pip install lief pyelftools)")
    return lief_summary if name == "lief" else pyelftools_summary


def system_libraries() -> list[str]:
    """Libraries of this machine: every so-manieth, in the order of their paths."""
    found = []
    for place in PLACES:
        for folder, _, names in os.walk(place):
            for path in (f"{folder}/{name}" for name in names if ".so" in name):
                if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < LARGEST:
                    found.append(path)
    found = sorted(set(found))
    return [path for path in found[:: max(1, len(found) // SAMPLE)] if is_elf(path)]


def is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def test_libraries_of_this_machine(peer: Callable[[str], Summary]) -> None:
    paths = system_libraries()
    if not paths:
        pytest.skip("no ELF files on this machine")
    assert {path: own_summary(path) for path in paths} == {path: peer(path) for path in paths}


def test_no_file_of_this_machine_is_refused() -> None:
    paths = system_libraries()
    if not paths:
        pytest.skip("no ELF files on this machine")
    for path in paths:
        assert read_elf(path, symbols=True).symbols is not None, path


@needs_gcc
@pytest.mark.parametrize(
    "options",
    [
        ("-Wl,--hash-style=gnu",),
        ("-Wl,--hash-style=sysv",),
        ("-Wl,--hash-style=both", "-Wl,-z,now"),
        ("-Wl,-z,pack-relative-relocs",),
        ("-Wl,--version-script=versions", "-Wl,-soname,libf.so.1", "-Wl,-rpath,$ORIGIN/lib"),
        ("-Wl,--disable-new-dtags", "-Wl,-rpath,/opt/lib"),
        ("-m32", "-nostdlib"),
        ("-s", "-Wl,--gc-sections"),
    ],
    ids=" ".join,
)
def test_files_of_gcc(options: tuple[str, ...], tmp_path: Path, peer: Callable[[str], Summary]) -> None:
    (tmp_path / "versions").write_text("F_1 { global: f; };\nF_2 { global: g; local: *; } F_1;\n")
    source = """
    #include <stddef.h>
    extern int elsewhere(int), maybe(void) __attribute__((weak));
    __thread int per_thread;
    int f(int x) { return elsewhere(x) + per_thread; }
    static int (*table[])(int) = {f, f, elsewhere};
    int g(int x) { return table[x](x) + (maybe ? maybe() : 0); }
    __attribute__((visibility("hidden"))) int inside(void) { return 1; }
    """
    command = ["gcc", "-shared", "-fPIC", "-w", "-xc", "-", "-o", "f.so", *options]
    done = subprocess.run(command, input=source, text=True, cwd=tmp_path, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"gcc here cannot: {done.stderr.strip().splitlines()[-1]}")
    own = own_summary(str(tmp_path / "f.so"))
    assert own == peer(str(tmp_path / "f.so"))
    assert {"elsewhere", "maybe"} <= {name for name, _ in own.needs}
    assert {"f", "g"} <= {name for name, _ in own.provides}


@needs_gcc
def test_section_headers_are_not_needed(tmp_path: Path) -> None:
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-xc", "-", "-o", "f.so"], input="int g(void); int f(void) { return g(); }",
        text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    data = (tmp_path / "f.so").read_bytes()
    whole = parse_elf(data, symbols=True)
    loaded = max(segment.offset + segment.file_size for segment in whole.segments)
    assert loaded < len(data)
    assert parse_elf(data[:loaded], symbols=True) == whole
    with pytest.raises(BinaryFormatError, match="cut short"):
        parse_elf(data[: loaded - 1])


@needs_gcc
def test_a_file_of_debug_information_has_no_dynamic_section(tmp_path: Path) -> None:
    if shutil.which("objcopy") is None:
        pytest.skip("no objcopy on this machine (binutils)")
    command = ["gcc", "-g", "-shared", "-fPIC", "-nostdlib", "-xc", "-", "-o", "f.so"]
    subprocess.run(command, input="int f(void) { return 1; }", text=True, cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "--only-keep-debug", "f.so", "f.debug"], cwd=tmp_path, check=True)
    assert read_elf(str(tmp_path / "f.so")).is_dynamic
    assert not read_elf(str(tmp_path / "f.debug")).is_dynamic


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("little", [True, False])
def test_files_made_by_hand_are_what_they_say(bits: int, little: bool, tmp_path: Path) -> None:
    """The builder against readelf: the dynamic section, which readelf finds by program headers as we do."""
    if shutil.which("readelf") is None:
        pytest.skip("no readelf on this machine (binutils)")
    machine = {(64, True): 62, (32, True): 3, (64, False): 22, (32, False): 20}[bits, little]
    path = tmp_path / "f.so"
    symbols = (need("a", "V_1", "liba.so"), Symbol("b"), Symbol("c", "C_1"))
    file = ElfFile(bits, little, machine, needed=("liba.so",), soname="f.so", symbols=symbols, version_defs=("C_1",))
    path.write_bytes(file.build())
    # -D: by the program headers and the hash table, as we do; there are no section headers.
    command = ["readelf", "-W", "-D", "-d", "-s", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert "Shared library: [liba.so]" in run.stdout
    assert "Library soname: [f.so]" in run.stdout
    rows = [line.split() for line in run.stdout.splitlines() if " GLOBAL " in line]
    assert [row[7] for row in rows] == ["a@V_1", "b", "c@@C_1"]


def loaded_with(path: str) -> tuple[list[str], set[tuple[str, str | None, str]]] | None:
    """By `ldd -r`: the images that would be mapped, and the undefined symbols with version and image; `None` if this
    loader would not load the file, or not all that it needs."""
    run = subprocess.run(["ldd", "-r", path], capture_output=True, text=True, check=False)
    text = run.stdout + run.stderr
    mapped = re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x", text, re.MULTILINE)
    if not mapped or "not found" in text:
        return None
    undefined = re.findall(r"^undefined symbol: (\S+?)(?:, version (\S+))?\s+\((.*)\)$", text, re.MULTILINE)
    return [path, *mapped], {(name, version or None, os.path.realpath(image)) for name, version, image in undefined}


def test_ldd_misses_what_we_miss_in_libraries_of_this_machine() -> None:
    if shutil.which("ldd") is None:
        pytest.skip("no ldd on this machine")
    compared = 0
    for path in system_libraries()[::3]:
        answer = loaded_with(path)
        if answer is None:
            continue
        order = tuple(dict.fromkeys(answer[0]))
        images = {image: read_elf(image, symbols=True) for image in order}
        found = find_missing_symbols(images, order)
        assert {(one.name, one.version, os.path.realpath(one.requested_by)) for one in found} == answer[1], path
        assert find_missing_versions(images, order) == ()
        compared += 1
    if not compared:
        pytest.skip("ldd could load none of them")


class Scope:
    """Libraries in a folder, a module that needs them, and what the real loader says of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build(self, name: str, source: str, *options: str, versions: str = "") -> None:
        (self.folder / f"{name}.map").write_text(versions)
        script = [f"-Wl,--version-script={name}.map"] if versions else []
        command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-w", "-xc", "-", "-o", name, *script]
        command += [f"-Wl,-soname,{name}", "-L.", "-Wl,-rpath,$ORIGIN", *options]
        subprocess.run(command, input=source, text=True, cwd=self.folder, check=True)

    def load(self) -> str:
        """What the loader says to `module.so`: its error, or nothing."""
        code = (
            "import ctypes, os, sys\n"
            "try: ctypes.CDLL(sys.argv[1], os.RTLD_NOW)\n"
            "except OSError as error: print(error)\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, str(self.folder / "module.so")], capture_output=True, text=True, check=False
        )
        return run.stdout.strip()

    def images(self, *names: str) -> dict[str, ElfImage]:
        """The images by path: these, after them the C library, which the libraries of a test do not use."""
        paths = [str(self.folder / name) for name in names]
        return {path: read_elf(path, symbols=True) for path in paths}


@pytest.fixture
def scope(tmp_path: Path) -> Iterator[Scope]:
    probe = subprocess.run([sys.executable, "-c", "import os; print(os.confstr('CS_GNU_LIBC_VERSION'))"],
                           capture_output=True, text=True, check=False)  # fmt: skip
    if not probe.stdout.startswith("glibc"):
        pytest.skip("the C library of this system is not glibc")
    yield Scope(tmp_path)


FULL = "L_1 { global: f; };\nL_2 { global: g; };\n"
USER = "int f(void), g(void); int use(void) { return f() + g(); }"


@needs_gcc
@pytest.mark.parametrize(
    ("source", "versions", "symbol", "version"),
    [
        pytest.param("int f(void) {} int g(void) {}", FULL, None, None, id="as linked"),
        pytest.param("int f(void) {} int g(void) {}", "L_1 { global: f; g; };", None, "L_2", id="version gone"),
        pytest.param("int f(void) {} int h(void) {}", "L_1 {f;};\nL_2 {h;};", "g", None, id="symbol gone"),
        pytest.param("int f(void) {} int g(void) {}", "L_1 {f; g;};\nL_2 {nothing;};", "g", None, id="version moved"),
        pytest.param("int f(void) {}", FULL, "g", None, id="version without symbol"),
    ],
)
def test_the_loader_misses_what_we_say(
    scope: Scope, source: str, versions: str, symbol: str | None, version: str | None
) -> None:
    scope.build("liblib.so", "int f(void) {} int g(void) {}", versions=FULL)
    scope.build("module.so", USER, "-llib")
    assert scope.load() == ""
    scope.build("liblib.so", source, versions=versions)
    check(scope, symbol, version)


def check(scope: Scope, symbol: str | None, version: str | None) -> None:
    output = scope.load()
    images = scope.images("module.so", "liblib.so")
    symbols = find_missing_symbols(images, tuple(images))
    versions = find_missing_versions(images, tuple(images))
    assert [one.name for one in symbols] == ([symbol] if symbol else [])
    assert [one.version for one in versions] == ([version] if version else [])
    if version:
        assert f"version `{version}' not found (required by {versions[0].requested_by})" in output
    elif symbol:
        asked = f", version {symbols[0].version}" if symbols[0].version else ""
        assert output.endswith(f"undefined symbol: {symbol}{asked}")
    else:
        assert output == ""


@needs_gcc
@pytest.mark.parametrize(
    ("source", "versions", "missing"),
    [
        pytest.param("int f(void) {}", "", False, id="none"),
        pytest.param("int f(void) {}", "A { f; };", False, id="default"),
        pytest.param('int x(void) {} __asm__(".symver x, f@A");', "A { nothing; };", False, id="hidden, first version"),
        pytest.param('int x(void) {} __asm__(".symver x, f@B");', "A {y;};\nB {z;};", True, id="hidden, no default"),
        pytest.param(
            'int x(void) {} __asm__(".symver x, f@B"); int y(void) {} __asm__(".symver y, f@@C");',
            "A {a;};\nB {b;};\nC {c;};", False, id="hidden and default",
        ),
        pytest.param('int f(void) {}', "{ global: g; local: *; };", True, id="local"),
        pytest.param('__attribute__((visibility("protected"))) int f(void) {}', "", False, id="protected"),
    ],
)  # fmt: skip
def test_the_loader_binds_references_without_a_version_as_we_say(
    scope: Scope, source: str, versions: str, missing: bool
) -> None:
    scope.build("liblib.so", "int f(void) {}")
    scope.build("module.so", "int f(void); int use(void) { return f(); }", "-llib")
    scope.build("liblib.so", source, versions=versions)
    check(scope, "f" if missing else None, None)


@needs_gcc
def test_the_loader_takes_a_library_that_lost_all_its_versions(scope: Scope) -> None:
    scope.build("liblib.so", "int f(void) {} int g(void) {}", versions=FULL)
    # Of a library without any table of versions glibc asserts that nobody needs one; real ones need the C library's.
    scope.build("libother.so", "int other(void) {}", versions="O_1 { other; };")
    scope.build("module.so", USER, "-llib")
    source = "int other(void); int f(void) { return other(); } int g(void) {}"
    scope.build("liblib.so", source, "-lother")
    output = scope.load()
    images = scope.images("module.so", "liblib.so", "libother.so")
    assert output == ""
    assert not images[str(scope.folder / "liblib.so")].is_versioned
    assert find_missing_versions(images, tuple(images)) == ()
    assert find_missing_symbols(images, tuple(images)) == ()


@needs_gcc
def test_the_loader_finds_a_version_in_another_library(scope: Scope) -> None:
    scope.build("liblib.so", "int f(void) {} int g(void) {}", versions=FULL)
    scope.build("libother.so", "int g(void) {}", versions="L_2 { g; };")
    scope.build("module.so", USER, "-llib", "-Wl,--no-as-needed", "-lother")
    scope.build("liblib.so", "int f(void) {}", versions="L_1 { f; };\nL_2 { nothing; };")
    assert scope.load() == ""
    images = scope.images("module.so", "liblib.so", "libother.so")
    assert find_missing_symbols(images, tuple(images)) == ()
