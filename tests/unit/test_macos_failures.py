"""dyld's words, as people posted them (paths shortened), and the verdict on each."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.failed_case import import_error, process
from dlltracer.api.explain import build_case, is_loader_failure
from dlltracer.diagnose.dyld_messages import DyldProblem, classify_dyld, is_of_dyld
from dlltracer.diagnose.engine import diagnose
from dlltracer.model.failure import System
from dlltracer.model.finding import Diagnosis, Outcome
from dlltracer.model.run import ProgramOutput, RunResult

MOST_SECONDS = 5.0
"""For any input (SECURITY.md); a machine may be slow, and the time is that of the processor."""

UUID = "<4C4C44A5-5555-3144-A13D-6E8E1C8A2F1B>"
EXT = "/v/lib/python3.11/site-packages/pkg/ext.cpython-311-darwin.so"
CRYPTEX = "/System/Volumes/Preboot/Cryptexes/OS"
MAC = process(system=System.OTHER, suffixes=(".cpython-311-darwin.so", ".abi3.so", ".so"))

OLD, NEW = f"dlopen({EXT}, 2): ", f"dlopen({EXT}, 0x0002): "


def old_missing(name: str, requester: str = EXT, reason: str = "image not found") -> str:
    return f"{OLD}Library not loaded: {name}\n  Referenced from: {requester}\n  Reason: {reason}"


def new_missing(name: str, tried: str, requester: str = EXT) -> str:
    return f"{NEW}Library not loaded: {name}\n  Referenced from: {UUID} {requester}\n  Reason: {tried}"


def symbol(name: str, expected: str, requester: str = EXT, more: str = "") -> str:
    head = f"{NEW}Symbol not found: {name}\n  Referenced from: {UUID} {requester}{more}\n"
    return f"{head}  Expected in:     {UUID} {expected}"


def tried(path: str, reason: str) -> str:
    return f"tried: '{path}' ({reason}), '{CRYPTEX}{path}' (no such file), '{path}' ({reason})"


ARM = "mach-o file, but is an incompatible architecture (have 'x86_64', need 'arm64')"
NO_HASH = (
    f"code signature in {UUID} '{EXT}' not valid for use in process: mapped file has no cdhash, completely unsigned? "
    "Code has to be at least ad-hoc signed."
)
HOMEBREW = "/opt/homebrew/opt/libxmlsec1/lib/libxmlsec1-openssl.1.dylib"

P = DyldProblem
CASES: list[tuple[str, str, str, P]] = [
    # macOS 10.13 to 11
    (old_missing("/usr/local/opt/libpng/lib/libpng16.16.dylib"), "missing-image", "brew install libpng", P.MISSING),
    (old_missing("/tmp/pip-build-x/libdynet.dylib"), "missing-image", "machine that built", P.MISSING),
    (old_missing("@rpath/librsync.2.dylib"), "missing-image", "LC_RPATH", P.MISSING),
    (old_missing("libdarknet.so"), "relative-need", "current folder", P.MISSING),
    (
        old_missing("/opt/local/lib/libtiff.5.dylib", reason="Incompatible library version: _imaging.so requires "
                    "version 11.0.0 or later, but libtiff.5.dylib provides version 10.0.0"),
        "image-too-old", "11.0.0", P.OLD_VERSION,
    ),
    (
        f"{OLD}no suitable image found.  Did find:\n\t{EXT}: mach-o, but wrong architecture\n\t{EXT}: mach-o, but "
        "wrong architecture", "wrong-machine", "another processor", P.ARCHITECTURE,
    ),
    (
        f"{OLD}no suitable image found.  Did find:\n\t{EXT}: unknown file type, first eight bytes: 0x7F 0x45 0x4C 0x46 "
        "0x02 0x01 0x01 0x00", "not-an-image", "no Mach-O", P.NOT_AN_IMAGE,
    ),
    (
        f"{OLD}no suitable image found.  Did find:\n\tfile system sandbox blocked open() of '{EXT}'", "sandboxed",
        "sandbox", P.SANDBOX,
    ),
    (
        f"{OLD}Symbol not found: ____chkstk_darwin\n  Referenced from: {EXT} (which was built for Mac OS X 11.0)\n"
        f"  Expected in: /usr/lib/libSystem.B.dylib\n in {EXT}", "macos-too-old", "built for macOS 11.0",
        P.MISSING_SYMBOL,
    ),
    (
        f"{OLD}Symbol not found: _PyBytes_AsString\n  Referenced from: {EXT}\n  Expected in: flat namespace\n in {EXT}",
        "python-api-missing", "PyBytes_AsString", P.MISSING_SYMBOL,
    ),
    (f"{OLD}cannot load 'ext.so' (load command 0x80000034 is unknown)", "macos-too-old", "newer macOS", P.TOO_NEW),
    (
        f"{OLD}no suitable image found.  Did find:\n\t{EXT}: code signature in ({EXT}) not valid for use in process "
        "using Library Validation: mapped file has no cdhash, completely unsigned? Code has to be signed.",
        "library-validation", "signer", P.VALIDATION,
    ),
    # macOS 12
    (
        f"{NEW}Library not loaded: '/usr/local/opt/libomp/lib/libomp.dylib'\n  Referenced from: '{EXT}'\n  Reason: "
        "tried: '/usr/local/opt/libomp/lib/libomp.dylib' (no such file), '/usr/lib/libomp.dylib' (no such file)",
        "missing-image", "brew install libomp", P.MISSING,
    ),
    (
        f"{NEW}tried: '{EXT}' (mach-o file, but is an incompatible architecture (have (x86_64), need (arm64e)))",
        "wrong-machine", "needs arm64.", P.ARCHITECTURE,
    ),
    (f"{NEW}symbol not found in flat namespace (_PyDescr_IsData)", "python-api-missing", "another Python",
     P.MISSING_SYMBOL),
    (
        f"{NEW}Symbol not found: (_mkfifoat)\n  Referenced from: '/v/lib.dylib'\n  Expected in: "
        "'/usr/lib/libSystem.B.dylib'", "macos-too-old", "_mkfifoat", P.MISSING_SYMBOL,
    ),
    # macOS 13 and later
    (new_missing(HOMEBREW, tried(HOMEBREW, "no such file")), "missing-image", "brew install libxmlsec1",
     P.MISSING),
    (new_missing("@rpath/libgfortran.5.dylib", "no LC_RPATH's found"), "missing-image", "No image on the way",
     P.MISSING),
    (
        new_missing("@rpath/libgfortran.5.dylib", "tried: '/v/lib/libgfortran.5.dylib' (duplicate LC_RPATH "
                    "'@loader_path'), '/w/libgfortran.5.dylib' (no such file)", "/v/lib/libopenblas.0.dylib"),
        "duplicate-load-command", "-delete_rpath @loader_path", P.DUPLICATE,
    ),
    (new_missing("@rpath/Python", "tried: './Python' (no such file)"), "other-libpython", "libpython", P.MISSING),
    (f"{NEW}{tried(EXT, ARM)}", "wrong-machine", "x86_64", P.ARCHITECTURE),
    (
        f"{NEW}{tried(EXT, ARM.replace('x86_64', 'A').replace('arm64', 'x86_64').replace('A', 'arm64'))}",
        "wrong-machine", "arch -arm64", P.ARCHITECTURE,
    ),
    (
        f"{NEW}tried: '{EXT}' (fat file, but missing compatible architecture (have 'x86_64,i386', need 'arm64e' or "
        "'arm64'))", "wrong-machine", "x86_64,i386", P.ARCHITECTURE,
    ),
    (f"{NEW}symbol not found in flat namespace '_DGifCloseFile'", "missing-symbol", "not linked",
     P.MISSING_SYMBOL),
    (symbol("_InitSignatureStrings", "/v/libshiboken2.dylib"), "missing-symbol", "libshiboken2",
     P.MISSING_SYMBOL),
    (
        symbol("_kIOMainPortDefault", "/System/Library/Frameworks/IOKit.framework/Versions/A/IOKit",
               more=" (built for macOS 12.0 which is newer than running OS)"),
        "macos-too-old", "built for macOS 12.0", P.MISSING_SYMBOL,
    ),
    (f"{NEW}{tried(EXT, NO_HASH)}", "library-validation", "hardened", P.VALIDATION),
    (
        f"{NEW}{tried(EXT, NO_HASH.partition(': ')[0] + ': library load disallowed by system policy')}",
        "blocked-by-policy", "com.apple.quarantine", P.POLICY,
    ),
    (f"{NEW}{tried(EXT, NO_HASH.partition(': ')[0] + ': Trying to load an unsigned library')}", "signature-invalid",
     "codesign --force", P.SIGNATURE),
    (f"{NEW}tried: '{EXT}' (blocked by sandbox), not in dyld cache", "sandboxed", "sandbox", P.SANDBOX),
    (f"{NEW}tried: '{EXT}' (not a mach-o file)", "not-an-image", "Mach-O", P.NOT_AN_IMAGE),
    (f"{NEW}tried: '{EXT}' (slice 0 extends beyond end of file)", "truncated-image", "cut short", P.TRUNCATED),
    (
        "dlopen(libvips.42.dylib, 0x0002): tried: 'libvips.42.dylib' (no such file), "
        f"'{CRYPTEX}libvips.42.dylib' (no such file), '/usr/lib/libvips.42.dylib' (no such file, not in dyld cache)",
        "missing-at-runtime", "DYLD_FALLBACK_LIBRARY_PATH", P.MISSING,
    ),
    (
        "dlopen(/v/x.dylib, 0x0006): tried: '/v/x.dylib' (no such file)", "no-such-file", "Nothing is at",
        P.MISSING,
    ),
]  # fmt: skip


def explain(text: str, **changes: object) -> Diagnosis:
    run = RunResult(errors=(import_error(text, path=EXT),), process=replace(MAC, **changes), status=1)  # type: ignore[arg-type]
    assert is_loader_failure(run)
    return diagnose(build_case("import pkg.ext", run))


def words_of(diagnosis: Diagnosis) -> str:
    (finding,) = diagnosis.findings
    remedies = [f"{one.what} {' '.join(one.command)}" for one in finding.remedies]
    return "\n".join((finding.title, finding.explanation, *(one.says for one in finding.evidence), *remedies))


@pytest.mark.parametrize(("text", "code", "words", "problem"), CASES, ids=range(len(CASES)))
def test_a_message_gets_its_verdict(text: str, code: str, words: str, problem: DyldProblem) -> None:
    assert classify_dyld(text).problem is problem
    diagnosis = explain(text)
    assert diagnosis.outcome is Outcome.EXPLAINED
    assert [finding.code for finding in diagnosis.findings] == [code]
    assert words in words_of(diagnosis)


def test_what_a_message_says_apart() -> None:
    error = classify_dyld(new_missing(HOMEBREW, tried(HOMEBREW, "no such file")))
    assert (error.asked, error.library, error.requested_by) == (EXT, HOMEBREW, EXT)
    assert [place.path for place in error.tried] == [HOMEBREW], "each place once, and none of the cryptex"
    error = classify_dyld(f"{NEW}{tried(EXT, ARM)}")
    assert (error.has, error.wanted, error.reason) == ("x86_64", "arm64", ARM)
    error = classify_dyld("dlopen(/a (b), c, 2)/x.so, 2): image not found")
    assert error.asked == "/a (b), c, 2)/x.so"


def test_a_library_of_dyld_library_path_is_reported() -> None:
    text = symbol("__cg_jpeg_resync_to_restart", "/usr/local/lib/libJPEG.dylib", "/System/x/ImageIO")
    environment = (("DYLD_LIBRARY_PATH", "/usr/local/lib/:/x"),)
    (finding,) = explain(text, environment=environment).findings
    assert finding.code == "library-path-wins" and finding.remedies[0].command[:3] == ("env", "-u", "DYLD_LIBRARY_PATH")
    assert explain(text).findings[0].code == "missing-symbol"


def test_a_program_that_dyld_ended() -> None:
    words = f"noise\ndyld[41]: Library not loaded: @rpath/libx.dylib\n  Referenced from: {UUID} /v/prog\n  Reason: "
    output = ProgramOutput(stderr=f"{words}tried: '/a/libx.dylib' (no such file)\n")
    diagnosis = diagnose(build_case("prog", RunResult(process=MAC, status=-6, output=output)))
    assert diagnosis.findings[0].code == "missing-image" and "/v/prog" in diagnosis.findings[0].explanation


def test_other_words_are_not_taken_for_dyld() -> None:
    for text in ("No module named 'x'", "Symbol not found: f", "libx.so.1: cannot open shared object file", "dlopen()"):
        assert not is_of_dyld(text)
    run = RunResult(errors=(import_error("the user said no"),), process=MAC, status=1)
    assert not is_loader_failure(run)
    assert diagnose(build_case("import x", run)).outcome is Outcome.UNDECIDED


PIECES = st.sampled_from(
    ["dlopen(", ", 2): ", "tried: ", "'/x'", " (", ")", ", ", "have '", "need '", "Library not loaded: ", "\n", "("]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=60).map("".join))
def test_any_text_gives_a_value(text: str) -> None:
    error = classify_dyld(text)
    assert isinstance(error.problem, DyldProblem)
    named = (error.asked, error.library, error.requested_by, *(place.path for place in error.tried))
    assert [name for name in named if name is not None and name not in text] == [], "no name that the text has not"
    assert is_of_dyld(NEW + text)


@pytest.mark.parametrize(
    "unit", ["(", "tried: '", "' (", "dlopen(a, 2): ", "Did find:\n\t/x: y\n", "Library not loaded: "]
)
def test_a_huge_message_is_read_quickly(unit: str) -> None:
    begun = time.process_time()
    error = classify_dyld(NEW + unit * 200_000)
    assert time.process_time() - begun < MOST_SECONDS
    assert error.problem is P.UNDECIDED
    assert error.asked is not None and error.asked.startswith(EXT)
    assert len(error.tried) <= 1, "each place once"
