"""Reads what the loader of this Linux machine knows.

glibc is asked itself: its own log of a search that finds nothing names every folder that it would look in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

from ..binary.loader_data import parse_ld_cache
from ..errors import BinaryFormatError
from ..model.elf import ElfImage, describe_kind
from ..model.light import replace
from ..model.loader_context import GlibcContext, LinuxContext, LoadedImage, LoaderFacts, MuslContext
from .bounded import ask_loader_program
from .facts import current_folder
from .filesystem import HostFilesystem

_ASKED, _ASKED_LIB, _ASKED_PLATFORM = "/dlltracer", "/dlltracer-lib", "/dlltracer-platform"
_NAME = "libdlltracer-asks.so"


def ask_loader(loader: str, program: str, tunables: str | None = None) -> LoaderFacts | None:
    """Let the loader list a program with LD_DEBUG=libs and a library to preload that is nowhere.

    Arguments: `loader`, which is run; `program`, of which nothing runs (ld.so(8), --list); `tunables`, the
    GLIBC_TUNABLES of the process in question, which can take features of the processor away.
    Returns `None` when the loader does not answer so.
    """
    asked = f"{_ASKED}:{_ASKED_LIB}/$LIB:{_ASKED_PLATFORM}/$PLATFORM"
    environment = {"LD_DEBUG": "libs", "LD_LIBRARY_PATH": asked, "LD_PRELOAD": _NAME}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    answer = ask_loader_program((loader, "--list", program), environment, seconds=10)
    return None if isinstance(answer, str) else parse_answer(answer.output)


def parse_answer(text: str) -> LoaderFacts | None:
    """Read the answer to `ask_loader`: the folders as the loader names them before it looks."""
    lines: dict[str, list[str]] = {}
    for line in text.split("\n"):  # "     1234:\t search path=FOLDERS\t\t(RULE)"
        pid, mark, rest = line.partition(":\t search path=")
        folders, has_rule, rule = rest.rpartition("\t\t(")
        if mark and has_rule and pid.strip(" ").isdigit():
            lines.setdefault(rule, folders.split(":"))
    asked = lines.get("LD_LIBRARY_PATH)", [])
    if _ASKED not in asked or "system search path)" not in lines:
        return None
    step = asked.index(_ASKED) + 1
    subfolders = tuple(folder.removeprefix(f"{_ASKED}/") for folder in asked[: step - 1])
    values = {}
    for folder in asked[step - 1 :: step]:
        for prefix in (_ASKED_LIB, _ASKED_PLATFORM):
            if folder.startswith(f"{prefix}/"):
                values[prefix] = folder[len(prefix) + 1 :]
    return LoaderFacts(
        tuple(lines["system search path)"][step - 1 :: step]),
        subfolders,
        values.get(_ASKED_LIB),
        values.get(_ASKED_PLATFORM),
    )


CACHE = "/etc/ld.so.cache"
OWN_PROGRAM = "/proc/self/exe"
MUSL_FOLDERS = ("/lib", "/usr/local/lib", "/usr/lib")
"""Where musl looks when there is no /etc/ld-musl-ARCH.path (ldso/dynlink.c)."""

_PROGRAMS = ("/usr/bin/python3", "/usr/local/bin/python3", "/opt/python/bin/python3", "/bin/sh")
_MAPPING = r"[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ \S+ \d+ +(/.*)"


def read_linux_context(
    root: str | None = None,
    environment: Mapping[str, str] | None = None,
    program: str | None = None,
    loaded: Iterable[str] | None = None,
    files: HostFilesystem | None = None,
    is_secure: bool = False,
    kind: ElfImage | None = None,
) -> GlibcContext | MuslContext:
    """Read what the loader of a process depends on.

    Arguments:
        root: a folder that holds another system; nothing in it is run. `None` for this machine.
        environment: of the process; `None` for that of this one, or an empty one with `root`.
        program: its main program; `None` for the running Python, or with `root` the first usual place that has one.
        loaded: paths of the images it has already (`read_loaded_paths`), other files are left out; `None` for none.
        files: the files, when they are at hand already; they must be those of `root`.
        is_secure: the process is in secure mode (AT_SECURE).
        kind: an image that the process is to load. Where the program is for another machine, the process is one of
            the image's machine. Its loader then is the one in the usual place of the system.
    Returns a `MuslContext` when the program's loader is musl's. What could not be read is in `notes`.
    """
    files = files or HostFilesystem(root)
    if environment is None:
        environment = os.environ if root is None else {}
    if program is None:
        program = sys.executable or OWN_PROGRAM if root is None else _find_program(files)
    image, notes = _read_program(program, files)
    if kind is not None and (image is None or not _is_for_machine_of(kind, image)):
        image, program, notes = None, None, ()
    common = LinuxContext(
        program=None if program is None else files.real_path(program),
        preload=tuple(environment.get("LD_PRELOAD", "").replace(":", " ").split()),
        current_folder=(current_folder() if root is None else "") or "/",
        notes=notes,
        secure=is_secure,
    )
    loader = None
    like = image or kind
    if like is not None:
        common = replace(
            common, bits=like.bits, little_endian=like.little_endian, machine=like.machine, flags=like.flags
        )
        loader = like.interpreter
    loader = loader or _find_loader(common, files)
    if loader is None and image is None and kind is not None:
        made = describe_kind(kind.bits, kind.little_endian, kind.machine)
        common = replace(common, notes=(*common.notes, f"no program and no loader of this system is for {made}"))
    common = replace(common, loaded=_read_loaded(loaded or (), common.program, image, files))
    library_path = environment.get("LD_LIBRARY_PATH", "")
    if loader is not None and "ld-musl-" in loader:
        return _musl_context(common, loader, library_path, files)
    facts = None
    if root is None and loader is not None and _is_own_loader(loader, files):
        facts = ask_loader(loader, OWN_PROGRAM, environment.get("GLIBC_TUNABLES"))
    return _glibc_context(common, loader, library_path, files, facts)


def read_loaded_paths() -> tuple[str, ...]:
    """The files mapped into this process, images and others (/proc/self/maps, proc(5)); empty where there is none."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as stream:
            return parse_maps(stream.read())
    except OSError:
        return ()


def parse_maps(text: str) -> tuple[str, ...]:
    """The files in the text of /proc/PID/maps, each once; none that was deleted.

    Images are not all: one that is only data has no code to tell it by.
    """
    import re  # not above: `deps` has no use for it

    mapping = re.compile(_MAPPING)
    paths = dict.fromkeys(match[1] for match in map(mapping.fullmatch, text.split("\n")) if match)
    return tuple(path for path in paths if not path.endswith(" (deleted)"))


def _read_program(program: str | None, files: HostFilesystem) -> tuple[ElfImage | None, tuple[str, ...]]:
    if program is None:
        return None, ("no program was found that tells the machine: x86-64 is assumed",)
    try:
        image = files.read_image(program)
    except (OSError, BinaryFormatError) as error:
        return None, (f"{program} could not be read, x86-64 is assumed: {error}",)
    if not isinstance(image, ElfImage):
        return None, (f"{program} is not an ELF file: x86-64 is assumed",)
    if image.interpreter is None:
        return image, (f"{program} names no loader: that of this system is assumed",)
    return image, ()


def _is_own_loader(loader: str, files: HostFilesystem) -> bool:
    """Return whether a file is the loader of this very process. No other is run: a file to be examined may name
    anything."""
    try:
        image = files.read_image(OWN_PROGRAM)
    except (OSError, BinaryFormatError):
        return False
    own = image.interpreter if isinstance(image, ElfImage) else None
    return own is not None and files.identity(own) == files.identity(loader) is not None


def _find_program(files: HostFilesystem) -> str | None:
    return next((path for path in _PROGRAMS if files.identity(path)), None)


def _is_for_machine_of(kind: ElfImage, image: ElfImage) -> bool:
    made, wanted = [(one.bits, one.little_endian, one.machine) for one in (kind, image)]
    return made == wanted


def _find_loader(context: LinuxContext, files: HostFilesystem) -> str | None:
    """The loader where the usual programs of that kind lie, or in its usual place, where the program names none."""
    wanted = (context.bits, context.little_endian, context.machine)
    for path in _PROGRAMS:
        try:
            image = files.read_image(path)
        except (OSError, BinaryFormatError):
            continue
        if not isinstance(image, ElfImage) or (image.bits, image.little_endian, image.machine) != wanted:
            continue
        if image.interpreter:
            return image.interpreter
    from .processors import LOADERS

    usual = LOADERS.get(context.abi() or "")
    return usual if usual is not None and files.identity(usual) is not None else None


def _read_loaded(
    paths: Iterable[str], program: str | None, image: ElfImage | None, files: HostFilesystem
) -> tuple[LoadedImage, ...]:
    """The images at these paths but for the program. What another one needs is a name by which an image was found."""
    images: dict[str, ElfImage] = {}
    for path in paths:
        if path == program:
            continue
        try:
            found = files.read_image(path)
        except (OSError, BinaryFormatError):
            continue
        if isinstance(found, ElfImage):
            images[path] = found
    needed = {need for requester in (image, *images.values()) if requester is not None for need in requester.needed}
    loaded = []
    for path, found in images.items():
        names = {found.soname or "", path.rpartition("/")[2]} & needed
        loaded.append(LoadedImage(path, found.soname, tuple(sorted(names))))
    return tuple(loaded)


def _glibc_context(
    common: LinuxContext, loader: str | None, library_path: str, files: HostFilesystem, facts: LoaderFacts | None
) -> GlibcContext:
    """Return what a glibc depends on. Arguments: `facts`, the loader's own answer; `None`: they are guessed."""
    own = _bytes_or_empty(loader, files)
    is_of_this_machine = facts is not None
    if facts is None:
        from .processors import guess_facts, read_processor

        processor = read_processor(common)
        is_of_this_machine = processor is not None
        facts = guess_facts(own, common, processor)
    if is_of_this_machine:
        import mmap

        common = replace(common, page_size=mmap.PAGESIZE)
    notes = [*common.notes, *facts.notes]
    try:
        cache = parse_ld_cache(files.read_bytes(CACHE))
    except FileNotFoundError:
        cache = ()
    except (OSError, BinaryFormatError) as error:
        cache = ()
        notes.append(f"{CACHE} could not be read: {error}")
    common = replace(
        common, system_folders=facts.system_folders, notes=tuple(notes),
        library_path=tuple(library_path.replace(";", ":").split(":")) if library_path else (),
    )  # fmt: skip
    return GlibcContext(
        **{name: getattr(common, name) for name in LinuxContext.__match_args__},
        cache=cache,
        cache_path=CACHE,
        subfolders=facts.subfolders,
        lib=facts.lib,
        platform=facts.platform,
        loader=loader,
        # The messages in a glibc show which rules it has: 2.35 has others.
        checks_alignment=b"ELF load command alignment not page-aligned" in own,
    )


def _musl_context(common: LinuxContext, loader: str, library_path: str, files: HostFilesystem) -> MuslContext:
    name = loader.rpartition("/")[2].removesuffix(".so.1")
    folders: tuple[str, ...] = MUSL_FOLDERS
    try:
        folders = _musl_folders(files.read_bytes(f"/etc/{name}.path").decode("utf-8", "surrogateescape"))
    except FileNotFoundError:
        pass
    except (OSError, BinaryFormatError):
        folders = ()  # musl then looks nowhere
    common = replace(common, library_path=_musl_folders(library_path), system_folders=folders)
    return MuslContext(**{name: getattr(common, name) for name in LinuxContext.__match_args__}, loader=loader)


def _musl_folders(text: str) -> tuple[str, ...]:
    return tuple(folder for folder in text.replace("\n", ":").split(":") if folder)


def _bytes_or_empty(path: str | None, files: HostFilesystem) -> bytes:
    try:
        return b"" if path is None else files.read_bytes(path)
    except (OSError, BinaryFormatError):
        return b""
