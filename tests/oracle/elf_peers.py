"""What other readers of ELF say about a file, in one form: readelf of binutils, LIEF, pyelftools."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import Any

Named = frozenset[tuple[str, str | None]]
"""Symbols: name and version."""


@dataclass(frozen=True)
class Summary:
    """What a reader says. `needs` are the undefined symbols that relocations use, `provides` those that a lookup finds,
    both without the symbols that are named as versions of the file: readers differ on which version those have."""

    needed: tuple[str, ...]
    soname: str | None
    rpath: str | None
    runpath: str | None
    needs: Named
    provides: Named


def own_summary(path: str) -> Summary:
    from dlltracer.binary.elf import read_elf

    image = read_elf(path, symbols=True)
    assert image.symbols is not None
    needs = frozenset((need.name, need.version) for need in image.symbols.needs)
    provides = frozenset((name, version) for name, found in image.symbols.provides.items() for version in found)
    return _summary(
        image.needed, image.soname, image.rpath, image.runpath, needs, provides, set(image.version_defs)
    )  # fmt: skip


def _summary(
    needed: tuple[str, ...], soname: str | None, rpath: str | None, runpath: str | None, needs: Named, provides: Named,
    versions: set[str],
) -> Summary:  # fmt: skip
    kept = frozenset(one for one in provides if one[0] not in versions)
    return Summary(needed, soname, rpath, runpath, needs, kept)


_SYMBOL = re.compile(
    # Where the file does not say that it is GNU's, readelf does not know the binding "unique": "<OS specific>: 10".
    r"^ *\d+: ([0-9a-f]+) +\S+ (\S+) +(\S+|<OS specific>: 10) +(\S+) +(?:\[.*?\] +)?(\S+) (\S+?)(?: \(\d+\))?$",
    re.MULTILINE,
)
_RELOCATION = re.compile(r"^[0-9a-f]+ +[0-9a-f]+ R_\S+ +[0-9a-f]+ +(\S+)(?: [+-] [0-9a-f]+)?$", re.MULTILINE)


def readelf_summary(path: str) -> Summary:
    """`readelf`, told not to cut names."""
    run = subprocess.run(
        ["readelf", "-W", "-d", "-r", "--dyn-syms", path],
        capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    text = run.stdout

    def dynamic(tag: str, words: str) -> list[str]:
        return re.findall(rf"\({tag}\) +{words}: \[(.*)\]$", text, re.MULTILINE)

    undefined, provides, versions = set(), set(), set()
    for value, kind, binding, visibility, section, name in _SYMBOL.findall(text):
        if binding == "LOCAL" or visibility in ("HIDDEN", "INTERNAL"):
            continue
        if section == "UND":
            undefined.add(_split(name))
        elif kind not in ("SECTION", "FILE") and (int(value, 16) or kind == "TLS" or section == "ABS"):
            provides.add(_split(name))
            if section == "ABS" and not int(value, 16):
                versions.add(name.partition("@")[0])
    used = {_split(name) for name in _RELOCATION.findall(text)}
    return _summary(
        tuple(dynamic("NEEDED", "Shared library")),
        *(next(iter(dynamic(*tag)), None) for tag in (
            ("SONAME", "Library soname"), ("RPATH", "Library rpath"), ("RUNPATH", "Library runpath")
        )),
        frozenset(undefined & used), frozenset(provides), versions,
    )  # fmt: skip


def _split(name: str) -> tuple[str, str | None]:
    symbol, _, version = name.partition("@")
    return symbol, version.lstrip("@") or None


def lief_summary(path: str) -> Summary:
    """LIEF."""
    import lief

    binary = lief.ELF.parse(path)
    entries: dict[str, list[str]] = {}
    for entry in binary.dynamic_entries:
        for attribute in ("name", "rpath", "runpath"):
            if hasattr(entry, attribute):
                entries.setdefault(entry.tag.name, []).append(getattr(entry, attribute))
    relocations = [*binary.dynamic_relocations, *binary.pltgot_relocations]
    used = {_lief_named(one.symbol) for one in relocations if one.symbol is not None}
    symbols = lief.ELF.Symbol
    needs, provides = set(), set()
    for one in binary.dynamic_symbols:
        named = _lief_named(one)
        if one.binding == symbols.BINDING.LOCAL or one.visibility.name in ("HIDDEN", "INTERNAL") or not one.name:
            continue
        if one.shndx == 0:
            needs.add(named)
        elif one.type.name not in ("SECTION", "FILE") and (one.value or one.type.name == "TLS" or one.shndx == 0xFFF1):
            provides.add(named)

    def one_of(tag: str) -> str | None:
        return entries.get(tag, [None])[0]

    versions = {aux.name for d in binary.symbols_version_definition for aux in d.auxiliary_symbols}
    return _summary(
        tuple(entries.get("NEEDED", ())), one_of("SONAME"), one_of("RPATH"), one_of("RUNPATH"), frozenset(needs & used),
        frozenset(provides), versions,
    )  # fmt: skip


def _lief_named(symbol: Any) -> tuple[str, str | None]:
    version = symbol.symbol_version
    auxiliary = version.symbol_version_auxiliary if version is not None and version.has_auxiliary_version else None
    # The base version, number 1, is no version of a symbol.
    named = auxiliary is not None and version.value & 0x7FFF > 1
    return symbol.name, auxiliary.name if named else None


def pyelftools_summary(path: str) -> Summary:
    """pyelftools: the dynamic segment, and the sections of versions and relocations."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection, GNUVerSymSection
    from elftools.elf.relocation import RelocationSection

    with open(path, "rb") as stream:
        file = ELFFile(stream)
        sections = list(file.iter_sections())
        names: dict[int, str] = {}
        versions = set()
        for section in sections:
            if isinstance(section, GNUVerDefSection):
                for definition, auxiliary in section.iter_versions():
                    if not definition["vd_flags"] & 1:
                        names[definition["vd_ndx"]] = next(iter(auxiliary)).name
                versions = set(names.values())
        for section in sections:
            if isinstance(section, GNUVerNeedSection):
                for _, auxiliary in section.iter_versions():
                    names.update((one["vna_other"], one.name) for one in auxiliary)
        table = file.get_section_by_name(".dynsym")
        numbers = next((s for s in sections if isinstance(s, GNUVerSymSection)), None)
        used = {
            one["r_info_sym"]
            for section in sections
            if isinstance(section, RelocationSection) and section["sh_flags"] & 2
            for one in section.iter_relocations()
        }
        needs, provides = set(), set()
        for number, one in enumerate(table.iter_symbols() if table else ()):
            info, section = one["st_info"], one["st_shndx"]
            if info["bind"] == "STB_LOCAL" or one["st_other"]["visibility"] in ("STV_HIDDEN", "STV_INTERNAL"):
                continue
            version = numbers.get_symbol(number)["ndx"] if numbers else 0
            named = one.name, names.get(version & 0x7FFF) if isinstance(version, int) else None
            if section == "SHN_UNDEF":
                if number in used:
                    needs.add(named)
            elif info["type"] not in ("STT_SECTION", "STT_FILE") and (
                one["st_value"] or info["type"] == "STT_TLS" or section == "SHN_ABS"
            ):
                provides.add(named)
        tags = [tag for s in file.iter_segments() if s["p_type"] == "PT_DYNAMIC" for tag in s.iter_tags()]

        def one_of(kind: str) -> str | None:
            return next((getattr(t, kind) for t in tags if t.entry.d_tag == f"DT_{kind.upper()}"), None)

        return _summary(
            tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"), one_of("soname"), one_of("rpath"),
            one_of("runpath"), frozenset(needs), frozenset(provides), versions,
        )  # fmt: skip
