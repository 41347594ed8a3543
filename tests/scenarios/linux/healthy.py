"""Imports that work, and failures that no loader has a part in."""

from __future__ import annotations

from scenarios.linux.workshop import Workshop
from scenarios.scenario import IMPORTED, UNDECIDED, Question, Scenario


def module(shop: Workshop) -> Question:
    shop.library("libleaf.so.1", "int leaf(void) { return 1; }\n")
    shop.module("ext", "int leaf(void);", ["libleaf.so.1"], ["-Wl,-rpath,$ORIGIN"], init="leaf()")
    return shop.ask("ext")


def benign(shop: Workshop) -> Question:
    return shop.ask("-c", "import ctypes\ntry:\n    ctypes.CDLL('libnope.so.3')\nexcept OSError:\n    pass")


def standard(shop: Workshop) -> Question:
    return shop.ask("-c", "import ssl, sqlite3, ctypes, decimal, lzma, socket")


def unperturbed(shop: Workshop) -> Question:
    code = (
        "maps = open('/proc/self/maps').read()\n"
        "assert 'libstdc++' not in maps and 'libgcc_s' not in maps, maps\n"
        "import sys\nassert not {'click', 'rich', 'ctypes.util', 'dataclasses', 'typing', 're'} & set(sys.modules)\n"
    )
    return shop.ask("-c", code)


def ordinary(shop: Workshop) -> Question:
    shop.write("app.py", "import json\nraise ValueError('the configuration is wrong')\n")
    return shop.ask("app.py")


def ordinary_after_benign(shop: Workshop) -> Question:
    shop.write(
        "app.py",
        "import ctypes\ntry:\n    ctypes.CDLL('libnope.so.3')\nexcept OSError:\n    pass\n"
        "import json\nraise ValueError('no')\n",
    )  # fmt: skip
    return shop.ask("app.py")


def import_error_of_python(shop: Workshop) -> Question:
    shop.write("pkg/__init__.py", "raise ImportError('pkg wants Python 4')\n")
    return shop.ask("pkg")


def cannot_import_name(shop: Workshop) -> Question:
    shop.write("app.py", "from json import nothing_like_it\n")
    return shop.ask("app.py")


def syntax(shop: Workshop) -> Question:
    shop.write("pkg/__init__.py", "def f(:\n")
    return shop.ask("pkg")


def file_error(shop: Workshop) -> Question:
    shop.write("app.py", "open('/nowhere/config.toml')\n")
    return shop.ask("app.py")


def exit_status(shop: Workshop) -> Question:
    return shop.ask("-c", "import sys; sys.exit(3)")


def raises_in_init(shop: Workshop) -> Question:
    shop.module("ext", init='PyErr_SetString(PyExc_ImportError, "ext needs a license"); return NULL')
    return shop.ask("ext")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("works", "an extension module with a library", module, IMPORTED),
    Scenario("works-benign", "a library that was tried in vain, and not needed", benign, IMPORTED),
    Scenario("works-standard", "modules of the standard library", standard, IMPORTED),
    Scenario("works-unperturbed", "nothing of ours is loaded before the program", unperturbed, IMPORTED),
    Scenario("value-error", "an ordinary exception", ordinary, UNDECIDED, mentions=("no loader had a part in it",)),
    Scenario("value-error-later", "an ordinary exception, long after a library was tried in vain",
             ordinary_after_benign, UNDECIDED),
    Scenario("own-import-error", "an ImportError that a package raises itself", import_error_of_python, UNDECIDED,
             mentions=("no loader had a part in it",)),
    Scenario("no-such-name", "a name that a module does not have", cannot_import_name, UNDECIDED),
    Scenario("syntax-error", "a syntax error", syntax, UNDECIDED),
    Scenario("file-error", "a file of the program's own is not there", file_error, UNDECIDED),
    Scenario("exit-status", "the program leaves with a status", exit_status, UNDECIDED),
    Scenario("init-raises", "PyInit raises an ImportError of its own", raises_in_init, UNDECIDED),
)  # fmt: skip
