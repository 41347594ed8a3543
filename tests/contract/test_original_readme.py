"""What the README of the Windows package of this name shows, as scripts in our own words: each must run unchanged.

That README calls `sys.add_audit_hook`, which does not exist: `sys.addaudithook` is meant.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.native import WINDOWS, module_suffix

Run = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def run(originals: Path, tmp_path: Path) -> Run:
    """Run a script in a folder with a module that imports, `tinymod`, and one that does not, `brokenmod`."""
    for name in ("tinymod", "brokenmod"):
        shutil.copy(originals / f"{name}{module_suffix()}", tmp_path)

    def run_script(code: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(code)
        return subprocess.run(
            [sys.executable, str(script)], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    return run_script


def words_about(text: str, name: str) -> list[str]:
    """First words of the lines whose path ends in that file, in order."""
    return [line.split()[0] for line in text.splitlines() if line.lower().endswith(name + module_suffix())]


def test_messages_on_standard_output(run: Run) -> None:
    done = run("""
import sys
import dlltracer

with dlltracer.Trace(out=sys.stdout):
    import tinymod
""")
    assert done.returncode == 0, done.stderr
    assert words_about(done.stdout, "tinymod") == ["LoadLibrary"]
    assert done.stderr == ""


def test_messages_of_a_failed_import_come_before_its_traceback(run: Run) -> None:
    done = run("""
import sys
import dlltracer

sys.stderr = sys.stdout
with dlltracer.Trace(out=sys.stdout):
    import brokenmod
""")
    assert done.returncode == 1
    lines, traceback, _ = done.stdout.partition("Traceback (most recent call last):\n")
    assert traceback, done.stdout
    assert words_about(lines, "brokenmod")[-1] == "Failed"
    assert lines.splitlines()[-1].startswith("Failed ")
    assert "ImportError" in done.stdout.splitlines()[-1]


def test_messages_in_a_file(run: Run, tmp_path: Path) -> None:
    done = run("""
import dlltracer

with open("log.txt", "w") as log:
    with dlltracer.Trace(out=log):
        import tinymod
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert words_about((tmp_path / "log.txt").read_text(), "tinymod") == ["LoadLibrary"]


def test_events_in_a_list(run: Run) -> None:
    done = run("""
import dlltracer

with dlltracer.Trace(collect=True) as events:
    import tinymod
    try:
        import brokenmod
    except ImportError:
        pass

loaded = {e.path for e in events if isinstance(e, dlltracer.LoadEvent)}
failed = {e.path for e in events if isinstance(e, dlltracer.LoadFailedEvent)}
for path in sorted(loaded): print("loaded", path)
for path in sorted(failed): print("failed", path)
print(all(repr(e).startswith("<LoadLibrary") and repr(e).endswith(f"({e.path})>") for e in events))
""")
    assert done.returncode == 0, done.stderr
    # On Linux the loader names what it does not find before it has mapped anything: the module was never loaded.
    assert words_about(done.stdout, "tinymod") == ["loaded"]
    assert "failed" in words_about(done.stdout, "brokenmod")
    assert done.stdout.splitlines()[-1] == "True"


def test_audit_events(run: Run) -> None:
    done = run("""
import sys
import dlltracer

def hook(event, args):
    if event == "dlltracer.load":
        print("Loaded", *args)
    elif event == "dlltracer.failed":
        print("Failed", *args)

sys.addaudithook(hook)

with dlltracer.Trace(audit=True):
    import tinymod
    try:
        import brokenmod
    except ImportError:
        pass
""")
    assert done.returncode == 0, done.stderr
    assert words_about(done.stdout, "tinymod") == ["Loaded"]
    assert words_about(done.stdout, "brokenmod")[-1] == "Failed"


def test_raw_events_everywhere(run: Run) -> None:
    done = run("""
import sys
import uuid
import dlltracer

seen = []

def hook(event, args):
    if event == "dlltracer.debug":
        seen.append(args)

sys.addaudithook(hook)

with dlltracer.Trace(debug=True, audit=True, collect=True, out=sys.stderr) as events:
    import tinymod
    try:
        import brokenmod
    except ImportError:
        pass

for e in events:
    assert isinstance(e, dlltracer.DebugEvent)
    assert repr(e) == f"<Debug({e.provider}, {e.opcode}, {e.header!r}, {e.data!r})>"
assert seen == [(e.provider, e.opcode, e.header, e.data) for e in events]
for provider, opcode, header, data in seen:
    assert isinstance(provider, uuid.UUID) and isinstance(opcode, int)
    assert type(header) is type(data) is bytes
print(len(events) > 0, any("tinymod".encode(CODEC) in e.data for e in events))
""".replace("CODEC", repr("utf-16-le" if WINDOWS else "utf-8")))
    assert (done.returncode, done.stdout.split()) == (0, ["True", "True"]), done.stderr
    assert "tinymod" in done.stderr
