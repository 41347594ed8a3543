"""The HTML page: what it says, and that whatever a file is called stays text."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders.large_run import large_run
from builders.memory_filesystem import elf_image
from builders.report_traces import GONE, dropped, load, many_images, missing, small_failure, windows_failure
from dlltracer.model.events import DebugEvent, Event, FailureKind, LoadFailedEvent, Phase, Probe, ProbeOutcome
from dlltracer.model.failure import Crash, Frame, ProcessFacts, PythonError, System
from dlltracer.model.finding import Confidence, Diagnosis, Evidence, Finding, Outcome, Remedy, Source
from dlltracer.model.recording import Losses, Recording, TracedProcess
from dlltracer.model.run import HostFacts, ImageFacts, RunResult, SavedTrace
from dlltracer.model.tree import Binding, BindingState, LoadTree, MissingSymbol
from dlltracer.model.words import label_of, size_in_words, time_in_words
from dlltracer.report.causes import read_causes
from dlltracer.report.drawing import escape
from dlltracer.report.html import json_for_html, render_html, render_html_tree
from dlltracer.report.render_markdown import render_markdown

HOSTILE = (
    "</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'\" onclick=x()", "<!--", "]]>", "{{7*7}}",
    "{% raw %}", "javascript:alert(1)", "&lt;&#0;", "\u202ecod.exe", "\ud800\udfff", "\udcff", "\x00\x1b[31m\r\n\t",
    "\u2028\u2029",
    "</style>", "<script", "\\u003c", "C:\\a\\..\\b", "//evil.example/x", "${x}`", "n1", "-->", "\u200b", "é漢",
)  # fmt: skip
names = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=12)


class Page(HTMLParser):
    """What a browser would make of it: elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    @property
    def data(self) -> dict[str, object]:
        found = json.loads(self.scripts[0])
        assert isinstance(found, dict)
        return found


def trace_named(name: str) -> SavedTrace:
    """A trace with the name wherever a text can come from outside."""
    path = f"/x/{name}"
    probes = (Probe(path, Phase.OTHER, name, ProbeOutcome.PRESENT, name), Probe(path, Phase.RUNPATH, path))
    events = (
        load(path, imports=(name, f"{name}.b")),
        replace(missing(name, path, imports=(name,)), reason=name, probes=probes),
    )
    finding = Finding(
        code=name,
        title=name,
        confidence=Confidence.LIKELY, subject=name, chain=(name, path, name), probes=probes,
        explanation=name,
        evidence=(Evidence(Source.FILES, name),),
        remedies=(Remedy(name, (name,)),),
    )  # fmt: skip
    error = PythonError(name, name, frames=(Frame(name, 1, name, name),))
    crash = Crash(11, name, 1, name, 2, None, None)
    process = ProcessFacts(
        System.LINUX, (3, 11, 1), (), 64, name, name, name, (name,), (name,), ((name, name),), name, (name,)
    )
    return SavedTrace(
        Recording(
            "rtld", events, 4711, Losses(1, 2, 3), (name,),
            (TracedProcess(4711, None, (name,), name), TracedProcess(1, 4711, None, name, crash=crash)),
        ),
        name, name, 0.0, HostFacts("linux", name, name, name, name),
        RunResult(process=process, errors=(error,), crash=crash, status=1),
        Diagnosis(name, Outcome.EXPLAINED, error, crash, (finding, finding), (name,), (name,)), None,
        (ImageFacts(path, 1, 1.0, name, name, name, (name, "other"), name, name),), (name,),
    )  # fmt: skip


def tree_named(name: str) -> LoadTree:
    top = f"/x/{name}"
    probes = (Probe(top, Phase.RUNPATH, name, ProbeOutcome.ABSENT, name),)
    return LoadTree(
        top, {top: elf_image(name, soname=name)},
        (Binding(name, top, BindingState.MISSING, probes=probes, reason=name),), (name,),
    )  # fmt: skip


@functools.cache
def usual_page() -> Page:
    return Page(render_html(small_failure()))


def check_harmless(html: str) -> Page:
    """Nothing but known elements, nothing that runs or loads, nothing that does not print; as UTF-8."""
    html.encode("utf-8")
    assert all(c.isprintable() or c == "\n" for c in html)
    page = Page(html)
    plain = usual_page()
    allowed = {tag for tag, _ in plain.elements} | {
        "ul", "table", "thead", "tbody", "tr", "th", "td", "small", "ol", "dl", "dt", "dd", "code", "rect", "a",
    }  # fmt: skip
    assert {tag for tag, _ in page.elements} <= allowed
    assert not page.comments
    assert len(page.scripts) == 2 and page.scripts[1] == plain.scripts[1]
    for tag, attributes in page.elements:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on") and attribute not in (
                "style",
                "src",
                "srcset",
                "action",
                "formaction",
            )
            if attribute == "href":
                assert re.fullmatch(r"#[a-z][-a-z0-9]*", value or "")
            if attribute == "http-equiv":
                assert (tag, value) == ("meta", "Content-Security-Policy")
    assert page.data["images"]
    return page


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_text(name: str) -> None:
    page = check_harmless(render_html(trace_named(name)))
    assert escape(name) in page.text
    check_harmless(render_html_tree(tree_named(name)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(names)
def test_any_name_stays_text(name: str) -> None:
    check_harmless(render_html(trace_named(name)))
    check_harmless(render_html_tree(tree_named(name)))


@settings(deadline=None)
@given(
    st.recursive(
        names | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.just("k"), inner)
    )
)
def test_json_in_the_page_is_ascii_without_markup_and_the_same_value(value: object) -> None:
    text = str(json_for_html(value))
    assert text.isascii() and not set("<>&") & set(text)

    def shown(one: object) -> object:
        if isinstance(one, str):
            return escape(one)
        if isinstance(one, list):
            return [shown(item) for item in one]
        return {key: shown(item) for key, item in one.items()} if isinstance(one, dict) else one

    assert json.loads(text) == shown(value)


def test_the_policy_lets_nothing_in_but_the_pages_own_style_and_script() -> None:
    html = render_html(small_failure())
    (policy,) = (
        a["content"] for tag, a in Page(html).elements if tag == "meta" and a.get("http-equiv") is not None
    )  # fmt: skip
    assert policy is not None and policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert html.index("Content-Security-Policy") < html.index("<style>")
    assert "http://" not in html.replace("http://www.w3.org/", "") and "https://" not in html


def test_the_page_of_a_failure_says_it_all_without_scripts() -> None:
    page = Page(render_html(small_failure()))
    for text in (
        "import pkg failed", f"{GONE} was not found", "ImportError: libgone.so.1: cannot open shared object file",
        "apt-get install libgone1", "the evidence leaves no other cause", "the loader", "missing-image",
        "RUNPATH of /usr/lib/python3/site-packages/pkg.libs/libdep.so.2", "cache (/etc/ld.so.cache): no entry",
        "/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libgone.so.1", "LD_LIBRARY_PATH wins", "a note",
        "1 event or line could not be decoded", "Debian GNU/Linux 12", "2027-01-15 08:00:00 UTC",
    ):  # fmt: skip
        assert text in page.text, text
    assert page.data["focus"] == 3


def test_the_fix_stands_directly_behind_the_headline() -> None:
    text = Page(render_html(small_failure())).text
    parts = (f"{GONE} was not found", "apt-get install", "Python says", "Needed by", "Why")
    order = [text.index(part) for part in parts]
    assert order == sorted(order)


def headline(saved: SavedTrace) -> tuple[str, str]:
    html = render_html(saved)
    (tone,) = re.findall(r'<section class="card dlt-card dlt-(\w+)"', html)
    (title,) = re.findall(r'<h1 class="dlt-title" id="title"><span class="dlt-unseen">[^<]*</span>(.*?)</h1>', html)
    return tone, title


def test_headlines() -> None:
    empty = Recording("rtld")

    def ended(status: int, recording: Recording = empty, **fields: Any) -> SavedTrace:
        return SavedTrace(recording, run=RunResult(status=status, **fields))

    errors = (PythonError("ValueError", "no"),)
    crash = Crash(11, "SIGSEGV", 1, "/x/a.so", 2, None, None)
    assert headline(ended(0)) == ("good", "It works: nothing to explain")
    assert headline(SavedTrace(empty)) == ("warn", "How it ended is not known")
    assert headline(ended(3)) == ("warn", "It ended with status 3")
    assert headline(ended(-9)) == ("bad", "It was killed by SIGKILL")
    assert headline(ended(1, errors=errors)) == ("bad", "It ended with ValueError")
    died = ("bad", "It died of SIGSEGV in /x/a.so at offset 0x2")
    assert headline(ended(-11, crash=crash)) == died
    failed = Recording("rtld", (missing("libq.so", "/x/a.so"),))
    assert headline(replace(ended(-9), recording=failed))[0] == "bad"
    undecided = Diagnosis("import x", Outcome.UNDECIDED, undecided=("a trace",))
    assert headline(replace(ended(1), diagnosis=undecided)) == ("bad", "The evidence does not decide why")
    assert "a trace" in Page(render_html(replace(ended(1), diagnosis=undecided))).text
    assert headline(windows_failure()) == ("bad", "msvcp140.dll was not found")


def test_the_title_can_be_given() -> None:
    assert "<title>Nightly build \u2013 dlltracer</title>" in render_html(small_failure(), title="Nightly build")
    assert "<title>import pkg \u2013 dlltracer</title>" in render_html(small_failure())


def test_what_is_not_on_the_page_is_said() -> None:
    import uuid

    raw = Recording("etw", (DebugEvent(uuid.UUID(int=1), 1, b"", b""),))
    assert "1 raw event" in Page(render_html(SavedTrace(raw))).text


def test_it_is_green_only_where_no_load_failed_that_mattered() -> None:
    fine = RunResult(status=0)
    plugin = load("/x/plugin.so")
    refused = LoadFailedEvent(**vars(load("/x/b.so")), kind=FailureKind.REFUSED, reason="invalid ELF header")
    probe = missing("libfast.so.avx2", "/x/plugin.so")
    green = ("good", "It works: nothing to explain")

    def of(*events: Event, **more: Any) -> tuple[str, str]:
        return headline(SavedTrace(Recording("rtld", events, **more), run=fine))

    assert of(plugin) == green and of(plugin, probe) == green
    assert of(refused) == ("warn", "It ran, and 1 load failed on the way")
    assert of(plugin, dropped(plugin), missing("libq.so", "/x/plugin.so"))[0] == "warn"
    assert of(plugin, dropped(plugin)) == ("warn", "It ran, and 1 image left with loads that failed")
    assert headline(large_run()) == ("warn", "It ran, and 190 loads failed on the way")
    children = TracedProcess(1, None, ("python",), status=0), TracedProcess(2, 1, ("python",), status=-11)
    assert of(plugin, processes=children) == ("warn", "It ran, and 1 process that it started died")


def test_what_failed_is_there_without_scripts_by_cause_and_by_name() -> None:
    text = Page(render_html(large_run())).text
    for part in (
        "Undefined symbol: libperl5.36 5.36.0-7", "Libraries not found", "32 other causes", "90 more",
        "auto/Mod0/Mod0.so", "undefined symbol: Perl_sv_0", "1,618 loaded", "58 dropped",
    ):  # fmt: skip
        assert part in text, part


def test_the_data_has_every_image_once_and_its_strings_once() -> None:
    data: Any = Page(render_html(many_images(120, processes=2))).data
    assert all(len(column) == 120 for column in data["images"].values()) and len(data["facts"]) == 120
    assert len(set(data["strings"])) == len(data["strings"])
    assert data["processes"] == ["process 4711: python -m app0", "process 4712: python -m app1"]
    assert set(data["images"]["process"]) == {0, 1} and data["isTimed"]


def test_the_markdown_of_the_page_is_that_of_the_renderer() -> None:
    saved = small_failure()
    data: Any = Page(render_html(saved)).data
    assert data["markdown"] == render_markdown(saved).splitlines()


def test_a_code_leads_to_its_explanation_and_a_code_of_others_to_nothing() -> None:
    page = Page(render_html(small_failure()))
    assert ("a", "#cause-missing-image") in [(tag, found.get("href")) for tag, found in page.elements]
    assert ("div", "cause-missing-image") in [(tag, found.get("id")) for tag, found in page.elements]
    (cause,) = (one for one in read_causes("missing-image") if one.page == "findings")
    assert cause.fix in page.text and cause.avoid in page.text
    assert "#cause-" not in str(Page(render_html(trace_named("no-such-code"))).elements)


def test_a_name_of_10000_characters_leaves_room_for_the_rest() -> None:
    name = "lib" + "\u05d0" * 9_990 + ".so.1"
    saved = trace_named(name)
    page = check_harmless(render_html(saved))
    assert "characters …" in page.text and name in str(page.data["strings"])
    tone, title = headline(saved)
    assert tone == "bad" and len(title) < 300


def test_numbers_that_no_calendar_or_float_has() -> None:
    odd = replace(load("/x/a.so"), timestamp=1e300, size=10**400, base=-5)
    odder = replace(load("/x/b.so"), timestamp=float("nan"))
    saved = SavedTrace(
        Recording("rtld", (odd, odder)), started=float("inf"), images=(ImageFacts("/x/a.so", modified=-1e18),)
    )
    assert "s since 1970" in Page(render_html(saved)).text
    assert size_in_words(10**400).endswith(" TiB")


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 * 2**20, "5.0 MiB"), (2**40, "1.0 TiB")],
)
def test_sizes(size: int, words: str) -> None:
    assert size_in_words(size) == words


def test_times_and_labels() -> None:
    assert time_in_words(None) == "" and time_in_words(0) == "1970-01-01 00:00:00 UTC"
    assert label_of("short.so", 27) == "short.so"
    assert label_of("_multiarray_umath.cpython-311-x86_64-linux-gnu.so", 27) == "_multiarray_umath….so"
    assert len(label_of("x" * 100 + ".so", 27)) == 27


def test_the_page_of_a_tree() -> None:
    page = Page(render_html_tree(tree_named("libq.so")))
    assert "libq.so is missing" in page.text and "needed by" in page.text
    whole = LoadTree("/x/a.so", {"/x/a.so": elf_image()}, ())
    assert "Nothing is missing" in Page(render_html_tree(whole)).text
    lacking = replace(whole, symbols=(MissingSymbol("f", None, "/x/a.so", "libb.so"),))
    assert "nothing has f" in Page(render_html_tree(lacking)).text
    late = replace(whole, bindings=(Binding("late.dll", "/x/a.so", BindingState.MISSING, delayed=True),))
    assert "Nothing is missing that it must have" in Page(render_html_tree(late)).text
