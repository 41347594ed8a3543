"""The rules of musl, on files in memory; that they are musl's own is for tests/oracle to say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.memory_filesystem import MemoryFilesystem, elf_image
from dlltracer.model.elf import ElfImage
from dlltracer.model.events import Phase
from dlltracer.model.loader_context import FileKind, LoadedImage, MuslContext
from dlltracer.model.pe import PeImage
from dlltracer.model.tree import BindingState, LoadTree
from dlltracer.resolve.linux import resolve_musl

CONTEXT = MuslContext(system_folders=("/lib", "/usr/lib"), loader="/lib/ld-musl-x86_64.so.1")
LEAF = elf_image()
Entries = dict[str, ElfImage | PeImage | bytes | FileKind | str]


def resolve(entries: Entries, top: str = "/top.so", **changes: object) -> LoadTree:
    return resolve_musl(top, replace(CONTEXT, **changes), MemoryFilesystem(entries))  # type: ignore[arg-type]


def test_the_environment_comes_first_then_every_requester_up_to_the_program() -> None:
    entries: Entries = {
        "/top.so": elf_image("a.so", rpath="/a"), "/a/a.so": elf_image("x.so", rpath="/no", runpath="$ORIGIN/own"),
        "/bin/python": elf_image(runpath="${ORIGIN}/../main"),
    }  # fmt: skip
    (binding,) = resolve(entries, program="/bin/python", library_path=("/env", "")).missing
    assert [(probe.path, probe.phase, probe.origin) for probe in binding.probes] == [
        ("/env/x.so", Phase.ENVIRONMENT, None),
        ("/a/own/x.so", Phase.RUNPATH, "/a/a.so"),
        ("/a/x.so", Phase.RPATH, "/top.so"),
        ("/bin/../main/x.so", Phase.RUNPATH, "/bin/python"),
        ("/lib/x.so", Phase.SYSTEM, None),
        ("/usr/lib/x.so", Phase.SYSTEM, None),
    ]


def test_a_path_with_a_token_of_glibc_is_ignored_as_a_whole() -> None:
    (binding,) = resolve({"/top.so": elf_image("x.so", runpath="/a:$ORIGIN/$LIB")}).missing
    assert {probe.phase for probe in binding.probes} == {Phase.SYSTEM}


@pytest.mark.parametrize("name", ["libc.so", "libc.so.6", "libm.so.6", "libpthread.so.0", "/lib/ld-musl-x86_64.so.1"])
def test_musl_answers_for_itself(name: str) -> None:
    (binding,) = resolve({"/top.so": elf_image(name), "/lib/libm.so.6": LEAF}).bindings
    assert (binding.path, binding.phase) == (CONTEXT.loader, Phase.LOADED)


def test_only_searched_names_count_and_no_sonames() -> None:
    entries: Entries = {
        "/top.so": elf_image("/lib/x.so", "alias.so", "x.so", "x.so"), "/lib/x.so": elf_image(soname="alias.so"),
    }  # fmt: skip
    bindings = resolve(entries).bindings
    assert [(b.state, b.phase) for b in bindings] == [
        (BindingState.BOUND, Phase.DIRECT), (BindingState.MISSING, None), (BindingState.BOUND, Phase.SYSTEM),
        (BindingState.BOUND, Phase.LOADED),
    ]  # fmt: skip
    tree = resolve({"/top.so": elf_image("x.so")}, loaded=(LoadedImage("/lib/x.so.1", "x.so", ("x.so",)),))
    assert not tree.missing


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (elf_image(machine=183), "made for AArch64, this process is x86-64"),
        (elf_image(is_dynamic=False), "Exec format error: no dynamic section"),
        (elf_image(kind=1), "Exec format error: neither a shared object nor a program"),
        (b"", "Exec format error: this is an empty file"),
        ("x.so", "a link that leads back to itself"),
    ],
)
def test_the_first_file_decides(image: ElfImage | bytes | str, reason: str) -> None:
    entries: Entries = {"/top.so": elf_image("x.so", runpath="/a:/b"), "/a/x.so": image, "/b/x.so": LEAF}
    (binding,) = resolve(entries).missing
    assert (binding.state, binding.path, binding.reason) == (BindingState.REFUSED, "/a/x.so", reason)


def test_what_may_not_be_read_is_passed_over() -> None:
    entries: Entries = {"/top.so": elf_image("x.so", runpath="/a:/b"), "/a/x.so": FileKind.DENIED, "/b/x.so": LEAF}
    assert not resolve(entries).missing


def test_places_longer_than_its_buffer_are_passed_over() -> None:
    name = "x" * 200
    entries: Entries = {"/top.so": elf_image(name, "y" * 256, runpath="/" + "a" * 310), "/lib/" + name: LEAF}
    bound, missing = resolve(entries).bindings
    assert [probe.phase for probe in bound.probes] == [Phase.SYSTEM]
    assert missing.probes == () and missing.state is BindingState.MISSING


def test_a_program_that_starts() -> None:
    entries: Entries = {"/bin/p": elf_image("x.so", runpath="/a", kind=2), "/a/x.so": elf_image("libc.so")}
    tree = resolve_musl("/bin/p", CONTEXT, MemoryFilesystem(entries), program=True)
    assert list(tree.images) == ["/bin/p", "/a/x.so"] and not tree.missing
