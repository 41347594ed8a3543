"""Requirements that are not installed, files of two packages, and files of none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.failed_case import EXT, PYTHON, absent, case, process, tree
from dlltracer.diagnose.case import PackageCheck, StrayFile, UnmetRequirement
from dlltracer.diagnose.engine import diagnose
from dlltracer.host.distributions import Requirement, list_distributions, read_requirement
from dlltracer.host.packages import find_strays
from dlltracer.model.environment import ChangedFile, FileState, PackageManager, PackageOwner
from dlltracer.model.failure import System
from dlltracer.model.finding import Confidence

LINUX = process(version=(3, 11, 7))
CUBLAS = "libcublas.so.12: cannot open shared object file: No such file or directory"
TORCH = (
    UnmetRequirement(package="torch 2.4", name="nvidia-cublas-cu12", versions="==12.1.3.1"),
    UnmetRequirement(package="torch 2.4", name="nvidia-cudnn-cu12"),
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("numpy", Requirement("numpy", "")),
        ("PyQt6-Qt6 (>=6.6.0)", Requirement("PyQt6-Qt6", ">=6.6.0")),
        ("numpy>=1.22,<2", Requirement("numpy", ">=1.22,<2")),
        ("requests [security] >= 2.8.1", Requirement("requests", ">=2.8.1")),
        ("a; extra == 'test'", None),
        ('b ; python_version < "3.10"', None),
        ('c ; python_version >= "3.10"', Requirement("c", "")),
        ('d==1 ; platform_system == "Linux" and extra != "x"', Requirement("d", "==1")),
        ('e ; sys_platform == "win32" or (os_name == "posix" and python_version < "3.12")', Requirement("e", "")),
        ('f ; platform_system == "Linux" and (sys_platform == "darwin" or extra == "g")', None),
        ('g ; python_version not in "2.7, 3.0"', Requirement("g", "")),
        ("h ; unheard_of == '1'", None),
        ("i ; unheard_of == '1' or os_name == 'posix'", Requirement("i", "")),
        ("j @ https://example.org/j.whl", Requirement("j", "")),
        ("k ; (", None), ("l ; os_name ==", None), ("; x", None), ("", None), ("-e x", None), ("m;" + "(" * 5000, None),
    ],
)  # fmt: skip
def test_requirements(text: str, found: Requirement | None) -> None:
    assert read_requirement(text, LINUX) == found


def test_a_requirement_of_windows() -> None:
    windows = replace(LINUX, system=System.WINDOWS)
    assert read_requirement("pywin32; sys_platform == 'win32'", windows) == Requirement("pywin32", "")


@given(st.text(max_size=60) | st.text("abc;()'\"=<>and or in _", max_size=60))
def test_any_requirement_is_taken(text: str) -> None:
    found = read_requirement(text, LINUX)
    if found is not None:
        assert found.name and found.name in text and found.versions in text.replace(" ", "")


def test_what_the_package_requires_comes_first() -> None:
    made = case(CUBLAS, tree=tree(absent("libcublas.so.12")), unmet=TORCH)
    first, *others = diagnose(made).findings
    assert first.code == "missing-image" and first.confidence is Confidence.CERTAIN
    assert first.remedies[0].command == (
        PYTHON, "-m", "pip", "install", "nvidia-cublas-cu12==12.1.3.1", "nvidia-cudnn-cu12"
    )  # fmt: skip
    assert "torch 2.4 requires nvidia-cublas-cu12 (==12.1.3.1), nvidia-cudnn-cu12, which are not installed" in (
        first.explanation
    )
    assert not [one for one in first.remedies[1:] if "pip" in one.command or "conda" in one.command]
    assert [one.code for one in others] == ["requirement-not-installed"]


def test_a_requirement_with_another_name_is_no_better_than_others() -> None:
    gl = CUBLAS.replace("libcublas.so.12", "libGL.so.1")
    unmet = (UnmetRequirement(package="opencv-python 4.9", name="numpy", versions=">=1.21"),)
    first = diagnose(case(gl, tree=tree(absent("libGL.so.1")), distribution="debian", unmet=unmet)).findings[0]
    assert first.remedies[0].command == ("apt-get", "install", "libgl1")
    assert first.remedies[-1].command[-1] == "numpy>=1.21"


def test_a_requirement_of_another_package_is_in_no_command() -> None:
    unmet = (UnmetRequirement(package="x 1", name="--index-url=http://x"), UnmetRequirement(package="x", name="y;z"))
    findings = diagnose(case(CUBLAS, tree=tree(absent("libcublas.so.12")), unmet=unmet)).findings
    commands = [one.command for finding in findings for one in finding.remedies]
    assert not [word for command in commands for word in command if "index-url" in word or ";" in word]


@pytest.mark.parametrize(("state", "confidence"), [(None, Confidence.POSSIBLE), (FileState.CHANGED, Confidence.LIKELY)])
def test_a_file_of_two_packages(state: FileState | None, confidence: Confidence) -> None:
    owners = tuple(PackageOwner(PackageManager.PIP, name, "4.9", EXT) for name in ("opencv-python", "opencv-contrib"))
    checks = (PackageCheck("opencv-python 4.9", "opencv-python", (ChangedFile(EXT, state, 1, 2),)),) if state else ()
    made = case(f"{EXT}: undefined symbol: f", owners={EXT: owners}, checks=checks)
    (found,) = [one for one in diagnose(made).findings if one.code == "file-of-two-packages"]
    assert (found.confidence, found.subject) == (confidence, EXT)
    assert found.remedies[0].command[-3:] == ("uninstall", "opencv-python", "opencv-contrib")
    one = case(f"{EXT}: undefined symbol: f", owners={EXT: owners[:1]})
    assert "file-of-two-packages" not in [finding.code for finding in diagnose(one).findings]


def test_a_file_of_no_package() -> None:
    made = case(f"{EXT}: undefined symbol: f", strays=(StrayFile(path=EXT, package="numpy 2.1.0"),))
    (found,) = [one for one in diagnose(made).findings if one.code == "file-of-no-package"]
    assert found.confidence is Confidence.POSSIBLE and found.remedies[1].command[-1] == "numpy==2.1.0"


def test_which_files_are_strays(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    for name, files in (("a-1", ("a/core/x.so", "_a.py")), ("b-2", ("ns/b.so", "b/y.so")), ("c-3", ("ns/c.so",))):
        (site / f"{name}.dist-info").mkdir(parents=True)
        (site / f"{name}.dist-info" / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    asked = [str(site / name) for name in ("a/core/old.so", "a/old.so", "ns/old.so", "_a.abi3.so", "z.so", "b/old.so")]
    installed = tuple(list_distributions([str(site)]))
    assert find_strays(asked, installed) == {asked[0]: ("a", "1"), asked[3]: ("a", "1"), asked[5]: ("b", "2")}
    assert find_strays([], installed) == {}
