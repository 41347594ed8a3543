"""Files that are there and are not what the loader takes."""

from __future__ import annotations

import struct
import subprocess

from scenarios.linux.workshop import SUFFIX, Workshop
from scenarios.scenario import Question, Scenario

ORIGIN = "-Wl,-rpath,$ORIGIN"
LEAF = "int leaf(void) { return 1; }\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"  # noqa: E501
HTML = (
    "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>" + "Not found. " * 20 + "</body></html>\n"
)
SCRIPT = "/* GNU ld script\n   Use the shared library, but some functions are only in\n   the static library.  */\nGROUP ( /lib/x86_64-linux-gnu/libc.so.6 AS_NEEDED ( /lib64/ld-linux-x86-64.so.2 ) )\n"  # noqa: E501


def _needs_leaf(shop: Workshop) -> None:
    shop.library("libleaf.so.1", LEAF)
    shop.module("ext", "int leaf(void);", ["libleaf.so.1"], [ORIGIN], init="leaf()")


def dependency_of_other_machine(shop: Workshop) -> Question:
    _needs_leaf(shop)
    shop.patch("libleaf.so.1", 18, struct.pack("<H", 183))
    return shop.ask("ext")


def dependency_of_32_bits(shop: Workshop) -> Question:
    _needs_leaf(shop)
    shop.patch("libleaf.so.1", 4, b"\x01")
    shop.patch("libleaf.so.1", 18, struct.pack("<H", 3))
    return shop.ask("ext")


def module_of_32_bits(shop: Workshop) -> Question:
    shop.module("ext")
    shop.patch(f"ext{SUFFIX}", 4, b"\x01")
    shop.patch(f"ext{SUFFIX}", 18, struct.pack("<H", 3))
    return shop.ask("ext")


def module_of_other_machine(shop: Workshop) -> Question:
    shop.module("ext")
    shop.patch(f"ext{SUFFIX}", 18, struct.pack("<H", 183))
    return shop.ask("ext")


def dependency_text(shop: Workshop) -> Question:
    _needs_leaf(shop)
    shop.write("libleaf.so.1", LFS)
    return shop.ask("ext")


def _module_is(shop: Workshop, content: str | bytes) -> Question:
    shop.write(f"ext{SUFFIX}", content)
    return shop.ask("ext")


def lfs(shop: Workshop) -> Question:
    return _module_is(shop, LFS)


def html(shop: Workshop) -> Question:
    return _module_is(shop, HTML)


def empty(shop: Workshop) -> Question:
    return _module_is(shop, b"")


def zeros(shop: Workshop) -> Question:
    return _module_is(shop, bytes(8192))


def windows(shop: Workshop) -> Question:
    return _module_is(shop, b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(200))


def short(shop: Workshop) -> Question:
    shop.module("ext")
    shop.cut(f"ext{SUFFIX}", 40)
    return shop.ask("ext")


def header_only(shop: Workshop) -> Question:
    shop.module("ext")
    shop.cut(f"ext{SUFFIX}", 100)
    return shop.ask("ext")


def linker_script(shop: Workshop) -> Question:
    shop.write("libc.so", SCRIPT)
    return shop.ask("-c", f"import ctypes\nctypes.CDLL({str(shop.folder / 'libc.so')!r})")


def program(shop: Workshop) -> Question:
    code = "int main(void) { return 0; }"
    subprocess.run(["gcc", "-xc", "-", "-o", str(shop.folder / "tool")], input=code, text=True, check=True)
    return shop.ask("-c", f"import ctypes\nctypes.CDLL({str(shop.folder / 'tool')!r})")


def dangling(shop: Workshop) -> Question:
    _needs_leaf(shop)
    shop.remove("libleaf.so.1")
    (shop.folder / "libleaf.so.1").symlink_to("libleaf.so.1.2.3")
    return shop.ask("ext")


def looping(shop: Workshop) -> Question:
    _needs_leaf(shop)
    shop.remove("libleaf.so.1")
    (shop.folder / "libleaf.so.1").symlink_to("libleaf.so.1")
    return shop.ask("ext")


def folder(shop: Workshop) -> Question:
    _needs_leaf(shop)
    shop.remove("libleaf.so.1")
    (shop.folder / "libleaf.so.1").mkdir()
    return shop.ask("ext")


def misaligned(shop: Workshop) -> Question:
    """As strip leaves a file that patchelf has worked on: address and offset differ within a page."""
    shop.module("ext")
    path = shop.folder / f"ext{SUFFIX}"
    data = path.read_bytes()
    start, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    loads = [start + n * size for n in range(count) if struct.unpack_from("<I", data, start + n * size)[0] == 1]
    offset = struct.unpack_from("<Q", data, loads[-1] + 8)[0]
    shop.patch(f"ext{SUFFIX}", loads[-1] + 8, struct.pack("<Q", offset - 16))
    return shop.ask("ext")


def _zeroed(shop: Workshop, section: str) -> Question:
    """As a download leaves a file that was given its whole size first."""
    path = shop.module("ext")
    listed = subprocess.run(["readelf", "-SW", path], capture_output=True, text=True, check=True).stdout.split(section)
    offset, size = (int(number, 16) for number in listed[1].split()[2:4])
    shop.patch(path.name, offset, bytes(size))
    return shop.ask("ext")


def without_symbols(shop: Workshop) -> Question:
    return _zeroed(shop, ".dynsym ")


def without_names(shop: Workshop) -> Question:
    return _zeroed(shop, ".dynstr ")


def truncated(shop: Workshop) -> Question:
    shop.module("ext", "static const char filler[200000] = {1}; const char *f(void) { return filler; }")
    size = (shop.folder / f"ext{SUFFIX}").stat().st_size
    shop.cut(f"ext{SUFFIX}", size // 2)
    return shop.ask("ext")


def truncated_dependency(shop: Workshop) -> Question:
    shop.library("libleaf.so.1", LEAF + "static char filler[200000] = {1}; char *f(void) { return filler; }")
    shop.module("ext", "int leaf(void);", ["libleaf.so.1"], [ORIGIN], init="leaf()")
    size = (shop.folder / "libleaf.so.1").stat().st_size
    shop.cut("libleaf.so.1", size // 2)
    return shop.ask("ext")


def object_file(shop: Workshop) -> Question:
    shop.write("x.c", "int answer(void) { return 42; }\n")
    subprocess.run(["gcc", "-c", "-fPIC", "x.c", "-o", f"ext{SUFFIX}"], cwd=shop.folder, check=True)
    return shop.ask("ext")


def rewritten_ends(shop: Workshop) -> Question:
    path = shop.module("ext", f'const char *lines = "{40 * (chr(92) + "n")}";')
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    return shop.ask("ext")


def archive(shop: Workshop) -> Question:
    shop.write("libx.so", "!<arch>\nx.o/            0           0     0     644     4         `\nabcd")
    shop.write("app.py", f"import ctypes\nctypes.CDLL({str(shop.folder / 'libx.so')!r})\n")
    return shop.ask("app.py")


def no_function(shop: Workshop) -> Question:
    shop.module("other")
    shop.move(f"other{SUFFIX}", f"ext{SUFFIX}")
    return shop.ask("-c", "import ext")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("machine-dependency", "the only copy is for AArch64: glibc says there is none",
             dependency_of_other_machine, "wrong-machine", "libleaf.so.1", ("AArch64",)),
    Scenario("class-dependency", "the only copy has 32 bits", dependency_of_32_bits, "wrong-machine", "libleaf.so.1"),
    Scenario("class-module", "the extension module has 32 bits", module_of_32_bits, "wrong-machine", "ext."),
    Scenario("machine-module", "the extension module is for AArch64", module_of_other_machine, "wrong-machine", "ext.",
             ("AArch64",)),
    Scenario("lfs-dependency", "a library is a Git LFS pointer", dependency_text, "not-an-image", "libleaf.so.1",
             ("Git LFS", "git lfs pull")),
    Scenario("lfs-module", "the module is a Git LFS pointer", lfs, "not-an-image", "ext.", ("Git LFS",)),
    Scenario("html-module", "the module is a web page", html, "not-an-image", "ext.", ("HTML",)),
    Scenario("empty-module", "the module is an empty file", empty, "not-an-image", "ext.", ("empty",)),
    Scenario("zero-module", "the module is nothing but zeros", zeros, "not-an-image", "ext.", ("zeros",)),
    Scenario("pe-module", "the module is a file of Windows", windows, "not-an-image", "ext.", ("Windows",)),
    Scenario("short-module", "the module has 40 bytes left", short, "truncated-image", "ext."),
    Scenario("header-module", "the module has its header left", header_only, "truncated-image", "ext."),
    Scenario("linker-script", "libc.so is a text for linkers", linker_script, "not-an-image", "libc.so", ("linker",)),
    Scenario("program", "a program is loaded as a library", program, "not-a-library", "tool"),
    Scenario("object-file", "the module was compiled and not linked", object_file, "not-a-library", "ext.",
             ("an object file", "-shared")),
    Scenario("rewritten-ends", "git took the module for a text", rewritten_ends, "not-an-image", "ext.", ("CR LF",)),
    Scenario("archive", "a static library is loaded", archive, "not-an-image", "libx.so", ("a static library",)),
    Scenario("dangling-link", "a link that leads nowhere", dangling, "broken-link", "libleaf.so.1",
             ("libleaf.so.1.2.3",)),
    Scenario("looping-link", "a link that leads to itself", looping, "broken-link", "libleaf.so.1",
             ("leads back to itself",)),
    Scenario("folder-dependency", "a folder has the library's name", folder, "not-an-image", "libleaf.so.1",
             ("is a folder, not a library",)),
    Scenario("misaligned", "address and offset of a segment differ within a page", misaligned, "misaligned-image",
             "ext.", ("patchelf",)),
    Scenario("zeroed-symbols", "the symbol table is zeros: the initialiser crashes", without_symbols, "damaged-image",
             "ext.", ("all zeros", "fetch or install")),
    Scenario("zeroed-names", "the names of the symbols are zeros", without_names, "damaged-image", "ext.",
             ("no names",)),
    Scenario("truncated-module", "the module is cut short: SIGBUS, no exception", truncated, "truncated-image", "ext."),
    Scenario("truncated-library", "a library is cut short", truncated_dependency, "truncated-image", "libleaf.so.1"),
    Scenario("renamed-module", "the file has the module of another name", no_function, "no-module-function", "ext.",
             ("PyInit_other",)),
)  # fmt: skip
