"""Where the files of a Windows scenario are made, and its question is asked: CPython for Windows under Wine."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from builders.pe_file import build_pe
from scenarios.scenario import Question
from windows.fixtures import MODULE
from windows.lab import Lab, windows_path

from .desk import Desk

VERSION = "3.11"

_WINDRES = "x86_64-w64-mingw32-windres"
_RESOURCE = """
1 VERSIONINFO
FILEVERSION {numbers}
PRODUCTVERSION {numbers}
BEGIN
END
"""

FUNCTION = "__declspec(dllexport) int {name}(void) {{ return 1; }}\n"
DLL_MAIN = """
#include <windows.h>
BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{{ (void)self; (void)reserved; if (reason != DLL_PROCESS_ATTACH) return TRUE; {body} }}
"""

Links = Sequence[Path]


class Workshop:
    """A folder of its own for one scenario.

    Attributes: `site`, a folder on sys.path; `lab`.
    """

    def __init__(self, lab: Lab, desk: Desk, folder: Path) -> None:
        self.lab = lab
        self._desk = desk
        self._path: tuple[Path, ...] = ()
        self.folder = folder
        self.site = self.place("site")
        self._python: Path | None = None

    def place(self, name: str) -> Path:
        """A folder, made."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the site folder."""
        path = self.site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def module(self, name: str, needs: dict[str, Sequence[str | int]] | None = None, **options: object) -> Path:
        """An extension module built by hand that imports symbols from libraries. It cannot be run."""
        exports = [f"PyInit_{name.rpartition('/')[2]}"]
        return self.write(f"{name}.pyd", build_pe(needs, exports, **options))  # type: ignore[arg-type]

    def library(self, path: Path | str, needs: dict[str, Sequence[str | int]] | None = None, **options: object) -> Path:
        """A DLL built by hand; it exports `f` unless told otherwise. A `str` is a path in the site folder."""
        options.setdefault("exports", ["f"])
        return self.write(str(path), build_pe(needs, **options))  # type: ignore[arg-type]

    def dll(self, path: str, source: str, links: Links = (), version: tuple[int, int, int, int] | None = None) -> Path:
        """A DLL built by mingw, at a path in the workshop's folder."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        resource = [self._resource(target, version)] if version is not None else []
        return self.lab.build_dll(target.stem, source, target.parent, [*links, *resource])

    def pyd(self, path: str, functions: Sequence[str] = (), links: Links = (), start: str = "") -> Path:
        """An extension module built by mingw, in the site folder: it calls the functions, then runs `start`."""
        target = self.site / f"{path}.pyd"
        target.parent.mkdir(parents=True, exist_ok=True)
        name = target.stem
        source = MODULE.format(
            name=name,
            declarations="\n".join(f"__declspec(dllimport) int {function}(void);" for function in functions),
            expression="0",
        )
        calls = "".join(f"{function}(); " for function in functions)
        source = source.replace(f"PyInit_{name}(void) {{", f"PyInit_{name}(void) {{ {calls}{start}")
        return self.lab.build_pyd(VERSION, name, source, target.parent, links)

    def python(self) -> Path:
        """A Python of the scenario's own, to put things beside python.exe: its library is links."""
        if self._python is None:
            self._python = self.place("python")
            source = self.lab.python_dir(VERSION)
            for path in source.iterdir():
                if path.suffix in {".exe", ".dll"}:
                    shutil.copy2(path, self._python / path.name)
                elif path.name in {"Lib", "DLLs"}:
                    (self._python / path.name).symlink_to(path)
        return self._python

    def question(self, *arguments: str, path: Links = (), **environment: str) -> Question:
        """What to ask, in the site folder; `path` is for the front of PATH."""
        self._path = tuple(path)
        if self._python is not None:
            arguments = ("--python", windows_path(self._python / "python.exe"), *arguments)
        return Question(arguments, environment, self.site)

    def ask(self, question: Question, recording: Path | None = None) -> str:
        """The answer of `dlltracer why --json`; `recording` is a file for the recording, if one is wanted."""
        return self._desk.ask(question.arguments, self.site, question.environment, self._path, recording)

    def _resource(self, target: Path, version: tuple[int, int, int, int]) -> Path:
        script = target.with_suffix(".rc")
        script.write_text(_RESOURCE.format(numbers=",".join(map(str, version))), encoding="ascii")
        result = target.with_suffix(".res.o")
        subprocess.run([_WINDRES, str(script), str(result)], check=True, capture_output=True)
        return result


def set_linker_version(path: Path, version: tuple[int, int]) -> Path:
    """Let a PE file say that another linker made it: Major- and MinorLinkerVersion ("PE Format", MS Learn)."""
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 0x3C)
    struct.pack_into("<BB", data, start + 4 + 20 + 2, *version)
    path.write_bytes(data)
    return path
