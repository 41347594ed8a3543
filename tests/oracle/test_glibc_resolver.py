"""The glibc resolver against glibc: what it says a load would do, and what ld.so then does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dlltracer
from oracle.roots import find_root, this_system
from oracle.tiny_elf import TinyLibraries, build_scenarios

if sys.platform != "linux":
    pytest.skip("glibc is of Linux", allow_module_level=True)

from builders.loader_text import decode_loader_text
from dlltracer.host.filesystem import HostFilesystem
from dlltracer.host.linux import read_linux_context
from dlltracer.model.events import LoadEvent
from dlltracer.model.loader_context import GlibcContext
from dlltracer.model.tree import BindingState, LoadTree
from dlltracer.resolve.linux import resolve_glibc

if shutil.which("gcc") is None:
    pytest.skip("no gcc on this machine", allow_module_level=True)
if not isinstance(read_linux_context(), GlibcContext):
    pytest.skip("the running Python has no glibc", allow_module_level=True)

SYSTEMS = ("this system", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bullseye", "sid")))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLibraries:
    return build_scenarios(tmp_path_factory.mktemp("tiny"))


def run_scenarios(name: str, tiny: TinyLibraries) -> dict[str, Any]:
    root = this_system() if name == "this system" else find_root(name)
    if isinstance(root, str):
        pytest.skip(root)
    done = root.run(tiny.folder, "resolve_inside.py")
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    assert results.keys() == {scenario["name"] for scenario in tiny.scenarios} and len(results) > 60
    return results


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_scenario_ends_as_the_loader_ends_it(name: str, tiny: TinyLibraries) -> None:
    wrong = {scenario: seen for scenario, seen in run_scenarios(name, tiny).items() if not is_as_the_loader(seen)}
    assert not wrong, json.dumps(wrong, indent=1)


def is_as_the_loader(seen: dict[str, Any]) -> bool:
    """Whether a scenario went by the resolver as it went by the loader (`resolve_inside.compare`)."""
    failed = seen["error"] is not None
    if failed:
        # A file that is mapped and then refused is in the loader's log, and not among our images.
        seen["log"][-1][1] = None
    agree = seen["log"] == seen["tree"] and failed == bool(seen["failures"])
    agree = agree and all("in the process already" in note for note in seen["notes"])
    if not failed:
        agree = agree and seen["new"] == seen["images"]
    elif seen["failures"]:
        agree = agree and explains(seen["failures"][0], seen["error"])
    return agree


def explains(failure: list[str], error: str) -> bool:
    """Whether the words of dlerror and ours are about the same file and the same thing."""
    need, state, reason, path = failure
    file, _, words = error.partition(": ")
    if state == "MISSING":
        return file == need and words.startswith(("cannot open shared object file", "wrong ELF class"))
    return file in (path, need) and (
        reason.partition(":")[0] == words
        or ("Is a directory" in words and "a folder" in reason)
        or ("cannot read file data" in words and "damaged" in reason)
    )


def build_aligned(folder: Path) -> list[str]:
    """Libraries for pages of several sizes, and some whose program headers do not suit any; their paths in a root."""
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-xc", "-", "-o"]
    source = "int data = 1; const int constant = 2; int function(void) { return data + constant; }"
    for size in (4096, 16384, 65536):
        options = [f"-Wl,-z,max-page-size={size}", f"-Wl,-z,common-page-size={size}"]
        subprocess.run([*command, f"pages{size}.so", *options], input=source, text=True, cwd=folder, check=True)
    whole = (folder / "pages4096.so").read_bytes()
    headers = [at for at in range(64, 64 + 56 * int.from_bytes(whole[56:58], "little"), 56) if whole[at] == 1]
    for name, header, field, change in (
        ("align0", -1, 48, lambda align: 0), ("align1", -1, 48, lambda align: 1), ("align8", 0, 48, lambda align: 8),
        ("align_odd", -1, 48, lambda align: 6144), ("align_large", -1, 48, lambda align: 32768),
        ("moved", -1, 8, lambda offset: offset - 8),
    ):  # fmt: skip
        data = bytearray(whole)
        at = headers[header] + field
        data[at : at + 8] = change(int.from_bytes(data[at : at + 8], "little")).to_bytes(8, "little")
        (folder / f"{name}.so").write_bytes(data)
    shutil.copytree(Path(dlltracer.__file__).parent, folder / "dlltracer")
    shutil.copy(Path(__file__).with_name("pages_inside.py"), folder)
    return sorted(path.name for path in folder.glob("*.so"))


@pytest.mark.parametrize("name", SYSTEMS)
def test_segments_for_pages_of_another_size(name: str, tmp_path: Path) -> None:
    """Against the loader's own code, which is given that size of pages."""
    root = this_system() if name == "this system" else find_root(name)
    if isinstance(root, str):
        pytest.skip(root)
    home = tmp_path if root.folder is None else Path("/mnt")
    paths = [str(home / file) for file in build_aligned(tmp_path)]
    answers = set()
    for size in (4096, 16384, 65536):
        done = root.run(tmp_path, "pages_inside.py", str(size), *paths)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["ours"] == result["loader"], size
        assert result["loader"][str(home / "pages65536.so")] is None
        answers.update(result["loader"].values())
    assert len(answers) == (3 if name == "bullseye" else 2)  # before glibc 2.35 there were two words for it


def test_all_that_is_missing_is_named_at_once(tiny: TinyLibraries) -> None:
    tree = resolve(tiny.folder / "missing.so")
    assert [binding.need for binding in tree.missing] == ["libgone1.so", "libgone2.so"]
    assert str(tiny.folder / "own/libx.so") in tree.images


def resolve(path: Path, **changes: Any) -> LoadTree:
    context = read_linux_context(environment={})
    assert isinstance(context, GlibcContext)
    return resolve_glibc(str(path), replace(context, **changes), HostFilesystem())


def listed(path: Path, environment: dict[str, str] | None = None) -> dict[str, str | None]:
    """What ld.so --list says: needs, and the file of each. This starts `path` as a program, without running it."""
    context = read_linux_context()
    assert isinstance(context, GlibcContext) and context.loader is not None
    done = subprocess.run(
        [context.loader, "--list", str(path)], env=environment or {}, capture_output=True, text=True, check=False
    )
    found: dict[str, str | None] = {}
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"\t(\S+) => (?:not found|(\S+) \(0x[0-9a-f]+\))", line):
            found[match[1]] = match[2]
    return found


def first_bindings(tree: LoadTree) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for binding in tree.bindings:
        found.setdefault(binding.need, binding.path if binding.state is BindingState.BOUND else None)
    return found


def real_libraries() -> list[Path]:
    modules: list[Path] = []
    for home in sorted(Path.home().glob(".pyenv/versions/*/lib/python*/lib-dynload")):
        modules += sorted(home.glob("*.so"))[::3]
    system = sorted(Path("/usr/lib/x86_64-linux-gnu").glob("*.so*"))
    programs = [Path("/usr/bin") / name for name in ("gcc", "perl", "openssl", "git", "gdb", "ssh")]
    here = [Path(sys.executable), *Path(sys.base_prefix).glob("lib/python*/lib-dynload/*.so")]
    # ld.so resolves no links to find $ORIGIN of a program that it is given to start, as the kernel would have.
    return [path.resolve() for path in (*here, *modules, *system[::4], *programs) if path.exists()]


def test_real_libraries_as_ld_so_lists_them() -> None:
    context = read_linux_context(environment={})
    files = HostFilesystem()
    assert isinstance(context, GlibcContext)
    compared = 0
    wrong = []
    for path in real_libraries():
        expected = listed(path)
        if not expected:
            continue  # a script of the GNU linker, a program without needs
        loader = os.path.basename(context.loader or "")
        found = first_bindings(resolve_glibc(str(path), context, files, program=True))
        found.pop(loader, None)
        expected.pop(loader, None)
        compared += 1
        if found != expected:
            wrong.append((path, found, expected))
    assert not wrong
    assert compared > 30


START = """
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **names) {
    (void)count;
    if (!dlopen(names[1], RTLD_NOW)) puts(dlerror());
    return 0;
}
"""


@pytest.mark.parametrize(("tags", "found"), [("--disable-new-dtags", True), ("--enable-new-dtags", False)])
def test_the_rpath_of_the_program_counts_for_what_it_loads(
    tiny: TinyLibraries, tmp_path: Path, tags: str, found: bool
) -> None:
    program = tmp_path / "program"
    subprocess.run(
        ["gcc", "-xc", "-", "-o", str(program), f"-Wl,{tags},-rpath,{tiny.folder}/own"],
        input=START, text=True, check=True,
    )  # fmt: skip
    top = tiny.folder / "bare.so"
    done = subprocess.run([program, top], env={}, capture_output=True, text=True, check=True)
    assert (done.stdout == "") is found
    tree = resolve(top, program=str(program))
    assert tree.missing is not found
    # A RUNPATH of the program counts for its own needs, and for the names that it gives to dlopen.
    done = subprocess.run([program, "libx.so"], env={}, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert resolve(Path("libx.so"), program=str(program)).top == f"{tiny.folder}/own/libx.so"


def test_a_program_that_starts(tiny: TinyLibraries, tmp_path: Path) -> None:
    """The images in the order in which ld.so maps them, each found by the same rule."""
    program = tmp_path / "program"
    command = ["gcc", "-xc", "-", "-o", str(program), f"-Wl,--no-as-needed,-rpath,{tiny.folder}/own"]
    libraries = [str(tiny.folder / f"own/{name}") for name in ("libx.so", "liby.so")]
    subprocess.run(
        [*command, "-xnone", *libraries, "-lBrokenLocale", "-lm"], input="int main(void) { return 0; }",
        text=True, check=True,
    )  # fmt: skip
    environment = {"LD_LIBRARY_PATH": f"{tiny.folder}/env"}
    debug = {"LD_DEBUG": "libs,files", "LD_DEBUG_OUTPUT": str(tmp_path / "log")}
    subprocess.run([program], env={**environment, **debug}, check=True)
    (log,) = tmp_path.glob("log.*")
    events = [event for event in decode_loader_text(log.read_bytes()).events if isinstance(event, LoadEvent)]
    context = read_linux_context(environment=environment)
    assert isinstance(context, GlibcContext)
    tree = resolve_glibc(str(program), context, HostFilesystem(), program=True)
    paths = [event.path for event in events]
    assert [path for path in tree.images if path != str(program)] == paths and len(paths) > 3
    rules = {event.path: event.phase for event in events}
    assert rules == {b.path: b.phase for b in tree.bindings if b.path in rules and b.probes}
    assert set(rules) == {b.path for b in tree.bindings if b.path in rules and b.probes}


def test_loading_modules_of_every_python_here() -> None:
    """dlopen, in the very Python that a module is for."""
    names = ("_ssl", "_sqlite3", "readline", "_ctypes", "_lzma")
    compared = 0
    for python in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3")):
        for name in names:
            for module in python.parent.parent.glob(f"lib/python3.*/lib-dynload/{name}.cpython-*.so"):
                check_in_python(python, module)
                compared += 1
    if not compared:
        pytest.skip("no Python of pyenv on this machine")


LOAD = """
import ctypes, sys
def maps():
    with open("/proc/self/maps") as stream:
        return {line.split(None, 5)[5].strip() for line in stream if "/" in line}
before = maps()
try:
    ctypes.CDLL(sys.argv[1], 2)
except OSError as error:
    print(error)
else:
    print()
print("\\n".join(sorted(before)), end="\\n\\n")
print("\\n".join(sorted(maps() - before)))
"""


def check_in_python(python: Path, module: Path) -> None:
    done = subprocess.run([python, "-I", "-S", "-c", LOAD, module], env={}, capture_output=True, text=True, check=True)
    error, _, rest = done.stdout.partition("\n")
    before, _, new = rest.partition("\n\n")
    context = read_linux_context(environment={}, program=str(python), loaded=before.splitlines())
    assert isinstance(context, GlibcContext)
    tree = resolve_glibc(str(module), context, HostFilesystem())
    if error:
        assert error.split(":")[0] in (tree.missing[0].need, str(module))
    else:
        assert not tree.missing
        images = {os.path.realpath(path) for path in tree.images}
        assert images == {path for path in new.splitlines() if path.endswith(".so") or ".so." in path}, module
