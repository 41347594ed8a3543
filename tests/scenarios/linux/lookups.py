"""What programs look up by themselves, and loaders' words inside the words of others."""

from __future__ import annotations

from dataclasses import replace

from scenarios.linux.missing import LEAF, ORIGIN, leaf
from scenarios.linux.workshop import Workshop
from scenarios.scenario import UNDECIDED, Question, Scenario

DRIVER = """
#include <dlfcn.h>
static PyObject *load(PyObject *self, PyObject *name) {
    if (dlopen(PyBytes_AsString(name), RTLD_NOW)) Py_RETURN_NONE;
    PyErr_Format(PyExc_RuntimeError, "%s", WORDS); return 0;
}
static PyMethodDef methods[] = {{"load", load, METH_O, 0}, {0}};
"""


def _search(shop: Workshop, after: str) -> Question:
    shop.write("wrapx/__init__.py", "from . import native\n")
    shop.write("wrapx/native.py", f"import ctypes, ctypes.util\npath = ctypes.util.find_library('zqbarx')\n{after}")
    return shop.ask("wrapx")


def search_named(shop: Workshop) -> Question:
    return _search(shop, "if path is None:\n    raise OSError('ZQBarX library not found')\n")


def search_of_what_is_there(shop: Workshop) -> Question:
    """find_library knows the cache, and compilers, for which a library without its link for them is not there."""
    shop.library("deps/libzqbarx.so.1", "int zqbarx_open(void) { return 1; }")
    asked = _search(shop, "if path is None:\n    raise OSError('ZQBarX library not found')\n")
    return replace(asked, environment={"LD_LIBRARY_PATH": str(shop.folder / "deps")})


def search_then_none(shop: Workshop) -> Question:
    return _search(shop, "zqbarx_open = ctypes.CDLL(path).zqbarx_open\n")


def search_no_backend(shop: Workshop) -> Question:
    return _search(shop, "if path is None:\n    raise RuntimeError('No backend available')\n")


def search_benign(shop: Workshop) -> Question:
    return _search(shop, "raise RuntimeError('wrapx wants a newer Python')\n")


def names_tried(shop: Workshop) -> Question:
    code = "import ctypes\nerrors = []\nfor name in ('/nowhere/libzqmix.so', 'libzqmix.so', 'libzqmix.so.4'):\n"
    code += "    try:\n        ctypes.CDLL(name)\n    except OSError as error:\n        errors.append(str(error))\n"
    shop.write("app.py", f"{code}raise RuntimeError('cannot load it: ' + '; '.join(errors))\n")
    return shop.ask("app.py")


def symbol_of_library(shop: Workshop) -> Question:
    made = shop.library("libcodecx.so.2", "int codec_open_v2(void) { return 1; }")
    shop.write("codecx.py", f"import ctypes\nopen = ctypes.CDLL({str(made)!r}).codec_open\n")
    return shop.ask("codecx")


def symbol_in_dll(shop: Workshop) -> Question:
    made = shop.library("libcodecx.so.2", "int codec_close;")
    shop.write("codecx.py", f"import ctypes\nctypes.c_int.in_dll(ctypes.CDLL({str(made)!r}), 'codec_flags')\n")
    return shop.ask("codecx")


def _driver(shop: Workshop, words: str) -> Question:
    shop.library("libleaf.so.1", LEAF)
    code = "int leaf(void); int go(void) { return leaf(); }"
    path = shop.library("drivers/libdrv.so", code, ["libleaf.so.1"], [ORIGIN])
    shop.remove("libleaf.so.1")
    shop.module("manager", DRIVER.replace("WORDS", words), init="def.m_methods = methods")
    shop.write("app.py", f"import manager\nmanager.load({str(path).encode()!r})\n")
    return shop.ask("app.py")


def driver_named(shop: Workshop) -> Question:
    return _driver(shop, '"[Manager] Data source name not found: driver libdrv.so cannot be opened"')


def driver_words_in_brackets(shop: Workshop) -> Question:
    return _driver(shop, 'PyBytes_AsString(PyBytes_FromFormat("[HY000] <%s> (IM003)", dlerror()))')


def wrapped_lines(shop: Workshop) -> Question:
    leaf(shop)
    shop.write(
        "app.py",
        "import textwrap\ntry:\n    import ext\nexcept ImportError as e:\n"
        "    words = textwrap.fill(f'The fast path cannot be used here, sorry: {e}', 30)\n"
        "    raise RuntimeError(words) from None\n",
    )
    return shop.ask("app.py")


def quoted_in_list(shop: Workshop) -> Question:
    leaf(shop)
    shop.write(
        "app.py",
        "tried = []\ntry:\n    import ext\nexcept ImportError as e:\n    tried.append(e)\n"
        "raise SystemExit(f'no engine works: {tried!r}')\n",
    )
    return shop.ask("app.py")


def own_search(shop: Workshop) -> Question:
    shop.write("app.py", "raise ValueError('No JVM shared library file (libjvmx.so) found. Set JAVA_HOME')\n")
    return shop.ask("app.py")


def native_dlsym(shop: Workshop) -> Question:
    """The words of dlsym in a RuntimeError of native code: nothing failed to load."""
    shop.library("libplugx.so", "int plug_old(void) { return 1; }")
    code = """
#include <dlfcn.h>
static PyObject *load(PyObject *self, PyObject *name) {
    void *plug = dlopen(PyBytes_AsString(name), RTLD_NOW);
    if (plug && dlsym(plug, "plug_new")) Py_RETURN_NONE;
    PyErr_Format(PyExc_RuntimeError, "plug-in refused: %s", dlerror()); return 0;
}
static PyMethodDef methods[] = {{"load", load, METH_O, 0}, {0}};
"""
    shop.module("manager", code, init="def.m_methods = methods")
    path = shop.folder / "libplugx.so"
    shop.write("app.py", f"import manager\nmanager.load({str(path).encode()!r})\n")
    return shop.ask("app.py")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("names-tried", "a library is tried by several names: the folder of the first is not the point",
             names_tried, "no-such-file", "libzqmix.so", ("It tried 3 names",)),
    Scenario("search-named", "find_library finds nothing, and the exception says so", search_named,
             "library-not-found", "zqbarx", ("find_library",)),
    Scenario("search-there", "find_library finds nothing, and the loader would", search_of_what_is_there,
             "library-not-found", "zqbarx", ("is there: ", "ctypes.CDLL('libzqbarx.so.1')")),
    Scenario("search-then-none", "find_library finds nothing, and CDLL(None) is asked for a symbol", search_then_none,
             "library-not-found", "zqbarx", ("find_library", "CDLL(None)")),
    Scenario("search-no-backend", "find_library finds nothing, and the package says that it has no backend",
             search_no_backend, "library-not-found", "zqbarx", ("find_library",)),
    Scenario("search-benign", "find_library finds nothing, which is not why it fails", search_benign, UNDECIDED),
    Scenario("symbol-of-library", "ctypes wants a function that the library does not have", symbol_of_library,
             "symbol-not-in-library", "libcodecx.so.2", ("codec_open_v2",)),
    Scenario("symbol-in-dll", "ctypes wants a variable that the library does not have", symbol_in_dll,
             "symbol-not-in-library", "libcodecx.so.2", ("codec_flags",)),
    Scenario("driver-named", "a driver manager names the driver, whose own dependency is missing", driver_named,
             "missing-image", "libleaf.so.1", ("libdrv.so",)),
    Scenario("driver-words-in-brackets", "a driver manager puts the loader's words into brackets",
             driver_words_in_brackets, "missing-image", "libleaf.so.1"),
    Scenario("wrapped-lines", "the loader's words are broken into lines", wrapped_lines, "missing-image",
             "libleaf.so.1"),
    Scenario("quoted-in-list", "the loader's words are in the repr of a list of exceptions", quoted_in_list,
             "missing-image", "libleaf.so.1"),
    Scenario("own-search", "the program looked for a library itself and says which", own_search, "library-not-found",
             "libjvmx.so"),
    Scenario("native-dlsym", "native code passes on the words of dlsym", native_dlsym, "symbol-not-in-library",
             "libplugx.so", ("plug_new",)),
)  # fmt: skip
