"""Makes a saved trace of a run with the facts that its verdict rests on, and explains it again on any machine."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..binary.elf import read_build_id, read_elf
from ..binary.pe import read_pe
from ..binary.reading import HEAD_SIZE, read_regular
from ..diagnose.case import Case, Image
from ..diagnose.engine import diagnose
from ..diagnose.loader_errors import DlProblem
from ..diagnose.windows_load import find_code
from ..errors import BinaryFormatError, DlltracerError
from ..host.linux import read_linux_context
from ..host.machine import describe_named_host, sha256_of, stamp_of, this_system
from ..model.decode import DamagedRecording, NewerRecording, decode
from ..model.elf import ElfImage, ElfSymbols, describe_kind
from ..model.encode import encode
from ..model.events import FailureKind, ImageEvent, LoadEvent, LoadFailedEvent, Phase, ProbeOutcome
from ..model.failure import ProcessFacts, PythonError, System
from ..model.finding import Confidence, Diagnosis, Evidence, Finding, Outcome, Source
from ..model.light import replace
from ..model.loader_context import GlibcContext
from ..model.macho import MachoImage
from ..model.pe import PeImage, PeImport
from ..model.recording import Recording
from ..model.run import ImageFacts, RunResult, SavedTrace, SearchPlaces
from ..model.words import describe_end
from ..resolve.lookup import describe_machine
from .environment import site_folders
from .explain import Explained, is_loader_failure
from .failed_load import nearest_error, read_linux_failure, with_dl_error

MOST = 5000
"""Files looked at; a trace that has more says so."""
_ELF, _PE = b"\x7fELF", b"MZ"
_LARGEST_HASHED_IN_ALL = 64 << 20


def facts_of_images(recording: Recording, process: ProcessFacts | None) -> tuple[ImageFacts, ...]:
    """Return the images that loaded or were refused, each once, in order. Files that are gone are left out."""
    paths = _paths_of(recording)[:MOST]
    packages = packages_of(paths, process)
    left = _LARGEST_HASHED_IN_ALL
    found = []
    for path in paths:
        stamp = stamp_of(path)
        if stamp is None:
            continue
        image = _read(path)
        digest = _build_id(path, image)
        if digest is None and stamp.size <= left:
            hashed = sha256_of(path)
            left -= stamp.size if hashed is not None else 0
            digest = f"sha256:{hashed}" if hashed is not None else None
        found.append(
            ImageFacts(
                path, stamp.size, stamp.modified, _file_version(image), getattr(image, "soname", None),
                _machine(image), _needs(image), packages.get(path), digest,
            )
        )  # fmt: skip
    return tuple(found)


def _paths_of(recording: Recording) -> list[str]:
    """Paths by which the files can be opened: on Windows the one for people, not that of the kernel."""
    paths = []
    for event in recording.events:
        if isinstance(event, LoadEvent):
            paths.append(event.shown_path)
        elif isinstance(event, LoadFailedEvent):
            present = [probe.path for probe in event.probes or () if probe.outcome is ProbeOutcome.PRESENT]
            paths += [event.shown_path, *present]
    return [path for path in dict.fromkeys(paths) if "/" in path or "\\" in path]


def packages_of(paths: list[str], process: ProcessFacts | None) -> dict[str, str]:
    """Return each path that belongs to a package, to that package in words: "numpy 2.1.0", "libssl3 3.0.11-1"."""
    try:
        from ..host.packages import find_owners
    except ImportError:  # a Python that cannot load its own modules (hashlib) may be what is asked about
        return {}
    folders = site_folders(process) if process is not None else ()
    owners = find_owners(paths, folders).owners
    return {path: f"{found[0].package.partition(':')[0]} {found[0].version}".strip() for path, found in owners.items()}


def _read(path: str) -> ElfImage | PeImage | None:
    try:
        head = read_regular(path, HEAD_SIZE)
        if head.startswith(_PE):
            return read_pe(path, resources=True)
        return read_elf(path) if head.startswith(_ELF) else None
    except (BinaryFormatError, OSError):
        return None


def _build_id(path: str, image: ElfImage | PeImage | None) -> str | None:
    try:
        found = read_build_id(path, image) if isinstance(image, ElfImage) else None
    except (BinaryFormatError, OSError):
        return None
    return f"build-id:{found}" if found else None


def _file_version(image: ElfImage | PeImage | None) -> str | None:
    version = image.resources.file_version if isinstance(image, PeImage) and image.resources is not None else None
    return ".".join(map(str, version)) if version is not None else None


def _machine(image: ElfImage | PeImage | None) -> str | None:
    if isinstance(image, ElfImage):
        return describe_kind(image.bits, image.little_endian, image.machine)
    return describe_machine(image.machine) if image is not None else None


def _needs(image: ElfImage | PeImage | None) -> tuple[str, ...] | None:
    if isinstance(image, ElfImage):
        return image.needed
    return tuple(dict.fromkeys(one.library for one in image.imports)) if image is not None else None


_MOST_NAMES = 2000


def read_places(process: ProcessFacts, recording: Recording, images: Sequence[ImageFacts]) -> SearchPlaces | None:
    """The places of that process' loader; `None` for a process of another system than this one."""
    if process.system is not this_system():
        return None
    if process.system is System.LINUX:
        return _linux_places(process, _names_of(recording, images))
    return _windows_places(process) if process.system is System.WINDOWS else None


def _names_of(recording: Recording, images: Sequence[ImageFacts]) -> frozenset[str]:
    """Return the names that the trace was asked for: of the thousands of entries of the cache only these matter."""
    events = [event for event in recording.events if isinstance(event, ImageEvent)]
    asked = {event.need for event in events if event.need} | {name for image in images for name in image.needs or ()}
    return frozenset(sorted(asked)[:_MOST_NAMES])


def _linux_places(process: ProcessFacts, names: frozenset[str]) -> SearchPlaces:
    context = read_linux_context(environment=process.loader_environment, program=process.executable or None)
    library_path = () if process.is_secure else context.library_path
    folders = [(Phase.ENVIRONMENT.value, folder) for folder in library_path]
    folders += [(Phase.SYSTEM.value, folder) for folder in context.system_folders]
    cache = context.cache if isinstance(context, GlibcContext) else ()
    return SearchPlaces(
        tuple(folders),
        tuple(dict.fromkeys((entry.soname, entry.path) for entry in cache if entry.soname in names)),
        len(cache) if isinstance(context, GlibcContext) else None,
        preload=context.preload,
        notes=context.notes,
    )


def _windows_places(process: ProcessFacts) -> SearchPlaces:
    from ..host.windows import read_windows_context

    context = read_windows_context(added_folders=process.added_folders)
    program = ntpath.dirname(process.loaded[0]) if process.loaded else process.base_prefix
    folders = [
        (Phase.APPLICATION.value, program),
        *((Phase.ADDED.value, folder) for folder in process.added_folders),
        *((Phase.ADDED.value, folder) for folder in (context.dll_directory,) if folder),
        (Phase.SYSTEM.value, context.system_folder),
        (Phase.WINDOWS.value, context.windows_folder),
        *((Phase.PATH.value, part) for part in process.variable("PATH").split(";") if part),
    ]
    return SearchPlaces(tuple(folders), known_dlls=tuple(sorted(context.known_dlls or ())))


NOT_TRACED = "none"
"""In the place of a mechanism's name."""


def begin_trace(what: str, command: tuple[str, ...], backend: str, started: float | None = None) -> SavedTrace:
    """Return the saved trace of a run that begins. Arguments are attributes of `SavedTrace` by the same names."""
    return SavedTrace(Recording(backend), what, __version__, started, describe_named_host(), command=command)


def end_trace(begun: SavedTrace, run: RunResult, explained: Explained | None) -> SavedTrace:
    """Return the trace of `begin_trace`, completed at the end of the run. Looks at the files that loaded."""
    recorded = run.recording if run.recording is not None else Recording(NOT_TRACED, notes=("there was no trace",))
    case = explained.case if explained is not None else None
    process = run.process if run.process is not None or case is None else case.run.process
    images = facts_of_images(recorded, process)
    return replace(
        begun, recording=recorded, run=replace(run, recording=None, process=process),
        diagnosis=explained.diagnosis if explained is not None else None,
        case=encode_case(case) if case is not None else None, images=images,
        places=read_places(process, recorded, images) if process is not None else None,
    )  # fmt: skip


VERSION = 1
"""Counted up when rules of the former version would misread a case of the new one."""

_MOST_SYMBOLS = 5000
_MOST_NAMED = 3
_SHORTEST_START, _LONGEST_START = 6, 12
"""Symbols that begin like one of the first that are missing are kept: among them is the same function for another
std::string."""
_ENTRIES = ("PyInit_", "init")
_RUNTIMES = re.compile(r"(?:msvcp|vcruntime|concrt)\d", re.IGNORECASE)


def encode_case(case: Case) -> dict[str, Any]:
    """Return the case as plain values, without its recording, which is saved beside it."""
    return {"version": VERSION, "traced": case.run.recording is not None, **encode(_without_bulk(case))}


def decode_case(plain: object, recording: Recording) -> Case:
    """Return the case in `plain`, of that recording. Raises `DamagedRecording`, `NewerRecording`."""
    if not isinstance(plain, Mapping):
        raise DamagedRecording("case", f"an object is wanted, not {type(plain).__name__}")
    version = plain.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedRecording("case.version", "it is no version")
    if version > VERSION:
        raise NewerRecording(version, VERSION)
    found: Case = decode(Case, plain, "case")
    return replace(found, run=replace(found.run, recording=recording if plain.get("traced") is True else None))


def _without_bulk(case: Case) -> Case:
    starts = (*_ENTRIES, *(_start_of(symbol.name) for symbol in case.symbols[:_MOST_NAMED] if symbol.name))
    tree = case.tree
    if tree is not None:
        images = {path: image for path, image in tree.images.items() if not isinstance(image, MachoImage)}
        tree = replace(tree, images={path: _slim(image, starts) for path, image in images.items()})
    images = {path: _slim(image, starts) for path, image in case.images.items()}
    return replace(case, run=replace(case.run, recording=None, requests=()), tree=tree, images=images)


def _start_of(symbol: str) -> str:
    return symbol[: max(_SHORTEST_START, len(symbol) // 4)][:_LONGEST_START]


def _slim(image: Image, starts: tuple[str, ...]) -> Image:
    if isinstance(image, ElfImage):
        if image.symbols is None:
            return image
        kept = {name: versions for name, versions in image.symbols.provides.items() if name.startswith(starts)}
        first = dict(list(kept.items())[:_MOST_SYMBOLS])
        return replace(image, symbols=ElfSymbols((), first, image.symbols.versioned_only & first.keys()))
    return replace(image, exports=None, imports=tuple(map(_slim_import, image.imports)))


def _slim_import(imported: PeImport) -> PeImport:
    return imported if _RUNTIMES.match(imported.library) else replace(imported, symbols=None)


_NAMES = 3
"""Names and processes that notes have."""

_NO_CASE = (
    "the recording does not have the case: no file was looked at, this rests on the events and the exception alone"
)
_SAID = (
    "this verdict was given where it was recorded, and is passed on as the recording has it: "
    "the facts behind it are not there to be judged, and what it advises is left out"
)


def explain_saved(trace: SavedTrace) -> Diagnosis:
    """Return the verdict on a recording. Nothing of this machine is looked at.

    The rules of this dlltracer judge the case of the recording, and make the commands of the remedies from its facts.
    Without a case, the verdict that the recording brings along is passed on as such; without that, the events and the
    exception are judged, less sure.
    """
    notes = _about_others(trace.recording)
    trace = replace(trace, recording=trace.recording.first_process)
    if trace.case is not None:
        try:
            found = diagnose(decode_case(trace.case, trace.recording))
            return replace(found, notes=(*found.notes, *notes))
        except (DlltracerError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
            # Not only what cannot be read: a file from elsewhere may have numbers, names and depths that no loader has.
            notes += (f"the case in the recording could not be read: {e}",)
    if trace.diagnosis is not None:
        return _as_said(trace.diagnosis, notes)
    if trace.run.status == 0 and not trace.run.errors:
        return Diagnosis(trace.what or "the program", Outcome.IMPORTED, notes=notes)
    return _without_case(trace, notes)


def _as_said(diagnosis: Diagnosis, notes: tuple[str, ...]) -> Diagnosis:
    """Return the verdict that a recording brings along, marked as the recording's and without its remedies.

    Whoever made the file wrote it. A command in it would look like one of ours, and people paste those.
    """
    findings = tuple(
        replace(finding, title=f"said by the recording: {finding.title}", remedies=()) for finding in diagnosis.findings
    )
    return replace(diagnosis, findings=findings, notes=(*diagnosis.notes, *notes, _SAID))


def _about_others(recording: Recording) -> tuple[str, ...]:
    """Return notes on other processes that were followed and did not end well after loads had failed."""
    failures: dict[int | None, list[str]] = {}
    for event in recording.failures:
        if event.kind is not FailureKind.DROPPED:
            failures.setdefault(event.pid, []).append(event.need or event.shown_path)
    found = []
    for process in recording.processes:
        failed = failures.get(process.pid, [])
        if process.pid != recording.pid and process.status != 0 and failed:
            ended = "" if process.status is None else f", which {describe_end(process.status)},"
            names = ", ".join(dict.fromkeys(failed[-_NAMES:]))
            found.append(f"process {process.pid}{ended} could not load {names}; this is about the first process")
    more = (f"{len(found) - _NAMES} more processes could not load something",) if len(found) > _NAMES else ()
    return (*found[:_NAMES], *more)


def _without_case(trace: SavedTrace, notes: tuple[str, ...]) -> Diagnosis:
    case = _poor_case(trace, (*notes, _NO_CASE))
    if case.run.errors and not is_loader_failure(case.run):
        case = replace(case, failures=())
    found = diagnose(case)
    findings = tuple(_less_sure(finding, case) for finding in found.findings)
    if any(finding.confidence is not Confidence.POSSIBLE for finding in findings):
        return replace(found, findings=findings)
    undecided = (*found.undecided, _what_would_decide(trace))
    return replace(found, outcome=Outcome.UNDECIDED, findings=findings, undecided=undecided)


def _poor_case(trace: SavedTrace, notes: tuple[str, ...]) -> Case:
    """Return a case of the events, the exception and the facts of the interpreter alone."""
    run = replace(trace.run, recording=trace.recording)
    system = _system_of(trace, run.process)
    case = Case(what=trace.what or "the program", system=system, run=run, notes=notes)
    if system is System.WINDOWS:
        suffixes = run.process.suffixes if run.process is not None else (".pyd",)
        return _with_windows_error(case, nearest_error(run.errors, suffixes))
    failed = read_linux_failure(run)
    symbols, versions = with_dl_error((), (), failed.dl_error) if failed.dl_error is not None else ((), ())
    return replace(
        case, error=failed.error, dl_error=failed.dl_error, named=failed.named, failures=failed.failures,
        subject=failed.subject, symbols=symbols, versions=versions,
    )  # fmt: skip


def _with_windows_error(case: Case, error: PythonError | None) -> Case:
    if error is None:
        return case
    found = find_code(error.message, {}) if "ImportError" in error.bases else None
    code = found.code if found is not None else error.code
    return replace(case, error=error, subject=error.path, code=code, code_is_guess=found is not None)


def _system_of(trace: SavedTrace, process: ProcessFacts | None) -> System:
    if process is not None:
        return process.system
    named = trace.host.system if trace.host is not None else ""
    if named in {system.value for system in System}:
        return System(named)
    paths = [getattr(event, "path", "") for event in trace.recording.events[:100]]
    return System.WINDOWS if any("\\" in path for path in paths) else System.LINUX


def _less_sure(finding: Finding, case: Case) -> Finding:
    """Without the files nothing is certain, and what the loader's own words do not name is possible at most."""
    is_named = case.dl_error is not None and case.dl_error.problem is not DlProblem.UNREADABLE
    most = Confidence.LIKELY if is_named else Confidence.POSSIBLE
    if finding.confidence in (most, Confidence.POSSIBLE):
        return finding
    doubt = Evidence(Source.FILES, "they are not in the recording, and were not looked at")
    return replace(finding, confidence=most, evidence=(*finding.evidence, doubt))


def _what_would_decide(trace: SavedTrace) -> str:
    failed = [event.need or event.shown_path for event in trace.recording.failures]
    names = f"; the last loads that failed in this one: {', '.join(dict.fromkeys(failed[-5:]))}" if failed else ""
    return f"a whole recording, by dlltracer why -o FILE.dlltrace on the machine where it fails{names}"
