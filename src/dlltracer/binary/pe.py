"""Reads a PE file: a Windows program, DLL or extension module.

Source of names and numbers: MS Learn "PE Format", for the load configuration also winnt.h; for resources "The .rsrc
Section", "VS_VERSIONINFO", "StringFileInfo" and "Manifest Files Reference".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from ..errors import BinaryFormatError
from ..model.pe import AssemblyReference, PeImage, PeResources, Version
from .pe_layout import PeLayout
from .pe_tables import parse_export_name, parse_exports, parse_imports
from .reading import FileBytes, OpenedFile

MAX_ASSEMBLIES = 1000

_DEPENDENT = "dependentAssembly"
_BOMS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8"))
_NAME = re.compile(r"(/?)(?:[\w.-]+:)?([\w.-]+)")
# The first letter of a name is where no other letter of it stands before: without that, a long name costs its square.
_ATTRIBUTE = re.compile(r"""(?<![\w:.-])([\w:.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")


def parse_assemblies(manifest: bytes) -> tuple[AssemblyReference, ...]:
    """Parse the dependent assemblies of a manifest, in order. Never raises.

    Only the tags are looked at, in one pass: a document that is not well-formed is taken as far as it goes, and no
    entity is ever expanded.
    """
    text = _decode(manifest)
    if _DEPENDENT not in text:  # nearly always
        return ()
    found: list[AssemblyReference] = []
    is_inside = False
    for tag in _tags(text):
        match = _NAME.match(tag)
        if match is None:
            continue
        if match[2] == _DEPENDENT:
            is_inside = not match[1]
        elif match[2] == "assemblyIdentity" and is_inside and len(found) < MAX_ASSEMBLIES:
            is_inside = False  # one identity for each
            given = {match[1]: match[2] or match[3] or "" for match in _ATTRIBUTE.finditer(tag)}
            if given.get("name"):
                found.append(
                    AssemblyReference(
                        given["name"],
                        given.get("version"),
                        given.get("processorArchitecture"),
                        given.get("publicKeyToken"),
                    )
                )
    return tuple(found)


def _decode(manifest: bytes) -> str:
    for mark, encoding in _BOMS:
        if manifest.startswith(mark):
            return manifest[len(mark) :].decode(encoding, "replace")
    return manifest.decode("utf-8", "replace")


def _tags(text: str) -> Iterator[str]:
    """Yield the texts between < and >, without comments and character data."""
    at = text.find("<")
    while at >= 0:
        opening, closing = "<", ">"
        for special, end in (("<!--", "-->"), ("<![CDATA[", "]]>")):
            if text.startswith(special, at):
                opening, closing = special, end
        stop = text.find(closing, at + len(opening))
        if stop < 0:
            return
        if opening == "<":
            yield text[at + 1 : stop]
        at = text.find("<", stop + len(closing))


RESOURCE_TABLE = 2
RT_VERSION, RT_MANIFEST = 16, 24
MAX_ENTRIES = 0x1000
MAX_VERSION, MAX_MANIFEST = 0x10000, 0x100000
"""Bytes: the first has a 16-bit length of its own."""
MAX_STRINGS = 1000

_DIRECTORY = struct.Struct("<12xHH")
_ENTRY = struct.Struct("<II")
_DATA = struct.Struct("<II8x")
_NODE_SIZE = 6
"""Bytes of the length of a node, the size of its value and its kind."""
_FIXED = struct.Struct("<I4xIIIIII")
_IS_DIRECTORY = 0x80000000
_VS_FF_DEBUG = 1
_SIGNATURE = 0xFEEF04BD


def parse_resources(layout: PeLayout) -> PeResources:
    """Parse what the resources say. What cannot be read is left out: the loader does not stop at it."""
    kinds = _kinds(layout)
    # Windows shows the version under 1 only (VS_VERSION_INFO); a version under another number is read as well.
    version = _version(_resource(layout, kinds.get(RT_VERSION), None, MAX_VERSION) or b"")
    assemblies: tuple[AssemblyReference, ...] = ()
    # The loader takes the manifest of a DLL under 2 only (ISOLATIONAWARE_MANIFEST_RESOURCE_ID), of a program under 1.
    number = 2 if layout.headers.characteristics & 0x2000 else 1
    manifest = _resource(layout, kinds.get(RT_MANIFEST), number, MAX_MANIFEST)
    if manifest is not None:
        assemblies = parse_assemblies(manifest)
    if version is None:
        return PeResources(assemblies=assemblies)
    file_version, product_version, strings, is_debug = version
    return PeResources(file_version, product_version, strings, assemblies, is_debug)


def _kinds(layout: PeLayout) -> dict[int, int]:
    """Return for each kind of resource the offset that its entry of the root directory leads to."""
    root, _ = layout.headers.directory(RESOURCE_TABLE)
    if not root:
        return {}
    try:
        return dict(_entries(layout, root)[::-1])  # the first of a kind counts
    except BinaryFormatError:
        return {}


def _resource(layout: PeLayout, target: int | None, number: int | None, most: int) -> bytes | None:
    """At most `most` bytes of a resource, in the first language that there is.

    Arguments: `target`, what the entry of its kind leads to; `number`, its own, `None` for any.
    """
    root, _ = layout.headers.directory(RESOURCE_TABLE)
    try:
        # Below the kinds there are names or numbers, below these languages.
        for wanted in (number, None):
            if target is None or not target & _IS_DIRECTORY:
                return None
            entries = _entries(layout, root + (target & ~_IS_DIRECTORY))
            target = next((leads_to for found, leads_to in entries if wanted is None or found == wanted), None)
        if target is None or target & _IS_DIRECTORY:
            return None
        address, size = layout.unpack(_DATA, root + target, "resource")
        return layout.read(address, min(size, most), "resource")
    except BinaryFormatError:
        return None


def _entries(layout: PeLayout, rva: int) -> list[tuple[int, int]]:
    """Name or number, and what it leads to, of the entries of a directory."""
    named, numbered = layout.unpack(_DIRECTORY, rva, "resource directory")
    count = min(named + numbered, MAX_ENTRIES)
    return list(_ENTRY.iter_unpack(layout.read(rva + 16, count * 8, "resource directory")))


def _version(
    data: bytes,
) -> tuple[Version | None, Version | None, tuple[tuple[str, str], ...], bool] | None:
    """File version, product version, strings and VS_FF_DEBUG of a VS_VERSIONINFO."""
    units = _units(data)
    root = _node(units, 0, len(data))
    if root is None or root[0] != "VS_VERSION_INFO":
        return None
    _, value, size, children, end = root
    file_version = product_version = None
    is_debug = False
    if size >= _FIXED.size and value + _FIXED.size <= end:
        signature, *parts, mask, flags = _FIXED.unpack_from(data, value)
        if signature == _SIGNATURE:
            file_version, product_version = _four(parts[0], parts[1]), _four(parts[2], parts[3])
            is_debug = bool(mask & flags & _VS_FF_DEBUG)
    return file_version, product_version, _strings(units, children, end), is_debug


def _four(high: int, low: int) -> Version:
    return high >> 16, high & 0xFFFF, low >> 16, low & 0xFFFF


def _units(data: bytes) -> str:
    """A character for each 16 bits, so that texts and numbers can be taken from it by their offsets."""
    count = len(data) // 2
    units = data[: 2 * count].decode("utf-16-le", "surrogatepass")
    if len(units) < count:  # pairs of surrogates have become one character
        units = "".join(map(chr, struct.unpack_from(f"<{count}H", data)))
    return units


def _strings(units: str, start: int, end: int) -> tuple[tuple[str, str], ...]:
    """The table of the first translation that VarFileInfo names; the first table if that one is not there."""
    wanted = ""
    tables: dict[str, tuple[int, int]] = {}
    for key, _, _, inner, stop in _nodes(units, start, end):
        for name, value, size, children, last in _nodes(units, inner, stop):
            if key == "StringFileInfo":
                tables.setdefault(name.lower(), (children, last))
            elif name == "Translation" and size >= 4 and value + 4 <= last and not wanted:
                wanted = f"{ord(units[value >> 1]):04x}{ord(units[(value >> 1) + 1]):04x}"
    if not tables:
        return ()
    first, stop = tables.get(wanted) or next(iter(tables.values()))
    entries = _nodes(units, first, stop)
    return tuple([(name, _text(units, value >> 1, last >> 1)) for name, value, _, _, last in entries])


def _nodes(units: str, start: int, end: int) -> Iterator[tuple[str, int, int, int, int]]:
    """The nodes between two offsets."""
    for _ in range(MAX_STRINGS):
        node = _node(units, start, end)
        if node is None:
            return
        yield node
        start = node[4] + 3 & -4


def _node(units: str, start: int, end: int) -> tuple[str, int, int, int, int] | None:
    """A node: its key, offset of its value, size of the value, offset of its children, its end; `None` if none is left.

    Children begin behind the value. For text the size is in characters according to the documentation, and in bytes
    according to some compilers: nobody should ask a text for it, nor for its children, which it does not have.
    """
    if start + _NODE_SIZE > end:
        return None
    at = start >> 1
    length, size, is_text = map(ord, units[at : at + 3])
    end = min(end, start + length)
    key = _text(units, at + 3, end >> 1)
    value = start + _NODE_SIZE + 2 * len(key) + 5 & -4
    if length <= _NODE_SIZE or value > end + 3 & -4:
        return None
    return key, value, size, value if is_text else value + size + 3 & -4, end


def _text(units: str, start: int, end: int) -> str:
    """The text from a unit to its NUL, or to the end. Half characters become U+FFFD."""
    stop = units.find("\0", start, end)
    text = units[start : end if stop < 0 else stop]
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_LOAD_CONFIG, _CLR_HEADER = 10, 14
_HALF, _WORD, _LONG = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")


def read_pe(path: str, *, symbols: bool = False, resources: bool = False) -> PeImage:
    """Read a PE file. Without symbols and resources a few pages of it are touched, however large it is.

    Args:
        path: of the file.
        symbols: also the symbols imported, and the exports.
        resources: also what its resources say: version and manifest.

    Raises:
        BinaryFormatError: it is no PE file, is cut short or is damaged.
        OSError: it cannot be opened or read.
    """
    with OpenedFile(path) as data:
        return parse_pe(data, symbols=symbols, resources=resources)


def parse_pe(data: bytes | FileBytes, *, symbols: bool = False, resources: bool = False) -> PeImage:
    """Parse the bytes of a whole PE file; see `read_pe`.

    What the loader goes by (headers, sections, imports, exports when asked for) is an error if it is damaged. Anything
    else that cannot be read is left out: such a file loads.
    """
    layout = PeLayout(data)
    headers = layout.headers
    load_flags, is_hybrid = _load_config(layout)
    found = parse_resources(layout) if resources else None
    return PeImage(
        machine=headers.machine,
        bits=headers.bits,
        characteristics=headers.characteristics,
        dll_characteristics=headers.dll_characteristics,
        subsystem=headers.subsystem,
        linker_version=headers.linker_version,
        link_time=headers.link_time,
        image_size=headers.image_size,
        checksum=headers.checksum,
        imports=parse_imports(layout, symbols),
        dependent_load_flags=load_flags,
        is_hybrid=is_hybrid,
        is_managed=all(headers.directory(_CLR_HEADER)),
        export_name=parse_export_name(layout),
        exports=parse_exports(layout) if symbols else None,
        resources=found,
    )


def _load_config(layout: PeLayout) -> tuple[int, bool]:
    """DependentLoadFlags, and whether there is hybrid metadata (CHPEMetadataPointer; of no meaning here in 32 bits)."""
    rva, _ = layout.headers.directory(_LOAD_CONFIG)
    if not rva:
        return 0, False
    is_wide = layout.headers.bits == 64
    try:
        # The structure grew with time: its own first field says how much of it there is. (The directory's size need
        # not: for 32 bits it is 64 whatever the truth is, as Windows XP wanted it.)
        (size,) = layout.unpack(_WORD, rva, "load configuration")
        flags_at, hybrid_at = (78, 200) if is_wide else (54, 124)
        flags = hybrid = 0
        if size >= flags_at + 2:
            (flags,) = layout.unpack(_HALF, rva + flags_at, "load configuration")
        if is_wide and size >= hybrid_at + 8:
            (hybrid,) = layout.unpack(_LONG, rva + hybrid_at, "load configuration")
    except BinaryFormatError:
        return 0, False
    return flags, hybrid != 0
