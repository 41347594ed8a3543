"""What is on this machine of a module that was not found, in folders made for it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from builders.failed_case import process
from dlltracer.host.modules import find_module_traces
from dlltracer.model.environment import Hiding, ModuleTraces

SUFFIX = ".cpython-311-x86_64-linux-gnu.so"


def module(*parts: str | Path, text: str = "") -> Path:
    """A file, with the folders that it is in."""
    path = Path(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def traces(name: str, root: Path, *entries: str, **changes: Any) -> ModuleTraces:
    facts = {
        "path": tuple(str(root / entry) for entry in entries), "current_folder": str(root / "here"),
        "prefix": str(root / "prefix"), "base_prefix": str(root / "prefix"),
    }  # fmt: skip
    return find_module_traces(name, process(**{**facts, **changes}))


@pytest.mark.parametrize(
    ("name", "near"),
    [("measurments", ("measurements",)), ("gi", ()), ("cgj", ()), ("nothing_like_it", ()),
     ("fractionns", ("fractions",))],
)  # fmt: skip
def test_names_that_are_nearly_the_same(tmp_path: Path, name: str, near: tuple[str, ...]) -> None:
    module(tmp_path, "site", "measurements.py")
    assert traces(name, tmp_path, "site").near == near


def test_another_case_and_what_is_no_module(tmp_path: Path) -> None:
    module(tmp_path, "site", "PIL", "__init__.py")
    module(tmp_path, "site", "pil-1.0.dist-info", "METADATA")
    found = traces("pil", tmp_path, "site")
    assert (found.other_case, found.near) == (("PIL",), ())


def test_a_package_behind_another_one(tmp_path: Path) -> None:
    module(tmp_path, "first", "pack", "__init__.py")
    wanted = module(tmp_path, "later", "pack", "core.py")
    module(tmp_path, "later", "pack", "__init__.py")
    found = traces("pack.core", tmp_path, "first", "later")
    assert (found.behind, found.parent) == (str(wanted), str(tmp_path / "first" / "pack"))
    alone = traces("pack.other", tmp_path, "first", "later")
    assert alone.behind is None
    assert traces("pack", tmp_path, "first", "later").behind is None


def test_a_module_in_the_package_that_is_taken_is_behind_nothing(tmp_path: Path) -> None:
    module(tmp_path, "empty", "note.txt")
    module(tmp_path, "site", "pack", "__init__.py")
    module(tmp_path, "site", "pack", "core.py")
    assert traces("pack.core", tmp_path, "empty", "site").behind is None


def test_a_module_that_both_packages_have_is_not_hidden(tmp_path: Path) -> None:
    for entry in ("first", "later"):
        module(tmp_path, entry, "pack", "__init__.py")
        module(tmp_path, entry, "pack", "core.py")
    assert traces("pack.core", tmp_path, "first", "later").behind is None


def test_an_extension_module_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"pack/core{SUFFIX}", "")
    module(tmp_path, "no.zip", text="no archive")
    found = traces("pack.core", tmp_path, "a.zip", "no.zip")
    assert found.zipped == (f"{tmp_path / 'a.zip'}/pack/core{SUFFIX}",)


def test_a_module_of_the_python_below_and_its_package(tmp_path: Path) -> None:
    site = tmp_path / "base" / "lib" / "python3.11" / "site-packages"
    module(site, "markup", "__init__.py")
    module(site, "MarkUp-1.0.dist-info", "METADATA", text="Name: MarkUp\nVersion: 1.0\n")
    module(site, "MarkUp-1.0.dist-info", "RECORD", text="markup/__init__.py,sha256=x,0\n")
    [hidden] = traces("markup", tmp_path, "site", base_prefix=str(tmp_path / "base")).hidden
    assert (hidden.folder, hidden.why, hidden.package) == (str(site), Hiding.BASE, "MarkUp")


def test_a_module_in_the_current_folder_has_no_package(tmp_path: Path) -> None:
    module(tmp_path, "here", "mine.py")
    [hidden] = traces("mine", tmp_path, "site").hidden
    assert (hidden.why, hidden.package) == (Hiding.CURRENT_FOLDER, "")
    assert traces("mine", tmp_path, "here").hidden == ()


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links of Windows need a right")
def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    for name in ("fast.so", "pkg/inner.py", "other.so", "there.py"):
        (tmp_path / name).symlink_to("/nowhere" if name != "there.py" else __file__)
    for module, links in (("fast", ["fast.so"]), ("pkg.inner", ["pkg/inner.py"]), ("there", []), ("none", [])):
        found = traces(module, tmp_path, "")
        assert found.broken_links == tuple(str(tmp_path / link) for link in links)


def test_the_current_folder_of_the_process_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path, "src", "wanted.py")
    module(tmp_path, ".venv", "lib", "python3.11", "site-packages", "wanted.py")
    monkeypatch.chdir(tmp_path)
    assert len(traces("wanted", tmp_path, current_folder=str(tmp_path)).hidden) == 2
    assert traces("wanted", tmp_path, current_folder="").hidden == ()


@pytest.mark.usefixtures("in_deleted_folder")
def test_a_current_folder_that_was_deleted(tmp_path: Path) -> None:
    assert traces("wanted", tmp_path, path=("lib", ""), current_folder="").hidden == ()
