"""Environments of Windows and macOS, checked on any system: what loads is quiet, what does not is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builders.macho_file import ARM64, DYLIB, X86_64, build_fat, build_macho
from builders.pe_file import ARM64 as PE_ARM64
from builders.pe_file import build_pe
from dlltracer.check.environment import check_environment
from dlltracer.host.environments import environment_in

WINDOWS, MACOS = "Lib/site-packages", "lib/python3.12/site-packages"
PYD, MAC_SO = "pkg/mod.cp312-win_amd64.pyd", "pkg/mod.cpython-312-darwin.so"
Files = dict[str, bytes]
Codes = list[tuple[str, str, str]]


def pyd(imports: dict[str, list[str | int]] | None = None, **more: object) -> bytes:
    return build_pe({"python312.dll": ["PyModule_Create2"], **(imports or {})}, ["PyInit_mod"], **more)  # type: ignore[arg-type,dict-item]


def bundle(*needs: str, **more: object) -> bytes:
    options = {"signature": 16, **more}
    return build_macho([*needs, "/usr/lib/libSystem.B.dylib"], (), {"_PyInit_mod": None}, **options)  # type: ignore[arg-type]


def dylib(name: str) -> bytes:
    return build_macho(
        ["/usr/lib/libSystem.B.dylib"], (), {"_f": None}, kind=DYLIB, install_name=name, signature=16
    )  # fmt: skip


def check(folder: Path, site: str, files: Files) -> Codes:
    for path, content in files.items():
        place = folder / path.removeprefix("../") if path.startswith("../") else folder / site / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    report = check_environment(str(folder), is_folder=True, use_cache=False)
    assert report.unreadable == ""
    return [
        (problem.severity.value, problem.code, problem.file.removeprefix(f"{site}/")) for problem in report.problems
    ]


A = build_pe({}, ["f"])
CFG = {"../pyvenv.cfg": b"home = C:\\Python312\nversion = 3.12.1\n"}
PATCH = (
    b"# start delvewheel patch\nlibs = os.path.join(os.path.dirname(__file__), os.pardir, 'pkg.libs')\n"
    b"# end delvewheel patch\n"
)
WINDOWS_CASES: dict[str, tuple[Files, Codes]] = {
    "sound": ({PYD: pyd({"a.dll": ["f"]}), "pkg/a.dll": A, "pkg/__init__.py": b""}, []),
    "delvewheel": ({PYD: pyd({"a.dll": ["f"]}), "pkg.libs/a.dll": A, "pkg/__init__.py": PATCH}, []),
    "preloaded": (
        {PYD: pyd({"a.dll": ["f"]}), "pkg/.libs/a.dll": A, "pkg/__init__.py": b"from ctypes import WinDLL\nWinDLL(x)"},
        [],
    ),
    "in another package": (
        {PYD: pyd({"a.dll": ["f"]}), "other/a.dll": A}, [("error", "not-on-search-path", PYD)]
    ),
    "nowhere": ({PYD: pyd({"nowhere.dll": ["f"]})}, [("error", "missing-image", PYD)]),
    "optional": (
        {PYD: pyd({"nowhere.dll": ["f"]}), "pkg/__init__.py": b"try:\n from . import mod\nexcept ImportError: pass\n"},
        [("warning", "missing-image", PYD)],
    ),
    "a symbol": ({PYD: pyd({"a.dll": ["g"]}), "pkg/a.dll": A}, [("error", "missing-symbol", PYD)]),
    "another Python": (
        {**CFG, "pkg/mod.cp311-win_amd64.pyd": pyd()}, [("error", "suffix-mismatch", "pkg/mod.cp311-win_amd64.pyd")]
    ),
    "another Python as well": ({**CFG, PYD: pyd(), "pkg/mod.cp311-win_amd64.pyd": pyd()}, []),
    "another machine": (
        {PYD: pyd(), "pkg/two.cp312-win_amd64.pyd": pyd(), "pkg/three.cp312-win_amd64.pyd": pyd(machine=PE_ARM64)},
        [("error", "wrong-machine", "pkg/three.cp312-win_amd64.pyd")],
    ),
    "loaded by code": ({PYD: pyd(), "pkg/plug.dll": build_pe({"nowhere.dll": ["f"]}, ["p"])},
                       [("note", "missing-image", "pkg/plug.dll")]),
}  # fmt: skip


@pytest.mark.parametrize("what", WINDOWS_CASES)
def test_windows(what: str, tmp_path: Path) -> None:
    files, expected = WINDOWS_CASES[what]
    assert check(tmp_path, WINDOWS, files) == expected


MACOS_CASES: dict[str, tuple[Files, Codes]] = {
    "sound": ({MAC_SO: bundle("@loader_path/liba.dylib"), "pkg/liba.dylib": dylib("@rpath/liba.dylib")}, []),
    "nowhere": ({MAC_SO: bundle("/opt/homebrew/lib/liba.dylib")}, [("error", "missing-image", MAC_SO)]),
    "in another package": (
        {MAC_SO: bundle("@rpath/liba.dylib"), "other/.dylibs/liba.dylib": dylib("@rpath/liba.dylib")},
        [("error", "not-on-rpath", MAC_SO)],
    ),
    "another processor": (
        {MAC_SO: bundle(), "pkg/two.cpython-312-darwin.so": bundle(),
         "pkg/x.cpython-312-darwin.so": bundle(cpu=X86_64)},
        [("error", "missing-slice", "pkg/x.cpython-312-darwin.so")],
    ),
    "both processors": (
        {MAC_SO: build_fat([bundle(cpu=ARM64), bundle(cpu=X86_64)]), "pkg/x.cpython-312-darwin.so": bundle()}, []
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MACOS_CASES)
def test_macos(what: str, tmp_path: Path) -> None:
    files, expected = MACOS_CASES[what]
    assert check(tmp_path, MACOS, files) == expected


def test_only_code_of_the_target_is_read_on_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the tree of files is the whole disk, as libraries may be anywhere; the code that names them may not."""
    walked: list[str] = []
    walk = os.walk
    monkeypatch.setattr("dlltracer.check.foreign_environment.is_macos", lambda: True)
    monkeypatch.setattr("os.walk", lambda top: walked.append(top) or walk(top))
    lacking = build_macho(["@rpath/libno.dylib"], (), {"_f": None}, kind=DYLIB, install_name="libx", signature=16)
    code = b"import ctypes, other\nctypes.CDLL('libx.dylib')\n"
    assert check(tmp_path, MACOS, {"pkg/libx.dylib": lacking, "pkg/__init__.py": code})
    assert str(tmp_path / MACOS) in walked
    assert all(top.startswith(str(tmp_path)) for top in walked)


def test_the_environments_of_a_whole_system(tmp_path: Path) -> None:
    places = ("usr/lib/python3.12/dist-packages", "opt/conda/envs/one/lib/python3.11/site-packages",
              "home/me/project/.venv/lib/python3.13/site-packages")  # fmt: skip
    for place in places:
        (tmp_path / place).mkdir(parents=True)
    found = environment_in(str(tmp_path), str(tmp_path))
    assert {os.path.relpath(site, tmp_path) for site in found.site_folders} == set(places)


@pytest.mark.parametrize("name", ["elsewhere", "x" * 300])
def test_a_folder_outside_of_the_root_is_refused_whatever_its_name(name: str, tmp_path: Path) -> None:
    """Before Python 3.14 `Path.is_dir` raises where the system cannot look a name up."""
    (tmp_path / "there").mkdir()
    report = check_environment(f"/{name}", str(tmp_path), is_folder=True, use_cache=False)
    assert report.unreadable == f"it is not in {tmp_path}, the folder of --root"
    inside = check_environment("/there", str(tmp_path), is_folder=True, use_cache=False)
    assert inside.unreadable.endswith(f": name {tmp_path}/there")
