"""Windows: a file that is there and is not an image for this process."""

from __future__ import annotations

from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import Binding, BindingState
from ..case import Case
from ..codes import LoadError
from ..remedies import operand
from ..windows_load import code_evidence, firmness, load_error, name_of, reinstall

MACHINE_CODE = "wrong-machine"
CODE = "not-an-image"
TRUNCATED_CODE = "truncated-image"
DAMAGED_CODE = "damaged-image"
UNREADABLE_CODE = "unreadable-image"

_CUT = ("cut short", "beyond the end", "ends before")
_OTHER = ("not a PE file", "a Linux library", "not a file", "empty")

_FITTING = (LoadError.BAD_IMAGE, LoadError.NOT_FOUND, LoadError.UNKNOWN, LoadError.ACCESS_DENIED)


def check(case: Case) -> Iterator[Finding]:
    """The file that was asked for, or one that it needs."""
    error = load_error(case)
    if error not in _FITTING:
        return
    for path, problem in case.damaged.items() if error is not LoadError.NOT_FOUND else ():
        yield _damaged(case, path, problem, firmness(case), case.chain_to(None, path))
    for binding in case.failed_bindings(BindingState.REFUSED):
        # A need that is refused is a need that was not found, to some loaders.
        confidence = Confidence.LIKELY if error is LoadError.NOT_FOUND else firmness(case)
        yield _refused(case, binding, confidence)


def _refused(case: Case, binding: Binding, confidence: Confidence) -> Finding:
    path, reason = binding.path or binding.need, binding.reason or "it is not an image for this process"
    chain = case.chain_to(binding.requested_by or None, path)
    if "access denied" in reason:
        return Finding(
            code=UNREADABLE_CODE,
            title=f"{path} may not be read",
            confidence=confidence,
            subject=path,
            chain=chain,
            probes=binding.probes,
            explanation=f"{_whose(case, path)} is there, and this user may not read it.",
            evidence=(*code_evidence(case), Evidence(Source.FILES, reason)),
            remedies=(Remedy("look at its permissions", ("icacls", operand(path))),),
        )
    if not reason.startswith("made for"):
        return _damaged(case, path, reason, confidence, chain, binding)
    return Finding(
        code=MACHINE_CODE,
        title=f"{name_of(path)} is for another kind of processor: {reason}",
        confidence=confidence, subject=path, chain=chain, probes=binding.probes,
        explanation=(
            f"{_whose(case, path)} is {reason}. 32-bit and 64-bit, and different processors, cannot be mixed in one "
            "process, and no other copy for this one was found where the loader looks."
        ),
        evidence=(*code_evidence(case), Evidence(Source.FILES, f"{path}: {reason}")),
        remedies=(
            Remedy("install the package with the pip of this very Python, or use a Python of the kind the file is for"),
            *reinstall(case, path),
        ),
    )


def _damaged(
    case: Case, path: str, problem: str, confidence: Confidence, chain: tuple[str, ...], binding: Binding | None = None
) -> Finding:
    return Finding(
        code=_kind(problem),
        title=f"{name_of(path)} is no DLL, or not a whole one: {problem.rpartition('): ')[2]}",
        confidence=confidence,
        subject=path,
        chain=chain,
        probes=binding.probes if binding is not None else (),
        explanation=f"{_whose(case, path)} is there, and Windows cannot load it: {problem}.",
        evidence=(*code_evidence(case), Evidence(Source.FILES, f"{path}: {problem}")),
        remedies=(*reinstall(case, path), Remedy("replace the file with a whole one, from where it came")),
    )


def _kind(problem: str) -> str:
    """Which code fits what is wrong with a file, in the words of the readers of images."""
    if any(words in problem for words in _OTHER):
        return CODE
    return TRUNCATED_CODE if any(words in problem for words in _CUT) else DAMAGED_CODE


def _whose(case: Case, path: str) -> str:
    return f"{path}{case.owner_of(path)}"
