"""Write what extension modules may import of Python: `make_python_api.py TARGET ABI3INFO VERSION=LIBRARY...`.

ABI3INFO is the folder of the package `abi3info` of PyPI, which has what CPython's Misc/stable_abi.toml says. LIBRARY is
a libpython, or a program that has it inside, for each version ("3.12", "3.14t"); several files of a version are put
together. The files used: CPython 3.6.15 to 3.13.0 as pyenv builds them, and the programs in the wheels of freeze-core
0.8.1 for 3.12 to 3.15 and 3.14t.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from dlltracer.binary.elf import read_elf

_API = re.compile(r"_?Py(?!Init_)")
_DEBUG_MACRO = "Py_REF_DEBUG"


def _names(library: str) -> set[str]:
    symbols = read_elf(library, symbols=True).symbols
    return {name for name in (symbols.provides if symbols is not None else ()) if _API.match(name)}


def _ranges(minors: Iterable[int], known: list[int]) -> str:
    """Return "6-9,12" for minor versions; a gap is one in the list of the known versions."""
    runs: list[list[int]] = []
    for minor in sorted(minors):
        if runs and known.index(minor) == known.index(runs[-1][-1]) + 1:
            runs[-1].append(minor)
        else:
            runs.append([minor])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) or "-"


def main() -> int:
    target, package, *given = sys.argv[1:]
    sys.path.insert(0, str(Path(package).parent))
    abi3info = importlib.import_module("abi3info")
    stable = {
        symbol.name: entry for table in (abi3info.FUNCTIONS, abi3info.DATAS) for symbol, entry in table.items()
    }  # fmt: skip
    exports: dict[str, set[str]] = {}
    for text in given:
        version, _, path = text.partition("=")
        exports.setdefault(version.removeprefix("3."), set()).update(_names(path))
    known = sorted(int(version) for version in exports if version.isdecimal())
    free_threaded = set().union(*(names for version, names in exports.items() if version.endswith("t")))
    lines = []
    for name in sorted({*stable, *set().union(*exports.values())}):
        entry = stable.get(name)
        added = "-" if entry is None else str(entry.added.minor)
        minors = [minor for minor in known if name in exports[str(minor)]]
        marks = "t" if name in free_threaded else "-"
        if entry is not None and entry.ifdef is not None:
            marks += "d" if entry.ifdef.name == _DEBUG_MACRO else "w" if not minors else ""
        lines.append(f"{name} {added} {_ranges(minors, known)} {marks}\n")
    head = (
        "# What extension modules may import of CPython: name; the 3.x that put it into the stable ABI; the 3.x that\n"
        '# export it (Linux); "t" where the free-threaded 3.14 does, too, "d" for debug builds only, "w" for Windows.\n'
        f"# Versions looked at: {_ranges(known, known)}. By tools/make_python_api.py.\n"
    )
    Path(target).write_text(head + "".join(lines), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
