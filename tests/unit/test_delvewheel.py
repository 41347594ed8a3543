"""Folders that packages of a repaired wheel add when they are imported."""

from __future__ import annotations

from pathlib import Path

from dlltracer.host.copies import read_added_folders

PATCH = '''"""A package."""


# start delvewheel patch
def _delvewheel_patch_1_13_0():
    import os
    if os.path.isdir(libs_dir := os.path.abspath(os.path.join(os.path.dirname(__file__), {up}'{name}'))):
        os.add_dll_directory(libs_dir)


_delvewheel_patch_1_13_0()
del _delvewheel_patch_1_13_0
# end delvewheel patch
'''


def wheel(folder: Path) -> Path:
    """A wheel with a package in a package, both patched."""
    inner = folder / "top" / "inner"
    inner.mkdir(parents=True)
    (folder / "top" / "__init__.py").write_text(PATCH.format(up="os.pardir, ", name="top.libs"))
    (inner / "__init__.py").write_text(PATCH.format(up="os.pardir, os.pardir, ", name="top.libs"))
    (folder / "top.libs").mkdir()
    return inner / "_core.pyd"


def test_the_folder_is_found_once(tmp_path: Path) -> None:
    assert read_added_folders(str(wheel(tmp_path))) == (str(tmp_path / "top.libs"),)


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    image = wheel(tmp_path)
    for init in tmp_path.rglob("__init__.py"):
        init.write_bytes(init.read_bytes().replace(b"\n", b"\r\n"))
    assert read_added_folders(str(image)) == (str(tmp_path / "top.libs"),)


def test_a_folder_that_is_not_there_is_not_added(tmp_path: Path) -> None:
    image = wheel(tmp_path)
    (tmp_path / "top.libs").rmdir()
    assert read_added_folders(str(image)) == ()


def test_the_words_elsewhere_in_a_file_are_no_patch(tmp_path: Path) -> None:
    image = wheel(tmp_path)
    for init in tmp_path.rglob("__init__.py"):
        init.write_text(init.read_text().replace("# start delvewheel patch", "#"))
    assert read_added_folders(str(image)) == ()


def test_a_module_outside_of_any_package(tmp_path: Path) -> None:
    assert read_added_folders(str(tmp_path / "_core.pyd")) == ()
