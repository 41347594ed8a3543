"""A process of Linux as its interpreter described it, seen through the files (Windows: `windows_process`)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..binary.elf import read_elf
from ..binary.notimage import HEAD_SIZE, describe_not_image
from ..diagnose.case import Case
from ..diagnose.environment import Change
from ..errors import BinaryFormatError
from ..host.filesystem import HostFilesystem
from ..host.linux import read_linux_context
from ..host.machine import this_system
from ..model.elf import ElfImage
from ..model.failure import ProcessFacts, System
from ..model.probe import FileKind
from ..model.symbols import MissingSymbol, MissingVersion
from ..model.tree import BindingState, LoadTree
from ..resolve.elf_symbols import find_missing_symbols, find_missing_versions
from ..resolve.linux import resolve_linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.linux_context import GlibcContext, MuslContext
    from ..model.recording import Recording

ELF_MAGIC = b"\x7fELF"

Lack = tuple[tuple[MissingSymbol, ...], tuple[MissingVersion, ...]]


class ProcessView:
    """Answers questions about one process. What could not be looked at is in `notes`."""

    def __init__(self, process: ProcessFacts, recording: Recording | None = None) -> None:
        self._process = _as_traced(process, recording)
        self._linux = HostFilesystem()
        self._in_linux: GlibcContext | MuslContext | None = None
        self._scope: tuple[str, ...] | None = None
        self._notes: list[str] = []
        self._is_here = process.system is this_system()
        if not self._is_here:
            self._notes.append(f"this machine is not {process.system.value}: its files were not looked at")

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def resolve(self, subject: str) -> tuple[LoadTree | None, str | None]:
        """What loading `subject` into the process would do, or what is wrong with the file itself."""
        if not self._is_here or self._linux.kind(subject) is not FileKind.FILE:
            return None, None
        if subject in self._process.loaded:
            self._process = replace(
                self._process, loaded=tuple(path for path in self._process.loaded if path != subject)
            )  # fmt: skip
        problem = self.damage(subject)
        if problem is not None:
            return None, problem
        return resolve_linux(subject, self._linux_context(), self._linux), None

    def resolve_otherwise(self, subject: str, change: Change) -> LoadTree | None:
        """What loading `subject` would have done if something had been otherwise; `None` if nothing would have been."""
        context = self._linux_context()
        if change is Change.NO_LIBRARY_PATH:
            if not any(context.library_path):
                return None
            return resolve_linux(subject, replace(context, library_path=()), self._linux)
        # Without what LD_PRELOAD brought, too: it is the first of a name before any other.
        scope = {self.real_path(path) for path in self._images_at_start(replace(context, preload=()))}
        first = tuple(image for image in context.loaded if self.real_path(image.path) in scope)
        return resolve_linux(subject, replace(context, loaded=first), self._linux)

    def provides_missing(self, path: str, case: Case) -> bool:
        """Whether an image has the version, or else the symbol, that is missing first of all."""
        image = self.read_image(path)
        if image is None:
            return False
        if case.versions:
            return case.versions[0].version in image.version_defs
        if not case.symbols or image.symbols is None:
            return False
        versions = image.symbols.provides.get(case.symbols[0].name)
        return versions is not None and (case.symbols[0].version is None or case.symbols[0].version in versions)

    def real_path(self, path: str) -> str:
        """The path without links; as it is, if the files are not here."""
        return self._linux.real_path(path) if self._is_here else path

    def is_same(self, path: str, other: str) -> bool:
        """Whether two paths are one file."""
        return self.real_path(path) == self.real_path(other)

    def damage_of(self, paths: Iterable[str]) -> dict[str, str]:
        """What is wrong with those of the files that are no whole images."""
        found = {path: self.damage(path) for path in paths if self._is_here}
        return {path: problem for path, problem in found.items() if problem is not None}

    def read_image(self, path: str) -> ElfImage | None:
        """The image there, with symbols; `None` if there is none, or for another system."""
        try:
            return read_elf(path, symbols=True)
        except (BinaryFormatError, OSError):
            return None

    def damage(self, path: str) -> str | None:
        """What is wrong with a file as an image; `None` if it is one, for whatever machine."""
        try:
            head = self._linux.read_head(path, HEAD_SIZE)
            if not head.startswith(ELF_MAGIC):
                return f"this is {describe_not_image(head) or 'no ELF file'}"
            read_elf(path, symbols=True)
        except BinaryFormatError as error:
            return error.problem
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"
        return None

    def read_images(self, tree: LoadTree | None) -> dict[str, ElfImage]:
        """The images of the tree and those the process had, with symbols; those that cannot be read are left out."""
        paths = dict.fromkeys((*(tree.images if tree is not None else ()), *self._process.loaded))
        found = {path: self.read_image(path) for path in paths if self._is_here}
        return {path: image for path, image in found.items() if image is not None}

    def find_missing(self, tree: LoadTree | None, images: Mapping[str, ElfImage]) -> Lack:
        """Symbols and versions that nothing in the reach of the tree's images provides."""
        if tree is None:
            return (), ()
        scope = self._global_scope()
        elf = dict(images)
        for path in scope:
            image = elf.get(path) or self.read_image(path)
            if image is not None:
                elf[path] = image
        # The program and what came with it are in the scope of every load; what was loaded later by others is not.
        order = list(dict.fromkeys(path for path in (*scope, *_reach(tree, elf)) if path in elf))
        of_tree = set(tree.images)
        complete = not any(binding.state is not BindingState.BOUND for binding in tree.bindings)
        symbols = find_missing_symbols(elf, order, complete=complete)
        versions = find_missing_versions(elf, order)
        return (
            tuple(symbol for symbol in symbols if symbol.requested_by in of_tree),
            tuple(version for version in versions if version.requested_by in of_tree),
        )

    def incompatibility(self, path: str) -> str | None:
        """Why an image could not be loaded into the process at all; `None` if nothing speaks against it."""
        problem = self.damage(path)
        if problem is not None:
            return problem
        image, context = read_elf(path), self._linux_context()
        if image.machine != context.machine:
            return "it is for another kind of processor"
        if image.bits != self._process.bits:
            return f"it is for {image.bits}-bit programs"
        return None

    def _global_scope(self) -> tuple[str, ...]:
        """The program and all that came with it."""
        if self._scope is None:
            self._scope = self._images_at_start(self._linux_context())
        return self._scope

    def _images_at_start(self, context: GlibcContext | MuslContext) -> tuple[str, ...]:
        """The images that the program of a context starts with."""
        program = context.program
        if program is None:
            return ()
        return tuple(resolve_linux(program, replace(context, loaded=()), self._linux, program=True).images)

    def _linux_context(self) -> GlibcContext | MuslContext:
        if self._in_linux is None:
            process = self._process
            self._in_linux = read_linux_context(
                environment=process.loader_environment, program=process.executable,
                loaded=process.loaded, files=self._linux, is_secure=process.is_secure,
            )  # fmt: skip
            self._notes += self._in_linux.notes
        return self._in_linux


def _as_traced(process: ProcessFacts, recording: Recording | None) -> ProcessFacts:
    """The process, with the names of its images as the loader had them: the system knows files by their real paths."""
    if process.system is not System.LINUX or recording is None:
        return process
    files = HostFilesystem()
    names = {files.real_path(event.path): event.path for event in recording.loads}
    return replace(process, loaded=tuple(names.get(path, path) for path in process.loaded))


def _reach(tree: LoadTree, images: Mapping[str, ElfImage]) -> list[str]:
    """The images that a load binds to: those it brings, those it finds in the process already, and what they need."""
    names: dict[str, str] = {}
    for path, image in images.items():
        for name in (image.soname, posixpath.basename(path)):
            if name:
                names.setdefault(name, path)
    reach = dict.fromkeys((*tree.images, *(binding.path for binding in tree.bindings if binding.path is not None)))
    queue = [path for path in reach if path not in tree.images]
    while queue:
        requester = images.get(queue.pop())
        for need in () if requester is None else requester.needed:
            found = names.get(need)
            if found is not None and found not in reach:
                reach[found] = None
                queue.append(found)
    return list(reach)
