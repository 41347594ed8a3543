"""What lies around a failed import: other copies, limits, files that were not taken for what they are."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..model.environment import AvailablePackages, ChangedFile, CLibrary, MemoryLimit, Mount
from ..model.events import Phase


@dataclass(frozen=True)
class Copy:
    """A file of a wanted name, somewhere on this machine where the loader did not look, or did not take it.

    Attributes:
        path: the file.
        where: the kind of place, in words ("a folder of PATH", "the conda environment").
        unfit: why the loader could not take it even there (another machine, damaged); `None` if it could.
        has_what_lacks: whether it has the symbol or version that the copy in use lacks; `None` if that was not asked.
    """

    path: str
    where: str
    unfit: str | None = None
    has_what_lacks: bool | None = None


class Change(enum.Enum):
    """What would have been otherwise, to see whether the import would then work."""

    NOTHING_LOADED = "nothing loaded before"
    NO_LIBRARY_PATH = "without LD_LIBRARY_PATH"


@dataclass(frozen=True)
class ShadowedCopy:
    """Another copy of a library that would have been used otherwise, and has what the one in use lacks.

    Attributes:
        change: what would have to be otherwise.
        need: the name that both have.
        used, phase: the copy in use, and the rule that chose it.
        other: the copy that would have been.
    """

    change: Change
    need: str
    used: str
    phase: Phase | None
    other: str


@dataclass(frozen=True)
class MachineLimits:
    """What the machine allows.

    Attributes:
        mount: where the file lies that could not be loaded.
        address_space: of the process, when it failed.
        page_size: in bytes.
        c_library: of the process.
    """

    mount: Mount | None = None
    address_space: MemoryLimit | None = None
    page_size: int = 4096
    c_library: CLibrary | None = None


@dataclass(frozen=True, kw_only=True)
class UnmetRequirement:
    """A package that another one, which has a file in question, requires, and that is not installed.

    Attributes: `package` in words ("PyQt6 6.6.0"); `name` of the one required, and its `versions` as they are written.
    """

    package: str
    name: str
    versions: str = ""


@dataclass(frozen=True, kw_only=True)
class StrayFile:
    """A file in question that no package lists, in a place where `package` ("numpy 2.1.0") has its files."""

    path: str
    package: str


@dataclass(frozen=True, kw_only=True)
class InstallFacts:
    """What remedies can work on the machine: what is installed there, and what can be.

    Attributes:
        available: packages of the distribution.
        distributions: Python packages of the interpreter that failed, by normalized name, to their versions.
        is_conda: whether that interpreter is of a conda environment (it has a folder conda-meta).
        tools: programs that remedies use to their versions, of those that are installed.
    """

    available: AvailablePackages = field(default_factory=AvailablePackages)
    distributions: Mapping[str, str] = field(default_factory=dict)
    is_conda: bool = False
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignModule:
    """A file of the module that was not found, which this Python does not take for it: made for another one.

    Attributes:
        path: the file.
        tag: what its name says it is for ("cpython-310-x86_64-linux-gnu", "cp310-win_amd64").
    """

    path: str
    tag: str


@dataclass(frozen=True)
class PackageCheck:
    """A Python package of which files are not as they were installed.

    Attributes: `package` in words ("numpy 2.1.0"); `name`, its name; `changed`, the files; `folder` it is installed in,
    empty if that is not known.
    """

    package: str
    name: str
    changed: tuple[ChangedFile, ...]
    folder: str = ""


class LeadKind(enum.Enum):
    """Why a search did not find a file that is there."""

    RELATIVE_NEED = "relative need"
    """The need is a path that starts from the current folder."""
    ORIGIN_OF_LINK = "origin of a link"
    """$ORIGIN is the folder of a symbolic link, and the file lies beside what the link leads to."""
    ORIGIN_EATEN = "origin eaten"
    """A search path would lead to the file if it began with $ORIGIN."""
    LATE_LIBRARY_PATH = "late LD_LIBRARY_PATH"
    """LD_LIBRARY_PATH names the folder, and did not when the process began."""
    RELATIVE_LIBRARY_PATH = "relative LD_LIBRARY_PATH"
    """LD_LIBRARY_PATH has a relative folder, which starts from another current folder than was meant."""
    SECURE_MODE = "secure mode"
    """LD_LIBRARY_PATH names the folder, and does not count in secure mode."""
    RENAMED = "renamed"
    """A folder that was searched has the library under its new name (t64)."""
    LINK_MISSING = "link missing"
    """A folder that was searched has a file whose soname is the name asked for, under another name."""


@dataclass(frozen=True)
class SearchLead:
    """A file that explains why a search missed it.

    Attributes:
        kind: why it was missed.
        path: the file; `None` where none was found, and the kind alone explains the miss.
        element: the part of a search path that it is about.
        target: what the requester, a link, leads to.
    """

    kind: LeadKind
    path: str | None = None
    element: str | None = None
    target: str | None = None
