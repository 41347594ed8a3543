"""Write the names that musl's libc exports: `make_musl_names.py TARGET VERSION:MACHINE=LD-MUSL...`.

The files are those of Debian's packages: 1.2.5 for x86_64 (Debian 13), and 1.2.3 for every processor (Debian 12). The
lowest version must have x86_64, too: what the other one has more is new, and counts for all processors.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dlltracer.binary.elf import read_elf

_NEWER = {
    "gettid": "1.2.2", "reallocarray": "1.2.2", "tcgetwinsize": "1.2.2", "tcsetwinsize": "1.2.2", "_Fork": "1.2.2",
    "qsort_r": "1.2.3",
}  # fmt: skip
"""Names that came after 1.2.0 and are in the oldest of the files, with their first version: musl's file WHATSNEW."""
_OPTIONAL = {"crypt", "crypt_r", "encrypt", "setkey"}
"""Names of musl that Debian 12 leaves out."""


def _names(library: str) -> set[str]:
    symbols = read_elf(library, symbols=True).symbols
    return set(symbols.provides if symbols is not None else ())


def main() -> int:
    target, *given = sys.argv[1:]
    files = {tuple(key.split(":")): _names(path) for key, _, path in (text.partition("=") for text in given)}
    versions = sorted({version for version, _ in files})
    oldest = {machine: names for (version, machine), names in files.items() if version == versions[0]}
    newer = {
        name: version for version in reversed(versions) for name in files[version, "x86_64"] - oldest["x86_64"]
    }  # fmt: skip
    lines = []
    for name in sorted(set().union(*files.values())):
        machines = [machine for machine, names in oldest.items() if name in names]
        since = _NEWER.get(name) or (newer.get(name) if name not in _OPTIONAL else None)
        is_everywhere = name in newer or len(machines) == len(oldest)
        lines.append(" ".join([name, *([since] if since else []), *(() if is_everywhere else sorted(machines))]))
    head = (
        f"# Names that musl's libc exports ({', '.join(versions)}; Debian's packages), with the first version if that\n"
        "# is above 1.2.0, and the processors if not all have it. By tools/make_musl_names.py.\n"
    )
    Path(target).write_text(head + "".join(f"{line}\n" for line in lines), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
