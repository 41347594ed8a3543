"""A failure that people meet, built for real, and the verdict that it must get."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

WorkshopT = TypeVar("WorkshopT")

UNDECIDED = "undecided"
IMPORTED = "imported"


@dataclass(frozen=True)
class Question:
    """What `dlltracer why` is asked: its arguments, what is added to the environment, the current folder.

    `prefix` is the command that starts it (unshare, chroot); `python` the interpreter, `None` for the one of the tests.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    prefix: tuple[str, ...] = ()
    python: str | None = None


class CannotBuild(Exception):
    """This machine cannot have the scenario; the text says why."""


@dataclass(frozen=True)
class Scenario(Generic[WorkshopT]):
    """One failure.

    Attributes:
        id: stable, of the kind of failure ("missing-leaf").
        title: what is wrong, in words.
        build: makes the files in a workshop, and says what to ask.
        expected: the code of the first finding; `UNDECIDED` or `IMPORTED` where that is the right answer.
        subject: part of the first finding's subject.
        mentions: what the verdict must say somewhere.
    """

    id: str
    title: str
    build: Callable[[WorkshopT], Question]
    expected: str
    subject: str = ""
    mentions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """What a scenario got: `verdict` is the code, "undecided" or "imported"; `problem` is empty when all is right."""

    id: str
    title: str
    expected: str
    verdict: str
    confidence: str
    seconds: float
    problem: str

    @property
    def is_wrong_and_firm(self) -> bool:
        """The worst: a wrong cause, stated as certain or likely."""
        return bool(self.problem) and self.verdict not in (self.expected, UNDECIDED, IMPORTED)


def judge(scenario: Scenario[Any], ask: Callable[[], str]) -> Judgement:
    """Ask, and compare the JSON that `dlltracer why --json` prints with what is expected."""
    start = time.perf_counter()
    text = ask()
    seconds = time.perf_counter() - start
    output = json.loads(text)
    findings = output["findings"]
    first = findings[0] if findings else {}
    verdict = first["code"] if output["outcome"] == "explained" else output["outcome"]
    problems = []
    if verdict != scenario.expected:
        problems.append(f"expected {scenario.expected}, got {verdict}")
    if scenario.subject not in first.get("subject", ""):
        problems.append(f"the subject is {first.get('subject')!r}, not {scenario.subject!r}")
    commands = "\n".join(shlex.join(one["command"]) for finding in findings for one in finding["remedies"])
    problems += [f"{words!r} is not mentioned" for words in scenario.mentions if words not in f"{text}\n{commands}"]
    confidence = first.get("confidence", "")
    return Judgement(scenario.id, scenario.title, scenario.expected, verdict, confidence, seconds, "; ".join(problems))
