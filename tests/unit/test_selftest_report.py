"""The report of a self-test: a recording that comes back as it was, a table, and nothing private in either."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.saved_traces import read_lines
from builders.schema_check import problems
from dlltracer.cli.commands import cli
from dlltracer.host.recording_files import read_trace_file
from dlltracer.model.recording import Recording
from dlltracer.model.run import HostFacts, RunResult, SavedTrace, SelfTestStep, StepState, count_states
from dlltracer.model.tracefile import trace_to_lines
from dlltracer.report.render_selftest import render_selftest, render_selftest_markdown
from dlltracer.selftest import runner
from dlltracer.selftest.runner import PrivacyFilter, own_filter
from dlltracer.selftest.step import CannotAsk, Question, Room, answer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
STEPS = st.builds(
    SelfTestStep, group=TEXT, name=TEXT, expected=TEXT, state=st.sampled_from(StepState), seen=TEXT,
    reason=st.none() | TEXT, seconds=st.floats(0, 1e6), facts=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
)  # fmt: skip


def step(state: StepState = StepState.OK, **more: object) -> SelfTestStep:
    fields = {"group": "rtld", "name": "a load", "expected": "an event", "seen": "one", "seconds": 0.25, **more}
    return SelfTestStep(state=state, **fields)  # type: ignore[arg-type]


def report(*steps: SelfTestStep) -> SavedTrace:
    return SavedTrace(
        Recording("selftest"), what="the self-test", written_by="9.9", started=1.5, host=HostFacts("linux", "Linux"),
        run=RunResult(status=0), steps=steps, command=("dlltracer", "selftest"),
    )  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(st.lists(STEPS, max_size=4))
def test_a_report_comes_back_as_it_was(steps: list[SelfTestStep]) -> None:
    lines = list(trace_to_lines(report(*steps)))
    assert read_lines(line.encode() for line in lines) == report(*steps)
    for line in lines:
        assert problems("recording", json.loads(line)) == []


def test_a_torn_report_has_the_steps_that_were_written() -> None:
    lines = [line.encode() for line in trace_to_lines(report(step(), step(name="another")))]
    found = read_lines([*lines[:2], lines[2][:20]])
    assert found.steps == (step(),) and len(found.problems) == 2


@settings(deadline=None, max_examples=50)
@given(st.lists(STEPS, max_size=3), st.integers(0, 300))
def test_any_report_becomes_a_table(steps: list[SelfTestStep], width: int) -> None:
    assert render_selftest(report(*steps), width=width).plain.splitlines()[-1].startswith(f"{len(steps)} step")
    assert render_selftest_markdown(report(*steps)).startswith("### dlltracer 9.9 selftest: ")


def test_the_table_has_every_word_of_a_step() -> None:
    wrong = step(StepState.FAILED, seen="two", reason="not what is expected", facts=(("mask", "0x43"),))
    refused = step(StepState.NOT_ASKED, seen="", reason="needs Administrator", name="a session", group="etw")
    text = render_selftest(report(step(), wrong, refused)).plain
    assert re.search(r"^ok +a load +an event +one +250 ms$", text, re.MULTILINE)
    assert re.search(r"^FAILED +a load +an event +two \(not what is expected\)", text, re.MULTILINE)
    assert "mask: 0x43" in text and "needs Administrator" in text
    assert text.splitlines()[-1] == "3 steps: 1 ok, 1 failed, 1 could not be asked"
    assert count_states((step(), wrong, refused)) == dict.fromkeys(StepState, 1)


def test_markdown_fits_an_issue_and_lets_no_mark_up_through() -> None:
    hostile = step(StepState.FAILED, seen="`x` | <img src=x> @someone", reason="r")
    text = render_selftest_markdown(report(*[step()] * 90, hostile))
    assert len(text.splitlines()) <= 60
    assert "45 more steps that are ok" in text
    row = next(line for line in text.splitlines() if "<img" in line)
    assert row.startswith("| FAILED |") and "``" in row and "\\| <img" in row


@pytest.mark.parametrize("form", ["jsonl", "lines", "dot", "mermaid", "perfetto"])
def test_forms_that_show_loads_are_refused(form: str, tmp_path: Path) -> None:
    file = tmp_path / "report.dlltrace"
    file.write_text("".join(trace_to_lines(report(step()))))
    printed = CliRunner().invoke(cli, ["show", str(file), "--format", form])
    assert printed.exit_code == 2
    shown = CliRunner().invoke(cli, ["show", str(file)])
    assert shown.exit_code == 0 and "1 step: 1 ok" in shown.output
    assert CliRunner().invoke(cli, ["why", str(file)]).exit_code == 2


HOSTILE = ["Zoë van Dijk", "O'Brien; rm -rf", "(.*)[", "bo", "\u202eeve\x1b[31m", "a\\b", "x" * 200, "\u017fam", "ΣΑΣ"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.skipif(sys.platform == "win32", reason="the homes are of POSIX")
def test_no_name_of_a_user_and_no_home_gets_through(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home = f"/srv/people/{name}"
    for variable, value in (("HOME", home), ("USER", name), ("LOGNAME", name), ("USERNAME", name)):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(runner.platform, "node", lambda: "secret-laptop.example.org")
    found = own_filter(f"{home}/tmp/dlltracer-selftest-abc")
    texts = [
        f"cannot open {home}/tmp/dlltracer-selftest-abc/rtld-1/good.so: no",
        f"{home}/lib/python/x.so", f"{home}", f"for {name} on SECRET-LAPTOP", f"user {name}'s", f"{home.upper()}/Q.so",
    ]  # fmt: skip
    for text in texts:
        clean = found.clean(step(seen=text, reason=text, facts=(("path", text),)))
        for part in (clean.seen, clean.reason or "", clean.facts[0][1]):
            assert name.casefold() not in part.casefold()
            assert "people" not in part.casefold() and "secret-laptop" not in part.casefold()
    assert found.replace(texts[0]) == "cannot open <selftest>/rtld-1/good.so: no"


def test_other_paths_keep_their_base_names_only() -> None:
    found = PrivacyFilter({"/t/self": "<selftest>", "C:\\T\\self": "<selftest>"}, ["carol"])
    for text, clean in (
        ("/data/clients/acme/lib/x.so.1: no", "<elsewhere>/x.so.1: no"),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "<system>/libc.so.6"),
        ("see /data/clients", "see <elsewhere>"),
        ("C:\\Users\\carol\\a.dll", "<elsewhere>\\a.dll"),
        ("C:\\t\\SELF\\x\\good.dll", "<selftest>\\x\\good.dll"),
        ("\\Device\\HarddiskVolume3\\Users\\carol\\b.dll", "<elsewhere>\\b.dll"),
        ("\\\\server\\share\\team\\c.dll", "<elsewhere>\\c.dll"),
        ("\\??\\C:\\secret\\d.dll", "<elsewhere>\\d.dll"),
        ("/proc/self/maps", "/proc/self/maps"),
        ("1/2 of 3, and/or", "1/2 of 3, and/or"),
        ("/t/selfish/carol.so", "<elsewhere>/<name>.so"),
        ("written by Carol", "written by <name>"),
    ):
        assert found.replace(text) == clean, text


def test_a_fact_may_hold_anything() -> None:
    """A value of the environment is never noted; a text of a library may be as long as it likes."""
    room = Room("/", "a")
    for number in range(1000):
        room.note(f"fact {number}", "x" * 10_000)
    assert len(room.facts) == 300 and max(len(value) for _, value in room.facts) == 4000


def test_what_a_question_does_is_its_answer() -> None:
    def refuse(room: Room) -> tuple[bool, str]:
        room.note("before", 1)
        raise CannotAsk("no right")

    def fail(room: Room) -> tuple[bool, str]:
        raise OSError(2, "gone")

    def ask(call: object, is_wine: bool = False, on_wine: str = "") -> SelfTestStep:
        return answer(Question("g", "n", "e", call, on_wine), Room("/", "a"), is_wine)  # type: ignore[arg-type]

    good = ask(lambda room: (True, "seen"))
    assert (good.state, good.seen, good.reason) == (StepState.OK, "seen", None)
    refused = ask(refuse)
    assert (refused.state, refused.reason, refused.facts) == (StepState.NOT_ASKED, "no right", (("before", "1"),))
    failed = ask(fail)
    assert failed.state is StepState.FAILED
    assert failed.reason is not None and failed.reason.startswith("FileNotFoundError: [Errno 2] gone (errno 2), line ")
    wrong = ask(lambda room: (False, "x"), is_wine=True, on_wine="it is another loader")
    assert (wrong.state, wrong.reason) == (StepState.NOT_ASKED, "Wine is not Windows here: it is another loader")
    assert ask(lambda room: (False, "x"), is_wine=True).state is StepState.FAILED
    assert ask(lambda room: (False, "x"), on_wine="no Wine").state is StepState.FAILED


def test_a_table_on_a_pipe_has_no_escape_sequence() -> None:
    hostile = step(seen="\x1b[31mred\x1b[0m\u202e", facts=(("f", "\x1b]0;x\x07"),), state=StepState.FAILED)
    stream = io.StringIO(render_selftest(report(hostile)).plain)
    assert "\x1b" not in stream.getvalue() and "\u202e" not in stream.getvalue()


@pytest.mark.skipif(sys.platform in ("linux", "win32"), reason="for systems without a mechanism")
def test_a_system_without_a_mechanism_says_so(tmp_path: Path) -> None:
    report = tmp_path / "report.dlltrace"
    command = [sys.executable, "-m", "dlltracer", "selftest", "-o", str(report)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert ran.returncode == 0, ran.stdout
    states = {step.name: step.state for step in read_trace_file(str(report)).steps}
    assert states["tiny images"] is StepState.OK and states["dlltracer deps"] is StepState.OK
    assert states["dlltracer run"] is StepState.NOT_ASKED


def test_the_page_has_every_step_with_its_facts_and_runs_nothing(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m"
    failed = step(StepState.FAILED, name=hostile, reason=hostile, facts=(("code", hostile), ("again", "5")))
    saved = tmp_path / "report.dlltrace"
    saved.write_text("".join(trace_to_lines(report(step(), failed, step(StepState.NOT_ASKED, group="etw")))))
    page = tmp_path / "page.html"
    done = CliRunner().invoke(cli, ["show", "--html", str(page), str(saved)])
    assert done.exit_code == 0, done.output
    text = page.read_text(encoding="utf-8")
    assert text.count("<tr class=") == 3 and text.count('<th scope="rowgroup"') == 2
    assert "<script" not in text and "\x1b" not in text and "&lt;script&gt;" in text
    assert "<dt>again</dt>" in text and "default-src 'none'; style-src 'sha256-" in text


@pytest.mark.usefixtures("in_deleted_folder")
def test_the_filter_in_a_current_folder_that_was_deleted() -> None:
    assert own_filter("/a/self-test").replace("/a/self-test/x") == "<selftest>/x"
