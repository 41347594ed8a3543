"""The process died in an import: where, and in whose code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.words import describe_end, signal_name
from ..case import Case
from ..remedies import python_words, reinstall
from .wrong_file import TRUNCATED_CODE

CODE = "crash-in-import"
INITIALISER_CODE = "crash-in-initialiser"
LATER_CODE = "crash"
ABORT_CODE = "abort"
INSTRUCTION_CODE = "illegal-instruction"

_SIGILL, _SIGTRAP, _SIGABRT, _SIGBUS, _SIGFPE, _SIGSEGV, _SIGSYS = 4, 5, 6, 7, 8, 11, 31
_CRASHES = frozenset((_SIGILL, _SIGTRAP, _SIGABRT, _SIGBUS, _SIGFPE, _SIGSEGV, _SIGSYS))
"""Signals by which code of the process itself ends it; signal(7)."""
_UNKNOWN = "the program"
_SHARED = re.compile(
    r"/(?:ld-linux[^/]*|ld-musl[^/]*|libc|libc-\d[^/]*|libm|libpthread|libpython[^/]*|libstdc\+\+|libgcc_s|python[\d.]*)(?:\.so[^/]*)?$"
)
"""Images in which the mistakes of others come out."""
_CUT = re.compile(r"end of the file|cut|beyond|truncated|outside of the file|too short|past", re.IGNORECASE)


def check(case: Case) -> Iterator[Finding]:
    """Where it died."""
    if case.error is not None or case.run.status is None or case.run.status >= 0 or case.run.stopped is not None:
        return
    number = -case.run.status
    if number not in _CRASHES:
        return  # sent from outside: nothing in the process did it
    truncated = list(_truncated(case, number))
    yield from truncated
    if not truncated:
        yield _crash(case, number)


def _truncated(case: Case, number: int) -> Iterator[Finding]:
    """A file shorter than its own headers say: what is not there cannot be read, and the kernel sends SIGBUS."""
    for path, problem in case.damaged.items():
        if number == _SIGBUS or _CUT.search(problem):
            yield Finding(
                code=TRUNCATED_CODE,
                title=f"{path} is cut short",
                confidence=Confidence.CERTAIN if number == _SIGBUS else Confidence.LIKELY, subject=path,
                chain=case.chain_to(None, path),
                explanation=(
                    f"{path}{case.owner_of(path)} is shorter than its own headers say ({problem}). The loader does not "
                    "check that: it maps what is not there, and the process dies when it touches it."
                ),
                evidence=(Evidence(Source.SYSTEM, _how(case)), Evidence(Source.FILES, problem)),
                remedies=(Remedy("fetch the file again: a copy or download was interrupted, or the disk was full"),
                 *reinstall(case.owners.get(path, ()), case.run.process)),
            )  # fmt: skip
            return


def _crash(case: Case, number: int) -> Finding:
    last = case.last_top
    image = case.run.crash.image if case.run.crash is not None else None
    own = image if image is not None and not _SHARED.search(image) else None
    importing = _is_importing(case)
    loaded = last.path if last is not None and importing is not False else None
    speaker = case.speaker if number == _SIGABRT else None
    subject = case.run.initialising or speaker or own or loaded or image or _UNKNOWN
    code = _code(case, number, importing)
    sure = code in (INITIALISER_CODE, *((CODE, INSTRUCTION_CODE) if own is not None else ()))
    return Finding(
        code=code,
        title=_title(case, number, subject, importing),
        confidence=Confidence.CERTAIN if sure else Confidence.LIKELY,
        subject=subject,
        chain=_chain(case, subject, image),
        explanation=_explain(case, number, subject, image),
        evidence=(Evidence(Source.SYSTEM, _how(case)),
         *((Evidence(Source.LOADER, f"the initialiser of {case.run.initialising} had begun, and did not end"),)
           if case.run.initialising else ()),
         *((Evidence(Source.FILES, f"the words that it wrote are in {speaker}"),) if speaker is not None else ())),
        remedies=tuple(_remedies(case, number, subject)),
    )  # fmt: skip


def _chain(case: Case, subject: str, image: str | None) -> tuple[str, ...]:
    """Down to where it died; a library that ended the process itself is the end, and not the abort of libc."""
    if subject != case.speaker:
        return case.chain_to(None, subject, *([image] if image and image != subject else []))
    load = case.load_of(subject)
    return case.chain_to(None, *([load.requested_by] if load is not None and load.requested_by else []), subject)


def _title(case: Case, number: int, subject: str, importing: bool | None) -> str:
    signal = _signal(case, number)
    if subject == case.speaker and subject != case.run.initialising:
        return f"{subject} ended the process ({signal}), {_doing(case, importing)}"
    if subject == case.run.initialising or (case.run.crash is not None and subject == case.run.crash.image):
        return f"the process died in {subject} ({signal}), {_doing(case, importing)}"
    if subject == _UNKNOWN:
        return f"the process died ({signal}), {_doing(case, importing)}"
    if importing is None and case.python_line is None:  # neither where, nor what Python did
        return f"the process died while or after it loaded {subject} ({signal})"
    return f"the process died while it loaded {subject} ({signal}), {_doing(case, importing)}"


def _is_importing(case: Case) -> bool | None:
    """Whether the import system was at work, by the innermost Python line; `None` where that is not known."""
    return case.run.frames[-1].file.startswith("<frozen importlib") if case.run.frames else None


def _code(case: Case, number: int, importing: bool | None) -> str:
    if case.run.initialising:
        return INITIALISER_CODE
    if number == _SIGILL:
        return INSTRUCTION_CODE
    if number == _SIGABRT:
        return ABORT_CODE
    return LATER_CODE if importing is False else CODE


def _doing(case: Case, importing: bool | None) -> str:
    if case.run.initialising:
        return "while its initialiser ran"
    line = case.python_line
    if line is not None:
        return f"while Python was at {line.file}, line {line.line}"
    return "in an import" if importing else "while it ran"


def _signal(case: Case, number: int) -> str:
    return case.run.crash.name if case.run.crash is not None else signal_name(number)


def _how(case: Case) -> str:
    crash = case.run.crash
    if crash is None:
        return f"the process {describe_end(case.run.status or 0)}"
    place = (
        f"in {crash.image} at offset {crash.offset:#x}"
        if crash.image and crash.offset is not None
        else f"at {crash.address:#x}"
    )
    fault = f", address {crash.fault_address:#x}" if crash.fault_address is not None else ""
    return f"{crash.name} {place}{fault}"


def _explain(case: Case, number: int, subject: str, image: str | None) -> str:
    owner = case.owner_of(subject)
    if number == _SIGILL:
        return f"{subject}{owner} has an instruction that this processor does not know: it was built for a newer one."
    if number == _SIGABRT and subject == case.speaker:
        load = case.load_of(subject)
        by = f", which {load.requested_by} needs," if load is not None and load.requested_by else ""
        return f"{subject}{owner}{by} checked something, wrote what it said, and ended the process (abort)."
    if number == _SIGABRT:
        return f"The process ended itself (abort) in code that {subject}{owner} had called: it could not go on."
    text = f"Everything was found and bound; code of {subject}{owner} ran, and failed."
    if image is not None and image != subject:
        text += f" It died in {image}, which it had called."
    return text


def _remedies(case: Case, number: int, subject: str) -> Iterator[Remedy]:
    if number == _SIGILL:
        yield Remedy("take a build for the processor at hand, or an older version of the package")
    else:
        yield Remedy(
            "see where exactly, with the symbols",
            ("gdb", "-batch", "-ex", "run", "-ex", "bt", "--args", *python_words(case)),
        )
    if _SHARED.search(subject):
        return  # its makers are the last to ask: what they were given was wrong
    for owner in case.owners.get(subject, ())[:1]:
        yield Remedy(f"tell the makers of {owner.package}, with this report")
