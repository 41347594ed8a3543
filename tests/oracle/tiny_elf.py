"""Folders of tiny libraries, built by gcc, in which a loader has to choose."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dlltracer
from oracle.processors import Processor

LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2")
TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf", "i386-linux-gnu", "riscv64-linux-gnu")
PLATFORMS = ("haswell", "x86_64", "aarch64", "v7l", "v8l", "i686")
EM_X86_64, EM_386, EM_ARM, EM_RISCV = 62, 3, 40, 243
FLAGS = {EM_ARM: 0x05000400, EM_RISCV: 5}
"""e_flags of the usual ABI of a machine, if there are any."""
OTHER_FLAGS = {EM_ARM: 0x05000200, EM_RISCV: 1}
"""Those of an ABI that passes floating-point numbers in another way."""


class TinyLibraries:
    """Builds libraries without code, and scenarios of them, in a folder that a root can share."""

    def __init__(self, folder: Path, processor: Processor | None = None) -> None:
        self.folder = folder
        self.processor = processor
        self.bits = 64 if processor is None else processor.bits
        self.scenarios: list[dict[str, Any]] = []
        self._stub = folder / "stub.so"
        self._gcc("-o", self._stub)

    def _gcc(self, *arguments: str | Path) -> None:
        command = ["gcc", f"-m{self.bits}", "-shared", "-nostdlib", "-fPIC", "-xc", "/dev/null", "-Wl,--no-as-needed"]
        subprocess.run([*command, *arguments], cwd=self.folder, check=True)

    def build(
        self, path: str, *needs: str, rpath: str = "", runpath: str = "", soname: str = "", options: Sequence[str] = ()
    ) -> Path:
        """A library; in `needs` go names as they shall stand in it."""
        made = self.folder / path
        made.parent.mkdir(parents=True, exist_ok=True)
        arguments: list[str] = ["-o", str(made), *options]
        for need in needs:  # a library without soname is needed by the name on the command line
            stub = self.folder / need
            if "/" not in need and not stub.exists():
                shutil.copy(self._stub, stub)
            arguments += ["-xnone", need if "/" in need else f"-l:{need}"]
        if soname:
            arguments.append(f"-Wl,-soname,{soname}")
        if rpath:
            arguments.append(f"-Wl,--disable-new-dtags,-rpath,{rpath}")
        if runpath:
            arguments.append(f"-Wl,--enable-new-dtags,-rpath,{runpath}")
        self._gcc(*arguments, f"-L{self.folder}")
        for need in needs:
            if "/" not in need:
                (self.folder / need).unlink(missing_ok=True)
        return made

    def add(self, name: str, top: str, **more: Any) -> None:
        """A scenario: load `top`; `@` in a text is the folder."""
        self.scenarios.append({"name": name, "top": top, **more})

    def retarget(self) -> None:
        """Make the libraries, which have no code, libraries for the processor."""
        own = EM_X86_64 if self.bits == 64 else EM_386
        machine = own if self.processor is None else self.processor.machine
        at = 48 if self.bits == 64 else 36
        for path in self.folder.rglob("*.so"):
            data = bytearray(path.read_bytes()) if path.is_file() and not path.is_symlink() else b""
            if data[:4] == b"\x7fELF" and len(data) > at + 4 and data[18:20] == own.to_bytes(2, "little"):
                flags = OTHER_FLAGS if path.parent.name == "wrong_abi" else FLAGS
                data[18:20] = machine.to_bytes(2, "little")
                data[at : at + 4] = flags.get(machine, 0).to_bytes(4, "little")
                path.write_bytes(data)

    def finish(self) -> None:
        """Put beside them what runs inside a root."""
        self.retarget()
        (self.folder / "scenarios.json").write_text(json.dumps(self.scenarios))
        home = Path(dlltracer.__file__).parent
        shutil.copytree(home, self.folder / "dlltracer", ignore=shutil.ignore_patterns("__pycache__"))
        for script in ("resolve_inside.py", "resolve_child.py"):
            shutil.copy(Path(__file__).with_name(script), self.folder)


def build_scenarios(folder: Path, processor: Processor | None = None) -> TinyLibraries:
    """Every rule of a search, and every way a file can be wrong; for another processor if one is given."""
    tiny = TinyLibraries(folder, processor)
    _search_rules(tiny)
    _names_and_tokens(tiny)
    _wrong_files(tiny)
    tiny.finish()
    return tiny


def _search_rules(tiny: TinyLibraries) -> None:
    def leaf(*folders: str, name: str = "libx.so") -> None:
        for folder in folders:
            tiny.build(f"{folder}/{name}", options=(f"-Wl,-soname,{name}",))

    environment = {"LD_LIBRARY_PATH": "@/env"}
    leaf("env", "own", "deep")
    tiny.build("top_rpath.so", "libx.so", rpath="$ORIGIN/own")
    tiny.build("top_runpath.so", "libx.so", runpath="$ORIGIN/own")
    tiny.add("rpath", "@/top_rpath.so")
    tiny.add("runpath", "@/top_runpath.so")
    tiny.add("rpath before environment", "@/top_rpath.so", environment=environment)
    tiny.add("environment before runpath", "@/top_runpath.so", environment=environment)

    tiny.build("chain/libmiddle.so", "libx.so", soname="libmiddle.so")
    tiny.build("chain/libaware.so", "libx.so", runpath="$ORIGIN/../none", soname="libaware.so")
    for kind in ("rpath", "runpath"):
        tiny.build(f"chain_{kind}.so", "libmiddle.so", **{kind: "$ORIGIN/chain:$ORIGIN/own"})
        tiny.add(f"{kind} of the chain", f"@/chain_{kind}.so")
        tiny.build(f"aware_{kind}.so", "libaware.so", **{kind: "$ORIGIN/chain:$ORIGIN/own"})
        tiny.add(f"{kind} of the chain, a requester with runpath", f"@/aware_{kind}.so")
    tiny.add("chain in the environment", "@/chain_runpath.so", environment=environment)

    tiny.build("both.so", "libx.so", "liby.so", "libx.so", runpath="$ORIGIN/own")
    tiny.build("own/liby.so", "libz9.so", "libx.so", runpath="$ORIGIN/../none:$ORIGIN", soname="liby.so")
    tiny.build("own/libz9.so", soname="libz9.so")
    tiny.add("breadth first", "@/both.so")
    tiny.build("missing.so", "libgone1.so", "libx.so", "libgone2.so", runpath="$ORIGIN/own:$ORIGIN/env:/nowhere")
    tiny.add("missing", "@/missing.so")
    tiny.build("missing_deep.so", "libz9.so", "libholed.so", runpath="$ORIGIN/own")
    tiny.build("own/libholed.so", "libgone3.so", soname="libholed.so")
    tiny.add("missing further down", "@/missing_deep.so", environment=environment)

    tiny.build("cached.so", "libBrokenLocale.so.1")
    tiny.build("nodeflib.so", "libBrokenLocale.so.1", options=("-Wl,-z,nodefaultlib",))
    tiny.add("cache", "@/cached.so")
    tiny.add("no default folders", "@/nodeflib.so")
    for level in LEVELS[1:]:
        leaf(f"caps/glibc-hwcaps/{level}", name="libcaps.so")
    leaf("caps", name="libcaps.so")
    leaf("caps/glibc-hwcaps/x86-64-v9", name="libother.so")
    tiny.build("caps.so", "libcaps.so", "libother.so", runpath="$ORIGIN/caps")
    tiny.add("hwcaps", "@/caps.so")
    leaf("tls", "tls/haswell", "own/tls", name="libtls.so")
    tiny.build("legacy.so", "libtls.so", runpath="$ORIGIN")
    tiny.add("legacy hwcaps", "@/legacy.so")


def _names_and_tokens(tiny: TinyLibraries) -> None:
    tiny.build("loaded/libx.so", soname="libx.so")
    tiny.build("named/other.so", soname="libalias.so")
    tiny.build("alias.so", "other.so", "libalias.so", "other.so", runpath="$ORIGIN/named")
    tiny.add("soname of another file", "@/alias.so")
    tiny.add("loaded before under another path", "@/top_runpath.so", first=["@/loaded/libx.so"])
    (tiny.folder / "named/link.so").symlink_to("other.so")
    tiny.build("inode.so", "other.so", "link.so", "libafter.so", runpath="$ORIGIN/named:$ORIGIN/own")
    tiny.add("two names of a file", "@/inode.so")
    tiny.add("top loaded before", "@/named/link.so", first=["@/named/other.so"])
    tiny.build("sub/plain.so")
    tiny.build("top_slash.so", "sub/plain.so")
    tiny.add("a need with a folder", "@/top_slash.so")
    tiny.add("a need with a folder, from elsewhere", "@/top_slash.so", folder="@/own")
    tiny.build("braces.so", "libx.so", runpath="${ORIGIN}/own/")
    tiny.add("braces", "@/braces.so")
    tiny.build("like.so", "libx.so", runpath="$ORIGINAL/own:$ORIGIN_/own:$OTHER/own:$ORIGIN/env")
    tiny.add("what only looks like a token", "@/like.so")
    for triplet in TRIPLETS:
        tiny.build(f"lib/{triplet}/libx.so", soname="libx.so")
    tiny.build("token_lib.so", "libx.so", runpath="$ORIGIN/$LIB")
    tiny.add("$LIB", "@/token_lib.so")
    for platform in PLATFORMS:
        tiny.build(f"{platform}/libx.so", soname="libx.so")
    tiny.build("token_platform.so", "libx.so", runpath="$ORIGIN/${PLATFORM}")
    tiny.add("$PLATFORM", "@/token_platform.so")
    tiny.build("twice.so", "libgone4.so", runpath="$ORIGIN/own:$ORIGIN/own/:$ORIGIN//own::/:$ORIGIN/env")
    tiny.add("folders named twice, and an empty one", "@/twice.so")
    tiny.add("relative", "./twice.so")
    tiny.add("relative runpath", "./top_runpath.so")
    tiny.build("bare.so", "libx.so")
    tiny.add("current folder of the environment", "@/bare.so", folder="@/own", environment={"LD_LIBRARY_PATH": "/usr:"})
    tiny.add("semicolon", "@/bare.so", environment={"LD_LIBRARY_PATH": "/usr;@/own"})
    tiny.add("empty environment", "@/bare.so", folder="@/own", environment={"LD_LIBRARY_PATH": ""})
    tiny.add("a relative folder", "@/bare.so", environment={"LD_LIBRARY_PATH": "own/"})
    tiny.add("bare name", "libx.so", environment={"LD_LIBRARY_PATH": "@/own"})
    tiny.add("bare name, missing", "libgone5.so", environment={"LD_LIBRARY_PATH": "@/own"})
    tiny.add("top missing", "@/nosuch.so")


def _wrong_files(tiny: TinyLibraries) -> None:
    good = (tiny.folder / "own/libx.so").read_bytes()

    def patched(at: int, value: bytes) -> bytes:
        return good[:at] + value + good[at + len(value) :]

    wrong = {
        "machine": patched(18, b"\x02\0"),  # SPARC
        "class": patched(4, b"\x01" if tiny.bits == 64 else b"\x02"),
        "order": patched(5, b"\x02"),
        "version": patched(6, b"\x09"),
        "osabi": patched(7, b"\x09"),
        "abi_version": patched(8, b"\x01"),
        "gnu_abi_2": patched(7, b"\x03\x02"),
        "gnu_abi_3": patched(7, b"\x03\x03"),
        "gnu_abi_4": patched(7, b"\x03\x04"),
        "abi": good,
        "padding": patched(12, b"\x09"),
        "type": patched(16, b"\x01"),
        "text": b"GROUP ( libx.so.1 AS_NEEDED ( libz.so ) ) and some more text to be long enough\n",
        "empty": b"",
        "short": good[:40],
        "header": good[:64],
        "zeros": bytes(4096),
    }
    for kind, data in wrong.items():
        (tiny.folder / f"wrong_{kind}").mkdir()
        (tiny.folder / f"wrong_{kind}/libx.so").write_bytes(data)
    for kind in ("folder", "dangling", "loop", "pie"):
        (tiny.folder / f"wrong_{kind}").mkdir()
    (tiny.folder / "wrong_folder/libx.so").mkdir()
    (tiny.folder / "wrong_dangling/libx.so").symlink_to("nosuch")
    (tiny.folder / "wrong_loop/libx.so").symlink_to("libx.so")
    subprocess.run(
        ["gcc", f"-m{tiny.bits}", "-pie", "-fPIE", "-nostdlib", "-xc", "-", "-o", "wrong_pie/libx.so"],
        input="void _start(void) {}", text=True, cwd=tiny.folder, check=True,
    )  # fmt: skip
    for kind in (*wrong, "folder", "dangling", "loop", "pie"):
        tiny.build(f"wrong_{kind}.so", "libx.so", runpath=f"$ORIGIN/wrong_{kind}:$ORIGIN/own")
        tiny.add(f"wrong {kind}", f"@/wrong_{kind}.so")
        tiny.add(f"top wrong {kind}", f"@/wrong_{kind}/libx.so")
    tiny.build("wrong_only.so", "libx.so", runpath="$ORIGIN/wrong_machine")
    tiny.add("nothing but another machine", "@/wrong_only.so")
