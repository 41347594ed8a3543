"""Failures whose cause the exception does not name: needs left out, links, silent loads, a module's own checks."""

from __future__ import annotations

from scenarios.linux.workshop import Workshop
from scenarios.scenario import Question, Scenario

USES = "int paint_all(void); int use(void) { return paint_all(); }\n"
PAINTS = "int paint_all(void) { return 1; }\n"
LATE = "-Wl,--unresolved-symbols=ignore-all"


def underlinked_leaf(shop: Workshop) -> Question:
    """A library two levels down left out a need; the one that has the symbol lies beside another image."""
    shop.library("deep/libdeep.so.2", USES, options=["-Wl,-z,now"])
    shop.library("libtop.so", "int use(void); int top(void) { return use(); }\n", ["deep/libdeep.so.2"],
                 ["-Wl,-rpath,$ORIGIN/deep", LATE])  # fmt: skip
    shop.library("libpaint.so.5", PAINTS)
    shop.module("ext", "int top(void);\n", ["libtop.so"], ["-Wl,-rpath,$ORIGIN", LATE], init="top()")
    return shop.ask("ext")


def soname_by_link(shop: Workshop) -> Question:
    """The newer library has a link by the older one's name; the older one lies elsewhere."""
    for number in ("3", "4"):
        shop.write(f"v{number}", f"GRAIN_{number} {{ global: grain; }};\n")
        shop.library(f"{'old' if number == '3' else 'env'}/libgrain.so.{number}", "int grain(void) { return 1; }\n",
                     options=[f"-Wl,--version-script=v{number}"])  # fmt: skip
    shop.module("ext", "int grain(void);\n", ["old/libgrain.so.3"], ["-Wl,-rpath,$ORIGIN/env"], init="grain()")
    (shop.folder / "env/libgrain.so.3").symlink_to("libgrain.so.4")
    return shop.ask("ext")


def silent_load(shop: Workshop) -> Question:
    """A package catches the error of its own library, and fails for want of it with words of its own."""
    shop.library("ops/native/libops.so", USES, options=["-Wl,-z,now"])
    shop.write(
        "ops/__init__.py",
        "import ctypes, os\ntable = {}\ntry:\n"
        "    table['go'] = ctypes.CDLL(os.path.join(os.path.dirname(__file__), 'native', 'libops.so'))\n"
        "except OSError:\n    pass\nif not table:\n    raise RuntimeError('no operators')\n",
    )
    return shop.ask("ops")


CHECKS = """int engine_version(void);
#define CHECK() do { if (engine_version() != 7) { \\
    PyErr_Format(PyExc_RuntimeError, "built for libengine 7, and %d is here: version mismatch", engine_version()); \\
    return 0; } } while (0)
"""


def library_refused(shop: Workshop) -> Question:
    shop.library("engine/libengine.so.1", "int engine_version(void) { return 6; }\n")
    shop.module("ext", CHECKS, ["engine/libengine.so.1"], ["-Wl,-rpath,$ORIGIN/engine"], init="CHECK()")
    return shop.ask("ext")


def relative_library_path(shop: Workshop) -> Question:
    shop.library("native/libleaf.so.1", "int leaf(void) { return 1; }\n")
    shop.module("ext", "int leaf(void);\n", ["native/libleaf.so.1"], init="leaf()")
    shop.write("a/b/empty", "")
    shop.write("app.py", "import ext\n")
    asked = shop.ask(str(shop.folder / "app.py"), environment={"LD_LIBRARY_PATH": "./native"})
    return Question(asked.arguments, asked.environment, shop.folder / "a" / "b")


ABORTS = """#include <stdio.h>
#include <stdlib.h>
void need(int have) {
 fprintf(stderr, "libkeeper was built with another layout of its tables\\nwanted %d\\n", have); abort(); }
"""


def library_aborts(shop: Workshop) -> Question:
    shop.library("keep/libkeeper.so.3", ABORTS)
    shop.module("ext", "void need(int);\n", ["keep/libkeeper.so.3"], ["-Wl,-rpath,$ORIGIN/keep"], init="need(4)")
    return shop.ask("ext")


def built_for_another_package(shop: Workshop) -> Question:
    """Cython's words, wrapped in an exception of the package's own."""
    shop.module("_fast", "#define FAIL() do { PyErr_SetString(PyExc_ValueError, \"numx.dtype size changed, "
                "may indicate binary incompatibility. Expected 96 from C header, got 88 from PyObject\"); "
                "return 0; } while (0)\n",
                init="FAIL()")  # fmt: skip
    shop.write("fast.py", "try:\n    import _fast\nexcept ValueError:\n    raise ImportError('fast is broken')\n")
    return shop.ask("fast")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario(
        "need-left-out", "a library does not list the library that has its symbol", underlinked_leaf, "missing-symbol",
        mentions=("paint_all", "libpaint.so.5", "libdeep.so.2"),
    ),
    Scenario(
        "soname-by-link", "a link gives a library the soname of an older one", soname_by_link, "missing-version",
        mentions=("GRAIN_3", "libgrain.so.4", "ln"),
    ),
    Scenario(
        "silent-load", "a package hid that its library did not load", silent_load, "missing-symbol",
        mentions=("libops.so", "paint_all"),
    ),
    Scenario(
        "library-refused", "a module does not accept the library that it got", library_refused, "library-check-failed",
        mentions=("engine/libengine.so.1", "version mismatch"),
    ),
    Scenario(
        "relative-library-path", "LD_LIBRARY_PATH is relative", relative_library_path, "relative-library-path",
        mentions=("native/libleaf.so.1",),
    ),
    Scenario(
        "library-aborts-with-words", "a library writes what is wrong, and aborts", library_aborts, "abort",
        subject="keep/libkeeper.so.3", mentions=("another layout of its tables",),
    ),
    Scenario(
        "built-for-another-package", "a module was compiled for another release of a package",
        built_for_another_package, "built-against-other-package", mentions=("numx", "size changed"),
    ),
)  # fmt: skip
