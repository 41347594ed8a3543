"""The formats of `dlltracer check` for other programs: held against their schemas, whatever names a wheel has."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as Xml
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.schema_check import jsonschema, problems
from dlltracer.model.check import CheckReport, Problem, Severity
from dlltracer.report.render_check import (
    render_check_github,
    render_check_json,
    render_check_junit,
    render_check_sarif,
)

SCHEMAS = Path(__file__).parents[1] / "schemas"
COMMAND = re.compile(r"::(error|warning|notice) title=([^,:]*)::(.*)")
ANY_TEXT = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["::error::x", "%0A::error::", "\r\n", "]]>", "<!--&amp;", "\ud800", "\ufffe", "\x1b[", "\u202e", 'a"b', ", :"]
)
PROBLEM = st.builds(
    Problem, code=st.sampled_from(["missing-image", "glibc-above-tag"]), severity=st.sampled_from(Severity),
    file=ANY_TEXT, title=ANY_TEXT, evidence=st.lists(ANY_TEXT, max_size=2).map(tuple), fix=ANY_TEXT, platform=ANY_TEXT,
)  # fmt: skip
REPORTS = st.lists(
    st.builds(
        CheckReport, target=ANY_TEXT, problems=st.lists(PROBLEM, max_size=3).map(tuple), files=st.integers(0, 9),
        platforms=st.lists(ANY_TEXT, max_size=2).map(tuple), unreadable=st.just("") | ANY_TEXT,
        notes=st.lists(ANY_TEXT, max_size=2).map(tuple),
    ),
    max_size=3,
)  # fmt: skip

MISSING = Problem(
    code="missing-image", severity=Severity.ERROR, file="pkg/mod.so", title="libx.so is in no folder that is searched",
    evidence=("it is needed by pkg/mod.so",), fix="put it into the wheel", platform="manylinux_2_28_x86_64",
)  # fmt: skip
BROKEN = CheckReport(target="dist/pkg-1.0-py3-none-any.whl", problems=(MISSING,), files=1)
SOUND = CheckReport(target="dist/sound-1.0-py3-none-any.whl", files=2)
TORN = CheckReport(target="dist/torn-1.0-py3-none-any.whl", unreadable="not a whole zip archive: no end")


@pytest.fixture(scope="module")
def sarif() -> Any:
    schema = json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text("utf-8"))
    return jsonschema.Draft4Validator(schema)


@pytest.fixture(scope="module")
def junit() -> Any:
    etree = pytest.importorskip("lxml.etree", reason="needs lxml")
    schema = etree.XMLSchema(etree.parse(str(SCHEMAS / "junit-10.xsd")))
    return lambda xml: schema.assertValid(etree.fromstring(xml))


@settings(max_examples=20, deadline=None)
@given(reports=REPORTS)
def test_every_format_is_valid_whatever_it_says(sarif: Any, junit: Any, reports: list[CheckReport]) -> None:
    log = json.loads(render_check_sarif(reports))
    assert [error.message for error in sarif.iter_errors(log)] == []
    assert problems("check", json.loads(render_check_json(reports))) == []
    junit(render_check_junit(reports).encode("utf-8"))
    for line in render_check_github(reports).splitlines():
        match = COMMAND.fullmatch(line)
        assert match is not None, line
        assert re.fullmatch(r"(?:[^%]|%(?:25|0D|0A|3A|2C))*", match[2] + match[3]), line


def test_sarif_distinguishes_problems() -> None:
    other = Problem(code="missing-image", severity=Severity.ERROR, file="pkg/mod.so", title="liby.so is in no folder")
    report = CheckReport(target="dist/pkg-1.0-py3-none-any.whl", problems=(MISSING, other))
    (run,) = json.loads(render_check_sarif([report, TORN]))["runs"]
    assert len({result["partialFingerprints"]["problem/v1"] for result in run["results"]}) == 2
    assert run["tool"]["driver"]["rules"] == [{"id": "missing-image", "shortDescription": {"text": "Missing image"}}]
    (invocation,) = run["invocations"]
    assert not invocation["executionSuccessful"]
    assert "zip archive" in invocation["toolExecutionNotifications"][0]["message"]["text"]


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("dist/a b.whl", "dist/a%20b.whl"), ("/tmp/a.whl", "file:///tmp/a.whl"), ("C:\\d\\a.whl", "file:///C:/d/a.whl"),
        ("\\\\host\\share\\a.whl", "file://host/share/a.whl"),
        ("https://host/a.whl#sha256=0", "https://host/a.whl#sha256=0"), ("dist/ä%.whl", "dist/%C3%A4%25.whl"),
        ("dist/100%:x.whl", "dist/100%25%3Ax.whl"),
    ],
)  # fmt: skip
def test_a_target_is_a_reference_to_a_file(target: str, uri: str) -> None:
    report = CheckReport(target=target, problems=(MISSING,))
    (result,) = json.loads(render_check_sarif([report]))["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_junit_has_a_case_for_each_error() -> None:
    suites = list(Xml.fromstring(render_check_junit([BROKEN, SOUND, TORN])))
    counts = [(suite.get("tests"), suite.get("failures"), suite.get("errors")) for suite in suites]
    assert counts == [("1", "1", "0"), ("1", "0", "0"), ("1", "0", "1")]
    failure = suites[0].find("testcase/failure")
    assert failure is not None and failure.text is not None
    assert (failure.get("type"), failure.get("message")) == ("missing-image", MISSING.title)
    assert failure.text.splitlines() == [*MISSING.evidence, f"on {MISSING.platform}", f"fix: {MISSING.fix}"]


def test_annotations_are_read_back_as_they_were() -> None:
    """Read as the runner does (actions/runner, ActionCommand.cs)."""
    odd = Problem(code="missing-image", severity=Severity.WARNING, file="a%0A,b:c.so", title="50% :: gone, really")
    lines = render_check_github([CheckReport(target="d/x,y.whl", problems=(odd,))]).splitlines()
    match = COMMAND.fullmatch(lines[0])
    assert match is not None and match[1] == "warning"
    title, message = match[2], match[3]
    for code, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        title = title.replace(code, char)
    for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        message = message.replace(code, char)
    assert title == "x,y.whl: missing-image"
    assert message == "a%0A,b:c.so: 50% :: gone, really"
