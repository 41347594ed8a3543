"""What is built into a glibc loader, and what it makes of this processor: asked of it, or guessed from its bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .bounded import run_bounded

_ASKED, _ASKED_LIB, _ASKED_PLATFORM = "/dlltracer", "/dlltracer-lib", "/dlltracer-platform"
_NAME = "libdlltracer-asks.so"
_SEARCH = re.compile(r"^ *\d+:\t search path=(.*)\t\t\((LD_LIBRARY_PATH|system search path)\)$", re.MULTILINE)
_SYSTEM_FOLDERS = re.compile(rb"(?:/(?:usr/)?lib[\w./-]*/\0){2,}")

_LEVELS = (
    ("x86-64-v2", "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"),
    ("x86-64-v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
    ("x86-64-v4", "avx512bw avx512cd avx512dq avx512f avx512vl"),
)
"""The levels of the x86-64 psABI, each with all below it, in the words of /proc/cpuinfo."""


@dataclass(frozen=True)
class LoaderFacts:
    """Attributes are those of `GlibcContext` by the same names."""

    system_folders: tuple[str, ...]
    subfolders: tuple[str, ...]
    lib: str | None
    platform: str | None
    notes: tuple[str, ...] = ()


def ask_loader(loader: str, program: str, tunables: str | None = None) -> LoaderFacts | None:
    """Let the loader list a program with LD_DEBUG=libs and a library to preload that is nowhere.

    Arguments: `loader`, which is run; `program`, of which nothing runs (ld.so(8), --list); `tunables`, the
    GLIBC_TUNABLES of the process in question, which can take features of the processor away.
    Returns `None` when the loader does not answer so.
    """
    asked = f"{_ASKED}:{_ASKED_LIB}/$LIB:{_ASKED_PLATFORM}/$PLATFORM"
    environment = {"LD_DEBUG": "libs", "LD_LIBRARY_PATH": asked, "LD_PRELOAD": _NAME}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    answer = run_bounded((loader, "--list", program), environment, seconds=10, stderr=True)
    return None if isinstance(answer, str) else parse_answer(answer.output)


def parse_answer(text: str) -> LoaderFacts | None:
    """Read the answer to `ask_loader`: the folders as the loader names them before it looks."""
    lines: dict[str, list[str]] = {}
    for match in _SEARCH.finditer(text):
        lines.setdefault(match[2], match[1].split(":"))
    asked = lines.get("LD_LIBRARY_PATH", [])
    if _ASKED not in asked or "system search path" not in lines:
        return None
    step = asked.index(_ASKED) + 1
    subfolders = tuple(folder.removeprefix(f"{_ASKED}/") for folder in asked[: step - 1])
    values = {}
    for folder in asked[step - 1 :: step]:
        for prefix in (_ASKED_LIB, _ASKED_PLATFORM):
            if folder.startswith(f"{prefix}/"):
                values[prefix] = folder[len(prefix) + 1 :]
    return LoaderFacts(
        tuple(lines["system search path"][step - 1 :: step]),
        subfolders,
        values.get(_ASKED_LIB),
        values.get(_ASKED_PLATFORM),
    )


def guess_facts(loader: bytes, machine: int, bits: int) -> LoaderFacts:
    """What the bytes of a loader that cannot be run tell, and /proc/cpuinfo of this machine.

    Arguments: `loader`, all of it, or nothing; `machine` and `bits` as in `ElfImage`.
    """
    notes = ["$PLATFORM is not known without running the loader: folders that name it are left out"]
    found = _SYSTEM_FOLDERS.search(loader)
    if found is not None:
        folders = tuple(part.decode().rstrip("/") for part in found[0].split(b"\0") if part)
    else:
        folders = ("/lib64", "/usr/lib64") if bits == 64 else ("/lib", "/usr/lib")
        notes.append(f"the loader does not tell its own folders: {', '.join(folders)} are assumed")
    subfolders: tuple[str, ...] = ()
    if machine == 62 and b"x86-64-v2" in loader:
        subfolders = tuple(f"glibc-hwcaps/{level}" for level in reversed(_levels_here()))
        notes.append("the processor is taken to be that of this machine")
    return LoaderFacts(folders, subfolders, folders[0].lstrip("/"), None, tuple(notes))


def _levels_here() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
            return parse_levels(stream.read())
    except OSError:
        return []


def parse_levels(cpuinfo: str) -> list[str]:
    """The x86-64 levels, lowest first, of the first processor in the text of /proc/cpuinfo."""
    match = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    levels = []
    for name, wanted in _LEVELS:
        if not flags.issuperset(wanted.split()):
            break
        levels.append(name)
    return levels
