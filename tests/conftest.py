from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from windows.lab import Lab, find_lab
from windows.summary import runs_of

# The commands write annotations where this says so; tests that want them set it.
os.environ.pop("GITHUB_ACTIONS", None)
os.environ.pop("GITHUB_STEP_SUMMARY", None)
# Commands of the tests name their Python by running it, whatever environment is active in the shell.
os.environ.pop("VIRTUAL_ENV", None)
os.environ.pop("CONDA_PREFIX", None)
# A shell without job control starts what it puts in the background with SIGINT ignored (POSIX.1-2017, 2.11), and
# exec keeps that: programs of the tests would never die of it. exec turns a handler into the default (signal(7)).
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ONCE = {
    "test_architecture_page", "test_check_many", "test_check_page", "test_check_recipes", "test_etl_recordings",
    "test_findings_docs", "test_hostile_recordings", "test_hostile_wheels", "test_html_page", "test_mangled",
    "test_manpage", "test_providers", "test_redact", "test_render_bounds", "test_resolver_bounds", "test_schemas",
    "test_security", "test_selftest_report", "test_structure",
}  # fmt: skip
"""Unit tests that one Python is enough for: of the repository itself, of time and memory, of tables and pages, and of
what other tools do."""

# How long an example takes, and how long it takes to make some, is a question of what else the machine does.
settings.register_profile("all", deadline=None, suppress_health_check=(HealthCheck.too_slow,))
# The same code on one more Python (tools/pythons.py) is no place to look for new inputs.
settings.register_profile("few", settings.get_profile("all"), max_examples=5)
settings.load_profile("few" if os.environ.get("DLLTRACER_FEW_EXAMPLES") else "all")


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The Windows lab; what needs it is skipped on a machine that cannot have one."""
    found = find_lab()
    if isinstance(found, str):
        pytest.skip(f"no Windows lab: {found}")
    return found


@pytest.fixture
def in_deleted_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder of the test is one that was deleted: no path relative to it can be made whole."""
    if sys.platform == "win32":
        pytest.skip("Windows keeps the current folder of a process")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()


@pytest.hookimpl(tryfirst=True)  # before marks are selected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The unit tests run on every Python, but for `ONCE`; of the others, those that say so."""
    for item in items:
        if "unit" in item.path.parts and item.path.stem not in ONCE:
            item.add_marker("every_python")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what this worker of pytest-xdist ran under Wine to the main process."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["wine"] = runs_of(session.config).lines


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect in the main process what a worker ran under Wine."""
    runs_of(node.config).lines.extend(getattr(node, "workeroutput", {}).get("wine", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in runs_of(config).lines:
        terminalreporter.write_line(line)
