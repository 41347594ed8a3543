"""The file with the settings of a project: which one it is, and what stands in it.

`dlltracer.toml`, or the table `[tool.dlltracer]` of `pyproject.toml` (packaging.python.org: the tool table). What the
settings mean is for those who ask.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from ..errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

VARIABLE = "DLLTRACER_CONFIG"
"""The environment variable that names the file."""

PYTEST = "pytest"
"""The table for the plugin of pytest, which is no command."""

_OWN_FILE, _SHARED_FILE = "dlltracer.toml", "pyproject.toml"
_REPOSITORY = (".git", ".hg")


@dataclass(frozen=True)
class Section:
    """A table of a file: the settings in it, and how it is named in messages ("" for the whole file)."""

    path: str
    name: str
    values: Mapping[str, Any]

    def key(self, name: str) -> str:
        """A setting of it, as a message names it."""
        return f"{self.name}.{name}" if self.name else name

    def section(self, name: str) -> Section:
        """A table in it; an empty one if there is none. Raises `ConfigurationError` if it is not a table."""
        values = self.values.get(name, {})
        if not isinstance(values, dict):
            raise ConfigurationError(self.path, self.key(name), "this is a table, not a value")
        return Section(self.path, self.key(name), values)

    def text(self, name: str) -> str | None:
        """A setting that is text; `None` if it is not there. Raises `ConfigurationError` if it is something else."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(self.path, self.key(name), f"this is text, not {describe(value)}")
        return value

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        """Raise `ConfigurationError` for a setting that is not among these."""
        for name in self.values:
            if name not in known:
                raise unknown(self, name, known)


def unknown(section: Section, name: str, known: tuple[str, ...]) -> ConfigurationError:
    """The error for a setting that does not exist; says which one was perhaps meant."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known)}" if known else ""
    return ConfigurationError(section.path, section.key(name), f"there is no such setting{meant}")


def describe(value: object) -> str:
    """A value of TOML in words, for messages."""
    words = {bool: "true or false", str: "text", list: "an array", dict: "a table", int: "a number", float: "a number"}
    return words.get(type(value), "a date or time")


def find_config(folder: str) -> Section | None:
    """The settings in the file that DLLTRACER_CONFIG names; else in the nearest one from `folder` upwards.

    Not beyond the project, which ends at the folder of its repository (.git, .hg), else at the nearest pyproject.toml,
    else at `folder` itself: what somebody puts into a shared folder above it is none of its business. dlltracer.toml
    comes before pyproject.toml, and one without a table for us is passed over. Raises `ConfigurationError`.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return read_config(named)
    for place in _project(os.path.abspath(folder)):
        for name in (_OWN_FILE, _SHARED_FILE):
            path = os.path.join(place, name)
            table = _table_of(path, _read(path)) if os.path.isfile(path) else None
            if table is not None:
                return Section(path, "", table)
    return None


def _project(folder: str) -> list[str]:
    """The folders of the project, from this one upwards."""
    folders = list(_upwards(folder))
    for marks in (_REPOSITORY, (_SHARED_FILE,)):
        for at, place in enumerate(folders):
            if any(os.path.exists(os.path.join(place, mark)) for mark in marks):
                return folders[: at + 1]
    return folders[:1]


def _upwards(folder: str) -> Iterator[str]:
    above = os.path.dirname(folder)
    yield folder
    while above != folder:
        folder, above = above, os.path.dirname(above)
        yield folder


def read_config(path: str) -> Section:
    """What stands in a file. Raises `ConfigurationError`, also for a pyproject.toml that has no table for us."""
    table = _table_of(path, _read(path))
    if table is None:
        raise ConfigurationError(path, "", "it has no table [tool.dlltracer]")
    return Section(path, "", table)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigurationError(path, "", f"it cannot be read: {error.strerror or error}") from error


def _table_of(path: str, data: bytes) -> dict[str, Any] | None:
    """Our table of the file; `None` if it is a pyproject.toml without. Most are, and those are not parsed."""
    shared = os.path.basename(path) == _SHARED_FILE
    if shared and b"dlltracer" not in data:
        return None
    found = _parse(path, data)
    if not shared:
        if "tool" in found:
            raise ConfigurationError(path, "tool", "here the tables have no [tool.dlltracer] before them: say [run]")
        return found
    tools = found.get("tool")
    table = tools.get("dlltracer") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigurationError(path, "tool.dlltracer", "this is a table, not a value")
    return table


def _parse(path: str, data: bytes) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError as error:
            raise ConfigurationError(path, "", "Python 3.10 needs the package tomli to read it") from error
    try:
        found: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(path, "", f"it is not TOML: {error}") from error
    return found
