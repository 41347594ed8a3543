"""The work for one tree is bounded, and what was left out is counted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from builders.memory_filesystem import MemoryFilesystem, elf_image
from builders.pe_file import build_pe
from dlltracer.host.filesystem import WindowsFiles
from dlltracer.model.loader_context import GlibcContext, WindowsContext
from dlltracer.model.pe import MACHINE_AMD64
from dlltracer.model.tree import BindingState
from dlltracer.resolve.linux import resolve_glibc
from dlltracer.resolve.lookup import MOST_BINDINGS, MOST_PLACES
from dlltracer.resolve.windows import resolve_windows


def test_a_search_path_of_60000_folders() -> None:
    names = [f"libn{number}.so" for number in range(20)]
    runpath = ":".join(f"/n/{number}" for number in range(MOST_PLACES))
    files = MemoryFilesystem({"/top.so": elf_image(*names, runpath=runpath)})
    tree = resolve_glibc("/top.so", GlibcContext(), files)
    # The first need is found nowhere, a cache that lacks it is no place; for the second nothing is left.
    assert len(tree.bindings) + tree.unresolved == 20
    assert tree.unresolved >= 19
    assert f"{tree.unresolved} needs were not looked for" in tree.notes[-1]
    assert all(binding.state is BindingState.MISSING for binding in tree.bindings)


def test_what_fits_is_looked_for() -> None:
    files = MemoryFilesystem({"/top.so": elf_image("a.so", "b.so", runpath="/a:/b"), "/b/b.so": elf_image()})
    tree = resolve_glibc("/top.so", GlibcContext(), files)
    assert tree.unresolved == 0 and tree.notes == ()
    assert [binding.state for binding in tree.bindings] == [BindingState.MISSING, BindingState.BOUND]


def test_300_images_that_need_one_another() -> None:
    names = [f"libm{number}.so" for number in range(300)]
    every = {f"/m/{name}": elf_image(*names, "libgone.so", soname=name, runpath="$ORIGIN") for name in names}
    start = time.process_time()
    tree = resolve_glibc("/m/libm0.so", GlibcContext(), MemoryFilesystem({**every}))
    assert time.process_time() - start < 5
    assert len(tree.images) == 300
    assert MOST_BINDINGS <= len(tree.bindings) < MOST_BINDINGS + 400
    left = 300 * 301 - len(tree.bindings)
    assert tree.notes == (
        f"{left} more needs are not listed: they have the same answer as others of their name, and {MOST_BINDINGS} are",
    )
    assert {binding.need for binding in tree.missing} == {"libgone.so"}


def test_a_chain_of_5000_images_with_search_paths() -> None:
    """Each may inherit the RPATH of all before it."""
    images = {f"/c/l{n}.so": elf_image(f"l{n + 1}.so", rpath="/none" if n % 2 else "/c") for n in range(5000)}
    start = time.process_time()
    tree = resolve_glibc("/c/l0.so", GlibcContext(), MemoryFilesystem({**images}))
    assert time.process_time() - start < 10
    assert len(tree.images) == 5000
    assert tree.chain_to("/c/l4999.so") == tuple(f"/c/l{n}.so" for n in range(5000))
    assert tree.chain_to("/elsewhere.so") == ("/elsewhere.so",)


@pytest.mark.parametrize("count", [1, 200])
def test_dlls_that_need_one_another(count: int, tmp_path: Path) -> None:
    names = [f"m{number}.dll" for number in range(count)]
    data = build_pe(imports=dict.fromkeys(names, ("f",)))
    for name in names:
        (tmp_path / name).write_bytes(data)
    context = WindowsContext(MACHINE_AMD64, application_folder="C:\\", has_system_files=False)
    tree = resolve_windows("C:\\m0.dll", context, WindowsFiles({"C:": str(tmp_path)}))
    assert len(tree.images) == count
    assert not tree.missing
    assert len(tree.bindings) <= MOST_BINDINGS + count
    assert bool(tree.notes) == (count * count > MOST_BINDINGS + count)
