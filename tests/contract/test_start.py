"""What each process of a command imports: nobody waits for modules that are not needed (docs/adr/0003)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlltracer.cli import deps, run, why
from dlltracer.cli.commands import make_command, settings_of
from dlltracer.cli.options import CommandLine

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="a log that the command decodes is of Linux")

NEVER = {
    "click", "rich", "jinja2", "tempfile", "shutil", "random", "platform", "uuid", "pathlib", "importlib.resources",
}  # fmt: skip
"""Of no plain command line."""

NEEDS_TIME = {"dataclasses", "inspect", "typing"}
"""What costs as much as the start of Python, and what we do without."""


class Imports:
    """What the process of a command has imported when it ends."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        code = (
            "import sys; sys.argv[0] = 'dlltracer'\n"
            "from dlltracer.__main__ import main\n"
            "import atexit; atexit.register(lambda: print('MODULES', *sorted(sys.modules), file=sys.__stdout__))\n"
            "main()"
        )
        # What killed runs have left in the folder of everybody is removed by the next one, which takes shutil.
        self.ran = subprocess.run(
            [sys.executable, "-c", code, *arguments], env={**os.environ, "TMPDIR": str(folder)}, cwd=folder,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        line = next(line for line in reversed(self.ran.stdout.splitlines()) if line.startswith("MODULES"))
        self.parent = set(line.split()[1:])

    def ours(self) -> set[str]:
        """The folders of our package that the parent has modules of."""
        parts = (name.split(".") for name in self.parent if name.startswith("dlltracer."))
        return {names[1] for names in parts if len(names) > 1}


def test_the_version(tmp_path: Path) -> None:
    seen = Imports(tmp_path, "--version")
    assert seen.ran.stdout.startswith("dlltracer ")
    assert seen.parent & (NEVER | NEEDS_TIME | {"subprocess", "re"}) == set()
    assert seen.ours() <= {"__main__", "cli", "errors", "host", "model"}


def test_a_program_that_calls_us_goes_on_behind_us(tmp_path: Path) -> None:
    """The process ends at once only where the command line is all of its program (dlltracer.__main__)."""
    wrapper = "from dlltracer.__main__ import main\ntry:\n main()\nfinally:\n print('after')"
    code = f"import sys; sys.argv = ['x', '--version']; exec({wrapper!r}, {{'__name__': 'wrapper'}})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[1:] == ["after"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="code says from 3.11 on whether it has handlers")
def test_the_handlers_of_a_script_that_calls_us_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    for text in (
        "main()\nfinally:\n print('after')",
        "def call(): main()\n call()\nfinally:\n print('after')",
    ):
        head = "import sys\nfrom dlltracer.__main__ import main\nsys.argv = ['x', '--version']\ntry:\n "
        script.write_text(head + text)
        ran = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert ran.stdout.splitlines()[1:] == ["after"]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_the_status_of_a_full_disk_is_that_of_the_interpreter() -> None:
    """Nothing is left in a buffer when the process ends at once, and what cannot be written is said."""
    code = "import sys; sys.argv = ['x', '--version']; print('before'); from dlltracer.__main__ import main; main()"
    with open("/dev/full", "w") as full:
        ran = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False)
    assert ran.returncode != 0 and b"No space left on device" in ran.stderr


@linux_only
def test_a_run_that_loads_well(tmp_path: Path) -> None:
    seen = Imports(tmp_path, "run", "-c", "import _json")
    assert "_json" in seen.ran.stderr and seen.ran.returncode == 0
    assert seen.parent & (NEVER | NEEDS_TIME | {"subprocess", "threading", "locale", "selectors", "ctypes"}) == set()
    assert {"dlltracer.model.finding", "dlltracer.binary.reading"} & seen.parent == set()
    assert {"api", "diagnose", "resolve"} & seen.ours() == set()
    assert {"dlltracer.model.decode", "dlltracer.model.encode", "dlltracer.cli.record"} & seen.parent == set()


@linux_only
def test_the_program_imports_no_decoder(tmp_path: Path) -> None:
    # An exit handler that is registered from the trace's own would come too late: the report is written last of all,
    # so what the end of the trace imports is seen by the audit event of each import.
    code = (
        "import sys; seen = list(sys.modules); names = open('early', 'w')\n"
        "sys.addaudithook(lambda event, given: event == 'import' and print(given[0], file=names, flush=True))\n"
        "print(*seen, file=names)"
    )
    Imports(tmp_path, "run", "-c", code)
    early = set((tmp_path / "early").read_text().split())
    assert "dlltracer.capture.linux.rtld" in early
    assert early & (NEVER | NEEDS_TIME | {"re", "enum", "subprocess"}) == set()


@linux_only
def test_an_import_that_works(tmp_path: Path) -> None:
    seen = Imports(tmp_path, "why", "json")
    assert "works" in seen.ran.stdout and seen.ran.returncode == 0
    assert seen.parent & NEVER == set()
    assert {"diagnose", "resolve"} & seen.ours() == set()


@linux_only
def test_a_file(tmp_path: Path) -> None:
    import _ctypes

    seen = Imports(tmp_path, "deps", "--flat", str(_ctypes.__file__))
    assert "dlltracer.model.macho" not in seen.parent
    assert seen.ran.returncode == 0 and "libc.so.6" in seen.ran.stdout
    assert seen.parent & (NEVER | NEEDS_TIME | {"ctypes", "json", "re", "subprocess"}) == set()
    assert {"dlltracer.model.recording", "dlltracer.model.run", "dlltracer.host.processors"} & seen.parent == set()
    assert {"diagnose", "capture.linux"} & seen.ours() == set()
    assert {"dlltracer.binary.pe", "dlltracer.resolve.windows"} & seen.parent == set()


@linux_only
@pytest.mark.parametrize(("module", "words"), [("mmap", ("deps", sys.executable)), ("resource", ("run", "-c", "pass"))])
def test_a_python_without_a_module_of_its_own(module: str, words: tuple[str, ...]) -> None:
    """As a Python that is linked statically, or one that was copied without its libraries."""
    code = f"import sys; sys.modules[{module!r}] = None; from dlltracer.__main__ import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1, ran.stderr
    assert ran.stderr.startswith(f"dlltracer: error: dlltracer needs {module}, which this Python cannot import")


@linux_only
def test_a_copy_without_what_it_requires() -> None:
    code = "import sys; sys.modules['click'] = None; from dlltracer.__main__ import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, "info"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1, ran.stderr
    assert ran.stderr.startswith("dlltracer: error: dlltracer needs click, which this Python cannot import")


@linux_only
def test_in_an_archive(tmp_path: Path) -> None:
    """An interpreter starts no file of a zip archive: what needs one says so, and all else works."""
    archive = tmp_path / "app.pyz"
    package = Path(str(run.__file__)).parents[1]
    with zipfile.ZipFile(archive, "w") as opened:
        for file in package.rglob("*.py"):
            opened.write(file, Path("dlltracer", file.relative_to(package)))
        opened.writestr("__main__.py", "from dlltracer.__main__ import main\nmain()\n")
    for options in (["run"], ["run", "--follow"], ["why"]):
        ran = subprocess.run(
            [sys.executable, str(archive), *options, "-c", "pass"], capture_output=True, text=True, check=False
        )  # fmt: skip
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
        assert ran.stderr.startswith("dlltracer: error: dlltracer is in an archive: ")
    import _ctypes

    words = [sys.executable, str(archive), "deps", str(_ctypes.__file__)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "libc.so.6" in ran.stdout, ran.stderr
    code = f"import sys; sys.path.insert(0, {str(archive)!r}); import dlltracer; print(dlltracer.__file__)\n" + (
        "with dlltracer.Trace(collect=True) as events: import _json\nprint(*events)"
    )
    ran = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and ran.stdout.startswith(str(archive)) and "_json" in ran.stdout, ran.stderr


COMMANDS = [run.COMMAND, why.COMMAND, deps.COMMAND]
WORDS = ["-", "--", "", "a", "x.dlltrace", "-c", "-m", "text", "json", "1", "-1", "--no-such", "-h", "-oFILE", "a=b"]


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_both_readers_of_a_command_line_agree(data: st.DataObject) -> None:
    command = data.draw(st.sampled_from(COMMANDS))
    spelled = [name for option in command.options for name in (*option.names, option.off) if name is not None]
    word = st.sampled_from(WORDS) | st.sampled_from(spelled) | st.sampled_from([f"{name}=v" for name in spelled])
    words = data.draw(st.lists(word, max_size=6))
    plain = command.read_plain(words)
    if plain is not None:
        assert read_by_click(command, words) == plain


def read_by_click(command: CommandLine, words: list[str]) -> dict[str, object]:
    """The values that click reads from the words."""
    read: dict[str, object] = {}

    def call(given: dict[str, object], settings: frozenset[str]) -> None:
        read.update(given)
        assert settings == frozenset()

    same = CommandLine(
        command.name, command.summary, call, *command.options, argument=command.argument,
        is_required=command.is_required, takes_words=command.takes_words,
    )  # fmt: skip
    make_command(same).main(list(words), prog_name="dlltracer", standalone_mode=False)
    return read


def test_usual_command_lines_are_plain() -> None:
    for command, words in (
        (run.COMMAND, ["-c", "import ssl"]), (run.COMMAND, ["-o", "FILE", "--failed-only", "-m", "x", "--y"]),
        (why.COMMAND, ["ssl"]), (why.COMMAND, ["--json", "-o", "-", "ssl"]), (why.COMMAND, ["-c", "import ssl"]),
        (deps.COMMAND, ["x.so"]), (deps.COMMAND, ["x.so", "--format", "dot", "--path", "a", "--path", "b"]),
    ):  # fmt: skip
        plain = command.read_plain(words)
        assert plain is not None and read_by_click(command, words) == plain
    assert json.dumps(deps.COMMAND.read_plain(["x.so", "--path", "a", "--path", "b"])).count('["a", "b"]') == 1


def test_settings_are_for_click(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.dlltracer.deps]\nflat = true\n")
    seen = Imports(tmp_path, "deps", sys.executable)
    assert "click" in seen.parent and "├" not in seen.ran.stdout
    assert settings_of is not None
