"""A process that crashed in native code: by a signal, or by an exception of Windows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ...model.failure import (
    CRASH_SIGNALS,
    DELAY_LOAD,
    FUNCTION_NOT_FOUND,
    GNU_CPP,
    SIGABRT,
    SIGBUS,
    SIGILL,
    STACK_OVERFLOW,
    VISUAL_CPP,
    Crash,
)
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import BindingState
from ...model.words import describe_end, signal_name
from ..case import Case
from ..mangled import demangle
from ..remedies import python_words, reinstall
from ..windows_load import WINE_STUB, classify_code, described, is_of_windows, name_of, provider_remedies
from . import win_symbols
from .own_words import fatal_message
from .wrong_file import DAMAGE, TRUNCATED_CODE, damaged, rewritten

CODE = "crash-in-import"
INITIALISER_CODE = "crash-in-initialiser"
LATER_CODE = "crash"
ABORT_CODE = "abort"
INSTRUCTION_CODE = "illegal-instruction"

KILLED_CODE = "killed"

_SIGKILL = 9
_UNKNOWN = "the program"
_SHARED = re.compile(
    r"/(?:ld-linux[^/]*|ld-musl[^/]*|libc|libc-\d[^/]*|libm|libpthread|libpython[^/]*|libstdc\+\+|libgcc_s|python[\d.]*)(?:\.so[^/]*)?$"
)
"""Images that crash because of mistakes in other images."""
_CUT = re.compile(r"end of the file|cut|beyond|truncated|outside of the file|too short|past", re.IGNORECASE)


def check_signal(case: Case) -> Iterator[Finding]:
    """Yield the finding about the place of a crash by a signal."""
    if case.error is not None or case.run.status is None or case.run.status >= 0 or case.run.stopped is not None:
        return
    number = -case.run.status
    if number == _SIGKILL:
        yield _killed(case)
    if number not in CRASH_SIGNALS:
        return  # sent from outside: nothing in the process did it
    if number == SIGABRT and fatal_message(case) is not None:
        return
    truncated = list(_truncated(case, number))
    yield from truncated
    if not truncated:
        yield _crash(case, number)


def _killed(case: Case) -> Finding:
    """Return the finding about SIGKILL, which no program can catch: the kernel sends it where memory runs out."""
    last = case.last_top
    importing = last.imports[-1] if last is not None and last.imports else None
    loaded = last.path if last is not None and importing is not None else None
    while_ = f" while or after it imported {importing}" if importing else ""
    return Finding(
        code=KILLED_CODE,
        title=f"the process was killed (SIGKILL){while_}: mostly the kernel does that, for want of memory",
        confidence=Confidence.POSSIBLE,
        subject=loaded or case.what,
        chain=case.chain_to(None, *([loaded] if loaded else [])),
        explanation="SIGKILL comes from outside. The kernel sends it when the machine or the container has no memory "
        "left (OOM killer); a job system or a supervisor sends it at a limit of theirs. No loader had a part in it.",
        evidence=(Evidence(Source.SYSTEM, _how(case)),),
        remedies=(
            Remedy("see whether the kernel did it, for want of memory", ("dmesg",)),
            Remedy("give the container or the job more memory: docker run --memory, resources.limits.memory, --mem"),
        ),
    )


def _truncated(case: Case, number: int) -> Iterator[Finding]:
    """Yield the finding about a truncated file: the kernel sends SIGBUS when code reads behind its end."""
    for path, problem in case.damaged.items():
        if "(CR LF)" in problem:
            yield rewritten(path, case)
            return
        if problem.startswith(DAMAGE):
            yield damaged(path, case, Confidence.LIKELY)
            return
        if number == SIGBUS or _CUT.search(problem):
            yield Finding(
                code=TRUNCATED_CODE,
                title=f"{path} is cut short",
                confidence=Confidence.CERTAIN if number == SIGBUS else Confidence.LIKELY, subject=path,
                chain=case.chain_to(None, path),
                explanation=(
                    f"{path}{case.owner_of(path)} is shorter than its own headers say ({problem}). The loader does not "
                    "check that: it maps what is not there, and the process dies when it touches it."
                ),
                evidence=(Evidence(Source.SYSTEM, _how(case)), Evidence(Source.FILES, problem)),
                remedies=(Remedy("fetch the file again: a copy or download was interrupted, or the disk was full"),
                 *reinstall(case, path)),
            )  # fmt: skip
            return


def _crash(case: Case, number: int) -> Finding:
    last = case.last_top
    image = case.run.crash.image if case.run.crash is not None else None
    own = image if image is not None and not _SHARED.search(image) else None
    importing = _is_importing(case)
    loaded = last.path if last is not None and importing is not False else None
    speaker = case.speaker if number == SIGABRT else None
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
    """Return the chain to the place of the crash. A library that calls abort() is its end, not the libc."""
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
    """Return whether an import was in progress, by the innermost Python line; `None` if that is not known."""
    return case.run.frames[-1].file.startswith("<frozen importlib") if case.run.frames else None


def _code(case: Case, number: int, importing: bool | None) -> str:
    if case.run.initialising:
        return INITIALISER_CODE
    if number == SIGILL:
        return INSTRUCTION_CODE
    if number == SIGABRT:
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
    if number == SIGILL:
        return f"{subject}{owner} has an instruction that this processor does not know: it was built for a newer one."
    if number == SIGABRT and subject == case.speaker:
        load = case.load_of(subject)
        by = f", which {load.requested_by} needs," if load is not None and load.requested_by else ""
        return f"{subject}{owner}{by} found a failed check, wrote a message, and ended the process (abort)."
    if number == SIGABRT:
        return f"The process ended itself (abort) in code that {subject}{owner} had called: it could not go on."
    if _is_stack_overflow(case):
        return (
            f"Everything was found and bound; code of {subject}{owner} ran, and needed more stack than its thread has. "
            f"{_stack_of_threads(case)} The program's first thread has what `ulimit -s` says."
        )
    text = f"Everything was found and bound; code of {subject}{owner} ran, and failed."
    if image is not None and image != subject:
        text += f" It died in {image}, which it had called."
    return text


def _is_stack_overflow(case: Case) -> bool:
    return case.run.crash is not None and STACK_OVERFLOW in case.run.crash.name


def _stack_of_threads(case: Case) -> str:
    """Return how large the stacks of threads are that nobody gave a size (pthread_attr_setstacksize(3))."""
    if case.c_library.name == "musl":
        return "musl gives a thread 128 KiB, and Python's own threads there mostly have 1 MiB: glibc gives them 8 MiB."
    return "glibc gives a thread what `ulimit -s` says, mostly 8 MiB."


def _remedies(case: Case, number: int, subject: str) -> Iterator[Remedy]:
    if _is_stack_overflow(case):
        yield Remedy(
            "give threads a larger stack, before they are started",
            code="import threading; threading.stack_size(64 << 20)",
        )
        yield Remedy("for the program's first thread: a larger limit, in the shell that starts it (ulimit -s)")
    if number == SIGILL:
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


DELAYED_CODE = "missing-delayed-image"
DELAYED_SYMBOL_CODE = "missing-delayed-symbol"
THROWN_CODE = "cpp-exception"

_ILLEGAL_INSTRUCTION, _FAIL_FAST = 0xC000001D, 0xC0000409
_MOD_NOT_FOUND = 126
_ABORTED = "Fatal Python error: Aborted"
"""Python's faulthandler writes this when abort() is called; the C runtime then ends the process with status 3."""


def check_exception(case: Case) -> Iterator[Finding]:
    """Yield the finding about a crash by an exception of Windows: its place, and the import in progress."""
    if (case.run.crash is None or case.run.crash.code == _FAIL_FAST) and fatal_message(case) is not None:
        return
    if case.run.crash is None:
        if case.error is None and case.run.status == 3 and _ABORTED in case.run.output.text:
            yield _aborted(case)
        return
    if case.run.crash.code in DELAY_LOAD:
        named = _delayed_by_name(case, case.run.crash)
        if named is not None:
            yield named
            return
        yield from _delayed(case)
    if case.run.crash.code in (VISUAL_CPP, GNU_CPP):
        yield _thrown(case, case.run.crash)
        return
    if case.run.crash.code == WINE_STUB and (case.symbols or case.forwarders):
        return  # the cause is known, and this is how it shows
    if any(finding.confidence is not Confidence.POSSIBLE for finding in win_symbols.check_runtime(case)):
        return
    finding = _died(case, case.run.crash)
    if finding is not None:
        yield finding


def _died(case: Case, crash: Crash) -> Finding | None:
    offset = f" at offset {crash.offset:#x}" if crash.offset is not None else ""
    where = f"{crash.image}{offset}" if crash.image else "code of no known image"
    # Windows' own files are where an exception is raised, seldom where the fault is.
    is_inside = crash.image is not None and not is_of_windows(crash.image) and crash.code != WINE_STUB
    is_importing = _is_windows_importing(case)
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
        remedies=tuple(_windows_remedies(is_instruction)),
    )


def _thrown(case: Case, crash: Crash) -> Finding:
    """Return the finding about a C++ exception without a handler. Python cannot catch one; an extension module must."""
    kind = cplusplus_name(crash.thrown) if crash.thrown else None
    what = f"a C++ exception{f' of type {kind}' if kind else ''}"
    words = f" Its text: {crash.message}" if crash.message else ""
    is_importing = _is_windows_importing(case)
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


def _is_windows_importing(case: Case) -> bool:
    """Return whether an import was in progress, by the innermost Python line; true if that is not known."""
    return case.run.frames[-1].file.startswith("<frozen importlib") if case.run.frames else True


def _aborted(case: Case) -> Finding:
    subject = (case.subject if _is_windows_importing(case) else None) or "the program"
    return Finding(
        code=ABORT_CODE,
        title=f"native code ended the process on purpose (abort) when {name_of(subject)} was in use",
        confidence=Confidence.LIKELY, subject=subject,
        chain=case.chain_to(case.subject if _is_windows_importing(case) else None, subject),
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


def _windows_remedies(is_instruction: bool) -> Iterator[Remedy]:
    if is_instruction:
        yield Remedy("install a build for older processors, or an older version")
    else:
        yield Remedy("bring the packages involved to their newest versions; report it to their makers with this report")


def _delayed_by_name(case: Case, crash: Crash) -> Finding | None:
    """Return the finding about the DLL that the exception names; `None` if its name could not be read."""
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
    if crash.code == FUNCTION_NOT_FOUND:
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
    """Yield findings about all missing delayed needs, because the helper did not name the one."""
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
