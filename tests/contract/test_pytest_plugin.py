"""`pytest --dlltracer`, and the fixture `dlltrace`: in sessions of their own, on extension modules that are broken."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from contract.native import Native

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fixtures' messages are those of Linux")

SECTION = "*---- dlltracer ----*"


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the fixtures are long, and their headlines are to be on one line."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def broken(native: Native, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that a test of the session can import, and that fails for want of `Native.missing`."""
    module = native.broken_module()
    monkeypatch.setenv("PYTHONPATH", str(module.parent))
    return module.name.partition(".")[0]


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", *arguments)


def verdicts(result: pytest.RunResult) -> int:
    return result.stdout.str().count(f"failed: {Native.missing} was not found")


def test_a_module_that_cannot_be_collected(pytester: pytest.Pytester, broken: str) -> None:
    pytester.makepyfile(f"import {broken}\ndef test_it(): pass")
    result = run(pytester, "--dlltracer")
    result.assert_outcomes(errors=1)
    verdict = [SECTION, f"import {broken} failed: *", "*certain - missing-image - *"]
    result.stdout.fnmatch_lines(["*ImportError while importing test module*", *verdict])
    assert verdicts(result) == 1


def test_each_phase_of_a_test_and_each_failure_once(pytester: pytest.Pytester, broken: str) -> None:
    pytester.makepyfile(
        f"""
import ctypes, pytest

@pytest.fixture
def before():
    import {broken}

@pytest.fixture
def after():
    yield
    ctypes.CDLL("libgone-after.so")

def test_call():
    import {broken}

def test_again():
    import {broken}

def test_setup(before): pass

def test_teardown(after): pass

def test_from():
    try:
        ctypes.CDLL("libgone-call.so")
    except OSError as error:
        raise RuntimeError("cannot work") from error
"""
    )
    result = run(pytester, "--dlltracer")
    result.assert_outcomes(failed=3, passed=1, errors=2)
    assert verdicts(result) == 1
    output = result.stdout.str()
    assert output.count("explained before: the same failure as in ") == 2
    for name in ("libgone-after.so", "libgone-call.so"):
        assert output.count(f"the load failed: {name} was not found") == 1
    assert "there was no trace" not in output


def test_failures_of_others_and_imports_that_a_test_expects_to_fail(pytester: pytest.Pytester, broken: str) -> None:
    pytester.makepyfile(
        f"""
import pytest

def test_module(): import no_such_module
def test_file(): open("/none")
def test_assert():
    try:
        import {broken}
    except ImportError:
        pass
    assert False
def test_expected():
    with pytest.raises(ImportError):
        import {broken}
@pytest.mark.xfail
def test_xfail(): import {broken}
"""
    )
    result = run(pytester, "--dlltracer", "-rA")
    result.assert_outcomes(failed=3, passed=1, xfailed=1)
    result.stdout.no_fnmatch_line(SECTION)


def test_a_conftest_at_the_start(pytester: pytest.Pytester, broken: str) -> None:
    pytester.makeconftest(f"import {broken}")
    result = run(pytester, "--dlltracer")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    output = [f"import {broken} failed: *", "*certain - missing-image - *", "ImportError while loading *"]
    result.stderr.fnmatch_lines(output)
    assert "failed: " not in run(pytester).stderr.str()


def test_a_conftest_of_a_folder(pytester: pytest.Pytester, broken: str) -> None:
    folder = pytester.mkdir("below")
    (folder / "conftest.py").write_text(f"import {broken}")
    (folder / "test_it.py").write_text("def test_it(): pass")
    result = run(pytester, "--dlltracer")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([SECTION, f"import {broken} failed: *"])


def test_without_the_option_nothing_changes(pytester: pytest.Pytester, broken: str) -> None:
    pytester.makeconftest(
        """
import sys
def pytest_sessionfinish():
    names = sorted(name for name in sys.modules if name.partition(".")[0] == "dlltracer")
    print(f"\\nimported: {' '.join(names)}")
"""
    )
    pytester.makepyfile(f"def test_it(): import {broken}")
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line(SECTION)
    result.stdout.no_fnmatch_line("dlltracer: *")
    result.stdout.fnmatch_lines(["imported: dlltracer dlltracer.integrations dlltracer.integrations.pytest_plugin"])


def test_workers_and_junitxml(pytester: pytest.Pytester, broken: str) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(test_one=f"def test_it(): import {broken}", test_two=f"import {broken}")
    result = run(pytester, "--dlltracer", "-n", "1", "--junitxml=report.xml")
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines([SECTION, f"import {broken} failed: *", SECTION, "explained before: *"])
    texts = [found.text or "" for found in ElementTree.parse("report.xml").iter() if found.tag in ("failure", "error")]
    assert len(texts) == 2 and all(" dlltracer ---" in text for text in texts)


@pytest.mark.parametrize(
    ("backend", "output"),
    [("snapshot", "traced by snapshot"), ("etw", "verdicts without a trace: backend 'etw' is not available here")],
)
def test_the_mechanism(pytester: pytest.Pytester, broken: str, backend: str, output: str) -> None:
    pytester.makepyfile(f"def test_it(): import {broken}")
    pytester.makeini(f"[pytest]\ndlltracer_backend = {backend}")
    result = run(pytester, "--dlltracer")
    result.assert_outcomes(failed=1)
    verdict = f"import {broken} failed: {Native.missing} was not *"
    result.stdout.fnmatch_lines([f"dlltracer: {output}*", SECTION, verdict])


@pytest.mark.parametrize(
    ("table", "output"),
    [
        ('[tool.dlltracer]\nbackend = "snapshot"', "dlltracer: traced by snapshot"),
        ('[tool.dlltracer]\nbackend = "rtld"\n[tool.dlltracer.pytest]\nbackend = "snapshot"', "*traced by snapshot"),
    ],
)
def test_the_settings_of_the_project(pytester: pytest.Pytester, table: str, output: str) -> None:
    pytester.makepyprojecttoml(table)
    pytester.makepyfile("def test_it(dlltrace): assert dlltrace.recording.backend == 'snapshot'")
    run(pytester, "--dlltracer").stdout.fnmatch_lines([output, "*1 passed*"])
    run(pytester).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("table", "output"),
    [
        ('[tool.dlltracer.pytest]\nbackend = "nope"', "ERROR: dlltracer: unknown backend 'nope'*"),
        ('[tool.dlltracer.pytest]\nbakend = "rtld"', "*pyproject.toml: pytest.bakend: there is no such *'backend'?*"),
        ("[tool.dlltracer]\nbackend = 1", "*pyproject.toml: backend: this is text, not a number*"),
    ],
)
def test_wrong_settings(pytester: pytest.Pytester, table: str, output: str) -> None:
    pytester.makepyprojecttoml(table)
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--dlltracer")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([output])
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


@pytest.mark.parametrize("option", [(), ("--dlltracer",)])
def test_the_fixture(pytester: pytest.Pytester, native: Native, broken: str, option: tuple[str, ...]) -> None:
    pytester.makepyfile(
        f"""
import ctypes, pytest

def test_it(dlltrace):
    assert len(dlltrace) == 0 and not dlltrace.failures
    ctypes.CDLL({str(native.tiny())!r})
    first = list(dlltrace)
    assert [event.path for event in first] == [event.path for event in dlltrace.loads]
    assert [event.path for event in first] == [{str(native.folder)!r} + "/" + first[0].path.rpartition("/")[2]]
    with pytest.raises(ImportError):
        import {broken}
    assert dlltrace.failures[0].path == {Native.missing!r}
    assert list(dlltrace)[:1] == first and dlltrace[-1] == dlltrace.failures[-1]
    with dlltrace as block:
        ctypes.CDLL({str(native.tiny())!r})
    ctypes.CDLL({str(native.tiny())!r})
    assert len(block) == 1 and block is dlltrace and not block.recording.failures

def test_next(dlltrace):
    assert not dlltrace and repr(dlltrace) == "<dlltrace: no events>"
"""
    )
    run(pytester, *option).assert_outcomes(passed=2)


def test_a_verdict_that_cannot_be_made(pytester: pytest.Pytester, broken: str) -> None:
    pytester.makeconftest(
        """
import dlltracer.api.explain as explain
def broken(*_): raise ValueError("ours")
explain.explain_if_of_a_loader = broken
"""
    )
    pytester.makepyfile(f"def test_it(): import {broken}")
    result = run(pytester, "--dlltracer")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([SECTION, "no verdict: ValueError: ours"])


def test_in_a_program_that_imported_dlltracer_before(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest warns where it comes too late to rewrite the assertions of an installed plugin's package."""
    installed = tmp_path / "dlltracer-9.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: dlltracer\nVersion: 9\n")
    (installed / "entry_points.txt").write_text("[pytest11]\ndlltracer = dlltracer.integrations.pytest_plugin\n")
    (installed / "RECORD").write_text("dlltracer/__init__.py,,\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpython_c("import dlltracer, pytest, sys; sys.exit(pytest.main(['-W', 'error']))")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["plugins: *dlltracer-9*"])
