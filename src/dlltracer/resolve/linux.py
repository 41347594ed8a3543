"""What the loader of a Linux process would do, worked out from files: musl's here, glibc's in `resolve.glibc`.

Source: load_library, path_open and fixup_rpath in ldso/dynlink.c of musl 1.2.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from ..model.elf import ElfImage
from ..model.events import Phase, Probe
from ..model.light import replace
from ..model.loader_context import GlibcContext, MuslContext
from ..model.tree import LoadTree
from .glibc import GlibcRules, resolve_glibc
from .lookup import TAKEN, Filesystem, HeaderCheck, LookupStep, judge_for_musl
from .walk import ElfRequester, LinuxWalk, SearchMemo, read_requester, with_preloaded, without_environment

_OWN_NAME = re.compile(r"lib(?:c|pthread|rt|m|dl|util|xnet)\.")
"""Names that musl answers with itself, whatever files there are."""

_LONGEST_PATH = 511
"""musl puts a path together in 2 * NAME_MAX + 2 bytes, and passes over a place that does not fit."""

_LONGEST_NAME = 255


def resolve_musl(path: str, context: MuslContext, files: Filesystem, *, program: bool = False) -> LoadTree:
    """Work out what dlopen(path, RTLD_NOW) would do in a process, without loading anything.

    Arguments and result as for `glibc.resolve_glibc`.
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
        if _OWN_NAME.match(name) or name == self.context.loader:
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
        return split_folders(re.sub(r"\$(?:ORIGIN|\{ORIGIN\})", lambda _: self._origin_of(ancestor.path), text))

    def _origin_of(self, path: str) -> str:
        if path == self.context.program:
            path = self._files.real_path(posixpath.join(self.context.current_folder, path))
        return path.rpartition("/")[0] if "/" in path else "."


def split_folders(text: str) -> list[str]:
    """The folders of a search path of musl: divided by colons or line ends, the empty ones left out."""
    return [folder for folder in re.split(r"[:\n]", text) if folder]


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
