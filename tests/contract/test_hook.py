"""`dlltracer.install()` and `dlltracer hook`: the verdict behind the traceback of any program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import rich

import dlltracer
from contract.native import Native

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fixtures' messages are those of Linux")

SOURCE = str(Path(dlltracer.__file__).parents[1])


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the fixtures are long, and their headlines are to be on one line."""
    monkeypatch.setenv("COLUMNS", "200")


def run(python: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "DLLTRACER"}
    return subprocess.run(
        [python, *arguments], env={**clean, **more}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def failing(native: Native) -> str:
    module = native.broken_module()
    return f"import sys; sys.path.insert(0, {str(module.parent)!r}); import {module.name.partition('.')[0]}"


def test_the_verdict_follows_the_traceback(native: Native) -> None:
    plain = run(sys.executable, "-c", failing(native))
    ran = run(sys.executable, "-c", f"import dlltracer; dlltracer.install(); dlltracer.install(); {failing(native)}")
    assert ran.returncode == plain.returncode == 1 and ran.stdout == ""
    assert ran.stderr.count("Traceback") == 1
    behind = ran.stderr[ran.stderr.index(f"ImportError: {native.missing}") :]
    assert behind.count(f"failed: {native.missing} was not found") == 1


@pytest.mark.parametrize(
    "code", ["1/0", "import no_such_module", "open('/none')", "raise ImportError('mine')", "exit(3)"]
)
def test_other_endings_are_as_without(code: str) -> None:
    ran = run(sys.executable, "-c", f"import dlltracer; dlltracer.install(); {code}")
    plain = run(sys.executable, "-c", f"import sys; sys; {code}")
    assert (ran.returncode, ran.stderr.splitlines()[-1:]) == (plain.returncode, plain.stderr.splitlines()[-1:])


def test_the_users_own_hook_is_called(native: Native) -> None:
    ran = run(
        sys.executable,
        "-c",
        f"""
import sys, dlltracer
sys.excepthook = lambda kind, error, where: print("mine", kind.__name__)
dlltracer.install()
{failing(native)}
""",
    )
    assert ran.stdout == "mine ImportError\n" and "was not found" in ran.stderr


def test_threads_and_each_failure_once(native: Native, tmp_path: Path) -> None:
    first, second = failing(native), failing(native)
    (tmp_path / "program.py").write_text(
        f"""
import dlltracer, sys, threading
threading.excepthook = lambda arguments: print("mine", arguments.exc_type.__name__)
dlltracer.install()
dlltracer.install()

def one():
    {first}

def two():
    {second}

for function in (one, one, two, lambda: 1 / 0, sys.exit):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
one()
"""
    )
    ran = run(sys.executable, str(tmp_path / "program.py"))
    assert ran.stdout == "mine ImportError\n" * 3 + "mine ZeroDivisionError\n" + "mine SystemExit\n"
    assert ran.stderr.count("\n  chain ") == 2 and ran.stderr.count("was not found: explained above\n") == 2
    assert ran.stderr.count("Traceback") == 1


def test_a_threading_of_the_programs_own(native: Native, tmp_path: Path) -> None:
    (tmp_path / "threading.py").write_text("raise SyntaxError('mine')")
    (tmp_path / "program.py").write_text(f"import dlltracer; dlltracer.install(); {failing(native)}")
    ran = run(sys.executable, str(tmp_path / "program.py"))
    assert ran.stderr.count("Traceback") == 1
    assert ran.stderr.splitlines()[-1] == "dlltracer: no verdict: SyntaxError: mine", "what it needs needs threading"


def test_under_a_trace_the_verdict_is_the_traces(native: Native) -> None:
    code = f"import dlltracer; dlltracer.install(); {failing(native)}"
    ran = run(sys.executable, "-m", "dlltracer", "run", "-c", code)
    assert ran.returncode == 1 and ran.stderr.count("Traceback") == 1
    assert ran.stderr.count("was not found") == 1 and "the code failed: " in ran.stderr


def test_explain_gives_a_value(native: Native) -> None:
    ran = run(
        sys.executable,
        "-c",
        f"""
import dlltracer
try:
    {failing(native)}
except ImportError as error:
    verdict = dlltracer.explain(error)
print(verdict.outcome.name, verdict.findings[0].code, verdict.findings[0].subject)
""",
    )
    assert ran.stdout == f"EXPLAINED missing-image {native.missing}\n", ran.stderr


def test_the_variable_in_an_environment_that_opted_in(native: Native, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", tmp_path / "v"], check=True
    )
    python = str(tmp_path / "v" / "bin" / "python")
    folders = [SOURCE, *(str(Path(str(module.__file__)).parents[1]) for module in (click, rich))]
    paths = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}
    assert "is not there" in run(python, "-m", "dlltracer", "hook", "status", **paths).stdout
    assert "is in place" in run(python, "-m", "dlltracer", "hook", "enable", **paths).stdout
    core = {"PYTHONPATH": SOURCE}  # in a program, the standard library is enough
    asked = run(python, "-c", failing(native), DLLTRACER="1", **core)
    assert f"failed: {native.missing} was not found" in asked.stderr
    assert "was not found" not in run(python, "-c", failing(native), **paths).stderr
    uninstalled = run(python, "-c", failing(native), DLLTRACER="1", PYTHONPATH="")
    assert "dlltracer-hook.pth" not in uninstalled.stderr and "Traceback" in uninstalled.stderr
    assert "is gone" in run(python, "-m", "dlltracer", "hook", "disable", **paths).stdout
    assert "was not there" in run(python, "-m", "dlltracer", "hook", "disable", **paths).stdout
    assert "was not found" not in run(python, "-c", failing(native), DLLTRACER="1", **paths).stderr


TYPED = ("from {} import (\n    anything)", "from {} import anything as other  # why", "import {}; 1 / 0")


@pytest.mark.parametrize("typed", TYPED)
def test_the_headline_is_what_was_typed(typed: str, native: Native, tmp_path: Path) -> None:
    broken = native.broken()
    name = broken.name.partition(".")[0]
    (tmp_path / "wrapper.py").write_text(typed.format(name))
    code = f"import sys; sys.path[:0] = {[str(broken.parent), str(tmp_path)]!r}\n"
    code += "import dlltracer; dlltracer.install()\n"
    (tmp_path / "outer.py").write_text(f"{code}import wrapper\n")
    (tmp_path / "inner.py").write_text(f"{code}{typed.format(name)}\n")
    outer, inner = (run(sys.executable, str(tmp_path / f"{which}.py")).stderr for which in ("outer", "inner"))
    statement = typed.format(name).split("(")[0].split("  #")[0].split(";")[0].strip()
    assert f"\nimport wrapper failed: {native.missing} was not found\n" in outer
    assert f"\n{statement}{' ...' if '(' in typed else ''} failed: " in inner.replace("\n  ", " ")


@pytest.mark.parametrize("statement", ["from outer import front", "import outer.EXT"])
def test_code_without_lines_is_named_by_the_module_that_it_imported(
    statement: str, native: Native, tmp_path: Path
) -> None:
    package = tmp_path / "outer"
    package.mkdir()
    broken = native.broken_module()
    extension = broken.name.partition(".")[0]
    shutil.copy(broken, package)
    (package / "__init__.py").touch()
    (package / "front.py").write_text(f"from . import {extension}")
    typed = statement.replace("EXT", extension)
    code = f"""
import dlltracer, sys
sys.path.insert(0, {str(tmp_path)!r})
try:
    exec({typed!r})
except ImportError as error:
    print(dlltracer.explain(error).what)
"""
    ran = run(sys.executable, "-c", code)
    assert ran.stdout == f"import outer.{extension if 'front' not in typed else 'front'}\n", ran.stderr
