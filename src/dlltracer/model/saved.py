"""A saved trace: what one run left for a reader elsewhere, on another machine and another system, as one value.

Reports are made of it, and a file holds it: docs/reference/recording-format.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .finding import Diagnosis
from .recording import Recording
from .run import RunResult
from .selftest import SelfTestStep

RECORDING_SUFFIX = ".dlltrace"
"""How names of files end that hold one."""


@dataclass(frozen=True)
class HostFacts:
    """The machine of a trace.

    Attributes:
        system: "linux", "windows" or another, as `model.failure.System` has them.
        description: the system for people ("Debian GNU/Linux 12 (bookworm), kernel 6.1", "Windows 10 build 19045").
        machine: the processor ("x86_64", "AMD64").
        c_library: "glibc 2.36", "musl 1.2.3"; `None` where it does not apply or is not known.
        name: of the machine; `None` when it was left out.
    """

    system: str
    description: str = ""
    machine: str = ""
    c_library: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class ImageFacts:
    """A file that a trace saw, as it was then. A field is `None` where it was not looked at or does not apply.

    Attributes:
        path: as the events have it.
        size: bytes.
        modified: seconds since the epoch.
        file_version: of the version resource of a PE file ("14.28.29334.0").
        soname: of an ELF file.
        machine: name of the processor it is for.
        needs: the names it imports (DT_NEEDED, import table), in order.
        package: what it belongs to ("numpy 2.1.0", "libssl3 3.0.11-1"), if a package manager knows.
        digest: "sha256:" and the hexadecimal digest, or "build-id:" and the identification of an ELF file.
    """

    path: str
    size: int | None = None
    modified: float | None = None
    file_version: str | None = None
    soname: str | None = None
    machine: str | None = None
    needs: tuple[str, ...] | None = None
    package: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class SearchPlaces:
    """Where the loader of a process looks, besides what images say themselves. Empty where it does not apply.

    Attributes:
        folders: (rule, folder) pairs in the order of the search, the rule as `model.events.Phase` has it.
        cache: what ld.so.cache has of the names that the trace is about: (name, path) pairs.
        cache_size: how many entries it has in all; `None` if there is none, or it was not read.
        known_dlls: the names that Windows takes from its system folder always.
        preload: the elements of LD_PRELOAD.
        notes: what could not be found out.
    """

    folders: tuple[tuple[str, str], ...] = ()
    cache: tuple[tuple[str, str], ...] = ()
    cache_size: int | None = None
    known_dlls: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SavedTrace:
    """All that is known of one run.

    Attributes:
        recording: what the trace saw; its `processes` name all that were followed.
        what: what was run, in words ("import ssl", "-m pytest").
        written_by: version of dlltracer.
        started: seconds since the epoch.
        host: the machine.
        run: how the first process ended. Its own `recording` is empty: `recording` is the one. A file keeps the status,
            the exceptions, the interpreter and the crash.
        diagnosis: the verdict given on the spot.
        case: all that the verdict rests on, in plain values, for rules of another version (`api.explain_saved`).
        images: the files of the trace.
        problems: what was wrong with the file this was read from: torn, damaged lines, of a later version.
        command: the command line, a word each; () if it is not known.
        places: where the loader of the first process looks.
        steps: of a self-test, if the file is the report of one; nothing was run then.
    """

    recording: Recording
    what: str = ""
    written_by: str = ""
    started: float | None = None
    host: HostFacts | None = None
    run: RunResult = field(default_factory=RunResult)
    diagnosis: Diagnosis | None = None
    case: Mapping[str, object] | None = None
    images: tuple[ImageFacts, ...] = ()
    problems: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    places: SearchPlaces | None = None
    steps: tuple[SelfTestStep, ...] = ()
