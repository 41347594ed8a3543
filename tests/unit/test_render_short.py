"""The short verdict: at most 14 lines that fit on the screen, the fix first, nothing left out without a count."""

from __future__ import annotations

import ctypes
import io
import shlex
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlltracer
from dlltracer.model.events import Phase, Probe, ProbeOutcome
from dlltracer.model.failure import Crash, PythonError, System
from dlltracer.model.finding import Confidence, Diagnosis, Evidence, Finding, Outcome, Remedy, Source
from dlltracer.model.screen import Screen, columns_of, cut, fit, wrap
from dlltracer.report.drawing import FAILED, FIXED
from dlltracer.report.render_short import MOST, render_first_line, render_short_verdict

APP = "/home/me/app"
IMAGE = f"{APP}/PIL/_imaging.cpython-311-x86_64-linux-gnu.so"
LOST = f"{APP}/pillow.libs/libjpeg-8296d2fa.so.62.4.0"
FOUND = Finding(
    code="package-file-missing",
    title="libjpeg-8296d2fa.so.62.4.0 was installed by pillow 12.2.0 and is gone",
    confidence=Confidence.CERTAIN,
    subject=LOST,
    chain=(f"{APP}/PIL/Image.py:95: from . import _imaging as core", "import PIL._imaging", IMAGE, LOST),
    probes=(
        Probe(f"{APP}/pillow.libs/libjpeg-8296d2fa.so.62.4.0", Phase.RPATH, IMAGE, ProbeOutcome.ABSENT),
        Probe("/etc/ld.so.cache", Phase.CACHE, None, ProbeOutcome.NO_ENTRY),
        Probe("/lib/libjpeg-8296d2fa.so.62.4.0", Phase.SYSTEM, None, ProbeOutcome.ABSENT),
    ),
    explanation=f"The RECORD of pillow 12.2.0 lists {LOST}, and no file is there. Something took it away.",
    evidence=(Evidence(Source.FILES, "no file is there"),),
    remedies=(Remedy("install it again", ("pip", "install", "--force-reinstall", "--no-deps", "pillow==12.2.0")),),
)
VERDICT = Diagnosis("import PIL.Image", Outcome.EXPLAINED, findings=(FOUND,), system=System.LINUX)


def shown(diagnosis: Diagnosis, screen: Screen | None = None) -> str:
    return render_short_verdict(diagnosis, screen or Screen()).plain


def test_a_verdict() -> None:
    text = shown(VERDICT, Screen(has_marks=True, folders=(APP,)))
    lines = text.splitlines()
    assert lines[0].startswith("✗ import PIL.Image: libjpeg-8296d2fa.so.62.4.0 was installed by pillow")
    assert lines[-2:] == [
        "  certain · package-file-missing · dlltracer explain package-file-missing", "  in /home/me/app",
    ]  # fmt: skip
    assert len(lines) <= MOST and "\n  fix     pip install --force-reinstall --no-deps pillow==12.2.0\n" in text
    assert "          └ PIL/_imaging.cpython-311-x86_64-linux-gnu.so\n" in text
    assert "            └ pillow.libs/libjpeg-8296d2fa.so.62.4.0    not found\n" in text
    assert "  looked  3 places, none has it: " in text and text.count(APP) == 1, "the folder is named once"
    assert text.index("fix  ") < text.index("chain  ") < text.index("looked  ") < text.index("why  ")


def test_a_folder_with_spaces_is_named_once() -> None:
    spaced = "/home/me/my last app"

    def moved(text: str) -> str:
        return text.replace(APP, spaced)

    found = replace(
        FOUND, subject=moved(LOST), chain=tuple(map(moved, FOUND.chain)), explanation=moved(FOUND.explanation),
        probes=(),
    )  # fmt: skip
    for folders in ((spaced,), ()):
        text = shown(replace(VERDICT, findings=(found,)), Screen(folders=folders))
        assert text.count("my last app") == 1 and text.endswith("  in /home/me/my last app\n"), text


def test_without_a_terminal_words_stand_for_the_mark() -> None:
    assert shown(VERDICT).startswith("import PIL.Image failed: libjpeg")
    assert shown(VERDICT, Screen(has_marks=True, is_ascii=True)).isascii()
    assert render_first_line(VERDICT, Screen()).plain.count("\n") == 1


def test_colour_says_nothing_alone() -> None:
    lines = render_short_verdict(VERDICT, Screen(has_marks=True)).lines
    red = "".join(text for line in lines for text, style in line if style == FAILED)
    green = "".join(text for line in lines for text, style in line if style == FIXED)
    assert "not found" in red and "pip install" in green


def test_what_works() -> None:
    works = Diagnosis("import numpy", Outcome.IMPORTED)
    line = render_short_verdict(works, Screen(has_marks=True), counts="21 images, 0 failed").plain
    assert line.startswith("✓ import numpy works  ") and line.endswith("  21 images, 0 failed\n")
    assert columns_of(line.rstrip("\n")) <= 80
    assert shown(works) == "import numpy works: nothing to explain\n"


def test_a_long_command_goes_on_in_the_next_line_as_one_command() -> None:
    words = ("env", f"LD_LIBRARY_PATH={'/opt/a folder' * 3}", "python", "-c", "import x; print('$HOME')", *["word"] * 9)
    text = shown(replace(VERDICT, findings=(replace(FOUND, remedies=(Remedy("try it", words),)),)))
    rows = text[text.index("  fix     ") + 10 :].split("\n")
    last = next(place for place, row in enumerate(rows) if not row.endswith("\\"))
    # A shell takes a backslash and the end of the line away; shlex keeps the end of the line.
    assert last > 0 and shlex.split("\n".join(rows[: last + 1]).replace("\\\n", "")) == list(words)


def test_a_name_that_a_shell_finds_stands_for_the_path_of_the_program() -> None:
    remedy = Remedy("try it", ("/venv/bin/python", "-m", "pip", "check"), tried=True)
    diagnosis = replace(VERDICT, findings=(replace(FOUND, remedies=(remedy,)),))
    text = shown(diagnosis, Screen(programs=(("/venv/bin/python", "python"),)))
    assert "  fix     python -m pip check\n          tried: the import works (try it)\n" in text
    assert "  fix     /venv/bin/python -m pip check\n" in shown(diagnosis)


def test_what_is_left_out_is_counted() -> None:
    other = replace(FOUND, confidence=Confidence.LIKELY, code="first-wins", title="another copy")
    many = replace(FOUND, remedies=FOUND.remedies * 5)
    text = shown(replace(VERDICT, findings=(many, *[other] * 4), notes=("one", "two", "three")))
    assert "also    another copy, needed by _imaging" in text
    assert "more fixes" in text and "other causes" in text and "notes)" in text


def test_undecided() -> None:
    error = PythonError("RuntimeError", "no licence", ("RuntimeError",))
    text = shown(Diagnosis("import x", Outcome.UNDECIDED, error, undecided=("a core file",)))
    assert text.startswith("import x failed, and the evidence does not decide why\n")
    assert "  python  RuntimeError: no licence\n" in text and "  decides a core file\n" in text
    marked = shown(Diagnosis("import x", Outcome.UNDECIDED, error), Screen(has_marks=True))
    assert marked.startswith("? import x: the evidence does not decide why it failed\n")


@pytest.mark.parametrize("width", [40, 57, 80, 200])
def test_words_are_not_broken_twice(width: int) -> None:
    rows = wrap("the RECORD of pillow lists " + LOST + " and no file is there " * 9, width, 99)
    assert all(columns_of(row) <= width for row in rows) and len(rows) > 1
    assert columns_of(fit("日本語" * 40, width)) <= width and columns_of(cut("日本語" * 40, width)) <= width


HOSTILE = (
    "/" + "x" * 300, "日本" * 90, "\x1b[31m" * 9, "a b " * 80, "/home/me/app/x.so", "C:\\a b\\c.dll", "e\u0301" * 99,
    "",
)  # fmt: skip
TEXT = st.text(max_size=60) | st.sampled_from(HOSTILE)
PROBE = st.builds(Probe, TEXT, st.sampled_from(Phase), TEXT, st.sampled_from(ProbeOutcome))
REMEDY = st.builds(Remedy, TEXT, st.lists(TEXT, max_size=9).map(tuple), st.just("") | TEXT, st.booleans())
FINDING = st.builds(
    Finding, code=st.sampled_from(["missing-image", "child-inherits-library-path"]), title=TEXT, subject=TEXT,
    confidence=st.sampled_from(Confidence), chain=st.lists(TEXT, max_size=12).map(tuple), explanation=TEXT,
    probes=st.lists(PROBE, max_size=6).map(tuple), remedies=st.lists(REMEDY, max_size=4).map(tuple),
)  # fmt: skip
CRASH = Crash(11, "SIGSEGV", 0, "/lib/x.so", 1, None, None)
DIAGNOSIS = st.builds(
    Diagnosis, TEXT, st.sampled_from(Outcome), st.none() | st.builds(PythonError, TEXT, TEXT),
    st.none() | st.just(CRASH),
    st.lists(FINDING, max_size=4).map(tuple), st.lists(TEXT, max_size=4).map(tuple),
    st.lists(TEXT, max_size=4).map(tuple), st.sampled_from(System), st.lists(TEXT, max_size=5).map(tuple),
)  # fmt: skip
SCREEN = st.builds(
    Screen, st.integers(40, 200), st.booleans(), st.booleans(), st.just("") | st.just("https://example.org"),
    st.just(("/home/me/app",)) | st.just(()),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(DIAGNOSIS, SCREEN)
def test_any_verdict_fits(diagnosis: Diagnosis, screen: Screen) -> None:
    text = render_short_verdict(diagnosis, screen).plain
    lines = text.splitlines()
    assert len(lines) <= MOST, text
    assert text.count("\n") == len(lines) and all(char.isprintable() or char == "\n" for char in text)
    assert max(map(columns_of, lines)) <= screen.width, text
    if screen.is_ascii:
        assert set("✗✓·└…") & set(text) <= set(repr(diagnosis)), "no mark of ours"


def test_what_explain_returns_prints_the_verdict() -> None:
    try:
        ctypes.CDLL("libnot-there-at-all.so.9")
    except OSError as error:
        verdict = dlltracer.explain(error)
    assert len(repr(verdict)) < 200 and verdict.what in repr(verdict)
    lines = str(verdict).splitlines()
    assert 1 < len(lines) <= MOST and isinstance(verdict, Diagnosis) and replace(verdict, what="x").what == "x"
    assert print_of(verdict) == f"{verdict}\n"


def print_of(value: object) -> str:
    stream = io.StringIO()
    print(value, file=stream)
    return stream.getvalue()
