"""What is private goes, the same thing becomes the same word everywhere, and nothing else changes."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.failed_case import case, not_found, process, with_run
from builders.saved_traces import CALM, SAVED_TRACES, read_lines
from dlltracer.api.saving import encode_case, explain_saved
from dlltracer.diagnose.engine import diagnose
from dlltracer.model.events import DebugEvent, LoadEvent
from dlltracer.model.failure import Frame, PythonError
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.model.run import HostFacts, RunResult, SavedTrace
from dlltracer.model.tracefile import trace_to_lines
from dlltracer.report.redact import PrivateText, redact


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/home/alice/lib/x.so", "/home/user1/lib/x.so"),
        ("/home/alice", "/home/user1"),
        ("/var/home/alice/x /export/home/alice/x", "/var/home/user1/x /export/home/user1/x"),
        ("/Users/alice/x", "/Users/user1/x"),
        ("C:\\Users\\Alice\\AppData\\x.dll", "C:\\Users\\user1\\AppData\\x.dll"),
        ("c:\\users\\ALICE\\x and C:/Users/Alice/y", "c:\\users\\user1\\x and C:/Users/user1/y"),
        ("'C:\\\\Users\\\\alice\\\\x'", "'C:\\\\Users\\\\user1\\\\x'"),
        ("C:\\Users\\Alice Smith\\x;C:\\Users\\alice smith", "C:\\Users\\user1\\x;C:\\Users\\user1"),
        ("C:\\Documents and Settings\\alice\\x", "C:\\Documents and Settings\\user1\\x"),
        ("\\\\?\\C:\\Users\\alice\\x", "\\\\?\\C:\\Users\\user1\\x"),
        ("\\??\\Z:\\home\\alice\\x", "\\??\\Z:\\home\\user1\\x"),
        ("\\Device\\HarddiskVolume3\\Users\\alice\\x", "\\Device\\HarddiskVolume3\\Users\\user1\\x"),
        ("\\\\srv\\C$\\Users\\alice\\x", "\\\\srv\\C$\\Users\\user1\\x"),
        ("/mnt/c/Users/alice/x", "/mnt/c/Users/user1/x"),
        ("file:///home/alice/x", "file:///home/user1/x"),
        ("file:///C:/Users/alice/x", "file:///C:/Users/user1/x"),
        ("git+ssh://git@host.example/home/alice/x", "git+ssh://git@host.example/home/user1/x"),
        ("--find-links=/home/alice/wheels", "--find-links=/home/user1/wheels"),
        ("/home/alice/x /mnt/alice/y /tmp/pytest-of-alice/z", "/home/user1/x /mnt/user1/y /tmp/pytest-of-user1/z"),
        ("/home/alice/x malice alice2", "/home/user1/x malice alice2"),
        ("/home/alice/x /home/bob/y /home/alice/z", "/home/user1/x /home/user2/y /home/user1/z"),
        ("/home/build/x /usr/lib/build/y", "/home/user1/x /usr/lib/build/y"),
        ("C:\\Users\\Alice Smith\\x C:\\Users\\ALICES~1\\y", "C:\\Users\\user1\\x C:\\Users\\user1\\y"),
        ("%2Fhome%2Falice%2Fx", "%2Fhome%2Fuser1%2Fx"),
        ("C:\\Users\\Public\\x", "C:\\Users\\Public\\x"),
        ("/opt/app/home/config/x", "/opt/app/home/config/x"),
        ("/usr/share/users/x", "/usr/share/users/x"),
        ("https://example.org/about", "https://example.org/about"),
        ("https://example.org/home/alice/x", "https://example.org/home/user1/x"),
    ],
)
def test_homes(text: str, wanted: str) -> None:
    assert PrivateText().replace(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("API_TOKEN=hunter2", "API_TOKEN=secret1"),
        ("password = 'hunter 2'", "password = 'secret1'"),
        ("{'api_key': 'abc', \"x\": 1}", "{'api_key': 'secret1', \"x\": 1}"),
        ("tool --token hunter2 --verbose", "tool --token secret1 --verbose"),
        ("tool --token=hunter2", "tool --token=secret1"),
        ("tool --token --verbose", "tool --token --verbose"),
        ("MY_SECRET=a;AWS_ACCESS_KEY_ID=b", "MY_SECRET=secret1;AWS_ACCESS_KEY_ID=secret2"),
        ("https://bob:hunter2@example.org/simple", "https://user1:secret1@example.org/simple"),
        ("https://example.org/?token=hunter2&x=1", "https://example.org/?token=secret1&x=1"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer secret1"),
        ("ghp_0123456789abcdefghij0123", "secret1"),
        (
            "pip install --index-url https://__token__:pypi-AgEIcHl@x/",
            "pip install --index-url https://user1:secret1@x/",
        ),
        ("PASSWORD=longer-than-that and longer-than-that", "PASSWORD=secret1 and secret1"),
        ("PWD=/srv/app", "PWD=/srv/app"),
        ("libkey.so.1: undefined symbol: EVP_PKEY_new", "libkey.so.1: undefined symbol: EVP_PKEY_new"),
        ("monkey=1 keyboard=2", "monkey=1 keyboard=2"),
        ("publicKeyToken=6595b64144ccf1df", "publicKeyToken=6595b64144ccf1df"),
    ],
)
def test_secrets(text: str, wanted: str) -> None:
    assert PrivateText().replace(text) == wanted


def test_machines() -> None:
    text = PrivateText(hosts=["build7.corp.example"])
    assert text.replace("//BUILD7/share build7.corp.example build70") == "//host1/share host1 build70"


@given(st.text(max_size=200))
@CALM
def test_any_text_is_taken_and_is_done_after_once(text: str) -> None:
    private = PrivateText(["alice"], ["box"])
    once = private.replace(text)
    assert private.replace(once) == once


def test_many_names_are_bounded() -> None:
    private = PrivateText()
    texts = [private.replace(f"/home/person{number}x/lib") for number in range(700)]
    assert len(set(texts)) == 501


FRAME = Frame("/home/alice/app.py", 3, "<module>", "import ext  # token = 'hunter22'")
ERROR = PythonError(
    "ImportError", "libgone.so: cannot open shared object file: No such file or directory",
    ("ImportError", "Exception"), "ext", "/home/alice/site/ext.so", None, (FRAME,),
)  # fmt: skip
FACTS = process(environment=(("PATH", "/home/alice/bin:/usr/bin"), ("MY_TOKEN", "hunter22")), prefix="/home/alice/env")


def trace() -> SavedTrace:
    made = case("libgone.so: cannot open shared object file: No such file or directory")
    made = replace(
        with_run(made, process=FACTS, errors=(ERROR,)), error=ERROR, subject="/home/alice/site/ext.so",
        failures=(not_found("libgone.so", "/home/alice/site/ext.so"),),
    )  # fmt: skip
    recording = Recording(
        "rtld",
        (LoadEvent("/home/alice/site/ext.so"), *(made.failures or ())),
        processes=(TracedProcess(7, command=("tool", "--password", "hunter22", "x"), program="/home/alice/tool"),),
    )
    made = with_run(made, recording=recording)
    return SavedTrace(
        recording, "import ext", host=HostFacts("linux", "on vm", name="vm"),
        run=RunResult(process=FACTS, errors=(ERROR,), status=1), diagnosis=diagnose(made), case=encode_case(made),
        command=("python", "/home/alice/app.py", "--api-key=abc", "--secret", "s3cr3t"),
    )  # fmt: skip


def test_a_whole_trace() -> None:
    before, after = trace(), redact(trace())
    text = "".join(trace_to_lines(after))
    for word in ("alice", "hunter22", "s3cr3t", 'abc"'):
        assert word in "".join(trace_to_lines(before))
        assert word not in text
    assert after.host is not None and after.host.name == "host1"
    assert [word.rstrip("0123456789") for word in after.command] == [
        "python", "/home/user1/app.py", "--api-key=secret", "--secret", "secret",
    ]  # fmt: skip
    assert after.run.process is not None
    assert after.run.process.environment[0] == ("PATH", "/home/user1/bin:/usr/bin")
    assert after.run.process.environment[1][1].startswith("secret")
    assert after.recording.processes[0].command is not None
    assert after.recording.processes[0].command[2] == after.run.process.environment[1][1]
    assert after.recording.notes[-1].startswith("redacted: the names of 1 user and 1 machine, 3 secrets")


def test_rules_come_to_the_same_verdict() -> None:
    before, after = trace(), redact(trace())
    output = explain_saved(after)
    assert [(one.code, one.confidence) for one in output.findings] == [
        (one.code, one.confidence) for one in explain_saved(before).findings
    ]
    assert output.findings and "/home/user1/site/ext.so" in output.findings[0].chain


def test_the_payload_of_raw_events_goes() -> None:
    raw = SavedTrace(Recording("etw", (DebugEvent(uuid.UUID(int=1), 10, b"h", b"a\0l\0i\0c\0e\0"),)))
    assert redact(raw).recording.raw[0].data == b""


@given(SAVED_TRACES)
@settings(CALM, max_examples=40)
def test_any_trace_stays_one(trace: SavedTrace) -> None:
    done = redact(trace)
    assert read_lines(line.encode() for line in trace_to_lines(done)) == done
    assert len(done.recording.events) == len(trace.recording.events)
    assert [type(event) for event in done.recording.events] == [type(event) for event in trace.recording.events]


@pytest.mark.parametrize(
    "text",
    ["token" * 20_000, "/home/" * 20_000, "--" * 50_000, "x_key" * 20_000, "a://" * 25_000, "C:\\Users\\" * 10_000,
     "password =" + " " * 100_000, "Users/" + "a b " * 25_000, "token='" + "x" * 100_000, "a" * 100_000 + "://u:p@"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_long_texts_take_no_long_time(text: str) -> None:
    start = time.process_time()
    PrivateText(["alice"], ["box"]).replace(text)
    assert time.process_time() - start < 5
