"""`dlltracer selftest` as a whole: right here, private, and undisturbed by what happens to its processes."""

from __future__ import annotations

import getpass
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from dlltracer.cli.commands import cli
from dlltracer.host.recording_files import read_trace_file
from dlltracer.model.run import SelfTestStep, StepState
from dlltracer.selftest.runner import SelfTest
from dlltracer.selftest.step import GROUPS, list_groups, list_questions

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the groups are those of Linux")


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", "selftest", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=120, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip


@LINUX
def test_a_person_with_a_hostile_name_may_give_the_report_away(tmp_path: Path) -> None:
    name = "Zoë O'Brien (x) [y"
    home = tmp_path / "people" / name
    (home / "tmp").mkdir(parents=True)
    report = home / "report.dlltrace"
    variables = {
        "HOME": str(home), "USER": name, "LOGNAME": name, "TMPDIR": str(home / "tmp"), "HOSTNAME": "zoe-laptop",
        "DT_PRIVATE": "value-of-the-environment", "LD_LIBRARY_PATH": str(home / "client-of-mine"),
    }  # fmt: skip
    ran = run("--report", str(report), "--only", "rtld", "--only", "images", "--only", "search", env=variables)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    trace = read_trace_file(str(report))
    assert not trace.problems
    # As a reader decodes it: in the file itself what is not ASCII is escaped.
    text = report.read_text("ascii") + repr(trace) + ran.stdout
    for private in (name, "Zo\\u00eb", "Brien", "people", "zoe-laptop", "value-of-the-environment", "client-of-mine"):
        assert private.casefold() not in text.casefold(), private
    assert "<selftest>" in text and str(tmp_path) not in text
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", text)
    known = {platform.node(), getpass.getuser()} - {"root", "localhost"}  # words that any report may have
    assert {name for name in known if name in text} == set()
    assert os.listdir(home / "tmp") == []


@LINUX
def test_the_table_is_what_show_makes_of_the_report(tmp_path: Path) -> None:
    report = tmp_path / "report.dlltrace"
    ran = run("-o", str(report), "--only", "images", "--only", "limits")
    assert ran.returncode == 0, ran.stdout
    shown = CliRunner().invoke(cli, ["show", str(report)])
    assert shown.output == ran.stdout
    trace = read_trace_file(str(report))
    assert {step.group for step in trace.steps} == {"images", "limits", "end"}
    assert trace.run.status == 0 and trace.host is not None and trace.host.name is None


def test_what_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    ran = run("-o", str(tmp_path / "absent" / "report.dlltrace"))
    assert ran.returncode == 2 and ran.stdout == "" and "cannot write" in ran.stderr
    assert run("--only", "nothing").returncode == 2
    foreign = run("--only", "etw" if sys.platform != "win32" else "rtld")
    assert foreign.returncode == 2 and "is about another system" in foreign.stderr


ANSWERING = """
import json, os, sys, time
root, group, first, folder, results = sys.argv[1:]
sys.path.insert(0, root)
from dlltracer.model.encode import encode
from dlltracer.model.run import SelfTestStep, StepState
def write(**line):
    with open(results, "a") as file:
        file.write(json.dumps(line) + "\\n")
"""
ANSWER = ANSWERING + """
for number in range(int(first), 8):
    write(begun=number)
    if number == 1:
        print("last words of the process")
        sys.stdout.flush()
        os._exit(9)
    if number == 2:
        time.sleep(600)
    if number == 3:
        write(number=number, step={"group": 5})
        continue
    step = SelfTestStep(group=group, name=str(number), expected="e", state=StepState.OK)
    write(number=number, step=encode(step))
"""


@LINUX
def test_a_question_that_ends_its_process_costs_its_own_answer_only() -> None:
    steps: list[SelfTestStep] = []
    with SelfTest(["rtld"], program=ANSWER, step_seconds=8) as test:
        test.run(steps.append)
    assert not os.path.exists(test.folder)
    names = [question.name for question in list_questions("rtld")]
    assert [step.name for step in steps[:4]] == ["0", *names[1:4]]
    died, hung, damaged = steps[1:4]
    assert died.state is StepState.FAILED
    assert died.reason == "its process ended with status 9; it wrote: last words of the process"
    assert hung.state is StepState.FAILED and hung.reason == "its process was ended after 8 s"
    assert damaged.state is StepState.FAILED and "damaged" in (damaged.reason or "")
    assert [step.state for step in steps[4:]] == [StepState.OK] * (len(names) - 4 + 1)
    assert steps[-1].group == "end" and steps[-1].seen == "nothing"


ONE_ANSWER = ANSWERING + """
from dlltracer.selftest.step import list_questions
for number in range(len(list_questions(group))):
    if group == "limits" and number == 1:
        time.sleep(600)
    write(number=number, step=encode(SelfTestStep(group=group, name=str(number), expected="e", state=StepState.OK)))
"""


@LINUX
def test_an_interrupted_test_keeps_what_was_answered() -> None:
    """The groups are asked side by side; Ctrl-C comes while one of them hangs in its second question."""
    steps: list[SelfTestStep] = []

    def take(step: SelfTestStep) -> None:
        steps.append(step)
        if len(steps) > 1:
            return
        deadline, answers = time.monotonic() + 120, Path(test.folder, "answers-limits-0")
        while not (answers.exists() and answers.read_bytes().endswith(b"\n")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), SelfTest(["rtld", "limits"], program=ONE_ANSWER) as test:
        test.run(take)
    assert [(step.group, step.name) for step in steps] == [("rtld", "0"), ("limits", "0")]
    assert not os.path.exists(test.folder)


def test_every_group_has_questions_and_every_question_a_group() -> None:
    assert set(list_groups()) <= set(GROUPS)
    for group in list_groups():
        questions = list_questions(group)
        assert questions and len({question.name for question in questions}) == len(questions)
        assert len(questions) <= 36, "a question has a letter of its own"
