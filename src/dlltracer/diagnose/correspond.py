"""Which image of one trace is which of another, on another machine, with another Python. Pure."""

from __future__ import annotations

import ntpath
import posixpath
import re
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.saved import SavedTrace

_EXTENSION_TAG = re.compile(r"\.(?:cpython-\d+[a-z]*|cp\d+[a-z]*|abi3|pypy\d+)[^/\\]*?(?=\.(?:so|pyd)$)")
_HASH = re.compile(r"-[0-9a-f]{8,64}(?=\.)")
"""Of auditwheel (8 digits) and delvewheel (32): part of the name of a vendored library."""
_VERSION = re.compile(r"(?:\.so)(?:\.\d+)*$|[-_.]?\d[\d_.]*(?=(?:\.dll)$)|(?:\.dll|\.pyd)$")
_HOME = re.compile(r"^(?:/home/[^/]+|/root|/Users/[^/]+|[A-Za-z]:\\Users\\[^\\]+)(?=[/\\]|$)", re.I)
_PYTHON_FOLDER = re.compile(r"([/\\])(?:lib|Lib)[/\\](?:python3\.\d+t?[/\\])?(?=(?:site|dist)-packages(?:[/\\]|$))")


@dataclass(frozen=True)
class Roots:
    """Folders that have other names on each machine, and what each is called here: (folder, name), longest first."""

    folders: tuple[tuple[str, str], ...]
    is_windows: bool

    def relative(self, path: str) -> str:
        """The path in words that mean the same on both machines: "{prefix}/lib/python/site-packages/x.so"."""
        shown = path.lower() if self.is_windows else path
        for folder, name in self.folders:
            separator = "\\" if self.is_windows else "/"
            if shown == folder or shown.startswith(folder.rstrip(separator) + separator):
                shown = name + shown[len(folder.rstrip(separator)) :]
                break
        shown = _HOME.sub("{home}", shown)
        shown = _PYTHON_FOLDER.sub(r"\1lib\1", shown)
        return _EXTENSION_TAG.sub("", shown).replace("\\", "/")


def roots_of(trace: SavedTrace) -> Roots:
    """The roots of a trace: those of its interpreter, as far as they are known."""
    is_windows = trace.host is not None and trace.host.system == "windows"
    process = trace.process
    found: dict[str, str] = {}
    if process is not None:
        named = (
            (process.current_folder, "{current}"), (process.prefix, "{prefix}"),
            (process.base_prefix, "{base}" if process.base_prefix != process.prefix else "{prefix}"),
            (process.user_base, "{user}"),
        )  # fmt: skip
        for folder, name in named:
            if folder and folder not in ("/", "/usr"):
                found[folder.lower() if is_windows else folder] = name
    # By length: a virtual environment may lie in the current folder, or the other way round.
    return Roots(tuple(sorted(found.items(), key=lambda item: -len(item[0]))), is_windows)


def base_name(path: str) -> str:
    """The last part of a path of any system; in lower case for one of Windows."""
    if "\\" in path or path.lower().endswith((".dll", ".pyd", ".exe")):
        return ntpath.basename(path).lower()
    return posixpath.basename(path)


def name_key(path: str) -> str:
    """What names the same image for every Python: "_ssl.so" for _ssl.cpython-311-x86_64-linux-gnu.so."""
    return _EXTENSION_TAG.sub("", base_name(path))


def stem_key(path: str) -> str:
    """What names the same library in every version: "libssl" for libssl.so.1.1 and libssl-1a2b3c4d.so.3."""
    return _VERSION.sub("", _HASH.sub("", name_key(path)))
