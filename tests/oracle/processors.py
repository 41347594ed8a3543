"""Programs for other processors, by qemu-user, and Debian's packages for them unpacked without running anything.

qemu is registered in a user namespace that has a binfmt_misc of its own (Linux 6.7 and later): the table of
interpreters of the machine stays as it is, and root is not needed. With the flag F the kernel opens qemu when it is
registered, so that nothing of qemu has to be in the root (Documentation/admin-guide/binfmt-misc.rst of Linux).
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ENTER = ("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private")

IN_FOREIGN_ROOT = """
root=$1; shared=$2; portable=$3; interpreter=$4; shift 4
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf %s "$interpreter" > /proc/sys/fs/binfmt_misc/register
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$shared" "$root/mnt"
test -z "$portable" || mount --bind "$portable" "$root/opt"
cd "$root"
exec chroot . "$@"
"""
"""The machine's own /proc: a new one would need a process namespace, in which processes have other numbers."""

APT = """\
Dir "{home}/";
Dir::State::status "{home}/status";
Dir::Etc::sourceparts "-";
Dir::Etc::parts "-";
Dir::Etc::main "-";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
"""

BASE = ("base-files", "libc-bin")
"""What everything stands on and nothing depends on: folders and links; ldconfig and its settings."""


@dataclass(frozen=True)
class Processor:
    """A processor that is not this machine's.

    Attributes: `name`, as qemu calls it; `architecture`, as Debian does; `bits`, `little_endian` and `machine` of its
    ELF files, as in `ElfImage`; `environment`, for its qemu.
    """

    name: str
    architecture: str
    bits: int
    little_endian: bool
    machine: int
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    def interpreter_line(self, qemu: str) -> str:
        """The line for binfmt_misc: programs, fixed and movable, of this class, byte order and machine.

        P: qemu gets argv[0] as it was given. F: qemu is opened now, and not looked for in the root.
        """
        order = "little" if self.little_endian else "big"
        head = b"\x7fELF" + bytes((self.bits // 32, 1 if self.little_endian else 2, 1, 0)) + bytes(8)
        magic = head + (2).to_bytes(2, order) + self.machine.to_bytes(2, order)
        # Any EI_OSABI; ET_EXEC is 2 and ET_DYN is 3.
        kind = 0xFFFE.to_bytes(2, order)
        mask = bytes((*b"\xff" * 7, 0, *b"\xff" * 8)) + kind + b"\xff\xff"
        texts = ["".join(f"\\x{byte:02x}" for byte in part) for part in (magic, mask)]
        return f":qemu-{self.name}:M::{texts[0]}:{texts[1]}:{qemu}:PF"

    def find_qemu(self) -> str | None:
        """The path of the statically linked qemu for it."""
        return shutil.which(f"qemu-{self.name}-static")


PAUTH = {"QEMU_CPU": "max,pauth-impdef=on"}
"""Debian 13 signs return addresses on arm64. By default qemu computes the architecture's own cipher for each: a Python
then needs ten times as long to start."""

PROCESSORS = {
    "arm64": Processor("aarch64", "arm64", 64, True, 183, PAUTH),
    "armhf": Processor("arm", "armhf", 32, True, 40),
    "i386": Processor("i386", "i386", 32, True, 3),
    "riscv64": Processor("riscv64", "riscv64", 64, True, 243),
}


@functools.cache
def find_obstacle(processor: Processor) -> str | None:
    """Why programs for that processor cannot be run here; `None` if they can."""
    missing = [tool for tool in ("unshare", "chroot", "apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)} on this machine"
    qemu = processor.find_qemu()
    if qemu is None:
        return f"no qemu-{processor.name}-static on this machine (Debian's qemu-user-static has it)"
    script = IN_FOREIGN_ROOT.partition("mount --rbind")[0]
    command = [*ENTER, "sh", "-euc", script, "sh", "", "", "", processor.interpreter_line(qemu)]
    tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no binfmt_misc of its own for a user namespace (Linux 6.7 has it): {tried.stderr.strip()}"
    return None


def enter_command(processor: Processor, root: Path, shared: Path | None, portable: Path | None) -> list[str]:
    """What goes before a command to run it in a root for that processor, with `shared` as /mnt."""
    line = processor.interpreter_line(processor.find_qemu() or "")
    places = [str(root), str(shared or root / "mnt"), str(portable or "")]
    return [*ENTER, "sh", "-euc", IN_FOREIGN_ROOT, "sh", *places, line]


def unpack_root(
    processor: Processor, suite: str, packages: Sequence[str], mirror: str, folder: Path,
    run: Callable[[Sequence[str | Path]], None],
) -> None:  # fmt: skip
    """Make a root of Debian packages and what they depend on.

    No script of a package runs, which by qemu takes minutes; ldconfig does, since its cache differs by processor.
    """
    home = folder.with_name(f"{folder.name}.apt")
    shutil.rmtree(home, ignore_errors=True)
    try:
        _download(processor, suite, packages, mirror, home, run)
        for part in ("usr/bin", "usr/sbin", "usr/lib", "proc", "dev", "mnt", "opt", "etc"):
            (folder / part).mkdir(parents=True)
        for part in ("bin", "sbin", "lib", *(("lib64",) if processor.bits == 64 else ())):
            (folder / "usr" / part).mkdir(exist_ok=True)
            (folder / part).symlink_to(f"usr/{part}")
        unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"'
        for package in sorted((home / "var/cache/apt/archives").glob("*.deb")):
            run(["sh", "-euc", unpack, "sh", package, folder])
    finally:
        shutil.rmtree(home, ignore_errors=True)
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    run([*enter_command(processor, folder, None, None), "/sbin/ldconfig"])
    for library in (folder / "usr/lib").glob("python3.*"):
        compile_bytecode(library, folder, "/", library.name)


def compile_bytecode(source: Path, folder: Path, name: str, wanted: str | None = None) -> None:
    """Compile the Python files below `source`, part of a `folder` that has that name inside, if the Python is here.

    By qemu the Python inside would need most of a minute for what dlltracer imports. `wanted`, such as "python3.13",
    is by default the Python that runs this.
    """
    own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    python = sys.executable if wanted in (None, own) else shutil.which(wanted)
    if python is not None:
        command = [python, "-m", "compileall", "-q", "-s", str(folder), "-p", name, str(source)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _download(
    processor: Processor, suite: str, packages: Sequence[str], mirror: str, home: Path,
    run: Callable[[Sequence[str | Path]], None],
) -> None:  # fmt: skip
    """Let apt fetch the packages and all that they depend on, with settings and lists of its own in `home`."""
    for part in ("etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (home / part).mkdir(parents=True)
    (home / "status").touch()
    (home / "apt.conf").write_text(APT.format(home=home, architecture=processor.architecture))
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (home / "etc/apt/sources.list").write_text(f"deb [signed-by={keyring}] {mirror} {suite} main\n")
    apt = ["env", f"APT_CONFIG={home}/apt.conf", "apt-get", "-q", "-y", "-o", "Dir::Bin::methods=/usr/lib/apt/methods"]
    run([*apt, "update"])
    run([*apt, "--download-only", "install", *BASE, *packages])
