"""Failures that Wine's loader does not know: CPython's own machinery, with a refusal planted at the loader's door.

A policy, a full paging file or a path of 300 characters do not stop Wine. So a Python of the scenario's own has a
python3XX.dll that imports from a library of ours instead of KERNEL32.dll: it passes everything on, and answers one call
of LoadLibraryExW with the code that Windows would give. What CPython then raises, and what is made of it, is real.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from builders.pe_file import build_manifest, build_pe
from dlltracer.binary.pe import read_pe
from scenarios.scenario import Question, Scenario
from windows.lab import windows_path

from .workshop import VERSION, Workshop

_REAL, _OURS = b"KERNEL32.dll\0", b"refusing.dll\0"
_SOURCE = """
#include <windows.h>
HMODULE WINAPI refusing_load(LPCWSTR path, HANDLE file, DWORD flags) {
    WCHAR name[MAX_PATH], code[16];
    int length = lstrlenW(path), wanted = (int)GetEnvironmentVariableW(L"REFUSED_FILE", name, MAX_PATH);
    if (wanted && length >= wanted && lstrcmpiW(path + length - wanted, name) == 0) {
        DWORD number = 0;
        LPCWSTR at;
        GetEnvironmentVariableW(L"REFUSED_CODE", code, 16);
        for (at = code; *at; at++) number = number * 10 + (*at - L'0');
        SetLastError(number);
        return NULL;
    }
    return LoadLibraryExW(path, file, flags);
}
"""
_built: list[bytes] = []


def refuse(shop: Workshop, name: str, code: int) -> dict[str, str]:
    """Give the scenario a Python that may not load files of that name: GetLastError says `code`.

    Returns what has to be in its environment.
    """
    python = shop.python()
    dll = python / f"python{VERSION.replace('.', '')}.dll"
    if not _built:
        _built.append(_build(shop, dll))
    (python / "refusing.dll").write_bytes(_built[0])
    data = dll.read_bytes()
    assert data.count(_REAL) == 1
    dll.write_bytes(data.replace(_REAL, _OURS))
    return {"REFUSED_FILE": f"\\{name}", "REFUSED_CODE": str(code)}


def _build(shop: Workshop, python_dll: Path) -> bytes:
    """A DLL that exports what the Python imports from kernel32, and forwards it there, but for the one function."""
    (kernel,) = [one for one in read_pe(str(python_dll), symbols=True).imports if one.library == "KERNEL32.dll"]
    names = [one.name for one in kernel.symbols or ()]
    assert "LoadLibraryExW" in names
    lines = [f"{name} = {'refusing_load' if name == 'LoadLibraryExW' else f'kernel32.{name}'}" for name in names]
    folder = shop.place("refusing")
    definitions = folder / "refusing.def"
    definitions.write_text("\n".join(["EXPORTS", *lines]) + "\n", encoding="ascii")
    return shop.lab.build_dll("refusing", _SOURCE, folder, [definitions]).read_bytes()


def _plain(code: int) -> Callable[[Workshop], Question]:
    """A module of which the file is sound."""

    def build(shop: Workshop) -> Question:
        shop.module("ext")
        return shop.question("ext", **refuse(shop, "ext.pyd", code))

    return build


def lost_ordinal(shop: Workshop) -> Question:
    shop.module("ext", {"numbered.dll": [242]})
    shop.library("numbered.dll")
    return shop.question("ext", **refuse(shop, "ext.pyd", 182))


def lost_name(shop: Workshop) -> Question:
    shop.module("ext", {"named.dll": ["newer_function"]})
    shop.library("named.dll", exports=["older_function"])
    return shop.question("ext", **refuse(shop, "ext.pyd", 127))


def path_too_long(shop: Workshop) -> Question:
    folder = f"{'x' * 120}/{'y' * 140}"
    shop.module(f"{folder}/ext")
    code = f"import sys; sys.path.insert(0, {windows_path(shop.site / folder)!r}); import ext"
    return shop.question("-c", code, **refuse(shop, "ext.pyd", 206))


def too_many_folders(shop: Workshop) -> Question:
    shop.module("ext")
    shop.write(
        "adds.py",
        "import os\nkept = []\nfor number in range(400):\n"
        "    name = os.path.abspath(f'{number:080}')\n    os.makedirs(name)\n"
        "    kept.append(os.add_dll_directory(name))\nimport ext\n",
    )
    return shop.question("adds", **refuse(shop, "ext.pyd", 206))


def assembly(shop: Workshop) -> Question:
    shop.write("ext.pyd", build_pe(None, ["PyInit_ext"], manifest=build_manifest("Microsoft.VC90.CRT")))
    return shop.question("ext", **refuse(shop, "ext.pyd", 14001))


_PLANTED = "real CPython machinery with a planted loader refusal"

SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("refused-ordinal", f"an ordinal is gone, 182: {_PLANTED}", lost_ordinal, "missing-symbol", "",
             ("242", "182")),
    Scenario("refused-name", f"a function is gone, 127: {_PLANTED}", lost_name, "missing-symbol", "",
             ("newer_function", "127")),
    Scenario("refused-path", f"a path of 300 characters, 206: {_PLANTED}", path_too_long, "path-too-long", "ext.pyd",
             ("206",)),
    Scenario("refused-folders", f"400 added folders, 206: {_PLANTED}", too_many_folders, "too-many-folders", "",
             ("206", "400")),
    Scenario("refused-access", f"no access, 5: {_PLANTED}", _plain(5), "access-denied", "ext.pyd", ("icacls",)),
    Scenario("refused-policy", f"an application policy, 4551: {_PLANTED}", _plain(4551), "blocked-by-policy",
             "ext.pyd", ("4551",)),
    Scenario("refused-signature", f"no valid signature, 577: {_PLANTED}", _plain(577), "blocked-by-policy", "ext.pyd",
             ("577",)),
    Scenario("refused-group", f"a software restriction, 1260: {_PLANTED}", _plain(1260), "blocked-by-policy",
             "ext.pyd", ("1260",)),
    Scenario("refused-memory", f"the paging file is full, 1455: {_PLANTED}", _plain(1455), "out-of-memory", "ext.pyd",
             ("1455",)),
    Scenario("refused-assembly", f"an assembly is gone, 14001: {_PLANTED}", assembly, "side-by-side", "ext.pyd",
             ("Microsoft.VC90.CRT", "14001")),
)  # fmt: skip
