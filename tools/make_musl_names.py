"""Write the names that musl's libc exports, one a line: `make_musl_names.py LD-MUSL TARGET`."""

from __future__ import annotations

import sys
from pathlib import Path

from dlltracer.binary.elf import read_elf


def main() -> int:
    library, target = sys.argv[1:]
    symbols = read_elf(library, symbols=True).symbols
    names = sorted(symbols.provides if symbols is not None else ())
    head = "# Names that musl's libc exports (1.2.5, x86-64; Debian 13, package musl). By tools/make_musl_names.py.\n"
    Path(target).write_text(head + "".join(f"{name}\n" for name in names), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
