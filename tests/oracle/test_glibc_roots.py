"""The mechanism against the real loaders: glibc 2.31, this system's, 2.41 and Debian's newest; musl, which has none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dlltracer
from oracle.roots import Root, find_root, this_system

if sys.platform != "linux":
    pytest.skip("other loaders of Linux", allow_module_level=True)

pytestmark = pytest.mark.slow

MISSING = "libdep2.so"


def root_of(name: str) -> Root:
    if name == "this system":
        return this_system()
    root = find_root(name)
    if isinstance(root, str):
        pytest.skip(root)
    return root


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """What goes into a root: dlltracer, the script, and a library whose dependency is gone."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    home = Path(dlltracer.__file__).parent
    shutil.copytree(home, tmp_path / "dlltracer", ignore=shutil.ignore_patterns("__pycache__"))
    for script in ("inside.py", "starts_inside.py"):
        shutil.copy(Path(__file__).with_name(script), tmp_path)
    # No C library behind them: the same files suit every root.
    compiler = ["gcc", "-shared", "-fPIC", "-nostdlib", "-xc", "-", "-o"]
    for command, source in (
        ([*compiler, MISSING, f"-Wl,-soname,{MISSING}"], "int gone(void) { return 1; }\n"),
        ([*compiler, "libdep1.so", "-L.", "-ldep2"], "int gone(void); int there(void) { return gone(); }\n"),
    ):
        subprocess.run(command, input=source, text=True, cwd=tmp_path, check=True)
    (tmp_path / MISSING).unlink()
    return tmp_path


def run_inside(root: Root, shared: Path, *arguments: str) -> dict[str, Any]:
    done = root.run(shared, "inside.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


GLIBC = {"this system": None, "bullseye": (2, 31), "trixie": (2, 41), "sid": None}
"""The version that the suite has; `None` where it moves."""


@pytest.mark.parametrize("name", GLIBC)
def test_the_loader_logs_on_every_glibc(name: str, shared: Path) -> None:
    seen = run_inside(root_of(name), shared, "rtld")
    assert "refused" not in seen, seen
    version = tuple(map(int, seen["glibc"].split(".")))
    assert version == (GLIBC[name] or version) and version >= (2, 31)
    assert (seen["backend"], seen["notes"], seen["undecodable"]) == ("rtld", [], 0)
    check_loads([event for event in seen["events"] if event["type"] == "LoadEvent"], seen["pid"])
    check_failures([event for event in seen["events"] if event["type"] == "LoadFailedEvent"])
    assert MISSING in seen["error"]
    before, during, after = seen["states"]
    assert before == after == [0, "r--p"]
    assert during[0] & 65 == 65 and during[1] == "r--p"


@pytest.mark.parametrize("name", GLIBC)
def test_the_words_are_found_by_comparing_starts(name: str, shared: Path) -> None:
    check_comparison(root_of(name), shared)


def check_comparison(root: Root, shared: Path) -> None:
    """The second way to find the loader's words names those that the first one does, and traces with them."""
    if root.portable:  # it cannot be started like a Python, but its starts can be compared by another script
        compared = root.run(shared, "starts_inside.py")
        assert compared.returncode == 0, compared.stderr
        assert json.loads(compared.stdout) == run_inside(root, shared, "rtld")["words"]
        seen = run_inside(root, shared, "rtld", "0")
        assert "0 places fit" in seen["reason"] and "gave no answer" in seen["reason"]
        return
    seen = run_inside(root, shared, "rtld", "0")
    (note,) = seen["notes"]
    assert "(0 places fit its pattern): its place was found by starting the interpreter three times" in note
    check_loads([event for event in seen["events"] if event["type"] == "LoadEvent"], seen["pid"])
    check_failures([event for event in seen["events"] if event["type"] == "LoadFailedEvent"])
    assert seen["states"][0] == seen["states"][2] and seen["words"] == run_inside(root, shared, "rtld")["words"]


def check_loads(loads: list[dict[str, Any]], pid: int) -> None:
    (module,) = (event for event in loads if "/_hashlib." in event["path"])
    (library,) = (event for event in loads if event["path"].rpartition("/")[2].startswith("libcrypto"))
    assert module["imports"] == library["imports"] == ["hashlib", "_hashlib"]
    assert module["phase"] == "DIRECT"
    assert library["phase"] in ("CACHE", "SYSTEM", "RPATH", "RUNPATH")
    assert library["requested_by"] == module["path"]
    assert library["need"] == library["path"].rpartition("/")[2]
    assert loads.index(module) < loads.index(library)
    for event in loads:
        assert event["base"] > 0 and event["base"] % 4096 == 0 and event["size"] > 0 and event["pid"] == pid, event


def check_failures(failures: list[dict[str, Any]]) -> None:
    missing, dropped = failures
    assert (missing["path"], missing["kind"], missing["text"]) == (MISSING, "NOT_FOUND", f"Failed {MISSING}")
    assert missing["requested_by"].endswith("/libdep1.so")
    places = [probe for probe in missing["probes"] if probe[2] != "NO_ENTRY"]
    assert places and all(path.endswith(f"/{MISSING}") and outcome == "ABSENT" for path, _, outcome in places)
    assert [path for path, _, outcome in missing["probes"] if outcome == "NO_ENTRY"] == ["/etc/ld.so.cache"]
    assert "SYSTEM" in {phase for _, phase, _ in missing["probes"]}
    assert dropped["path"].endswith("/libdep1.so") and dropped["kind"] == "DROPPED"


def test_musl_has_no_log_and_that_is_said(shared: Path) -> None:
    seen = run_inside(root_of("musl"), shared, "rtld")
    assert "no _rtld_global_ro symbol: this is not glibc" in seen["reason"]
    assert "snapshot" in seen["remedy"]


@pytest.mark.parametrize("backend", ["snapshot", "auto"])
def test_musl_is_traced_by_snapshots(backend: str, shared: Path) -> None:
    seen = run_inside(root_of("musl"), shared, backend)
    assert seen["glibc"] is None and seen["states"] == [None, None, None]
    assert seen["backend"] == "snapshot"
    assert any("failed loads, requesters, the places tried" in note for note in seen["notes"])
    assert any(note.startswith("rtld was not used") for note in seen["notes"]) is (backend == "auto")
    names = [event["path"].rpartition("/")[2] for event in seen["events"]]
    assert any(name.startswith("_hashlib.") for name in names) and any(name.startswith("libcrypto") for name in names)
    assert {event["type"] for event in seen["events"]} == {"LoadEvent"}
    assert all(event["base"] > 0 and event["size"] > 0 for event in seen["events"])
    assert MISSING in seen["error"]
