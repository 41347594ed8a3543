"""One Windows Python that answers many questions: under Wine, starting it and importing dlltracer takes longest."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windows.lab import Lab, windows_path

ROOT = Path(__file__).parents[3]

_LONGEST = 90
_DRIVER = """
import io, json, os, sys, traceback
import click
from dlltracer.cli.commands import cli

for line in sys.stdin:
    asked = json.loads(line)
    before = dict(os.environ)
    os.environ.update(asked["environment"])
    os.environ["PATH"] = asked["path"] + os.environ["PATH"]
    os.chdir(asked["folder"])
    status, trouble = None, ""
    # With a recording the answer goes to stdout, which is ours here.
    stdout, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\\n")
    target = asked["recording"] or asked["answer"]
    try:
        words = asked["arguments"]
        # A trial starts a Python under Wine, which takes a second: only scenarios about trials ask for them.
        tries = [] if "--try" in words else ["--no-try"]
        status = cli.main(["why", "--json", *tries, "-o", target, *words], standalone_mode=False)
    except click.exceptions.Exit as error:
        status = error.exit_code
    except BaseException:
        trouble = traceback.format_exc()
    sys.stdout, answer = stdout, sys.stdout.buffer.getvalue()
    if answer:
        with open(asked["answer"], "wb") as file:
            file.write(answer)
    os.environ.clear()
    os.environ.update(before)
    print(json.dumps({"status": status, "trouble": trouble}), flush=True)
"""


class Desk:
    """Runs `dlltracer why --json` in the process of one Windows Python, each question with its own child.

    Arguments: `folder` is for answers.
    """

    def __init__(self, lab: Lab, version: str, folder: Path) -> None:
        self._answer = folder / "answer.json"
        self._lab, self._version = lab, version
        self._driver = folder / "driver.py"
        self._driver.write_text(_DRIVER, encoding="ascii")
        self._site = f"{windows_path(ROOT / 'src')};{windows_path(lab.site)}"
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        native = "ucrtbase,msvcp140=n,b" if self._lab.kind == "microsoft" else "msvcp140=n,b"
        return subprocess.Popen(
            ["wine", str(self._lab.python_dir(self._version) / "python.exe"), windows_path(self._driver)],
            env=self._lab.environment(self._version, {"PYTHONPATH": self._site, "WINEDLLOVERRIDES": native}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def ask(
        self, arguments: tuple[str, ...], site: Path, environment: Mapping[str, str], path: tuple[Path, ...] = (),
        recording: Path | None = None,
    ) -> str:  # fmt: skip
        """The JSON that comes. `site` is the current folder, and on sys.path; `path` goes before PATH.

        `recording`: a file for the recording, if one is wanted.
        """
        self._answer.unlink(missing_ok=True)
        question: dict[str, Any] = {
            "arguments": arguments,
            "folder": windows_path(site),
            "answer": windows_path(self._answer),
            "recording": "" if recording is None else windows_path(recording),
            "path": "".join(f"{windows_path(folder)};" for folder in path),
            "environment": {"PYTHONPATH": f"{windows_path(site)};{self._site}", **environment},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], _LONGEST)
        if not ready:
            self._process.kill()
            self._process.communicate()
            self._process = self._start()  # one question without an answer must not cost those that come after it
            raise AssertionError(f"no answer within {_LONGEST} seconds: {arguments}")
        line = self._process.stdout.readline()
        if not self._answer.exists():
            raise AssertionError(f"no verdict: {line}")
        return self._answer.read_text(encoding="utf-8")

    def close(self) -> None:
        self._process.communicate(timeout=30)  # the end of its stdin ends it
