"""This machine as values: its files, a root folder's files, what its loader says."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the loaders of Linux", allow_module_level=True)

from dlltracer.capture.linux.decoding import examine_failure
from dlltracer.errors import BinaryFormatError
from dlltracer.host.filesystem import HostFilesystem
from dlltracer.host.linux import (
    ask_loader,
    parse_answer,
    parse_maps,
    read_linux_context,
    read_loaded_paths,
)
from dlltracer.host.processors import guess_facts, read_processor
from dlltracer.model.elf import ElfImage
from dlltracer.model.events import (
    FOLDER_LOCKED,
    FailureKind,
    LoadFailedEvent,
    Phase,
    Probe,
    ProbeOutcome,
)
from dlltracer.model.loader_context import FileKind, GlibcContext, LinuxContext, MuslContext


def own_image() -> ElfImage:
    image = HostFilesystem().read_image(os.path.realpath("/proc/self/exe"))
    assert isinstance(image, ElfImage)
    return image


def interpreter() -> str:
    image = own_image()
    if image.interpreter is None or "ld-musl" in image.interpreter:
        pytest.skip("the running Python has no glibc")
    return image.interpreter


def test_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    kinds = {
        "file": FileKind.FILE, "link": FileKind.FILE, "": FileKind.FOLDER, "dangling": FileKind.ABSENT,
        "nothing": FileKind.ABSENT, "file/below": FileKind.ABSENT, "circle": FileKind.SYMLINK_LOOP,
        "fifo": FileKind.OTHER, "socket": FileKind.OTHER, "nul\0": FileKind.ABSENT, "x" * 300: FileKind.ABSENT,
    }  # fmt: skip
    for root in (None, str(tmp_path)):
        files = HostFilesystem(root)
        start = f"{tmp_path}/" if root is None else "/"
        assert {name: files.kind(f"{start}{name}") for name in kinds} == kinds
        assert files.identity(f"{start}file") == files.identity(f"{start}link") is not None
        assert files.identity(f"{start}nothing") is None
        assert files.real_path(f"{start}link") == f"{os.path.realpath(start).rstrip('/') if root is None else ''}/file"
        assert files.read_head(f"{start}link", 3) == b"123"
        with pytest.raises(BinaryFormatError):
            files.read_image(f"{start}file")


def test_what_may_not_be_read() -> None:
    """As another user when the tests run as root, who may read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed").mkdir()
        for path in (folder / "file", folder / "closed/file"):
            path.write_bytes(b"")
            path.chmod(0)
        (folder / "closed").chmod(0)
        as_root = os.geteuid() == 0
        if as_root:
            os.setresuid(65534, 65534, 0)
        try:
            kinds = [HostFilesystem().kind(str(folder / name)) for name in ("file", "closed/file", "other")]
            places = tuple(Probe(str(folder / name), Phase.RUNPATH) for name in ("closed/file", "other"))
            examined = examine_failure(LoadFailedEvent("file", probes=places, kind=FailureKind.NOT_FOUND))
        finally:
            if as_root:
                os.setresuid(0, 0, 0)
            (folder / "closed").chmod(0o700)
    assert kinds == [FileKind.DENIED, FileKind.HIDDEN, FileKind.ABSENT]
    outcomes = [(probe.outcome, probe.reason) for probe in examined.probes or ()]
    assert outcomes == [(ProbeOutcome.PASSED, FOLDER_LOCKED), (ProbeOutcome.ABSENT, None)]
    assert examined.kind is FailureKind.NOT_FOUND, "nobody saw a file there"


def test_links_inside_a_root_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "real/deep/file").write_bytes(b"inside")
    (tmp_path / "absolute").symlink_to("/real/deep")
    (tmp_path / "out").symlink_to("../../../../real/./deep")
    (tmp_path / "real/chain").symlink_to("../absolute/file")
    (tmp_path / "escape").symlink_to("/etc/passwd")
    files = HostFilesystem(str(tmp_path))
    for path in (
        "/absolute/file",
        "/out/file",
        "/real/chain",
        "/absolute/../deep/file",
        "/../real/deep/file",
        "//out//file",
    ):
        assert files.real_path(path) == "/real/deep/file", path
        assert files.read_bytes(path) == b"inside"
    assert files.kind("/escape") is FileKind.ABSENT
    assert files.host_path("/escape") == f"{tmp_path}/etc/passwd"


def test_an_image_is_read_once(tmp_path: Path) -> None:
    files = HostFilesystem()
    copy = tmp_path / "copy.so"
    copy.write_bytes(Path("/proc/self/exe").read_bytes())
    first = files.read_image(str(copy))
    copy.unlink()
    assert files.read_image(str(copy)) is first


def test_this_process() -> None:
    loader = interpreter()
    context = read_linux_context(
        environment={"LD_LIBRARY_PATH": "/a::/b;", "LD_PRELOAD": "one.so  two.so:three.so"},
        loaded=read_loaded_paths(),
    )
    assert isinstance(context, GlibcContext)
    assert context.bits == ctypes.sizeof(ctypes.c_void_p) * 8
    assert context.little_endian is (sys.byteorder == "little")
    assert (context.page_size, context.flags) == (os.sysconf("SC_PAGE_SIZE"), own_image().flags)
    assert context.program == os.path.realpath(sys.executable)
    assert context.library_path == ("/a", "", "/b", "")
    assert context.preload == ("one.so", "two.so", "three.so")
    assert context.current_folder == os.getcwd()
    assert context.loader == loader and context.lib and context.platform
    assert all(folder.startswith("/") and not folder.endswith("/") for folder in context.system_folders)
    assert context.notes == ()
    libc = next(image for image in context.loaded if image.soname == "libc.so.6")
    assert libc.names == ("libc.so.6",)
    assert context.program not in {image.path for image in context.loaded}


def test_the_answer_of_the_loader_and_a_guess_agree() -> None:
    loader = interpreter()
    asked = ask_loader(loader, os.path.realpath("/proc/self/exe"))
    assert asked is not None
    context = read_linux_context()
    guessed = guess_facts(Path(loader).read_bytes(), context, read_processor(context))
    assert replace(guessed, notes=()) == asked


def test_a_loader_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a program")
    for name in ("text", "none"):
        assert ask_loader(str(tmp_path / name), "/proc/self/exe") is None
    assert parse_answer("") is None
    assert parse_answer("1:\t search path=/other\t\t(LD_LIBRARY_PATH)\n") is None
    guessed = guess_facts(b"", LinuxContext(), None)
    assert guessed.system_folders == ("/lib64", "/usr/lib64") and guessed.lib == "lib64"
    assert "assumed" in guessed.notes[0] and "$PLATFORM is not known" in guessed.notes[1]


def test_the_loader_that_a_file_names_is_not_run(tmp_path: Path) -> None:
    """A program to be examined may be hostile: its PT_INTERP is read, and not started."""
    name = interpreter().encode()
    trace, hostile = tmp_path / "was-run", Path("/tmp") / f"h{os.getpid()}"[: len(name) - 5]
    hostile.write_text(f"#!/bin/sh\ntouch {trace}\n")
    hostile.chmod(0o755)
    try:
        program = tmp_path / "program"
        data = Path("/proc/self/exe").read_bytes()
        program.write_bytes(data.replace(name + b"\0", str(hostile).encode().ljust(len(name) + 1, b"\0"), 1))
        context = read_linux_context(environment={}, program=str(program))
    finally:
        hostile.unlink()
    assert isinstance(context, GlibcContext)
    assert context.loader == str(hostile) and not trace.exists()
    assert any("the loader does not tell its own folders" in note for note in context.notes)


ANSWER = (
    "     7:\tfind library=libdlltracer-asks.so [0]; searching\n"
    "     7:\t search path=/dlltracer/glibc-hwcaps/x86-64-v2:/dlltracer:/dlltracer-lib/lib64/glibc-hwcaps/x86-64-v2:"
    "/dlltracer-lib/lib64:/dlltracer-platform/haswell/glibc-hwcaps/x86-64-v2:/dlltracer-platform/haswell"
    "\t\t(LD_LIBRARY_PATH)\n"
    "     7:\t search cache=/etc/ld.so.cache\n"
    "     7:\t search path=/lib64/glibc-hwcaps/x86-64-v2:/lib64:/usr/lib64/glibc-hwcaps/x86-64-v2:/usr/lib64"
    "\t\t(system search path)\n"
)


def test_an_answer() -> None:
    facts = parse_answer(ANSWER)
    assert facts is not None
    assert facts.subfolders == ("glibc-hwcaps/x86-64-v2",)
    assert facts.system_folders == ("/lib64", "/usr/lib64")
    assert (facts.lib, facts.platform) == ("lib64", "haswell")


def test_maps() -> None:
    text = (
        "55d0a000-55d0b000 r--p 00000000 fe:01 12  /usr/bin/python3\n"
        "7f00a000-7f00b000 r-xp 00000000 fe:01 13 /lib/a b.so\n7f00b000-7f00c000 rw-p 00001000 fe:01 13 /lib/a b.so\n"
        "7f00c000-7f00d000 r-xp 00000000 fe:01 14 /lib/gone.so (deleted)\n7f00e000-7f00f000 rw-p 00000000 00:00 0 \n"
        "7ffd0000-7ffd1000 r-xp 00000000 00:00 0                          [vdso]\nnonsense\n"
    )
    assert parse_maps(text) == ("/usr/bin/python3", "/lib/a b.so")


@pytest.mark.parametrize("text", [None, "/lib\n/opt/lib:/more\n\n", ""])
def test_a_root_with_musl(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    program = Path("/proc/self/exe").read_bytes()
    name = interpreter().encode()
    musl = b"/ld-musl-x86_64.so.1"
    if len(musl) > len(name):
        pytest.skip(f"the name of this loader is too short to be replaced: {name!r}")
    (tmp_path / "usr/bin/python3").write_bytes(program.replace(name + b"\0", musl.ljust(len(name) + 1, b"\0"), 1))
    if text is not None:
        (tmp_path / "etc/ld-musl-x86_64.path").write_text(text)
    context = read_linux_context(str(tmp_path), environment={"LD_LIBRARY_PATH": ":/a:"})
    assert isinstance(context, MuslContext)
    assert context.loader == "/ld-musl-x86_64.so.1" and context.program == "/usr/bin/python3"
    expected = {None: ("/lib", "/usr/local/lib", "/usr/lib"), "": ()}
    assert context.system_folders == expected.get(text, ("/lib", "/opt/lib", "/more"))
    assert context.library_path == ("/a",) and context.current_folder == "/"


def test_an_empty_root_says_what_is_assumed(tmp_path: Path) -> None:
    context = read_linux_context(str(tmp_path))
    assert isinstance(context, GlibcContext)
    assert context.program is None and context.cache == () and context.library_path == ()
    assert any("x86-64 is assumed" in note for note in context.notes)


def test_a_root_with_glibc(tmp_path: Path) -> None:
    """Nothing of it is run: the facts come from the bytes of its loader."""
    loader = interpreter()
    for path in (loader, "/usr/bin/python3"):
        (tmp_path / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / loader.lstrip("/")).write_bytes(Path(loader).read_bytes())
    (tmp_path / "usr/bin/python3").write_bytes(Path("/proc/self/exe").read_bytes())
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld.so.cache").write_bytes(b"not a cache")
    context = read_linux_context(str(tmp_path))
    here = read_linux_context()
    assert isinstance(context, GlibcContext) and isinstance(here, GlibcContext)
    assert (context.system_folders, context.lib) == (here.system_folders, here.lib)
    assert any("ld.so.cache could not be read" in note for note in context.notes)
