from __future__ import annotations

from pathlib import Path

import pytest

from windows.lab import PYTHONS, Lab, windows_path
from windows.summary import WineRuns, runs_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def simulator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab.build_simulator(tmp_path_factory.mktemp("simulator"))


@pytest.fixture(params=sorted(PYTHONS))
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def paths(lab: Lab) -> dict[str, str]:
    """The environment with which Windows Python finds dlltracer and these tests."""
    folders = [ROOT / "tests" / "windows" / "site", ROOT / "src", ROOT / "tests", lab.site]
    return {"PYTHONPATH": ";".join(map(windows_path, folders))}


@pytest.fixture
def simulated(paths: dict[str, str], simulator: Path, tmp_path: Path) -> dict[str, str]:
    """The environment with which dlltracer under Wine takes its ETW functions from the simulator."""
    state = tmp_path / "sessions"
    state.mkdir()
    return {**paths, "DLLTRACER_TEST_ETW": windows_path(simulator), "DLLTRACER_SIM_STATE": windows_path(state)}


@pytest.fixture
def wine_runs(pytestconfig: pytest.Config) -> WineRuns:
    return runs_of(pytestconfig)
