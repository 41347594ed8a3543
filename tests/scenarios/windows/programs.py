"""Failures around a program: what cannot start, what ends a process from within, exceptions that quote the loader's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from builders.pe_file import build_pe
from scenarios.scenario import IMPORTED, UNDECIDED, Question, Scenario
from windows.lab import windows_path

from .workshop import FUNCTION, Workshop

_DLLTOOL = "x86_64-w64-mingw32-dlltool"

# What `throw std::runtime_error("no device")` raises in a module built by Visual C++ (ehdata.h): the tables that lead
# to the type, with offsets from the base of an image; the object begins with its table of functions and its text.
THROW = """
#include <windows.h>
#include <string.h>
struct type { void *table, *spare; char name[32]; };
static struct type base = { 0, 0, ".?AVexception@std@@" }, top = { 0, 0, ".?AVruntime_error@std@@" };
static unsigned kinds[2][7], list[3], info[4];
static struct { void *table; const char *text; } object = { 0, "no device" };
static unsigned at(const void *it) { return (unsigned)((char *)it - (char *)GetModuleHandleA("thrower.dll")); }
__declspec(dllexport) int work(void)
{
    kinds[0][1] = at(&top); kinds[1][1] = at(&base);
    list[0] = 2; list[1] = at(kinds[0]); list[2] = at(kinds[1]);
    info[3] = at(list);
    ULONG_PTR self = (ULONG_PTR)GetModuleHandleA("thrower.dll");
    ULONG_PTR words[4] = { 0x19930520, (ULONG_PTR)&object, (ULONG_PTR)info, self };
    RaiseException(0xE06D7363, EXCEPTION_NONCONTINUABLE, 4, words);
    return 0;
}
"""
RAISES_QUOTED = """
import ctypes
errors = []
for name in ("first_gone.dll", "second_gone.dll"):
    try:
        ctypes.CDLL(name)
    except OSError as error:
        errors.append(str(error))
raise RuntimeError("no runtime to be had: " + "; ".join(errors))
"""
RAISES_OTHER = """
import ctypes
try:
    ctypes.CDLL("optional_gone.dll")
except OSError:
    pass
raise RuntimeError("the licence has expired")
"""


def stub_missing(shop: Workshop) -> Question:
    (shop.python() / "python3.dll").unlink()
    shop.module("ext", {"python3.dll": ["PyModule_Create2"]})
    return shop.question("ext")


def newer_python_beside(shop: Workshop) -> Question:
    (shop.python() / "python312.dll").write_bytes(build_pe(None, ["PyModule_Create2"]))
    shop.module("ext", {"python312.dll": ["PyModule_Create2"]})
    return shop.question("ext")


def interpreter_cannot_start(shop: Workshop) -> Question:
    (shop.python() / "python311.dll").unlink()
    return shop.question("ssl")


def program(shop: Workshop) -> Question:
    shop.library("engine.dll", {"engine_gone.dll": ["f"]})
    shop.write("app.exe", build_pe({"engine.dll": ["f"]}, None, is_dll=False))
    return shop.question("app.exe")


def program_healthy(shop: Workshop) -> Question:
    shop.library("engine.dll", {"kernel32.dll": ["Sleep"]})
    shop.write("app.exe", build_pe({"engine.dll": ["f"], "kernel32.dll": ["ExitProcess"]}, None, is_dll=False))
    return shop.question("app.exe")


def quoted(shop: Workshop) -> Question:
    shop.write("quotes.py", RAISES_QUOTED)
    return shop.question("quotes")


def not_quoted(shop: Workshop) -> Question:
    shop.write("other.py", RAISES_OTHER)
    return shop.question("other")


def native_error(shop: Workshop) -> Question:
    engine = windows_path(shop.library("engine.dll", {"engine_gone.dll": ["f"]})).replace("\\", "\\\\")
    shop.pyd("ext", start=f'PyErr_SetFromWindowsErrWithFilename(126, "{engine}"); return NULL; ')
    return shop.question("ext")


def native_error_without_name(shop: Workshop) -> Question:
    shop.pyd("ext", start="PyErr_SetFromWindowsErr(126); return NULL; ")
    return shop.question("ext")


def reraised_module(shop: Workshop) -> Question:
    shop.module("pkg/_core.cp310-win_amd64")
    text = "try:\n    import pkg._core\nexcept ImportError as error:\n    raise ImportError('broken') from error\n"
    shop.write("pkg/__init__.py", text)
    return shop.question("pkg")


def _delayed(shop: Workshop) -> None:
    """A module that calls `later` of later.dll, which is loaded at that call."""
    definition = shop.folder / "later.def"
    definition.write_text("LIBRARY later.dll\nEXPORTS\nlater\n", encoding="ascii")
    library = shop.folder / "liblater.a"
    command = [_DLLTOOL, "-d", str(definition), "--output-delaylib", str(library), "-m", "i386:x86-64"]
    subprocess.run(command, check=True, capture_output=True)
    shop.pyd("ext", ["later"], [Path(library)])


def delayed_call(shop: Workshop) -> Question:
    _delayed(shop)
    return shop.question("ext")


def delayed_symbol(shop: Workshop) -> Question:
    _delayed(shop)
    shop.python()
    (shop.folder / "python" / "later.dll").write_bytes(build_pe(None, ["earlier"]))
    return shop.question("ext")


def thrown(shop: Workshop) -> Question:
    shop.pyd("ext", ["work"], [shop.dll("site/thrower.dll", THROW)])
    return shop.question("ext")


def healthy_function(shop: Workshop) -> Question:
    shop.pyd("ext", ["work"], [shop.dll("site/worker.dll", FUNCTION.format(name="work"))])
    return shop.question("ext")


W = Workshop
SCENARIOS: tuple[Scenario[W], ...] = (
    Scenario("stub-missing", "no python3.dll beside python.exe", stub_missing, "incomplete-python", "python3.dll",
             ("ext.pyd", "limited API")),
    Scenario("newer-beside", "python312.dll beside python311.dll", newer_python_beside, "other-libpython", "ext.pyd",
             ("Python 3.12",)),
    Scenario("no-interpreter", "a python.exe that cannot start", interpreter_cannot_start, "incomplete-python",
             "python311.dll", ("python.exe",)),
    Scenario("program", "a program that cannot start", program, "missing-image", "engine_gone.dll", ("app.exe",)),
    Scenario("program-healthy", "a program that can", program_healthy, IMPORTED),
    Scenario("quoted", "another exception quotes ctypes", quoted, "no-such-file", "first_gone.dll",
             ("second_gone.dll", "RuntimeError")),
    Scenario("not-quoted", "a load that the program can do without", not_quoted, UNDECIDED, "",
             ("optional_gone.dll", "the licence has expired")),
    Scenario("native-error", "an OSError of native code", native_error, "missing-image", "engine_gone.dll"),
    Scenario("native-nameless", "an OSError of native code that names nothing", native_error_without_name, UNDECIDED),
    Scenario("reraised-module", "ModuleNotFoundError, raised again", reraised_module, "other-python", "_core.cp310",
             ("Python 3.10",)),
    Scenario("delayed-call", "a delayed need, called", delayed_call, "missing-delayed-image", "later.dll",
             ("ext.pyd",)),
    Scenario("delayed-symbol", "a delayed function, called", delayed_symbol, "missing-delayed-symbol", "later.dll"),
    Scenario("thrown", "a C++ exception", thrown, "cpp-exception", "ext.pyd", ("std::runtime_error", "no device")),
    Scenario("healthy-function", "a function of a need", healthy_function, IMPORTED),
)  # fmt: skip
