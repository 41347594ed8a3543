"""Says what the loader of a Linux process would do with a file, by the settings, folders and images of the process."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..binary.elf import read_elf
from ..binary.reading import HEAD_SIZE, describe_not_image
from ..diagnose.case import Case, Change
from ..errors import BinaryFormatError
from ..host.filesystem import HostFilesystem
from ..host.linux import read_linux_context
from ..host.machine import this_system
from ..model.elf import ElfImage, describe_kind
from ..model.failure import ProcessFacts, System
from ..model.loader_context import FileKind, GlibcContext, MuslContext
from ..model.recording import Recording
from ..model.tree import BindingState, LoadTree, MissingSymbol, MissingVersion
from ..resolve.linux import resolve_linux
from ..resolve.symbols import find_missing_symbols, find_missing_versions
from .environment import ProcessView

_OF_LEVEL = re.compile(r"/(glibc-hwcaps/([^/]+))/[^/]+$")
ELF_MAGIC = b"\x7fELF"

Lack = tuple[tuple[MissingSymbol, ...], tuple[MissingVersion, ...]]


class LinuxProcess(ProcessView[ElfImage, MissingVersion]):
    """A process of glibc or musl."""

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
        """Return what loading `subject` into the process would do, or what is wrong with the file itself."""
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

    def resolve_program(self, path: str) -> tuple[LoadTree | None, str | None]:
        """Return what starting a program would load, or what is wrong with its file."""
        problem = self.damage(path) if self._is_here else None
        if not self._is_here or problem is not None:
            return None, problem
        return resolve_linux(path, self._linux_context(), self._linux, program=True), None

    def resolve_otherwise(self, subject: str, change: Change) -> LoadTree | None:
        """Return the load of `subject` as it would go under a change; `None` if the change alters nothing."""
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
        """Return whether an image has the version, or else the symbol, that is missing first of all."""
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
        """Return whether two paths are one file."""
        return self.real_path(path) == self.real_path(other)

    def cached_libraries(self) -> tuple[str, ...]:
        """The files of ld.so.cache; () with a loader that has none."""
        context = self._linux_context() if self._is_here else None
        return tuple(dict.fromkeys(entry.path for entry in getattr(context, "cache", None) or ()))

    def search_libraries(self, name: str) -> tuple[str, ...]:
        """Return the files that CDLL would get by `lib{name}.so.N`: in the folders that the loader looks into last."""
        if not self._is_here:
            return ()
        context, start = self._linux_context(), f"lib{name}.so"
        found: list[str] = []
        for folder in dict.fromkeys((*context.library_path, *context.system_folders)):
            with contextlib.suppress(OSError, ValueError):
                found += [f"{folder}/{one}" for one in sorted(os.listdir(folder)) if _is_numbered(one, start)]
        return tuple(path for path in found[:_MOST_FILES] if self.incompatibility(path) is None)

    def damage_of(self, paths: Iterable[str]) -> dict[str, str]:
        """Return path and damage of those of the files that are not whole images."""
        found = {path: self.damage(path) for path in paths if self._is_here}
        return {path: problem for path, problem in found.items() if problem is not None}

    def read_image(self, path: str) -> ElfImage | None:
        """The image there, with symbols; `None` if there is none, or for another system."""
        try:
            return read_elf(path, symbols=True)
        except (BinaryFormatError, OSError):
            return None

    def damage(self, path: str) -> str | None:
        """Return what is wrong with a file as an image; `None` if it is an image, for whatever machine."""
        try:
            head = self._linux.read_head(path, HEAD_SIZE)
            if not head.startswith(ELF_MAGIC):
                return f"this is {describe_not_image(head) or 'no ELF file'}"
            if _has_rewritten_ends(path):
                return REWRITTEN_ENDS
            read_elf(path, symbols=True)
        except BinaryFormatError as error:
            return error.problem
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"
        return None

    def why_not_started(self, path: str) -> str | None:
        """Return why the kernel refuses to start a file (execve(2)); `None` if nothing speaks against it."""
        try:
            head = self._linux.read_head(path, HEAD_SIZE) if self._linux.kind(path) is FileKind.FILE else b""
        except OSError:
            head = b""
        if not head.startswith(ELF_MAGIC):
            return self._why_no_script(head) if head else None
        damage, problem = self.damage(path), self.incompatibility(path)
        if damage is not None:
            return damage
        image, own = read_elf(path), self._linux_context()
        if problem is not None:
            kind = describe_kind(image.bits, image.little_endian, image.machine)
            here = describe_kind(self._process.bits, image.little_endian, own.machine)
            return f"it is for {kind}, and this machine is {here}" if kind != here else problem
        loader = image.interpreter
        is_there = loader is None or self._linux.kind(loader) is FileKind.FILE
        return None if is_there else f"its loader {loader} is not here: it was built for another system or C library"

    def _why_no_script(self, head: bytes) -> str | None:
        line, _, _ = head.partition(b"\n")
        if not line.startswith(b"#!"):
            return f"this is {describe_not_image(head)}" if describe_not_image(head) else "it has no first line with #!"
        program = line[2:].strip(b" \t").partition(b" ")[0].decode("utf-8", "replace")
        if self._linux.kind(program) is FileKind.FILE:
            return None
        if program.endswith("\r"):  # the kernel takes the carriage return for a part of the name
            return "its lines end as on Windows (CR LF), and no program has a carriage return in its name"
        return f"its first line names {program}, which is not here"

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
        """Return why an image could not be loaded into the process at all; `None` if nothing speaks against it."""
        problem = self.damage(path)
        if problem is not None:
            return problem
        image, context = read_elf(path), self._linux_context()
        if image.machine != context.machine:
            return "it is for another kind of processor"
        if image.bits != self._process.bits:
            return f"it is for {image.bits}-bit programs"
        level = _OF_LEVEL.search(path)
        if level is not None and isinstance(context, GlibcContext) and level[1] not in context.subfolders:
            return f"it is for processors that can do {level[2]}, and this one cannot"
        own = "musl" if isinstance(context, MuslContext) else "glibc"
        if image.c_library not in (own, None):
            return f"it was built for {image.c_library}"
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


_MOST_FILES = 20


def _is_numbered(name: str, start: str) -> bool:
    """Return whether a file has a soname's form: libx.so.1, or libx.so alone."""
    return name == start or (name.startswith(f"{start}.") and name[len(start) + 1 :].replace(".", "").isdecimal())


REWRITTEN_ENDS = "the ends of its lines were rewritten (CR LF), as if it were a text"
_FEWEST_ENDS = 32
"""Line feeds that all have a carriage return before them: in a binary file that is no accident."""
_MOST_OF_TEXT = 1 << 20


def _has_rewritten_ends(path: str) -> bool:
    """Return whether each line feed of a file has a carriage return before it, as git's autocrlf and FTP leave them."""
    with open(path, "rb") as file:
        data = file.read(_MOST_OF_TEXT)
    ends = data.count(b"\n")
    return ends >= _FEWEST_ENDS and data.count(b"\r\n") == ends


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
