"""Values read from a PE file (a Windows image): facts about itself, and its needs.

Source of the names and numbers: MS Learn "PE Format"; for resources "VS_VERSIONINFO" and "Application manifests".
"""

from __future__ import annotations

from collections.abc import Sequence

from .light import Rows, dataclass

Version = tuple[int, int, int, int]
"""A file or product version: major, minor, build, revision."""

CONSTANT_MUTEX = (14, 40)
"""From this version of the Visual C++ runtime on std::mutex needs no call to be initialised. Programs that are built so
crash in the lock of an older runtime: release notes of Visual Studio 2022 17.10."""
_LOCKS, _INITIALISER = {"_Mtx_lock", "_Mtx_unlock"}, "_Mtx_init_in_situ"

MACHINE_I386 = 0x14C
MACHINE_AMD64 = 0x8664
MACHINE_ARM64 = 0xAA64


@dataclass(frozen=True)
class PeSymbol:
    """A symbol imported: by `name`, or by `ordinal`; the other is `None`."""

    name: str | None
    ordinal: int | None = None


class PeSymbols(Rows[PeSymbol]):
    """Symbols imported, in the order of the table."""

    __slots__ = ()

    _row = PeSymbol

    def __init__(self, names: tuple[str | None, ...], ordinals: tuple[int | None, ...] = ()) -> None:
        """Take names and ordinals, as `PeSymbol` has them; without ordinals, all are imported by name."""
        self._columns = (names, ordinals or (None,) * len(names))

    @property
    def names(self) -> tuple[str | None, ...]:
        """The name of each; `None` for one imported by its ordinal."""
        return self._columns[0]

    @property
    def ordinals(self) -> tuple[int | None, ...]:
        """The ordinal of each; `None` for one imported by its name."""
        return self._columns[1]


@dataclass(frozen=True, init=False)
class PeImport:
    """A DLL imported, as the file spells it.

    Attributes:
        symbols: what is imported from it; `None` when symbols were not asked for.
        delayed: looked for at the first call only.
        unused: nothing is imported from it, so the loader does not even look for it.
    """

    library: str
    symbols: Sequence[PeSymbol] | None = None
    delayed: bool = False
    unused: bool = False

    def __init__(
        self, library: str, symbols: Sequence[PeSymbol] | None = None, delayed: bool = False, unused: bool = False
    ) -> None:  # fmt: skip
        # A fifth of the time of the one that dataclass writes, in what is read of every file.
        fields = self.__dict__
        fields["library"] = library
        fields["symbols"] = symbols
        fields["delayed"] = delayed
        fields["unused"] = unused


@dataclass(frozen=True)
class PeExport:
    """A symbol exported: its `ordinal`, its `name` or `None`, and "LIBRARY.symbol" or "LIBRARY.#ordinal" if it is a
    `forwarder`."""

    ordinal: int
    name: str | None = None
    forwarder: str | None = None


class PeExports(Rows[PeExport]):
    """Symbols exported: those with a name in the order of the table, then those with an ordinal only."""

    __slots__ = ()

    _row = PeExport

    def __init__(
        self, ordinals: tuple[int, ...], names: tuple[str | None, ...], forwarders: tuple[str | None, ...] = ()
    ) -> None:
        """Take ordinals, names and forwarders, as `PeExport` has them; without forwarders, none is one."""
        super().__init__(ordinals, names, forwarders or (None,) * len(names))

    @property
    def ordinals(self) -> tuple[int, ...]:
        """The ordinal of each."""
        return self._columns[0]

    @property
    def names(self) -> tuple[str | None, ...]:
        """The name of each; `None` for one that has an ordinal only."""
        return self._columns[1]

    @property
    def forwarders(self) -> tuple[str | None, ...]:
        """For each export the text that says where the symbol is; `None` for one that is in the file itself."""
        return self._columns[2]


def list_forwarders(exports: Sequence[PeExport]) -> list[PeExport]:
    """Return the exports that are forwarders; soon done for `PeExports`, of which few are."""
    if isinstance(exports, PeExports) and exports.forwarders.count(None) == len(exports):
        return []
    return [export for export in exports if export.forwarder is not None]


@dataclass(frozen=True)
class MissingForwarder:
    """A symbol that is forwarded to where it is not.

    Attributes:
        symbol: as it was asked for, of the exporter.
        requested_by: path of the image that asks.
        exporter: path of the image whose export is the forwarder.
        target: the forwarder ("icu.ucnv_open").
        provider: path of the image that the target's library is bound to, and that lacks the symbol or forwards it in a
            circle; `None` when there is no such library.
    """

    symbol: PeSymbol
    requested_by: str
    exporter: str
    target: str
    provider: str | None = None


@dataclass(frozen=True)
class AssemblyReference:
    """A side-by-side assembly that a manifest asks for."""

    name: str
    version: str | None = None
    processor: str | None = None
    public_key_token: str | None = None


@dataclass(frozen=True)
class PeResources:
    """Facts from the resources of a file; `None` where they have none.

    Attributes:
        file_version, product_version: of VS_FIXEDFILEINFO.
        strings: StringFileInfo (CompanyName, OriginalFilename, ...), pairs.
        assemblies: dependencies in the manifest of the image.
        is_debug: VS_FF_DEBUG.
    """

    file_version: Version | None = None
    product_version: Version | None = None
    strings: tuple[tuple[str, str], ...] = ()
    assemblies: tuple[AssemblyReference, ...] = ()
    is_debug: bool = False


@dataclass(frozen=True)
class PeImage:
    """A PE file.

    Attributes:
        machine: the number in the file header (MACHINE_...).
        bits: 32 or 64, by the optional header's magic.
        characteristics, dll_characteristics, subsystem: as in the headers.
        linker_version: major and minor of the linker, 14.x for Visual C++ since 2015.
        link_time: TimeDateStamp; a hash in reproducible builds.
        image_size: bytes, when mapped.
        checksum: as in the header.
        imports: in the order of the tables, delayed ones last.
        dependent_load_flags: of the load configuration: the search flags that replace the caller's; 0 for none.
        is_hybrid: ARM64EC or ARM64X: also loads into x86-64 processes.
        is_managed: a .NET assembly.
        export_name: the name that the export table gives the file.
        exports: `None` when symbols were not asked for.
        resources: `None` when they were not asked for.
    """

    TAG = "pe"

    machine: int
    bits: int
    characteristics: int
    dll_characteristics: int
    subsystem: int
    linker_version: tuple[int, int]
    link_time: int
    image_size: int
    checksum: int
    imports: tuple[PeImport, ...]
    dependent_load_flags: int = 0
    is_hybrid: bool = False
    is_managed: bool = False
    export_name: str | None = None
    exports: Sequence[PeExport] | None = None
    resources: PeResources | None = None

    @property
    def is_dll(self) -> bool:
        """IMAGE_FILE_DLL."""
        return bool(self.characteristics & 0x2000)

    def locks_without_initialising(self, library: str) -> bool:
        """Return whether the image locks mutexes of that runtime and never initialises one, which `CONSTANT_MUTEX`
        allows."""
        names = {
            symbol.name
            for imported in self.imports
            if imported.library.lower() == library.lower()
            for symbol in imported.symbols or ()
        }
        return bool(names & _LOCKS) and _INITIALISER not in names
