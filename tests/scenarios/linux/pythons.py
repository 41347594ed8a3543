"""Modules for other Pythons, modules that are not there, packages that have lost files."""

from __future__ import annotations

import sys

from scenarios.linux.workshop import SUFFIX, Workshop
from scenarios.scenario import Question, Scenario

ORIGIN = "-Wl,-rpath,$ORIGIN"
OTHER = f"{sys.version_info[0]}{sys.version_info[1] - 1}"
LEAF = "int leaf(void) { return 1; }\n"


def other_python(shop: Workshop) -> Question:
    shop.module(f"pkg/_core.cpython-{OTHER}-x86_64-linux-gnu.so")
    shop.write("pkg/__init__.py", "import pkg._core\n")
    return shop.ask("pkg")


def other_python_from(shop: Workshop) -> Question:
    shop.module(f"pkg/_core.cpython-{OTHER}-x86_64-linux-gnu.so")
    shop.write("pkg/__init__.py", "from pkg import _core\n")
    return shop.ask("pkg")


def musl_tag(shop: Workshop) -> Question:
    shop.module("pkg/_core" + SUFFIX.replace("-gnu", "-musl"))
    shop.write("pkg/__init__.py", "import pkg._core\n")
    return shop.ask("pkg")


def machine_tag(shop: Workshop) -> Question:
    shop.module("pkg/_core" + SUFFIX.replace("x86_64", "aarch64"))
    shop.write("pkg/__init__.py", "import pkg._core\n")
    return shop.ask("pkg")


def windows_tag(shop: Workshop) -> Question:
    shop.write("pkg/_core.cp311-win_amd64.pyd", b"MZ")
    shop.write("pkg/__init__.py", "import pkg._core\n")
    return shop.ask("pkg")


def libpython(shop: Workshop) -> Question:
    shop.library("libpython3.9.so.1.0", "int Py_OldOnly(void) { return 1; }")
    shop.module("ext", needs=["libpython3.9.so.1.0"])
    shop.remove("libpython3.9.so.1.0")
    return shop.ask("ext")


def musl_library(shop: Workshop) -> Question:
    shop.library("libc.musl-x86_64.so.1", LEAF)
    shop.module("ext", "int leaf(void);", ["libc.musl-x86_64.so.1"], init="leaf()")
    shop.remove("libc.musl-x86_64.so.1")
    return shop.ask("ext")


def broken_ctypes(shop: Workshop) -> Question:
    """Python's own ctypes cannot load: neither can ours, which the trace needs."""
    shop.library("libffi.so.99", LEAF)
    shop.module("broken/_ctypes", "int leaf(void);", ["libffi.so.99"], init="leaf()")
    shop.remove("libffi.so.99")
    return shop.ask("ctypes", environment={"PYTHONPATH": str(shop.folder / "broken")})


def broken_hashes(shop: Workshop) -> Question:
    """Modules that our own questions to package managers need cannot load."""
    shop.library("libz.so.99", LEAF)
    for name in ("zlib", "_hashlib"):
        shop.module(f"broken/{name}", "int leaf(void);", ["libz.so.99"], init="leaf()")
    shop.remove("libz.so.99")
    return shop.ask("zlib", environment={"PYTHONPATH": str(shop.folder / "broken")})


def no_module(shop: Workshop) -> Question:
    return shop.ask("surely_not_installed")


def no_module_below(shop: Workshop) -> Question:
    shop.write("app.py", "import json\nimport surely_not_installed.core\n")
    return shop.ask("app.py")


def _package(shop: Workshop) -> None:
    shop.library("pkg/libleaf.so.1", LEAF)
    shop.module("pkg/_core", "int leaf(void);", ["pkg/libleaf.so.1"], [ORIGIN], init="leaf()")
    shop.write("pkg/__init__.py", "from pkg import _core\n")
    shop.record("pkg-dist", "1.2.3", ["pkg/__init__.py", f"pkg/_core{SUFFIX}", "pkg/libleaf.so.1"])


def lost_library(shop: Workshop) -> Question:
    _package(shop)
    shop.remove("pkg/libleaf.so.1")
    return shop.ask("pkg")


def lost_module(shop: Workshop) -> Question:
    _package(shop)
    shop.remove(f"pkg/_core{SUFFIX}")
    return shop.ask("pkg")


def target_library(shop: Workshop) -> Question:
    """As pip install --target leaves it: metadata and files in a folder that is no site-packages."""
    target = Workshop(shop.folder / "my libs")
    _package(target)
    target.remove("pkg/libleaf.so.1")
    return shop.ask("pkg", environment={"PYTHONPATH": str(target.folder)})


def target_cut(shop: Workshop) -> Question:
    """The same, of a file that is damaged."""
    target = Workshop(shop.folder / "my libs")
    _package(target)
    target.cut("pkg/libleaf.so.1", (target.folder / "pkg/libleaf.so.1").stat().st_size // 4)
    return shop.ask("pkg", environment={"PYTHONPATH": str(target.folder)})


def pointer(shop: Workshop) -> Question:
    _package(shop)
    shop.write("pkg/libleaf.so.1", "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n")
    return shop.ask("pkg")


def cut(shop: Workshop) -> Question:
    _package(shop)
    shop.cut("pkg/libleaf.so.1", (shop.folder / "pkg/libleaf.so.1").stat().st_size // 4)
    return shop.ask("pkg")


def raises(shop: Workshop) -> Question:
    for name in ("one", "two"):
        shop.write(f"{name}/__init__.py", "")
        again = 'PyErr_SetString(PyExc_ImportError, "type \\"Point\\" is already registered!"); return 0'
        shop.module(f"{name}/geoq", init=again if name == "two" else "")
    shop.write("app.py", "import one.geoq\nimport two.geoq\n")
    return shop.ask("app.py")


NUMPY = r"""fputs("A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.2.6.\n", stderr);
PyErr_SetString(PyExc_ImportError, "numpy.core.multiarray failed to import"); return 0"""


def other_numpy(shop: Workshop) -> Question:
    shop.module("fastq", "#include <stdio.h>", init=NUMPY)
    return shop.ask("fastq")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("initialiser-raises", "two copies of one module, and the second refuses", raises, "initialiser-raised",
             "two/geoq", ("one/geoq",)),
    Scenario("other-numpy", "NumPy says that a module was compiled for another NumPy, on two lines", other_numpy,
             "built-against-other-package", "fastq", ("numpy<2",)),
    Scenario("other-python", "the module is there for another Python", other_python, "other-python", "_core.cpython-"),
    Scenario("other-python-from", "the same, asked for as a name of its package", other_python_from, "other-python",
             "_core.cpython-"),
    Scenario("musl-tag", "the module is there for musl", musl_tag, "other-platform", "musl"),
    Scenario("machine-tag", "the module is there for AArch64", machine_tag, "other-platform", "aarch64"),
    Scenario("windows-tag", "the module is there for Windows", windows_tag, "other-platform", "pyd"),
    Scenario("libpython", "linked with another libpython", libpython, "other-libpython", "ext.", ("Python 3.9",)),
    Scenario("musl-library", "built for musl", musl_library, "other-c-library", "ext.", ("musl",)),
    Scenario("broken-ctypes", "Python's own ctypes needs a libffi that is gone", broken_ctypes, "missing-image",
             "libffi.so.99"),
    Scenario("broken-zlib", "Python's own zlib needs a library that is gone", broken_hashes, "missing-image",
             "libz.so.99"),
    Scenario("no-module", "no such module", no_module, "no-such-module", "surely_not_installed"),
    Scenario("no-module-script", "no such module, in a script", no_module_below, "no-such-module",
             "surely_not_installed", ("app.py:2",)),
    Scenario("lost-library", "RECORD has a library that is gone", lost_library, "package-file-missing", "libleaf.so.1",
             ("pkg-dist 1.2.3", "pkg-dist==1.2.3")),
    Scenario("lost-module", "RECORD has a module that is gone", lost_module, "package-file-missing", "pkg/_core",
             ("pkg-dist==1.2.3",)),
    Scenario("target-lost", "the same, installed by pip --target", target_library, "package-file-missing",
             "libleaf.so.1", ("my libs' --upgrade pkg-dist==1.2.3", "--force-reinstall --no-deps --target '")),
    Scenario("target-cut", "a part of a library, installed by pip --target", target_cut, "truncated-image",
             "libleaf.so.1", ("my libs' --upgrade pkg-dist==1.2.3",)),
    Scenario("record-pointer", "RECORD has a library, the disk a Git LFS pointer", pointer, "not-an-image",
             "libleaf.so.1", ("Git LFS", "pkg-dist")),
    Scenario("record-cut", "RECORD has a whole library, the disk a part of it", cut, "truncated-image", "libleaf.so.1",
             ("pkg-dist",)),
)  # fmt: skip
