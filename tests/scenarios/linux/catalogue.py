"""All scenarios of Linux."""

from __future__ import annotations

from scenarios.linux import (
    crashes,
    endings,
    healthy,
    installed,
    limits,
    lookups,
    missing,
    modules,
    pythons,
    searches,
    symbols,
    unnamed,
    wrong_files,
)
from scenarios.linux.workshop import Workshop
from scenarios.scenario import Scenario

SCENARIOS: tuple[Scenario[Workshop], ...] = (
    *missing.SCENARIOS,
    *installed.SCENARIOS,
    *lookups.SCENARIOS,
    *searches.SCENARIOS,
    *modules.SCENARIOS,
    *symbols.SCENARIOS,
    *wrong_files.SCENARIOS,
    *limits.SCENARIOS,
    *crashes.SCENARIOS,
    *endings.SCENARIOS,
    *pythons.SCENARIOS,
    *unnamed.SCENARIOS,
    *healthy.SCENARIOS,
)
