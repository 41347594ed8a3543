"""Rules for Windows: a process that crashed in native code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import BindingState
from ..case import Case
from ..codes import classify_code
from ..mangled import demangle
from ..windows_load import WINE_STUB, described, is_of_windows, name_of, provider_remedies
from . import vc_runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model.crash import Crash

CODE = "crash-in-import"
LATER_CODE = "crash"
ABORT_CODE = "abort"
INSTRUCTION_CODE = "illegal-instruction"
DELAYED_CODE = "missing-delayed-image"
DELAYED_SYMBOL_CODE = "missing-delayed-symbol"
THROWN_CODE = "cpp-exception"

_ILLEGAL_INSTRUCTION, _FAIL_FAST = 0xC000001D, 0xC0000409
_DELAYED = (0xC06D007E, 0xC06D007F)
"""What the delay-load helper raises (delayimp.h): a DLL, or a function of one, that was not found."""
_VISUAL_CPP, _GNU_CPP = 0xE06D7363, 0x20474343
"""What `throw` raises: Visual C++ (ehdata.h), GCC for Windows (unwind-seh.c of libgcc)."""
_MOD_NOT_FOUND = 126
_ABORTED = "Fatal Python error: Aborted"
"""What Python's faulthandler writes when abort() is called; the C runtime then ends the process with status 3."""


def check(case: Case) -> Iterator[Finding]:
    """Where it died, and what was being imported."""
    if case.run.crash is None:
        if case.error is None and case.run.status == 3 and _ABORTED in case.run.output.text:
            yield _aborted(case)
        return
    if case.run.crash.code in _DELAYED:
        named = _delayed_by_name(case, case.run.crash)
        if named is not None:
            yield named
            return
        yield from _delayed(case)
    if case.run.crash.code in (_VISUAL_CPP, _GNU_CPP):
        yield _thrown(case, case.run.crash)
        return
    if case.run.crash.code == WINE_STUB and (case.symbols or case.forwarders):
        return  # the cause is known, and this is how it shows
    if any(finding.confidence is not Confidence.POSSIBLE for finding in vc_runtime.check(case)):
        return
    finding = _died(case, case.run.crash)
    if finding is not None:
        yield finding


def _died(case: Case, crash: Crash) -> Finding | None:
    offset = f" at offset {crash.offset:#x}" if crash.offset is not None else ""
    where = f"{crash.image}{offset}" if crash.image else "code of no known image"
    # Windows' own files are where an exception is raised, seldom where the fault is.
    is_inside = crash.image is not None and not is_of_windows(crash.image) and crash.code != WINE_STUB
    is_importing = _is_importing(case)
    culprit = (crash.image if is_inside else case.subject if is_importing else None) or crash.image
    if culprit is None:
        return None
    is_instruction = crash.code == _ILLEGAL_INSTRUCTION
    title = (
        f"the process died of {crash.name} {'in' if culprit == crash.image else 'when it loaded'} {name_of(culprit)}"
    )
    if is_instruction:
        title = f"the processor does not have an instruction that {name_of(culprit)} uses"
    meaning = classify_code(crash.code).name
    last = f" {name_of(case.subject)} was the last that Python asked the loader for." if case.subject else ""
    codes = {_ILLEGAL_INSTRUCTION: INSTRUCTION_CODE, _FAIL_FAST: ABORT_CODE}
    return Finding(
        code=codes.get(crash.code, CODE if is_importing else LATER_CODE),
        title=title,
        confidence=Confidence.LIKELY,
        subject=culprit,
        chain=case.chain_to(case.subject if is_importing else None, culprit),
        explanation=f"It died of {crash.name}{f' ({meaning})' if meaning else ''} in {where}.{last} {_why(case)}",
        evidence=(Evidence(Source.SYSTEM, f"it died of {crash.name_and_code} in {where}"),),
        remedies=tuple(_remedies(is_instruction)),
    )


def _thrown(case: Case, crash: Crash) -> Finding:
    """A C++ exception that nothing caught: Python cannot, and an extension module must."""
    kind = cplusplus_name(crash.thrown) if crash.thrown else None
    what = f"a C++ exception{f' of type {kind}' if kind else ''}"
    words = f" Its text: {crash.message}" if crash.message else ""
    is_importing = _is_importing(case)
    subject = (case.subject if is_importing else None) or crash.image or "the program"
    where = f" when {name_of(subject)} was {'loaded' if is_importing else 'in use'}" if case.subject else ""
    evidence = [Evidence(Source.SYSTEM, f"it died of {crash.name_and_code}, which nothing handled")]
    if crash.thrown:
        evidence.append(Evidence(Source.SYSTEM, f"the exception in its memory is a {crash.thrown}"))
    return Finding(
        code=THROWN_CODE,
        title=f"{what} ended the process{where}{f': {crash.message}' if crash.message else ''}",
        confidence=Confidence.LIKELY, subject=subject,
        chain=case.chain_to(case.subject if is_importing else None, subject),
        explanation=(
            f"Native code threw {what} and nothing caught it, so Windows ended the process.{words} A module has to "
            "catch its own: Python cannot."
        ),
        evidence=tuple(evidence),
        remedies=(
            Remedy("look at what the exception is about: a file, a device, a setting that the package expects"),
            Remedy("report it to the makers of the package, with this report"),
        ),
    )  # fmt: skip


def cplusplus_name(spelled: str) -> str:
    """Return a type as a programmer writes it; as its compiler spells it where that cannot be read.

    Visual C++ spells std::bad_alloc ".?AVbad_alloc@std@@", from the innermost name to the outermost; GCC "St9bad_alloc"
    """
    plain = _MICROSOFT_TYPE.fullmatch(spelled)
    if plain is not None:
        return "::".join(reversed(plain[1].split("@")))
    named = demangle(f"_ZTI{spelled}")
    return named.removeprefix("typeinfo for ") if named is not None else spelled


_MICROSOFT_TYPE = re.compile(r"\.\?A[UV](\w+(?:@\w+)*)@@")


def _is_importing(case: Case) -> bool:
    """Whether the import system was at work, by the innermost Python line; also if that is not known."""
    return case.run.frames[-1].file.startswith("<frozen importlib") if case.run.frames else True


def _aborted(case: Case) -> Finding:
    subject = (case.subject if _is_importing(case) else None) or "the program"
    return Finding(
        code=ABORT_CODE,
        title=f"native code ended the process on purpose (abort) when {name_of(subject)} was in use",
        confidence=Confidence.LIKELY, subject=subject,
        chain=case.chain_to(case.subject if _is_importing(case) else None, subject),
        explanation=(
            "abort() was called: a check failed, or nobody caught a C++ exception. What it wrote before tells why."
        ),
        evidence=(Evidence(Source.PYTHON, "its faulthandler saw the abort; the exit status is 3"),),
        remedies=(Remedy("read the last lines that the program wrote"),),
    )


def _why(case: Case) -> str:
    if case.run.crash is not None and case.run.crash.code == WINE_STUB:
        return "This is Wine: it ends a program that calls a function which it, or another DLL, does not have."
    return "A crash has its cause in native code: a fault of its own, or DLLs that do not fit together."


def _remedies(is_instruction: bool) -> Iterator[Remedy]:
    if is_instruction:
        yield Remedy("install a build for older processors, or an older version")
    else:
        yield Remedy("bring the packages involved to their newest versions; report it to their makers with this report")


def _delayed_by_name(case: Case, crash: Crash) -> Finding | None:
    """The DLL that the exception itself names; `None` where it could not be read."""
    if crash.wanted is None:
        return None
    wanted, symbol = crash.wanted, crash.wanted_symbol
    requester = crash.wanted_by or case.subject or "the program"
    reason = f" Windows' error was {crash.reason}: {classify_code(crash.reason).meaning}." if crash.reason else ""
    says = f"the exception of the delay-load helper names {wanted}{f' and {symbol}' if symbol else ''}"
    fate = "was not found" if crash.reason in (None, _MOD_NOT_FOUND) else "could not be loaded"
    finding = Finding(
        code=DELAYED_CODE,
        title=f"{wanted}, which {name_of(requester)} loads at its first use, {fate}",
        confidence=Confidence.CERTAIN, subject=wanted, chain=case.chain_to(requester, wanted),
        probes=case.probes_of(wanted),
        explanation=(
            f"{described(case, requester)} can be loaded without {wanted}, and ends the process when it first calls a "
            f"function of it{f', here {symbol}' if symbol else ''}.{reason}"
        ),
        evidence=(Evidence(Source.SYSTEM, f"the process died of {crash.name_and_code}"), Evidence(Source.SYSTEM, says)),
        remedies=(
            *provider_remedies(wanted), Remedy(f"or do without what {name_of(requester)} needs it for"),
        ),
    )  # fmt: skip
    if crash.code == _DELAYED[1]:
        lacking = symbol or "function that is called"
        return replace(
            finding,
            code=DELAYED_SYMBOL_CODE,
            title=f"{wanted} has no {lacking}, which {name_of(requester)} calls",
            chain=case.chain_to(requester, wanted, lacking),
            explanation=(
                f"{described(case, requester)} loads {wanted} at its first use, and the copy that was loaded has no "
                f"{lacking}.{reason}"
            ),
            remedies=(Remedy(f"bring {name_of(requester)} and {wanted} to versions that belong together"),),
        )
    return finding


def _delayed(case: Case) -> Iterator[Finding]:
    """The helper does not say which: the delayed needs that are missing are the ones that it can be."""
    missing = [
        binding
        for binding in (case.tree.bindings if case.tree is not None else ())
        if binding.delayed and binding.state is not BindingState.BOUND and binding.state is not BindingState.SYSTEM
    ]
    for binding in missing:
        yield Finding(
            code=DELAYED_CODE,
            title=f"{binding.need}, which {name_of(binding.requested_by)} loads at its first use, was not found",
            confidence=Confidence.LIKELY, subject=binding.need,
            chain=case.chain_to(binding.requested_by, binding.need), probes=binding.probes,
            explanation=(
                f"{described(case, binding.requested_by)} can be loaded without {binding.need}, and ends the process "
                "when it "
                "first calls a function of it."
            ),
            evidence=(
                Evidence(Source.SYSTEM, "the process died of the exception of Visual C++'s delay-load helper"),
                Evidence(Source.FILES, f"{binding.need} is in none of the places searched"),
            ),
            remedies=(Remedy(f"install what brings {binding.need}, or do without the function that needs it"),),
        )
