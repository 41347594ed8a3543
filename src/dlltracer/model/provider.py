"""Where a library comes from: what to install to have it, and which installed package owns a file."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class ProviderKind(enum.Enum):
    """How a library is to be had."""

    PIP = "pip"
    CONDA = "conda"
    APT = "apt"
    """Debian, Ubuntu and their kin."""
    DNF = "dnf"
    """Fedora, RHEL and their kin."""
    APK = "apk"
    """Alpine."""
    INSTALLER = "installer"
    """The maker's own, from `Provider.url`."""
    WINDOWS_FEATURE = "windows feature"
    WINDOWS_UPDATE = "windows update"
    NEWER_WINDOWS = "newer windows"
    """Part of Windows, and of no package: only another version or edition of it has the file."""
    DRIVER = "driver"
    REBUILD = "rebuild"
    """Nothing can be installed: the file that asks for it has to be another one."""


@dataclass(frozen=True)
class Provider:
    """A safe source of a library.

    Attributes:
        kind: what kind of source.
        name: the package, the product, or what it takes.
        command: the words of the command that installs it; () if none does.
        url: where its maker offers it.
        note: when it is this one, and what to take care of; may be empty.
        only_for: the import package whose files it replaces; empty if it serves whoever needs the library.
    """

    kind: ProviderKind
    name: str
    command: tuple[str, ...] = ()
    url: str | None = None
    note: str = ""
    only_for: str = ""


class PackageManager(enum.Enum):
    """Who keeps the list of what is installed."""

    DPKG = "dpkg"
    RPM = "rpm"
    APK = "apk"
    CONDA = "conda"
    PIP = "pip"
    """The metadata that every installer of Python packages writes (RECORD)."""


@dataclass(frozen=True)
class PackageOwner:
    """A package that has a file.

    Attributes:
        manager: who says so.
        package: its name.
        version: empty if it was not said.
        path: the file, as the manager knows it.
        folder: where pip put the package and what it says of it; empty for other managers.
    """

    manager: PackageManager
    package: str
    version: str
    path: str
    folder: str = ""


@dataclass(frozen=True)
class OwnerAnswer:
    """What the managers of a machine said.

    Attributes:
        owners: each path that a package has, as it was given, to the packages: pip's first, then conda's.
        asked: the managers that answered, also with "none".
        unavailable: those that could not be asked, with the reason.
    """

    owners: Mapping[str, tuple[PackageOwner, ...]] = field(default_factory=dict)
    asked: tuple[PackageManager, ...] = ()
    unavailable: tuple[tuple[PackageManager, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class AvailablePackages:
    """Packages of the distribution.

    Attributes:
        candidates: package to the version that can be installed; `None` for a package that there is none of.
        installed: package to the version that is installed.
        unchecked: why `candidates` does not tell, in words; `None` if it does.
    """

    candidates: Mapping[str, str | None] = field(default_factory=dict)
    installed: Mapping[str, str] = field(default_factory=dict)
    unchecked: str | None = None


class FileState(enum.Enum):
    """What became of a file since its package was installed."""

    ABSENT = "absent"
    CHANGED = "changed"
    """Another size, or another hash."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class ChangedFile:
    """A file that is not as its package installed it.

    Attributes:
        path: where it is or should be.
        state: what became of it.
        expected_size, size: in bytes; `None` if not recorded, or not there.
    """

    path: str
    state: FileState
    expected_size: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class RecordCheck:
    """The files of a distribution, held against its RECORD.

    Attributes:
        distribution: its name.
        version: empty if it is not known.
        checked: how many files were looked at.
        changed: those that are not as they were.
        problem: why there was nothing to check; `None` if there was.
        folder: where it is installed.
    """

    distribution: str
    version: str = ""
    checked: int = 0
    changed: tuple[ChangedFile, ...] = ()
    problem: str | None = None
    folder: str = ""
