"""What the resolver works out on Linux, from the same files, against what Wine's loader does in real CPython.

Wine is no Windows. Where it is known to differ, the context says so (`WINE_DIFFERS`), and a test below holds that it
does: it does not honour DependentLoadFlags, has no list of known DLLs, and lets a forwarder to an absent library pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dlltracer.host.filesystem import WindowsFiles
from dlltracer.model.events import Phase
from dlltracer.model.loader_context import (
    CTYPES_NAME_SEARCH,
    EXTENSION_MODULE_SEARCH,
    STANDARD_SEARCH,
    ApiSetHost,
    LoadFlags,
    WindowsContext,
)
from dlltracer.model.pe import MACHINE_AMD64, AssemblyReference
from dlltracer.model.tree import BindingState, LoadTree
from dlltracer.resolve.windows import resolve_windows
from dlltracer.resolve.winsearch import complete_name
from windows.fixtures import python_without
from windows.lab import PYTHONS, Lab, windows_path
from windows.resolver_scenarios import CTYPES, FORWARDER_ABSENT, SCENARIOS, STANDARD, Scenario, Step

pytestmark = pytest.mark.slow

WINE_DIFFERS = {"honours_dependent_flags": False}
PYTHONS_OWN = "Python's own modules"
PLACES = ("pkg", "added", "path", "cwd")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Done:
    """One load: as Wine did it, and in which context."""

    step: Step
    file: str
    context: WindowsContext
    error: int | None
    new: list[str]
    images: list[str]
    """What the resolver said in that very process."""


@dataclass(frozen=True)
class Session:
    """All loads of one Python, the complaints of Wine (name, who needs it), and where everything is."""

    done: dict[str, list[Done]]
    dl_errors: set[tuple[str, str]]
    places: dict[str, Path]
    files: WindowsFiles

    def resolve(self, done: Done, **changes: object) -> LoadTree:
        return resolve_windows(done.file, replace(done.context, **changes), self.files)  # type: ignore[arg-type]


def flags_of(step: Step) -> LoadFlags:
    if step.how == STANDARD:
        return STANDARD_SEARCH
    return EXTENSION_MODULE_SEARCH if "/" in step.file else CTYPES_NAME_SEARCH


def decode_context(raw: dict[str, Any]) -> WindowsContext:
    """From JSON, as resolver_probe.py wrote it."""
    api_sets = {k: ApiSetHost(v["host"], tuple(map(tuple, v["exceptions"]))) for k, v in raw["api_sets"].items()}
    lists = {key: tuple(value) for key, value in raw.items() if isinstance(value, list)}
    special = {
        "api_sets": api_sets,
        "known_dlls": frozenset(raw["known_dlls"]),
        "provided": frozenset(raw["provided"]),
        "assemblies": tuple(AssemblyReference(**each) for each in raw["assemblies"]),
        "flags": LoadFlags(raw["flags"]),
    }
    return WindowsContext(**{**raw, **lists, **special, **WINE_DIFFERS})


def plant(scenarios: Iterable[Scenario], places: Mapping[str, Path]) -> list[Path]:
    """Write all files; returns those that are in Wine's own folders and have to be taken away again."""
    planted = []
    for scenario in scenarios:
        for name, content in scenario.files.items():
            place, _, rest = name.partition("/")
            path = places[place] / rest
            path.parent.mkdir(exist_ok=True)
            if place == "system":
                planted.append(path)
            else:
                assert not path.exists(), f"{path} is of another scenario"
            path.write_bytes(content)
    return planted


def run_all(lab: Lab, version: str, paths: dict[str, str], places: dict[str, Path], folder: Path) -> Session:
    steps = [(scenario.name, step) for scenario in (*SCENARIOS, FORWARDER_ABSENT) for step in scenario.steps]
    own = sorted((places["app"] / "DLLs").glob("*.pyd"))
    steps += [(PYTHONS_OWN, Step(f"app/DLLs/{path.name}", CTYPES)) for path in own]
    jobs = []
    for _, step in steps:
        place, _, rest = step.file.partition("/")
        file = windows_path(places[place] / rest) if rest else step.file
        jobs.append({"file": file, "how": step.how, "flags": int(flags_of(step))})
    request = {name: windows_path(places[name]) for name in ("added", "path", "cwd")}
    (folder / "jobs.json").write_text(json.dumps({**request, "jobs": jobs}))
    command = [HERE / "resolver_probe.py", folder / "jobs.json", folder / "results.json"]
    result = lab.run(version, command, env={**paths, "WINEDEBUG": "err+module"}, timeout=120, python=places["app"])
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    answer = json.loads((folder / "results.json").read_text())
    context = decode_context(answer["context"])
    done: dict[str, list[Done]] = {}
    for (name, step), job, one in zip(steps, jobs, answer["results"], strict=True):
        here = replace(context, loaded=tuple(one["before"]), flags=flags_of(step))
        done.setdefault(name, []).append(Done(step, job["file"], here, one["error"], one["new"], one["images"]))
    drives = {"C:": str(lab.prefix / "drive_c"), "Z:": "/"}
    return Session(done, parse_complaints(result.stderr), places, WindowsFiles(drives, symbols=True, resources=True))


@pytest.fixture(scope="module", params=sorted(PYTHONS))
def session(
    request: pytest.FixtureRequest, lab: Lab, paths: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    """All scenarios, run once by each Python. Names in System32 stay until the resolver has looked."""
    folder = tmp_path_factory.mktemp("resolver")
    places = {name: folder / name for name in PLACES}
    for place in places.values():
        place.mkdir()
    places["app"] = python_without(lab, request.param, folder / "app")
    places["system"] = lab.prefix / "drive_c" / "windows" / "system32"
    planted = plant((*SCENARIOS, FORWARDER_ABSENT), places)
    try:
        yield run_all(lab, request.param, paths, places, folder)
    finally:
        for path in planted:
            path.unlink(missing_ok=True)


def parse_complaints(text: str) -> set[tuple[str, str]]:
    r"""Of lines such as `err:module:import_dll Library x.dll (which is needed by L"Z:\\tmp\\a.pyd") not found`."""
    pattern = r'(?:Library|Loading library) (\S+) \(which is needed by L"(.*?)"\) (?:not found|failed)'
    return {(name.lower(), who.replace("\\\\", "\\").lower()) for name, who in re.findall(pattern, text)}


def lower(paths: Iterable[str]) -> list[str]:
    return [path.lower() for path in paths]


def failing(tree: LoadTree) -> set[tuple[str, str]]:
    """(Name, who needs it), lower case, of all that fails: what is not there, and what needs that, up to the top."""
    failed = {(b.need, b.requested_by) for b in tree.missing}
    while True:
        broken = {requested_by for _, requested_by in failed}
        more = failed | {(b.need, b.requested_by) for b in tree.bindings if b.path in broken and not b.delayed}
        if more == failed:
            return {(complete_name(need).lower(), who.lower()) for need, who in failed if who}
        failed = more


def placed(session: Session, name: str) -> str:
    """The Windows path of "place/name", lower case."""
    place, _, rest = name.partition("/")
    path = session.places[place] / rest
    return (f"c:\\windows\\system32\\{rest}" if place == "system" else windows_path(path)).lower()


def compare(session: Session, done: Done, *, runs_code: bool = False) -> LoadTree:
    """The tree, after it was held against what Wine did. Code that runs (DllMain) may bring more from the system."""
    tree = session.resolve(done)
    story = f"{done}\n" + "\n".join(map(str, tree.bindings))
    assert (done.error is None) == (not tree.missing), story
    if done.error is None:
        new, images = lower(done.new), lower(tree.images)
        if runs_code:
            new = [path for path in new if path in images or not path.startswith("c:\\windows\\system32")]
        assert images == new, story
    else:
        dl_errors = {(name, who) for name, who in session.dl_errors if who in lower(tree.images)}
        assert failing(tree) == dl_errors, story
    return tree


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_as_wine_does(session: Session, scenario: Scenario) -> None:
    bindings = [binding for done in session.done[scenario.name] for binding in compare(session, done).bindings]
    for name in scenario.missing:
        assert name in {b.need for b in bindings if b.state is BindingState.MISSING}
    for name, where in scenario.bound.items():
        assert {(b.path or "").lower() for b in bindings if b.need == name} == {placed(session, where)}


def test_the_modules_of_python_itself(session: Session) -> None:
    trees = [compare(session, done, runs_code=True) for done in session.done[PYTHONS_OWN]]
    assert len(trees) > 15
    brought = {path.lower().rpartition("\\")[2] for tree in trees for path in tree.images}
    assert {"libssl-3.dll", "libcrypto-3.dll", "sqlite3.dll", "tcl86t.dll"} <= brought


def test_the_same_on_windows_itself(session: Session) -> None:
    different = (FORWARDER_ABSENT.name, "forwarder", "dependent_flags")  # there no symbols are read, and flags count
    for name, runs in session.done.items():
        for done in () if name in different else runs:
            assert lower(done.images) == lower(session.resolve(done).images), done


def only(session: Session, scenario: str) -> Done:
    (done,) = session.done[scenario]
    return done


def test_wine_has_no_known_dlls(session: Session) -> None:
    done = only(session, "known_dll_copy")
    assert done.context.known_dlls == frozenset()
    here = placed(session, "pkg/difxapi.dll")
    assert here in lower(done.new)
    binding = session.resolve(done, known_dlls=frozenset({"difxapi.dll"})).bindings[0]
    assert (binding.phase, (binding.path or "").lower()) == (Phase.KNOWN_DLL, "c:\\windows\\system32\\difxapi.dll")
    tree = session.resolve(done, known_dlls=None, has_system_files=False)
    assert [(b.state, b.phase) for b in tree.bindings] == [(BindingState.SYSTEM, Phase.KNOWN_DLL)]


def test_wine_does_not_honour_dependent_load_flags(session: Session) -> None:
    done = only(session, "dependent_flags")
    assert done.error is None
    tree = session.resolve(done, honours_dependent_flags=True)
    assert [b.need for b in tree.missing] == ["flags_dep.dll"]
    assert [probe.phase for probe in tree.missing[0].probes] == [Phase.SYSTEM]


def test_wine_lets_a_forwarder_to_nowhere_pass(session: Session) -> None:
    done = only(session, FORWARDER_ABSENT.name)
    assert done.error is None
    tree = session.resolve(done)
    assert [(b.need, b.requested_by.lower()) for b in tree.missing] == [
        ("lost_leaf.dll", placed(session, "pkg/lost_mid.dll"))
    ]


def test_the_host_context(session: Session, lab: Lab) -> None:
    context = only(session, "sibling").context
    assert context.machine == MACHINE_AMD64
    assert context.application_folder.lower() == windows_path(session.places["app"]).lower()
    assert (context.system_folder.lower(), context.windows_folder.lower()) == ("c:\\windows\\system32", "c:\\windows")
    assert context.current_folder == windows_path(session.places["cwd"])
    assert context.path[0] == windows_path(session.places["path"])
    assert context.loaded[0].lower().endswith("python.exe")
    assert {"kernel32.dll", "ntdll.dll", "python3.dll"} - set(context.first_loaded()) <= {"python3.dll"}
    assert context.api_sets is not None
    assert context.api_sets["api-ms-win-crt-heap-l1-1"].host == "ucrtbase.dll"
    assert len(context.api_sets) > 100
    assert context.redirection is None
    assert any("microsoft.vc90.crt" in name for name in context.assembly_folders)
