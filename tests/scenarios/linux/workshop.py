"""Makes the files of a scenario: libraries and extension modules, by gcc, in a folder of the scenario's own."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from scenarios.scenario import Question

INCLUDE = sysconfig.get_paths()["include"]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX") or ".so"

_MODULE = """
#include <pyconfig.h>
#ifndef Py_GIL_DISABLED /* a free-threaded Python has no limited API yet */
#define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>
{code}
static struct PyModuleDef def = {{.m_base = PyModuleDef_HEAD_INIT, .m_name = "{name}", .m_size = -1}};
PyMODINIT_FUNC PyInit_{name}(void) {{ {init}; return PyModule_Create(&def); }}
"""


def why_there_is_none() -> str | None:
    """Why this machine can build no scenario; `None` if it can."""
    if sys.platform != "linux":
        return "files of Linux, for Linux"
    if shutil.which("gcc") is None or not (Path(INCLUDE) / "Python.h").exists():
        return f"needs gcc and Python.h (looked in {INCLUDE})"
    return None


class Workshop:
    """Builds in `folder`, which is the current folder of the question and so the first of sys.path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def library(
        self, path: str, code: str = "", needs: Sequence[str] = (), options: Sequence[str] = (), *,
        cplusplus: bool = False,
    ) -> Path:  # fmt: skip
        """A shared library with that code; its soname is the name of its file.

        Arguments: `needs`, files of this folder to link with; `options` for the compiler, perhaps with another soname.
        """
        soname = () if any("-soname" in option for option in options) else (f"-Wl,-soname,{Path(path).name}",)
        return self._compile(path, code, [*needs], [*soname, *options], "c++" if cplusplus else "c")

    def module(
        self, path: str, code: str = "", needs: Sequence[str] = (), options: Sequence[str] = (), *, init: str = "",
        cplusplus: bool = False,
    ) -> Path:  # fmt: skip
        """An extension module at that path; without an ending, it gets the one of this Python.

        Arguments: `code` goes before the initialiser, `init` into it.
        """
        name = Path(path).name.split(".")[0]
        if "." not in Path(path).name:
            path += SUFFIX
        source = _MODULE.format(name=name, code=code, init=init)
        return self._compile(path, source, needs, [f"-I{INCLUDE}", *options], "c++" if cplusplus else "c")

    def _compile(self, path: str, code: str, needs: Sequence[str], options: Sequence[str], language: str) -> Path:
        made = self.folder / path
        made.parent.mkdir(parents=True, exist_ok=True)
        compiler = "g++" if language == "c++" else "gcc"
        command = [compiler, "-shared", "-fPIC", "-O0", f"-x{language}", "-", "-o", str(made), "-xnone"]
        command += ["-Wl,--no-as-needed", *needs, "-Wl,--allow-shlib-undefined", f"-L{self.folder}", *options]
        done = subprocess.run(command, input=code, text=True, cwd=self.folder, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        return made

    def write(self, path: str, content: str | bytes) -> Path:
        """A file with that content."""
        made = self.folder / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(content.encode() if isinstance(content, str) else content)
        return made

    def remove(self, path: str) -> None:
        """Take a file away."""
        (self.folder / path).unlink()

    def move(self, path: str, to: str) -> Path:
        """Put a file elsewhere."""
        made = self.folder / to
        made.parent.mkdir(parents=True, exist_ok=True)
        return (self.folder / path).rename(made)

    def patch(self, path: str, at: int, data: bytes) -> None:
        """Write bytes into a file."""
        with (self.folder / path).open("r+b") as stream:
            stream.seek(at)
            stream.write(data)

    def cut(self, path: str, size: int) -> None:
        """Make a file shorter."""
        os.truncate(self.folder / path, size)

    def record(self, package: str, version: str, files: Sequence[str]) -> None:
        """What pip leaves of a package whose files are these, as they are now."""
        rows = []
        for name in files:
            data = (self.folder / name).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(data)}\n")
        info = f"{package.replace('-', '_')}-{version}.dist-info"
        rows.append(f"{info}/RECORD,,\n")
        self.write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        self.write(f"{info}/INSTALLER", "pip\n")
        self.write(f"{info}/RECORD", "".join(rows))

    def ask(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Question:
        """The question, asked in this folder."""
        return Question(arguments, environment or {}, self.folder)
