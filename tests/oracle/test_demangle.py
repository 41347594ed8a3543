"""Our reading of C++ symbols against c++filt of binutils, over every mangled name of the C++ libraries here."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlltracer.diagnose.mangled import demangle

if sys.platform != "linux":
    pytest.skip("reads the C++ libraries of a Linux system", allow_module_level=True)

FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
LIBRARIES = {
    "libstdc++.so.6": 1.0, "libLLVM*.so*": 0.99, "libicui18n.so*": 0.99, "libabsl_*.so*": 0.98, "libprotobuf.so*": 0.98,
    "libboost_regex.so*": 0.98, "libapt-pkg.so*": 0.98,
}  # fmt: skip
"""A pattern of names, and the least share of their symbols that has to be read."""

for tool in ("nm", "c++filt"):
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} on this machine (binutils)", allow_module_level=True)


def mangled_names(pattern: str) -> list[str]:
    """Sorted, without symbol versions; none if the machine has no such library."""
    names: set[str] = set()
    for path in {found.resolve() for folder in FOLDERS for found in Path(folder).glob(pattern)}:
        listed = subprocess.run(["nm", "-D", path], capture_output=True, text=True, check=True).stdout
        names.update(word for line in listed.splitlines() if (word := line.split()[-1].split("@")[0]).startswith("_Z"))
    return sorted(names)


def declarations(names: list[str]) -> list[str | None]:
    """What c++filt prints; `None` where it cannot read a name and prints it as it is."""
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [None if text == name else text for name, text in zip(names, done.stdout.splitlines(), strict=True)]


def disagreements(names: list[str]) -> tuple[list[tuple[str, str | None, str]], float]:
    """Where we print another text than c++filt, and the share of names that we read."""
    ours = [demangle(name) for name in names]
    theirs = declarations(names)
    wrong = [(n, t, o) for n, t, o in zip(names, theirs, ours, strict=True) if o is not None and o != t]
    return wrong, sum(text is not None for text in ours) / len(names)


@pytest.mark.parametrize("pattern", LIBRARIES)
def test_never_another_text_than_binutils(pattern: str) -> None:
    names = mangled_names(pattern)
    if not names:
        pytest.skip(f"no {pattern} on this machine")
    sample = random.Random(1).sample(names, min(len(names), 12_000))
    wrong, read = disagreements(sample)
    assert wrong == []
    assert read >= LIBRARIES[pattern]


def test_damaged_names() -> None:
    """What binutils reads otherwise is refused. (It refuses a few that follow the grammar and mean nothing.)"""
    names = mangled_names("libstdc++.so.6")
    if not names:
        pytest.skip("no libstdc++ on this machine")
    choose = random.Random(5)
    damaged = []
    for _ in range(6000):
        name, other = choose.choice(names), choose.choice(names)
        cut, then = choose.randrange(2, len(name)), choose.randrange(2, len(other))
        damaged.append(choose.choice((name[:cut], name[:cut] + choose.choice("NIEJSTPRKZ0v_") + name[cut + 1 :],
                                      name[:cut] + other[then:])))  # fmt: skip
    wrong, read = disagreements(damaged)
    assert [entry for entry in wrong if entry[1] is not None] == []
    assert read > 0.1
