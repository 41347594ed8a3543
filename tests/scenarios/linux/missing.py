"""Libraries that are not there."""

from __future__ import annotations

from scenarios.linux.workshop import Workshop
from scenarios.scenario import UNDECIDED, Question, Scenario

ORIGIN = "-Wl,-rpath,$ORIGIN"
LEAF = "int leaf(void) { return 1; }\n"
MIDDLE = "int leaf(void); int middle(void) { return leaf(); }\n"
CALLS_LEAF = "int leaf(void);\n"


def leaf(shop: Workshop) -> Question:
    shop.library("libleaf.so.1", LEAF)
    shop.module("ext", CALLS_LEAF, ["libleaf.so.1"], [ORIGIN], init="leaf()")
    shop.remove("libleaf.so.1")
    return shop.ask("ext")


def chain(shop: Workshop) -> Question:
    shop.library("pkg/libleaf.so.1", LEAF)
    shop.library("pkg/libmiddle.so", MIDDLE, ["pkg/libleaf.so.1"], [ORIGIN])
    shop.module("pkg/_native", "int middle(void);", ["pkg/libmiddle.so"], [ORIGIN], init="middle()")
    shop.write("pkg/__init__.py", "from . import core\n")
    shop.write("pkg/core.py", "import os\nfrom pkg import _native\n")
    shop.remove("pkg/libleaf.so.1")
    return shop.ask("pkg")


def two(shop: Workshop) -> Question:
    shop.library("libgone1.so", "int one(void) { return 1; }")
    shop.library("libgone2.so.3", "int two(void) { return 2; }")
    shop.library("libholed.so", "int two(void); int three(void) { return two(); }", ["libgone2.so.3"], [ORIGIN])
    shop.module(
        "ext", "int one(void); int three(void);", ["libgone1.so", "libholed.so"], [ORIGIN], init="one(); three()"
    )
    shop.remove("libgone1.so")
    shop.remove("libgone2.so.3")
    return shop.ask("ext")


def elsewhere(shop: Workshop) -> Question:
    shop.library("libleaf.so.1", LEAF)
    shop.module("ext", CALLS_LEAF, ["libleaf.so.1"], init="leaf()")
    shop.write("vendor/__init__.py", "")
    shop.move("libleaf.so.1", "vendor/lib/libleaf.so.1")
    return shop.ask("ext")


def for_a_better_processor(shop: Workshop) -> Question:
    """No processor can do what this level asks for: the copy is none to look for."""
    shop.library("libs/libleaf.so.1", LEAF)
    shop.module("ext", CALLS_LEAF, ["libs/libleaf.so.1"], ["-Wl,-rpath,$ORIGIN/libs"], init="leaf()")
    shop.move("libs/libleaf.so.1", "libs/glibc-hwcaps/x86-64-v9/libleaf.so.1")
    return shop.ask("ext")


def runpath_not_inherited(shop: Workshop) -> Question:
    shop.library("lib/libleaf.so.1", LEAF)
    shop.library("lib/libmiddle.so", MIDDLE, ["lib/libleaf.so.1"])
    shop.module(
        "ext", "int middle(void);", ["lib/libmiddle.so"], ["-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib"], init="middle()"
    )  # fmt: skip
    return shop.ask("ext")


def library_path(shop: Workshop) -> Question:
    shop.library("libleaf.so.1", LEAF)
    shop.module("ext", CALLS_LEAF, ["libleaf.so.1"], ["-Wl,--disable-new-dtags,-rpath,/nowhere/rpath"], init="leaf()")
    shop.remove("libleaf.so.1")
    return shop.ask("ext", environment={"LD_LIBRARY_PATH": str(shop.write("env/empty", "").parent)})


def known_package(shop: Workshop) -> Question:
    shop.library("libcublas.so.12", LEAF)
    shop.module("gpu", CALLS_LEAF, ["libcublas.so.12"], init="leaf()")
    shop.remove("libcublas.so.12")
    return shop.ask("gpu")


def on_path(shop: Workshop) -> Question:
    shop.library("libleaf.so.1", LEAF)
    shop.module("ext", CALLS_LEAF, ["libleaf.so.1"], init="leaf()")
    moved = shop.move("libleaf.so.1", "tools/bin/libleaf.so.1")
    return shop.ask("ext", environment={"PATH": f"{moved.parent}:/usr/bin:/bin"})


def by_script(shop: Workshop) -> Question:
    leaf(shop)
    shop.write("app.py", "import json\nimport ext\n")
    return shop.ask("app.py")


def wrapped(shop: Workshop) -> Question:
    leaf(shop)
    shop.write(
        "outer/__init__.py",
        "try:\n    import ext\nexcept ImportError as error:\n"
        "    raise ImportError('outer is broken, see the FAQ') from error\n",
    )
    return shop.ask("outer")


def in_a_child(shop: Workshop) -> Question:
    """The words are those of a loader, in another process."""
    output = "git: error while loading shared libraries: libpcre9.so.0: cannot open shared object file: No such file"
    shop.write("app.py", f"raise RuntimeError({output + ' or directory'!r})\n")
    return shop.ask("app.py")


def handled(shop: Workshop) -> Question:
    leaf(shop)
    shop.write("app.py", "try:\n    import ext\nexcept ImportError:\n    raise ValueError('no fast path')\n")
    return shop.ask("app.py")


def printed(shop: Workshop) -> Question:
    leaf(shop)
    shop.write(
        "app.py",
        "import sys\ntry:\n    import ext\nexcept ImportError as error:\n    sys.exit(f'cannot start: {error}')\n",
    )
    return shop.ask("app.py")


def two_ways(shop: Workshop) -> Question:
    leaf(shop)
    shop.library("libslow.so.2", LEAF)
    shop.module("slow", CALLS_LEAF, ["libslow.so.2"], [ORIGIN], init="leaf()")
    shop.remove("libslow.so.2")
    shop.write("app.py", "try:\n    import ext\nexcept ImportError:\n    import slow\n")
    return shop.ask("app.py")


def python_word_after_benign(shop: Workshop) -> Question:
    shop.write(
        "pkg/__init__.py",
        "import ctypes\ntry:\n    ctypes.CDLL('libopt1.so')\nexcept OSError:\n    pass\n"
        "raise ImportError('pkg wants Python 4')\n",
    )
    return shop.ask("pkg")


def after_benign(shop: Workshop) -> Question:
    leaf(shop)
    shop.write(
        "app.py",
        "import ctypes\nfor name in ('libopt1.so', 'libopt2.so'):\n    try:\n        ctypes.CDLL(name)\n"
        "    except OSError:\n        pass\nimport ext\n",
    )
    return shop.ask("app.py")


def ctypes_name(shop: Workshop) -> Question:
    return shop.ask("-c", "import ctypes\nctypes.CDLL('libnope.so.3')")


def ctypes_path(shop: Workshop) -> Question:
    return shop.ask("-c", f"import ctypes\nctypes.CDLL({str(shop.folder / 'libs/libnope.so')!r})")


def ctypes_dependency(shop: Workshop) -> Question:
    shop.library("libleaf.so.1", LEAF)
    shop.library("libmiddle.so", MIDDLE, ["libleaf.so.1"])
    shop.remove("libleaf.so.1")
    return shop.ask("-c", f"import ctypes\nctypes.CDLL({str(shop.folder / 'libmiddle.so')!r})")


def library_file(shop: Workshop) -> Question:
    shop.library("libleaf.so.1", LEAF)
    shop.library("libmiddle.so", MIDDLE, ["libleaf.so.1"])
    shop.remove("libleaf.so.1")
    return shop.ask("libmiddle.so")


def runtime(shop: Workshop) -> Question:
    shop.module(
        "engine", _runtime_code("PyErr_SetString(PyExc_RuntimeError, dlerror()); return NULL;"), init=ADD_METHODS
    )
    return shop.ask("-c", "import engine\nengine.use()")


def runtime_abort(shop: Workshop) -> Question:
    code = 'fprintf(stderr, "Could not load library libcudnn_ops_infer.so.8. Error: %s\\n", dlerror()); abort();'
    shop.module("engine", _runtime_code(code), init=ADD_METHODS)
    return shop.ask("-c", "import engine\nengine.use()")


def runtime_own_words(shop: Workshop) -> Question:
    code = 'PyErr_SetString(PyExc_RuntimeError, "the backend cudnn_ops_infer is not available"); return NULL;'
    shop.module("engine", _runtime_code(code), init=ADD_METHODS)
    return shop.ask("-c", "import engine\nengine.use()")


def _runtime_code(otherwise: str) -> str:
    return f"""
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
static PyObject *use(PyObject *self, PyObject *nothing) {{
    if (dlopen("libcudnn_ops_infer.so.8", RTLD_NOW)) return PyLong_FromLong(1);
    {otherwise}
}}
static PyMethodDef methods[] = {{{{"use", use, METH_NOARGS, ""}}, {{0}}}};
"""


ADD_METHODS = "def.m_methods = methods"

SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("missing-leaf", "a library that an extension module needs is absent", leaf, "missing-image",
             "libleaf.so.1"),
    Scenario("missing-chain", "three levels down, in a package", chain, "missing-image", "libleaf.so.1",
             ("libmiddle.so", "core.py", "import pkg._native")),
    Scenario("missing-two", "two libraries are absent", two, "missing-image", "libgone1.so", ("libgone2.so.3",)),
    Scenario("missing-elsewhere", "a copy lies where nobody looks", elsewhere, "missing-image", "libleaf.so.1",
             ("vendor/lib/libleaf.so.1", "where the loader does not look", "LD_LIBRARY_PATH=")),
    Scenario("missing-for-processor", "the only copy is for a better processor", for_a_better_processor,
             "missing-image", "libleaf.so.1", ("it is for processors that can do x86-64-v9",)),
    Scenario("missing-runpath", "RUNPATH of the top does not count for the next", runpath_not_inherited,
             "missing-image", "libleaf.so.1", ("counts for its own needs only",)),
    Scenario("missing-everywhere", "RPATH and LD_LIBRARY_PATH do not have it", library_path, "missing-image",
             "libleaf.so.1", ("/nowhere/rpath/libleaf.so.1", "env/libleaf.so.1", "environment", "rpath")),
    Scenario("missing-known", "a library that a known package brings", known_package, "missing-image",
             "libcublas.so.12", ("pip install nvidia-cublas-cu12",)),
    Scenario("missing-on-path", "the library is in a folder of PATH", on_path, "missing-image", "libleaf.so.1",
             ("a folder of PATH",)),
    Scenario("missing-script", "from a script: the line is named", by_script, "missing-image", "libleaf.so.1",
             ("app.py:2: import ext",)),
    Scenario("missing-wrapped", "the exception is raised again in other words", wrapped, "missing-image",
             "libleaf.so.1"),
    Scenario("missing-after-benign", "libraries tried before in vain are no cause", after_benign, "missing-image",
             "libleaf.so.1"),
    Scenario("missing-in-child", "a program that was started lacks a library", in_a_child, "missing-image",
             "libpcre9.so.0", ("perhaps in one that it started", "likely")),
    Scenario("missing-handled", "the failure was handled, and another exception came of it", handled, "missing-image",
             "libleaf.so.1", ("came while this failure was handled",)),
    Scenario("missing-exit", "the program says it and leaves", printed, "missing-image", "libleaf.so.1"),
    Scenario("missing-both-ways", "the fallback fails as well: that ended it", two_ways, "missing-image",
             "libslow.so.2"),
    Scenario("benign-then-words", "a library tried in vain, then an ImportError of Python's", python_word_after_benign,
             UNDECIDED),
    Scenario("asked-by-name", "ctypes asks for a name that is nowhere", ctypes_name, "no-such-file", "libnope.so.3"),
    Scenario("asked-by-path", "ctypes asks for a file that is not there", ctypes_path, "no-such-file",
             "libs/libnope.so"),
    Scenario("asked-dependency", "ctypes asks for a library that needs another", ctypes_dependency, "missing-image",
             "libleaf.so.1"),
    Scenario("library-file", "the question is a library's file", library_file, "missing-image", "libleaf.so.1"),
    Scenario("runtime-dlopen", "dlopen by bare name after the import", runtime, "missing-at-runtime",
             "libcudnn_ops_infer.so.8", ("engine",)),
    Scenario("runtime-abort", "the same, and the process aborts", runtime_abort, "missing-at-runtime",
             "libcudnn_ops_infer.so.8", ("engine",)),
    Scenario("runtime-own-words", "the same, and the exception has words of its own", runtime_own_words,
             "missing-at-runtime", "libcudnn_ops_infer.so.8", ("engine",)),
)  # fmt: skip
