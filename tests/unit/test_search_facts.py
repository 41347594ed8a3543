"""What a process reports of its loader's settings, and what the files around a requester show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builders.elf_file import ElfFile
from builders.memory_filesystem import MemoryFilesystem, elf_image
from dlltracer.api.search_leads import find_leads, find_other_cases
from dlltracer.binary.elf import read_elf
from dlltracer.diagnose.case import Case, LeadKind
from dlltracer.host.failure import this_process
from dlltracer.host.filesystem import HostFilesystem
from dlltracer.model.events import Phase
from dlltracer.model.failure import System
from dlltracer.model.loader_context import GlibcContext
from dlltracer.model.run import RunResult
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.resolve.linux import resolve_glibc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these are facts of Linux")

TELL = "import os, json; os.environ['LD_LIBRARY_PATH'] = '/late'\nfrom dlltracer.host.facts import describe_process\n" \
       "print(json.dumps(describe_process([])))"  # fmt: skip


def ask(*command: str, environment: dict[str, str]) -> dict[str, object]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path), **environment}
    done = subprocess.run([*command, "-c", TELL], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_environment_at_the_start_is_not_the_one_now() -> None:
    facts = ask(sys.executable, environment={"LD_LIBRARY_PATH": "/early:/more", "LD_PRELOAD": ""})
    assert dict(facts["start_environment"])["LD_LIBRARY_PATH"] == "/early:/more"  # type: ignore[call-overload]
    assert dict(facts["environment"])["LD_LIBRARY_PATH"] == "/late"  # type: ignore[call-overload]
    assert facts["is_secure"] is False
    assert ask(sys.executable, environment={})["start_environment"] == []


def test_a_program_with_capabilities_is_in_secure_mode(tmp_path: Path) -> None:
    setcap, setpriv = shutil.which("setcap", path="/usr/sbin:/sbin"), shutil.which("setpriv")
    if os.geteuid() != 0 or setcap is None or setpriv is None or not Path("/usr/bin/python3").exists():
        pytest.skip("needs root, setcap and setpriv, and a Python that others may run")
    folder = Path("/var/tmp") / f"dlltracer-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        shutil.copytree("src/dlltracer", folder / "dlltracer", ignore=shutil.ignore_patterns("__pycache__"))
        python = folder / "python"
        shutil.copy(os.path.realpath("/usr/bin/python3"), python)
        if subprocess.run([setcap, "cap_net_raw+ep", str(python)], check=False).returncode:
            pytest.skip("no capabilities on this file system")
        subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
        other = [setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{TELL}"
        done = subprocess.run(
            [*other, str(python), "-c", code], env={"LD_LIBRARY_PATH": "/x"}, capture_output=True, text=True, check=True
        )
        facts = json.loads(done.stdout)
    finally:
        shutil.rmtree(folder)
    assert facts["is_secure"] is True
    assert dict(facts["environment"])["LD_LIBRARY_PATH"] == "/late", "set by the program itself"
    assert dict(facts["start_environment"])["LD_LIBRARY_PATH"] == "/x", "given, and ignored by its loader"


def test_secure_mode_leaves_out_the_environment_and_origins_that_anybody_may_write() -> None:
    files = MemoryFilesystem({
        "/p/top.so": elf_image("a.so", "b.so", "c.so", runpath="$ORIGIN:/abs:$ORIGIN/../lib/x"),
        "/p/a.so": elf_image(), "/env/a.so": elf_image(), "/abs/b.so": elf_image(), "/lib/x/c.so": elf_image(),
    })  # fmt: skip
    context = GlibcContext(library_path=("/env",), preload=("/env/a.so",), system_folders=("/lib",))
    open_tree = resolve_glibc("/p/top.so", context, files)
    assert [binding.path for binding in open_tree.bindings] == ["/env/a.so", "/abs/b.so", "/p/../lib/x/c.so"]
    tree = resolve_glibc("/p/top.so", replace(context, secure=True), files)
    assert [binding.path for binding in tree.bindings] == [None, "/abs/b.so", "/p/../lib/x/c.so"]
    assert tree.notes == ("LD_LIBRARY_PATH and LD_PRELOAD do not count: the program runs in secure mode (AT_SECURE)",)


def test_what_ld_preload_brings_comes_before_the_needs_of_a_program() -> None:
    files = MemoryFilesystem({
        "/p": elf_image("x.so.1", interpreter="/lib/ld.so", runpath="/new"),
        "/old/x.so.1": elf_image("y.so", soname="x.so.1", runpath="/old"), "/old/y.so": elf_image(),
        "/new/x.so.1": elf_image(soname="x.so.1"), "/lib/ld.so": elf_image(),
    })  # fmt: skip
    tree = resolve_glibc("/p", GlibcContext(preload=("/gone.so", "/old/x.so.1")), files, program=True)
    assert list(tree.images) == ["/p", "/old/x.so.1", "/old/y.so"]
    gone, preloaded, need, _ = tree.bindings
    assert (gone.state, gone.phase) == (BindingState.MISSING, Phase.PRELOAD)
    assert (preloaded.path, preloaded.phase) == ("/old/x.so.1", Phase.PRELOAD)
    assert (need.path, need.phase) == ("/old/x.so.1", Phase.LOADED)
    assert tree.missing == (), "the loader goes on without what it cannot preload"


def lead_for(folder: Path, need: str, image: ElfFile, **changes: object) -> list[tuple[LeadKind, str | None]]:
    """The leads for a need of `folder`/ext.so that was not found."""
    path = str(folder / "ext.so")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if not Path(path).exists():
        Path(path).write_bytes(image.build())
    process = replace(this_process(), **{"start_environment": (), "environment": (), **changes})  # type: ignore[arg-type]
    tree = LoadTree(path, {path: read_elf(path)}, (Binding(need, path, BindingState.MISSING),))
    run = RunResult(process=process)
    case = Case(what="import ext", system=System.LINUX, run=run, subject=path, tree=tree, images=dict(tree.images))
    return [(lead.kind, lead.path) for lead in find_leads(case, process).get(need, ())]


@pytest.mark.parametrize(
    "element",
    ["/libs", "ORIGIN/libs", "RIGIN/libs", "{ORIGIN}/libs", "$(ORIGIN)/libs", "\\$ORIGIN/libs", "'$ORIGIN/libs'"],
)
def test_what_is_left_of_an_eaten_origin(element: str, tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs/libx.so.1").touch()
    found = lead_for(tmp_path, "libx.so.1", ElfFile(needed=("libx.so.1",), runpath=f"/none:{element}"))
    assert found == [(LeadKind.ORIGIN_EATEN, str(tmp_path / "libs/libx.so.1"))]


def test_whole_search_paths_give_no_leads(tmp_path: Path) -> None:
    image = ElfFile(needed=("libx.so.1",), runpath="$ORIGIN/libs:/usr/lib:")
    assert lead_for(tmp_path, "libx.so.1", image) == []


def test_a_file_whose_name_differs_in_case_only(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/libFoo.so.1").touch()
    (tmp_path / "usr/lib/LIBFOO.so.1").mkdir()
    tried = [("libfoo.so.1", ("/none/libfoo.so.1", "/usr/lib/libfoo.so.1")), ("/usr/lib/libFoo.so.1", ("/usr/lib/x",))]
    found = find_other_cases([*tried, ("a\0b", ("/usr/lib\0/x", "/usr/lib/x"))], HostFilesystem(str(tmp_path)))
    assert list(found) == [("libfoo.so.1", "/usr/lib/libFoo.so.1")]
    absolute = f"{tmp_path}/usr/lib/libfoo.so.1"
    lead = (LeadKind.OTHER_CASE, f"{tmp_path}/usr/lib/libFoo.so.1")
    assert lead_for(tmp_path, absolute, ElfFile(needed=(absolute,))) == [lead]


def test_a_late_and_an_ignored_library_path(tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/libx.so.1").touch()
    image = ElfFile(needed=("libx.so.1",))
    now = (("LD_LIBRARY_PATH", f"{tmp_path}/opt"),)
    there = str(tmp_path / "opt/libx.so.1")
    assert lead_for(tmp_path, "libx.so.1", image, environment=now) == [(LeadKind.LATE_LIBRARY_PATH, there)]
    assert lead_for(tmp_path, "libx.so.1", image, environment=now, start_environment=now) == []
    assert lead_for(tmp_path, "libx.so.1", image, environment=now, is_secure=True) == [(LeadKind.SECURE_MODE, there)]
