"""Every code that a rule can find has its entry in the documentation, and the reverse."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

from dlltracer.diagnose import rules

PAGE = Path(__file__).parents[2] / "docs/reference/findings.md"
NAME = re.compile(r"(?:\w+_)?CODE")


def codes() -> set[str]:
    found = set()
    for module in pkgutil.iter_modules(rules.__path__):
        constants = vars(importlib.import_module(f"{rules.__name__}.{module.name}"))
        found |= {value for name, value in constants.items() if NAME.fullmatch(name) and isinstance(value, str)}
    return found


def headings() -> list[str]:
    return re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_code_has_an_entry() -> None:
    assert not codes() - set(headings())


def test_every_entry_has_a_code() -> None:
    assert not set(headings()) - codes()


def test_no_entry_comes_twice() -> None:
    assert len(headings()) == len(set(headings()))


def test_codes_are_short_and_hyphenated() -> None:
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) and len(code) <= 30 for code in codes())
