"""Windows: a Visual C++ runtime that is older than the code bound to it.

Microsoft promises that the runtime serves code of the same or an older toolset, not of a newer one (MS Learn, "C++
binary compatibility between Visual Studio versions"): the file version of msvcp140.dll, 14.x, must not be below the
linker version, 14.y, of any image that uses it. Since 14.40 std::mutex is constant-initialised, so code built since
locks what an older msvcp140.dll takes for a null pointer (microsoft/STL wiki, "Changelog", VS 2022 17.10).
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...model.events import Phase
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.pe import PeImage, Version
from ...model.tree import BindingState
from ..case import Case
from ..codes import LoadError
from ..windows_load import (
    base_name,
    code_evidence,
    described,
    first_importer,
    is_in,
    is_of_windows,
    load_error,
    name_of,
    provider_remedies,
    reinstall,
    version_of,
    why_taken,
)  # fmt: skip

CODE = "vc-runtime-too-old"

_RUNTIME = re.compile(r"(msvcp140|vcruntime140|concrt140)(?:_\d|_\w+)?(?:-[0-9a-f]{8,})?\.dll")
_VISUAL_CPP = 14
_CONSTANT_MUTEX = (14, 40)
_CRASHES = (0xC0000005, 0xC0000409)
"""An access violation; a fail fast, which is how abort() ends."""
_FAILURES = (LoadError.INITIALISATION_FAILED, LoadError.INVALID_ACCESS, LoadError.SYMBOL_NOT_FOUND)
_LOCKS, _INITIALISER = {"_Mtx_lock", "_Mtx_unlock"}, "_Mtx_init_in_situ"


@dataclass
class _Runtime:
    """A copy of the runtime in the load: who uses it, and the newest linker among them."""

    path: str
    version: Version
    phase: Phase | None
    users: list[str] = field(default_factory=list)
    newest: tuple[int, int] = (0, 0)
    locking: list[str] = field(default_factory=list)


def check(case: Case) -> Iterator[Finding]:
    """Copies that are too old for what is bound to them, if the failure is one that this causes."""
    if not _can_be_the_cause(case):
        return
    for runtime in _runtimes(case):
        if runtime.locking or runtime.version[:2] < runtime.newest:
            yield _finding(case, runtime)


def _can_be_the_cause(case: Case) -> bool:
    if case.run.crash is not None:
        return case.run.crash.code in _CRASHES
    return load_error(case) in _FAILURES


def _runtimes(case: Case) -> list[_Runtime]:
    found: dict[str, _Runtime] = {}
    for binding in case.tree.bindings if case.tree is not None else ():
        path = binding.path
        if path is None or binding.state is not BindingState.BOUND or binding.delayed:
            continue
        image, user = case.images.get(path), case.images.get(binding.requested_by)
        if not _RUNTIME.fullmatch(base_name(path)) or not isinstance(image, PeImage) or not isinstance(user, PeImage):
            continue
        version = image.resources.file_version if image.resources is not None else None
        if version is None or version[0] != _VISUAL_CPP or _RUNTIME.fullmatch(base_name(binding.requested_by)):
            continue
        runtime = found.setdefault(ntpath.normcase(path), _Runtime(path, version, binding.phase))
        runtime.users.append(binding.requested_by)
        if user.linker_version[0] == _VISUAL_CPP:
            runtime.newest = max(runtime.newest, user.linker_version)
        if version[:2] < _CONSTANT_MUTEX and _locks_without_initialising(user, binding.need):
            runtime.locking.append(binding.requested_by)
    return list(found.values())


def _locks_without_initialising(user: PeImage, library: str) -> bool:
    names = {
        symbol.name
        for imported in user.imports
        if imported.library.lower() == library.lower()
        for symbol in imported.symbols or ()
    }
    return bool(names & _LOCKS) and _INITIALISER not in names


def _finding(case: Case, runtime: _Runtime) -> Finding:
    name, version = base_name(runtime.path), version_of(case, runtime.path)
    user = runtime.locking[0] if runtime.locking else _newest_user(case, runtime)
    who = first_importer(case, runtime.path) if runtime.phase is Phase.LOADED else ""
    facts = (
        f"{user} calls _Mtx_lock and never _Mtx_init_in_situ, as code does that relies on a runtime from 14.40 on"
        if runtime.locking
        else f"{user} was linked by the tools of version {runtime.newest[0]}.{runtime.newest[1]}"
    )
    loaded = f" {who} brought it into the process." if who else ""
    return Finding(
        code=CODE,
        title=f"{name} {version} is too old for {name_of(user)}",
        confidence=_confidence(case, runtime), subject=runtime.path, chain=case.chain_to(user, runtime.path),
        explanation=(
            f"{described(case, user)} was bound to {described(case, runtime.path)}: {why_taken(runtime.phase)}."
            f"{loaded} The Visual C++ runtime serves code of its own age and older; a newer one serves both."
        ),
        evidence=(*code_evidence(case), *_crash_evidence(case), Evidence(Source.FILES, facts)),
        remedies=tuple(_remedies(case, runtime, user)),
    )


def _newest_user(case: Case, runtime: _Runtime) -> str:
    def age(path: str) -> tuple[int, int]:
        image = case.images.get(path)
        return image.linker_version if isinstance(image, PeImage) and image.linker_version[0] == 14 else (0, 0)

    return max(runtime.users, key=age)


def _confidence(case: Case, runtime: _Runtime) -> Confidence:
    """Likely if an initialiser failed, or it died in the runtime itself. An old runtime and some crash: possible."""
    if case.run.crash is None:
        return Confidence.LIKELY
    image = case.run.crash.image
    is_inside = image is not None and ntpath.normcase(image) == ntpath.normcase(runtime.path)
    return Confidence.LIKELY if is_inside else Confidence.POSSIBLE


def _crash_evidence(case: Case) -> tuple[Evidence, ...]:
    crash = case.run.crash
    if crash is None:
        return ()
    where = (
        f"{crash.image} at offset {crash.offset:#x}" if crash.image and crash.offset is not None else "no known image"
    )
    return (Evidence(Source.SYSTEM, f"the process died of {crash.name_and_code} in {where}"),)


def _remedies(case: Case, runtime: _Runtime, user: str) -> Iterator[Remedy]:
    """A newer copy where this one lies: another one elsewhere is not looked at."""
    folder, process = ntpath.dirname(runtime.path), case.run.process
    installers = [remedy for remedy in provider_remedies("msvcp140.dll") if remedy.command or "http" in remedy.what]
    if is_of_windows(runtime.path):
        yield from [remedy for remedy in installers if not remedy.command]
    elif process is not None and is_in(runtime.path, process.prefix) and not case.owners.get(runtime.path):
        yield from [remedy for remedy in installers if remedy.command]
        yield Remedy(f"without conda: a newer copy, of the redistributable, into {folder}; or a newer Python")
    else:
        yield Remedy(f"upgrade the package that brought {runtime.path}")
    yield from reinstall(case, runtime.path)
    if runtime.phase is Phase.LOADED:
        yield Remedy(f"as a stopgap, import {name_of(user).partition('.')[0]} first: a newer copy then serves all")
