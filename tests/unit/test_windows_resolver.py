"""The Windows resolver on files in memory. What real loaders do is compared in tests/windows."""

from __future__ import annotations

import ntpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlltracer.errors import BinaryFormatError
from dlltracer.model.events import Phase, ProbeOutcome
from dlltracer.model.loader_context import (
    CTYPES_NAME_SEARCH,
    EXTENSION_MODULE_SEARCH,
    STANDARD_SEARCH,
    ApiSetHost,
    FileKind,
    LoadFlags,
    WindowsContext,
    context_for_wheel,
)
from dlltracer.model.pe import (
    MACHINE_AMD64,
    MACHINE_ARM64,
    MACHINE_I386,
    AssemblyReference,
    PeExport,
    PeImage,
    PeImport,
    PeResources,
    PeSymbol,
)
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.resolve.windows import parse_forwarder, resolve_windows
from dlltracer.resolve.winsearch import SearchKind, complete_name, search_places

PY = "C:\\Python"
SYSTEM = "C:\\Windows\\System32"
PKG = "C:\\site\\pkg"
TOP = f"{PKG}\\m.pyd"

CONTEXT = WindowsContext(MACHINE_AMD64, PY, known_dlls=frozenset(), api_sets={})


def image(*needs: str | PeImport, machine: int = MACHINE_AMD64, **changes: object) -> PeImage:
    """An image with these imports."""
    imports = tuple(need if isinstance(need, PeImport) else PeImport(need) for need in needs)
    plain = PeImage(machine, 64, 0x2022, 0, 3, (14, 29), 0, 0x1000, 0, imports)
    return replace(plain, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class MemoryFiles:
    """Windows paths to images, or to what reading them raises; `identities` for paths of one file."""

    images: Mapping[str, PeImage | Exception]
    identities: Mapping[str, int] = field(default_factory=dict)

    def _find(self, path: str) -> PeImage | Exception | None:
        return next((found for known, found in self.images.items() if known.lower() == path.lower()), None)

    def kind(self, path: str) -> FileKind:
        found = self._find(path)
        if found is None:
            inside = any(known.lower().startswith(path.lower() + "\\") for known in self.images)
            return FileKind.FOLDER if inside else FileKind.ABSENT
        return FileKind.DENIED if isinstance(found, PermissionError) else FileKind.FILE

    def identity(self, path: str) -> tuple[int, int] | None:
        return (1, self.identities[path]) if path in self.identities else None

    def real_path(self, path: str) -> str:
        return path

    def read_head(self, path: str, size: int) -> bytes:
        raise NotImplementedError

    def read_image(self, path: str) -> PeImage:
        found = self._find(path)
        assert found is not None
        if isinstance(found, Exception):
            raise found
        return found


def resolve(files: Mapping[str, PeImage | Exception], path: str = TOP, **changes: object) -> LoadTree:
    context = replace(CONTEXT, **changes)  # type: ignore[arg-type]
    return resolve_windows(path, context, MemoryFiles(files))


def needs(tree: LoadTree) -> dict[str, Binding]:
    return {b.need: b for b in tree.bindings}


def test_all_missing_at_once_in_the_loaders_order() -> None:
    tree = resolve({TOP: image("x.dll", "a.dll", "y.dll"), f"{PKG}\\a.dll": image("z.dll")})
    assert [(b.need, b.requested_by) for b in tree.missing] == [
        ("x.dll", TOP),
        ("z.dll", f"{PKG}\\a.dll"),
        ("y.dll", TOP),
    ]
    assert list(tree.images) == [TOP, f"{PKG}\\a.dll"]
    assert [(p.phase, p.outcome) for p in tree.missing[0].probes] == [
        (Phase.IMAGE_FOLDER, ProbeOutcome.ABSENT),
        (Phase.APPLICATION, ProbeOutcome.ABSENT),
        (Phase.SYSTEM, ProbeOutcome.ABSENT),
    ]


@pytest.mark.parametrize(
    ("flags", "phases"),
    [
        (EXTENSION_MODULE_SEARCH, "IMAGE_FOLDER APPLICATION ADDED ADDED SYSTEM"),
        (CTYPES_NAME_SEARCH, "APPLICATION ADDED ADDED SYSTEM"),
        (STANDARD_SEARCH, "APPLICATION SYSTEM WINDOWS WINDOWS CURRENT PATH PATH"),
        (LoadFlags.ALTERED_SEARCH_PATH, "IMAGE_FOLDER SYSTEM WINDOWS WINDOWS CURRENT PATH PATH"),
        (LoadFlags.SAFE_CURRENT_DIRS, "APPLICATION SYSTEM WINDOWS WINDOWS PATH PATH"),
        (LoadFlags.SYSTEM32, "SYSTEM"),
        (LoadFlags.DLL_LOAD_DIR, "IMAGE_FOLDER"),
        (LoadFlags.USER_DIRS | LoadFlags.APPLICATION_DIR, "APPLICATION ADDED ADDED"),
    ],
)
def test_search_orders(flags: LoadFlags, phases: str) -> None:
    context = replace(CONTEXT, added_folders=("D:\\1", "D:\\2"), path=("E:\\1", "E:\\2"), current_folder="F:\\")
    places = search_places(SearchKind(flags, PKG), context)
    assert " ".join(place.phase.name for place in places) == phases


def test_search_orders_of_other_settings() -> None:
    def phases(flags: LoadFlags, **changes: object) -> list[str]:
        context = replace(CONTEXT, current_folder="F:\\", **changes)  # type: ignore[arg-type]
        return [place.phase.name for place in search_places(SearchKind(flags, None), context)]

    unsafe = phases(STANDARD_SEARCH, safe_search=False)
    assert unsafe == ["APPLICATION", "CURRENT", "SYSTEM", "WINDOWS", "WINDOWS"]
    assert phases(STANDARD_SEARCH, dll_directory="G:\\")[:2] == ["APPLICATION", "ADDED"]
    assert "CURRENT" not in phases(STANDARD_SEARCH, dll_directory="G:\\")
    assert phases(CTYPES_NAME_SEARCH, dll_directory="G:\\") == ["APPLICATION", "ADDED", "SYSTEM"]
    assert phases(EXTENSION_MODULE_SEARCH)[0] == "APPLICATION"


def test_already_loaded_wins_whatever_its_folder() -> None:
    files = {TOP: image("MSVCP140.dll"), f"{PKG}\\msvcp140.dll": image()}
    loaded = ("C:\\Python\\python.exe", "D:\\old\\msvcp140.dll", "D:\\new\\msvcp140.dll")
    (binding,) = resolve(files, loaded=loaded).bindings
    assert (binding.path, binding.phase, binding.probes) == ("D:\\old\\msvcp140.dll", Phase.LOADED, ())


def test_dependent_load_flags_replace_the_search_of_that_image_only() -> None:
    files = {
        TOP: image("tbb12.dll"),
        f"{PKG}\\tbb12.dll": image("msvcp140-1.dll", "b.dll", dependent_load_flags=0x2000),
        f"{PKG}\\msvcp140-1.dll": image(),
        f"{SYSTEM}\\b.dll": image("c.dll"),
        f"{PKG}\\c.dll": image(),
    }
    tree = resolve(files)
    assert [b.need for b in tree.missing] == ["msvcp140-1.dll"]
    assert Phase.IMAGE_FOLDER not in {probe.phase for probe in tree.missing[0].probes}
    assert needs(tree)["c.dll"].path == f"{PKG}\\c.dll"  # of b.dll, which has no flags of its own
    assert not resolve(files, honours_dependent_flags=False).missing


def test_dependent_load_flags_with_the_load_dir_mean_the_images_own_folder() -> None:
    files = {
        TOP: image("a.dll"),
        "D:\\added\\a.dll": image("b.dll", dependent_load_flags=0x1100),
        "D:\\added\\b.dll": image(),
    }
    assert needs(resolve(files, added_folders=("D:\\added",)))["b.dll"].phase is Phase.IMAGE_FOLDER


def test_known_dlls_come_from_the_system() -> None:
    files = {TOP: image("Known.dll", "k\\known.dll"), f"{PKG}\\known.dll": image(), f"{SYSTEM}\\known.dll": image()}
    tree = resolve(files, known_dlls=frozenset({"known.dll"}))
    assert needs(tree)["Known.dll"].phase is Phase.KNOWN_DLL
    assert needs(tree)["Known.dll"].path == f"{SYSTEM}\\Known.dll"
    assert needs(tree)["k\\known.dll"].state is BindingState.MISSING


def test_redirection_beats_all_but_known_dlls() -> None:
    local = f"{PY}\\python.exe.local"
    files = {
        TOP: image("a.dll", "k.dll"),
        f"{local}\\a.dll": image(),
        f"{local}\\k.dll": image(),
        f"{SYSTEM}\\k.dll": image(),
    }
    tree = resolve(files, redirection=local, loaded=("D:\\a.dll",), known_dlls=frozenset({"k.dll"}))
    assert [(b.path, b.phase) for b in tree.bindings] == [
        (f"{local}\\a.dll", Phase.REDIRECTION),
        (f"{SYSTEM}\\k.dll", Phase.KNOWN_DLL),
    ]
    as_file = {TOP: image("a.dll"), local: image(), f"{PY}\\a.dll": image(), f"{PKG}\\a.dll": image()}
    assert resolve(as_file, redirection=local).bindings[0].path == f"{PY}\\a.dll"


CRT = AssemblyReference("Microsoft.VC90.CRT", "9.0.21022.8", "amd64", "1fc8b3b9a1e18e3b")
SHARED = "amd64_microsoft.vc90.crt_1fc8b3b9a1e18e3b_9.0.{}_none_0"


def test_the_newest_shared_assembly_is_taken() -> None:
    folders = [SHARED.format("30729.6161"), SHARED.format("30729.9635"), SHARED.format("21022.1")]
    folders += [
        SHARED.format("40000.1").replace("amd64", "x86"),
        SHARED.format("1.1").replace("_9.0.", "_9.1."),
        "junk",
    ]
    files: dict[str, PeImage | Exception] = {
        TOP: image("msvcr90.dll", resources=PeResources(assemblies=(CRT,))),
        f"{PKG}\\msvcr90.dll": image(),
    }
    files |= {f"C:\\Windows\\WinSxS\\{folder}\\msvcr90.dll": image() for folder in folders}
    (binding,) = resolve(files, assembly_folders=tuple(folders), loaded=("D:\\msvcr90.dll",)).bindings
    assert binding.phase is Phase.MANIFEST
    assert ntpath.dirname(binding.path or "").endswith(SHARED.format("30729.9635"))
    assert binding.probes[0].origin == TOP


def test_a_private_assembly_and_the_programs_own() -> None:
    files = {
        TOP: image("p.dll", "q.dll", resources=PeResources(assemblies=(AssemblyReference("My.Asm"),))),
        f"{PKG}\\My.Asm\\p.dll": image(),
        f"{PY}\\Its.Asm\\q.dll": image(),
        f"{PKG}\\q.dll": image(),
    }
    tree = resolve(files, assemblies=(AssemblyReference("Its.Asm"),))
    assert [b.path for b in tree.bindings] == [f"{PKG}\\My.Asm\\p.dll", f"{PY}\\Its.Asm\\q.dll"]


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (BinaryFormatError(0, "no MZ"), "193"),
        (PermissionError(13, "denied"), "error 5"),
        (OSError(5, "input/output error"), "input/output error"),
    ],
)
def test_a_file_that_cannot_be_taken_stops_the_search(found: Exception, word: str) -> None:
    files = {TOP: image("a.dll"), f"{PKG}\\a.dll": found, f"{PY}\\a.dll": image()}
    (binding,) = resolve(files).missing
    assert (binding.state, binding.path) == (BindingState.REFUSED, f"{PKG}\\a.dll")
    assert word in (binding.reason or "")


def test_another_machine_is_passed_over() -> None:
    files = {TOP: image("a.dll"), f"{PKG}\\a.dll": image(machine=MACHINE_I386), f"{PY}\\a.dll": image()}
    (binding,) = resolve(files).bindings
    assert binding.path == f"{PY}\\a.dll"
    assert "made for x86 (32 bit), this process is x86-64" in (binding.probes[0].reason or "")
    (binding,) = resolve(files, skips_wrong_machine=False).missing
    assert (binding.state, binding.path) == (BindingState.REFUSED, f"{PKG}\\a.dll")


def test_hybrid_and_managed_images_fit() -> None:
    files = {TOP: image("h.dll", "n.dll"), f"{PKG}\\h.dll": image(machine=MACHINE_ARM64, is_hybrid=True)}
    files[f"{PKG}\\n.dll"] = image(machine=MACHINE_I386, is_managed=True)
    assert not resolve(files).missing
    assert resolve({TOP: image(machine=MACHINE_AMD64, is_hybrid=True)}, machine=MACHINE_ARM64).missing
    files[f"{PKG}\\h.dll"] = image(machine=MACHINE_ARM64)
    assert [b.need for b in resolve(files).missing] == ["h.dll"]


def test_delayed_imports_fail_nothing_and_do_not_know_the_folder_of_their_image() -> None:
    later = PeImport("later.dll", delayed=True)
    files = {TOP: image("a.dll", later), f"{PKG}\\a.dll": image(), f"{PKG}\\later.dll": image()}
    tree = resolve(files)
    assert not tree.missing
    assert list(tree.images) == [TOP, f"{PKG}\\a.dll"]
    binding = tree.bindings[-1]
    assert (binding.state, binding.delayed) == (BindingState.MISSING, True)
    assert Phase.IMAGE_FOLDER not in {probe.phase for probe in binding.probes}
    # Once somebody has loaded it, its name is enough.
    assert resolve(files, loaded=(f"{PKG}\\later.dll",)).bindings[-1].phase is Phase.LOADED


def test_what_a_delayed_import_would_bring_is_delayed() -> None:
    files = {
        TOP: image(PeImport("later.dll", delayed=True)),
        f"{PY}\\later.dll": image("gone.dll", PeImport("never.dll", delayed=True)),
    }
    tree = resolve(files)
    assert not tree.missing
    assert [(b.need, b.state.value, b.delayed) for b in tree.bindings] == [
        ("later.dll", "bound", True),
        ("gone.dll", "missing", True),
        ("never.dll", "missing", True),
    ]
    assert list(tree.images) == [TOP]


def test_imports_of_nothing_are_not_looked_for() -> None:
    assert resolve({TOP: image(PeImport("gone.dll", (), unused=True))}).bindings == ()


F = PeSymbol("f")


def test_forwarders_bring_their_libraries() -> None:
    files = {
        TOP: image(PeImport("icuuc.dll", (F, PeSymbol(None, 7)))),
        f"{PKG}\\icuuc.dll": image(
            exports=(
                PeExport(1, "f", "icu.g"),
                PeExport(2, "unused", "gone.x"),
                PeExport(7, None, "icu.#9"),
            )
        ),
        f"{PKG}\\icu.dll": image(exports=(PeExport(8, "g", "lost.h"), PeExport(9, None, None))),
    }
    tree = resolve(files)
    assert [(b.need, ntpath.basename(b.requested_by)) for b in tree.bindings] == [
        ("icuuc.dll", "m.pyd"),
        ("icu.dll", "icuuc.dll"),
        ("lost.dll", "icu.dll"),
        ("icu.dll", "icuuc.dll"),
    ]
    assert [b.need for b in tree.missing] == ["lost.dll"]


def test_forwarders_in_a_circle_end() -> None:
    files = {
        TOP: image(PeImport("a.dll", (F,))),
        f"{PKG}\\a.dll": image(exports=(PeExport(1, "f", "b.f"),)),
        f"{PKG}\\b.dll": image(exports=(PeExport(1, "f", "a.f"),)),
    }
    assert [b.need for b in resolve(files).bindings] == ["a.dll", "b.dll", "a.dll"]


@pytest.mark.parametrize(
    ("text", "library", "symbol"),
    [
        ("NTDLL.RtlAllocateHeap", "NTDLL.dll", PeSymbol("RtlAllocateHeap")),
        ("other.#12", "other.dll", PeSymbol(None, 12)),
        ("api-ms-win-core-x-l1-1-0.Y", "api-ms-win-core-x-l1-1-0.dll", PeSymbol("Y")),
        ("some.drv.f", "some.drv", PeSymbol("f")),
        ("nothing", "", PeSymbol("nothing")),
        ("x.#1234567", "x.dll", PeSymbol("#1234567")),
    ],
)
def test_forwarder_texts(text: str, library: str, symbol: PeSymbol) -> None:
    assert parse_forwarder(text) == (library, symbol)


@pytest.mark.parametrize(
    ("need", "name"),
    [
        ("a", "a.dll"),
        ("a.dll", "a.dll"),
        ("a.1", "a.1"),
        ("a.", "a"),
        ("d/a", "d\\a.dll"),
        ("d.x\\a", "d.x\\a.dll"),
        ("a  ", "a.dll"),
    ],
)
def test_names_are_completed(need: str, name: str) -> None:
    assert complete_name(need) == name


def test_contracts_with_a_map() -> None:
    sets = {"api-ms-win-a-l1-1": ApiSetHost("host.dll"), "api-ms-win-b-l1-1": ApiSetHost("here.dll")}
    files = {
        TOP: image(
            "api-ms-win-a-l1-1-9.dll", "api-ms-win-b-l1-1-0.dll", "api-ms-win-new-l1-1-0.dll", "ext-ms-x-l1-1-0.dll"
        ),
        f"{SYSTEM}\\host.dll": image(),
        f"{PKG}\\api-ms-win-a-l1-1-9.dll": image(),
    }
    tree = resolve(files, api_sets=sets, loaded=(f"{SYSTEM}\\here.dll",))
    assert [(b.state.value, b.path and ntpath.basename(b.path)) for b in tree.bindings] == [
        ("bound", "host.dll"),
        ("bound", "here.dll"),
        ("missing", None),
        ("system", None),
    ]
    assert "does not have" in (tree.missing[0].reason or "")


def test_a_contract_without_a_map_is_never_missing() -> None:
    wheel = context_for_wheel(MACHINE_AMD64, (3, 13))
    files = MemoryFiles(
        {TOP: image("api-ms-win-crt-heap-l1-1-0.dll", "api-ms-win-new-l1-1-0.dll", "ext-ms-x-l1-1-0.dll")}
    )
    tree = resolve_windows(TOP, wheel, files)
    assert {b.state for b in tree.bindings} == {BindingState.SYSTEM}
    assert [bool(b.reason) for b in tree.bindings] == [False, True, True]
    beside = MemoryFiles({**files.images, f"{PKG}\\api-ms-win-crt-heap-l1-1-0.dll": image()})
    assert resolve_windows(TOP, wheel, beside).bindings[0].path == f"{PKG}\\api-ms-win-crt-heap-l1-1-0.dll"


def test_a_wheel_without_a_windows() -> None:
    names = (
        "KERNEL32.dll",
        "d3d11.dll",
        "python313.dll",
        "VCRUNTIME140.dll",
        "MSVCP140.dll",
        "MFPlat.dll",
        "own.dll",
        "gone.dll",
    )
    files = MemoryFiles({TOP: image(*names), f"{PKG}\\own.dll": image()})
    tree = resolve_windows(TOP, context_for_wheel(MACHINE_AMD64, (3, 13)), files)
    assert [(b.state.value, b.phase) for b in tree.bindings] == [
        ("system", Phase.KNOWN_DLL),
        ("system", Phase.SYSTEM),
        ("system", Phase.APPLICATION),
        ("system", Phase.APPLICATION),
        ("missing", None),
        ("missing", None),
        ("bound", Phase.IMAGE_FOLDER),
        ("missing", None),
    ]
    reasons = [b.reason or "" for b in tree.missing]
    assert "Visual C++" in reasons[0] and "Media Foundation" in reasons[1] and not reasons[2]
    assert not any(probe.path.startswith("C:\\Windows") for b in tree.bindings for probe in b.probes)


def test_the_wheels_python() -> None:
    assert "python313t.dll" in context_for_wheel(MACHINE_AMD64, (3, 13), free_threaded=True).provided
    assert "vcruntime140_1.dll" not in context_for_wheel(MACHINE_I386, (3, 8)).provided


def test_one_file_under_two_paths_is_mapped_once() -> None:
    files = MemoryFiles(
        {
            TOP: image("a.dll", "b.dll"),
            f"{PKG}\\a.dll": image("c.dll"),
            f"{PKG}\\b.dll": image("c.dll"),
            f"{PKG}\\c.dll": image(),
        },
        {f"{PKG}\\a.dll": 5, f"{PKG}\\b.dll": 5},
    )
    tree = resolve_windows(TOP, CONTEXT, files)
    assert list(tree.images) == [TOP, f"{PKG}\\a.dll", f"{PKG}\\c.dll"]
    assert needs(tree)["b.dll"].path == f"{PKG}\\a.dll"


def test_where_the_order_of_added_folders_decides_it_is_said() -> None:
    files = {TOP: image("a.dll", "b.dll"), "D:\\1\\a.dll": image(), "D:\\2\\a.dll": image(), "D:\\2\\b.dll": image()}
    tree = resolve(files, added_folders=("D:\\1", "D:\\2"))
    assert [b.path for b in tree.bindings] == ["D:\\1\\a.dll", "D:\\2\\b.dll"]
    (note,) = tree.notes
    assert "D:\\1\\a.dll" in note and "D:\\2\\a.dll" in note and "not specified" in note
    assert not resolve(files, added_folders=("D:\\2", "D:\\3")).notes


def test_the_top_itself() -> None:
    absent = resolve({})
    assert [(b.need, b.requested_by, b.phase, b.state.value) for b in absent.missing] == [(TOP, "", None, "missing")]
    narrow = resolve({TOP: image(machine=MACHINE_I386)})
    assert [(b.state.value, b.phase) for b in narrow.missing] == [("refused", Phase.DIRECT)]
    loaded = resolve({TOP: image("x.dll")}, loaded=(TOP,))
    assert not loaded.images and "in the process already" in loaded.notes[0]
    relative = resolve({TOP: image()}, "pkg/m.pyd", current_folder="C:\\site")
    assert (relative.top, list(relative.images)) == (TOP, [TOP])
    by_name = resolve({f"{SYSTEM}\\a.dll": image("b.dll"), f"{SYSTEM}\\b.dll": image()}, "a", flags=CTYPES_NAME_SEARCH)
    assert [b.need for b in by_name.bindings] == ["a", "b.dll"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=8))
def test_any_graph_ends_and_every_need_is_reported_once(graph: list[list[int]]) -> None:
    files = {f"{PKG}\\{n}.dll": image(*dict.fromkeys(f"{to}.dll" for to in needed)) for n, needed in enumerate(graph)}
    tree = resolve(files, f"{PKG}\\0.dll")
    asked = [(b.requested_by, b.need) for b in tree.bindings]
    assert len(asked) == len(set(asked)) == sum(len(found.imports) for found in tree.images.values())
    for binding in tree.bindings:
        there = int(binding.need.partition(".")[0]) < len(graph)
        assert binding.state is (BindingState.BOUND if there else BindingState.MISSING)
        assert (binding.path in tree.images) == there


@given(st.text(alphabet="aB.\\/:#- \0?*\u00e9\ud800", max_size=12))
def test_any_name_is_data(name: str) -> None:
    tree = resolve({TOP: image(name)})
    assert [(b.need, b.state) for b in tree.bindings] == [(name, BindingState.MISSING)]
    assert parse_forwarder(name)


def test_a_long_chain_is_followed() -> None:
    files = {f"{PKG}\\{n}.dll": image(f"{n + 1}.dll") for n in range(300)}
    tree = resolve(files, f"{PKG}\\0.dll")
    assert len(tree.images) == 300
    assert [b.need for b in tree.missing] == ["300.dll"]
