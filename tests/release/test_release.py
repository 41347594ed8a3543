"""What a release consists of: built in a clean room, checked, and run by the tools that people use."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `tools/build_release.py` fills."""
    for module in ("build", "twine", "cyclonedx_py"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module} (.ci/tools.txt)")
    folder = tmp_path_factory.mktemp("release") / "dist"
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "build_release.py", folder],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.sub(r"\x1b\[\d*m", "", done.stdout).count("PASSED") == 2  # twine, of sdist and wheel
    return folder


@pytest.fixture(scope="module")
def wheel(release: Path) -> Path:
    (found,) = release.glob("*.whl")
    return found


def test_the_wheel_has_all_that_the_package_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("dlltracer/")}
    source = ROOT / "src" / "dlltracer"
    files = [path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert packed == {f"dlltracer/{path.relative_to(source).as_posix()}" for path in files}
    assert "dlltracer/py.typed" in packed


def test_the_sdist_has_what_the_tests_need_and_nothing_private(release: Path) -> None:
    (sdist,) = release.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "SECURITY.md", "docs/index.md"} <= names
    assert any(name.startswith("tests/unit/") for name in names)
    assert not [name for name in names if re.search(r"(^|/)(\.git|\.venv|\.nox|__pycache__|build|dist)/", name)]


def test_the_bill_of_materials_names_what_is_installed_with_it(release: Path) -> None:
    (file,) = release.glob("*.cdx.json")
    bill = json.loads(file.read_text(encoding="utf-8"))
    assert bill["metadata"]["component"]["name"] == "dlltracer"
    names = {component["name"].lower() for component in bill["components"]}
    assert {"click", "rich"} <= names
    assert not {"pip", "setuptools", "pytest", "hypothesis"} & names


@pytest.mark.parametrize("tool", ["uvx", "pipx"])
def test_it_runs_from_the_wheel_without_being_installed(tool: str, wheel: Path, tmp_path: Path) -> None:
    program = shutil.which(tool, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip(f"needs {tool}")
    start = {"uvx": ["--from", str(wheel)], "pipx": ["run", "--spec", str(wheel)]}[tool]
    home = {"HOME": str(tmp_path), "PIPX_HOME": str(tmp_path / "pipx"), "UV_CACHE_DIR": str(tmp_path / "uv")}
    done = subprocess.run(
        [program, *start, "dlltracer", "why", "ssl"], env={**os.environ, **home}, cwd=tmp_path,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "import ssl works: nothing to explain\n"), done.stderr
