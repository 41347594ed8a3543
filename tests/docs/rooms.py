"""Where the commands of a page run: a bash, or Wine's cmd.exe, in a folder of the page's own, one block after another.

What one command leaves (files, variables, the current folder) the next one finds, as for a reader.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from windows.lab import Lab, windows_path

_SECONDS = 180


@dataclass
class BashRoom:
    """A bash whose home and current folder are `folder`; `names` are (what is there, what pages call it)."""

    folder: Path
    environment: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)

    prompt = "$ "

    def run(self, command: str) -> tuple[int, str]:
        """Status and output (both streams) of a command."""
        state = self.folder.parent / "state"
        if not state.exists():
            state.write_text(f"cd {self.folder}\n", encoding="utf-8")
        keep = f"{{ printf 'cd %q\\n' \"$PWD\"; export -p; }} > {state}"
        script = f". {state}\n{command}\nstatus=$?\n{keep}\nexit $status\n"
        done = subprocess.run(
            ["bash", "-c", script], env=dict(self.environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=_SECONDS, check=False,
        )  # fmt: skip
        return done.returncode, as_pages_say(done.stdout.decode("utf-8", "replace"), self.names)


@dataclass
class WindowsRoom:
    """cmd.exe under Wine with a CPython for Windows on PATH, in `folder`, which pages call C:\\work."""

    folder: Path
    lab: Lab
    version: str
    environment: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)

    prompt = "C:\\work> "

    def run(self, command: str) -> tuple[int, str]:
        """Status and output (both streams) of a command."""
        batch = self.folder.parent / "step.bat"
        text = f"@echo off\ncd /d {windows_path(self.folder)}\n{command}\n"
        batch.write_text(text.replace("\n", "\r\n"), encoding="utf-8")
        env = self.lab.environment(self.version, self.environment)
        env["WINEPATH"] = windows_path(self.lab.python_dir(self.version))
        done = subprocess.run(
            ["wine", "cmd", "/c", windows_path(batch)], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=_SECONDS, check=False, cwd=self.folder,
        )  # fmt: skip
        return done.returncode, as_pages_say(done.stdout.decode("utf-8", "replace").replace("\r\n", "\n"), self.names)


def as_pages_say(output: str, names: Mapping[str, str]) -> str:
    """The output with the names that pages use for folders, and without what differs from one Python to the next."""
    for there, called in names.items():
        output = output.replace(there, called)
    output = re.sub(r"WARNING: (Running pip as the 'root' user|Location 'file:|Target directory)[^\n]*\n", "", output)
    output = re.sub(r"\n?\[notice\][^\n]*\n", "", output)
    return re.sub(r"cpython-3\d+(?=-x86_64)", "cpython-311", output)


def reader_environment(home: Path, python_folder: Path) -> dict[str, str]:
    """The environment of a reader's shell: little of ours, and the Python that has dlltracer first on PATH."""
    ours = ("PIP_", "SSL_", "REQUESTS_", "XDG_CACHE")
    kept = {key: value for key, value in os.environ.items() if key.startswith(ours)}
    path = f"{python_folder}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    return {**kept, "HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb", "PYTHONDONTWRITEBYTECODE": "1"}
