"""Native files to load in the contract tests: built by gcc on Linux, by mingw beforehand for Windows.

A file can be loaded only once in a process, so every test asks for a fresh copy under a name of its own.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from windows.lab import compiler_trouble

WINDOWS = sys.platform == "win32"
SUFFIX = ".dll" if WINDOWS else ".so"

BACKEND = os.environ.get("DLLTRACER_TEST_BACKEND") or ("etw" if WINDOWS else "rtld")
"""The mechanism that `Trace` takes by default here; tests/windows changes it by the environment."""

TINY = "int tiny_answer(void) { return 42; }\n"
BROKEN = "extern int gone(void); int broken_answer(void) { return gone(); }\n"
MODULE = """
#include <Python.h>
static struct PyModuleDef def = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "tinymod", .m_size = -1};
PyMODINIT_FUNC PyInit_tinymod(void) {
    PyObject *module = PyModule_Create(&def);
#ifdef Py_GIL_DISABLED
    if (module != NULL) PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
#endif
    return module;
}
"""
"""A free-threaded Python turns its lock on for good, and warns, at a module that does not say that it needs none."""
BROKEN_MODULE = """
#include <Python.h>
extern int gone(void);
static struct PyModuleDef def = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "brokenmod", .m_size = -1};
PyMODINIT_FUNC PyInit_brokenmod(void) { gone(); return PyModule_Create(&def); }
"""

PREBUILT = "DLLTRACER_TEST_NATIVE"
"""Environment variable: the folder with the files that `build_for_windows` made (tests/windows)."""


class Native:
    """Fresh copies of native files, in a folder of the test's own."""

    missing = f"libgone{SUFFIX}"

    def __init__(self, originals: Path, folder: Path) -> None:
        self._originals = originals
        self.folder = folder
        self._numbers = itertools.count()

    def _copy(self, stem: str, suffix: str) -> Path:
        # Unique in the process: Windows takes a loaded image of the same base name for the one asked for.
        name = f"{stem}_{os.getpid()}_{self.folder.name[-24:]}_{next(self._numbers)}{suffix}"
        return Path(shutil.copy(self._originals / f"{stem}{suffix}", self.folder / name))

    def tiny(self) -> Path:
        """A library that loads and needs nothing of its own."""
        return self._copy("tiny", SUFFIX)

    def broken(self) -> Path:
        """A library that needs `missing`, which exists nowhere."""
        return self._copy("broken", SUFFIX)

    def module(self) -> Path:
        """An extension module `tinymod` that imports."""
        return self._copy("tinymod", module_suffix())

    def broken_module(self) -> Path:
        """An extension module `brokenmod` that needs `missing`."""
        return self._copy("brokenmod", module_suffix())


def module_suffix() -> str:
    return ".pyd" if WINDOWS else ".so"


def build_here(folder: Path) -> Path:
    """Build the originals with gcc (mingw's on Windows); skips the test, saying why, where that cannot be."""
    include = sysconfig.get_paths()["include"]
    if shutil.which("gcc") is None or not (Path(include) / "Python.h").exists():
        pytest.skip(f"needs gcc and Python.h (looked in {include})")
    trouble = compiler_trouble("gcc")
    if trouble is not None:
        pytest.skip(trouble)
    python = []
    if WINDOWS:
        version = f"{sys.version_info.major}{sys.version_info.minor}"
        python = [str(Path(sys.base_prefix) / "libs" / f"python{version}.lib")]

    def build(output: str, source: str, *options: str) -> None:
        (folder / "source.c").write_text(source)
        command = ["gcc", "-shared", "-fPIC", f"-I{include}", "-o", output, "source.c", *options]
        subprocess.run(command, cwd=folder, check=True)

    gone = f"libgone{SUFFIX}"
    build(f"tiny{SUFFIX}", TINY)
    build(gone, "int gone(void) { return 1; }\n")
    build(f"broken{SUFFIX}", BROKEN, gone)
    build(f"tinymod{module_suffix()}", MODULE, *python)
    build(f"brokenmod{module_suffix()}", BROKEN_MODULE, gone, *python)
    (folder / gone).unlink()
    return folder


def import_file(name: str, path: Path) -> ModuleType:
    """Import the extension module `name` from exactly this file, as the import system would."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and isinstance(spec.loader, importlib.machinery.ExtensionFileLoader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(path: Path) -> ctypes.CDLL:
    """Load a library as ctypes does."""
    return ctypes.CDLL(str(path))


def unload(library: ctypes.CDLL) -> None:
    """Unload a library, as nothing in Python does by itself."""
    import _ctypes

    if WINDOWS:
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)
