"""Shortens paths to one folder, which is named once."""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Iterable, Sequence

from ..model.finding import Diagnosis, Finding
from .drawing import is_windows_path

_PATH = re.compile(r"""(?:(?<=[\s('"=:>])|^)(?:/|[A-Za-z]:\\)[^\s'"(),;]+""")
_WHOLE_PATH = re.compile(r"""(?:/|[A-Za-z]:\\)[^'"(),;:\n]*(?=:\d+:|$)""")
"""A text that is a path alone, or begins with it and a number of a line: such a path may have spaces."""
_PACKAGES = re.compile(r"^.*?[/\\](?:site|dist)-packages(?=[/\\])")
_OF_THE_SYSTEM = ("/lib/", "/lib64/", "/usr/", "/etc/", "/proc/", "/dev/", "/bin/", "/sbin/")
_SHORTEST = 6
"""Characters of a folder that is worth to be left out."""
_MOST_PATHS = 100
"""Paths that are looked at to choose the folder."""


class ShortPaths:
    """Shortens texts; `folder` is the one that it leaves out of them, empty for none. `used`: it was left out."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.used = False
        self._separator = "\\" if is_windows_path(folder) else "/"
        edge = r"""(?<![\w./\\~-])"""
        self._prefix = re.compile(edge + re.escape(folder + self._separator)) if folder else None

    def __call__(self, text: str) -> str:
        """Return the text with the paths in the folder relative to it."""
        if self._prefix is None or self.folder not in text:
            return text
        shortened = self._prefix.sub("", text)
        self.used = self.used or shortened != text
        return shortened

    def in_prose(self, text: str) -> str:
        """Return the text as a call does, with "./" before the name of a file that lies in the folder itself.

        "libx.so is ./libx.so" says where it is; "libx.so is libx.so" would not.
        """
        if self._prefix is None or self.folder not in text:
            return text
        self.used = True
        here = "." + self._separator
        text = re.sub(rf"(?<= is ){self._prefix.pattern}(?=[^\s/\\]+(?:[\s.,;:)]|$))", lambda _: here, text)
        return self._prefix.sub("", text)

    def folder_name(self, path: str) -> str:
        """Return the path of a folder: "." for the one that is left out."""
        if self.folder and path.rstrip("/\\") == self.folder:
            self.used = True
            return "."
        return self(path)


def choose_short_paths(diagnosis: Diagnosis, folders: Sequence[str]) -> ShortPaths:
    """Return what shortens the paths of the first cause.

    Arguments: `folders`, which the reader knows, such as the current folder. One of them is preferred, or the folder
    that packages are installed in. Another folder is taken where it has so many more of the paths that it saves more.
    """
    paths = list(_paths_of(diagnosis.findings[0]))[:_MOST_PATHS] if diagnosis.findings else []
    known = [folder.rstrip("/\\") for folder in folders]
    found = (_PACKAGES.match(path) for path in paths)
    known += dict.fromkeys(match.group() for match in found if match is not None)
    best = max(known, key=lambda folder: _saved(folder, paths), default="")
    common = _common_folder(paths)
    # A folder inside the known one would save more, and says less: the names of packages are lost.
    if _count_in(best, paths) and (f"{common}/".startswith((f"{best}/", f"{best}\\")) or _saved(best, paths) >= _saved(
        common, paths
    )):
        return ShortPaths(best)
    return ShortPaths(common if _count_in(common, paths) else "")


def _paths_of(finding: Finding) -> Iterable[str]:
    """The paths in the texts of a cause; of one with spaces, the whole where it stands alone, never its beginning."""
    texts = [text[:10_000] for text in (*finding.chain, finding.subject, finding.title, finding.explanation)]
    alone = filter(None, map(_WHOLE_PATH.match, texts[: len(finding.chain) + 1]))
    spaced = [match.group() for match in alone if " " in match.group()]
    words = (match.group().rstrip(".:") for text in texts for match in _PATH.finditer(text))
    for path in (*spaced, *(word for word in words if not any(whole.startswith(f"{word} ") for whole in spaced))):
        if not path.startswith(_OF_THE_SYSTEM) and not path.lower().startswith("c:\\windows\\"):
            yield path


def _count_in(folder: str, paths: Sequence[str]) -> int:
    """Return how many of the paths are in the folder; 0 for a folder whose name would save nothing."""
    if len(folder) < _SHORTEST:
        return 0
    separator = "\\" if is_windows_path(folder) else "/"
    return sum(path.startswith(folder + separator) for path in paths)


def _saved(folder: str, paths: Sequence[str]) -> int:
    return _count_in(folder, paths) * len(folder)


def _common_folder(paths: Sequence[str]) -> str:
    """The folder that most of the paths have in common: of those on the first one's way up, the one that saves most."""
    counts: dict[str, int] = {}
    for path in paths:
        rules = ntpath if is_windows_path(path) else posixpath
        folder = rules.dirname(path)
        while len(folder) >= _SHORTEST and rules.dirname(folder) != folder:
            counts[folder] = counts.get(folder, 0) + 1
            folder = rules.dirname(folder)
    # One path alone has its parent's name left: "pkg/lib.so" tells more than "lib.so".
    return max(counts, key=lambda folder: (counts[folder] > 1, counts[folder] * len(folder)), default="")
