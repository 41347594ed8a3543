"""Windows: the process died while native code ran."""

from __future__ import annotations

from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import BindingState
from ..case import Case
from ..codes import classify_code
from ..windows_load import WINE_STUB, described, is_of_windows, name_of
from . import vc_runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model.crash import Crash

CODE = "crash-in-import"
LATER_CODE = "crash"
ABORT_CODE = "abort"
INSTRUCTION_CODE = "illegal-instruction"
DELAYED_CODE = "missing-delayed-image"

_ILLEGAL_INSTRUCTION, _FAIL_FAST = 0xC000001D, 0xC0000409
_DELAYED = (0xC06D007E, 0xC06D007F)
"""What the delay-load helper raises (delayimp.h): a DLL, or a function of one, that was not found."""
_ABORTED = "Fatal Python error: Aborted"
"""What Python's faulthandler writes when abort() is called; the C runtime then ends the process with status 3."""


def check(case: Case) -> Iterator[Finding]:
    """Where it died, and what was being imported."""
    if case.run.crash is None:
        if case.error is None and case.run.status == 3 and _ABORTED in case.run.output.text:
            yield _aborted(case)
        return
    if case.run.crash.code in _DELAYED:
        yield from _delayed(case)
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
