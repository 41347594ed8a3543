"""Values around a failed load: sources and owners of files, traces of modules, limits.

The limits do not include the free static TLS. glibc does not report it before the load that fails with "cannot allocate
memory in static TLS block". Its setting for the start (glibc.rtld.optional_static_tls) does not say what is left.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


def normalized_name(package: str) -> str:
    """Return the name of a Python package for comparing ("Names and normalization", Packaging User Guide)."""
    return re.sub(r"[-_.]+", "-", package).lower()


_REPAIRED = re.compile(r"-[0-9a-f]{8,64}(?=\.)", re.IGNORECASE)
"""The hash that tools put into the name of a library which they copy into a wheel. auditwheel, delocate and maturin
take 8 hexadecimal digits, delvewheel 32 (40 in its first versions)."""


def without_hash(name: str) -> str:
    """Return the name of a library without the hash that a tool which repairs wheels has put into it."""
    return _REPAIRED.sub("", name)


def has_hash(name: str) -> bool:
    """Return whether the name of a library has the hash of a tool which repairs wheels: no other package has such a
    file."""
    return _REPAIRED.search(name) is not None


_LIBPYTHON = re.compile(
    r"(?:^|/)(?:libpython\d[\w.]*(?:-[0-9a-f]{8}[\w.]*)?\.(?:so[\w.]*|dylib)$|Python3?$|Python3?\.framework/)"
)


def is_libpython(name: str) -> bool:
    """Return whether an image is the library of an interpreter, by its name or path: libpython, or the framework of
    macOS."""
    return _LIBPYTHON.search(name) is not None


MODULE_ENDING = (
    r"\.(?:cpython-(\d)(\d+)(t?)\w*(?:-[\w-]+)?|abi3t?(?:-[\w-]+)?|pypy\d+-[\w-]+|graalpy\d[\w-]*)\.so$"
)
"""Pattern of the end of an extension module's name on Linux and macOS. Groups: major and minor version of CPython, "t"
for one without the GIL. Sources: PEP 3149, PEP 384, PEP 803 (abi3t); EXT_SUFFIX of PyPy and GraalPy."""

_DEBUG_RUNTIME = re.compile(
    r"(?:(?:vcruntime|msvcp|msvcr|concrt|vccorlib|vcomp|vcamp)\d{2,3}(?:_\d|_threads)?d(?:_\w+)?|ucrtbased|msvcrtd"
    r"|mfcm?\d{2,3}u?d)\.dll", re.IGNORECASE,
)  # fmt: skip


def is_debug_runtime(name: str) -> bool:
    """Return whether a DLL is a debug runtime of Visual C++, by its file name.

    Visual Studio alone installs these, and they may not be passed on. Source: "CRT Library Features" and "Determining
    Which DLLs to Redistribute" (MS Learn), and the file names in debug_nonredist of Visual Studio.
    """
    return _DEBUG_RUNTIME.fullmatch(name) is not None


CONFIGURED = "a folder of ld.so.conf"
"""Where a copy is that the loader would find by ld.so.cache, if ldconfig had run since it came."""


SEARCHED = "a folder that the loader searches"
"""Where a library is that `ctypes.util.find_library` did not find, and that CDLL would get by the name of its file."""


class ProviderKind(enum.Enum):
    """The way to get a library."""

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
        only_for: the import package whose files it replaces; empty if it serves every package.
    """

    kind: ProviderKind
    name: str
    command: tuple[str, ...] = ()
    url: str | None = None
    note: str = ""
    only_for: str = ""


class PackageManager(enum.Enum):
    """The program that keeps the list of installed packages."""

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
        version: empty if it is not known.
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
    """The answers of the package managers of a machine.

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
        providers: library that a package was asked for by ("so:libuv.so.1") to the names of the packages that have it.
    """

    candidates: Mapping[str, str | None] = field(default_factory=dict)
    installed: Mapping[str, str] = field(default_factory=dict)
    providers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unchecked: str | None = None


class FileState(enum.Enum):
    """The change of a file since its package was installed."""

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


class Hiding(enum.Enum):
    """The reason why a folder that has the module is not on sys.path."""

    CURRENT_FOLDER = "current folder"
    """-P, -I and PYTHONSAFEPATH keep it out; a program's own folder comes instead of it."""
    SOURCE_FOLDER = "source folder"
    """The folder src of a project that is not installed."""
    SITE = "site"
    """The interpreter's own folder of packages: -S keeps it out."""
    BASE = "base"
    """The packages of the Python that a virtual environment was made from."""
    USER = "user"
    """The user's own packages: -s, -I, PYTHONNOUSERSITE and virtual environments keep them out."""
    ENVIRONMENT = "environment"
    """Another environment: activated, or beside the program."""
    OTHER_VERSION = "other version"
    """The packages of another version of Python, under the same prefix: the environment's Python was replaced."""


@dataclass(frozen=True)
class HiddenModule:
    """The module, in a folder that is not on sys.path; `package` is the installed one that brings it, if known."""

    path: str
    folder: str
    why: Hiding
    package: str = ""


@dataclass(frozen=True, kw_only=True)
class ModuleTraces:
    """The traces on this machine of a module that was not found.

    Attributes:
        unreadable: folders where it was looked for, and whose names may not be read.
        zipped: extension modules of that name in archives on sys.path, as "ARCHIVE/NAME".
        other_case: modules of the same name in other case.
        near: modules of a name that is nearly the same.
        hidden: the module in folders that are not on sys.path.
        shadow: the single file that stands where its package is looked for.
        parent: the folder of its package, which is there; `None` for a module of no package.
        broken_links: symbolic links of its name that lead to no file.
        behind: the module in another package of the same name, which comes later on sys.path.
        has_pip: whether this Python has pip; `None` if that is not known.
        is_of_uv: whether it is an environment that uv made.
        is_externally_managed: whether pip refuses to install into this Python (PEP 668).
    """

    unreadable: tuple[str, ...] = ()
    zipped: tuple[str, ...] = ()
    other_case: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    hidden: tuple[HiddenModule, ...] = ()
    shadow: str | None = None
    parent: str | None = None
    broken_links: tuple[str, ...] = ()
    behind: str | None = None
    has_pip: bool | None = None
    is_of_uv: bool = False
    is_externally_managed: bool = False


@dataclass(frozen=True)
class Namesake:
    """A file or folder that Python takes for a module, though another one may be meant.

    Attributes:
        path: what is taken: a file, the folder of a package, or a folder without `__init__.py`.
        behind: the module of the same name that comes later on sys.path; `None` if there is none.
        is_plain_folder: `path` is a folder without `__init__.py`, and no module of that name is anywhere.
    """

    path: str
    behind: str | None = None
    is_plain_folder: bool = False


@dataclass(frozen=True)
class ImportChoice:
    """A variable of the environment by which a program chose an import.

    Attributes:
        name: of the variable.
        value: what it is set to; `None` where the code asks only whether it is set.
        condition: what holds in the code at the import; empty where the import has its name from the value.
        place: the file and line of the import.
        reader: the file and line that reads the variable.
    """

    name: str
    value: str | None
    condition: str
    place: str
    reader: str


@dataclass(frozen=True)
class Mount:
    """A mounted file system, a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).

    Attributes:
        number: of the mount, unique in the system while it is mounted.
        root: the folder of the file system that is seen at the mount point.
        point: the mount point.
        options: of this mount ("noexec", "ro").
        kind: of the file system ("ext4", "tmpfs").
        source: what is mounted there: a device, or any word.
        system_options: of the file system itself.
    """

    number: int
    root: str
    point: str
    options: tuple[str, ...]
    kind: str
    source: str
    system_options: tuple[str, ...] = ()

    @property
    def noexec(self) -> bool:
        """True if nothing there may be mapped for execution: mmap(2) fails with EPERM, and so does every load."""
        return "noexec" in self.options


@dataclass(frozen=True)
class MemoryLimit:
    """A limit of memory, in bytes.

    Attributes:
        where: "RLIMIT_AS", or the folder of the control group.
        limit: `None` for no limit, or none that could be read.
        used: what is used of it now; `None` if that could not be read. A control group counts files that are only
            cached, too: they make room when memory is needed.
    """

    where: str
    limit: int | None = None
    used: int | None = None

    @property
    def free(self) -> int | None:
        """Bytes left, not below 0; `None` where there is no limit or it is not known."""
        return None if self.limit is None or self.used is None else max(0, self.limit - self.used)


class Enforcement(enum.Enum):
    """The mode of a security module: enforcing its policy, reporting only, or off."""

    OFF = "off"
    """It is not there, or has no rules for this process."""
    PERMISSIVE = "permissive"
    """It reports what it would forbid, and forbids nothing."""
    ENFORCING = "enforcing"
    UNKNOWN = "unknown"
    """It exists, and a container hides what it does."""


@dataclass(frozen=True)
class SecurityModule:
    """A Linux security module, as far as this process is concerned. Whether it forbade anything is in the audit log.

    Attributes:
        name: "SELinux" or "AppArmor".
        enforcement: what it does.
        label: the context or profile of the process; `None` if it has none.
    """

    name: str
    enforcement: Enforcement
    label: str | None = None


@dataclass(frozen=True)
class CLibrary:
    """The C library of a process.

    Attributes: `name`, "glibc" or "musl"; `version` ("2.36"); each `None` where it is not known.
    """

    name: str | None = None
    version: str | None = None
