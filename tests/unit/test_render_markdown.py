"""Markdown for an issue: never more than 60 lines, all in it that a maintainer asks for, and names that stay names."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from builders.saved_case import DIAGNOSIS, FINDING, HOSTILE, PROCESS, hostile_trace, saved_trace, trace_of
from dlltracer.model.events import LoadEvent, Phase, Probe
from dlltracer.model.finding import Diagnosis, Outcome
from dlltracer.model.run import RunResult
from dlltracer.report.render_markdown import MOST, code, render_markdown


def prose(text: str) -> str:
    """What a reader of Markdown finds outside of code: fenced blocks and spans are taken out."""
    kept, fence = [], ""
    for line in text.splitlines():
        if fence:
            fence = "" if line == fence else fence
        elif line.startswith("```"):
            fence = line.removesuffix("text")
        else:
            kept.append(re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "CODE", line))
    assert not fence, "every block ends"
    return "\n".join(kept)


def test_a_failure() -> None:
    text = render_markdown(saved_trace())
    lines = text.splitlines()
    assert lines[0] == "### dlltracer: `import m` failed"
    for line in (
        "| dlltracer | `0.1.0`, traced by `rtld` |",
        "| Python | `3.11.7, 64 bits, debug build, /usr/bin/python3` |",
        "| System | `Debian GNU/Linux 12, x86_64` |",
        "| C library | `glibc 2.36` |",
        "import m failed: libgone.so was not found",
        "              > /app/mod.so",
        "<details><summary>2 images loaded, 1 failed; below is what failed, and what leads to it</summary>",
        "</details>",
    ):
        assert line in lines, line
    assert any("dropped because of the failure" in line for line in lines)
    assert len(lines) <= MOST


def test_other_outcomes() -> None:
    works = saved_trace(diagnosis=Diagnosis("import m", Outcome.IMPORTED))
    assert render_markdown(works).startswith("### dlltracer: `import m` works\n")
    plain = render_markdown(trace_of(LoadEvent("/a.so"), run=RunResult(), host=None, written_by=""))
    assert plain.startswith("### dlltracer: what `import m` loads\n\n| | |\n| --- | --- |\n| dlltracer | traced by `")
    assert "1 image loaded, 0 failed" in plain and "a.so  /a.so" in plain
    unknown = saved_trace(diagnosis=Diagnosis("import m", Outcome.UNDECIDED, undecided=("a core file",)))
    assert "the evidence does not decide why" in render_markdown(unknown)


def test_a_stream_without_the_characters_of_the_tree() -> None:
    loads = [LoadEvent(f"/lib/{number}.so", imports=("m",)) for number in range(99)]
    text = render_markdown(replace(trace_of(*loads), diagnosis=saved_trace().diagnosis), ascii_only=True)
    assert text.isascii() and "|- 1.so" in text and "\n... " in text


def test_a_great_deal_is_cut_and_counted() -> None:
    loads = [LoadEvent(f"/lib/{number}.so") for number in range(500)]
    lines = render_markdown(trace_of(*loads)).splitlines()
    assert len(lines) == MOST
    shown = sum(line.endswith(".so") for line in lines)
    assert f"… {501 - shown} more lines" in lines, "501: the summary is a line as well; the heading is shown"
    probes = tuple(Probe(f"/{number}/x.so", Phase.PATH, f"o{number}") for number in range(200))
    finding = replace(FINDING, chain=tuple(map(str, range(99))), probes=probes, explanation="word " * 2000)
    many = replace(DIAGNOSIS, findings=(finding,) * 30, notes=("note",) * 99)
    big = replace(PROCESS, executable="/x" * 9999)
    lines = render_markdown(saved_trace(diagnosis=many, run=RunResult(process=big))).splitlines()
    assert len(lines) <= MOST and sum("more lines" in line for line in lines) == 2
    assert lines[-1] == "</details>" and max(map(len, lines)) < 500


def test_hostile_names_are_in_code_only() -> None:
    text = render_markdown(hostile_trace())
    assert len(text.splitlines()) <= MOST
    assert all(char.isprintable() or char == "\n" for char in text)
    outside = prose(text)
    for word in ("@everyone", "<script>", "http:", "#12", "::error", "|pipe"):
        assert word in text and word not in outside, word
    assert set(re.findall(r"</?[a-z]+", outside)) == {"<details", "<summary", "</summary", "</details"}
    (row,) = [line for line in text.splitlines() if line.startswith("| System")]
    assert row == r"| System | `/x/pipe\|pipe.so, x86_64` |"


@given(st.text(st.characters(codec=None), max_size=40))
def test_any_name_as_code(name: str) -> None:
    for span in (code(name), code(name, table=True)):
        assert "\n" not in span and prose(f"a {span} b") == "a CODE b"
    assert "|" not in re.sub(r"\\\|", "", code(name, table=True))


@given(st.lists(st.sampled_from([*HOSTILE, "```", "````text", "</details>"]), max_size=80), st.booleans())
def test_never_more_than_sixty_lines(names: list[str], with_verdict: bool) -> None:
    finding = replace(FINDING, title=" ".join(names), chain=tuple(names), explanation=" ".join(names * 9))
    diagnosis = replace(DIAGNOSIS, findings=(finding,) * len(names), notes=tuple(names)) if with_verdict else None
    saved = trace_of(*(LoadEvent(name) for name in names))
    text = render_markdown(replace(saved, diagnosis=diagnosis))
    assert len(text.splitlines()) <= MOST
    assert "</details>" in prose(text).splitlines()[-1]


def test_the_cause_leads_to_its_page() -> None:
    trace = saved_trace(diagnosis=replace(DIAGNOSIS, findings=(replace(FINDING, code="first-wins"),)))
    link = "[first-wins](https://example.org/reference/findings.html#first-wins): "
    assert f"\n{link}" in render_markdown(trace, documentation="https://example.org/")
    assert "[first-wins](" not in render_markdown(trace, documentation="file:///home/me/pages")
    hostile = replace(DIAGNOSIS, findings=(replace(FINDING, code="x](http://bad)"),))
    assert "](http" not in prose(render_markdown(saved_trace(diagnosis=hostile), documentation="https://example.org/"))
