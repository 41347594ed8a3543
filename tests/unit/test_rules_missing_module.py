"""Rules about modules that were not found, on cases made by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from builders.failed_case import case, first, process, verdict
from dlltracer.api.environment import find_namesake_of
from dlltracer.diagnose.case import Case, UnmetRequirement
from dlltracer.diagnose.rules.missing_module import package_names
from dlltracer.model.environment import HiddenModule, Hiding, ModuleTraces
from dlltracer.model.failure import PythonError
from dlltracer.model.finding import Confidence

PYTHON = process().executable


def missing(name: str, message: str = "", traces: ModuleTraces | None = None, **changes: Any) -> Case:
    error = PythonError(
        "ModuleNotFoundError", message or f"No module named {name!r}",
        ("ModuleNotFoundError", "ImportError", "Exception"), name=name,
    )  # fmt: skip
    facts = {"error": error, "errors": (error,), "subject": None, "module_traces": traces or ModuleTraces()}
    return case(None, **{**facts, **changes})


def commands(made: Case) -> list[str]:
    return [" ".join(remedy.command) for remedy in first(made).remedies]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at folders as a process of Linux had them")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("cannot import name 'x' from 'shared' (unknown location)", True),
        ("module 'shared' has no attribute 'x'", True),
        ("cannot import name '_x' from 'shared.part' (/s/shared/part/__init__.py)", False),
        ("module 'shared.part' has no attribute 'x'", False),
    ],
)
def test_a_folder_that_distributions_share_is_no_stray_one_for_its_packages(
    tmp_path: Path, words: str, found: bool
) -> None:
    (tmp_path / "shared" / "part").mkdir(parents=True)
    (tmp_path / "shared" / "part" / "__init__.py").write_text("")
    namesake = find_namesake_of((PythonError("ImportError", words),), process(path=(str(tmp_path),)))
    assert (namesake is not None and namesake.is_plain_folder) == found


def test_a_link_of_that_name_that_leads_nowhere() -> None:
    found = first(missing("fast", traces=ModuleTraces(broken_links=("/site/fast.abi3.so",))))
    assert (found.code, found.subject) == ("broken-link", "/site/fast.abi3.so")


def test_the_requirement_of_an_installed_package() -> None:
    unmet = (
        UnmetRequirement(package="cssselect2 0.10", name="tinycss2"),
        UnmetRequirement(package="weasyprint 70.0", name="tinycss2", versions=">=1.5"),
    )
    made = missing("tinycss2", unmet=unmet)
    assert commands(made) == [f"{PYTHON} -m pip install tinycss2>=1.5"]
    assert "weasyprint 70.0 requires tinycss2 (>=1.5)" in first(made).explanation
    assert [one.code for one in verdict(made).findings] == ["no-such-module"]


@pytest.mark.parametrize(
    ("module", "names"),
    [("tinycss2", {"tinycss2"}), ("yaml.nodes", {"yaml", "pyyaml"}), ("google.protobuf", {"google", "protobuf"}),
     ("typing_extensions", {"typing-extensions"})],
)  # fmt: skip
def test_the_packages_that_a_module_may_be_of(module: str, names: set[str]) -> None:
    assert names <= package_names(module)


@pytest.mark.parametrize(
    ("name", "module", "package"), [("pillow", "PIL", "pillow"), ("opencv_python", "cv2", "opencv-python")]
)
def test_the_name_of_a_package_for_that_of_its_module(name: str, module: str, package: str) -> None:
    remedies = first(missing(name)).remedies
    assert remedies[0].what == f"write import {module}"
    assert remedies[1].command[-1] == package


def test_another_package_of_the_name_comes_first() -> None:
    traces = ModuleTraces(parent="/app/PIL", behind="/site/PIL/Image.py")
    found = first(missing("PIL.Image", traces=traces))
    assert (found.code, found.subject, found.confidence) == ("package-shadowed", "/app/PIL", Confidence.CERTAIN)
    error = PythonError(
        "ImportError", "cannot import name 'Image' from 'PIL' (/app/PIL/__init__.py)", ("ImportError", "Exception"),
        name="PIL",
    )  # fmt: skip
    found = first(case(None, error=error, errors=(error,), subject=None, module_traces=traces))
    assert (found.code, found.confidence) == ("package-shadowed", Confidence.LIKELY)


def test_a_module_that_its_package_does_not_have() -> None:
    found = first(missing("yaml.nothing", traces=ModuleTraces(parent="/site/yaml", near=("nodes",))))
    assert "/site/yaml" in found.explanation
    assert "not installed" not in found.explanation
    assert "--force-reinstall" in found.remedies[-1].command
    nobody = first(missing("mine.nothing", traces=ModuleTraces(parent="/app/mine")))
    assert [remedy.command for remedy in nobody.remedies] == [()]


def test_the_package_of_the_python_below_has_a_command() -> None:
    hidden = HiddenModule("/base/dateutil", "/base", Hiding.BASE, "python-dateutil")
    assert commands(missing("dateutil", traces=ModuleTraces(hidden=(hidden,)))) == [
        f"{PYTHON} -m pip install python-dateutil"
    ]
    unknown = HiddenModule("/base/x", "/base", Hiding.BASE, "-r x")
    assert commands(missing("x", traces=ModuleTraces(hidden=(unknown,)))) == [""]
