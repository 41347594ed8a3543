"""Saved traces made by hand: a small one that failed, one with many images, one of a Windows."""

from __future__ import annotations

from dlltracer.model.events import Event, FailureKind, LoadEvent, LoadFailedEvent, Phase, Probe, ProbeOutcome
from dlltracer.model.failure import PythonError
from dlltracer.model.finding import Confidence, Diagnosis, Evidence, Finding, Outcome, Remedy, Source
from dlltracer.model.recording import Losses, Recording, TracedProcess
from dlltracer.model.run import HostFacts, ImageFacts, RunResult, SavedTrace

STARTED = 1_800_000_000.0
PID = 4711
SITE = "/usr/lib/python3/site-packages"
GONE = "libgone.so.1"
LINUX = HostFacts("linux", "Debian GNU/Linux 12 (bookworm), kernel 6.1", "x86_64", "glibc 2.36")


def load(
    path: str, *, by: str | None = None, phase: Phase = Phase.DIRECT, origin: str | None = None,
    imports: tuple[str, ...] | None = ("pkg",), at: float = 0.0, pid: int = PID, need: str | None = None,
) -> LoadEvent:  # fmt: skip
    """An image that was loaded `at` seconds after the start."""
    name = need or (path if phase is Phase.DIRECT else path.rpartition("/")[2])
    probes = (Probe(path, phase, origin, ProbeOutcome.LOADED),)
    return LoadEvent(
        path, base=0x7F0000000000, size=0x21000, timestamp=STARTED + at, pid=pid, tid=pid, need=name, requested_by=by,
        phase=phase, probes=probes, imports=imports,
    )  # fmt: skip


def missing(name: str, by: str, *, imports: tuple[str, ...] | None = ("pkg",), at: float = 0.0) -> LoadFailedEvent:
    """A name that no place had: some with variants of the processor, an index without an entry."""
    folders = (SITE, "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib")
    phases = (Phase.RUNPATH, *4 * (Phase.SYSTEM,))
    places = [
        Probe(f"{folder}{variant}/{name}", phase, by if phase is Phase.RUNPATH else None, ProbeOutcome.ABSENT)
        for folder, phase in zip(folders, phases, strict=True)
        for variant in ("/glibc-hwcaps/x86-64-v3", "/glibc-hwcaps/x86-64-v2", "")
    ]
    places.insert(3, Probe("/etc/ld.so.cache", Phase.CACHE, None, ProbeOutcome.NO_ENTRY))
    return LoadFailedEvent(
        name, need=name, requested_by=by, probes=tuple(places), imports=imports, timestamp=STARTED + at, pid=PID,
        tid=PID, kind=FailureKind.NOT_FOUND,
    )  # fmt: skip


def dropped(event: LoadEvent) -> LoadFailedEvent:
    """The load, undone because another one failed."""
    return LoadFailedEvent(**vars(event), kind=FailureKind.DROPPED)


def small_failure() -> SavedTrace:
    """`import pkg`: its extension needs a library, which needs one that is not there; `json` worked before."""
    extension, library = f"{SITE}/pkg/core.cpython-311-x86_64-linux-gnu.so", f"{SITE}/pkg.libs/libdep.so.2"
    loads = (
        load("/usr/lib/python3.11/lib-dynload/_json.so", imports=("pkg", "json", "_json")),
        load(extension, imports=("pkg", "pkg.core"), at=0.1),
        load(library, by=extension, phase=Phase.RUNPATH, origin=extension, imports=("pkg", "pkg.core"), at=0.1),
    )
    gone = missing(GONE, library, imports=("pkg", "pkg.core"), at=0.1)
    finding = Finding(
        code="missing-image", title=f"{GONE} was not found", confidence=Confidence.CERTAIN, subject=GONE,
        chain=("import pkg", "import pkg.core", extension, library, GONE), probes=gone.probes or (),
        explanation=f"{library} cannot be loaded without {GONE}, and no place searched has it.",
        evidence=(Evidence(Source.LOADER, f"it looked for {GONE} in {len(gone.probes or ())} places and gave up"),),
        remedies=(Remedy("install the package that has it", ("apt-get", "install", "libgone1")), Remedy("or build it")),
    )  # fmt: skip
    other = Finding(
        code="library-path-wins",
        title="LD_LIBRARY_PATH wins",
        confidence=Confidence.POSSIBLE, subject="LD_LIBRARY_PATH",
    )
    error = PythonError("ImportError", f"{GONE}: cannot open shared object file: No such file or directory")
    recording = Recording("rtld", (*loads, gone, *map(dropped, loads[1:])), PID, Losses(undecodable=1), ("a note",))
    images = (
        ImageFacts(extension, 40_000, STARTED, needs=("libdep.so.2", "libc.so.6"), package="pkg 1.0"),
        ImageFacts(library, 90_000, STARTED, soname="libdep.so.2", needs=(GONE, "libc.so.6"), package="pkg 1.0"),
    )
    diagnosis = Diagnosis("import pkg", Outcome.EXPLAINED, error, findings=(finding, other))
    return SavedTrace(
        recording, "import pkg", "0.1.0", STARTED, LINUX, RunResult(status=1), diagnosis=diagnosis, images=images,
    )  # fmt: skip


def many_images(count: int = 1000, *, processes: int = 1) -> SavedTrace:
    """So many images, as a large program has them: packages of extensions and libraries, some shared by many."""
    events: list[Event] = []
    facts: list[ImageFacts] = []
    pids = [PID + number for number in range(processes)]
    while len(events) < count:
        number = len(events)
        package, part = divmod(number, 25)
        name, pid = f"pkg{package:02}", pids[package * processes // (count // 25 + 1)]
        folder, imports = f"{SITE}/{name}", ("app", f"app.part{package % 6}", name, f"{name}.core")
        at = number * 0.003
        if part % 5 < 3:
            path = f"{folder}/_ext{part:02}.cpython-311-x86_64-linux-gnu.so"
            needs = (f"lib{name}-{part // 5 * 5 + 3}.so.1", "libc.so.6", "libshared0.so")
            events.append(load(path, imports=imports, at=at, pid=pid))
        else:
            requester = f"{folder}/_ext{part // 5 * 5:02}.cpython-311-x86_64-linux-gnu.so"
            path = f"{SITE}/{name}.libs/lib{name}-{part}.so.1"
            needs = (f"lib{name}-{part + 1}.so.1", "libm.so.6")
            whose = {"by": requester, "origin": requester}
            events.append(load(path, **whose, phase=Phase.RUNPATH, imports=imports, at=at, pid=pid))
        facts.append(ImageFacts(path, 50_000 + number * 137, STARTED, needs=needs, package=f"{name} 1.{package}"))
    traced = tuple(
        TracedProcess(pid, pids[0] if pid != pids[0] else None, ("python", "-m", f"app{number}"), status=0)
        for number, pid in enumerate(pids)
    )
    recording = Recording("rtld", tuple(events), PID, processes=traced if processes > 1 else ())
    diagnosis = Diagnosis("import app", Outcome.IMPORTED)
    return SavedTrace(
        recording, "import app", "0.1.0", STARTED, LINUX, RunResult(status=0), diagnosis=diagnosis, images=tuple(facts),
    )  # fmt: skip


def windows_failure() -> SavedTrace:
    """Of a Windows: nobody says who asked, names differ in case, and what is missing is known from the verdict only."""
    extension, library = "C:\\app\\pkg\\Core.pyd", "C:\\app\\pkg\\Dep.dll"
    gone = "msvcp140.dll"
    events = tuple(
        LoadEvent(
            path.replace("C:", "\\Device\\HarddiskVolume3"), display_path=path, base=0x180000000 + number, size=0x8000,
            timestamp=STARTED + number, pid=PID, imports=("pkg", "pkg.Core"),
        )
        for number, path in enumerate((extension, library))
    )  # fmt: skip
    failed = tuple(LoadFailedEvent(**vars(event), kind=FailureKind.DROPPED) for event in events)
    finding = Finding(
        code="missing-vc-runtime", title=f"{gone} was not found", confidence=Confidence.LIKELY, subject=gone,
        chain=("import pkg", extension, library, gone),
        probes=(Probe(f"C:\\app\\pkg\\{gone}", Phase.IMAGE_FOLDER, None, ProbeOutcome.ABSENT),),
    )  # fmt: skip
    images = (
        ImageFacts(events[0].path, needs=("DEP.dll", "KERNEL32.dll")),
        ImageFacts(events[1].path, needs=(gone, "KERNEL32.dll"), file_version="1.2.3.4"),
    )
    diagnosis = Diagnosis("import pkg", Outcome.EXPLAINED, findings=(finding,))
    host = HostFacts("windows", "Windows 10 build 19045", "AMD64")
    return SavedTrace(
        Recording("etw", (*events, *failed), PID), "import pkg", "0.1.0", STARTED, host, RunResult(status=1),
        diagnosis=diagnosis, images=images,
    )  # fmt: skip
