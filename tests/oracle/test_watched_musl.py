"""Backend "seccomp" on musl, in a root: `run` and `why` tell of it as they do of glibc."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oracle.roots import Root, find_root

if sys.platform != "linux":
    pytest.skip("musl is of Linux", allow_module_level=True)
if shutil.which("gcc") is None:
    pytest.skip("no gcc on this machine", allow_module_level=True)

from dlltracer.capture.choose import make_backend

if not make_backend("seccomp").availability().ok:
    pytest.skip(make_backend("seccomp").availability().reason, allow_module_level=True)

pytestmark = pytest.mark.slow

NEEDED_BY_THE_COMMANDS = ("click", "rich", "pygments", "markdown_it", "mdurl", "jinja2", "markupsafe", "dlltracer")


@dataclass
class Musl:
    """The root, and the folder that is /mnt inside."""

    root: Root
    folder: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.root.run(self.folder, "watched_inside.py", *words)

    def events(self, *words: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The head and the events of `dlltracer run`."""
        done = self.run("run", "--format", "jsonl", "-o", "/mnt/report", *words)
        lines = [json.loads(line) for line in (self.folder / "report").read_text().splitlines()]
        assert done.returncode == 0, done.stderr
        return lines[0], [line for line in lines if line["type"] in ("load", "failed", "unload")]

    def build(self, name: str, source: str, *options: str) -> None:
        folder = self.folder / "libs"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-xc", "-", "-o", str(folder / name), *options]
        subprocess.run(command, input=source, text=True, cwd=folder, check=True)


@pytest.fixture(scope="module")
def musl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Musl]:
    root = find_root("musl")
    if isinstance(root, str):
        pytest.skip(root)
    folder = tmp_path_factory.mktemp("musl")
    for name in NEEDED_BY_THE_COMMANDS:
        found = importlib.util.find_spec(name)
        assert found is not None and found.submodule_search_locations
        shutil.copytree(
            found.submodule_search_locations[0], folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )  # fmt: skip
    shutil.copy(Path(__file__).with_name("watched_inside.py"), folder)
    made = Musl(root, folder)
    (folder / "libs").mkdir()
    made.build("hidden/libdep9.so", "int dep(void) { return 1; }", "-Wl,-soname,libdep9.so")
    made.build("libmid9.so", "int dep(void); int f(void) { return dep(); }", "-Lhidden", "-ldep9",
               "-Wl,-rpath,$ORIGIN/sub")  # fmt: skip
    yield made


def test_auto_takes_it_and_says_so(musl: Musl) -> None:
    head, events = musl.events("-c", "import _ssl")
    assert head["backend"] == "seccomp"
    assert any(note.startswith("rtld was not used: ") for note in head["notes"])
    (module,) = [event for event in events if "/_ssl." in event["path"]]
    (need,) = [event for event in events if event.get("need", "").startswith("libssl")]
    assert (module["imports"], need["imports"]) == (["_ssl"], ["_ssl"])
    assert (need["requested_by"], need["phase"]) == (module["path"], "rpath")
    assert need["probes"][-1] == {
        "path": need["path"], "phase": "rpath", "origin": module["path"], "outcome": "loaded"
    }  # fmt: skip


def test_every_place_in_order_with_its_rule(musl: Musl) -> None:
    code = "import ctypes\ntry: ctypes.CDLL('/mnt/libs/libmid9.so')\nexcept OSError as error: print(error)"
    _, events = musl.events("-c", code)
    (missing,) = [event for event in events if event["type"] == "failed" and event["need"] == "libdep9.so"]
    assert (missing["kind"], missing["requested_by"]) == ("not found", "/mnt/libs/libmid9.so")
    rules = [(probe["phase"], probe["path"].rpartition("/")[0]) for probe in missing["probes"]]
    assert rules[0] == ("runpath", "/mnt/libs/sub")
    assert [phase for phase, _ in rules] == sorted(
        (phase for phase, _ in rules), key=["runpath", "rpath", "system"].index
    )  # fmt: skip
    assert [folder for phase, folder in rules if phase == "system"][-1].startswith("/usr/lib")
    (dropped,) = [event for event in events if event["type"] == "failed" and event["path"].endswith("libmid9.so")]
    assert dropped["kind"] == "dropped"


def test_why_names_the_cause(musl: Musl) -> None:
    done = musl.run("why", "--json", "/mnt/libs/libmid9.so")
    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["findings"][0]["code"]) == (1, "missing-image")
    assert "libdep9.so was not found" in musl.run("why", "/mnt/libs/libmid9.so").stdout.splitlines()[0]
    text = musl.run("why", "-v", "/mnt/libs/libmid9.so").stdout
    assert "RUNPATH of /mnt/libs/libmid9.so: /mnt/libs/sub/libdep9.so  not there" in text
    assert "the loader: it looked for libdep9.so in" in text


def test_deps_lists_the_places_of_musl(musl: Musl) -> None:
    done = musl.run("deps", "--json", "/mnt/libs/libmid9.so")
    (binding,) = [one for one in json.loads(done.stdout)["bindings"] if one["need"] == "libdep9.so"]
    _, events = musl.events("-c", "import ctypes\ntry: ctypes.CDLL('/mnt/libs/libmid9.so')\nexcept OSError: pass")
    (missing,) = [event for event in events if event["type"] == "failed" and event["need"] == "libdep9.so"]
    assert done.returncode == 1 and "path" not in binding
    places = [[probe["path"] for probe in one["probes"]] for one in (binding, missing)]
    assert places[0] == places[1] and len(places[0]) > 2


def test_a_name_that_is_found_nowhere_and_a_library_that_is_only_read(musl: Musl) -> None:
    code = "\n".join(
        (
            "import ctypes",
            "try: ctypes.CDLL('noext')",  # a name without .so
            "except OSError: pass",
            "open('/mnt/libs/libmid9.so', 'rb').close()",
        )
    )
    _, events = musl.events("-c", code)
    failed = [event for event in events if event["type"] == "failed"]
    assert [event["need"] for event in failed] == ["noext"]
    assert len(failed[0]["probes"]) >= 2


def test_processes_that_are_started(musl: Musl) -> None:
    code = "import os\nif not os.fork():\n    import _bz2\n    os._exit(0)\nos.wait()"
    head, events = musl.events("--follow", "-c", code)
    (event,) = [event for event in events if "/_bz2." in event["path"]]
    assert event["pid"] != head["pid"] and event["imports"] == ["_bz2"]


def test_a_start_is_seen_from_its_program_on(musl: Musl) -> None:
    _, events = musl.events("--startup", "-c", "pass")
    assert events[0]["path"] == "/opt/freeze_core/python"
    assert events[1]["requested_by"] == "/opt/freeze_core/python"


FAILURES = {
    # The root is Debian's, with glibc's libraries in folders of /etc/ld.so.conf: nothing of theirs is for musl.
    "libstdc": ("missing-image", "it was built for glibc", "ldconfig"),
    "faulty": ("glibc-symbol-on-musl", "was built for musl, and asks for __cxa_thread_atexit_impl", "musllinux"),
    "empty": ("not-an-image", "/mnt/libs/libempty9.so is an empty file", "apk add"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_of_musl_gets_the_advice_of_musl(name: str, musl: Musl) -> None:
    origin = "-Wl,-rpath,$ORIGIN"
    stubs = {"libstdc": "libstdc++.so.6", "faulty": "libc.musl-x86_64.so.1", "empty": "libempty9.so"}
    musl.build(stubs[name], "int dep(void) { return 1; }", f"-Wl,-soname,{stubs[name]}")
    code = "int dep(void); int f(void) { return dep(); }"
    if name == "faulty":
        code = "int __cxa_thread_atexit_impl(void); int f(void) { return __cxa_thread_atexit_impl(); }"
    musl.build(f"lib{name}9x.so", code, "-Wl,--no-as-needed", "-L.", f"-l:{stubs[name]}", origin)
    (musl.folder / "libs" / stubs[name]).unlink()
    if name == "empty":
        (musl.folder / "libs" / stubs[name]).touch()
    output = musl.run("why", "--json", f"/mnt/libs/lib{name}9x.so").stdout
    expected, words, wrong = FAILURES[name]
    finding = json.loads(output)["findings"][0]
    assert finding["code"] == expected and words in output
    assert not any(wrong in remedy["what"] or wrong in remedy["command"] for remedy in finding["remedies"]), finding


def test_find_library_without_a_compiler(musl: Musl) -> None:
    """musl's system has no ldconfig, and images of containers no gcc: the library is there all the same."""
    musl.build("libqmagic.so.1", "int f(void) { return 1; }")
    code = "import ctypes.util\nif not ctypes.util.find_library('qmagic'):\n    raise ImportError('no libqmagic found')"
    done = musl.root.execute(
        musl.folder, [musl.root.python, "/mnt/watched_inside.py", "why", "--json", "-c", code],
        {"LD_LIBRARY_PATH": "/mnt/libs"},
    )  # fmt: skip
    (finding, *_) = json.loads(done.stdout)["findings"]
    assert finding["code"] == "library-not-found" and "is there: /mnt/libs/libqmagic.so.1" in finding["title"]
    assert [remedy["command"] for remedy in finding["remedies"]].count(["ldconfig"]) == 0
