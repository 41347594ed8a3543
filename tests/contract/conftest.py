from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.native import PREBUILT, Native, build_here


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if sys.platform not in ("linux", "win32"):
        for item in items:
            if "contract" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason=f"the contract has not been run on {sys.platform} yet"))


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if PREBUILT in os.environ:
        return Path(os.environ[PREBUILT])
    return build_here(tmp_path_factory.mktemp("native"))


@pytest.fixture
def native(originals: Path, tmp_path: Path) -> Native:
    return Native(originals, tmp_path)


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a new interpreter: `run_python(code, *args)`."""

    def run(code: str, *args: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return run
