from __future__ import annotations

from collections.abc import Iterator

import pytest

from scenarios.windows.desk import Desk
from scenarios.windows.workshop import VERSION
from windows.lab import Lab


@pytest.fixture(scope="module")
def desk(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(lab, VERSION, tmp_path_factory.mktemp("desk"))
    yield desk
    desk.close()
