"""Windows: a DLL that lacks a function, or a Visual C++ runtime older than the code bound to it.

Microsoft promises that the runtime serves code of the same or an older toolset, not of a newer one. (MS Learn, "C++
binary compatibility between Visual Studio versions".) That is: the file version of msvcp140.dll, 14.x, must not be
below the linker version, 14.y, of any image that uses it. Since 14.40 std::mutex is constant-initialised, so code built
since locks what an older msvcp140.dll takes for a null pointer (microsoft/STL wiki, "Changelog", VS 2022 17.10).
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ...model.environment import without_hash
from ...model.events import Phase
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.pe import CONSTANT_MUTEX, MissingForwarder, PeImage, Version
from ...model.tree import Binding, BindingState, MissingSymbol
from ..case import Case, Copy
from ..remedies import reinstall
from ..windows_load import (
    WINE_STUB,
    LoadError,
    base_name,
    binding_of,
    code_evidence,
    described,
    firmness,
    first_importer,
    is_in,
    is_of_windows,
    load_error,
    name_of,
    provider_remedies,
    version_of,
    why_taken,
)  # fmt: skip  # fmt: skip

CODE = "missing-symbol"
LOADED_CODE = "first-wins"
COPY_CODE = "wrong-copy"
FORWARDER_CODE = "missing-forwarder"
WINDOWS_CODE = "windows-too-old"

_MOST_NAMED = 5


def check_symbols(case: Case) -> Iterator[Finding]:
    """Yield each pair of images of which one lacks a symbol that the other needs."""
    if load_error(case) not in (LoadError.SYMBOL_NOT_FOUND, LoadError.UNKNOWN):
        return
    groups: dict[tuple[str, str], list[MissingSymbol]] = {}
    for symbol in case.symbols:
        groups.setdefault((symbol.requested_by, symbol.library or ""), []).append(symbol)
    for (requested_by, library), symbols in groups.items():
        binding = binding_of(case, requested_by, library)
        if binding is not None and binding.path is not None:
            yield _explain(case, binding, binding.path, symbols)
    for forwarder in case.forwarders:
        yield _forwarder(case, forwarder)


def describe_symbol(symbol: MissingSymbol) -> str:
    """Return the name of a symbol, or its ordinal."""
    return symbol.name or f"ordinal {symbol.ordinal}"


def _explain(case: Case, binding: Binding, path: str, symbols: list[MissingSymbol]) -> Finding:
    first = describe_symbol(symbols[0])
    more = f" and {len(symbols) - 1} more" if len(symbols) > 1 else ""
    named = ", ".join(map(describe_symbol, symbols[:_MOST_NAMED]))
    nearest = next((symbol.nearest for symbol in symbols if symbol.nearest), ())
    says = [Evidence(Source.FILES, f"{path} does not export {named}")]
    if nearest:
        says.append(Evidence(Source.FILES, f"it exports {', '.join(nearest)}, which look alike"))
    finding = Finding(
        code=CODE,
        title=f"{name_of(path)} has no {first}{more}, which {name_of(binding.requested_by)} needs",
        confidence=_confidence(case), subject=path, chain=case.chain_to(binding.requested_by, path, first),
        probes=binding.probes,
        explanation=(
            f"{binding.requested_by}{case.owner_of(binding.requested_by)} needs {first}{more} of {binding.need} and "
            "was bound to "
            f"{described(case, path)}: {why_taken(binding.phase)}."
        ),
        evidence=(*code_evidence(case), *_stub_evidence(case), *says),
        remedies=(
            Remedy(f"bring {name_of(binding.requested_by)} and {name_of(path)} to versions that belong together"),
            *reinstall(case, binding.requested_by),
        ),
    )
    better = [copy for copy in case.copies.get(base_name(binding.need), ()) if copy.has_what_lacks and not copy.unfit]
    if binding.phase is Phase.LOADED:
        return _first_wins(case, finding, binding, better)
    if better:
        return _wrong_copy(case, finding, binding, better[0])
    if is_of_windows(path) and base_name(path) in case.windows_own:
        return replace(
            finding,
            code=WINDOWS_CODE,
            title=f"{name_of(path)} of this Windows has no {first}{more}, which {name_of(binding.requested_by)} needs",
            explanation=f"{finding.explanation} It is a part of Windows: a newer Windows has it.",
            remedies=(Remedy("use a newer Windows, or a version of the package for this one"),),
        )
    return finding


def _first_wins(case: Case, finding: Finding, binding: Binding, better: list[Copy]) -> Finding:
    path = binding.path or ""
    who = first_importer(case, path)
    by = f" by {who}" if who else " before"
    other = f" {better[0].path} ({better[0].where}) has what is missing." if better else ""
    remedies = [Remedy(f"import {_module(case)} before whatever loads {path}")] if better else []
    return replace(
        finding,
        code=LOADED_CODE,
        title=f"another {name_of(path)} was loaded first{f' by {who}' if who else ''}, and lacks "
        f"{finding.chain[-1]} that {name_of(binding.requested_by)} needs",
        explanation=f"{finding.explanation} It was loaded{by}.{other}",
        remedies=(*remedies, Remedy("make both packages use one version of it"), *finding.remedies[1:]),
    )


def _wrong_copy(case: Case, finding: Finding, binding: Binding, better: Copy) -> Finding:
    path = binding.path or ""
    owners = case.owners.get(path, ())
    whose = f" of {owners[0].package}" if owners else ""
    # Nobody is told to take a file away: other programs need it, or Windows itself.
    second = (
        "or use a newer Windows, or a version of the package for this one" if base_name(path) in case.windows_own
        else "or have it removed by the program that put it into the folder of Windows" if is_of_windows(path)
        else f"or bring {path}{whose} to the version of the other one"
    )  # fmt: skip
    return replace(
        finding,
        code=COPY_CODE,
        title=f"the wrong {name_of(binding.path or binding.need)} was found: it lacks {finding.chain[-1]}",
        explanation=f"{finding.explanation} {better.path} ({better.where}) has what is missing.",
        remedies=(
            Remedy("load the right one before the import", code=f"ctypes.CDLL({better.path!r})"),
            Remedy(second),
        ),
    )


def _forwarder(case: Case, forwarder: MissingForwarder) -> Finding:
    library, _, symbol = forwarder.target.rpartition(".")
    name = library if "." in library else f"{library}.dll"
    wanted = forwarder.symbol.name or f"ordinal {forwarder.symbol.ordinal}"
    lost = f"there is no {name}" if forwarder.provider is None else f"{forwarder.provider} has no {symbol}"
    return Finding(
        code=FORWARDER_CODE,
        title=f"{wanted} of {name_of(forwarder.exporter)} is forwarded to {forwarder.target}, and {lost}",
        confidence=_confidence(case), subject=name if forwarder.provider is None else forwarder.provider,
        chain=case.chain_to(forwarder.requested_by, forwarder.exporter, forwarder.target), probes=case.probes_of(name),
        explanation=(
            f"{forwarder.requested_by}{case.owner_of(forwarder.requested_by)} needs {wanted} of {forwarder.exporter}, "
            "which only "
            f"passes it on to {forwarder.target}; {lost}."
        ),
        evidence=(
            *code_evidence(case),
            *_stub_evidence(case),
            Evidence(Source.FILES, f"the export is a forwarder; {lost}"),
        ),
        remedies=(
            Remedy(f"put the {name} that belongs to {name_of(forwarder.exporter)} beside it"),
            *reinstall(case, forwarder.exporter),
        ),
    )


def _confidence(case: Case) -> Confidence:
    # Which of the missing symbols Wine was asked for, it tells nobody.
    is_stub = case.run.crash is not None and case.run.crash.code == WINE_STUB
    return Confidence.LIKELY if is_stub else firmness(case)


def _stub_evidence(case: Case) -> tuple[Evidence, ...]:
    if case.run.crash is None or case.run.crash.code != WINE_STUB:
        return ()
    return (Evidence(Source.SYSTEM, "Wine ended the process when a function was called that a DLL does not have"),)


def _module(case: Case) -> str:
    return case.imports[-1] if case.imports else ntpath.basename(case.subject or "this module").partition(".")[0]


RUNTIME_CODE = "vc-runtime-too-old"

_RUNTIME = re.compile(r"(msvcp140|vcruntime140|concrt140)(?:_\d|_\w+)?\.dll")
_VISUAL_CPP = 14
_CRASHES = (0xC0000005, 0xC0000409)
"""An access violation; a fail fast, which is how abort() ends."""
_FAILURES = (LoadError.INITIALISATION_FAILED, LoadError.INVALID_ACCESS, LoadError.SYMBOL_NOT_FOUND)


@dataclass
class _Runtime:
    """A copy of the runtime in the load: the images that use it, and the newest linker among them."""

    path: str
    version: Version
    phase: Phase | None
    users: list[str] = field(default_factory=list)
    newest: tuple[int, int] = (0, 0)
    locking: list[str] = field(default_factory=list)


def check_runtime(case: Case) -> Iterator[Finding]:
    """Yield the copies that are too old for the images bound to them, if that can cause this failure."""
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
        if not isinstance(image, PeImage) or not isinstance(user, PeImage) or not _is_runtime(path):
            continue
        version = image.resources.file_version if image.resources is not None else None
        if version is None or version[0] != _VISUAL_CPP or _is_runtime(binding.requested_by):
            continue
        runtime = found.setdefault(ntpath.normcase(path), _Runtime(path, version, binding.phase))
        runtime.users.append(binding.requested_by)
        if user.linker_version[0] == _VISUAL_CPP:
            runtime.newest = max(runtime.newest, user.linker_version)
        if version[:2] < CONSTANT_MUTEX and user.locks_without_initialising(binding.need):
            runtime.locking.append(binding.requested_by)
    return list(found.values())


def _is_runtime(path: str) -> bool:
    return _RUNTIME.fullmatch(without_hash(base_name(path))) is not None


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
        code=RUNTIME_CODE,
        title=f"{name} {version} is too old for {name_of(user)}",
        confidence=_runtime_confidence(case, runtime), subject=runtime.path, chain=case.chain_to(user, runtime.path),
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


def _runtime_confidence(case: Case, runtime: _Runtime) -> Confidence:
    """Return LIKELY if an initialiser failed or the runtime itself crashed, POSSIBLE for any other crash."""
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
    """Yield the remedies: a newer copy in place of this one, because the loader does not use a copy elsewhere."""
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
