"""What the commands write for other programs: held against the schemas, read by their readers, pasted into issues."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders.schema_check import problems
from contract.native import Native

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the files of the fixtures are ELF on Linux only")


def dlltracer(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", *map(str, arguments)], env={**os.environ, **more},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip


@linux_only
def test_verdicts(native: Native) -> None:
    for arguments, status in (
        ((native.broken(),), 1),
        ((native.broken_module(),), 1),
        (("ssl",), 0),
        (("-c", "raise ValueError"), 4),
        (("-c", "import ctypes; ctypes.string_at(8)"), 1),
        (("-c", "import no_such_module"), 1),
    ):
        ran = dlltracer("why", "--json", *arguments)
        assert (ran.returncode, ran.stderr) == (status, "")
        assert problems("verdict", json.loads(ran.stdout)) == []


@linux_only
def test_trees(native: Native) -> None:
    for arguments in ((native.broken(),), (native.tiny(), "--format", "json"), (sys.executable,)):
        options = () if "json" in arguments else ("--json",)
        assert problems("deps", json.loads(dlltracer("deps", *arguments, *options).stdout)) == []


def broken_program(native: Native) -> str:
    return f"import bz2, ctypes; ctypes.CDLL({str(native.broken())!r})"


@linux_only
def test_lines_of_a_run(native: Native, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    dlltracer("run", "--format", "jsonl", "-o", out, "-c", broken_program(native))
    lines = [json.loads(line) for line in out.read_text("ascii").splitlines()]
    assert {"recording", "load", "failed", "verdict", "summary"} <= {line["type"] for line in lines}
    for line in lines:
        assert problems("jsonl", line) == []


@linux_only
def test_lines_of_a_recording(native: Native, tmp_path: Path) -> None:
    out = tmp_path / "out.dlltrace"
    dlltracer("run", "--follow", "-o", out, "-c", f"import os; os.system('true'); {broken_program(native)}")
    lines = [json.loads(line) for line in out.read_text("ascii").splitlines()]
    kinds = {line["type"] for line in lines}
    assert {"recording", "process", "load", "failed", "interpreter", "failure", "places", "image", "end"} <= kinds
    assert {"verdict", "case"} <= kinds
    for line in lines:
        assert problems("recording", line) == []


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.every_python
def test_info(as_json: bool) -> None:
    ran = dlltracer("info", *(["--json"] if as_json else []), NO_COLOR="1", DLLTRACER="0", LD_DEBUG="")
    assert (ran.returncode, ran.stderr) == (0, "")
    if not as_json:
        for word in ("dlltracer  ", "Python  ", sys.executable, "mechanisms  ", "DLLTRACER=0", "click "):
            assert word in ran.stdout, word
        return
    output = json.loads(ran.stdout)
    assert problems("info", output) == []
    assert output["python"]["version"] == sys.version.split()[0] and output["environment"]["NO_COLOR"] == "1"
    works = {one["name"]: one["available"] for one in output["backends"]}
    assert len(works) == len(output["backends"]), "each is named once"
    assert works["debugger"] is (sys.platform == "win32") and (works["debugger"] or not works["etw"])
    assert all(one["available"] or one["reason"] for one in output["backends"])


@pytest.mark.parametrize("command", [("info", "--json"), ("hook", "status")])
def test_a_python_without_the_options_of_its_build(command: tuple[str, ...], tmp_path: Path) -> None:
    """Frozen and stripped installations have no `_sysconfigdata`."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('_sysconfigdata'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    ran = dlltracer(*command, PYTHONPATH=str(tmp_path))
    assert (ran.returncode, ran.stderr) == (0, "")
    if "--json" in command:
        found, plain = (json.loads(text) for text in (ran.stdout, dlltracer(*command).stdout))
        assert found["python"] == plain["python"]
    else:
        assert ran.stdout == dlltracer(*command).stdout


@linux_only
def test_formats_of_a_run(native: Native, tmp_path: Path) -> None:
    program = broken_program(native)
    made = {}
    for name in ("dot", "mermaid", "perfetto", "github"):
        out = tmp_path / name
        assert dlltracer("run", "--format", name, "-o", out, "-c", program).returncode == 1
        made[name] = out.read_text("utf-8")
    assert made["dot"].startswith("digraph ") and native.missing in made["dot"]
    assert made["mermaid"].startswith("flowchart LR\n") and native.missing in made["mermaid"]
    entries = json.loads(made["perfetto"])["traceEvents"]
    assert [e["ts"] for e in entries] == sorted(e["ts"] for e in entries)
    assert {e["cat"] for e in entries if "cat" in e} == {"import", "load", "failed"}
    assert f"{native.missing} was not found" in made["github"] and len(made["github"].splitlines()) <= 60
    if shutil.which("dot") is not None:
        subprocess.run(["dot", "-Tsvg", "-o", os.devnull, tmp_path / "dot"], check=True, timeout=120)


@linux_only
def test_formats_of_a_tree(native: Native) -> None:
    dot = dlltracer("deps", native.broken(), "--format", "dot")
    assert dot.returncode == 1 and dot.stdout.startswith("digraph ") and f'"{native.missing}\\nnot found"' in dot.stdout
    mermaid = dlltracer("deps", native.broken(), "--format", "mermaid")
    assert mermaid.returncode == 1 and f'"{native.missing}<br/>not found"' in mermaid.stdout


@linux_only
def test_markdown_of_a_verdict(native: Native) -> None:
    ran = dlltracer("why", "--github", native.broken_module())
    lines = ran.stdout.splitlines()
    assert (ran.returncode, ran.stderr) == (1, "")
    assert lines[0].startswith("### dlltracer: `loading ") and len(lines) <= 60
    version = ".".join(map(str, sys.version_info[:3]))
    assert any(line.startswith(f"| Python | `{version}, ") for line in lines)
    assert any(native.missing in line for line in lines)
    foreign = dlltracer("why", "--github", "--python", sys.executable, "-c", "import os; os._exit(3)").stdout
    assert f"| Python | `{version}, " in foreign, "it is asked when the program could not tell"


@linux_only
def test_annotations(native: Native, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(f"import ctypes\nctypes.CDLL({str(native.broken())!r})\n")
    on = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(tmp_path)}
    ran = dlltracer("why", script, **on)
    assert ran.stderr.startswith("::error file=job.py,line=2,title=") and f"failed%3A {native.missing}" in ran.stderr
    assert "::" not in ran.stdout and dlltracer("why", "--no-annotations", script, **on).stderr == ""
    ran = dlltracer("run", "-o", tmp_path / "out", script, **on)
    assert ran.stderr.splitlines()[-1].startswith("::error file=job.py,line=2,")
    ran = dlltracer("deps", "--missing", native.broken(), **on)
    assert ran.stderr.startswith("::error file=broken_") and f"title={native.missing} missing::" in ran.stderr
    assert dlltracer("deps", native.broken(), **on).stderr == "", "with --missing only, or when it is asked for"
    assert dlltracer("deps", "--annotations", native.broken()).stderr.count("::error ") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--github", "--format", "dot", "-c", "pass"), "choose one of --github and --format dot"),
        (("run", "--failed-only", "--format", "perfetto", "-c", "pass"), "--failed-only is for text, jsonl and lines"),
        (("why", "--json", "--github", "ssl"), "choose one of --json and --github"),
        (("deps", "--json", "--format", "dot", "x"), "choose one of --json and --format dot"),
        (("deps", "--flat", "--format", "dot", "x"), "choose one of --format"),
        (("schema", "nope"), "nope"),
        (("completion", "tcsh"), "tcsh"),
        (("info", "-o", "/no/such/folder/x"), "cannot write"),
    ],
)
def test_wrong_questions(arguments: tuple[str, ...], words: str) -> None:
    ran = dlltracer(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "") and words in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_for_shells(shell: str, tmp_path: Path) -> None:
    ran = dlltracer("completion", shell, PATH=str(tmp_path))  # a script can be made where that shell is not
    assert (ran.returncode, ran.stderr) == (0, "") and "_DLLTRACER_COMPLETE" in ran.stdout
    if shutil.which(shell) is not None:
        script = tmp_path / "script"
        script.write_text(ran.stdout)
        subprocess.run([shell, "-n", script], check=True, timeout=60)


def completions(*words: str) -> list[str]:
    """What bash gets as words that could stand in the place of the last word."""
    line = " ".join(("dlltracer", *(word or "''" for word in words)))
    ran = dlltracer(COMP_WORDS=line, COMP_CWORD=str(len(words)), _DLLTRACER_COMPLETE="bash_complete")
    assert ran.stderr == ""
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("wh",), ["plain,why"]),
        (("run", "--format", "p"), ["plain,perfetto"]),
        (("deps", "--format", "m"), ["plain,mermaid"]),
        (("run", "--backend", "s"), ["plain,seccomp", "plain,snapshot"]),
        (("why", "--backend", "r"), ["plain,rtld"]),
        (("schema", "v"), ["plain,verdict"]),
        (("completion", "z"), ["plain,zsh"]),
        (("run", "--gi"), ["plain,--github"]),
        (("run", "script"), ["file,script"]),
        (("run", "script.py", "--gi"), ["file,--gi"]),
        (("run", "-m", "mod"), ["file,mod"]),
        (("deps", "--root", "x"), ["dir,x"]),
        (("hook", "en"), ["plain,enable"]),
    ],
)
def test_what_is_offered(words: tuple[str, ...], wanted: list[str]) -> None:
    assert completions(*words) == wanted
