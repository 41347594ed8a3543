"""A 32-bit file on a 64-bit Windows: its system files are in SysWOW64, and our own process' images are not its."""

from __future__ import annotations

import ntpath
from dataclasses import replace
from pathlib import Path

import pytest

from builders.pe_file import AMD64, I386, build_pe
from dlltracer.api.foreign_trees import for_machine
from dlltracer.api.trees import load_tree
from dlltracer.model.loader_context import context_for_wheel


@pytest.mark.parametrize(("machine", "folder"), [(AMD64, "System32"), (I386, "SysWOW64")])
def test_the_system_folder_in_a_root(tmp_path: Path, machine: int, folder: str) -> None:
    for name, own in (("System32", AMD64), ("SysWOW64", I386)):
        system = tmp_path / "Windows" / name
        system.mkdir(parents=True)
        for library in ("kernel32.dll", "special.dll"):
            (system / library).write_bytes(build_pe(exports=["f"], machine=own))
    (tmp_path / "ext.pyd").write_bytes(build_pe({"special.dll": ["f"]}, machine=machine))
    tree = load_tree(str(tmp_path / "ext.pyd"), root=str(tmp_path))
    (binding,) = tree.bindings
    assert ntpath.normcase(binding.path or "") == f"c:\\windows\\{folder.lower()}\\special.dll"


def test_the_context_of_another_machine() -> None:
    ours = replace(context_for_wheel(AMD64, (3, 13)), loaded=("C:\\Windows\\System32\\kernel32.dll",))
    theirs = for_machine(replace(ours, application_folder="D:\\Python64", has_system_files=True), I386, (3, 12))
    assert (theirs.application_folder, "python312.dll" in theirs.provided) == ("C:\\Python", True)
    assert theirs.has_system_files
    assert (theirs.machine, theirs.system_folder, theirs.loaded) == (I386, "C:\\Windows\\SysWOW64", ())
