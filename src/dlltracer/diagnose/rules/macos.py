"""Rules about macOS: what dyld's own words say, with the files where they are here.

Written from dyld's sources and from reports of users. dlltracer has not been run on a Mac yet.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ...model.environment import is_libpython
from ...model.events import Phase, Probe, ProbeOutcome
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import BindingState
from ..case import Case
from ..dyld_messages import DyldError, DyldProblem, classify_dyld, is_of_dyld
from ..remedies import PYTHON, operand, python_words, reinstall

MISSING_CODE = "missing-image"
NO_FILE_CODE = "no-such-file"
RUNTIME_CODE = "missing-at-runtime"
LIBPYTHON_CODE = "other-libpython"
SYMBOL_CODE = "missing-symbol"
PYTHON_API_CODE = "python-api-missing"
LIBRARY_PATH_CODE = "library-path-wins"
MACHINE_CODE = "wrong-machine"
SYSTEM_CODE = "macos-too-old"
VERSION_CODE = "image-too-old"
VALIDATION_CODE = "library-validation"
POLICY_CODE = "blocked-by-policy"
SIGNATURE_CODE = "signature-invalid"
SANDBOX_CODE = "sandboxed"
RELATIVE_CODE = "relative-need"
DUPLICATE_CODE = "duplicate-load-command"
TRUNCATED_CODE = "truncated-image"
IMAGE_CODE = "not-an-image"
PLATFORM_CODE = "other-system-image"
LIBRARY_CODE = "not-a-library"
DAMAGED_CODE = "damaged-image"
UNREADABLE_CODE = "unreadable-image"

_SYSTEM = ("/usr/lib/", "/System/")
_PYTHON_API = re.compile(r"__?_?Py[A-Z_]")
_FORMULA = re.compile(r"/(?:opt/homebrew|usr/local)/(?:opt|Cellar)/([a-z0-9][\w@.+-]{0,60})/")
_PREFIXES = {"/opt/homebrew/": "Homebrew for Apple processors", "/usr/local/": "Homebrew for Intel, or by hand",
             "/opt/local/": "MacPorts"}  # fmt: skip

_REFUSALS: dict[DyldProblem, tuple[str, str, str]] = {
    DyldProblem.ARCHITECTURE: (MACHINE_CODE, "is for another processor than this process", ""),
    DyldProblem.TOO_NEW: (
        SYSTEM_CODE, "was linked for a newer macOS than this one",
        "It has a load command that dyld of this macOS does not know.",
    ),
    DyldProblem.OLD_VERSION: (
        VERSION_CODE, "is older than the one that its requester was linked with",
        "Up to macOS 11 dyld compares the compatibility versions of libraries.",
    ),
    DyldProblem.VALIDATION: (
        VALIDATION_CODE, "is not of the signer of this program, which takes no other libraries",
        "The program has the hardened runtime without the entitlement disable-library-validation.",
    ),
    DyldProblem.POLICY: (
        POLICY_CODE, "is in quarantine, and Gatekeeper refused it",
        "A browser or another program marked it as downloaded (com.apple.quarantine).",
    ),
    DyldProblem.SIGNATURE: (
        SIGNATURE_CODE, "has no valid code signature",
        "It was changed after it was signed, or never signed. Code for arm64 needs one, at least an ad hoc one.",
    ),
    DyldProblem.SANDBOX: (
        SANDBOX_CODE, "may not be opened in the sandbox of this process",
        "The profile of the sandbox does not allow that folder.",
    ),
    DyldProblem.RELATIVE: (
        RELATIVE_CODE, "is named by a path that a hardened program does not take",
        "The hardened runtime takes no relative paths, and no @ paths from unsafe places.",
    ),
    DyldProblem.DUPLICATE: (
        DUPLICATE_CODE, "has a structure that this macOS refuses",
        "macOS 15.4 and later refuse images with a load command twice.",
    ),
    DyldProblem.TRUNCATED: (TRUNCATED_CODE, "is cut short", "The file ends before what its header promises."),
    DyldProblem.NOT_AN_IMAGE: (
        IMAGE_CODE, "is no Mach-O file", "It is of another system, a text, or not the file itself.",
    ),
    DyldProblem.PLATFORM: (
        PLATFORM_CODE, "was built for another system of Apple", "It is for a simulator, iOS or Mac Catalyst.",
    ),
    DyldProblem.NOT_A_LIBRARY: (LIBRARY_CODE, "is a program or a bundle, and no library", ""),
    DyldProblem.DAMAGED: (DAMAGED_CODE, "is damaged", ""),
    DyldProblem.UNREADABLE: (UNREADABLE_CODE, "may not be read", ""),
}  # fmt: skip
"""Code, what is wrong as the end of a title, and why that is so."""


def check(case: Case) -> Iterator[Finding]:
    """Yield the finding about the failure that dyld reports in the exception, or as its last word on stderr."""
    text = _message_of(case)
    if text is None:
        return
    error = classify_dyld(text)
    if error.problem is DyldProblem.MISSING:
        yield _missing(error, case)
    elif error.problem is DyldProblem.MISSING_SYMBOL:
        yield _symbol(error, case)
    elif error.problem in _REFUSALS:
        yield _refused(error, case)


def _message_of(case: Case) -> str | None:
    if case.error is not None:
        return case.error.message if is_of_dyld(case.error.message) else None
    lines = case.run.output.stderr
    at = max((match.start() for match in re.finditer(r"^dyld(?:\[\d+\])?: ", lines, re.MULTILINE)), default=-1)
    return lines[at:] if at >= 0 and is_of_dyld(lines[at:]) else None


def _missing(error: DyldError, case: Case) -> Finding:
    name = error.library or error.asked or "an image"
    needed = error.requested_by
    code, why, remedies = _why_missing(name, error, case)
    by = f", which {needed} needs" if needed else ""
    others = _also_missing(case, name)
    return _finding(
        code, f"{posixpath.basename(name) or name} was not found", name, error, case,
        f"dyld did not find {name}{by}. {why}".strip(), remedies,
        [Evidence(Source.FILES, f"also missing, by the files: {', '.join(others)}")] if others else [],
    )  # fmt: skip


def _why_missing(name: str, error: DyldError, case: Case) -> tuple[str, str, tuple[Remedy, ...]]:
    """Return the code, why a library was not found, and what helps."""
    owners = tuple(reinstall(case, error.requested_by))
    if is_libpython(name):
        why = "It is a library of another Python: the module was linked with it, and this Python has none there."
        return LIBPYTHON_CODE, why, (Remedy("Take a build of the package that is not linked with libpython."), *owners)
    if error.requested_by is None and error.asked is not None:
        return _why_asked(name, case)
    if name.startswith("@rpath/"):
        why = "It is in none of the folders of LC_RPATH that the images on the way to it have."
        if "no LC_RPATH" in error.reason:
            why = "No image on the way to it has an LC_RPATH, so @rpath leads nowhere."
        add = ("install_name_tool", "-add_rpath", "@loader_path", operand(error.requested_by or "FILE"))
        return MISSING_CODE, why, (*owners, Remedy("Where the library is beside the file, let the file say so.", add))
    if name.startswith("/"):
        return MISSING_CODE, *_absolute(name, owners)
    is_relative = not name.startswith("@")
    why = "The need is a relative path: it is found from one current folder only." if is_relative else ""
    return RELATIVE_CODE if is_relative else MISSING_CODE, why, owners


def _why_asked(name: str, case: Case) -> tuple[str, str, tuple[Remedy, ...]]:
    """Return the same for what dlopen itself was asked for."""
    if "/" in name:
        return NO_FILE_CODE, "Nothing is at that path.", ()
    fallback = ("env", "DYLD_FALLBACK_LIBRARY_PATH=/opt/homebrew/lib", *python_words(case))
    say = "Give the whole path, or name the folder; programs of the system and hardened ones drop the variable."
    return RUNTIME_CODE, "dyld searches no folder of Homebrew or MacPorts for a plain name.", (Remedy(say, fallback),)


def _absolute(name: str, owners: tuple[Remedy, ...]) -> tuple[str, tuple[Remedy, ...]]:
    formula = _FORMULA.search(name)
    place = next((words for prefix, words in _PREFIXES.items() if name.startswith(prefix)), None)
    if place is not None:
        why = f"The path is one of {place}: the file was not made to be used on other machines."
    else:
        why = "The path is one of the machine that built the file."
    install = (Remedy(
        "Install the library, for the processor of this Python.", ("brew", "install", formula[1])),
    ) if formula is not None else ()  # fmt: skip
    return why, (*install, *owners, Remedy("Take a newer or another build of the package, which brings the library."))


def _also_missing(case: Case, name: str) -> list[str]:
    """Return the other needs that the files lack: dyld stops at the first."""
    if case.tree is None:
        return []
    lost = [one.need for one in case.tree.bindings if one.state is BindingState.MISSING and one.need != name]
    return list(dict.fromkeys(lost))[:5]


def _symbol(error: DyldError, case: Case) -> Finding:
    symbol, needed, library = error.symbol or "", error.requested_by or error.asked or "", error.expected_in
    owners = tuple(reinstall(case, needed))
    newer = error.built_for is not None
    evidence = [Evidence(Source.LOADER, f"{needed} was built for macOS {error.built_for}")] if newer else []
    if library is not None and library.startswith(_SYSTEM):
        code, title = SYSTEM_CODE, f"{posixpath.basename(needed)} needs a newer macOS than this one"
        why = f"{library} of this macOS has no {symbol}."
        owners += (Remedy("Take an older version of the package, which was made for this macOS, or update macOS."),)
    elif library is not None and posixpath.dirname(library) in _library_path(case):
        code, title = LIBRARY_PATH_CODE, f"DYLD_LIBRARY_PATH puts {library} in the place of another library"
        why = f"The variable wins over every path, those of the system too, and that copy has no {symbol}."
        owners = (Remedy("Unset the variable.", ("env", "-u", "DYLD_LIBRARY_PATH", *python_words(case))),)
    elif library is None and _PYTHON_API.match(symbol):
        code, title = PYTHON_API_CODE, f"{posixpath.basename(needed)} was built for another Python"
        why = f"This Python has no {symbol.removeprefix('_')}."
    elif library is None:
        code, title = SYMBOL_CODE, f"nothing that is loaded has {symbol}"
        why = "The library that has it was not linked when the module was built, perhaps for this processor only."
        owners += (Remedy("Take another version of the package, or build it from source.", ()),)
    else:
        code, title = SYMBOL_CODE, f"{library} lacks {symbol}"
        why = f"The library does not belong to {needed}: it is of another version or another source."
        owners += tuple(reinstall(case, library))
    return _finding(code, title, library or needed or symbol, error, case, why, owners, evidence)


def _library_path(case: Case) -> set[str]:
    values = dict(case.run.process.environment) if case.run.process is not None else {}
    return {folder.rstrip("/") for folder in values.get("DYLD_LIBRARY_PATH", "").split(":") if folder}


def _refused(error: DyldError, case: Case) -> Finding:
    path = error.library or error.asked or "the file"
    code, end, why = _REFUSALS[error.problem]
    owners = tuple(reinstall(case, path))
    if error.problem is DyldProblem.ARCHITECTURE:
        why = _why_architecture(error)
        owners = (*owners, _architecture_remedy(error, case))
    make = _REMEDIES.get(error.problem)
    remedies = (*(make(path, error.reason) if make is not None else ()), *owners)
    by = f", which {error.requested_by} needs" if error.requested_by and error.requested_by != path else ""
    explanation = f"dyld found {path}{by}, and refused it. {why}".strip()
    return _finding(code, f"{posixpath.basename(path) or path} {end}", path, error, case, explanation, remedies, [])


def _why_architecture(error: DyldError) -> str:
    if error.has is None:
        return "The file has no image for the processor that this process runs on."
    wanted = "arm64" if (error.wanted or "").startswith("arm64e") else error.wanted
    why = f"It has {error.has}, and the process needs {wanted}."
    if error.has == "arm64" and wanted == "x86_64":
        why += " On an Apple processor Rosetta then translates the process, since what started it is for Intel."
    return why


def _architecture_remedy(error: DyldError, case: Case) -> Remedy:
    if error.has == "arm64" and error.wanted == "x86_64":
        executable = case.run.process.executable if case.run.process is not None else PYTHON
        return Remedy("Start the Python natively.", ("arch", "-arm64", operand(executable)))
    say = "Install the package again with the Python that is to import it, without pip's cache"
    return Remedy(f"{say}: python -m pip install --force-reinstall --no-cache-dir PACKAGE")


def _signed(path: str, _: str) -> tuple[Remedy, ...]:
    sign = ("codesign", "--force", "--sign", "-", operand(path))
    return (Remedy("If you trust the file, sign it anew, for this machine.", sign),)


def _unquarantined(path: str, _: str) -> tuple[Remedy, ...]:
    remove = ("xattr", "-d", "com.apple.quarantine", operand(path))
    return (Remedy("If you trust the file, take the mark away.", remove),)


def _without_duplicate(path: str, reason: str) -> tuple[Remedy, ...]:
    match = re.search(r"duplicate LC_RPATH '([^']{1,500})'", reason)
    update = Remedy("Update the package of the file: newer builds have the command once.")
    if match is None:
        return (update,)
    return (update, Remedy(
        "Take one of the two away; afterwards the file must be signed again.",
        ("install_name_tool", "-delete_rpath", match[1], operand(path)),
    ))  # fmt: skip


def _other_python(path: str, reason: str) -> tuple[Remedy, ...]:
    return (Remedy("Take a Python that loads libraries of other signers: that of python.org, Homebrew or conda."),)


_REMEDIES = {
    DyldProblem.SIGNATURE: _signed, DyldProblem.POLICY: _unquarantined, DyldProblem.DUPLICATE: _without_duplicate,
    DyldProblem.VALIDATION: _other_python,
}  # fmt: skip


def _finding(
    code: str, title: str, subject: str, error: DyldError, case: Case, explanation: str,
    remedies: tuple[Remedy, ...], evidence: list[Evidence],
) -> Finding:  # fmt: skip
    words = error.reason or (case.error.message.partition("\n")[0] if case.error is not None else "")
    return Finding(
        code=code, title=title, confidence=Confidence.CERTAIN, subject=subject, explanation=explanation,
        chain=tuple(dict.fromkeys(filter(None, (error.asked, error.requested_by, subject)))),
        probes=tuple(
            Probe(place.path, Phase.OTHER, outcome=_outcome(place.reason), reason=place.reason) for place in error.tried
        ),
        evidence=(*((Evidence(Source.LOADER, words),) if words else ()), *evidence), remedies=remedies,
    )  # fmt: skip


def _outcome(reason: str) -> ProbeOutcome:
    return ProbeOutcome.ABSENT if reason.startswith("no such file") else ProbeOutcome.PRESENT
