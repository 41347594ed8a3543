"""Names that no system can look up end no verdict: sys.path and exceptions may hold any text."""

from __future__ import annotations

import sys

import pytest

from dlltracer.api.explain import explain
from dlltracer.model.finding import Outcome

NUL = "a\0b"
NAMES = (NUL, "a\ud800b", "x" * 5000, "y" * 300)
NOT_FOUND = "cannot open shared object file: No such file or directory"


@pytest.mark.skipif(sys.platform != "linux", reason="the words of glibc")
@pytest.mark.parametrize("text", [f"/{NUL}/libx.so: {NOT_FOUND}", f"/{NUL}.so: undefined symbol: f"])
def test_in_the_words_of_a_loader(text: str) -> None:
    assert explain(OSError(text)).outcome is Outcome.EXPLAINED


@pytest.mark.parametrize("error", [
    ModuleNotFoundError(f"No module named 'json.{NUL}'", name=f"json.{NUL}"),
    ImportError("DLL load failed while importing x", name=NUL, path=f"/{NUL}.so"),
    ModuleNotFoundError("No module named 'x.y'", name="x.y"),
    OSError(f"libx.so.4: {NOT_FOUND}"),
])  # fmt: skip
def test_in_exceptions_and_on_the_search_path(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*NAMES, *sys.path, *(f"/{name}" for name in NAMES), "json"])
    assert explain(error).error is not None
