"""What reading a PE or ELF file costs, next to LIEF, pyelftools and pefile.

Each sample is a new process that reads the whole corpus with one reader: its processor time, and the most memory that
it had, beyond that of a bare Python. The readers take turns; printed are medians, and each reader's ratio to our own.
"names" is what a search needs: the libraries asked for, and where to look; "full" adds all symbols with their versions,
and what the resources of a PE file say. All of it is looked at, as some readers make values when they are asked for.
Where another reader has no short way to a fact (versions in pyelftools), it is left out there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Read = Callable[[str], object]
PLACES = (sysconfig.get_path("platlib"), "/usr/lib")
MAGIC = {"elf": b"\x7fELF", "pe": b"MZ"}
IMPORTS = {
    "dlltracer": "dlltracer.binary.elf, dlltracer.binary.pe",
    "lief": "lief",
    "pyelftools": "elftools.elf.elffile",
    "pefile": "pefile",
}


def own_elf(full: bool) -> Read:
    from dlltracer.binary.elf import read_elf

    def read(path: str) -> object:
        image = read_elf(path, symbols=full)
        if not full:
            return image.needed
        needs = list(zip(image.symbols.needs.names, image.symbols.needs.versions, strict=True))
        return image.needed, needs, list(image.symbols.provides.items())

    return read


def lief_elf(full: bool) -> Read:
    import lief

    config = lief.ELF.ParserConfig()
    config.parse_symtab_symbols = config.parse_notes = config.parse_overlay = False
    config.parse_relocations = config.parse_dyn_symbols = config.parse_symbol_versions = full

    def read(path: str) -> object:
        binary = lief.ELF.parse(path, config)
        if not full:
            return binary.libraries
        # Its values are made when they are looked at.
        symbols = [(one.name, _lief_version(one), one.shndx, one.binding) for one in binary.dynamic_symbols]
        used = [one.symbol.name for one in binary.dynamic_relocations if one.has_symbol]
        return binary.libraries, symbols, used

    return read


def _lief_version(symbol: Any) -> str | None:
    version = symbol.symbol_version if symbol.has_version else None
    return version.symbol_version_auxiliary.name if version and version.has_auxiliary_version else None


def pyelftools_elf(full: bool) -> Read:
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile
    from elftools.elf.relocation import RelocationSection

    def read(path: str) -> object:
        with open(path, "rb") as stream:
            file = ELFFile(stream)
            segment = next((one for one in file.iter_segments() if isinstance(one, DynamicSegment)), None)
            if segment is None:
                return None
            needed = [tag.needed for tag in segment.iter_tags("DT_NEEDED")]
            if not full:
                return needed
            symbols = [(one.name, one["st_shndx"]) for one in segment.iter_symbols()]
            tables = (s for s in file.iter_sections() if isinstance(s, RelocationSection) and s["sh_flags"] & 2)
            return needed, symbols, {one["r_info_sym"] for table in tables for one in table.iter_relocations()}

    return read


def own_pe(full: bool) -> Read:
    from dlltracer.binary.pe import read_pe

    def read(path: str) -> object:
        image = read_pe(path, symbols=full, resources=full)
        if not full:
            return [(need.library, need.delayed) for need in image.imports]
        needs = [(one.library, one.delayed, [*one.symbols.names], [*one.symbols.ordinals]) for one in image.imports]
        exports = list(zip(image.exports.ordinals, image.exports.names, image.exports.forwarders, strict=True))
        return needs, exports, image.dependent_load_flags, image.resources

    return read


def lief_pe(full: bool) -> Read:
    import lief

    config = lief.PE.ParserConfig()
    config.parse_signature = config.parse_reloc = config.parse_exceptions = False
    config.parse_exports = config.parse_rsrc = full

    def read(path: str) -> object:
        binary = lief.PE.parse(path, config)
        tables = ((binary.imports, False), (binary.delay_imports, True))
        if not full:
            return [(one.name, delayed) for table, delayed in tables for one in table]
        needs = [
            (one.name, delayed, [each.ordinal if each.is_ordinal else each.name for each in one.entries])
            for table, delayed in tables
            for one in table
        ]
        exports = [
            (one.ordinal, one.name, str(one.forward_information) if one.is_forwarded else None)
            for one in (binary.get_export().entries if binary.has_exports else ())
        ]
        flags = binary.load_configuration.dependent_load_flags if binary.has_configuration else None
        return needs, exports, flags, _lief_resources(binary)

    return read


def _lief_resources(binary: Any) -> object:
    if not binary.has_resources:
        return None
    manager = binary.resources_manager
    fixed, strings = None, []
    for version in manager.version if manager.has_version else ():
        info = version.file_info
        fixed = info.file_version_ms, info.file_version_ls, info.product_version_ms, info.product_version_ls
        for table in version.string_file_info.children if version.string_file_info else ():
            strings += [(entry.key, entry.value) for entry in table.entries]
    return fixed, strings, manager.manifest if manager.has_manifest else None


def pefile_pe(full: bool, *, raised: bool = False) -> Read:
    import pefile

    most = pefile.MAX_SYMBOL_EXPORT_COUNT
    if raised:
        most = 1 << 20
        pefile.MAX_IMPORT_SYMBOLS = most
        pefile.MAX_SYMBOL_NAME_LENGTH = pefile.MAX_IMPORT_NAME_LENGTH = 1 << 16
    entries = pefile.DIRECTORY_ENTRY
    wanted = [entries["IMAGE_DIRECTORY_ENTRY_IMPORT"], entries["IMAGE_DIRECTORY_ENTRY_DELAY_IMPORT"]]
    if full:
        wanted += [entries["IMAGE_DIRECTORY_ENTRY_EXPORT"], entries["IMAGE_DIRECTORY_ENTRY_RESOURCE"]]
        wanted += [entries["IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG"]]

    def read(path: str) -> object:
        file = pefile.PE(path, fast_load=True, max_symbol_exports=most)
        try:
            file.parse_data_directories(wanted, import_dllnames_only=not full)
            tables = [getattr(file, f"DIRECTORY_ENTRY_{name}", ()) for name in ("IMPORT", "DELAY_IMPORT")]
            if not full:
                return [one.dll for table in tables for one in table]
            libraries = [one for table in tables for one in table]
            needs = [(one.dll, [each.name or each.ordinal for each in one.imports]) for one in libraries]
            table = getattr(file, "DIRECTORY_ENTRY_EXPORT", None)
            exports = [(one.ordinal, one.name, one.forwarder) for one in table.symbols] if table else []
            return needs, exports, getattr(file, "FileInfo", None)
        finally:
            file.close()

    return read


def raised_pefile_pe(full: bool) -> Read:
    return pefile_pe(full, raised=True)


READERS: dict[str, dict[str, Callable[[bool], Read]]] = {
    "elf": {"own": own_elf, "LIEF, least parsing": lief_elf, "pyelftools": pyelftools_elf},
    "pe": {
        "own": own_pe, "LIEF, least parsing": lief_pe, "pefile": pefile_pe, "pefile, limits raised": raised_pefile_pe,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One reader over the corpus; `ratio` is the median, over the rounds, of its time to our own."""

    format: str
    record: str
    reader: str
    ms_per_file: float
    ratio: float
    peak_mb: float
    failed: int


def sample(kind: str, record: str, reader: str, listing: str) -> None:
    """In the child: read every file of the listing, print what it took."""
    import resource

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    bare = peak()
    read = READERS[kind][reader](record == "full")
    paths = Path(listing).read_text().splitlines()
    read(paths[0])
    failed = 0
    start = time.process_time()
    for path in paths:
        try:
            read(path)
        except Exception:  # noqa: BLE001 - other readers have no common error
            failed += 1
    elapsed = time.process_time() - start
    print(json.dumps([elapsed, peak() - bare, failed]))


def measure(kind: str, record: str, listing: str, rounds: int) -> list[Row]:
    samples: dict[str, list[tuple[float, float, int]]] = {}
    for number in range(rounds + 1):
        names = list(READERS[kind])
        for reader in names if number % 2 else reversed(names):
            command = [sys.executable, __file__, "--sample", kind, record, reader, listing]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                print(f"{kind}, {reader}: {run.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            elif number:  # the first round brings the files into the page cache
                samples.setdefault(reader, []).append(json.loads(run.stdout))
    count = len(Path(listing).read_text().splitlines())
    own = samples.get("own")
    return [
        Row(
            kind, record, reader,
            statistics.median(one[0] for one in found) / count * 1000,
            statistics.median(a[0] / b[0] for a, b in zip(found, own, strict=True)) if own else float("nan"),
            max(one[1] for one in found),
            found[0][2],
        )
        for reader, found in samples.items()
    ]  # fmt: skip


def collect(folders: Sequence[str], kind: str) -> list[str]:
    """The files of a kind, links left out."""
    found = []
    suffixes = (".dll", ".pyd") if kind == "pe" else (".so",)
    for place in folders:
        for folder, _, names in os.walk(place):
            for name in names:
                path = f"{folder}/{name}"
                if any(suffix in name.lower() for suffix in suffixes) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        if file.read(4).startswith(MAGIC[kind]):
                            found.append(path)
    return sorted(found)


def import_times(rounds: int) -> dict[str, float]:
    """Milliseconds that importing a library adds to a bare Python: medians."""

    def elapsed(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return (time.perf_counter() - start) * 1000

    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for library, modules in IMPORTS.items():
            try:
                times.setdefault(library, []).append(elapsed(f"import {modules}") - elapsed("pass"))
            except subprocess.CalledProcessError:
                continue
    return {library: statistics.median(found) for library, found in times.items() if found}


def table(rows: Sequence[Row]) -> str:
    lines = [f"{'':<12} {'reader':<22} {'ms a file':>9}  {'own = 1':>7}  {'peak MB':>7}  {'failed':>6}"]
    for row in sorted(rows, key=lambda row: (row.format, row.record, row.ratio)):
        lines.append(
            f"{row.format + ', ' + row.record:<12} {row.reader:<22} {row.ms_per_file:9.3f}  {row.ratio:7.1f}"
            f"  {row.peak_mb:7.0f}  {row.failed:6}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="*", help="folders with the corpus (default: site-packages and /usr/lib)")
    parser.add_argument("--rounds", type=int, default=3, help="samples for each reader (default 3)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers there too")
    parser.add_argument("--sample", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sample:
        sample(*options.sample)
        return
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1] / "src")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in READERS:
            paths = collect(options.folder or PLACES, kind)
            if not paths:
                continue
            listing = Path(scratch, kind)
            listing.write_text("\n".join(paths))
            print(f"{kind}: {len(paths)} files, {sum(map(os.path.getsize, paths)) / 1e6:.0f} MB", flush=True)
            for record in ("names", "full"):
                rows += measure(kind, record, str(listing), options.rounds)
    print(table(rows))
    times = import_times(10)
    print("import, ms: " + ", ".join(f"{library} {found:.0f}" for library, found in times.items()))
    if options.json:
        options.json.write_text(json.dumps({"rows": [asdict(row) for row in rows], "imports": times}, indent=1) + "\n")


if __name__ == "__main__":
    main()
