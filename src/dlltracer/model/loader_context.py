"""Inputs of a loader's decisions: settings, folders, images already loaded, the kind of file at a place."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from .elf import EM_ARM, EM_MIPS, EM_PPC64, EM_RISCV, linux_abi
from .light import dataclass
from .pe import MACHINE_I386, AssemblyReference

HWCAP_EXTENSION = 1 << 62
"""Bit of `CacheEntry.hwcap` for an entry of a glibc-hwcaps folder (sysdeps/generic/dl-cache.h)."""


class FileKind(enum.Enum):
    """The kind of file at a path, links followed."""

    FILE = "file"
    FOLDER = "folder"
    ABSENT = "absent"
    """Nothing, or a link that leads nowhere."""
    DENIED = "denied"
    """It may not be read."""
    HIDDEN = "hidden"
    """A folder on the way to it may not be entered: whether it is there is not known."""
    SYMLINK_LOOP = "symlink loop"
    """A link that leads back to itself."""
    OTHER = "other"
    """A device, a fifo, a socket."""


@dataclass(frozen=True, init=False)
class CacheEntry:
    """An entry of ld.so.cache.

    Attributes:
        soname: the name it answers.
        path: the file.
        flags: kind and machine, as ldconfig numbers them (0x303: x86-64, libc6).
        hwcap: what the processor must have; 0 for nothing. Since glibc 2.33 only `HWCAP_EXTENSION` and an index.
        subfolder: the folder below glibc-hwcaps ("x86-64-v3") that the index stands for.
    """

    soname: str
    path: str
    flags: int
    hwcap: int = 0
    subfolder: str | None = None

    def __init__(self, soname: str, path: str, flags: int, hwcap: int = 0, subfolder: str | None = None) -> None:
        # A third of the time of the one that dataclass writes; a system has a thousand entries.
        fields = self.__dict__
        fields["soname"] = soname
        fields["path"] = path
        fields["flags"] = flags
        fields["hwcap"] = hwcap
        fields["subfolder"] = subfolder


@dataclass(frozen=True)
class LoadedImage:
    """An image that the process has already.

    Attributes: `path`; `soname`, its DT_SONAME; `names`, others by which it was asked for (a file name that another
    image needs).
    """

    path: str
    soname: str | None = None
    names: tuple[str, ...] = ()


MACHINES_WITH_ABIS = frozenset((EM_MIPS, EM_PPC64, EM_ARM, EM_RISCV))
"""Machines whose glibc tells ABIs apart by e_flags."""


@dataclass(frozen=True)
class LinuxContext:
    """The settings and facts that glibc's and musl's loaders have in common.

    Attributes:
        bits, little_endian, machine: of the process, as in `ElfImage`.
        flags: e_flags of its program, by which some machines have several ABIs; `None` if not known.
        page_size: of the system, in bytes (AT_PAGESZ, getauxval(3)).
        program: path of the main program, links followed; its RPATH counts for what is loaded later.
        library_path: the elements of LD_LIBRARY_PATH as they stand; an empty one is kept.
        system_folders: where the loader looks last, in order, without a slash at the end.
        loaded: images that the process has already.
        preload: the elements of LD_PRELOAD; they count when a program is started.
        secure: the process is in secure mode (AT_SECURE): what comes from LD_LIBRARY_PATH and LD_PRELOAD is ignored.
        current_folder: what relative paths start from.
        notes: what could not be found out.
    """

    bits: int = 64
    little_endian: bool = True
    machine: int = 62
    flags: int | None = None
    page_size: int = 4096
    program: str | None = None
    library_path: tuple[str, ...] = ()
    system_folders: tuple[str, ...] = ()
    loaded: tuple[LoadedImage, ...] = ()
    preload: tuple[str, ...] = ()
    secure: bool = False
    current_folder: str = "/"
    notes: tuple[str, ...] = ()

    def abi(self) -> str | None:
        """Return the name of the process's ABI (`linux_abi`)."""
        return linux_abi(self.bits, self.little_endian, self.machine, self.flags or 0)


@dataclass(frozen=True)
class GlibcContext(LinuxContext):
    """A process with glibc.

    Attributes:
        cache: the entries of ld.so.cache, in the order of the file.
        cache_path: where it was read.
        subfolders: what is looked for below every folder before the folder itself, in order
            ("glibc-hwcaps/x86-64-v3"; before glibc 2.37 also "tls/haswell" and the like).
        lib, platform: what $LIB and $PLATFORM stand for; `None` when not known.
        loader: path of ld.so, which every process has.
        checks_alignment: the loader wants segments that are aligned to pages (before glibc 2.35). Later ones want only
            that the place in the file and the address are at the same place of a page.
        caller: the image that calls dlopen (for Python's ctypes, _ctypes): its RPATH and RUNPATH count for a name
            without a folder.
    """

    cache: tuple[CacheEntry, ...] = ()
    cache_path: str = "/etc/ld.so.cache"
    subfolders: tuple[str, ...] = ()
    lib: str | None = None
    platform: str | None = None
    loader: str | None = None
    checks_alignment: bool = False
    caller: str | None = None


@dataclass(frozen=True)
class LoaderFacts:
    """Facts that glibc's loader tells, or its bytes: the attributes of `GlibcContext` by the same names."""

    system_folders: tuple[str, ...]
    subfolders: tuple[str, ...]
    lib: str | None
    platform: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MuslContext(LinuxContext):
    """A process with musl.

    Attributes: `loader`, the path of musl's loader, which is its C library too.
    """

    loader: str = "/lib/ld-musl-x86_64.so.1"


@dataclass(frozen=True, kw_only=True)
class MacosContext:
    """A process of macOS.

    Attributes:
        cpu, subtype: of the process, as in `MachoImage`.
        program: path of the main executable, links followed: @executable_path and its LC_RPATHs count for all that is
            loaded. `None` if it is not known.
        loaded: images that the process has already; `soname` is the install name.
        library_path, framework_path: DYLD_LIBRARY_PATH and DYLD_FRAMEWORK_PATH; () in a restricted process.
        fallback_path, fallback_frameworks: DYLD_FALLBACK_LIBRARY_PATH and DYLD_FALLBACK_FRAMEWORK_PATH; () for the
            folders that dyld has by default.
        current_folder: what relative paths start from.
        notes: what could not be found out.
    """

    cpu: int
    subtype: int = 0
    program: str | None = None
    loaded: tuple[LoadedImage, ...] = ()
    library_path: tuple[str, ...] = ()
    framework_path: tuple[str, ...] = ()
    fallback_path: tuple[str, ...] = ()
    fallback_frameworks: tuple[str, ...] = ()
    current_folder: str = "/"
    notes: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """The name of its processor: "arm64"."""
        from .macho import describe_cpu  # not above: `deps` of an ELF file has no use for it

        return describe_cpu(self.cpu, self.subtype)


class LoadFlags(enum.IntFlag):
    """Flags of LoadLibraryExW (libloaderapi.h) that choose where to look."""

    ALTERED_SEARCH_PATH = 0x8
    DLL_LOAD_DIR = 0x100
    APPLICATION_DIR = 0x200
    USER_DIRS = 0x400
    SYSTEM32 = 0x800
    DEFAULT_DIRS = 0x1000
    """The three before: application, user and System32."""
    SAFE_CURRENT_DIRS = 0x2000
    """Chooses no folder: the standard order, without the current folder unless that is on Windows' safe list."""


STANDARD_SEARCH = LoadFlags(0)
"""LoadLibrary and the imports of a program: the standard order, with PATH. Also `ctypes.CDLL(..., winmode=0)`."""
EXTENSION_MODULE_SEARCH = LoadFlags.DEFAULT_DIRS | LoadFlags.DLL_LOAD_DIR
"""`import` of an extension module since CPython 3.8 (Python/dynload_win.c), and ctypes with a path in the name."""
CTYPES_NAME_SEARCH = LoadFlags.DEFAULT_DIRS
"""`ctypes.CDLL("name.dll")`: ctypes adds DLL_LOAD_DIR only for a name with a folder in it."""


@dataclass(frozen=True)
class ApiSetHost:
    """The file that implements a contract.

    Attributes:
        host: base name, lower case; "" for a contract that this Windows knows and does not implement.
        exceptions: (base name of an importer, lower case; host for that importer) pairs.
    """

    host: str
    exceptions: tuple[tuple[str, str], ...] = ()

    def host_for(self, importer: str) -> str:
        """The host for an importer of that base name (any case)."""
        return dict(self.exceptions).get(importer.lower(), self.host)


@dataclass(frozen=True)
class WindowsContext:
    """A process in which something is to be loaded, and the call that loads it. All paths are Windows paths.

    Attributes:
        machine: machine of the process (`pe.MACHINE_...`).
        application_folder: folder of the program (python.exe; in a venv that of the base Python's).
        system_folder: what GetSystemDirectoryW says. For a 32-bit process on 64-bit Windows give the folder that its
            files are really in (SysWOW64).
        windows_folder: what GetWindowsDirectoryW says.
        current_folder: `None` if unknown or not to be considered.
        path: the folders of PATH, in order.
        added_folders: of os.add_dll_directory (AddDllDirectory). Windows does not say in which order it searches
            them; they are tried as given.
        dll_directory: of SetDllDirectoryW; searched with the added folders, and in the standard order instead of the
            current folder.
        flags: how the image is loaded; `EXTENSION_MODULE_SEARCH` is what `import` does.
        safe_search: SafeDllSearchMode, on by default: the current folder comes after the system's.
        known_dlls: base names, lower case, that come from System32 whatever lies elsewhere; `None` for Windows'
            usual ones. The registry's list is not complete: what those import is known, too.
        api_sets: contract without ".dll" and last number, lower case, to its host: the whole table of that Windows;
            `None` if it is not known.
        loaded: paths of the images already in the process, in their order.
        provided: base names, lower case, that the application folder is known to have, when it cannot be read.
        has_system_files: the system folder can be read. `False` for a Windows wheel looked at on Linux: names
            that are Windows' own are then taken for present.
        redirection: path of the PROGRAM.local file or folder if there is one and it is honoured: it is not if the
            program has a manifest, as python.exe does, unless the DevOverrideEnable value is set.
        assemblies: side-by-side assemblies that the program's manifest asks for.
        assembly_folders: names of the folders in WinSxS, as far as known.
        skips_wrong_machine: a file for another machine is passed over and the search goes on. Wine 8 is seen to do
            so, and published reconstructions of the loader of Windows 10 do; Microsoft documents neither.
        honours_dependent_flags: DependentLoadFlags count: since Windows 10 1607; in Wine 8 they do not.
    """

    machine: int
    application_folder: str
    system_folder: str = "C:\\Windows\\System32"
    windows_folder: str = "C:\\Windows"
    current_folder: str | None = None
    path: tuple[str, ...] = ()
    added_folders: tuple[str, ...] = ()
    dll_directory: str | None = None
    flags: LoadFlags = EXTENSION_MODULE_SEARCH
    safe_search: bool = True
    known_dlls: frozenset[str] | None = None
    api_sets: Mapping[str, ApiSetHost] | None = None
    loaded: tuple[str, ...] = ()
    provided: frozenset[str] = frozenset()
    has_system_files: bool = True
    redirection: str | None = None
    assemblies: tuple[AssemblyReference, ...] = ()
    assembly_folders: tuple[str, ...] = ()
    skips_wrong_machine: bool = True
    honours_dependent_flags: bool = True

    def __hash__(self) -> int:
        # A mapping has no hash. Contexts that differ in it alone are rare.
        return hash((self.machine, self.application_folder, self.path, self.loaded))

    def first_loaded(self) -> dict[str, str]:
        """Base name, lower case, to the path of the first image loaded under it."""
        import ntpath  # not above: contexts of Linux need none

        found: dict[str, str] = {}
        for path in self.loaded:
            found.setdefault(ntpath.basename(path).lower(), path)
        return found


def context_for_wheel(
    machine: int, version: tuple[int, int], *, free_threaded: bool = False, added_folders: tuple[str, ...] = ()
) -> WindowsContext:
    """A fresh CPython on a Windows that cannot be looked at: to check a Windows wheel anywhere.

    Taken for present: Windows' own names, and what python.org's installer puts beside python.exe: python3X.dll,
    python3.dll, vcruntime140.dll and vcruntime140_1.dll, but not msvcp140.dll.

    Args:
        machine: of the Python that the wheel is for.
        version: of that Python, (3, 13).
        free_threaded: it is the build without the GIL (cp313t).
        added_folders: that the package adds by os.add_dll_directory.
    """
    t = "t" if free_threaded else ""
    provided = {f"python{version[0]}{version[1]}{t}.dll", f"python{version[0]}{t}.dll", "vcruntime140.dll"}
    if machine != MACHINE_I386:  # what is in vcruntime140_1.dll is for 64-bit exception handling
        provided.add("vcruntime140_1.dll")
    return WindowsContext(
        machine,
        application_folder="C:\\Python",
        added_folders=added_folders,
        provided=frozenset(provided),
        has_system_files=False,
    )
