"""Many loads at once have the trees that each has alone, but for the probes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builders.memory_filesystem import MemoryFilesystem, elf_image
from dlltracer.model.elf import ElfImage
from dlltracer.model.loader_context import CacheEntry, FileKind, GlibcContext, LoadedImage, MuslContext
from dlltracer.model.tree import LoadTree
from dlltracer.resolve.linux import LinuxResolver, resolve_linux

Entries = dict[str, ElfImage | bytes | FileKind | str]

NAMES = st.sampled_from(["a.so", "b.so", "c.so", "/lib/a.so", "$ORIGIN/b.so", "", "$PLATFORM", "libc.so"])
PATHS = st.one_of(st.none(), st.sampled_from(["", ":", "$ORIGIN", "/lib:/a", "/a/:$LIB:.", "${ORIGIN}/..:/a"]))
IMAGES = st.builds(
    lambda needed, rpath, runpath, soname, machine, flags_1: elf_image(
        *needed, rpath=rpath, runpath=runpath, soname=soname, machine=machine, flags_1=flags_1
    ),
    st.lists(NAMES, max_size=4), PATHS, PATHS, st.sampled_from([None, "a.so", "c.so"]), st.sampled_from([62, 62, 183]),
    st.sampled_from([0, 0, 0x800]),
)  # fmt: skip
TOPS = ["/top.so", "/lib/a.so", "/lib/b.so", "/a/a.so", "/a/c.so", "/usr/lib/c.so"]
FILES = st.dictionaries(
    st.sampled_from(TOPS),
    st.one_of(IMAGES, st.sampled_from([b"", b"text", "/lib/a.so", "loop", FileKind.DENIED, FileKind.OTHER])),
)
CONTEXTS: list[GlibcContext | MuslContext] = [
    GlibcContext(
        system_folders=("/lib", "/usr/lib"), cache=(CacheEntry("c.so", "/usr/lib/c.so", 0x303),), lib="lib64",
        platform="x86_64", loader="/lib/ld.so", library_path=("/a", ""),
    ),
    GlibcContext(system_folders=("/lib",), program="/bin/p", library_path=("$ORIGIN/../a",)),
    MuslContext(system_folders=("/lib", "/usr/lib"), library_path=("/a",)),
]  # fmt: skip


def answer(tree: LoadTree) -> tuple[object, ...]:
    """All of a tree but where it looked."""
    bindings = [replace(binding, probes=()) for binding in tree.bindings]
    return tree.top, list(tree.images.items()), bindings, tree.unresolved


@pytest.mark.parametrize("context", CONTEXTS, ids=["glibc", "glibc-program", "musl"])
@given(entries=FILES, order=st.permutations(TOPS), loaded=st.booleans())
@example(
    entries={"/top.so": elf_image("/lib/a.so"), "/lib/a.so": FileKind.DENIED, "/a/c.so": "/lib/a.so"}, order=TOPS,
    loaded=True,
)  # fmt: skip
def test_the_same_trees(
    context: GlibcContext | MuslContext, entries: Entries, order: list[str], loaded: bool
) -> None:
    entries = {"/bin/p": elf_image(rpath="/lib:$ORIGIN"), **entries}
    if loaded:
        context = replace(context, loaded=(LoadedImage("/a/c.so", "c.so", ("c.so",)),))
    files = MemoryFilesystem(entries)  # type: ignore[arg-type]
    resolver = LinuxResolver(context, files)
    for top in order:
        for program in (False, True):
            alone = resolve_linux(top, context, files, program=program)
            assert answer(resolver.follow(top, program=program)) == answer(alone)
