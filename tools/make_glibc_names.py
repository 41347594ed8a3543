"""Write the names that glibc's libraries export and musl's does not: `make_glibc_names.py TARGET LIBRARY...`.

The files are libc.so.6, libm.so.6 and libresolv.so.2 of Debian 13 (glibc 2.41). Left out are the variants of functions
for the types _FloatN and _FloatNx, which code reaches by versioned names only, and data that glibc marks as its own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dlltracer.binary.elf import read_elf
from dlltracer.knowledge import musl_names

_LEFT_OUT = re.compile(r"\w*f(?:16|32|64|128)x?(?:_[rl])?|f\d+x?\w+f\d+x?|_dl_\w+|_rtld\w*|__libc_\w+|GLIBC_\w+")


def main() -> int:
    target, *libraries = sys.argv[1:]
    names: set[str] = set()
    for library in libraries:
        symbols = read_elf(library, symbols=True).symbols
        names |= set(symbols.provides if symbols is not None else ())
    lines = sorted(name for name in names - set(musl_names()) if not _LEFT_OUT.fullmatch(name))
    head = (
        "# Names that glibc 2.41 exports and musl's libc does not (libc, libm, libresolv of Debian 13 for x86-64).\n"
        "# By tools/make_glibc_names.py.\n"
    )
    Path(target).write_text(head + "".join(f"{line}\n" for line in lines), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
