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

from contract.native import build_here

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


def without_environment(**changed: str) -> dict[str, str]:
    """Our environment, without an active virtual environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    return {**kept, **changed}


@pytest.fixture(scope="module")
def broken_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment without pip and dlltracer, in which `import brokenmod` needs a library that is gone."""
    folder = tmp_path_factory.mktemp("user") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    built = build_here(tmp_path_factory.mktemp("native"))
    (site,) = folder.glob("lib/python3.*/site-packages")
    (module,) = built.glob("brokenmod.*")
    shutil.copy(module, site)
    return folder


def runner(tool: str, wheel: Path, home: Path) -> tuple[list[str], dict[str, str]]:
    """How a tool runs the wheel: the words before "dlltracer", and variables that keep what it makes in `home`."""
    program = shutil.which(tool, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip(f"needs {tool}")
    start = {"uvx": ["--from", str(wheel)], "pipx": ["run", "--spec", str(wheel)]}[tool]
    variables = {"HOME": str(home), "PIPX_HOME": str(home / "pipx"), "UV_CACHE_DIR": str(home / "uv")}
    return [program, *start], variables


@pytest.mark.parametrize("tool", ["uvx", "pipx"])
def test_it_runs_from_the_wheel_without_being_installed(
    tool: str, wheel: Path, broken_environment: Path, tmp_path: Path
) -> None:
    """The line of "help a stranger"; without --python, the Python of the active environment is taken, and named."""
    start, home = runner(tool, wheel, tmp_path)
    python = broken_environment / "bin" / "python"

    def ask(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*start, "dlltracer", *words], env=without_environment(**home, **variables), cwd=tmp_path,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    works = ask("why", "ssl")
    assert (works.returncode, works.stdout) == (0, "import ssl works: nothing to explain\n"), works.stderr
    path = f"{python.parent}:{os.environ['PATH']}"
    active = {"VIRTUAL_ENV": str(broken_environment), "PATH": path}
    named = shutil.which("python", path=path)
    assert named == str(python)
    for words, output in ((("why", "--python", named), False), (("why",), True)):
        verdict = ask(*words, "brokenmod", **active)
        assert verdict.returncode == 1 and "libgone.so was not found" in verdict.stdout, verdict.stderr
        line = f"dlltracer: taking the Python of VIRTUAL_ENV: {python} (--python PATH takes another one)\n"
        assert (line in verdict.stderr) is output, verdict.stderr


def test_the_single_file_runs_where_nothing_is_installed(
    release: Path, broken_environment: Path, tmp_path: Path
) -> None:
    """With a Python that has no packages, also for child processes, and where nothing can be kept."""
    archive, python = release / "dlltracer.pyz", broken_environment / "bin" / "python"

    def ask(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
        return subprocess.run(
            [python, archive, *words], env=without_environment(**{**home, **variables}),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        )  # fmt: skip

    verdict = ask("why", "brokenmod")
    assert verdict.returncode == 1 and "libgone.so was not found" in verdict.stdout, verdict.stderr
    (kept,) = (tmp_path / ".cache" / "dlltracer-pyz").iterdir()
    assert not kept.stat().st_mode & 0o077 and (kept / "dlltracer" / "cli" / "child_main.py").is_file()
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import _bz2'])"
    followed = ask("run", "--follow", "-c", child)
    assert followed.returncode == 0 and "_bz2" in followed.stderr, followed.stderr
    other = ask("why", "--python", sys.executable, "--html", "page.html", "ssl")
    assert (other.returncode, other.stderr) == (0, "wrote page.html\n"), other.stderr
    assert ask("deps", python).returncode == 0 and ask("check", "no.whl").returncode in (2, 3)
    (tmp_path / "room").mkdir()
    nowhere = ask("why", "brokenmod", HOME="/proc/self/none", TMPDIR=str(tmp_path / "room"))
    assert nowhere.returncode == 1 and "libgone.so was not found" in nowhere.stdout, nowhere.stderr
    assert not list((tmp_path / "room").iterdir())


def test_the_single_file_is_the_same_for_the_same_files(wheel: Path, tmp_path: Path) -> None:
    """And it has no compiled code: it runs with every Python on every system."""
    spec = importlib.util.spec_from_file_location("build_pyz", ROOT / "tools" / "build_pyz.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.unpack_archive(wheel, tmp_path / "files", "zip")
    for name in ("one", "two"):
        module.pack(tmp_path / "files", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with zipfile.ZipFile(wheel.parent / "dlltracer.pyz") as archive:
        names = archive.namelist()
    assert names[0] == "__main__.py" and not [name for name in names if name.endswith((".so", ".pyd", ".pyc"))]
    assert {"click/__init__.py", "tomli/__init__.py", "rich/__init__.py", "jinja2/__init__.py"} <= set(names)
