"""The PE reader against LIEF, pefile, objdump and Wine's loader, on files of three linkers and of our own builder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from builders.pe_file import AMD64, ARM64, I386, Export, build_manifest, build_pe, build_version
from dlltracer.binary.pe import read_pe
from windows.lab import COMPILER, Lab

OBJDUMP = "x86_64-w64-mingw32-objdump"
WINE = Path("/usr/lib/x86_64-linux-gnu/wine")
PYTHON = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlltracer-lab" / "python-3.11"

DEFINITIONS = """
LIBRARY exporter.dll
EXPORTS
  by_name @5
  by_number @9 NONAME
  another_name = by_name
  forwarded = kernel32.Sleep
  forwarded_number = kernel32.Beep @12 NONAME
"""


@dataclass
class Tables:
    """Imports as library, delayed, symbols (an ordinal as a number); exports as ordinal, name, forwarder."""

    imports: list[tuple[str, bool, tuple[str | int, ...]]] = field(default_factory=list)
    exports: Counter[tuple[int, str | None, str | None]] = field(default_factory=Counter)


def by_us(path: Path) -> Tables:
    image = read_pe(str(path), symbols=True)
    imports = [
        (need.library, need.delayed, tuple(s.ordinal if s.name is None else s.name for s in need.symbols or ()))
        for need in image.imports
    ]
    assert [(need.library, need.delayed) for need in read_pe(str(path)).imports] == [found[:2] for found in imports]
    return Tables(imports, Counter((e.ordinal, e.name, e.forwarder) for e in image.exports or ()))


@pytest.fixture(scope="module")
def lief() -> ModuleType:
    module: ModuleType = pytest.importorskip("lief", reason="LIEF is not installed")
    module.logging.disable()
    return module


@pytest.fixture(scope="module")
def pefile() -> ModuleType:
    """pefile without the limits at which it leaves out symbols in silence."""
    module: ModuleType = pytest.importorskip("pefile", reason="pefile is not installed")
    for limit in ("MAX_SYMBOL_NAME_LENGTH", "MAX_IMPORT_NAME_LENGTH", "MAX_DLL_LENGTH", "MAX_STRING_LENGTH"):
        setattr(module, limit, 1 << 20)
    for limit in ("MAX_SYMBOL_EXPORT_COUNT", "MAX_IMPORT_SYMBOLS", "MAX_REPEATED_ADDRESSES"):
        setattr(module, limit, 1 << 20)
    module.is_valid_function_name = lambda name, relax_allowed_characters=False: True  # type: ignore[attr-defined]
    module.is_valid_dos_filename = lambda name: True  # type: ignore[attr-defined]
    return module


def parse_with_lief(lief: ModuleType, path: Path) -> Any:
    config = lief.PE.ParserConfig()
    config.parse_signature = config.parse_reloc = config.parse_exceptions = False
    return lief.PE.parse(str(path), config)


def by_lief(image: Any) -> Tables:
    found = Tables()
    for delayed, needs in ((False, image.imports), (True, image.delay_imports)):
        for need in needs:
            symbols = tuple(entry.ordinal if entry.is_ordinal else entry.name for entry in need.entries)
            found.imports.append((need.name, delayed, symbols))
    for entry in image.get_export().entries if image.has_exports else ():
        target = entry.forward_information
        forwarder = f"{target.library}.{target.function}" if entry.is_forwarded else None
        found.exports[entry.ordinal, entry.name or None, forwarder] += 1
    return found


def by_pefile(pefile: ModuleType, path: Path) -> tuple[Any, Tables]:
    image = pefile.PE(str(path), fast_load=True)
    image.parse_data_directories([0, 1, 2, 13])
    found = Tables()
    for delayed, attribute in ((False, "DIRECTORY_ENTRY_IMPORT"), (True, "DIRECTORY_ENTRY_DELAY_IMPORT")):
        for need in getattr(image, attribute, ()):
            # Where an ordinal of WS2_32 or OLEAUT32 is imported, pefile puts the name that it knows for it.
            symbols = tuple(s.ordinal if s.import_by_ordinal else s.name.decode() for s in need.imports)
            found.imports.append((need.dll.decode(), delayed, symbols))
    table = getattr(image, "DIRECTORY_ENTRY_EXPORT", None)
    for entry in table.symbols if table else ():
        name, forwarder = (text.decode() if text else None for text in (entry.name, entry.forwarder))
        found.exports[entry.ordinal, name, forwarder] += 1
    image.close()
    return image, found


def by_objdump(path: Path) -> tuple[dict[str, list[str | int]], list[str]]:
    """What objdump shows: symbols by library (not the delayed ones), and the names of exports."""
    return parse_objdump(subprocess.run([OBJDUMP, "-p", path], capture_output=True, text=True, check=True).stdout)


def parse_objdump(shown: str) -> tuple[dict[str, list[str | int]], list[str]]:
    """The same from the text. A row of binutils 2.40 (Debian 12) has a hint or a hexadecimal ordinal, and the name; one
    of 2.44 (Debian 13) a decimal ordinal, a hint, and the name."""
    imports: dict[str, list[str | int]] = {}
    blocks = re.split(r"\n\tDLL Name: ", shown)
    for block in blocks[1:]:
        library, _, rest = block.partition("\n")
        symbols = imports.setdefault(library, [])
        header, *lines = rest.partition("\n\n")[0].splitlines()
        for line in lines:
            _, *columns = line.split()
            if " Ordinal " in header:
                symbols.append(columns[2] if columns[0] == "<none>" else int(columns[0]))
            else:
                symbols.append(int(columns[0], 16) if columns[1] == "<none>" else columns[1])
    names = re.findall(
        r"^\t\[ *\d+\](?: \+base\[ *\d+\])?(?:  ?[0-9a-f]{4})? (\S+)$",
        blocks[-1].partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0],
        re.MULTILINE,
    )
    return imports, names


def images_in(folder: Path) -> list[Path]:
    endings = {".dll", ".pyd", ".exe", ".drv", ".ocx", ".cpl"}
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings)


@pytest.fixture(scope="module")
def python_files(request: pytest.FixtureRequest) -> list[Path]:
    """CPython for Windows and its DLLs: the linker of Visual C++."""
    if not PYTHON.exists():
        request.getfixturevalue("lab")
    return images_in(PYTHON)


@pytest.fixture(scope="module")
def wine_files() -> list[Path]:
    files = [path for folder in ("x86_64-windows", "i386-windows") for path in images_in(WINE / folder)][::6]
    if not files:
        pytest.skip(f"no DLLs of Wine in {WINE}")
    return files


@pytest.fixture(scope="module")
def mingw_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A DLL with ordinals, forwarders and names that are only numbers; another that imports from it by both."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no {COMPILER} on this machine")
    folder = tmp_path_factory.mktemp("mingw")
    (folder / "exporter.c").write_text("int by_name(void) { return 1; } int by_number(void) { return 2; }")
    (folder / "exporter.def").write_text(DEFINITIONS)
    (folder / "importer.c").write_text(
        "int by_name(void), by_number(void); int f(void) { return by_name() + by_number(); }"
    )
    for command in (
        "-o exporter.dll exporter.c exporter.def -Wl,--out-implib,exporter.a",
        "-o importer.dll importer.c exporter.a",
        "-s -o stripped.dll importer.c exporter.a",
    ):
        subprocess.run([COMPILER, "-shared", *command.split()], cwd=folder, check=True)
    return sorted(folder.glob("*.dll"))


@pytest.fixture(scope="module")
def built_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("built")
    for machine in (AMD64, I386, ARM64):
        (folder / f"{machine:x}.dll").write_bytes(
            build_pe(
                {"kernel32.dll": ["Sleep", "Beep"], "ws2_32.dll": [3, "send"]},
                ["f", Export("g", forwarder="other.h"), Export(ordinal=20)],
                machine=machine,
                delayed={"late.dll": ["x", 4], "later.dll": ["y"]},
                manifest=build_manifest("Microsoft.VC90.CRT"),
                version=build_version(strings={"040904b0": {"CompanyName": "Nobody", "FileDescription": "ö"}}),
                dependent_load_flags=0x1000,
                is_hybrid=True,
            )
        )
    return sorted(folder.iterdir())


@pytest.fixture(params=["python_files", "wine_files", "mingw_files", "built_files"])
def files(request: pytest.FixtureRequest) -> list[Path]:
    result: list[Path] = request.getfixturevalue(request.param)
    assert result
    return result


def test_lief_sees_the_same(lief: ModuleType, files: list[Path]) -> None:
    for path in files:
        image, ours = parse_with_lief(lief, path), by_us(path)
        theirs = by_lief(image)
        assert ours.imports == theirs.imports, path
        # LIEF takes the forwarder of an export without a name for its name.
        judged = Counter(
            (number, forwarder, None) if name is None and forwarder else (number, name, forwarder)
            for number, name, forwarder in ours.exports.elements()
        )
        assert judged == theirs.exports, path


def test_lief_reads_the_same_headers(lief: ModuleType, files: list[Path]) -> None:
    for path in files:
        image, ours = parse_with_lief(lief, path), read_pe(str(path))
        header, optional, config = image.header, image.optional_header, image.load_configuration
        assert ours.machine == header.machine.value, path
        assert ours.link_time == header.time_date_stamps, path
        assert ours.is_dll == header.has_characteristic(header.CHARACTERISTICS.DLL), path
        assert (ours.image_size, ours.checksum) == (optional.sizeof_image, optional.checksum), path
        assert ours.linker_version == (optional.major_linker_version, optional.minor_linker_version), path
        assert (ours.subsystem, ours.dll_characteristics) == (optional.subsystem.value, optional.dll_characteristics)
        assert ours.dependent_load_flags == ((config.dependent_load_flags or 0) if config else 0), path
        # A pointer to hybrid metadata in a 32-bit image is of the compiled hybrids of Windows itself.
        assert ours.is_hybrid == bool(config and ours.bits == 64 and config.chpe_metadata_pointer), path
        assert ours.export_name == (image.get_export().name if image.has_exports else None), path


def test_pefile_sees_the_same(pefile: ModuleType, files: list[Path]) -> None:
    for path in files[:: max(1, len(files) // 25)]:
        image, theirs = by_pefile(pefile, path)
        ours = by_us(path)
        assert ours.imports == theirs.imports, path
        assert ours.exports == theirs.exports, path
        check_version(image, path)


def check_version(image: Any, path: Path) -> None:
    resources = read_pe(str(path), resources=True).resources
    assert resources is not None
    fixed = getattr(image, "VS_FIXEDFILEINFO", [None])[0]
    theirs = None
    if fixed is not None:
        words = (fixed.FileVersionMS, fixed.FileVersionLS)
        theirs = tuple(half for word in words for half in (word >> 16, word & 0xFFFF))
    assert resources.file_version == theirs, path
    strings: dict[str, str] = {}
    for info in getattr(image, "FileInfo", [[]])[0]:
        for table in getattr(info, "StringTable", ())[:1]:
            strings = {key.decode(): value.decode() for key, value in table.entries.items()}
    assert dict(resources.strings) == strings, path


@pytest.mark.skipif(shutil.which(OBJDUMP) is None, reason=f"no {OBJDUMP} on this machine")
@pytest.mark.parametrize(
    "rows",
    [
        "vma:  Hint/Ord Member-Name Bound-To\n\t8000000000000012\t    000000012  <none>\n\t1d310\t   59  CertOpenStore",
        "vma:     Ordinal  Hint  Member-Name  Bound-To\n\t0000d074     18  <none> <none>\n"
        "\t0000d004  <none>  003b  CertOpenStore",
    ],
    ids=["2.40", "2.44"],
)
@pytest.mark.parametrize("hint", ["", "  0001"])
def test_the_objdump_of_both_debians_is_understood(rows: str, hint: str) -> None:
    table = f"[Ordinal/Name Pointer] Table\n\t[   0] +base[   1]{hint} first_function\n\n"
    shown = f"...\n\n\tDLL Name: a.dll\n\t{rows}\n\n{table}"
    assert parse_objdump(shown) == ({"a.dll": [18, "CertOpenStore"]}, ["first_function"])


def test_objdump_sees_the_same(files: list[Path]) -> None:
    for path in files[:: max(1, len(files) // 30)]:
        ours = by_us(path)
        if read_pe(str(path)).machine != AMD64:
            continue
        imports, names = by_objdump(path)
        assert {library: list(symbols) for library, delayed, symbols in ours.imports if not delayed} == imports, path
        assert sorted(name for _, name, _ in ours.exports if name) == sorted(names), path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Wine is for Linux")
class TestWine:
    """What its loader makes of files that the builder made and the reader has an opinion on."""

    SCRIPT = """
import ctypes, sys
load = ctypes.WinDLL("kernel32", use_last_error=True).LoadLibraryW
load.restype = ctypes.c_void_p
for name in sys.argv[1:]:
    print("loaded" if load(name) else ctypes.get_last_error())
"""

    def test_loads(self, lab: Lab, tmp_path: Path) -> None:
        unused = build_pe({"absent.dll": [], "kernel32.dll": ["Sleep"]})
        cases = {
            "unused": (unused, "loaded"),
            "used": (build_pe({"absent.dll": ["f"]}), "126"),
            "late": (build_pe(delayed={"absent.dll": ["f"]}), "loaded"),
            "cut": (unused[: len(unused) // 2], "193"),
            "text": (b"version https://git-lfs.github.com/spec/v1\n", "193"),
        }
        paths = []
        for name, (content, _) in cases.items():
            paths.append(tmp_path / f"{name}.dll")
            paths[-1].write_bytes(content)
        assert [need.unused for need in read_pe(str(paths[0])).imports] == [True, False]
        (tmp_path / "load.py").write_text(self.SCRIPT)
        done = lab.run("3.11", [tmp_path / "load.py", *paths])
        assert dict(zip(cases, done.stdout.split(), strict=True)) == {name: end for name, (_, end) in cases.items()}
