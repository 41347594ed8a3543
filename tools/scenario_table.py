"""Prints a table of all scenarios with the verdicts that they get: `python tools/scenario_table.py [WORD ...]`.

Words choose: "linux", "windows", and parts of ids. The wrong ones come first. Exit status 1 if there are any.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from scenarios.scenario import CannotBuild, Judgement, Scenario, judge

Row = tuple[str, Scenario[Any], "Judgement | str"]
"""The system, the scenario, and what it got, or why it could not be built."""


def linux(words: list[str]) -> Iterator[Row]:
    from scenarios.linux.asking import ask_why
    from scenarios.linux.catalogue import SCENARIOS
    from scenarios.linux.workshop import Workshop, why_there_is_none

    reason = why_there_is_none()
    for scenario in SCENARIOS:
        if not _is_chosen(scenario, words):
            continue
        if reason is not None:
            yield "Linux", scenario, reason
            continue
        with tempfile.TemporaryDirectory(prefix="dlltracer-scenario-") as folder:
            try:
                question = scenario.build(Workshop(Path(folder)))
            except CannotBuild as error:
                yield "Linux", scenario, str(error)
            else:
                yield "Linux", scenario, judge(scenario, lambda question=question: ask_why(question))  # type: ignore[misc]


def windows(words: list[str]) -> Iterator[Row]:
    from scenarios.windows.catalogue import SCENARIOS
    from scenarios.windows.desk import Desk
    from scenarios.windows.workshop import VERSION, Workshop
    from windows.lab import find_lab

    lab = find_lab()
    chosen = [scenario for scenario in SCENARIOS if _is_chosen(scenario, words)]
    if isinstance(lab, str):
        for scenario in chosen:
            yield "Windows", scenario, lab
        return
    with tempfile.TemporaryDirectory(prefix="dlltracer-scenario-") as folder:
        desk = Desk(lab, VERSION, Path(folder))
        try:
            for scenario in chosen:
                shop = Workshop(lab, desk, Path(folder) / scenario.id)
                shop.folder.mkdir(exist_ok=True)
                question = scenario.build(shop)
                verdict = judge(scenario, lambda shop=shop, question=question: shop.ask(question))  # type: ignore[misc]
                yield "Windows", scenario, verdict
        finally:
            desk.close()


def _is_chosen(scenario: Scenario[Any], words: list[str]) -> bool:
    return not words or any(word in scenario.id for word in words)


def _line(system: str, scenario: Scenario[Any], got: Judgement | str) -> str:
    if isinstance(got, str):
        return f"| {system} | {scenario.id} | {scenario.title} | {scenario.expected} | not built | | | {got} |"
    mark = "right"
    if got.problem:
        mark = f"WRONG{' AND FIRM' if got.is_wrong_and_firm else ''}: {got.problem}"
    cells = (system, got.id, got.title, got.expected, got.verdict, got.confidence, f"{got.seconds:.1f}", mark)
    return f"| {' | '.join(cells)} |"


def _rank(row: Row) -> int:
    got = row[2]
    if isinstance(got, str):
        return 3
    return 0 if got.is_wrong_and_firm else 1 if got.problem else 2


def main(words: list[str]) -> int:
    systems = {"linux": linux, "windows": windows}
    chosen = [systems[word] for word in words if word in systems] or list(systems.values())
    parts = [word for word in words if word not in systems]
    rows: list[Row] = sorted((row for rows in chosen for row in rows(parts)), key=_rank)
    print("| system | id | title | expected | verdict | confidence | s | |\n|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(_line(*row))
    judged = [got for _, _, got in rows if isinstance(got, Judgement)]
    wrong = [got for got in judged if got.problem]
    print(
        f"\n{len(judged)} scenarios: {len(judged) - len(wrong)} right, {len(wrong)} wrong "
        f"({sum(got.is_wrong_and_firm for got in wrong)} firmly), {len(rows) - len(judged)} not built; "
        f"{sum(got.seconds for got in judged):.0f} s"
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
