"""What the answer of a Linux loader depends on, besides the files: a process, or one that would be started.

Sources: ld.so(8), ldconfig(8), dlopen(3); elf/dl-load.c and elf/dl-cache.c of glibc; ldso/dynlink.c of musl.
"""

from __future__ import annotations

from dataclasses import dataclass

HWCAP_EXTENSION = 1 << 62
"""Bit of `CacheEntry.hwcap` for an entry of a glibc-hwcaps folder (sysdeps/generic/dl-cache.h)."""


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


@dataclass(frozen=True)
class LinuxContext:
    """What both C libraries have in common.

    Attributes:
        bits, little_endian, machine: of the process, as in `ElfImage`.
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
    program: str | None = None
    library_path: tuple[str, ...] = ()
    system_folders: tuple[str, ...] = ()
    loaded: tuple[LoadedImage, ...] = ()
    preload: tuple[str, ...] = ()
    secure: bool = False
    current_folder: str = "/"
    notes: tuple[str, ...] = ()


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
        caller: the image that calls dlopen (for Python's ctypes, _ctypes): its RPATH and RUNPATH count for a name
            without a folder.
    """

    cache: tuple[CacheEntry, ...] = ()
    cache_path: str = "/etc/ld.so.cache"
    subfolders: tuple[str, ...] = ()
    lib: str | None = None
    platform: str | None = None
    loader: str | None = None
    caller: str | None = None


@dataclass(frozen=True)
class MuslContext(LinuxContext):
    """A process with musl.

    Attributes: `loader`, the path of musl's loader, which is its C library too.
    """

    loader: str = "/lib/ld-musl-x86_64.so.1"
