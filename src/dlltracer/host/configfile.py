"""Finds and reads the settings of a project: the table `[tool.dlltracer]` of its `pyproject.toml`.

Source: the `[tool]` table of the pyproject.toml specification (packaging.python.org). Settings that another user left
in a folder above are refused. What the settings mean is for the callers.
"""

from __future__ import annotations

import os
import sys

from ..errors import BinaryFormatError, ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_ADMINISTRATORS = "S-1-5-32-544"
_SYSTEM = "S-1-5-18"
_TRUSTED_INSTALLER = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
"""Owners on Windows that can do anything to this user anyway ("Well-known SIDs", MS Learn)."""


def is_trusted_owner(path: str) -> bool:
    """Return whether a file or folder, and what a link leads to, belongs to this user or to the system's administrator.

    Under sudo the user who called it counts too, as for Git (git-config(1), safe.directory). A file that cannot be
    looked at is not trusted. As for Git, permissions do not matter: who lets others write to a file trusts them.
    """
    if sys.platform == "win32":
        try:
            owner = _windows_owner(path)
            return owner is not None and owner in (_windows_user(), _ADMINISTRATORS, _SYSTEM, _TRUSTED_INSTALLER)
        except ImportError:
            return False
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0:
        caller = os.environ.get("SUDO_UID", "")
        trusted |= {int(caller)} if caller.isascii() and caller.isdigit() and len(caller) < 11 else set()
    try:
        return {os.lstat(path).st_uid, os.stat(path).st_uid} <= trusted
    except OSError:
        return False


def describe_owner(path: str) -> str:
    """Return the owner of a file in words: "user nobody (65534)"; the owner of a link if that is not trusted."""
    if sys.platform == "win32":
        try:
            return _windows_owner(path) or "an unknown user"
        except ImportError:
            return "an unknown user: this Python cannot load ctypes"
    try:
        owners = (os.lstat(path).st_uid, os.stat(path).st_uid)
    except OSError:
        return "an unknown user"
    owner = next((uid for uid in owners if uid not in (0, os.geteuid())), owners[0])
    import pwd

    try:
        return f"user {pwd.getpwuid(owner).pw_name} ({owner})"
    except KeyError:
        return f"user {owner}"


if sys.platform == "win32":
    _SE_FILE_OBJECT, _OWNER_SECURITY_INFORMATION, _TOKEN_QUERY, _TOKEN_USER = 1, 1, 8, 1
    _SYSTEM32 = 0x800

    def _windows_owner(path: str) -> str | None:
        """Return the SID of the owner as text (GetNamedSecurityInfoW); `None` if it cannot be read."""
        import ctypes  # not above: a Python whose ctypes cannot load may be what is asked about

        advapi32 = ctypes.WinDLL("advapi32.dll", winmode=_SYSTEM32)
        owner, descriptor = ctypes.c_void_p(), ctypes.c_void_p()
        code = advapi32.GetNamedSecurityInfoW(
            ctypes.c_wchar_p(path), _SE_FILE_OBJECT, _OWNER_SECURITY_INFORMATION, ctypes.byref(owner), None, None, None,
            ctypes.byref(descriptor),
        )  # fmt: skip
        if code:
            return None
        try:
            return _sid_text(owner.value)
        finally:
            _free(descriptor.value)

    def _windows_user() -> str | None:
        """Return the SID of the user of this process as text."""
        import ctypes

        advapi32 = ctypes.WinDLL("advapi32.dll", winmode=_SYSTEM32)
        kernel32 = ctypes.WinDLL("kernel32.dll", winmode=_SYSTEM32)
        kernel32.GetCurrentProcess.restype = ctypes.c_void_p
        token, size = ctypes.c_void_p(), ctypes.c_ulong()
        process = ctypes.c_void_p(kernel32.GetCurrentProcess())
        if not advapi32.OpenProcessToken(process, _TOKEN_QUERY, ctypes.byref(token)):
            return None
        try:
            buffer = (ctypes.c_void_p * 64)()  # TOKEN_USER: a pointer to the SID that follows, of at most 68 bytes
            got = advapi32.GetTokenInformation(
                token, _TOKEN_USER, ctypes.byref(buffer), ctypes.sizeof(buffer), ctypes.byref(size)
            )
            return _sid_text(buffer[0]) if got else None
        finally:
            kernel32.CloseHandle(token)

    def _sid_text(sid: int | None) -> str | None:
        import ctypes

        text = ctypes.c_void_p()
        advapi32 = ctypes.WinDLL("advapi32.dll", winmode=_SYSTEM32)
        if not advapi32.ConvertSidToStringSidW(ctypes.c_void_p(sid), ctypes.byref(text)) or not text.value:
            return None
        try:
            return ctypes.wstring_at(text.value)
        finally:
            _free(text.value)

    def _free(memory: int | None) -> None:
        import ctypes

        ctypes.WinDLL("kernel32.dll", winmode=_SYSTEM32).LocalFree(ctypes.c_void_p(memory))


VARIABLE = "DLLTRACER_CONFIG"
"""The environment variable that names the file."""

PYTEST = "pytest"
"""The table for the plugin of pytest, which is no command."""

_FILE = "pyproject.toml"
_REPOSITORY = (".git", ".hg")
_LARGEST = 4 << 20
"""Bytes that a settings file may have."""


class UntrustedSettings(ConfigurationError):
    """Settings that were found, not named, and that another user could have left there.

    Attributes: `path` is the file; `problem` says what of it belongs to whom.
    """


class Section:
    """A table of a file: the settings in it, and how it is named in messages ("" for the whole file)."""

    __slots__ = ("name", "path", "values")

    def __init__(self, path: str, name: str, values: Mapping[str, Any]) -> None:
        self.path = path
        self.name = name
        self.values = values

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


def may_have_settings() -> bool:
    """Return whether `find_config` could find settings for the current folder, or something wrong with them.

    Looks for files only, and at the bytes of those that are there: what they mean takes more imports.
    """
    if os.environ.get(VARIABLE):
        return True
    try:
        folders, _ = _project(os.getcwd())
        paths = [os.path.join(place, _FILE) for place in folders]
        return any(os.path.isfile(path) and _names_us(path) for path in paths)
    except (OSError, ConfigurationError):
        return True


def find_config(folder: str) -> Section | None:
    """Return the settings in the file that DLLTRACER_CONFIG names; else in the nearest one from `folder` upwards.

    The search ends with the project: at the folder of its repository (.git, .hg), else at the nearest pyproject.toml,
    else at `folder` itself. A pyproject.toml without a table for us is passed over.

    Raises: `UntrustedSettings` for a file that was found and belongs to another user; so for its folder, and for the
    repository that makes its folder part of the project. `ConfigurationError` for a file that cannot be used.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return read_config(named)
    folders, mark = _project(os.path.abspath(folder))
    for place in folders:
        path = os.path.join(place, _FILE)
        # Most files have no table for us: they are neither parsed nor reported.
        if not os.path.isfile(path) or not _names_us(path):
            continue
        # Git's check for safe.directory (git-config(1), CVE-2022-24765): who owns the folder owns what is done in it.
        # The mark counts only where it extends the search beyond the folder that the user is in.
        _refuse_untrusted(path, (path, place, *((mark,) if mark and place != folders[0] else ())))
        # Read anew: what was read before the check could have been put in its place since.
        table = table_of(path, _read(path))
        if table is not None:
            return Section(path, "", table)
    return None


def _refuse_untrusted(path: str, places: tuple[str, ...]) -> None:
    for place in places:
        if not is_trusted_owner(place):
            raise UntrustedSettings(path, "", f"not used, because {place} belongs to {describe_owner(place)}")


def _project(folder: str) -> tuple[list[str], str | None]:
    """Return the folders of the project, from this one upwards, and the repository's or file's path that ends it."""
    folders = list(_upwards(folder))
    for marks in (_REPOSITORY, (_FILE,)):
        for at, place in enumerate(folders):
            for mark in marks:
                if os.path.lexists(os.path.join(place, mark)):
                    return folders[: at + 1], os.path.join(place, mark)
    return folders[:1], None


def _upwards(folder: str) -> Iterator[str]:
    above = os.path.dirname(folder)
    yield folder
    while above != folder:
        folder, above = above, os.path.dirname(above)
        yield folder


def read_config(path: str) -> Section:
    """Return the settings in a file that the user named: its owner is not asked about.

    Raises `ConfigurationError`, also for a file without the table [tool.dlltracer].
    """
    table = table_of(path, _read(path))
    if table is None:
        raise ConfigurationError(path, "", "it has no table [tool.dlltracer]")
    return Section(path, "", table)


def _names_us(path: str) -> bool:
    return may_hold_table(_read(path))


def may_hold_table(data: bytes) -> bool:
    """Return whether a file may have our table. It is not parsed: `tomllib` takes as long to import as Python to start.

    Only a header or a key at the start of a line can name the table, as [tool.dlltracer], [tool] or tool = {...}.
    Projects name dlltracer in other places too, as one of their requirements.
    """
    return b"dlltracer" in data and any(map(_may_name_us, data.split(b"\n")))


_BEFORE_KEY = b" \t[\"'"


def _may_name_us(line: bytes) -> bool:
    text = line.lstrip(_BEFORE_KEY)
    if not text.startswith(b"tool"):
        return b"\\" in text and line.lstrip(b" \t")[:1] in (b"[", b'"')  # a quoted key may have escapes
    rest = text[4:].lstrip(b" \t\"'")
    if rest.startswith(b"."):
        key = rest[1:].lstrip(_BEFORE_KEY)
        return key.startswith(b"dlltracer") or b"\\" in key
    return rest[:1] in (b"]", b"=")


def _read(path: str) -> bytes:
    try:
        from ..binary.reading import read_regular  # not above: most projects have no settings to read

        data = read_regular(path, _LARGEST + 1)
    except BinaryFormatError as error:
        raise ConfigurationError(path, "", f"it cannot be read: {error.problem}") from error
    except OSError as error:
        raise ConfigurationError(path, "", f"it cannot be read: {error.strerror or error}") from error
    if len(data) > _LARGEST:
        raise ConfigurationError(path, "", f"it cannot be read: it has more than {_LARGEST >> 20} MiB")
    return data


def table_of(path: str, data: bytes) -> dict[str, Any] | None:
    """Return our table of the file; `None` if there is none. Raises `ConfigurationError`, also for a file not TOML."""
    tools = _parse(path, data).get("tool")
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
