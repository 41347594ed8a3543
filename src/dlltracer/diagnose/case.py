"""Everything that the rules may look at: one failed import, as plain values."""

from __future__ import annotations

import enum
import ntpath
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..model.elf import ElfImage
from ..model.environment import (
    AvailablePackages,
    ChangedFile,
    CLibrary,
    ImportChoice,
    MemoryLimit,
    ModuleTraces,
    Mount,
    Namesake,
    PackageOwner,
)
from ..model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, Probe
from ..model.failure import Frame, PythonError, System
from ..model.pe import MissingForwarder, PeImage
from ..model.run import RunResult
from ..model.tree import Binding, BindingState, LoadTree, MissingSymbol, MissingVersion
from .loader_errors import DlError, DlProblem
from .named_failure import NamedFailure, names_a_library
from .program_output import OutputMessage, relevant_lines

Image = ElfImage | PeImage


@dataclass(frozen=True, kw_only=True)
class Case:
    """A failed import (or program) and all that is known about it.

    Attributes:
        what: what was tried, in words ("import x").
        system: the family of loaders.
        run: how the run ended and what its process reported: exceptions, crash, recording, output.
        error: the exception nearest to the loader: the innermost ImportError or OSError; `None` for a crash.
        subject: path of the image whose load failed: an extension module, or the argument of ctypes.
        tree: what loading `subject` does by its files, in the process as it was; `None` if it could not be worked out.
        images: path to image, with symbols and resources: those of `tree`, and those the process had.
        symbols, versions, forwarders: what no image of the tree provides.
        copies: wanted name to the copies of it elsewhere.
        leads: name that was not found to the files that explain why.
        owners: path to the packages it belongs to.
        limits: of the machine and the process.
        damaged: path to what is wrong with a file that is no image, or not a whole one.
        notes: what could not be looked at.
        dl_error: the loader's message in `error` (Linux), taken apart; `None` if the error is not a loader's.
        named: the failed load that an exception names in words that are not the loader's; `dl_error` is then made from
            the trace.
        failures: what of the trace belongs to the import that failed; `None` if that was not worked out.
        shadowed: copies that have the symbol or version that is missing, and would have been used otherwise.
        distribution: ID and ID_LIKE of os-release(5).
        checks: packages of the files in question, and what became of their files since they were installed.
        unmet: packages that the packages of the files in question require, and that are not installed.
        strays: files in question that no package lists, among those of one.
        install: what can be installed on the machine, and what is; `None` for a case of another machine.
        foreign_modules: files of a module that was not found, for other Pythons.
        module_traces: what there is of a module that was not found; `None` if all were, or nobody looked.
        code: the error code of Windows' loader; `None` if none is behind `error`, or it is not known.
        code_is_guess: it was concluded from words that are not this system's own.
        imports: the Python imports in progress at the request that failed, outermost first; () if not known.
        load_flags: of the call of LoadLibraryExW that failed; `None` where they are not known, or not on Windows.
        other_folders: of os.add_dll_directory, those not in force at the load, each with why not.
        is_program: `subject` is a program that could not start, or was only looked at; there is no Python in it.
        messages: what loaders, runtimes and Python wrote, in the output of the run (`program_output.read_output`).
        module_files: module to its file, of modules that a child process was importing when it died.
        child_copies: of the image in an error of a child's loader: a library that it needs, to the copy of that in the
            folders of LD_LIBRARY_PATH that the child was given.
        definers: libraries of this machine that define the symbol which is missing first, and that no image lists.
        speaker: the image whose words the program wrote before it died; `None` if that is not known.
        namesake: what stands in the place of a module that lacks a name; `None` if nothing does.
        choice: the variable by which the program chose the module that was not found; `None` if none is known.
        windows_own: of the names that were not found, in lower case, those that are files of Windows itself.
    """

    what: str
    system: System
    run: RunResult
    error: PythonError | None = None
    subject: str | None = None
    tree: LoadTree | None = None
    images: Mapping[str, Image] = field(default_factory=dict)
    symbols: tuple[MissingSymbol, ...] = ()
    versions: tuple[MissingVersion, ...] = ()
    forwarders: tuple[MissingForwarder, ...] = ()
    copies: Mapping[str, tuple[Copy, ...]] = field(default_factory=dict)
    leads: Mapping[str, tuple[SearchLead, ...]] = field(default_factory=dict)
    owners: Mapping[str, tuple[PackageOwner, ...]] = field(default_factory=dict)
    limits: MachineLimits | None = None
    damaged: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dl_error: DlError | None = None
    named: NamedFailure | None = None
    failures: tuple[LoadFailedEvent, ...] | None = None
    shadowed: tuple[ShadowedCopy, ...] = ()
    distribution: str | None = None
    checks: tuple[PackageCheck, ...] = ()
    unmet: tuple[UnmetRequirement, ...] = ()
    strays: tuple[StrayFile, ...] = ()
    install: InstallFacts | None = None
    foreign_modules: tuple[ForeignModule, ...] = ()
    module_traces: ModuleTraces | None = None
    code: int | None = None
    code_is_guess: bool = False
    imports: tuple[str, ...] = ()
    windows_own: frozenset[str] = frozenset()
    definers: tuple[str, ...] = ()
    speaker: str | None = None
    namesake: Namesake | None = None
    choice: ImportChoice | None = None
    load_flags: int | None = None
    other_folders: tuple[tuple[str, str], ...] = ()
    is_program: bool = False
    messages: tuple[OutputMessage, ...] = ()
    module_files: Mapping[str, str] = field(default_factory=dict)
    child_copies: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_windows(self) -> bool:
        return self.system is System.WINDOWS

    @property
    def c_library(self) -> CLibrary:
        """The C library of the process, as far as it is known."""
        return (self.limits.c_library if self.limits is not None else None) or CLibrary()

    def seen_failures(self, kind: FailureKind) -> Iterator[LoadFailedEvent]:
        """The failures of that kind that the trace saw in the import that failed, in order."""
        return (event for event in self.failed_events if event.kind is kind)

    @property
    def failed_events(self) -> tuple[LoadFailedEvent, ...]:
        """All failures that the trace saw in the import that failed."""
        if self.failures is not None:
            return self.failures
        return self.run.recording.failures if self.run.recording is not None else ()

    @property
    def output_lines(self) -> tuple[str, ...]:
        """The lines that the program wrote before it failed and that matter; () if the exception says it all."""
        if self.error is not None and all(message.error is not None for message in self.messages):
            return ()
        return relevant_lines(self.run.output, self.messages)

    @property
    def missing_module(self) -> str | None:
        """The whole name of the module that the import system did not find; `None` if it found all."""
        return module_not_found(self.error)

    def load_of(self, path: str) -> LoadEvent | None:
        """The event by which an image came into the process; `None` if it was there before the trace."""
        loads = self.run.recording.loads if self.run.recording is not None else ()
        return next((event for event in reversed(loads) if event.path == path), None)

    @property
    def is_of_another_process(self) -> bool:
        """True if the loader's message seems to come from another process: in this one nothing failed that way."""
        if self.dl_error is None or self.run.recording is None or self.run.recording.backend != _SEES_FAILURES:
            return False
        return self.dl_error.problem in _LEAVE_TRACES and not self.failed_events

    @property
    def is_proven_free_of_loaders(self) -> bool:
        """True if no loader had a part in the failure, as far as a whole trace and all words can prove it.

        A trace of another mechanism does not see loads that fail, and another process may have had the trouble.
        """
        recording = self.run.recording
        if self.error is None or self.dl_error is not None or self.code is not None or recording is None:
            return False
        if recording.backend not in _SEE_FAILURES or recording.losses or recording.failures:
            return False
        suffixes = self.run.process.suffixes if self.run.process is not None else ()
        if any((error.path or "").endswith(suffixes or ("?",)) for error in self.run.errors):
            return False
        bases = {base for error in self.run.errors for base in error.bases}
        return not bases & _PASS_ON and not names_a_library(self.run.errors)

    @property
    def last_top(self) -> LoadEvent | None:
        """The last image that was asked for and came in; `None` if that is not known."""
        loads = self.run.recording.loads if self.run.recording is not None else ()
        if not loads:
            return None
        same = (loads[-1].timestamp, loads[-1].imports)
        return next(event for event in loads if (event.timestamp, event.imports) == same)

    def failed_bindings(self, state: BindingState) -> Iterator[Binding]:
        """The needs in that state by the files, one a name, delayed ones left out."""
        seen: set[str] = set()
        for binding in self.tree.bindings if self.tree is not None else ():
            if binding.state is state and not binding.delayed and binding.need not in seen:
                seen.add(binding.need)
                yield binding

    def chain_to(self, path: str | None, *last: str) -> tuple[str, ...]:
        """Return who needs an image: the Python line, the imports in progress, then images down to `path`, then
        `last`."""
        steps = [self._python_step(), *self._import_steps()]
        if self.tree is not None and path is not None:
            steps += self.tree.chain_to(path)
        elif path is not None:
            steps.append(path)
        return tuple(dict.fromkeys(step for step in (*steps, *last) if step))

    @property
    def python_line(self) -> Frame | None:
        """The line of the program's own Python that asked for what failed."""
        frames = self.error.frames if self.error is not None else self.run.frames
        return next((frame for frame in reversed(frames) if not _MACHINERY.search(frame.file)), None)

    def _python_step(self) -> str:
        frame = self.python_line
        if frame is None:
            return self.what
        return f"{frame.file}:{frame.line}: {frame.source}" if frame.source else f"{frame.file}:{frame.line}"

    def _import_steps(self) -> tuple[str, ...]:
        if self.imports:
            return tuple(f"import {name}" for name in self.imports)
        for event in reversed(self._events_of_interest()):
            if event.imports:
                return tuple(f"import {name}" for name in event.imports)
        name = self._module_of_error
        return (f"import {name}",) if name else ()

    @property
    def _module_of_error(self) -> str | None:
        """The module that an ImportError names; the name of an AttributeError is an attribute, and no module."""
        return self.error.name if self.error is not None and "ImportError" in self.error.bases else None

    def _events_of_interest(self) -> tuple[LoadEvent | LoadFailedEvent, ...]:
        if self.failed_events or self.run.recording is None:
            return self.failed_events
        return self.run.recording.loads[-1:] if self.error is None else ()

    @property
    def first_import(self) -> str | None:
        """The top package or module whose import failed, as far as that is known."""
        for event in reversed(self._events_of_interest()):
            if event.imports:
                return event.imports[0].partition(".")[0]
        name = self._module_of_error
        return name.partition(".")[0] if name else None

    def owner_of(self, path: str) -> str:
        """The package that a file belongs to, in brackets, for a sentence; empty if that is not known."""
        owners = self.owners.get(path)
        return f" (of {describe_owner(owners[0])})" if owners else ""

    def probes_of(self, need: str) -> tuple[Probe, ...]:
        """Every place tried for a name: as the trace saw it, else by the files."""
        for event in self.failed_events:
            if (event.need or event.path) == need and event.probes:
                return event.probes
        for binding in self.tree.bindings if self.tree is not None else ():
            if binding.need == need and binding.probes:
                return binding.probes
        return ()


_SEES_FAILURES = "rtld"
"""The mechanism on Linux that sees loads that fail, and not only those that do not."""
_SEE_FAILURES = (_SEES_FAILURES, "ld_debug")
_PASS_ON = frozenset((
    "SubprocessError", "BrokenExecutor", "ProcessError", "EOFError", "_RemoteTraceback", "SystemExit",
))  # fmt: skip
"""Exceptions by which a program notices that another process failed, or passes its status on (sys.exit)."""
_LEAVE_TRACES = (DlProblem.MISSING, DlProblem.MISSING_SYMBOL, DlProblem.MISSING_VERSION)
"""What it cannot miss: something was searched in vain, or mapped and dropped."""
_MACHINERY = re.compile(
    r"^<(?!ipython-input-)|[/\\](?:ctypes|importlib)[/\\]\w+\.py$|[/\\](?:cffi[/\\]api|subprocess)\.py$"
)
"""Files of Python itself and of cffi that only pass on what others ask for; cells of IPython have such names too."""
_CANNOT_IMPORT = re.compile(r"cannot import name '(\w+)' from (?:partially initialized module )?'([\w.]+)'")


def module_not_found(error: PythonError | None) -> str | None:
    """The whole name of the module that the import system did not find; `None` for any other exception.

    What cannot be imported from a package may be a module of it that is not there.
    """
    if error is None:
        return None
    if "ModuleNotFoundError" in error.bases:
        return error.name
    found = _CANNOT_IMPORT.match(error.message)
    return f"{found[2]}.{found[1]}" if found else None


_LACKS_NAME = re.compile(
    r"module '([\w.]+)' has no attribute|cannot import name '\w+' from (?:partially initialized module )?'([\w.]+)'"
)
"""Words of CPython (Objects/moduleobject.c, Python/ceval.c)."""


def module_that_lacks(errors: Iterable[PythonError]) -> str | None:
    """The module or package that lacks a name, by the first exception that says so; `None` if none does."""
    for error in errors:
        found = _LACKS_NAME.search(error.message)
        if found:
            return found[1] or found[2]
    return None


def describe_owner(owner: PackageOwner) -> str:
    """A package in words: "numpy 2.1.0, pip"."""
    return f"{owner.package}{f' {owner.version}' if owner.version else ''}, {owner.manager.value}"


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
    """A change of the circumstances, to see whether the import would then work."""

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
    """The limits and policies of the machine.

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
    """Facts that tell which remedies can work on the machine: what is installed there, and what can be.

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
    """The reason why a search did not find a file that is there."""

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
    NUMBERED = "numbered"
    """A folder that was searched has the library with the number of its version only; the name has none."""
    LINK_MISSING = "link missing"
    """A folder that was searched has a file whose soname is the name asked for, under another name."""
    OTHER_CASE = "other case"
    """A folder that was searched has a file whose name differs in upper and lower case only: no more than a hint."""


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


def compared_name(path: str, system: System) -> str:
    """Return the last part of a path, as the loader of that system compares names.

    Windows ignores case, and takes "/" for "\\" ("Naming Files, Paths, and Namespaces", MS Learn). On Linux and macOS a
    backslash is a character like any other.
    """
    return ntpath.basename(path).lower() if system is System.WINDOWS else posixpath.basename(path)


def describe_copies(copies: tuple[Copy, ...]) -> str:
    """Return the places of at most two other copies, for a sentence: "/a/libx.so.1 (a folder of PATH)"."""
    shown = [f"{copy.path} ({copy.where})" for copy in copies[:2]]
    rest = len(copies) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
