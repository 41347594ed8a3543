"""The rules of glibc one by one, on files in memory; that they are glibc's own is for tests/oracle to say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.memory_filesystem import MemoryFilesystem, elf_head, elf_image
from dlltracer.model.elf import (
    DF_1_NODEFLIB,
    DF_1_PIE,
    EM_AARCH64,
    EM_ARM,
    EM_RISCV,
    EM_X86_64,
    ElfImage,
    ElfSegment,
)
from dlltracer.model.events import Phase, ProbeOutcome
from dlltracer.model.loader_context import HWCAP_EXTENSION, CacheEntry, FileKind, GlibcContext, LoadedImage
from dlltracer.model.pe import PeImage
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.resolve.linux import expand_folders, expand_tokens, resolve_glibc
from dlltracer.resolve.lookup import judge_for_glibc

CONTEXT = GlibcContext(
    system_folders=("/lib", "/usr/lib"), lib="lib/x86_64-linux-gnu", platform="haswell", loader="/lib64/ld.so"
)
LEAF = elf_image()
Entries = dict[str, ElfImage | PeImage | bytes | FileKind | str]


def resolve(entries: Entries, top: str = "/top.so", context: GlibcContext = CONTEXT, **changes: object) -> LoadTree:
    return resolve_glibc(top, replace(context, **changes), MemoryFilesystem(entries))  # type: ignore[arg-type]


def only(tree: LoadTree) -> Binding:
    (binding,) = tree.bindings
    return binding


def test_the_order_of_the_rules() -> None:
    """Every place exists in turn, the last first: each one found has all before it among the places tried."""
    places = [
        ("/env/x.so", Phase.ENVIRONMENT), ("/run/x.so", Phase.RUNPATH), ("/cached/x.so", Phase.CACHE),
        ("/lib/x.so", Phase.SYSTEM), ("/usr/lib/x.so", Phase.SYSTEM),
    ]  # fmt: skip
    top = elf_image("x.so", rpath="/r", runpath="/run")
    cache = (CacheEntry("x.so", "/cached/x.so", 0x303),)
    for count in range(len(places)):
        entries: Entries = {"/top.so": top, **{path: LEAF for path, _ in places[count:]}}
        binding = only(resolve(entries, cache=cache, library_path=("/env",)))
        assert (binding.state, binding.path, binding.phase) == (BindingState.BOUND, *places[count])
        assert [(probe.path, probe.phase) for probe in binding.probes] == places[: count + 1]
        outcomes = [probe.outcome for probe in binding.probes]
        assert outcomes == [ProbeOutcome.ABSENT] * count + [ProbeOutcome.LOADED]
    assert resolve({"/top.so": top, "/r/x.so": LEAF}).missing


def test_rpath_of_the_chain_and_the_program_before_the_environment() -> None:
    entries: Entries = {
        "/top.so": elf_image("a.so", rpath="/a"), "/a/a.so": elf_image("x.so", rpath="$ORIGIN/own"),
        "/bin/python": elf_image(rpath="$ORIGIN/../main"),
    }  # fmt: skip
    tree = resolve(entries, program="/bin/python", library_path=("/env",))
    (binding,) = tree.missing
    assert [(probe.path, probe.phase, probe.origin) for probe in binding.probes][:4] == [
        ("/a/own/x.so", Phase.RPATH, "/a/a.so"),
        ("/a/x.so", Phase.RPATH, "/top.so"),
        ("/bin/../main/x.so", Phase.RPATH, "/bin/python"),
        ("/env/x.so", Phase.ENVIRONMENT, None),
    ]


def test_a_requester_with_runpath_has_no_rpath_at_all() -> None:
    entries: Entries = {"/top.so": elf_image("a.so", rpath="/a"), "/a/a.so": elf_image("x.so", rpath="/b", runpath="")}
    (binding,) = resolve(entries).missing
    assert {probe.phase for probe in binding.probes} == {Phase.CACHE, Phase.SYSTEM}


def test_the_origin_of_a_program_is_that_of_the_file_behind_its_links() -> None:
    entries: Entries = {"/bin/p": "/opt/real/p", "/opt/real/p": elf_image("x.so", runpath="$ORIGIN", kind=2)}
    tree = resolve_glibc("/bin/p", CONTEXT, MemoryFilesystem(entries), program=True)
    assert tree.missing[0].probes[0].path == "/opt/real/x.so"
    tree = resolve({"/a/top.so": "/opt/top.so", "/opt/top.so": elf_image("x.so", runpath="$ORIGIN")}, "/a/top.so")
    assert tree.missing[0].probes[0].path == "/a/x.so"


def test_a_program_has_its_loader_and_may_be_an_executable() -> None:
    program = elf_image("ld.so.2", "x.so", kind=2, interpreter="/lib/ld.so.2")
    files = MemoryFilesystem({"/p": program, "/lib/ld.so.2": LEAF, "/lib/x.so": LEAF})
    tree = resolve_glibc("/p", replace(CONTEXT, loaded=(LoadedImage("/lib/x.so", "x.so"),)), files, program=True)
    assert [(b.path, b.phase) for b in tree.bindings] == [("/lib/ld.so.2", Phase.LOADED), ("/lib/x.so", Phase.SYSTEM)]
    assert list(tree.images) == ["/p", "/lib/x.so"]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (elf_image(kind=2), "cannot dynamically load executable"),
        (elf_image(flags_1=DF_1_PIE), "cannot dynamically load position-independent executable"),
        (elf_image(is_dynamic=False), "object file has no dynamic section"),
        (replace(LEAF, segments=()), "object file has no loadable segments"),
        (b"INPUT(libx.so.1) " * 8, "invalid ELF header: this is a script of the GNU linker, which only linkers read"),
        (b"", "file too short: this is an empty file"),
        (elf_head(LEAF), "bytes that are no image (at offset 0x0)"),
    ],
)
def test_a_wrong_file_ends_the_search(image: ElfImage | bytes, reason: str) -> None:
    entries: Entries = {"/top.so": elf_image("x.so", "y.so", runpath="/a:/b"), "/a/x.so": image, "/b/x.so": LEAF}
    first, second = resolve(entries).missing
    assert (first.state, first.path, first.reason) == (BindingState.REFUSED, "/a/x.so", reason)
    assert first.phase is Phase.RUNPATH and first.probes[-1].outcome is ProbeOutcome.PRESENT
    assert second.need == "y.so"  # the walk goes on


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (elf_image(machine=183), "made for AArch64, this process is x86-64"),
        (elf_image(machine=3, bits=32), "made for x86 (32 bit), this process is x86-64"),
        (elf_image(bits=32), "an ELF file of 32 bits, this process has 64"),
        (elf_image(machine=3), "made for x86 (32 bit), this process is x86-64"),
        (FileKind.DENIED, "permission denied"),
    ],
)
def test_a_file_for_others_is_passed_over(image: ElfImage | FileKind, reason: str) -> None:
    entries: Entries = {"/top.so": elf_image("x.so", runpath="/a:/b"), "/a/x.so": image, "/b/x.so": LEAF}
    binding = only(resolve(entries))
    assert binding.path == "/b/x.so"
    assert (binding.probes[0].outcome, binding.probes[0].reason) == (ProbeOutcome.PRESENT, reason)


@pytest.mark.parametrize(("machine", "highest"), [(EM_X86_64, 3), (EM_RISCV, 3), (EM_AARCH64, 2), (EM_ARM, 2)])
def test_the_abi_versions_that_glibc_takes_depend_on_the_processor(machine: int, highest: int) -> None:
    """LIBC_ABI_MAX counts the features in libc-abis that the processor has."""
    head = elf_head(elf_image(machine=machine))
    for version in range(6):
        check = judge_for_glibc(head[:7] + bytes((3, version)) + head[9:], replace(CONTEXT, machine=machine))
        assert check.reason == (None if version <= highest else "ELF file ABI version invalid")
    check = judge_for_glibc(head[:8] + b"\1" + head[9:], replace(CONTEXT, machine=machine))
    assert check.reason == "ELF file ABI version invalid"  # ELFOSABI_SYSV has no versions


def test_a_circle_of_links_ends_its_rule_only() -> None:
    entries: Entries = {"/top.so": elf_image("x.so", runpath="/a:/b"), "/a/x.so": "x.so", "/b/x.so": LEAF}
    assert [probe.path for probe in only(resolve(entries)).probes] == [
        "/a/x.so", "/etc/ld.so.cache", "/lib/x.so", "/usr/lib/x.so",
    ]  # fmt: skip


def test_hwcaps_only_where_the_subfolder_is_there() -> None:
    subfolders = ("glibc-hwcaps/x86-64-v3", "glibc-hwcaps/x86-64-v2")
    entries: Entries = {
        "/top.so": elf_image("x.so", "y.so", runpath="/a:/b"), "/a/y.so": LEAF,
        "/b/glibc-hwcaps/x86-64-v2/x.so": LEAF, "/b/x.so": LEAF, "/b/glibc-hwcaps/x86-64-v3/z.so": LEAF,
    }  # fmt: skip
    first, second = resolve(entries, subfolders=subfolders).bindings
    assert [probe.path for probe in first.probes] == [
        "/a/x.so", "/b/glibc-hwcaps/x86-64-v3/x.so", "/b/glibc-hwcaps/x86-64-v2/x.so",
    ]  # fmt: skip
    assert second.path == "/a/y.so"


ALL_FLAGS = tuple(range(0x0003, 0x1300, 0x100))
"""Every number that ldconfig gives to libraries of libc6 (sysdeps/generic/ldconfig.h)."""


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ((64, True, 62, 0), [0x303]), ((32, True, 62, 0), [0x803]), ((32, True, 3, 0), [0x3]),
        ((64, True, 183, 0), [0xA03]), ((32, True, 40, 0x05000400), [0x3, 0x903]),
        ((32, True, 40, 0x05000200), [0x3, 0xB03]), ((64, True, 243, 5), [0x1003]), ((64, True, 243, 1), [0xF03]),
        ((64, True, 258, 0x43), [0x1203]), ((64, True, 258, 0x41), [0x1103]), ((64, True, 21, 2), [0x503]),
        ((64, False, 22, 0), [0x403]), ((32, False, 22, 0), [0x3]), ((64, True, 8, 0), [0x703]),
        ((32, True, 8, 0x20), [0x603]), ((32, True, 8, 0), [0x3]), ((64, True, 8, 0x400), [0xE03]),
        ((64, False, 43, 0), [0x103]), ((64, True, 243, None), list(ALL_FLAGS)),
        ((32, True, 40, None), list(ALL_FLAGS)),
    ],
)  # fmt: skip
def test_the_cache_of_each_abi(kind: tuple[int, bool, int, int | None], wanted: list[int]) -> None:
    bits, little_endian, machine, flags = kind
    cache = tuple(CacheEntry(f"{number:x}.so", f"/{number:x}.so", number) for number in (*ALL_FLAGS, 0x1, 0x2, 0x302))
    made = {"bits": bits, "little_endian": little_endian, "machine": machine}
    image = elf_image(**made, flags=flags or 0)  # type: ignore[arg-type]
    names = [entry.soname for entry in cache]
    entries: Entries = {"/top.so": replace(image, needed=tuple(names)), **{entry.path: image for entry in cache}}
    tree = resolve(entries, cache=cache, flags=flags, system_folders=(), **made)
    assert [int(b.need[:-3], 16) for b in tree.bindings if b.phase is Phase.CACHE and not b.reason] == wanted


@pytest.mark.parametrize(
    ("kind", "process", "other", "state", "reason"),
    [
        ((64, True, 243), 5, 1, BindingState.MISSING, "made for the ABI riscv64-lp64, this process has riscv64-lp64d"),
        ((64, True, 243), 5, 4, BindingState.BOUND, None),  # compressed instructions or not
        ((32, True, 40), 0x05000400, 0x05000200, BindingState.REFUSED, "internal error: made for the ABI armsf"),
        ((32, True, 40), 0x05000400, 0x05000000, BindingState.BOUND, None),
        ((64, True, 21), 2, 1, BindingState.MISSING, "made for the ABI ppc64-v1, this process has ppc64-v2"),
        ((64, True, 21), 0, 1, BindingState.MISSING, "made for the ABI ppc64-v1, this process has ppc64-v2"),
        ((64, False, 21), 0, 1, BindingState.BOUND, None), ((64, True, 21), 2, 0, BindingState.BOUND, None),
        ((32, False, 8), 0, 0x20, BindingState.MISSING, "made for the ABI mips-n32, this process has mips-o32"),
        ((64, True, 258), 0x43, 0x41, BindingState.BOUND, None),
        ((64, True, 243), None, 1, BindingState.BOUND, None),  # the ABI of the process is not known
    ],
)  # fmt: skip
def test_an_image_of_another_abi(
    kind: tuple[int, bool, int], process: int | None, other: int, state: BindingState, reason: str | None
) -> None:
    made = dict(zip(("bits", "little_endian", "machine"), kind, strict=True))
    top, library = elf_image("x.so", **made, flags=process or 0), elf_image(**made, flags=other)  # type: ignore[arg-type]
    binding = only(resolve({"/top.so": top, "/lib/x.so": library}, flags=process, lib="lib", **made))
    assert binding.state is state
    reasons = [probe.reason for probe in binding.probes if probe.path == "/lib/x.so"]
    assert (reasons == [None]) if reason is None else str(reasons[0]).startswith(reason)


def test_a_loader_for_several_abis_passes_over_other_ones() -> None:
    process = {"bits": 32, "machine": 40, "flags": 0x05000400}
    library = elf_image(**{**process, "flags": 0x05000200})  # type: ignore[arg-type]
    entries: Entries = {"/top.so": elf_image("x.so", **process), "/lib/x.so": library}  # type: ignore[arg-type]
    assert only(resolve(entries, lib="lib/arm-linux-gnueabihf", **process)).state is BindingState.MISSING


def test_the_mark_of_arm_files() -> None:
    process = {"bits": 32, "machine": 40, "flags": 0x05000400}
    top = elf_image("x.so", **process)  # type: ignore[arg-type]
    marked = elf_image(**process, abi=64)  # type: ignore[arg-type] - ELFOSABI_ARM_AEABI
    assert only(resolve({"/top.so": top, "/lib/x.so": marked}, **process)).state is BindingState.BOUND
    assert resolve({"/top.so": elf_image("x.so"), "/lib/x.so": elf_image(abi=64)}).missing


@pytest.mark.parametrize(
    ("page", "align", "address", "old", "new"),
    [
        (4096, 0x1000, 0x2000, None, None),
        (16384, 0x1000, 0x2000, "alignment not page-aligned", "address/offset not page-aligned"),
        (65536, 0x4000, 0x10000, "alignment not page-aligned", None),
        (65536, 0x10000, 0x20000, None, None),
        (4096, 0x10000, 0x2000, "address/offset not properly aligned", None),
        (4096, 0, 0x1000, "address/offset not properly aligned", None),
        (4096, 1, 0x1000, "alignment not page-aligned", None),
    ],
)
def test_pages_of_every_size(page: int, align: int, address: int, old: str | None, new: str | None) -> None:
    """For glibc before 2.35 and later; tests/oracle has the loader's own word for it."""
    top = replace(elf_image("x.so"), segments=(ElfSegment(1, 5, 0, 0, 0x1000, 0x1000, 0x10000),))
    library = replace(elf_image(), segments=(ElfSegment(1, 5, 0, address, 0x1000, 0x1000, align),))
    entries: Entries = {"/top.so": top, "/lib/x.so": library}
    for checks_alignment, problem in ((True, old), (False, new)):
        binding = only(resolve(entries, page_size=page, checks_alignment=checks_alignment))
        assert binding.need == "x.so" and binding.reason == (problem and f"ELF load command {problem}")
        assert binding.state is (BindingState.REFUSED if problem else BindingState.BOUND)


def test_the_cache_by_kind_and_processor() -> None:
    def entry(path: str, flags: int = 0x303, hwcap: int = 0, subfolder: str | None = None) -> CacheEntry:
        return CacheEntry("x.so", path, flags, hwcap, subfolder)

    cache = (
        entry("/32/x.so", 0x3), entry("/legacy/x.so", hwcap=1 << 60), entry("/plain/x.so"), entry("/second/x.so"),
        *(entry(f"/{level}/x.so", hwcap=HWCAP_EXTENSION, subfolder=level) for level in ("v2", "v4", "v3")),
    )  # fmt: skip
    entries: Entries = {"/top.so": elf_image("x.so"), **{item.path: LEAF for item in cache}}
    assert only(resolve(entries, cache=cache)).path == "/plain/x.so"
    subfolders = ("glibc-hwcaps/v3", "glibc-hwcaps/v2")
    assert only(resolve(entries, cache=cache, subfolders=subfolders)).path == "/v3/x.so"
    process = {"bits": 32, "machine": 3}
    entries = {"/top.so": elf_image("x.so", bits=32, machine=3), "/32/x.so": elf_image(bits=32, machine=3)}
    assert only(resolve(entries, cache=cache, **process)).path == "/32/x.so"


def test_no_default_folders() -> None:
    top = elf_image("x.so", "y.so", flags_1=DF_1_NODEFLIB)
    cache = (CacheEntry("x.so", "/lib/x.so", 0x303), CacheEntry("y.so", "/library/y.so", 0x303))
    tree = resolve({"/top.so": top, "/lib/x.so": LEAF, "/library/y.so": LEAF}, cache=cache)
    missing, bound = tree.bindings
    (probe,) = missing.probes
    assert (probe.path, probe.outcome) == ("/lib/x.so", ProbeOutcome.PRESENT)
    assert probe.reason is not None and "DF_1_NODEFLIB" in probe.reason
    assert bound.path == "/library/y.so"


def test_names_that_are_there_already() -> None:
    """By path, by soname, by the name once asked for, by another link to the same file."""
    loaded = (LoadedImage("/old/x.so.1", "x.so.1", ("x.so",)),)
    entries: Entries = {
        "/top.so": elf_image("x.so", "x.so.1", "/old/x.so.1", "link.so", "y.so", "ysoname", "/lib/y.so", "ld.so"),
        "/old/x.so.1": LEAF, "/lib/link.so": "/old/x.so.1", "/lib/y.so": elf_image("x.so", soname="ysoname"),
    }  # fmt: skip
    tree = resolve(entries, loaded=loaded)
    assert not tree.missing and list(tree.images) == ["/top.so", "/lib/y.so"]
    found = [(b.need, b.path, b.phase) for b in tree.bindings]
    assert found == [
        ("x.so", "/old/x.so.1", Phase.LOADED), ("x.so.1", "/old/x.so.1", Phase.LOADED),
        ("/old/x.so.1", "/old/x.so.1", Phase.LOADED), ("link.so", "/old/x.so.1", Phase.SYSTEM),
        ("y.so", "/lib/y.so", Phase.SYSTEM), ("ysoname", "/lib/y.so", Phase.LOADED),
        ("/lib/y.so", "/lib/y.so", Phase.LOADED), ("ld.so", "/lib64/ld.so", Phase.LOADED),
        ("x.so", "/old/x.so.1", Phase.LOADED),
    ]  # fmt: skip


def test_a_circle_of_needs_ends() -> None:
    entries: Entries = {"/lib/a.so": elf_image("b.so"), "/lib/b.so": elf_image("a.so")}
    tree = resolve(entries, "/lib/a.so")
    assert list(tree.images) == ["/lib/a.so", "/lib/b.so"] and not tree.missing


def test_the_top_is_a_binding_when_it_fails_or_was_searched_for() -> None:
    binding = only(resolve({}, "/top.so", program="/bin/p"))
    assert (binding.need, binding.requested_by, binding.state) == ("/top.so", "/bin/p", BindingState.MISSING)
    tree = resolve({"/lib/x.so": LEAF}, "x.so")
    assert (tree.top, only(tree).phase) == ("/lib/x.so", Phase.SYSTEM)
    tree = resolve({"/lib/x.so": LEAF}, "x.so", loaded=(LoadedImage("/lib/x.so", "x.so"),))
    assert not tree.images and "nothing is loaded" in tree.notes[-1]


def test_a_bare_name_is_searched_for_by_the_caller() -> None:
    entries: Entries = {"/py/_ctypes.so": elf_image(runpath="$ORIGIN/own"), "/py/own/x.so": LEAF}
    assert resolve(entries, "x.so", caller="/py/_ctypes.so").top == "/py/own/x.so"
    assert resolve(entries, "x.so").missing


def test_relative_paths_start_from_the_current_folder() -> None:
    entries: Entries = {"/here/top.so": elf_image("x.so", "y.so", runpath="$ORIGIN/a:"), "/here/a/x.so": LEAF}
    entries["/here/y.so"] = LEAF
    tree = resolve(entries, "./top.so", current_folder="/here", library_path=("b", ""))
    assert list(tree.images) == ["./top.so", "/here/./a/x.so", "y.so"]
    assert [probe.path for probe in tree.bindings[1].probes] == ["b/y.so", "y.so"]


def test_what_is_not_taken_into_log_is_said() -> None:
    tree = resolve({"/top.so": LEAF}, preload=("libasan.so",), program="/gone", notes=("a note",))
    assert tree.notes[:2] == ("a note", "LD_PRELOAD is not taken into account: libasan.so")
    assert "/gone could not be read" in tree.notes[2]


VALUES = {"ORIGIN": "/o", "LIB": "lib64", "PLATFORM": None}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("/a", "/a"), ("$ORIGIN", "/o"), ("${ORIGIN}/x", "/o/x"), ("$ORIGIN/$LIB", "/o/lib64"),
        ("$ORIGINS", "$ORIGINS"),
        ("$ORIGIN_", "$ORIGIN_"), ("${ORIGIN", "${ORIGIN"), ("$HOME/${X}$", "$HOME/${X}$"), ("$PLATFORM", None),
        ("/a/${PLATFORM}/b", None), ("$ORIGIN$LIB", "/olib64"), ("$ORIGIN\u00e9", "/o\u00e9"),
        ("$$ORIGIN", "$/o"), ("a$", "a$"), ("${LIB}${ORIGIN}", "lib64/o"), ("${LIB}x", "${LIB}x"),
        ("{ORIGIN}", "{ORIGIN}"),
    ],
)  # fmt: skip
def test_tokens(text: str, expanded: str | None) -> None:
    assert expand_tokens(text, VALUES) == expanded


def test_folders_of_a_list() -> None:
    elements = ["/a//", "/a", "", "/", "//", "$PLATFORM", "$LIB/", "", "b"]
    assert expand_folders(elements, VALUES) == ("/a/", "", "/", "lib64/", "b/")
    assert expand_folders(["$LIB"], {"LIB": ""}) == ()


NAMES = st.sampled_from(["a.so", "b.so", "c.so", "/lib/a.so", "$ORIGIN/b.so", "", "$PLATFORM"])
PATHS = st.one_of(st.none(), st.sampled_from(["", ":", "$ORIGIN", "/lib:/a", "/a/:$LIB:.", "${ORIGIN}/..:/a"]))
IMAGES = st.builds(
    lambda needed, rpath, runpath, soname, machine: elf_image(
        *needed, rpath=rpath, runpath=runpath, soname=soname, machine=machine
    ),
    st.lists(NAMES, max_size=4), PATHS, PATHS, st.sampled_from([None, "a.so", "c.so"]), st.sampled_from([62, 62, 183]),
)  # fmt: skip
FILES = st.dictionaries(
    st.sampled_from(["/top.so", "/lib/a.so", "/lib/b.so", "/a/a.so", "/a/c.so", "/usr/lib/c.so"]),
    st.one_of(IMAGES, st.sampled_from([b"", b"text", "/lib/a.so", "loop", FileKind.DENIED, FileKind.OTHER])),
)


@given(FILES)
def test_any_tree_ends_and_holds_together(entries: Entries) -> None:
    tree = resolve(entries, library_path=("/a", ""))
    for binding in tree.bindings:
        last = binding.probes[-1].outcome if binding.probes else None
        if binding.state is BindingState.BOUND:
            assert binding.path in tree.images or binding.phase is Phase.LOADED
            assert last in (None, ProbeOutcome.LOADED)
        elif binding.state is BindingState.MISSING:
            assert binding.path is None and ProbeOutcome.LOADED not in [probe.outcome for probe in binding.probes]
        else:
            assert binding.reason
    asked = [need for image in tree.images.values() if isinstance(image, ElfImage) for need in image.needed]
    assert len(tree.bindings) in (len(asked), len(asked) + 1)
