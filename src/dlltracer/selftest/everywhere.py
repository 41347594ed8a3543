"""Questions for every system: what machine this is, and whether the tiny images are read as they were made."""

from __future__ import annotations

import os
import platform
import struct
import sys
import sysconfig
import tempfile

from .. import __version__
from ..binary.elf import read_elf
from ..binary.pe import read_pe
from ..capture.backend import BACKEND_NAMES, candidates, make_backend
from ..errors import BackendUnavailable
from ..host.failure import this_process
from ..host.machine import describe_host
from .step import MACHINES, Answer, CannotAsk, Question, Room, read_images

_ELF = {"x86_64": 62, "i386": 3, "aarch64": 183, "arm": 40, "riscv64": 243}
_PE = {"x64": 0x8664, "x86": 0x14C, "arm64": 0xAA64}
_NEEDS = {
    "needs-good": "dt_dep", "needs-missing": "dt_gone", "needs-symbol": "dt_dep", "needs-ordinal": "dt_dep",
    "needs-good-rpath": "dt_dep", "needs-good-runpath": "dt_dep", "needs-version": "dt_dep",
    "needs-good-from-system": "dt_dep", "delays-missing": "dt_gone", "needs-contract": "api-ms-win-crt-heap",
}  # fmt: skip
"""What the images need, as they are named in both formats. (needs-symbol of ELF needs a symbol and no library.)"""


def questions() -> tuple[Question, ...]:
    """Return the questions of the groups "system" and "images"."""
    return (
        Question("system", "this Python", "CPython 3.10 or later", _ask_python),
        Question("system", "this system", "its version and machine are known", _ask_system),
        Question("system", "mechanisms", "one of them can work here", _ask_mechanisms),
        Question("images", "tiny images", "each is read as it was made, whatever its machine", _ask_images),
    )


def _ask_python(room: Room) -> Answer:
    process = this_process()
    room.note("dlltracer", __version__)
    room.note("version", sys.version)
    room.note("bits", struct.calcsize("P") * 8)
    room.note("built for", sysconfig.get_platform())
    room.note("free-threaded", process.is_free_threaded)
    room.note("debug build", process.is_debug)
    room.note("kind", _kind_of_python())
    room.note("suffixes", ", ".join(process.suffixes))
    room.note("file system encoding", sys.getfilesystemencoding())
    room.note("isolated", bool(sys.flags.isolated))
    kind = f"{platform.python_implementation()} {platform.python_version()}"
    seen = f"{kind}, {struct.calcsize('P') * 8} bits, {_kind_of_python()}"
    return sys.implementation.name == "cpython" and sys.version_info >= (3, 10), seen


def _kind_of_python() -> str:
    """Who made this Python, by the signs that each leaves. Sources: PEP 405, conda's conda-meta, PEP 668, MS Store."""
    executable = sys.executable or ""
    found = []
    if sys.prefix != sys.base_prefix:
        found.append("virtual environment of")
    if os.path.isdir(os.path.join(sys.base_prefix, "conda-meta")):
        found.append("conda")
    elif "windowsapps" in executable.lower() or "windowsapps" in sys.base_prefix.lower():
        found.append("Microsoft Store")
    elif os.path.join("uv", "python") in sys.base_prefix:
        found.append("uv")
    elif ".pyenv" in sys.base_prefix:
        found.append("pyenv")
    elif any(name.endswith("._pth") for name in _names_in(os.path.dirname(executable))):
        found.append("embeddable package")
    elif sys.platform != "win32" and sys.base_prefix == "/usr":
        found.append("the system's own")
    else:
        found.append("installed")
    return " ".join(found)


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _ask_system(room: Room) -> Answer:
    host = describe_host()
    room.note("system", host.system)
    room.note("description", host.description)
    room.note("machine", host.machine)
    room.note("C library", host.c_library)
    room.note("processors", os.cpu_count())
    room.note("byte order", sys.byteorder)
    seen = ", ".join(filter(None, (host.description, host.machine, host.c_library)))
    return bool(host.machine and host.description), seen


def _ask_mechanisms(room: Room) -> Answer:
    works = []
    for name in BACKEND_NAMES:
        if name == "auto":
            continue
        try:
            found = make_backend(name).availability()
        except BackendUnavailable:
            continue  # it is of another system
        room.note(name, "available" if found.ok else f"no: {found.reason}. {found.remedy}")
        works += [name] if found.ok else []
    if not candidates():
        raise CannotAsk(f"no mechanism exists for {sys.platform}: there, dlltracer reads files and recordings only")
    return bool(works), ", ".join(works) or "none"


def _ask_images(room: Room) -> Answer:
    wrong = []
    count = 0
    with tempfile.TemporaryDirectory(dir=room.folder) as folder:
        for machine, images in read_images().items():
            for name in images:
                count += 1
                problem = _check_image(room, folder, machine, name)
                if problem:
                    wrong.append(f"{name} for {machine}: {problem}")
    for text in wrong:
        room.note("wrong", text)
    return not wrong, f"{count} images for {'; '.join(MACHINES.values())}" if not wrong else "; ".join(wrong[:3])


def _check_image(room: Room, folder: str, machine: str, name: str) -> str | None:
    """What is wrong with an image as our readers see it; `None` if nothing is."""
    path = room.place(name, folder, f"{machine}-{name}", machine=machine)
    wanted = _NEEDS.get(name)
    if machine in _PE:
        pe = read_pe(path, symbols=True)
        if pe.machine != _PE[machine] or not pe.is_dll:
            return f"machine {pe.machine:#x}"
        names = [one.library for one in pe.imports]
        exports = [export.name for export in pe.exports or ()]
    else:
        elf = read_elf(path, symbols=True)
        if elf.machine != _ELF[machine] or elf.bits != (32 if machine in ("i386", "arm") else 64):
            return f"machine {elf.machine}, {elf.bits} bits"
        names = list(elf.needed)
        exports = list(elf.symbols.provides) if elf.symbols is not None else []
        wanted = None if name == "needs-symbol" else wanted
    if [one for one in names if wanted is None or wanted not in one]:
        return f"it needs {', '.join(names)}"
    if wanted is not None and not names:
        return "it needs nothing"
    return None if name != "good" or exports == ["dt_answer"] else f"it exports {exports}"
