from __future__ import annotations

from collections.abc import Iterator

import pytest

from scenarios.windows.desk import Desk
from scenarios.windows.workshop import VERSION
from windows.lab import Lab, find_lab


@pytest.fixture(scope="module")
def lab() -> Lab:
    found = find_lab()
    if isinstance(found, str):
        pytest.skip(f"no Windows lab: {found}")
    return found


@pytest.fixture(scope="module")
def desk(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(lab, VERSION, tmp_path_factory.mktemp("desk"))
    yield desk
    desk.close()
