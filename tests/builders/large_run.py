"""A saved trace of the size of a large program: 1,866 images, 190 loads that failed, and a program that went on."""

from __future__ import annotations

from builders.report_traces import LINUX, PID, SITE, STARTED, dropped, load, missing
from dlltracer.model.events import Event, FailureKind, LoadFailedEvent, Phase
from dlltracer.model.finding import Diagnosis, Outcome
from dlltracer.model.recording import Recording
from dlltracer.model.run import ImageFacts, RunResult, SavedTrace

SYSTEM = "/usr/lib/x86_64-linux-gnu"
LOADED, OF_PACKAGES, WITHOUT_SYMBOL, REFUSED, NOT_FOUND, LEFT = 1618, 900, 139, 7, 44, 58
IMAGES = LOADED + WITHOUT_SYMBOL + REFUSED + NOT_FOUND + LEFT


def large_run() -> SavedTrace:
    """A script with 58 imports that then opened every library of its system; the numbers are those of a real run."""
    events: list[Event] = []
    facts: list[ImageFacts] = []
    for number in range(LOADED):
        add_loaded(events, facts, number)
    for number in range(WITHOUT_SYMBOL):
        path = f"{SYSTEM}/perl5/5.36/auto/Mod{number}/Mod{number}.so"
        reason = f"{path}: undefined symbol: Perl_sv_{number}"
        add_failed(events, path, FailureKind.DROPPED, reason, 20.3 + number / 1000)
        owner = "libperl5.36 5.36.0-7" if number < 106 else f"lib{number}-perl 1.0"
        facts.append(ImageFacts(path, 20_000, STARTED, package=owner))
    for number in range(REFUSED):
        path = f"{SYSTEM}/libscript{number}.so"
        add_failed(events, path, FailureKind.REFUSED, f"{path}: invalid ELF header", 20.5)
    for number in range(NOT_FOUND):
        at = 20.6 + number / 100
        plugin, part = f"/opt/qt/plugins/libplugin{number}.so", f"/opt/qt/lib/libQtPart{number}.so.6"
        events.append(dropped(load(plugin, imports=(), at=at)))
        if number < LEFT - NOT_FOUND:
            events.append(dropped(load(part, by=plugin, phase=Phase.RUNPATH, imports=(), at=at)))
        events.append(missing(f"libxcb-{number % 5}.so.1", plugin, imports=(), at=at))
    return SavedTrace(
        Recording("rtld", tuple(events), PID), "big.py", "0.1.0", STARTED, LINUX, RunResult(status=0),
        diagnosis=Diagnosis("big.py", Outcome.IMPORTED), images=tuple(facts),
    )  # fmt: skip


def add_loaded(events: list[Event], facts: list[ImageFacts], number: int) -> None:
    """Add an image that was loaded: an extension of one of 58 packages, or a library of the system."""
    package = min(57, number * 58 // OF_PACKAGES)
    if number < OF_PACKAGES:
        name = f"_ext{number}.cpython-311-x86_64-linux-gnu.so"
        folder, owner = f"{SITE}/pkg{package:02}", f"pkg{package:02} 1.{package}"
        phase, imports = Phase.DIRECT, (f"pkg{package:02}", f"pkg{package:02}.core")
    else:
        name, folder, owner = f"libsys{number}.so.{number % 7}", SYSTEM, f"libsys{number % 320} 5.{number % 9}-1"
        phase, imports = Phase.CACHE, ()
    needs = (*(fact.soname or "" for fact in facts[number // 2 : number // 2 + 3]), "libc.so.6")
    path = f"{folder}/{name}"
    events.append(load(path, phase=phase, imports=imports, at=number * 0.0125))
    facts.append(ImageFacts(path, 40_000 + number * 311, STARTED, soname=name, needs=needs, package=owner))


def add_failed(events: list[Event], path: str, kind: FailureKind, reason: str, at: float) -> None:
    """Add a load that failed by itself, outside of any import."""
    events.append(LoadFailedEvent(**vars(load(path, imports=(), at=at)), kind=kind, reason=reason))
