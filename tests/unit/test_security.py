"""SECURITY.md, sentence by sentence where no other test holds it: what is started, loaded, unpickled, connected to."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dlltracer

SOURCES = Path(dlltracer.__file__).parent
ROOT = Path(__file__).parents[2]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks at programs of Linux")

STARTERS = {
    "host/bounded.py": "programs of the system, by absolute path",
    "host/failure.py": "on Windows, the interpreter that failed, by its own path",
    "api/explain.py": "where the program lies that a child could not start: looked for, not started",
    "cli/process.py": "the program that the user named",
    "cli/run_traced.py": "where the program that the user named lies",
    "cli/run_watched.py": "where the program that the user named lies",
    "cli/deps.py": "the Python in question: asked where a module lies; and where a program of that name lies",
    "cli/question.py": "where the interpreter of a script's first line lies: looked for, not started there",
    "cli/try_import.py": "where the interpreter of --python lies: looked for, not started there",
    "capture/linux/seccomp_launch.py": "the program that the user named",
    "host/screen.py": "which Python a shell would start, to show commands with its short name: it is not started",
    "selftest/everywhere.py": "this interpreter",
    "selftest/linux.py": "this interpreter",
    "selftest/runner.py": "this interpreter",
    "selftest/windows_debugger.py": "this interpreter",
    "selftest/windows_etw.py": "this interpreter",
    "cli/run_debugged.py": "the program that the user named",
    "cli/program.py": "the interpreter of --python or of the active environment: asked for its version; and whether the"
    " word behind -- names a program, as a shell finds it",
    "capture/linux/compared_starts.py": "this interpreter, where the kernel says that this process runs it",
    "capture/windows/debugger/run.py": "the program that the user named",
    "capture/windows/debugger/backend.py": "the program that the user named",
}
"""Modules that may start or look for programs, and which."""

_STARTS = re.compile(
    r"(?:subprocess\.(?:run|Popen|call|check_\w+|getoutput|getstatusoutput)|shutil\.which|os\.(?:system|popen|startfile)"
    r"|os\.(?:exec|spawn|posix_spawn)\w*|CreateProcess\w*)"
)
_UNPICKLE = re.compile(r"(?:pickle|shelve|dill|yaml)\.\w+|marshal\.loads?|eval|exec")


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """All calls in the package: the module, the name called as it is written, the call."""
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(SOURCES).as_posix(), ast.unparse(node.func), node


def test_only_some_modules_start_programs() -> None:
    found = {module for module, name, _ in calls() if _STARTS.fullmatch(name)}
    assert found <= set(STARTERS), "say here what is started, and by what path"
    assert "host/bounded.py" in found


def test_windows_functions_come_from_system32() -> None:
    loads = [(module, call) for module, name, call in calls() if re.fullmatch(r"(?:ctypes\.)?(?:WinDLL|OleDLL)", name)]
    assert len(loads) > 3
    for module, call in loads:
        assert "winmode" in {keyword.arg for keyword in call.keywords}, (module, ast.unparse(call))
    assert not [module for module, name, _ in calls() if re.match(r"(?:ctypes\.)?windll\.", name)]


def test_nothing_is_unpickled_or_evaluated_but_the_program() -> None:
    found = {module for module, name, _ in calls() if _UNPICKLE.fullmatch(name)}
    values = "model/light.py"  # __init__ of our own values, from the names of their fields
    assert found <= {"cli/launch.py", "cli/runner.py", "cli/child.py", "integrations/ipython.py", values}


def test_only_a_download_that_was_asked_for_speaks_to_the_network() -> None:
    modules = re.compile(r"^\s*(?:import|from)\s+(?:_?socket|ssl|http|urllib\.request|ftplib|smtplib|requests)\b", re.M)
    found = [path for path in SOURCES.rglob("*.py") if modules.search(path.read_text("utf-8"))]
    # The listener of seccomp comes through a pair of sockets without a name (unix(7), SCM_RIGHTS).
    names = {path.relative_to(SOURCES).as_posix(): path for path in found}
    assert sorted(names) == ["capture/linux/seccomp_launch.py", "host/download.py"]
    text = names["capture/linux/seccomp_launch.py"].read_text("utf-8")
    assert re.findall(r"_socket\.(\w+)\(", text) == ["socket", "socketpair", "CMSG_SPACE"]
    # A URL that is a target of `dlltracer check` is downloaded; nothing else asks for that.
    users = [path for path in SOURCES.rglob("*.py") if "host.download import" in path.read_text("utf-8")]
    assert [path.relative_to(SOURCES).as_posix() for path in users] == ["check/targets.py"]


def test_the_page_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(set(named)) > 15
    assert not [path for path in named if not (ROOT / path).is_file()]


WATCH = """
import sys
seen = []
def watch(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn", "os.startfile"):
        seen.append(str(arguments[0]))
    elif event.startswith("socket."):
        seen.append(event)
sys.addaudithook(watch)
from dlltracer.cli.commands import cli
try:
    cli.main({arguments!r}, standalone_mode=False)
except SystemExit:
    pass
finally:
    print("started", seen, file=sys.stderr)
"""


@linux_only
@pytest.mark.parametrize("command", ["show", "why", "diff", "deps"])
def test_what_looks_at_files_runs_nothing_of_them(tmp_path: Path, command: str) -> None:
    recording = tmp_path / "r.dlltrace"
    traced = [sys.executable, "-m", "dlltracer", "run", "-o", str(recording), "-c", "import no_such_module_x"]
    subprocess.run(traced, capture_output=True, timeout=120, check=False)
    planted = tmp_path / "planted.so"
    planted.write_bytes(b"#!/bin/sh\ntouch ran\n")
    planted.chmod(0o755)
    arguments = {
        "show": ["show", str(recording)], "why": ["why", str(recording)], "diff": ["diff", *[str(recording)] * 2],
        "deps": ["deps", str(planted)],
    }[command]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", WATCH.format(arguments=["--no-config", *arguments])], cwd=tmp_path, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("started ")]
    started = re.findall(r"'([^']*)'", line)
    allowed = r"/(?:lib|usr)[\w/.-]*/ld-[\w.-]+" if command == "deps" else r"(?!)"
    assert [program for program in started if not re.fullmatch(allowed, program)] == []
    assert not (tmp_path / "ran").exists()
