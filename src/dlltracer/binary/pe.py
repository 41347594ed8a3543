"""Reads a PE file: a Windows program, DLL or extension module.

Source of names and numbers: MS Learn "PE Format"; for the load configuration also winnt.h.
"""

from __future__ import annotations

import struct

from ..errors import BinaryFormatError
from ..model.pe import PeImage
from .pe_layout import PeLayout
from .pe_tables import parse_export_name, parse_exports, parse_imports
from .reading import FileBytes, OpenedFile

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
    found = None
    if resources:
        from .pe_resources import parse_resources

        found = parse_resources(layout)
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
