"""Works out from files what the loader of a Linux process would do with a file: glibc's and musl's."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping

from ..model.elf import DF_1_NODEFLIB, ElfImage
from ..model.events import Phase, Probe, ProbeOutcome
from ..model.light import replace
from ..model.loader_context import MACHINES_WITH_ABIS, CacheEntry, FileKind, GlibcContext, LoadedImage, MuslContext
from ..model.tree import LoadTree
from .lookup import TAKEN, Filesystem, HeaderCheck, LookupStep, judge_for_glibc, judge_for_musl, judge_image
from .walk import ElfRequester, LinuxWalk, SearchMemo, read_requester, with_preloaded, without_environment

_OWN_NAMES = ("libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet.")
"""Names that musl answers with itself, whatever files there are."""

_LONGEST_PATH = 511
"""musl puts a path together in 2 * NAME_MAX + 2 bytes, and passes over a place that does not fit."""

_LONGEST_NAME = 255


def resolve_musl(path: str, context: MuslContext, files: Filesystem, *, program: bool = False) -> LoadTree:
    """Work out what dlopen(path, RTLD_NOW) would do in a process, without loading anything.

    Arguments and result as for `resolve_glibc`.
    """
    rules = MuslRules(context, files, path if program else None)
    preload = rules.context.preload if program else ()
    notes = (*rules.context.notes, *rules.notes)
    return LinuxWalk(rules.context, files, rules).follow(path, rules.main, rules.main, notes, preload)


class MuslRules:
    """The rules of musl in one process (`walk.LinuxRules`).

    Attributes: `notes`, what could not be read; `main`, the program, which every dlopen inherits from; `context` as it
    counts.
    """

    def __init__(self, context: MuslContext, files: Filesystem, program: str | None) -> None:
        if context.secure:
            context = without_environment(context)
        self.notes: list[str] = []
        self.on_symlink_loop = LookupStep.STOP  # path_open: an error of no known kind ends every search
        self.main: ElfRequester | None = None
        self._files = files
        if program is not None:
            context = replace(context, program=program, loaded=())
        else:
            context = with_preloaded(context, files)
        if program is None and context.program is not None:
            found = read_requester(context.program, files)
            if isinstance(found, str):
                self.notes.append(found)
            else:
                self.main = found
        self.context = context
        self._loaded_names: dict[str, str] = {}
        for loaded in context.loaded:
            for name in loaded.names:
                self._loaded_names.setdefault(name, loaded.path)
        self._names = dict(self._loaded_names)

    def start_load(self) -> None:
        """Forget what a load has brought: the next one begins in the same process."""
        self._names = dict(self._loaded_names)

    def search_key(self, requester: ElfRequester | None) -> object:
        folders: list[str] = []
        while requester is not None:
            folders += self._own_folders(requester)
            requester = requester.by
        return tuple(folders)

    def expand(self, need: str, requester: ElfRequester | None) -> str | None:
        return need

    def find_known(self, name: str) -> str | None:
        if name.startswith(_OWN_NAMES) or name == self.context.loader:
            return self.context.loader
        return None if "/" in name else self._names.get(name)

    def remember(self, name: str, path: str, image: ElfImage | None) -> None:
        """Only what was searched for gets a name to be found by, and that is its file's: DT_SONAME does not count."""
        if "/" not in name:
            self._names.setdefault(posixpath.basename(path), path)

    def judge_head(self, head: bytes) -> HeaderCheck:
        return judge_for_musl(head, self.context)

    def judge_image(self, image: object, *, is_top: bool) -> HeaderCheck:
        if isinstance(image, ElfImage) and image.is_dynamic:
            return TAKEN
        return HeaderCheck(LookupStep.STOP, "Exec format error: no dynamic section")

    def list_places(self, name: str, requester: ElfRequester | None) -> Iterator[Probe]:
        if "/" in name:
            yield Probe(name, Phase.DIRECT)
            return
        if len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
            return
        yield from _in_folders(self.context.library_path, name, Phase.ENVIRONMENT)
        ancestor = requester
        while ancestor is not None:
            # Either kind of path is inherited by what an image needs; of both, RUNPATH counts.
            phase = Phase.RPATH if ancestor.image.runpath is None else Phase.RUNPATH
            yield from _in_folders(self._own_folders(ancestor), name, phase, ancestor.path)
            ancestor = ancestor.by
        yield from _in_folders(self.context.system_folders, name, Phase.SYSTEM)

    def _own_folders(self, ancestor: ElfRequester) -> list[str]:
        text = ancestor.image.rpath if ancestor.image.runpath is None else ancestor.image.runpath
        if not text:
            return []
        if "$" not in text:
            return split_folders(text)
        rest = text.replace("${ORIGIN}", "").replace("$ORIGIN", "")
        if "$" in rest:
            return []  # musl knows one token, and ignores a path with any other
        origin = self._origin_of(ancestor.path)
        return split_folders(origin.join(part.replace("$ORIGIN", origin) for part in text.split("${ORIGIN}")))

    def _origin_of(self, path: str) -> str:
        if path == self.context.program:
            path = self._files.real_path(posixpath.join(self.context.current_folder, path))
        return path.rpartition("/")[0] if "/" in path else "."


def split_folders(text: str) -> list[str]:
    """The folders of a search path of musl: divided by colons or line ends, the empty ones left out."""
    return [folder for folder in text.replace("\n", ":").split(":") if folder]


def _in_folders(folders: Iterable[str], name: str, phase: Phase, origin: str | None = None) -> Iterator[Probe]:
    for folder in folders:
        path = f"{folder}/{name}"
        if folder and len(path.encode("utf-8", "surrogateescape")) <= _LONGEST_PATH:
            yield Probe(path, phase, origin)


def resolve_linux(
    path: str, context: GlibcContext | MuslContext, files: Filesystem, *, program: bool = False
) -> LoadTree:
    """`resolve_glibc` or `resolve_musl`, by the kind of the context."""
    if isinstance(context, MuslContext):
        return resolve_musl(path, context, files, program=program)
    return resolve_glibc(path, context, files, program=program)


_TOKENS = ("ORIGIN", "{ORIGIN}", "LIB", "{LIB}", "PLATFORM", "{PLATFORM}")
"""What a dollar sign stands before, and no letter, digit or underscore behind; ld.so(8) "Dynamic string tokens",
_dl_dst_substitute in elf/dl-load.c."""

_LIBC6 = 0x0003
_CACHE_FLAGS = {
    "x86-64": 0x0303, "x32": 0x0803, "aarch64": 0x0A03, "aarch64_be": 0x0A03, "armhf": 0x0903, "armsf": 0x0B03,
    "ppc64": 0x0503, "ppc64-v1": 0x0503, "ppc64-v2": 0x0503, "s390x": 0x0403, "sparc64": 0x0103,
    "riscv64-lp64": 0x0F03, "riscv64-lp64d": 0x1003, "riscv32-ilp32": 0x0F03, "riscv32-ilp32d": 0x1003,
    "loongarch64-lp64s": 0x1103, "loongarch64-lp64d": 0x1203,
    "mips-n32": 0x0603, "mips-n64": 0x0703, "mips-o32-nan2008": 0x0C03, "mips-n32-nan2008": 0x0D03,
    "mips-n64-nan2008": 0x0E03,
}  # fmt: skip
"""ABI (`linux_abi`) to the flags of the cache entries that its glibc takes (sysdeps/generic/ldconfig.h; the dl-cache.h
of each machine below sysdeps/unix/sysv/linux). Other machines of 32 bits have the plain `_LIBC6`."""


def resolve_glibc(path: str, context: GlibcContext, files: Filesystem, *, program: bool = False) -> LoadTree:
    """Work out what dlopen(path, RTLD_NOW) would do in a process, without loading anything.

    Arguments:
        path: the file, or a name without a folder to be searched for.
        context: the process. What it has loaded stays as it is: it is not looked at again.
        files: the files that the process sees.
        program: `path` is a program that would be started; `context.program`, `caller` and `loaded` do not count.
    Returns the tree. The real loader stops at the first need it cannot satisfy; the walk goes on and names them all.
    `bindings` has `path` itself only when it was searched for or cannot be loaded.
    """
    rules = GlibcRules(context, files, path if program else None)
    preload = rules.context.preload if program else ()
    notes = (*rules.context.notes, *rules.notes)
    return LinuxWalk(rules.context, files, rules).follow(path, rules.caller, None, notes, preload)


class GlibcRules:
    """The rules of glibc in one process (`walk.LinuxRules`).

    Attributes: `notes`, what could not be read; `caller`, the image that calls dlopen; `context` as it counts.
    Argument: `like`, rules for the same system, whose choice of the cache's entries is taken over.
    """

    def __init__(
        self, context: GlibcContext, files: Filesystem, program: str | None, like: GlibcRules | None = None
    ) -> None:  # fmt: skip
        if context.secure:
            context = without_environment(context)
        self.notes: list[str] = []
        self.on_symlink_loop = LookupStep.NEXT_RULE  # an error that is neither ENOENT nor EACCES ends open_path
        self._files = files
        self._starts_program = program is not None
        self._main: ElfRequester | None = None
        self.caller: ElfRequester | None = None
        if program is None:
            self._main = self._read(context.program)
            self.caller = self._read(context.caller) or self._main
            context = with_preloaded(context, files)
        else:
            context = _at_start(context, program, files)
        if context.loader is not None:
            ld_so = LoadedImage(context.loader, posixpath.basename(context.loader))
            context = replace(context, loaded=(*context.loaded, ld_so))
        self.context = context
        self._loaded_names: dict[str, str] = {}
        for loaded in context.loaded:
            for name in (loaded.path, loaded.soname, *loaded.names):
                if name:
                    self._loaded_names.setdefault(name, loaded.path)
        self._names = dict(self._loaded_names)
        self._keys: dict[str, object] = {}
        self._cache: dict[str, str] = _choose_entries(context) if like is None else like._cache
        self._folders: dict[tuple[str, Phase], tuple[str, ...]] = {}
        self._existing: dict[str, bool] = {} if like is None else like._existing

    def start_load(self) -> None:
        """Forget what a load has brought: the next one begins in the same process."""
        self._names = dict(self._loaded_names)

    def search_key(self, requester: ElfRequester | None) -> object:
        if requester is not None and (requester.by is None or requester.image.runpath is not None):
            key = self._keys.get(requester.path)
            if key is None:
                key = self._keys[requester.path] = self._make_key(requester)
            return key
        return self._make_key(requester)

    def _make_key(self, requester: ElfRequester | None) -> object:
        rpaths: tuple[str, ...] = ()
        if requester is None or requester.image.runpath is None:
            chain = self._rpath_chain(requester)
            rpaths = tuple(folder for each in chain for folder in self._own_folders(each, Phase.RPATH))
        # $ORIGIN in LD_LIBRARY_PATH is the folder of the program.
        program = self.context.program if any("$" in folder for folder in self.context.library_path) else None
        if requester is None:
            return rpaths, program
        no_defaults = bool(requester.image.dynamic_flags_1 & DF_1_NODEFLIB)
        return rpaths, self._own_folders(requester, Phase.RUNPATH), no_defaults, program

    def _read(self, path: str | None) -> ElfRequester | None:
        if path is None:
            return None
        found = read_requester(path, self._files)
        if isinstance(found, str):
            self.notes.append(found)
            return None
        return found

    def expand(self, need: str, requester: ElfRequester | None) -> str | None:
        if "$" not in need:
            return need
        return expand_tokens(need, self._values(requester.path if requester else self.context.program))

    def find_known(self, name: str) -> str | None:
        return self._names.get(name)

    def remember(self, name: str, path: str, image: ElfImage | None) -> None:
        self._names.setdefault(name, path)
        if image is not None:
            self._names.setdefault(path, path)
            if image.soname:
                self._names.setdefault(image.soname, path)

    def judge_head(self, head: bytes) -> HeaderCheck:
        return judge_for_glibc(head, self.context)

    def judge_image(self, image: object, *, is_top: bool) -> HeaderCheck:
        return judge_image(image, self.context, program=is_top and self._starts_program)

    def list_places(self, name: str, requester: ElfRequester | None) -> Iterator[Probe]:
        if "/" in name:
            yield Probe(name, Phase.DIRECT)
            return
        if requester is None or requester.image.runpath is None:
            for ancestor in self._rpath_chain(requester):
                yield from self._in_folders(self._own_folders(ancestor, Phase.RPATH), name, Phase.RPATH, ancestor.path)
        if self.context.library_path:
            folders = expand_folders(self.context.library_path, self._values(self.context.program))
            yield from self._in_folders(folders, name, Phase.ENVIRONMENT)
        if requester is not None:
            folders = self._own_folders(requester, Phase.RUNPATH)
            yield from self._in_folders(folders, name, Phase.RUNPATH, requester.path)
        requester_or_main = requester or self._main
        no_defaults = requester_or_main is not None and bool(requester_or_main.image.dynamic_flags_1 & DF_1_NODEFLIB)
        yield self._in_cache(name, no_defaults)
        if not no_defaults:
            yield from self._in_folders(self._system_folders(), name, Phase.SYSTEM)

    def _rpath_chain(self, requester: ElfRequester | None) -> Iterator[ElfRequester]:
        """Whose RPATH counts: the one that asks, the one that asked for it, and so on; then the main program."""
        ancestor = requester
        did_main = False
        while ancestor is not None:
            did_main = did_main or (self._main is not None and ancestor.path == self._main.path)
            yield ancestor
            ancestor = ancestor.by
        if not did_main and self._main is not None:
            yield self._main

    def _own_folders(self, ancestor: ElfRequester, phase: Phase) -> tuple[str, ...]:
        """The folders of an image's RPATH or RUNPATH. An RPATH beside a RUNPATH is ignored, an empty one as well."""
        key = (ancestor.path, phase)
        if key not in self._folders:
            image = ancestor.image
            text = image.runpath if phase is Phase.RUNPATH else image.rpath if image.runpath is None else None
            elements = text.split(":") if text else []
            values = self._values(ancestor.path) if elements else {}
            if self.context.secure:
                elements = [element for element in elements if self._is_trusted(element, values)]
            self._folders[key] = expand_folders(elements, values)
        return self._folders[key]

    def _is_trusted(self, element: str, values: Mapping[str, str | None]) -> bool:
        """Return whether an element counts in secure mode: with $ORIGIN only when it leads to a folder of the system.

        Whoever may write beside a program must not choose what a privileged run of it loads
        (is_trusted_path_normalize in elf/dl-load.c).
        """
        if "ORIGIN" not in element:
            return True
        folder = expand_tokens(element, values)
        return folder is not None and f"{posixpath.normpath(folder)}/".startswith(self._system_folders())

    def _values(self, path: str | None) -> dict[str, str | None]:
        return {"ORIGIN": self._origin_of(path), "LIB": self.context.lib, "PLATFORM": self.context.platform}

    def _origin_of(self, path: str | None) -> str | None:
        """Return the folder that $ORIGIN stands for in an image.

        It is the folder of the path by which the image was opened, links not followed: l_origin is cut from l_name
        (_dl_get_origin is for the program alone, which the kernel names without links in /proc/self/exe). A module
        that is a symbolic link looks beside the link, not beside the file.
        """
        if path is None:
            return None
        whole = posixpath.join(self.context.current_folder, path)
        if path == self.context.program:
            whole = self._files.real_path(whole)
        return posixpath.dirname(whole)

    def _in_folders(
        self, folders: Iterable[str], name: str, phase: Phase, origin: str | None = None
    ) -> Iterator[Probe]:
        for folder in folders:
            # glibc tries a subfolder that is not there once in its life, and then remembers.
            for subfolder in self.context.subfolders if self._exists(folder) else ():
                if self._exists(f"{folder}{subfolder}"):
                    yield Probe(f"{folder}{subfolder}/{name}", phase, origin)
            yield Probe(f"{folder}{name}", phase, origin)

    def _exists(self, folder: str) -> bool:
        if folder not in self._existing:
            whole = posixpath.join(self.context.current_folder, folder)
            self._existing[folder] = self._files.kind(whole) is FileKind.FOLDER
        return self._existing[folder]

    def _in_cache(self, name: str, no_defaults: bool) -> Probe:
        path = self._cache.get(name)
        if path is None:
            return Probe(self.context.cache_path, Phase.CACHE, None, ProbeOutcome.NO_ENTRY)
        if no_defaults and path.startswith(self._system_folders()):
            reason = "the image that asks was linked not to use the default folders (DF_1_NODEFLIB)"
            return Probe(path, Phase.CACHE, self.context.cache_path, ProbeOutcome.PRESENT, reason)
        return Probe(path, Phase.CACHE, self.context.cache_path)

    def _system_folders(self) -> tuple[str, ...]:
        return tuple(f"{folder.rstrip('/')}/" for folder in self.context.system_folders)


def _at_start(context: GlibcContext, program: str, files: Filesystem) -> GlibcContext:
    """The context of a process that begins: it has its loader, and nothing else."""
    found = read_requester(program, files)
    named = None if isinstance(found, str) else found.image.interpreter
    return replace(context, program=program, caller=None, loaded=(), loader=named or context.loader)


def _choose_entries(context: GlibcContext) -> dict[str, str]:
    """The file that the cache gives for each name: of the first glibc-hwcaps folder that has it; else the plain one."""
    wanted = _wanted_flags(context)
    ranks = {name: rank for rank, name in enumerate(context.subfolders)}
    plain_rank = len(ranks)
    chosen: dict[str, tuple[int, str]] = {}
    for entry in context.cache:
        rank = _rank_entry(entry, wanted, ranks, plain_rank)
        if rank is None:
            continue
        best = chosen.get(entry.soname)
        if best is None or rank < best[0]:
            chosen[entry.soname] = (rank, entry.path)
    return {name: path for name, (_, path) in chosen.items()}


def _wanted_flags(context: GlibcContext) -> frozenset[int] | None:
    """The flags of the entries that count; `None` for any of libc6, where the ABI of the process is not known."""
    abi = context.abi()
    if abi is None or (context.flags is None and context.machine in MACHINES_WITH_ABIS):
        return None
    wanted = _CACHE_FLAGS.get(abi, _LIBC6)
    # ARM: a library that is not marked fits both (sysdeps/unix/sysv/linux/arm/dl-cache.h).
    return frozenset((wanted, _LIBC6)) if abi.startswith("arm") else frozenset((wanted,))


def _rank_entry(
    entry: CacheEntry, wanted: frozenset[int] | None, ranks: dict[str, int], plain_rank: int
) -> int | None:  # fmt: skip
    if entry.flags & 0xFF != _LIBC6 if wanted is None else entry.flags not in wanted:
        return None
    if entry.subfolder is not None:
        return ranks.get(f"glibc-hwcaps/{entry.subfolder}")
    # Another hwcap names features of the processor by bits that only that machine's glibc can tell.
    return None if entry.hwcap else plain_rank


def expand_tokens(text: str, values: Mapping[str, str | None]) -> str | None:
    """Put the values of tokens in.

    Arguments: `values`, of ORIGIN, LIB and PLATFORM.
    Returns the text; `None` when it has a token whose value is `None`, for glibc then drops the whole text. A dollar
    sign before any other word stays.
    """
    if "$" not in text:
        return text
    # By methods of strings: to import `re` would take longer than all the rest of `deps` of one wheel.
    parts = text.split("$")
    for number, part in enumerate(parts[1:], 1):
        token = next((token for token in _TOKENS if part.startswith(token) and not _is_word(part[len(token) :])), None)
        value = f"${part}"
        if token is not None:
            found = values.get(token.strip("{}"))
            if found is None:
                return None
            value = found + part[len(token) :]
        parts[number] = value
    return "".join(parts)


def _is_word(text: str) -> bool:
    """Return whether a word goes on in this text."""
    return text[:1].isascii() and (text[:1].isalnum() or text[:1] == "_")


def expand_folders(elements: Iterable[str], values: Mapping[str, str | None]) -> tuple[str, ...]:
    """The folders that the elements of a search path stand for, each once, in order, with a slash at the end.

    An empty element is the current folder, and stays empty; one that tokens make empty is dropped.
    """
    folders: dict[str, None] = {}
    for element in elements:
        folder = expand_tokens(element, values)
        if folder is None or (element and not folder):
            continue
        if folder:
            folder = f"{folder.rstrip('/')}/"
        folders[folder] = None
    return tuple(folders)


class LinuxResolver:
    """Follows many loads, each in a fresh process of the same kind, and searches for what they share only once.

    The trees are those of `resolve_linux` without probes. Files are taken not to change meanwhile.

    Arguments: `context`, the process of the loads that are no programs; `files`, as for `resolve_glibc`.
    """

    def __init__(self, context: GlibcContext | MuslContext, files: Filesystem) -> None:
        self._context = context
        self._files = files
        self._memo = SearchMemo()
        self._rules = self._make_rules(None)

    def follow(self, path: str, *, program: bool = False) -> LoadTree:
        """Return the tree of a load; arguments as for `resolve_glibc`."""
        rules = self._rules
        if program:
            rules = self._make_rules(path)
        else:
            rules.start_load()
        notes = (*rules.context.notes, *rules.notes)
        walk = LinuxWalk(rules.context, self._files, rules, self._memo)
        preload = rules.context.preload if program else ()
        if isinstance(rules, MuslRules):
            return walk.follow(path, rules.main, rules.main, notes, preload)
        return walk.follow(path, rules.caller, None, notes, preload)

    def _make_rules(self, program: str | None) -> GlibcRules | MuslRules:
        if isinstance(self._context, MuslContext):
            return MuslRules(self._context, self._files, program)
        like = self._rules if program is not None and isinstance(self._rules, GlibcRules) else None
        return GlibcRules(self._context, self._files, program, like)
