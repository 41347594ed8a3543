"""dlltracer on other processors, each with its glibc and its Python, by qemu-user.

And `run`, `why` and `deps` on other releases for this processor. CI runs one root of another processor.
``DLLTRACER_PROCESSORS=all`` runs all of them, ``DLLTRACER_PROCESSORS=armhf-trixie,...`` those named.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from oracle.processors import compile_bytecode
from oracle.roots import FOREIGN, Root, find_root
from oracle.test_glibc_resolver import is_as_the_loader
from oracle.test_glibc_roots import check_comparison, check_failures, check_loads
from oracle.tiny_elf import build_scenarios

if sys.platform != "linux":
    pytest.skip("qemu-user is of Linux", allow_module_level=True)

from dlltracer.api.trees import load_tree
from dlltracer.binary.elf import parse_elf

pytestmark = pytest.mark.slow

CHOSEN = os.environ.get("DLLTRACER_PROCESSORS", "arm64-bookworm")
ROOTS = FOREIGN if CHOSEN == "all" else tuple(CHOSEN.split(","))
NATIVE = ("bullseye", "trixie", "sid")
GLIBC = {"bullseye": "2.31", "bookworm": "2.36", "trixie": "2.41"}

FOLLOWED = """\
import hashlib, os, subprocess, sys
sys.path[:0] = ["/mnt"]
subprocess.run([sys.executable, "/mnt/import_bz2.py"], check=True)
child = os.fork()
if not child:
    try:
        import missing_library
    except ImportError:
        os._exit(0)
os.waitpid(child, 0)
"""


IMPORTED = """\
import sys
sys.path[:0] = ["/mnt"]
import hashlib, bz2
try:
    import missing_library
except ImportError:
    pass
"""

LISTED = """\
import os, sys
os.environ["LD_TRACE_LOADED_OBJECTS"] = "1"
os.execv(sys.argv[1], sys.argv[1:])
"""
"""The variable must not reach the host's own programs, which enter the root."""


@dataclass(frozen=True)
class Machine:
    """A root, and the folder that is its /mnt.

    Attributes: `healthy`, the path inside of a module that loads; `library`, the libcrypto that it needs; `version`, a
    version of it that it needs.
    """

    name: str
    root: Root
    shared: Path
    healthy: str
    library: str
    version: str

    def dlltracer(self, *arguments: str, status: int) -> str:
        """What a command of dlltracer prints."""
        # A script: the portable Python takes nothing else.
        done = self.root.run(self.shared, "watched_inside.py", *arguments, timeout=600)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stderr if arguments[0] == "run" else done.stdout  # `run` leaves stdout to the program

    def why(self, module: str) -> list[dict[str, Any]]:
        """The findings on an import that fails."""
        # The portable Python takes no PYTHONPATH.
        code = f"import sys; sys.path[:0] = ['/mnt']; import {module}"
        findings: list[dict[str, Any]] = json.loads(self.dlltracer("why", "--json", "-c", code, status=1))["findings"]
        return findings

    def list_by_loader(self, path: str) -> dict[str, str | None]:
        """What this root's ld.so finds for the needs of a file and of what these need."""
        done = self.root.run(self.shared, "listed.py", self.loader, path)
        lines = re.findall(r"^\t(\S+) => (?:not found|(\S+) \(0x[0-9a-f]+\))$", done.stdout, re.MULTILINE)
        # Those are its words for a library that needs nothing.
        assert lines or done.stdout == "\tstatically linked\n", (done.stdout, done.stderr)
        return {need: found or None for need, found in lines}

    @property
    def loader(self) -> str:
        """The path of ld.so, as the root's Python names it."""
        assert self.root.folder is not None
        mounted = self.root.portable
        python = mounted / self.root.python[5:] if mounted else self.root.folder / self.root.python[1:]
        interpreter = parse_elf(python.read_bytes()).interpreter
        assert interpreter is not None
        return interpreter


def rename(data: bytes, old: str, new: str) -> bytes:
    """The file with another text in its table of strings, which is not longer."""
    whole = b"\0" + old.encode() + b"\0"
    assert data.count(whole) == 1 and len(new) <= len(old)
    return data.replace(whole, (b"\0" + new.encode()).ljust(len(whole), b"\0"))


def fill(shared: Path, module: Path) -> tuple[str, str]:
    """Put dlltracer, what its command needs, and broken copies of the module into the folder."""
    for package in ("dlltracer", "click", "rich", "markdown_it", "mdurl", "pygments"):
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            home = Path(found.origin).parent
            shutil.copytree(home, shared / package, ignore=shutil.ignore_patterns("__pycache__"))
    for script in ("inside.py", "starts_inside.py", "watched_inside.py"):
        shutil.copy(Path(__file__).with_name(script), shared)
    (shared / "followed.py").write_text(FOLLOWED)
    (shared / "import_bz2.py").write_text("import bz2\n")
    (shared / "listed.py").write_text(LISTED)
    (shared / "imported.py").write_text(IMPORTED)
    data = module.read_bytes()
    image = parse_elf(data)
    library = next(need for need in image.needed if need.startswith("libcrypto"))
    version = next(need.version for need in image.version_needs if need.library == library)
    (shared / "libdep1.so").write_bytes(rename(data, library, "libdep2.so"))
    (shared / "missing_library.so").write_bytes(rename(data, library, "libgone.so"))
    (shared / "missing_version.so").write_bytes(rename(data, version, f"{version[:-1]}9"))
    return library, f"{version[:-1]}9"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Machine]:
    """Makes the machine of a root, once."""
    return functools.cache(lambda name: make_machine(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="module", params=ROOTS)
def machine(request: pytest.FixtureRequest, made: Callable[[str], Machine]) -> Machine:
    return made(request.param)


@pytest.fixture(scope="module", params=(*ROOTS, *NATIVE))
def system(request: pytest.FixtureRequest, made: Callable[[str], Machine]) -> Machine:
    """The commands run on older and newer glibc of this machine's processor, too. (`Trace`: test_glibc_roots.)"""
    return made(request.param)


def make_machine(name: str, shared: Path) -> Machine:
    root = find_root(name)
    if isinstance(root, str):
        pytest.skip(root)
    assert root.folder is not None
    home, inside = (root.portable, "/opt") if root.portable else (root.folder / "usr/lib", "/usr/lib")
    module = next(home.rglob("_hashlib*.so"))
    library, version = fill(shared, module)
    pythons = [path.name for path in (root.folder / "usr/lib").glob("python3.*")]
    compile_bytecode(shared, shared, "/mnt", pythons[0] if pythons else None)
    return Machine(name, root, shared, f"{inside}/{module.relative_to(home)}", library, version)


def run_inside(machine: Machine, backend: str) -> dict[str, Any]:
    done = machine.root.run(machine.shared, "inside.py", backend)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["glibc"] == GLIBC[machine.name.rpartition("-")[2]]
    return result


def test_trace(machine: Machine) -> None:
    seen = run_inside(machine, "rtld")
    assert "refused" not in seen, seen
    assert (seen["backend"], seen["notes"], seen["undecodable"]) == ("rtld", [], 0)
    check_loads([event for event in seen["events"] if event["type"] == "LoadEvent"], seen["pid"])
    check_failures([event for event in seen["events"] if event["type"] == "LoadFailedEvent"])
    before, during, after = seen["states"]
    assert before == after and before[0] == 0
    assert during[0] & 65 == 65 and during[1] == before[1]


def test_the_words_are_found_by_comparing_starts(machine: Machine) -> None:
    check_comparison(machine.root, machine.shared)


def test_snapshot(machine: Machine) -> None:
    seen = run_inside(machine, "snapshot")
    names = [event["path"].rpartition("/")[2] for event in seen["events"]]
    assert any(name.startswith("_hashlib.") for name in names) and machine.library in names
    assert all(event["base"] % 4096 == 0 and 0 < event["size"] < 1 << 25 for event in seen["events"])
    assert {event["type"] for event in seen["events"]} == {"LoadEvent"} and "libdep2.so" in seen["error"]
    assert seen["filters"] is False, "qemu-user has no seccomp(2): that is tried, whatever /proc says of the kernel"


def test_run_and_the_processes_that_it_starts(system: Machine) -> None:
    output = system.dlltracer("run", "--follow", "--format", "jsonl", "/mnt/followed.py", status=0)
    rows = [json.loads(line) for line in output.splitlines()]
    # Libraries of a wheel have a part of their checksum in the name: libbz2-a273e504.so.1.0.6.
    loads = {re.split(r"-\w{8}\.|\.", row["path"].rpartition("/")[2])[0]: row for row in rows if row["type"] == "load"}
    assert {"_hashlib", "libcrypto", "_bz2", "libbz2", "libc"} <= loads.keys()
    assert loads["libcrypto"]["requested_by"].rpartition("/")[2].startswith("_hashlib.")
    (failure,) = (row for row in rows if row["type"] == "failed" and row["kind"] == "not found")
    assert failure["path"] == "libgone.so" and failure["requested_by"] == "/mnt/missing_library.so"
    assert failure["imports"] == ["missing_library"]
    processes = {row["pid"] for row in rows if row["type"] == "process"}
    assert processes == {loads["_hashlib"]["pid"], loads["_bz2"]["pid"], failure["pid"]} and len(processes) == 3


def test_both_mechanisms_where_the_kernel_runs_the_processor_itself(machine: Machine) -> None:
    """i386 on x86-64: what qemu-user has not, seccomp(2), is there, with numbers of calls that are others."""
    if machine.root.processor is None or machine.root.processor.architecture != "i386":
        pytest.skip("this kernel runs no programs of that processor")
    native = replace(machine, root=replace(machine.root, processor=None))
    if os.geteuid() != 0:
        pytest.skip("needs root: a chroot in a mount namespace")
    if native.root.execute(native.shared, [native.root.python, "-c", ""]).returncode:
        pytest.skip("this kernel runs no programs of 32 bits")
    seen = {}
    for backend in ("rtld", "seccomp"):
        output = native.dlltracer("run", "--backend", backend, "--format", "jsonl", "/mnt/imported.py", status=0)
        rows = [json.loads(line) for line in output.splitlines()]
        assert rows[0]["backend"] == backend
        seen[backend] = [
            (row["type"], row["path"], row.get("need"), row.get("imports"), row.get("kind"),
             [(probe["path"], probe["phase"]) for probe in row.get("probes", ()) if probe["outcome"] != "no entry"])
            for row in rows if row["type"] in ("load", "failed")
        ]  # fmt: skip
    loads = {row[1].rpartition("/")[2].partition(".")[0] for row in seen["rtld"] if row[0] == "load"}
    assert {"_hashlib", "libcrypto", "_bz2", "libbz2"} <= loads
    assert any(row[2] == "libgone.so" for row in seen["rtld"])
    assert sorted(map(str, seen["seccomp"])) == sorted(map(str, seen["rtld"]))


USUAL_SCENARIOS = (
    "rpath before environment", "cache", "hwcaps", "legacy hwcaps", "$LIB", "$PLATFORM", "wrong machine", "wrong class",
    "wrong abi", "top wrong abi", "missing",
)  # fmt: skip


def test_the_resolver_against_the_loader(machine: Machine, tmp_path: Path) -> None:
    """All scenarios of the resolver's test where the processor was asked for, else some."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    tiny = build_scenarios(tmp_path, machine.root.processor)
    if "DLLTRACER_PROCESSORS" not in os.environ:
        tiny.scenarios = [scenario for scenario in tiny.scenarios if scenario["name"] in USUAL_SCENARIOS]
        (tmp_path / "scenarios.json").write_text(json.dumps(tiny.scenarios))
    done = machine.root.run(tmp_path, "resolve_inside.py", timeout=800)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == len(tiny.scenarios) >= len(USUAL_SCENARIOS)
    wrong = {name: seen for name, seen in results.items() if not is_as_the_loader(seen)}
    assert not wrong, json.dumps(wrong, indent=1)


def test_why_a_library_is_missing(system: Machine) -> None:
    (finding,) = system.why("missing_library")
    assert (finding["code"], finding["confidence"]) == ("missing-image", "certain"), finding
    assert finding["subject"] == "libgone.so"


def test_why_a_version_is_missing(system: Machine) -> None:
    (finding,) = system.why("missing_version")
    assert (finding["code"], finding["confidence"]) == ("missing-version", "certain"), finding
    assert system.version in finding["title"] and system.library in finding["title"]


def test_deps_of_a_root_that_is_not_run(machine: Machine) -> None:
    """From this machine, with nothing of the root run: as its own loader lists them."""
    assert machine.root.folder is not None
    folder = machine.root.folder
    modules = sorted(path for path in (folder / "usr/lib").rglob("*.so*") if path.is_file() and not path.is_symlink())
    paths = [f"/{path.relative_to(folder)}" for path in modules[:: len(modules) // 6]]
    listed = {path: machine.list_by_loader(path) for path in paths}
    assert sum(map(len, listed.values())) > 5
    for path, expected in listed.items():
        tree = load_tree(str(folder / path[1:]), root=str(folder))
        found = {binding.need: binding.path for binding in reversed(tree.bindings)}
        for answers in (found, expected):
            answers.pop(machine.loader.rpartition("/")[2], None)
        assert found == expected, path
        assert all("processor" in note or "$PLATFORM" in note for note in tree.notes), tree.notes


def test_deps_as_the_loader_lists_them(system: Machine) -> None:
    for path, status in ((system.healthy, 0), ("/mnt/missing_library.so", 1)):
        result = json.loads(system.dlltracer("deps", "--json", path, status=status))
        found: dict[str, str | None] = {}
        for binding in result["bindings"]:
            found.setdefault(binding["need"], binding.get("path"))
        expected = system.list_by_loader(path)
        for answers in (found, expected):  # ld.so lists itself by another name, or not at all
            answers.pop(system.loader.rpartition("/")[2], None)
        assert found == expected
        assert (found.get("libgone.so", "none") is None) is (status == 1)
