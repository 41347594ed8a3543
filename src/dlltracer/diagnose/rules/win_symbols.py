"""Windows: a DLL was found that lacks a function. Which copy it is and which rule chose it make the difference."""

from __future__ import annotations

import ntpath
from collections.abc import Iterator
from dataclasses import replace

from ...model.events import Phase
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.pe import MissingForwarder
from ...model.tree import Binding, MissingSymbol
from ..case import Case
from ..codes import LoadError
from ..environment import Copy
from ..windows_load import (
    WINE_STUB,
    base_name,
    binding_of,
    code_evidence,
    described,
    firmness,
    first_importer,
    is_of_windows,
    load_error,
    name_of,
    reinstall,
    why_taken,
)  # fmt: skip

CODE = "missing-symbol"
LOADED_CODE = "first-wins"
COPY_CODE = "wrong-copy"
FORWARDER_CODE = "missing-forwarder"
WINDOWS_CODE = "windows-too-old"

_MOST_NAMED = 5


def check(case: Case) -> Iterator[Finding]:
    """Every pair of images of which one lacks what the other needs."""
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
    """Its name, or its number."""
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
        return _wrong_copy(finding, binding, better[0])
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


def _wrong_copy(finding: Finding, binding: Binding, better: Copy) -> Finding:
    return replace(
        finding,
        code=COPY_CODE,
        title=f"the wrong {name_of(binding.path or binding.need)} was found: it lacks {finding.chain[-1]}",
        explanation=f"{finding.explanation} {better.path} ({better.where}) has what is missing.",
        remedies=(
            Remedy("load the right one before the import", code=f"ctypes.CDLL({better.path!r})"),
            Remedy(f"or take {binding.path} away, or bring it to the version of the other one"),
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
