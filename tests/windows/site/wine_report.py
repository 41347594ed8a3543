"""A pytest plugin for the Windows Python under Wine: leaves the outcomes in the file named by the environment.

pytest's own JUnit report asks Windows for the machine's name through WMI, which ends Python 3.13 in Wine 8.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


class Outcomes:
    """Collects `[name, outcome, detail]` of every test, and of files that could not be collected."""

    def __init__(self, report: Path) -> None:
        self._report = report
        self._found: list[tuple[str, str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._found.append((report.nodeid, report.outcome, report.longreprtext))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":
            self._found.append((report.nodeid, report.outcome, report.longreprtext))

    def pytest_sessionfinish(self) -> None:
        self._report.write_text(json.dumps(self._found), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Outcomes(Path(os.environ["DLLTRACER_TEST_REPORT"])))
