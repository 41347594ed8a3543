"""The pieces of HTML for a notebook: well formed, names harmless, failures open."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent
from dlltracer.model.failure import Frame, PythonError
from dlltracer.model.finding import Confidence, Diagnosis, Finding, Outcome, Remedy
from dlltracer.model.recording import Recording
from dlltracer.report.drawing import escape
from dlltracer.report.render_notebook import render_tree_html, render_verdict_html
from dlltracer.report.render_text import render_text

TAGS = {
    "style", "div", "details", "summary", "ul", "ol", "li", "span", "p", "pre", "code", "h3", "h4", "svg", "path", "dl",
    "dt", "dd", "b",
}  # fmt: skip
ATTRIBUTES = {"class", "open", "title", "aria-hidden", "width", "height", "viewbox", "d"}


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
        assert tag in TAGS | {"wbr"} and {name for name, _ in attrs} <= ATTRIBUTES
        if tag == "wbr":
            return
        self.open.append(tag)
        if tag == "details":
            self.details.append("open" in dict(attrs))

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
    output = Reader(render_tree_html(made)).text
    for line in render_text(made).plain.splitlines():
        assert line.lstrip("\u251c\u2514\u2500\u2502 ") in output
    assert "<note>" in output


def test_a_large_tree_is_folded_but_for_its_failures() -> None:
    names = [f"/x/{number}.so" for number in range(100)]
    small = Reader(render_tree_html(recording("/x/a.so")))
    assert small.details == [True]
    assert Reader(render_tree_html(recording(*names))).details == [False]
    large = Reader(render_tree_html(recording(*names, failed="gone.so", below="/x/7.so")))
    assert large.details == [True, True]
    folded = Reader(render_tree_html(recording(*names, failed="gone.so", below="/x/7.so"), failed_only=True))
    assert folded.details == [True, True] and "/x/8.so" not in folded.text


def a_verdict(name: str) -> Diagnosis:
    finding = Finding(
        code="missing-image", title=f"{name} was not found", confidence=Confidence.CERTAIN, subject=name,
        chain=("x.py:1", "import b", name), explanation="It is needed.",
        remedies=(Remedy("install it", ("apt", "install", "b")),),
    )  # fmt: skip
    error = PythonError("ImportError", f"{name}: no such file", frames=(Frame("x.py", 1, "<module>", "import b"),))
    return Diagnosis("import b", Outcome.EXPLAINED, error, findings=(finding,), notes=("a & b",))


def test_a_verdict_is_the_card_of_the_report_without_anything_that_needs_a_script() -> None:
    text = Reader(render_verdict_html(a_verdict("<b>"))).text
    parts = ("import b failed", "<b> was not found", "certain", "missing-image", "Fix", "Install it", "apt install b")
    parts += ("Python says", "ImportError: <b>: no such file", "Needed by", "x.py:1", "Why", "It is needed.", "a & b")
    places = [text.index(part) for part in parts]
    assert places[:11] == sorted(places[:11])
    assert "Copy" not in text


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_any_name_is_text_in_a_verdict(name: str) -> None:
    html = render_verdict_html(a_verdict(name))
    html.encode("utf-8")
    assert f"{escape(name)} was not found" in Reader(html).text


def test_the_style_of_a_card_names_nothing_that_a_notebook_has() -> None:
    style = render_verdict_html(a_verdict("b")).partition("</style>")[0]
    selectors = re.findall(r"^ ?([^{}@/]+?) \{", style, re.MULTILINE)
    assert len(selectors) > 50
    parts = [part for selector in selectors for part in selector.split(", ")]
    assert [part for part in parts if ".dlt-" not in part and ".dlltracer" not in part] == []
