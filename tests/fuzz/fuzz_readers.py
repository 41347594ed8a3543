"""Any bytes give a value or one typed error, in bounded time: the readers and the resolver, fed with damaged files.

With atheris (`pip install atheris`), guided by coverage: `python tests/fuzz/fuzz_readers.py --atheris`.
Without it, seeded mutations of built files: `python tests/fuzz/fuzz_readers.py --seconds 600 --seed 1`, which prints
its counts. `test_fuzz.py` runs the latter for some seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders.elf_file import ElfFile, Symbol, need
from builders.pe_file import Export, build_pe, build_version
from dlltracer.binary.elf import parse_elf
from dlltracer.binary.loader_data import decode_api_set_map, parse_ld_cache
from dlltracer.binary.pe import parse_pe
from dlltracer.binary.reading import describe_not_image
from dlltracer.errors import BinaryFormatError

SLOWEST = 2.0
"""Seconds of processor time that one input of some kB may take."""
_NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


def seeds() -> dict[str, tuple[Callable[[bytes], object], list[bytes]]]:
    """Return, by name, what is fuzzed and the files that its inputs are made of."""
    elf = [
        ElfFile(
            bits=bits, little=little, hash=hashed, needed=("libc.so.6", "libm.so.6"), soname="libx.so.1",
            rpath="/opt/lib", runpath="$ORIGIN/../lib", interpreter="/lib/ld.so", version_defs=("X_1", "X_2"),
            version_needs=(("libm.so.6", "GLIBC_2.29", True),), relative=3,
            symbols=(need("printf", "GLIBC_2.2.5", "libc.so.6"), Symbol("own", "X_1"), Symbol("other")),
        ).build()
        for bits in (32, 64) for little in (True, False) for hashed in ("gnu", "sysv")
    ]  # fmt: skip
    pe = [
        build_pe(
            {"a.dll": ("f", 3), "b.dll": ("g",)}, ("x", Export("y", forwarder="c.z"), Export(ordinal=9)),
            machine=machine, delayed={"late.dll": ("h",)}, manifest="<assembly/>", version=build_version(),
            dependent_load_flags=0x800,
        )
        for machine in (0x14C, 0x8664)
    ]  # fmt: skip
    cache = b"glibc-ld.so.cache1.1" + (2).to_bytes(4, "little") + (60).to_bytes(4, "little") + b"\2" + bytes(19)
    rows = b"".join(
        numbers.to_bytes(4, "little") for numbers in (0x303, 96, 106, 0, 0, 0, 0x303, 96, 106, 0, 0, 1 << 30)
    )
    return {
        "elf": (lambda data: parse_elf(data, symbols=True), elf),
        "pe": (lambda data: parse_pe(data, symbols=True, resources=True), pe),
        "ld.so.cache": (parse_ld_cache, [cache + rows + b"libx.so.1\0/lib/libx.so.1\0".ljust(60, b"\0")]),
        "api sets": (decode_api_set_map, [bytes(28), b"\6\0\0\0\x80\0\0\0" + bytes(120)]),
        "kind of file": (describe_not_image, [b"version https://git-lfs.github.com/spec/v1\n", b"libx.so.1"]),
    }


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return a damaged copy: bytes changed, numbers of usual trouble put in, parts cut, doubled or moved."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 8, 30))):
        at = chance.randrange(len(found) or 1)
        kind = chance.randrange(6)
        if kind == 0:
            found[at : at + 1] = bytes((chance.randrange(256),))
        elif kind == 1:
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice(_NUMBERS) & ((1 << 8 * size) - 1)
            found[at : at + size] = number.to_bytes(size, chance.choice(("little", "big")))
        elif kind == 2:
            found[at:] = b"" if chance.random() < 0.2 else found[at:]
        elif kind == 3:
            other, size = chance.randrange(len(found) or 1), chance.randrange(64)
            found[at : at + size] = found[other : other + size]
        elif kind == 4 and found:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 5:
            found[at:at] = found[at : at + chance.randrange(32)]
    return bytes(found)


def try_one(parse: Callable[[bytes], object], data: bytes) -> str:
    """Return what became of an input. Raises what is no `BinaryFormatError`, and `TimeoutError` when it is slow."""
    start = time.process_time()
    try:
        parse(data)
        outcome = "read"
    except BinaryFormatError:
        outcome = "refused"
    if time.process_time() - start > SLOWEST:
        raise TimeoutError(f"{len(data)} bytes took {time.process_time() - start:.1f} s")
    return outcome


def run(seconds: float, seed: int) -> dict[str, Counter[str]]:
    """Mutate for some seconds of wall time, and return the counts. Raises at the first input that is not handled."""
    chance = random.Random(seed)
    kinds = seeds()
    counts: dict[str, Counter[str]] = {name: Counter() for name in kinds}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, (parse, files) in kinds.items():
            data = mutate(chance.choice(files), chance)
            try:
                counts[name][try_one(parse, data)] += 1
            except Exception as error:
                raise AssertionError(f"{name}, seed {seed}: {data.hex()[:200]}...") from error
    return counts


def run_atheris() -> None:
    """Let atheris choose the inputs; it ends at the first crash, or by its own options."""
    import atheris  # type: ignore[import-not-found, unused-ignore]

    kinds = [parse for parse, _ in seeds().values()]
    atheris.instrument_all()
    atheris.Setup(sys.argv[:1], lambda data: try_one(kinds[data[0] % len(kinds)], data[1:]) if data else None)
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args(arguments)
    if options.atheris:
        run_atheris()
    else:
        print(json.dumps(run(options.seconds, options.seed), indent=1))


if __name__ == "__main__":
    main()
