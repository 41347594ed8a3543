"""Rules about files that the loader will not have, and limits, on cases made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.failed_case import EXT, PYTHON, absent, bound, case, first, image, process, segment, tree, verdict
from dlltracer.diagnose.case import MachineLimits
from dlltracer.diagnose.program_output import read_output
from dlltracer.diagnose.rules import limits
from dlltracer.model.elf import DF_STATIC_TLS
from dlltracer.model.environment import CLibrary, MemoryLimit, Mount
from dlltracer.model.events import FOLDER_LOCKED, FailureKind, LoadFailedEvent, Phase, Probe, ProbeOutcome
from dlltracer.model.failure import PythonError
from dlltracer.model.finding import Confidence, Outcome
from dlltracer.model.tree import Binding, BindingState

MAPPED = f"{EXT}: failed to map segment from shared object"
ENOENT = "libx.so.1: cannot open shared object file: No such file or directory"
FOREIGN = "made for AArch64, this process is x86-64"


def present(reason: str) -> Probe:
    return Probe("/lib/libx.so.1", Phase.SYSTEM, outcome=ProbeOutcome.PRESENT, reason=reason)


@pytest.mark.parametrize(
    ("words", "damage", "code", "title"),
    [
        ("invalid ELF header", "this is a Git LFS pointer, not the file itself", "not-an-image", "Git LFS pointer"),
        ("invalid ELF header", "this is an HTML or XML page", "not-an-image", "HTML"),
        ("ELF file OS ABI invalid", "ELF file OS ABI invalid", "not-an-image", "for another operating system"),
        (
            "invalid ELF header",
            "this is a script of the GNU linker, which only linkers read",
            "not-an-image",
            "linkers",
        ),
        ("file too short", "this is an empty file", "not-an-image", "empty"),
        ("file too short", "cut short or damaged: ...", "truncated-image", "cut short"),
        ("file too short", None, "truncated-image", "cut short"),
        ("cannot read file data", "cut short or damaged: ...", "truncated-image", "cut short"),
        ("cannot read file data", None, "unreadable-image", "may not be read"),
        ("cannot open shared object file: Permission denied", None, "unreadable-image", "may not be read"),
        ("wrong ELF class: ELFCLASS32", None, "wrong-machine", "another kind of machine"),
        ("invalid ELF header", None, "not-an-image", "no image"),
        ("cannot dynamically load position-independent executable", None, "not-a-library", "a program"),
        ("ELF file ABI version invalid", None, "not-an-image", "needs a newer glibc"),
        ("invalid ELF header", "this is a compressed file (gzip)", "not-an-image", "a compressed file, not"),
        ("invalid ELF header", "this is a file encrypted by git-crypt", "not-an-image", "encrypted by git-crypt"),
        ("invalid ELF header", "this is a WebAssembly module", "not-an-image", "is a WebAssembly module"),
        ("object file has no dynamic section", None, "damaged-image", "no dynamic section"),
        ("object file has no loadable segments", None, "damaged-image", "is damaged"),
    ],
)
def test_each_kind_of_wrong_file(words: str, damage: str | None, code: str, title: str) -> None:
    made = case(f"{EXT}: {words}", damaged={EXT: damage} if damage else {})
    found = first(made)
    assert (found.code, found.subject, found.confidence) == (code, EXT, Confidence.CERTAIN)
    assert title in found.title
    assert len(verdict(made).findings) == 1


def test_a_file_for_another_machine_is_passed_over_in_silence() -> None:
    event = LoadFailedEvent("libx.so.1", need="libx.so.1", kind=FailureKind.REFUSED, probes=(present(FOREIGN),))
    made = case(ENOENT, failures=(event,), tree=tree(absent("libx.so.1", EXT, present(FOREIGN))))
    assert [(f.code, f.subject) for f in verdict(made).findings] == [("wrong-machine", "/lib/libx.so.1")]
    assert first(made).confidence is Confidence.CERTAIN


def test_by_the_files_alone_as_well() -> None:
    assert first(case(ENOENT, tree=tree(absent("libx.so.1", EXT, present(FOREIGN))))).code == "wrong-machine"


def test_a_file_of_which_nobody_knows_what_is_wrong_decides_nothing() -> None:
    event = LoadFailedEvent("libx.so.1", need="libx.so.1", kind=FailureKind.REFUSED,
                            probes=(present("the loader did not say why it would not take it"),))  # fmt: skip
    assert verdict(case(ENOENT, failures=(event,))).outcome is Outcome.UNDECIDED


def test_segments_that_do_not_fit() -> None:
    message = f"{EXT}: ELF load command address/offset not page-aligned"
    spoilt = image(segments=(segment(offset=0x2DF0, address=0x3DE0),))
    found = first(case(message, images={EXT: spoilt}))
    assert found.code == "misaligned-image" and "patchelf" in found.explanation
    small = image(segments=(segment(align=4096),))
    made = case(message, images={EXT: small}, limits=MachineLimits(page_size=65536))
    assert "pages of 4096 bytes" in first(made).explanation


def machine(options: tuple[str, ...] = ("rw",), limit: int | None = None, used: int | None = None) -> MachineLimits:
    return MachineLimits(Mount(1, "/", "/tmp", options, "tmpfs", "tmpfs"), MemoryLimit("RLIMIT_AS", limit, used))


def test_one_text_two_causes() -> None:
    big = {EXT: image(segments=(segment(size=1 << 30),))}
    noexec = first(case(MAPPED, images=big, limits=machine(("rw", "noexec"))))
    assert (noexec.code, noexec.confidence) == ("noexec-mount", Confidence.CERTAIN)
    tight = first(case(MAPPED, images=big, limits=machine(limit=400 << 20, used=300 << 20)))
    assert (tight.code, tight.confidence) == ("memory-limit", Confidence.CERTAIN)
    loose = first(case(MAPPED, images=big, limits=machine(limit=4 << 30, used=1 << 20)))
    assert (loose.code, loose.confidence) == ("memory-limit", Confidence.LIKELY)
    assert verdict(case(MAPPED, images=big, limits=machine())).outcome is Outcome.UNDECIDED


def test_what_musl_says_of_a_noexec_mount() -> None:
    message = f"Error loading shared library {EXT}: Operation not permitted"
    assert first(case(message, limits=machine(("noexec",)))).code == "noexec-mount"


def test_no_permission_on_a_noexec_mount_is_a_matter_of_permission() -> None:
    message = f"{EXT}: cannot open shared object file: Permission denied"
    assert first(case(message, limits=machine(("noexec",)))).code == "unreadable-image"


def test_static_tls() -> None:
    images = {
        EXT: image(segments=(segment(7, size=65536),)),
        "/lib/libgomp.so.1": image(segments=(segment(7, size=128),), dynamic_flags=DF_STATIC_TLS),
    }
    found = first(case(f"{EXT}: cannot allocate memory in static TLS block", images=images))
    assert found.code == "static-tls" and "65536 bytes" in found.explanation
    assert found.remedies[0].command == ("env", f"LD_PRELOAD={EXT}", PYTHON, "-c", "import ext")
    small = {**images, EXT: image(segments=(segment(7, size=64),))}
    found = first(case(f"{EXT}: cannot allocate memory in static TLS block", images=small))
    assert "libgomp" in found.explanation
    assert found.remedies[0].what == "import ext before everything else"


def test_static_tls_with_musl() -> None:
    """musl keeps no room for later images: neither the order of imports nor a tunable of glibc helps."""
    words = f"Error relocating {EXT}: state: initial-exec TLS resolves to dynamic definition in {EXT}"
    found = first(case(words, images={EXT: image(segments=(segment(7, size=64),))}))
    assert found.code == "static-tls" and "musl gives room there" in found.explanation
    assert [remedy.command[:2] for remedy in found.remedies] == [("env", f"LD_PRELOAD={EXT}"), ()]
    assert "GLIBC_TUNABLES" not in str(found.remedies)


MUSL = MachineLimits(c_library=CLibrary("musl", "1.2.5"))


@pytest.mark.parametrize("words", [
    "Error loading shared library ld-linux-aarch64.so.1: No such file or directory (needed by /site/ext.so)",
    f"Error relocating {EXT}: unsupported relocation type 1026",
    f"Error relocating {EXT}: state: symbol not found",
    "dynamic module does not define module export function (PyInit_ext)",
])  # fmt: skip
def test_a_file_for_another_processor_that_musl_maps(words: str) -> None:
    """musl does not look at e_machine: what it says is what failed then."""
    made = tree(absent("ld-linux-aarch64.so.1"), Binding(EXT, EXT, BindingState.REFUSED, EXT, reason=FOREIGN))
    found = first(case(words, tree=made, limits=MUSL, images={EXT: image(machine=183)}))
    assert (found.code, found.confidence, found.subject) == ("wrong-machine", Confidence.CERTAIN, EXT)
    if "relocation type" not in words:
        with_glibc = verdict(case(words, tree=made)).findings
        assert not with_glibc or with_glibc[0].code != "wrong-machine"


@pytest.mark.parametrize("refusal", ["Permission denied", "Operation not permitted"])
def test_an_executable_stack_that_a_policy_forbids(refusal: str) -> None:
    found = first(case(f"{EXT}: cannot enable executable stack as shared object requires: {refusal}"))
    assert found.code == "executable-stack" and "MemoryDenyWriteExecute" in found.explanation
    assert "2.41" not in found.explanation and not any("execstack=2" in "".join(r.command) for r in found.remedies)


@pytest.mark.parametrize(
    ("words", "confidence"),
    [
        ("cannot make segment writable for relocation: Permission denied", Confidence.CERTAIN),
        ("cannot restore segment prot after reloc: Permission denied", Confidence.CERTAIN),
        ("cannot make segment writable for relocation: Cannot allocate memory", Confidence.LIKELY),
    ],
)
def test_relocations_in_code(words: str, confidence: Confidence) -> None:
    found = first(case(f"{EXT}: {words}"))
    assert (found.code, found.confidence, found.subject) == ("text-relocations", confidence, EXT)
    assert ("MemoryDenyWriteExecute" in found.explanation) is (confidence is Confidence.CERTAIN)


@pytest.mark.parametrize(
    ("needed", "system"),
    [(("libc.so", "libm.so"), "Android"), (("liblog.so", "libc.so"), "Android"), (("libc.so",), "Android or musl")],
)
def test_files_for_android(needed: tuple[str, ...], system: str) -> None:
    images = {EXT: image(needed=needed)}
    script = "this is a script of the GNU linker, which only linkers read"
    made = case("/lib/libc.so: invalid ELF header", images=images, damaged={"/lib/libc.so": script})
    assert [(one.code, one.subject) for one in verdict(made).findings] == [("other-c-library", EXT)]
    assert f"built for {system}, and not for glibc" in first(made).title
    plain = replace(made, images={EXT: image(needed=("libc.so.6",))})
    assert first(plain).code == "not-an-image"


@pytest.mark.parametrize(
    ("kind", "title"), [("a Mach-O file (macOS)", "Mach-O file (macOS)"), ("a PE file (Windows)", "file for Windows")]
)
def test_files_of_other_systems(kind: str, title: str) -> None:
    found = first(case(f"{EXT}: invalid ELF header", damaged={EXT: f"invalid ELF header: this is {kind}"}))
    assert found.code == "not-an-image" and title in found.title
    assert found.remedies[0].what.startswith("install the build for Linux")


def test_executable_stack() -> None:
    message = f"{EXT}: cannot enable executable stack as shared object requires: Invalid argument"
    marked = image(segments=(segment(0x6474E551, flags=7),))
    found = first(case(message, images={EXT: marked}))
    assert found.code == "executable-stack" and any("RWE" in one.says for one in found.evidence)
    assert limits.wants_executable_stack(marked)
    assert not limits.wants_executable_stack(image(segments=(segment(0x6474E551, flags=6),)))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (f"{EXT}: cannot open shared object file: Too many open files", "too-many-files"),
        (f"{EXT}: CPU ISA level is lower than required", "cpu-too-old"),
    ],
)
def test_other_limits(message: str, code: str) -> None:
    assert first(case(message)).code == code


def test_a_file_of_macos_is_not_fetched_again() -> None:
    found = first(case(f"{EXT}: invalid ELF header", damaged={EXT: "this is a Mach-O file (macOS)"}))
    assert "Mach-O" in found.title and "fetch" not in str(found.remedies) and "for Linux" in found.remedies[0].what


@pytest.mark.parametrize(
    ("needed", "words"), [(("libc.so",), "for Android or musl,"), (("libc.so", "liblog.so"), "for Android,")]
)
def test_a_file_for_android(needed: tuple[str, ...], words: str) -> None:
    libc = "/lib/x86_64-linux-gnu/libc.so"
    script = "this is a script of the GNU linker, which only linkers read"
    made = case(f"{libc}: invalid ELF header", subject=EXT, damaged={libc: script}, images={EXT: image(needed=needed)})
    found = first(made)
    assert (found.code, found.subject) == ("other-c-library", EXT)
    assert words in found.title and "libc6-dev" not in str(found)
    numbered = case(f"{libc}: invalid ELF header", subject=EXT, damaged={libc: script}, images={
        EXT: image(needed=("libc.so.6",))
    })  # fmt: skip
    assert first(numbered).code == "not-an-image"


@pytest.mark.parametrize(
    ("reason", "output", "unsaid"),
    [
        ("Permission denied", "MemoryDenyWriteExecute", "glibc 2.41"),
        ("Operation not permitted", "MemoryDenyWriteExecute", "glibc 2.41"),
        ("Invalid argument", "glibc 2.41", "MemoryDenyWriteExecute"),
    ],
)
def test_who_refuses_an_executable_stack(reason: str, output: str, unsaid: str) -> None:
    words = f"{EXT}: cannot enable executable stack as shared object requires: {reason}"
    explanation = first(case(words)).explanation
    assert output in explanation and unsaid not in explanation


@pytest.mark.parametrize(
    ("environment", "command", "code"),
    [
        ((("LD_PRELOAD", "/opt/a.so:/opt/old/libc.so.6"),), "['tool']", "child-cannot-load"),
        ((), "['env', 'LD_PRELOAD=/opt/old/libc.so.6', 'tool']", "child-cannot-load"),
        ((("LD_PRELOAD", "/opt/other.so"),), "['tool']", "child-inherits-library-path"),
        ((("LD_LIBRARY_PATH", "/opt/old"),), "['tool']", "child-inherits-library-path"),
    ],
)
def test_which_variable_gave_a_child_its_library(
    environment: tuple[tuple[str, str], ...], command: str, code: str
) -> None:
    words = "tool: symbol lookup error: /opt/old/libc.so.6: undefined symbol: __tunable_is_initialized"
    error = PythonError("CalledProcessError", f"Command '{command}' returned non-zero exit status 127.",
                        bases=("CalledProcessError", "SubprocessError", "Exception"))  # fmt: skip
    made = case(error=error, errors=(error,), messages=read_output(words), process=process(environment=environment))
    found = first(made)
    assert found.code == code
    assert ("LD_PRELOAD" in str(found.remedies)) is (code == "child-cannot-load")


def test_the_file_that_musl_calls_by_its_name_only() -> None:
    probe = Probe("/opt/lib/libx.so.1", Phase.RUNPATH, EXT, ProbeOutcome.PRESENT, "this is an empty file")
    message = f"Error loading shared library libx.so.1: Exec format error (needed by {EXT})"
    found = first(case(message, tree=tree(absent("libx.so.1", EXT, probe))))
    assert (found.code, found.subject, found.title) == (
        "not-an-image", "/opt/lib/libx.so.1", "/opt/lib/libx.so.1 is an empty file"
    )  # fmt: skip


def test_a_folder_that_may_not_be_entered_hides_what_is_in_it() -> None:
    hidden = Probe("/srv/priv/libx.so.1", Phase.RUNPATH, EXT, ProbeOutcome.PASSED, FOLDER_LOCKED)
    findings = verdict(case(ENOENT, tree=tree(absent("libx.so.1", EXT, hidden)))).findings
    assert [(one.code, one.confidence) for one in findings] == [
        ("unreadable-image", Confidence.LIKELY), ("missing-image", Confidence.LIKELY)
    ]  # fmt: skip
    assert findings[0].remedies[0].command == ("namei", "-l", "/srv/priv/libx.so.1")
    assert "no place that could be looked at has it" in findings[1].explanation


def test_a_file_that_fits_and_that_the_process_may_not_open() -> None:
    """As under Landlock: glibc passes over it without a word."""
    path = "/opt/libx.so.1"
    probe = Probe(path, Phase.RUNPATH, EXT, ProbeOutcome.PRESENT, "the loader did not say why it would not take it")
    event = LoadFailedEvent("libx.so.1", need="libx.so.1", requested_by=EXT, probes=(probe,), kind=FailureKind.REFUSED)
    made = case(ENOENT, tree=tree(bound("libx.so.1", path)), failures=(event,))
    found = first(made)
    assert (found.code, found.confidence) == ("unreadable-image", Confidence.LIKELY)
    assert found.title == f"{path} is there and fits, and the process may not open it"
    assert not any("chmod" in remedy.command for remedy in found.remedies)


def test_a_top_that_may_not_be_opened_though_its_permissions_allow_it() -> None:
    words = f"{EXT}: cannot open shared object file: Permission denied"
    assert "chmod" in first(case(words)).remedies[0].command
    readable = first(case(words, images={EXT: image()}))
    assert readable.remedies[0].command == ("dmesg",) and readable.confidence is Confidence.CERTAIN
