"""Annotations: what the runner of GitHub Actions reads back is what was meant, and there are few of them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.memory_filesystem import elf_image
from builders.saved_case import DIAGNOSIS, ERROR, FINDING, HOSTILE, hostile_trace
from dlltracer.model.failure import Frame
from dlltracer.model.finding import Confidence, Diagnosis, Outcome
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.report.drawing import escape
from dlltracer.report.render_verdict import MOST, annotate_missing, annotate_verdict

COMMAND = re.compile(r"::error ((?:[a-z]+=[^,:]*)(?:,[a-z]+=[^,:]*)*)::(.*)")


def parse(text: str) -> list[dict[str, str]]:
    """Read as the runner does (actions/runner, ActionCommand.cs)."""
    found = []
    for line in text.splitlines():
        match = COMMAND.fullmatch(line)
        assert match is not None, line
        properties = dict(pair.split("=", 1) for pair in match[1].split(","))
        for code, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            properties = {name: value.replace(code, char) for name, value in properties.items()}
        message = match[2].replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
        found.append({**properties, "message": message})
    return found


def test_a_verdict() -> None:
    assert parse(annotate_verdict(DIAGNOSIS, workspace="/ws")) == [
        {
            "file": "run.py", "line": "3", "title": "import m failed: libgone.so was not found",
            "message": "mod.so cannot be loaded without it.\nfix: install it: apt install gone\n[missing-image]",
        }
    ]  # fmt: skip
    (outside,) = parse(annotate_verdict(DIAGNOSIS, workspace="/other"))
    assert (outside["file"], outside["line"]) == ("/usr/lib/m.py", "9")
    (nowhere,) = parse(annotate_verdict(replace(DIAGNOSIS, error=None)))
    assert "file" not in nowhere


def test_what_works_and_what_nobody_knows() -> None:
    assert annotate_verdict(Diagnosis("import m", Outcome.IMPORTED)) == ""
    (one,) = parse(annotate_verdict(Diagnosis("import m", Outcome.UNDECIDED, undecided=("a core file",))))
    assert one == {"title": "import m failed, and the evidence does not decide why", "message": "a core file"}


def test_few_and_sure_ones_only() -> None:
    perhaps = replace(FINDING, confidence=Confidence.POSSIBLE)
    assert len(parse(annotate_verdict(replace(DIAGNOSIS, findings=(FINDING, perhaps))))) == 1
    assert len(parse(annotate_verdict(replace(DIAGNOSIS, findings=(FINDING,) * 9)))) == MOST


@pytest.mark.parametrize(
    ("file", "workspace", "wanted"),
    [
        ("/ws/a/b.py", "/ws/", "a/b.py"),
        ("/ws2/b.py", "/ws", "/ws2/b.py"),
        ("b.py", "/ws", "b.py"),
        (r"D:\a\repo\x\b.py", r"D:\a\repo", "x/b.py"),
        (r"d:\A\repo\b.py", r"D:\a\repo", "b.py"),
        (r"C:\b.py", r"D:\a\repo", r"C:\b.py"),
        ("/ws/b.py", "", "/ws/b.py"),
    ],
)
def test_files_by_their_paths_in_the_checkout(file: str, workspace: str, wanted: str) -> None:
    error = replace(ERROR, frames=(Frame(file, 1, "f"),))
    (one,) = parse(annotate_verdict(replace(DIAGNOSIS, error=error), workspace=workspace))
    assert one["file"] == wanted


def tree(*names: str) -> LoadTree:
    bindings = [Binding(name, "/ws/a.so", BindingState.MISSING) for name in names]
    return LoadTree("/ws/a.so", {"/ws/a.so": elf_image()}, (*bindings, *bindings))


def test_missing_libraries() -> None:
    assert annotate_missing(tree()) == ""
    found = parse(annotate_missing(tree("b", "c"), workspace="/ws"))
    assert [(one["file"], one["title"], one["message"]) for one in found] == [
        ("a.so", "b missing", "b is needed by /ws/a.so"),
        ("a.so", "c missing", "c is needed by /ws/a.so"),
    ]
    many = parse(annotate_missing(tree(*"bcdefgh")))
    assert len(many) == MOST and many[-1]["title"] == "5 more names missing" and many[-1]["message"] == "d, e, f, g, h"


def test_hostile_names() -> None:
    diagnosis = hostile_trace().diagnosis
    assert diagnosis is not None
    (one,) = parse(annotate_verdict(diagnosis))
    assert one["file"] == HOSTILE[6] and one["title"].endswith(escape(diagnosis.findings[0].title))
    assert len(parse(annotate_missing(tree(*HOSTILE)))) == MOST


@given(st.text(st.characters(codec=None), max_size=30))
def test_any_name(name: str) -> None:
    finding = replace(FINDING, title=name, remedies=(), explanation=f"x{escape(name)}")
    (one,) = parse(annotate_verdict(replace(DIAGNOSIS, findings=(finding,), what="w")))
    assert one["title"] == f"w failed: {escape(name)}" and one["message"] == f"x{escape(name)}\n[missing-image]"
