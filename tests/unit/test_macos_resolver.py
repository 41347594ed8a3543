"""What dyld would do, rule by rule, on files in memory."""

from __future__ import annotations

import pytest

from builders.memory_filesystem import MemoryFilesystem
from dlltracer.model.events import Phase, ProbeOutcome
from dlltracer.model.loader_context import FileKind, LoadedImage, MacosContext
from dlltracer.model.macho import (
    CPU_ARM64,
    CPU_X86_64,
    MH_BUNDLE,
    MH_DYLIB,
    MH_EXECUTE,
    SUBTYPE_ARM64E,
    SUBTYPE_X86_64H,
    MachoFile,
    MachoImage,
    MachoImport,
    MachoImports,
    MachoNeed,
    MachoSymbols,
    MachoTarget,
    NeedKind,
)
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.resolve.macos import find_missing_macho_symbols, is_system_path, pick_image, resolve_macos

TOP = "/site/pkg/x.so"


def image(
    *needs: str | tuple[str, NeedKind], kind: int = MH_DYLIB, rpaths: tuple[str, ...] = (), cpu: int = CPU_ARM64,
    subtype: int = 0, install_name: str | None = None, platform: int = 1, sdk: int = 13, unknown: tuple[int, ...] = (),
    symbols: MachoSymbols | None = None,
) -> MachoImage:  # fmt: skip
    wanted = [(need, NeedKind.LOAD) if isinstance(need, str) else need for need in needs]
    return MachoImage(
        offset=0, size=0, bits=64, cpu=cpu, subtype=subtype, kind=kind, flags=0x85, install_name=install_name,
        needs=tuple(
            MachoNeed(name=name, kind=how, current_version=(1, 0, 0), compatibility_version=(1, 0, 0))
            for name, how in wanted
        ),
        rpaths=rpaths, targets=(MachoTarget(platform, (11, 0, 0), (sdk, 0, 0)),), uuid=None, is_signed=True,
        is_chained=False, unknown_commands=unknown, symbols=symbols,
    )  # fmt: skip


def file(*images: MachoImage) -> MachoFile:
    return MachoFile(images, len(images) > 1)


def resolve(
    top: MachoImage, others: dict[str, MachoFile | bytes | FileKind | str] | None = None, **settings: object
) -> LoadTree:
    entries = {TOP: file(top), **(others or {})}
    context = MacosContext(cpu=CPU_ARM64, **settings)  # type: ignore[arg-type]
    return resolve_macos(TOP, context, MemoryFilesystem(entries))  # type: ignore[arg-type]


def only(tree: LoadTree) -> Binding:
    (binding,) = tree.bindings
    return binding


LIB = file(image())


def test_a_library_beside_the_image() -> None:
    tree = resolve(image("@loader_path/.dylibs/liba.dylib", kind=MH_BUNDLE), {"/site/pkg/.dylibs/liba.dylib": LIB})
    assert (only(tree).state, only(tree).path) == (BindingState.BOUND, "/site/pkg/.dylibs/liba.dylib")
    assert list(tree.images) == [TOP, "/site/pkg/.dylibs/liba.dylib"]
    assert not tree.missing


def test_loader_path_is_the_folder_of_the_file_and_not_of_a_link_to_it() -> None:
    files = {"/store/x.so": file(image("@loader_path/liba.dylib")), TOP: "/store/x.so", "/store/liba.dylib": LIB}
    tree = resolve_macos(TOP, MacosContext(cpu=CPU_ARM64), MemoryFilesystem(files))  # type: ignore[arg-type]
    assert only(tree).path == "/store/liba.dylib"


def test_executable_path_is_that_of_the_program() -> None:
    files = {"/py/bin/python3": file(image(kind=MH_EXECUTE)), "/py/lib/liba.dylib": LIB}
    tree = resolve(image("@executable_path/../lib/liba.dylib"), files, program="/py/bin/python3")
    assert only(tree).path == "/py/lib/liba.dylib"


def test_rpaths_go_up_to_who_asked_and_end_at_the_program() -> None:
    """Of the image itself, then of who asked for it, then of the program; @loader_path is of the owner."""
    files = {
        "/site/pkg/liba.dylib": file(image("@rpath/libb.dylib", rpaths=("/nowhere",))),
        "/py/bin/python3": file(image(kind=MH_EXECUTE, rpaths=("@loader_path/../lib",))),
        "/py/lib/libb.dylib": LIB,
    }
    tree = resolve(
        image("@loader_path/liba.dylib", rpaths=("@loader_path/deep",)), files, program="/py/bin/python3"
    )
    found = tree.bindings[1]
    assert [(probe.path, probe.origin) for probe in found.probes] == [
        ("/nowhere/libb.dylib", "/site/pkg/liba.dylib"), ("/site/pkg/deep/libb.dylib", TOP),
        ("/py/lib/libb.dylib", "/py/bin/python3"),
    ]  # fmt: skip
    assert found.phase is Phase.RPATH
    assert found.path == "/py/lib/libb.dylib"


def test_an_rpath_that_nothing_has() -> None:
    binding = only(resolve(image("@rpath/liba.dylib", rpaths=("/opt/lib",), sdk=14)))
    assert binding.state is BindingState.MISSING
    assert [probe.path for probe in binding.probes] == ["/opt/lib/liba.dylib"]


def test_no_rpath_at_all_leaves_the_fallbacks_of_old_images() -> None:
    old = only(resolve(image("@rpath/liba.dylib", sdk=13)))
    assert [probe.path for probe in old.probes] == ["/usr/local/lib/liba.dylib", "/usr/lib/liba.dylib"]
    assert old.state is BindingState.MISSING
    assert only(resolve(image("@rpath/liba.dylib", sdk=14))).probes == ()


def test_the_first_image_of_an_install_name_serves_everybody() -> None:
    """Two wheels that bring @rpath/libomp.dylib: the second is never looked for."""
    loaded = (LoadedImage("/site/other/libomp.dylib", "@rpath/libomp.dylib"),)
    tree = resolve(
        image("@rpath/libomp.dylib", rpaths=("@loader_path",)), {"/site/pkg/libomp.dylib": LIB}, loaded=loaded
    )
    assert (only(tree).path, only(tree).phase) == ("/site/other/libomp.dylib", Phase.LOADED)


def test_the_systems_libraries_need_no_file() -> None:
    binding = only(resolve(image("/usr/lib/libSystem.B.dylib")))
    assert binding.state is BindingState.SYSTEM
    swift = only(resolve(image("@rpath/libswiftCore.dylib", rpaths=("/usr/lib/swift",))))
    assert swift.state is BindingState.SYSTEM
    assert is_system_path("/System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation")
    assert not is_system_path("/usr/local/lib/libx.dylib")


@pytest.mark.parametrize(
    "name", ["/opt/homebrew/opt/openssl@3/lib/libssl.3.dylib", "/Users/runner/work/libx.dylib"]
)
def test_an_absolute_path_that_is_not_here(name: str) -> None:
    tree = resolve(image(name, sdk=14))
    assert only(tree).state is BindingState.MISSING
    assert tree.missing == tree.bindings


def test_library_path_comes_first_even_for_absolute_names() -> None:
    tree = resolve(image("/usr/lib/libz.1.dylib"), {"/mine/libz.1.dylib": LIB}, library_path=("/mine",))
    assert (only(tree).path, only(tree).phase) == ("/mine/libz.1.dylib", Phase.ENVIRONMENT)


def test_frameworks_have_a_path_of_their_own() -> None:
    name = "@rpath/Python.framework/Versions/3.12/Python"
    tree = resolve(
        image(name), {"/mine/Python.framework/Versions/3.12/Python": LIB}, framework_path=("/mine",),
        library_path=("/other",),
    )  # fmt: skip
    assert only(tree).path == "/mine/Python.framework/Versions/3.12/Python"


def test_fallbacks_that_are_set_replace_the_default_ones() -> None:
    there = {"/fall/libx.dylib": LIB}
    tree = resolve(image("libx.dylib", sdk=15), there, fallback_path=("/fall",), current_folder="/w")
    assert [probe.path for probe in only(tree).probes] == ["/w/libx.dylib", "/fall/libx.dylib"]
    assert only(tree).path == "/fall/libx.dylib"


def test_a_file_for_another_processor_is_passed_over() -> None:
    """Unlike ld.so, dyld then looks at the next place."""
    files = {
        "/a/libx.dylib": file(image(cpu=CPU_X86_64)), "/b/libx.dylib": file(image(cpu=CPU_X86_64), image()),
    }  # fmt: skip
    tree = resolve(image("@rpath/libx.dylib", rpaths=("/a", "/b")), files)
    assert only(tree).path == "/b/libx.dylib"
    refused = only(tree).probes[0]
    assert refused.outcome is ProbeOutcome.PRESENT
    assert refused.reason == "mach-o file, but is an incompatible architecture (have 'x86_64', need 'arm64')"


def test_a_universal_file_without_the_right_image() -> None:
    both = file(image(cpu=CPU_X86_64), image(cpu=7))
    binding = only(resolve(image("/opt/libx.dylib", sdk=14), {"/opt/libx.dylib": both}))
    assert binding.state is BindingState.REFUSED
    assert binding.reason == "fat file, but missing compatible architecture (have 'x86_64,i386', need 'arm64')"


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (b"\x7fELF", "bytes that are no image"),
        (FileKind.DENIED, "permission denied"),
        (FileKind.FOLDER, "not a file"),
        (file(image(kind=MH_BUNDLE)), "cannot link against bundle"),
        (file(image(kind=MH_EXECUTE)), "cannot link against a main executable"),
        (file(image(kind=1)), "unloadable mach-o file type 1"),
        (file(image(platform=7)), "incompatible platform (have 'iOS simulator', need 'macOS')"),
        (file(image(unknown=(0x80000099,))), "unknown required load command 0x80000099"),
    ],
)
def test_files_that_dyld_refuses(there: MachoFile | bytes | FileKind, reason: str) -> None:
    binding = only(resolve(image("/opt/libx.dylib", sdk=14), {"/opt/libx.dylib": there}))
    assert (binding.state, binding.path) == (BindingState.REFUSED, "/opt/libx.dylib")
    assert reason in (binding.reason or "")


def test_weak_and_lazy_needs_do_not_fail_the_load() -> None:
    tree = resolve(image(("/opt/libw.dylib", NeedKind.WEAK), ("/opt/libz.dylib", NeedKind.LAZY), sdk=14))
    assert [(b.state, b.optional, b.delayed) for b in tree.bindings] == [
        (BindingState.MISSING, True, False), (BindingState.MISSING, False, True),
    ]  # fmt: skip
    assert tree.missing == ()


def test_breadth_first_and_each_file_once() -> None:
    files = {
        "/l/liba.dylib": file(image("/l/libc.dylib", "/l/libb.dylib")), "/l/libb.dylib": file(image("/l/liba.dylib")),
        "/l/libc.dylib": LIB, "/l/link.dylib": "/l/libc.dylib",
    }  # fmt: skip
    tree = resolve(image("/l/liba.dylib", "/l/libb.dylib", "/l/link.dylib"), files)
    assert list(tree.images) == [TOP, "/l/liba.dylib", "/l/libb.dylib", "/l/link.dylib"]
    assert {b.path for b in tree.bindings if b.need == "/l/libc.dylib"} == {"/l/link.dylib"}


def test_a_top_that_is_missing_or_refused() -> None:
    context = MacosContext(cpu=CPU_ARM64)
    missing = resolve_macos(TOP, context, MemoryFilesystem({}))
    assert only(missing).state is BindingState.MISSING
    other = resolve_macos(TOP, context, MemoryFilesystem({TOP: file(image(cpu=CPU_X86_64))}))  # type: ignore[dict-item]
    assert only(other).state is BindingState.REFUSED
    assert not other.images


def test_the_image_that_a_process_takes() -> None:
    arm, arm_e, intel, haswell = (
        image(), image(subtype=SUBTYPE_ARM64E), image(cpu=CPU_X86_64, subtype=3),
        image(cpu=CPU_X86_64, subtype=SUBTYPE_X86_64H),
    )  # fmt: skip
    every = file(intel, haswell, arm_e, arm)
    assert pick_image(every, CPU_ARM64) is arm
    assert pick_image(every, CPU_ARM64, SUBTYPE_ARM64E) is arm_e
    assert pick_image(file(intel, arm), CPU_ARM64, SUBTYPE_ARM64E) is arm
    assert pick_image(file(arm_e), CPU_ARM64) is None
    assert pick_image(every, CPU_X86_64) is haswell
    assert pick_image(file(arm), CPU_X86_64) is None


def symbols(imports: list[tuple[str, int]], exports: dict[str, tuple[int, str] | None]) -> MachoSymbols:
    names, ordinals = zip(*imports, strict=True) if imports else ((), ())
    return MachoSymbols(MachoImports(names, ordinals, (False,) * len(names)), exports)


def missing_of(tree: LoadTree) -> list[str]:
    images = {path: one for path, one in tree.images.items() if isinstance(one, MachoImage)}
    return [symbol.name for symbol in find_missing_macho_symbols(images, tree.bindings)]


def test_symbols_are_looked_for_in_their_own_library_only() -> None:
    """Two levels: that another library has the name does not help."""
    files = {
        "/l/liba.dylib": file(image(symbols=symbols([], {"_a": None}))),
        "/l/libb.dylib": file(image(symbols=symbols([], {"_b": None}))),
    }
    wanted = symbols([("_a", 1), ("_b", 1), ("_PyList_New", -2), ("_self", 0)], {})
    tree = resolve(image("/l/liba.dylib", "/l/libb.dylib", symbols=wanted), files)
    assert missing_of(tree) == ["_b"]


def test_what_a_library_passes_on_counts_as_its_own() -> None:
    files = {
        "/l/liba.dylib": file(image(("/l/libb.dylib", NeedKind.REEXPORT), symbols=symbols([], {}))),
        "/l/libb.dylib": file(image(symbols=symbols([], {"_b": None}))),
    }
    wanted = symbols([("_b", 1), ("_c", 1)], {})
    assert missing_of(resolve(image("/l/liba.dylib", symbols=wanted), files)) == ["_c"]


def test_nothing_is_said_of_libraries_that_are_not_here() -> None:
    wanted = symbols([("_puts", 1), ("_x", 2)], {})
    files = {"/l/liba.dylib": file(image(("/usr/lib/libc++.1.dylib", NeedKind.REEXPORT), symbols=symbols([], {})))}
    assert missing_of(resolve(image("/usr/lib/libSystem.B.dylib", "/l/liba.dylib", symbols=wanted), files)) == []


def test_a_missing_symbol_names_what_looks_like_it() -> None:
    files = {"/l/liba.dylib": file(image(symbols=symbols([], {"_open_v2": None})))}
    tree = resolve(image("/l/liba.dylib", symbols=symbols([("_open_v3", 1)], {})), files)
    images = {path: one for path, one in tree.images.items() if isinstance(one, MachoImage)}
    (missing,) = find_missing_macho_symbols(images, tree.bindings)
    assert (missing.library, missing.requested_by, missing.nearest) == ("/l/liba.dylib", TOP, ("_open_v2",))


def test_a_symbol_imported_twice_is_one() -> None:
    assert MachoImports(("_a",), (1,), (False,)) == (MachoImport("_a", 1),)
