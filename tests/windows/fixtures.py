"""Native files for tests under Wine: extension modules and DLLs that load, that cannot, and that refuse to."""

from __future__ import annotations

import shutil
from pathlib import Path

from windows.lab import Lab

DEPENDENCY = """
__declspec(dllexport) int {function}(void) {{ return {value}; }}
"""

REFUSING_DEPENDENCY = """
#include <windows.h>
__declspec(dllexport) int refuse(void) { return 4; }
BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    (void)self; (void)reserved;
    return reason != DLL_PROCESS_ATTACH;
}
"""

MODULE = """
#include <Python.h>
{declarations}
static PyObject *answer(PyObject *self, PyObject *none)
{{
    (void)self; (void)none;
    return PyLong_FromLong({expression});
}}
static PyMethodDef methods[] = {{ {{"answer", answer, METH_NOARGS, NULL}}, {{NULL, NULL, 0, NULL}} }};
static struct PyModuleDef definition = {{ PyModuleDef_HEAD_INIT, "{name}", NULL, -1, methods, NULL, NULL, NULL, NULL }};
PyMODINIT_FUNC PyInit_{name}(void) {{ return PyModule_Create(&definition); }}
"""


def dependency_source(function: str, value: int) -> str:
    """A DLL that exports one function returning a number."""
    return DEPENDENCY.format(function=function, value=value)


def module_source(name: str, *functions: str) -> str:
    """An extension module whose ``answer()`` adds up these functions of other DLLs."""
    return MODULE.format(
        name=name,
        declarations="\n".join(f"__declspec(dllimport) int {function}(void);" for function in functions),
        expression=" + ".join(f"{function}()" for function in functions) or "0",
    )


def build_native_fixtures(lab: Lab, version: str, out_dir: Path) -> Path:
    """Fill a folder, which is to go on the sys.path of that Python, and return it.

    simplemod.pyd   needs simpledep.dll; ``answer()`` is 1
    brokenmod.pyd   needs goodlib.dll, which is there, and gonelib.dll, which is not: error 126
    refusemod.pyd   needs refusedep.dll, whose DllMain returns FALSE: error 1114
    freelib.dll     depends on nothing: for LoadLibrary and FreeLibrary
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    simple = lab.build_dll("simpledep", dependency_source("simple", 1), out_dir)
    good = lab.build_dll("goodlib", dependency_source("good", 2), out_dir)
    gone = lab.build_dll("gonelib", dependency_source("gone", 3), out_dir)
    refusing = lab.build_dll("refusedep", REFUSING_DEPENDENCY, out_dir)
    lab.build_dll("freelib", dependency_source("free_me", 5), out_dir)
    lab.build_pyd(version, "simplemod", module_source("simplemod", "simple"), out_dir, [simple])
    lab.build_pyd(version, "brokenmod", module_source("brokenmod", "good", "gone"), out_dir, [good, gone])
    lab.build_pyd(version, "refusemod", module_source("refusemod", "refuse"), out_dir, [refusing])
    gone.unlink()
    return out_dir


def _same_file(source: str, target: str) -> None:
    """A symbolic link: Wine opens what it leads to, and the copy costs nothing."""
    Path(target).symlink_to(source)


def python_without(lab: Lab, version: str, out_dir: Path, *missing: str) -> Path:
    """A copy of the Windows Python from which these DLLs of its DLLs folder are missing; returns its folder.

    Python itself and what it loads natively are real copies, so that their paths name the copy; the library is links.
    """
    source = lab.python_dir(version)
    out_dir.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.suffix in {".exe", ".dll"}:
            shutil.copy2(path, out_dir / path.name)
    shutil.copytree(source / "DLLs", out_dir / "DLLs", ignore=lambda _folder, _names: missing)
    skipped = shutil.ignore_patterns("__pycache__", "test", "idlelib", "tkinter", "site-packages", "ensurepip")
    shutil.copytree(source / "Lib", out_dir / "Lib", ignore=skipped, copy_function=_same_file)
    return out_dir


def python_without_libcrypto(lab: Lab, version: str, out_dir: Path) -> Path:
    """The documented example: there ``import ssl`` fails for want of DLLs/libcrypto-3.dll."""
    return python_without(lab, version, out_dir, "libcrypto-3.dll")
