"""Values read from a Mach-O file (macOS): facts about itself, and its needs.

Sources of the names and numbers: <mach-o/loader.h>, <mach-o/fat.h> and <mach-o/nlist.h> of Apple's cctools;
<mach/machine.h> for the processors.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from .light import Rows, dataclass

MH_EXECUTE, MH_DYLIB, MH_BUNDLE = 2, 6, 8
MH_TWOLEVEL = 0x80

CPU_X86_64, CPU_ARM64 = 0x01000007, 0x0100000C
SUBTYPE_X86_64H, SUBTYPE_ARM64E = 8, 2

PLATFORM_MACOS = 1


class NeedKind(enum.Enum):
    """The way in which a load command asks for a library."""

    LOAD = "load"
    """LC_LOAD_DYLIB."""
    WEAK = "weak"
    """LC_LOAD_WEAK_DYLIB: without it the load goes on, and what was to come from it is null."""
    REEXPORT = "reexport"
    """LC_REEXPORT_DYLIB: what it exports counts as exported by the image itself, too."""
    UPWARD = "upward"
    """LC_LOAD_UPWARD_DYLIB: as LOAD; only the order of initialisers differs."""
    LAZY = "lazy"
    """LC_LAZY_LOAD_DYLIB: loaded at the first use of one of its symbols."""


@dataclass(frozen=True, kw_only=True)
class MachoNeed:
    """A library that an image needs.

    Attributes:
        name: the install name asked for, as it stands: "@rpath/libx.dylib".
        kind: how it is asked for.
        current_version, compatibility_version: of the library that it was linked with; three numbers.
    """

    name: str
    kind: NeedKind
    current_version: tuple[int, int, int]
    compatibility_version: tuple[int, int, int]


class SymbolPlace(enum.IntEnum):
    """The place in which an undefined symbol is looked for, when that is no library of the load commands.

    The numbers are those of chained fixups and bind opcodes; a symbol table has 0, 0xff and 0xfe for the first three.
    """

    SELF = 0
    """In the image itself."""
    MAIN = -1
    """In the main executable."""
    FLAT = -2
    """In all images, in the order of loading ("flat namespace", -undefined dynamic_lookup)."""
    WEAK = -3
    """A C++ definition that images share: its own or that of any image loaded before."""


@dataclass(frozen=True)
class MachoImport:
    """An undefined symbol.

    Attributes:
        name: as in the file, with the underscore that C names begin with.
        ordinal: the number of the need that must have it, counted from 1; 0 or less is a `SymbolPlace`.
        weak: nothing fails when it is missing.
    """

    name: str
    ordinal: int
    weak: bool = False


class MachoImports(Rows[MachoImport]):
    """Undefined symbols; the columns are the fields of `MachoImport`, in its order."""

    __slots__ = ()

    _row = MachoImport

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each."""
        return self._columns[0]


@dataclass(frozen=True)
class MachoSymbols:
    """The symbols that dyld binds.

    Attributes:
        imports: the undefined ones.
        exports: the exported ones. The value is `None`, or for a symbol that another library has: the number of that
            need, and the name there.
    """

    imports: Sequence[MachoImport]
    exports: Mapping[str, tuple[int, str] | None]

    def is_passed_on(self, wanted: MachoImport) -> bool:
        """Return whether an import is there for an export: the linker lists what is re-exported as undefined.

        dyld looks for such a symbol when somebody asks for it, and not when it loads the image.
        """
        return self.exports.get(wanted.name) == (wanted.ordinal, wanted.name)


@dataclass(frozen=True)
class MachoTarget:
    """A system that an image was built for: its platform number, the lowest version, and the SDK's version."""

    platform: int
    lowest: tuple[int, int, int]
    sdk: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class MachoImage:
    """The image of one processor: a thin file, or a slice of a universal one.

    Attributes:
        offset, size: where in the file its bytes are.
        bits: 32 or 64.
        cpu: CPU_TYPE of <mach/machine.h>.
        subtype: CPU_SUBTYPE, without its capability bits.
        kind: MH_EXECUTE, MH_DYLIB, MH_BUNDLE, ...
        flags: of the header.
        install_name: LC_ID_DYLIB; `None` for bundles and programs.
        needs: the libraries of the load commands, in order; a symbol's ordinal counts in it.
        rpaths: LC_RPATH, in order, repetitions included.
        targets: the systems that it was built for; () in old files, which say none.
        uuid: LC_UUID in hexadecimal; `None` if it has none.
        is_signed: whether there is a code signature.
        is_chained: whether its fixups are chained: macOS 11 (arm64) or 10.15 and later read such files.
        unknown_commands: load commands that dyld must know (LC_REQ_DYLD) and that are not known here.
        symbols: what it imports and exports; `None` when they were not asked for.
        changed_page: the first page that was changed after the image was signed; `None` if none was, or if that was not
            asked for.
    """

    TAG = "macho"

    offset: int
    size: int
    bits: int
    cpu: int
    subtype: int
    kind: int
    flags: int
    install_name: str | None
    needs: tuple[MachoNeed, ...]
    rpaths: tuple[str, ...]
    targets: tuple[MachoTarget, ...]
    uuid: str | None
    is_signed: bool
    is_chained: bool
    unknown_commands: tuple[int, ...] = ()
    symbols: MachoSymbols | None = None
    changed_page: int | None = None

    @property
    def architecture(self) -> str:
        """The name of its processor: "arm64"."""
        return describe_cpu(self.cpu, self.subtype)

    @property
    def lowest_macos(self) -> tuple[int, int, int] | None:
        """The lowest version of macOS that it was built for; `None` if it does not say."""
        return next((target.lowest for target in self.targets if target.platform == PLATFORM_MACOS), None)


@dataclass(frozen=True)
class MachoFile:
    """A file: its images, in its order. `is_universal` says whether it has a table of them (a "fat" file)."""

    images: tuple[MachoImage, ...]
    is_universal: bool


_CPUS = {
    (7, None): "i386", (CPU_X86_64, SUBTYPE_X86_64H): "x86_64h", (CPU_X86_64, None): "x86_64",
    (12, None): "arm", (CPU_ARM64, SUBTYPE_ARM64E): "arm64e", (CPU_ARM64, None): "arm64",
    (0x0200000C, None): "arm64_32", (18, None): "ppc", (0x01000012, None): "ppc64",
}  # fmt: skip


def describe_cpu(cpu: int, subtype: int) -> str:
    """Return the name of a processor, as lipo(1) and dyld call it; "cpu 99" for one that is not known."""
    return _CPUS.get((cpu, subtype)) or _CPUS.get((cpu, None)) or f"cpu {cpu}"


_PLATFORMS = {
    PLATFORM_MACOS: "macOS", 2: "iOS", 3: "tvOS", 4: "watchOS", 5: "bridgeOS", 6: "Mac Catalyst", 7: "iOS simulator",
    8: "tvOS simulator", 9: "watchOS simulator", 10: "DriverKit", 11: "visionOS", 12: "visionOS simulator",
}  # fmt: skip


def describe_platform(platform: int) -> str:
    """Return the name of a platform of LC_BUILD_VERSION; "platform 99" for one that is not known."""
    return _PLATFORMS.get(platform, f"platform {platform}")
