"""Every code that a rule can find has its entry in the documentation, and the reverse."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from dlltracer.diagnose import rules
from dlltracer.model.screen import Screen, columns_of
from dlltracer.report.causes import address_of, read_causes, render_cause

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "src/dlltracer/report/pages/findings.md"
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
    assert len(codes()) > 50
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) and len(code) <= 30 for code in codes())


def test_every_code_has_all_parts() -> None:
    causes = read_causes()
    assert len({(cause.page, cause.code) for cause in causes}) == len(causes) > 100
    for cause in causes:
        parts = ("".join(cause.meaning), cause.check, cause.fix, cause.avoid)
        assert all(len(part) > 15 and part.rstrip().endswith((".", ":", ")", "`")) for part in parts), cause.code


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_page_as_text(width: int) -> None:
    for cause in read_causes():
        text = render_cause([cause], Screen(width=width)).plain
        assert max(map(columns_of, text.splitlines())) <= width
        assert "How to check\n" in text and "For the maintainer\n" in text and "](" not in text


def test_addresses() -> None:
    assert address_of("first-wins", "https://x.org/d/") == "https://x.org/d/reference/findings.html#first-wins"
    assert address_of("tag-mismatch", "file:///p") == "file:///p/checks.md#tag-mismatch"
    assert address_of("nope", "https://x.org") == ""
