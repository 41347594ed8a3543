"""The pieces of HTML for a notebook: well formed, names harmless, failures open."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent
from dlltracer.model.finding import Confidence, Diagnosis, Finding, Outcome
from dlltracer.model.recording import Recording
from dlltracer.model.screen import Screen
from dlltracer.report.render_notebook import render_tree_html, render_verdict_html
from dlltracer.report.render_short import render_short_verdict
from dlltracer.report.render_text import render_text

TAGS = {"style", "div", "details", "summary", "ul", "li", "span", "p", "pre"}


class Reader(HTMLParser):
    """The text of a piece; fails for a tag of another kind, an attribute of another kind, or one that is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text = ""
        self.details: list[bool] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS and {name for name, _ in attrs} <= {"class", "open"}
        self.open.append(tag)
        if tag == "details":
            self.details.append(bool(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def recording(*names: str, failed: str | None = None, below: str = "") -> Recording:
    events: list[LoadEvent | LoadFailedEvent] = [LoadEvent(name, imports=("a",)) for name in names]
    if failed is not None:
        events.append(
            LoadFailedEvent(failed, kind=FailureKind.NOT_FOUND, need=failed, requested_by=below, imports=("a",))
        )
    return Recording("rtld", tuple(events), notes=("<note>",))


@settings(deadline=None)
@given(st.text(st.characters(), min_size=1), st.text(st.characters()))
def test_any_name_is_text(name: str, other: str) -> None:
    made = recording(f"/x/{name}.so", failed=name, below=other)
    said = Reader(render_tree_html(made)).text
    for line in render_text(made).plain.splitlines():
        assert line.lstrip("\u251c\u2514\u2500\u2502 ") in said
    assert "<note>" in said


def test_a_large_tree_is_folded_but_for_its_failures() -> None:
    names = [f"/x/{number}.so" for number in range(100)]
    small = Reader(render_tree_html(recording("/x/a.so")))
    assert small.details == [True]
    assert Reader(render_tree_html(recording(*names))).details == [False]
    large = Reader(render_tree_html(recording(*names, failed="gone.so", below="/x/7.so")))
    assert large.details == [True, True]
    folded = Reader(render_tree_html(recording(*names, failed="gone.so", below="/x/7.so"), failed_only=True))
    assert folded.details == [True, True] and "/x/8.so" not in folded.text


def test_a_verdict_has_the_lines_of_its_text() -> None:
    finding = Finding(
        code="missing-image",
        title="<b> was not found",
        confidence=Confidence.CERTAIN, subject="<b>", chain=("x.py:1", "import b", "<b>"),
    )
    verdict = Diagnosis("import b", Outcome.EXPLAINED, findings=(finding,), notes=("a & b",))
    text = render_short_verdict(verdict, Screen(width=100)).plain
    assert Reader(render_verdict_html(verdict)).text.strip("\n") == text.strip("\n")
