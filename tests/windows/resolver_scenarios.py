"""Loads to compare: what the resolver says of them, and what Wine's loader does.

Each scenario has files of its own, with names that no other one has: all run in one process, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builders.pe_file import I386, Export, build_manifest, build_pe

IMPORT, CTYPES, STANDARD = "import", "ctypes", "standard"
"""How a file is loaded: as an extension module, as ctypes does by default, by plain LoadLibrary (winmode=0)."""


@dataclass(frozen=True)
class Step:
    """One load. `file` is "place/name", or a bare name to be searched for."""

    file: str
    how: str = IMPORT


@dataclass(frozen=True)
class Scenario:
    """Files ("place/name" to content) and loads.

    The places: `pkg` the folder of the module, `app` that of python.exe, `added` (os.add_dll_directory), `path` (PATH),
    `cwd` (the current folder), `system` (System32).
    """

    name: str
    files: Mapping[str, bytes]
    steps: tuple[Step, ...]
    missing: tuple[str, ...] = ()
    """Names that Wine's own messages must give, for all steps together."""
    bound: Mapping[str, str] = field(default_factory=dict)
    """Name to "place/name" of the file that must be taken: what the scenario is about, said once more by hand."""


def dll(*needs: str) -> bytes:
    """A DLL that exports `f` and imports `f` from others."""
    return build_pe({need: ["f"] for need in needs} if needs else None, ["f"])


def forwarding(library: str) -> bytes:
    """A DLL whose `f` is another's."""
    return build_pe(None, [Export("f", None, f"{library}.f")])


def assembly(name: str, file: str) -> bytes:
    """The manifest of a private assembly that has one file."""
    return (
        '<assembly xmlns="urn:schemas-microsoft-com:asm.v1" manifestVersion="1.0"><assemblyIdentity type="win32" '
        f'name="{name}" version="9.0.0.0" processorArchitecture="amd64" publicKeyToken="1fc8b3b9a1e18e3b"/>'
        f'<file name="{file}"/></assembly>'
    ).encode()


def one_need(name: str, *places: str, how: str = IMPORT) -> Scenario:
    """A module in `pkg` that needs one DLL, which lies in these places; the first is the one to be taken.

    A place in brackets is one where the loader does not look.
    """
    dependency = f"{name}_dep.dll"
    files = {f"pkg/{name}.pyd": dll(dependency)}
    files |= {f"{place.strip('[]')}/{dependency}": dll() for place in places}
    searched = [place for place in places if not place.startswith("[")]
    return Scenario(
        name,
        files,
        (Step(f"pkg/{name}.pyd", how),),
        missing=() if searched else (dependency,),
        bound={dependency: f"{searched[0]}/{dependency}"} if searched else {},
    )


SCENARIOS = (
    one_need("sibling", "pkg"),
    one_need("application", "app"),
    one_need("added", "added"),
    one_need("system", "system"),
    one_need("nowhere"),
    one_need("path_only", "[path]"),
    one_need("current_only", "[cwd]"),
    one_need("sibling_first", "pkg", "app", "added", "system"),
    one_need("application_second", "app", "added", "system"),
    one_need("added_third", "added", "system"),
    one_need("standard_sibling", "[pkg]", "[added]", how=STANDARD),
    one_need("standard_application", "app", "system", "cwd", "path", how=STANDARD),
    one_need("standard_system", "system", "cwd", "path", how=STANDARD),
    one_need("standard_current", "cwd", "path", how=STANDARD),
    one_need("standard_path", "path", how=STANDARD),
    one_need("ctypes_path", "pkg", "added", how=CTYPES),
    Scenario(
        "ctypes_name",
        {"pkg/byname.dll": dll(), "added/byname.dll": dll("byname_dep.dll"), "added/byname_dep.dll": dll()},
        (Step("byname", CTYPES),),
        bound={"byname": "added/byname.dll", "byname_dep.dll": "added/byname_dep.dll"},
    ),
    Scenario(
        "standard_name",
        {"path/stdname.dll": dll("stdname_dep.dll"), "path/stdname_dep.dll": dll(), "added/stdname.dll": dll()},
        (Step("stdname.dll", STANDARD),),
        bound={"stdname.dll": "path/stdname.dll"},
    ),
    Scenario(
        "chain",
        {
            "pkg/chain.pyd": dll("chain_a.dll"),
            "pkg/chain_a.dll": dll("chain_b.dll"),
            "pkg/chain_b.dll": dll("chain_c.dll"),
        },
        (Step("pkg/chain.pyd"),),
        missing=("chain_c.dll",),
    ),
    Scenario(
        "two_leaves",
        {"pkg/two.pyd": dll("two_x.dll", "two_a.dll", "two_y.dll"), "pkg/two_a.dll": dll("two_z.dll")},
        (Step("pkg/two.pyd"),),
        missing=("two_x.dll", "two_z.dll", "two_y.dll"),
    ),
    # The folder of the image that was asked for counts, not that of each dependency.
    Scenario(
        "folder_of_the_first",
        {
            "pkg/deep.pyd": dll("deep_a.dll"),
            "added/deep_a.dll": dll("deep_b.dll", "deep_c.dll"),
            "pkg/deep_b.dll": dll(),
            "pkg/deep_c.dll": dll(),
            "added/deep_c.dll": dll(),
        },
        (Step("pkg/deep.pyd"),),
        bound={"deep_b.dll": "pkg/deep_b.dll", "deep_c.dll": "pkg/deep_c.dll"},
    ),
    Scenario(
        "diamond_and_cycle",
        {
            "pkg/ring.pyd": dll("ring_a.dll", "ring_b.dll"),
            "pkg/ring_a.dll": dll("ring_c.dll", "ring_b.dll"),
            "pkg/ring_b.dll": dll("ring_a.dll", "ring_c.dll"),
            "pkg/ring_c.dll": dll("ring_a.dll", "kernel32.dll"),
        },
        (Step("pkg/ring.pyd"),),
    ),
    Scenario(
        "first_wins",
        {
            "added/first_dep.dll": dll(),
            "pkg/first_dep.dll": dll(),
            "pkg/first.pyd": dll("FIRST_DEP.dll"),
            "pkg/again.pyd": dll("first_dep"),
        },
        (
            Step("added/first_dep.dll", CTYPES),
            Step("pkg/first.pyd"),
            Step("pkg/first_dep.dll", CTYPES),
            Step("pkg/again.pyd"),
        ),
        bound={"FIRST_DEP.dll": "added/first_dep.dll", "first_dep": "added/first_dep.dll"},
    ),
    Scenario(
        "first_wins_in_one_load",
        {
            "pkg/dup.pyd": dll("dup_dep.dll", "inner\\dup_dep.dll", "dup_last.dll"),
            "pkg/dup_dep.dll": dll(),
            "pkg/inner/dup_dep.dll": dll(),
            "pkg/dup_last.dll": dll("dup_dep.dll"),
        },
        (Step("pkg/dup.pyd"),),
    ),
    Scenario(
        "no_extension",
        {"pkg/bare.pyd": dll("bare_dep", "bare_other.1"), "pkg/bare_dep.dll": dll(), "pkg/bare_other.1": dll()},
        (Step("pkg/bare.pyd"),),
        bound={"bare_dep": "pkg/bare_dep.dll", "bare_other.1": "pkg/bare_other.1"},
    ),
    Scenario(
        "name_with_folder",
        {"pkg/sub.pyd": dll("inner\\sub_dep.dll"), "pkg/inner/sub_dep.dll": dll()},
        (Step("pkg/sub.pyd"),),
        bound={"inner\\sub_dep.dll": "pkg/inner/sub_dep.dll"},
    ),
    Scenario(
        "wrong_machine_then_right",
        {
            "pkg/mixed.pyd": dll("mixed_dep.dll"),
            "pkg/mixed_dep.dll": build_pe(None, ["f"], machine=I386),
            "added/mixed_dep.dll": dll(),
        },
        (Step("pkg/mixed.pyd"),),
        bound={"mixed_dep.dll": "added/mixed_dep.dll"},
    ),
    Scenario(
        "wrong_machine_only",
        {"pkg/narrow.pyd": dll("narrow_dep.dll"), "pkg/narrow_dep.dll": build_pe(None, ["f"], machine=I386)},
        (Step("pkg/narrow.pyd"),),
    ),
    Scenario("wrong_machine_itself", {"pkg/i386.pyd": build_pe(None, ["f"], machine=I386)}, (Step("pkg/i386.pyd"),)),
    # A file that is no image at all ends the search, even if a good one comes later.
    Scenario(
        "no_image_stops",
        {
            "pkg/text.pyd": dll("text_dep.dll"),
            "pkg/text_dep.dll": b"version https://git-lfs",
            "added/text_dep.dll": dll(),
        },
        (Step("pkg/text.pyd"),),
    ),
    Scenario("absent_itself", {}, (Step("pkg/absent_itself.dll", CTYPES),)),
    Scenario(
        "forwarder",
        {"pkg/fwd.pyd": dll("fwd_mid.dll"), "pkg/fwd_mid.dll": forwarding("fwd_leaf"), "pkg/fwd_leaf.dll": dll()},
        (Step("pkg/fwd.pyd"),),
        bound={"fwd_leaf.dll": "pkg/fwd_leaf.dll"},
    ),
    Scenario(
        "forwarder_not_used",
        {
            "pkg/idle.pyd": build_pe({"idle_mid.dll": ["g"]}, ["f"]),
            "pkg/idle_mid.dll": build_pe(None, [Export("f", None, "idle_leaf.f"), "g"]),
            "pkg/idle_leaf.dll": dll(),
        },
        (Step("pkg/idle.pyd"),),
    ),
    Scenario(
        "delayed_and_absent",
        {
            "pkg/later.pyd": build_pe({"later_dep.dll": ["f"]}, ["f"], delayed={"later_gone.dll": ["f"]}),
            "pkg/later_dep.dll": dll(),
        },
        (Step("pkg/later.pyd"),),
    ),
    Scenario(
        "contracts",
        {
            "pkg/sets.pyd": build_pe(
                {
                    "api-ms-win-crt-heap-l1-1-0.dll": ["malloc"],
                    "API-MS-Win-Core-Synch-L1-2-0.DLL": ["Sleep"],
                    "api-ms-win-core-file-l1-2-99.dll": ["CreateFileW"],
                },
                ["f"],
            )
        },
        (Step("pkg/sets.pyd"),),
    ),
    Scenario(
        "contract_that_is_a_file",
        {
            "pkg/ownset.pyd": dll("api-ms-win-dlltracer-test-l1-1-0.dll"),
            "pkg/api-ms-win-dlltracer-test-l1-1-0.dll": dll(),
        },
        (Step("pkg/ownset.pyd"),),
        bound={"api-ms-win-dlltracer-test-l1-1-0.dll": "pkg/api-ms-win-dlltracer-test-l1-1-0.dll"},
    ),
    Scenario(
        "contract_unknown",
        {"pkg/noset.pyd": dll("api-ms-win-dlltracer-gone-l1-1-0.dll")},
        (Step("pkg/noset.pyd"),),
        missing=("api-ms-win-dlltracer-gone-l1-1-0.dll",),
    ),
    # A contract that is mapped comes from the system, whatever lies beside the module.
    Scenario(
        "contract_copy_beside",
        {
            "pkg/beside.pyd": build_pe({"api-ms-win-crt-math-l1-1-0.dll": ["sqrt"]}, ["f"]),
            "pkg/api-ms-win-crt-math-l1-1-0.dll": dll(),
        },
        (Step("pkg/beside.pyd"),),
    ),
    Scenario(
        "private_assembly",
        {
            "pkg/sxs.pyd": build_pe({"sxs_dep.dll": ["f"]}, ["f"], manifest=build_manifest("sxs.asm")),
            "pkg/sxs.asm/sxs.asm.manifest": assembly("sxs.asm", "sxs_dep.dll"),
            "pkg/sxs.asm/sxs_dep.dll": dll(),
            "pkg/sxs_dep.dll": dll(),
        },
        (Step("pkg/sxs.pyd"),),
        bound={"sxs_dep.dll": "pkg/sxs.asm/sxs_dep.dll"},
    ),
    Scenario(
        "empty_import",
        {"pkg/noth.pyd": build_pe({"noth_gone.dll": []}, ["f"])},
        (Step("pkg/noth.pyd"),),
    ),
    Scenario(
        "system_library",
        {"pkg/syslib.pyd": build_pe({"winmm.dll": ["timeGetTime"], "cabinet.dll": ["FDICopy"]}, ["f"])},
        (Step("pkg/syslib.pyd"),),
    ),
    # Wine's own departures from Windows, pinned: see test_windows_resolver_under_wine.
    Scenario(
        "known_dll_copy",
        {"pkg/known.pyd": dll("difxapi.dll"), "pkg/difxapi.dll": dll()},
        (Step("pkg/known.pyd"),),
        bound={"difxapi.dll": "pkg/difxapi.dll"},
    ),
    Scenario(
        "dependent_flags",
        {
            "pkg/flags.pyd": build_pe({"flags_dep.dll": ["f"]}, ["f"], dependent_load_flags=0x800),
            "pkg/flags_dep.dll": dll(),
        },
        (Step("pkg/flags.pyd"),),
        bound={"flags_dep.dll": "pkg/flags_dep.dll"},
    ),
)

FORWARDER_ABSENT = Scenario(
    "forwarder_absent",
    {"pkg/lost.pyd": dll("lost_mid.dll"), "pkg/lost_mid.dll": forwarding("lost_leaf")},
    (Step("pkg/lost.pyd"),),
)
"""Windows refuses such a module; Wine loads it, and ends the process where the symbol is called."""
