"""Checks whether the ELF files of an environment would load, by the real search of their system (glibc or musl).

Extension modules and programs are judged as what is loaded; libraries together with what needs them. What nothing needs
is loaded by code, which may prepare the search: what that lacks is a note.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

from ..binary.elf import read_build_id, read_elf, read_provided
from ..errors import BinaryFormatError
from ..host.environments import PythonEnvironment
from ..host.filesystem import HostFilesystem, SteadyFiles
from ..host.image_cache import ImageCache
from ..host.linux import read_linux_context
from ..host.native_files import NativeFile
from ..host.package_code import PackageCode
from ..knowledge import is_of_driver
from ..model.check import Problem, Severity
from ..model.elf import DF_1_PIE, ET_DYN, ET_EXEC, ElfImage, ElfSymbols, describe_kind
from ..model.environment import MODULE_ENDING, is_libpython, without_hash
from ..model.loader_context import GlibcContext, LoadedImage, MuslContext
from ..model.tree import Binding, BindingState, LoadTree, MissingSymbol
from ..resolve.linux import LinuxResolver, resolve_linux
from .elf_store import ElfStore
from .platform_check import RuntimeCopy, family_of, judge_copies
from .platforms import Loader, Platform
from .scope import Conflict, Load, SymbolScope

_SUFFIX = re.compile(MODULE_ENDING)
_PROGRAM_FOLDERS = ("bin", "sbin", "libexec")
_STANDARD_LIBRARY = "/lib-dynload/"
_MOST_NEEDS = 3_000_000
"""Needs followed for one environment. One of 850 files has 100,000."""
_SYMBOLS_NAMED = 5


@dataclass(frozen=True)
class _ElfFile:
    """A file: its path as its system names it, its image, and what it is loaded as."""

    path: str
    image: ElfImage
    is_module: bool = False
    is_program: bool = False


def check_linux_files(
    environment: PythonEnvironment, files: Sequence[NativeFile], root: str | None, notes: list[str],
    cache: ImageCache, used: list[HostFilesystem], *, is_named: bool = False,
) -> Iterator[Problem]:  # fmt: skip
    """Yield what is wrong with the ELF files of an environment.

    Arguments: `files` to judge; `root`, the folder that holds their system, `None` for this machine; `notes`, to which
    is added what could not be taken into account; `cache`, of what earlier checks read; `used` gets the files of the
    system, as they were looked at; `is_named`, whether the user named the files: then a library that does not load is
    an error, and not a note about a file that perhaps nobody loads.
    """
    check = _LinuxEnvironment(environment, files, root, notes, cache)
    check.library_severity = Severity.ERROR if is_named else Severity.NOTE
    used.append(check.system)
    yield from check.run()


class _LinuxEnvironment:
    """The check.

    Attributes: `system`, the files of the system of the environment; `library_severity`, of a library that does not
    load.
    """

    library_severity = Severity.NOTE

    def __init__(
        self, environment: PythonEnvironment, files: Sequence[NativeFile], root: str | None, notes: list[str],
        cache: ImageCache,
    ) -> None:  # fmt: skip
        self._root = None if root is None else root.rstrip("/")
        self._environment = environment
        self._places = {self._inside(file.path): environment.place(file.path) for file in files}
        self._reported: set[tuple[str, str]] = set()
        self._by_name: dict[str, list[str]] | None = None
        self._notes = notes
        self._store = ElfStore(cache)
        self.system = SteadyFiles(root, self._store.read)
        self._files: dict[str, _ElfFile] = {}
        self._scope = SymbolScope(
            self._read, self._store.take_needs, self._read_provided, self._read_all, self.system.identity
        )
        self._context: GlibcContext | MuslContext | None = None
        self._has_system = True
        self._usual = Platform("linux", Loader.GLIBC, "")
        self._unversioned: set[tuple[str, str | None]] = set()
        self._copies: list[RuntimeCopy] = []
        self._code = PackageCode(environment.site_folders)
        self._builds: dict[str, str] = {}
        self._place_of: dict[tuple[int, int] | None, str] = {}

    def run(self) -> Iterator[Problem]:
        for path in self._places:
            yield from self._take(path)
        like = self._choose_machine()
        if like is None:
            return
        yield from self._start(like)
        fitting = {path: file for path, file in self._files.items() if _kind(file.image) == _kind(like)}
        for path, file in self._files.items():
            if path not in fitting:
                yield self._wrong_machine(file, like)
        yield from self._judge(fitting)

    def _once(self, problem: Problem) -> Iterator[Problem]:
        """Yield a problem the first time that its file has it: many loads share a library."""
        key = problem.file, problem.title
        if key not in self._reported:
            self._reported.add(key)
            yield problem

    def _problem(
        self, code: str, severity: Severity, path: str, title: str, evidence: Sequence[str] = (), fix: str = ""
    ) -> Problem:  # fmt: skip
        return Problem(
            code=code, severity=severity, file=self._place(path), title=title, evidence=tuple(evidence), fix=fix
        )  # fmt: skip

    def _named(self, name: str) -> list[str]:
        """Return the files of the environment that have a name, or would have it without the hash of a repair tool."""
        if self._by_name is None:
            self._by_name = {}
            for path in sorted(self._places):
                base = posixpath.basename(self._places[path]).lower()
                for key in dict.fromkeys((base, without_hash(base))):
                    self._by_name.setdefault(key, []).append(path)
        return self._by_name.get(name.lower(), [])

    def _inside(self, path: str) -> str:
        """Return a path of this machine as the files' own system has it."""
        if self._root is None:
            return path
        return path[len(self._root) :] if path.startswith(f"{self._root}/") else path

    def _place(self, path: str) -> str:
        """Return a path in the target, by whatever links and ".." the loader was led to the file."""
        if path in self._places:
            return self._places[path]
        if not self._place_of:
            self._place_of = {self.system.identity(own): place for own, place in self._places.items()}
        return self._place_of.get(self.system.identity(path), path)

    def _read(self, path: str) -> ElfImage:
        image = self.system.read_image(path)
        if not isinstance(image, ElfImage):
            raise BinaryFormatError(0, "not an ELF file")
        return image

    def _read_provided(self, path: str, wanted: Set[str]) -> ElfSymbols:
        return self._store.read_provided(self.system.host_path(path), wanted)

    def _read_all(self, path: str) -> ElfImage:
        return read_elf(self.system.host_path(path), symbols=True)

    def _take(self, path: str) -> Iterator[Problem]:
        """Read a file; yield a problem where it is damaged."""
        match = _SUFFIX.search(path)
        try:
            image = self._read(path)
        except BinaryFormatError as error:
            severity = Severity.ERROR if match is not None else Severity.WARNING
            yield self._problem("damaged-image", severity, path, f"it is no ELF file that loads: {error.problem}")
            return
        except OSError as error:
            self._notes.append(f"{path} could not be read: {error.strerror}")
            return
        if image.kind not in (ET_EXEC, ET_DYN):
            return
        is_module = match is not None or self._has_entry(path, image)
        is_program = image.is_program
        if image.soname is not None and not image.dynamic_flags_1 & DF_1_PIE:
            is_program = False  # libc.so.6 can be started, too, and is a library
        version = self._environment.version
        if match is not None and match[1] and version is not None and (int(match[1]), int(match[2])) != version:
            yield from self._other_version(path, match, version)
            return
        self._files[path] = _ElfFile(path, image, is_module, is_program and not is_module)

    def _has_entry(self, path: str, image: ElfImage) -> bool:
        """Return whether the file is an extension module, by the function that an import calls."""
        name = posixpath.basename(path)
        if not name.endswith(".so") or image.kind != ET_DYN:
            return False
        entry = f"PyInit_{name.partition('.')[0]}"
        try:
            return bool(read_provided(self.system.host_path(path), frozenset((entry,))).provides)
        except (OSError, BinaryFormatError):
            return False

    def _other_version(
        self, path: str, match: re.Match[str], version: tuple[int, int]
    ) -> Iterator[Problem]:  # fmt: skip
        """Judge a module of another Python: import passes over it, and so it matters if there is no other."""
        stem = path[: match.start()]
        fits = f".cpython-{version[0]}{version[1]}"
        names = [other for other in self._places if other.startswith(f"{stem}.")]
        if any(fits in other or ".abi3" in other or other == f"{stem}.so" for other in names):
            return
        has, wanted = f"{match[1]}.{match[2]}", f"{version[0]}.{version[1]}"
        yield self._problem(
            "suffix-mismatch", Severity.ERROR, path, f"it is a module for Python {has}, and this is Python {wanted}",
            ("the import system of another version passes over a file with that end of its name",),
            f"install the package again with Python {wanted}",
        )  # fmt: skip

    def _choose_machine(self) -> ElfImage | None:
        """Return an image that is like the process: the interpreter; without one, what most modules are like."""
        if self._environment.program is not None:
            try:
                return self._read(self._inside(self._environment.program))
            except (OSError, BinaryFormatError) as error:
                self._notes.append(f"{self._environment.program} could not be read: {error}")
        counts: dict[object, list[ElfImage]] = {}
        files = [file for file in self._files.values() if file.is_module] or list(self._files.values())
        for file in files:
            counts.setdefault(_kind(file.image), []).append(file.image)
        return max(counts.values(), key=len)[0] if counts else None

    def _start(self, like: ElfImage) -> Iterator[Problem]:
        """Make the context of the process that loads the modules: the interpreter, with all that it brings."""
        program = self._environment.program
        inside = None if program is None else self._inside(program)
        context = read_linux_context(self._root, program=inside, files=self.system, kind=like)
        self._notes += [note for note in context.notes if "no program was found" not in note]
        self._has_system = not isinstance(context, GlibcContext) or context.loader is not None
        if not self._has_system:
            context = self._without_system(context)
            self._notes.append("the system of these files is not here: its own libraries are taken for present")
        if context.program is not None:
            tree = resolve_linux(context.program, replace(context, loaded=()), self.system, program=True)
            base = list(tree.images)
            for binding in tree.missing:
                yield from self._once(self._missing(binding, Severity.ERROR, context.program))
            names: dict[str, list[str]] = {}
            for binding in tree.bindings:
                if binding.path is not None and binding.state is BindingState.BOUND:
                    names.setdefault(binding.path, []).append(binding.need)
            loaded = [
                LoadedImage(path, image.soname, tuple(dict.fromkeys(names.get(path, ()))))
                for path, image in tree.images.items() if isinstance(image, ElfImage) and path != context.program
            ]  # fmt: skip
            context = replace(context, loaded=tuple(loaded))
            if isinstance(context, GlibcContext) and context.loader is not None:
                base.append(context.loader)
            self._scope.set_base(base)
        self._context = context

    def _without_system(self, context: GlibcContext | MuslContext) -> GlibcContext | MuslContext:
        """Return the context of files whose system is not here: of musl, if most of them need it."""
        needs = [need for file in self._files.values() for need in file.image.needed]
        count = sum(need.startswith("libc.musl") for need in needs)
        if count <= sum(need.startswith("libc.so.6") for need in needs):
            return context
        self._usual = Platform("musllinux", Loader.MUSL, "")
        return MuslContext(
            bits=context.bits, little_endian=context.little_endian, machine=context.machine, notes=context.notes
        )  # fmt: skip

    def _judge(self, files: dict[str, _ElfFile]) -> Iterator[Problem]:
        assert self._context is not None
        resolver = LinuxResolver(self._context, self.system)
        roots = sorted((file for file in files.values() if _is_root(file)), key=_order)
        loads: list[tuple[_ElfFile, Severity, Load]] = []
        reached: set[object] = set()
        left = _MOST_NEEDS
        skipped = 0
        for group in (roots, None):
            others = [file for file in files.values() if not _is_root(file)]
            for file in others if group is None else group:
                if group is None and self.system.identity(file.path) in reached:
                    continue
                if left <= 0:
                    skipped += 1
                    continue
                severity = self._severity(file)
                tree = resolver.follow(file.path, program=file.is_program)
                left -= len(tree.bindings) + 1
                if group is not None:
                    reached.update(self.system.identity(path) for path in tree.images)
                load = self._scope.add(tree)
                if tree.missing and severity is Severity.ERROR and self._is_optional(file):
                    severity = Severity.WARNING
                found = list(self._judge_tree(file, tree, severity))
                yield from found
                if not tree.missing and not tree.unresolved and self._context.program is not None:
                    loads.append((file, severity, load))
        if skipped:
            self._notes.append(f"{skipped} files were not judged: together they need too many others")
        self._scope.index()
        for file, severity, load in loads:
            yield from self._judge_symbols(file, severity, load)
        yield from self._judge_copies(files)
        conflicts = self._scope.find_conflicts((load for file, _, load in loads if file.is_module), self._are_rivals)
        for conflict in conflicts:
            yield from self._once(self._conflict(conflict))

    def _judge_copies(self, files: dict[str, _ElfFile]) -> Iterator[Problem]:
        libraries = [file for file in files.values() if not _is_root(file)]
        names = Counter(self._name_of(file) for file in libraries)
        for file in libraries:
            name = self._name_of(file)
            if family_of(name) is None and names[name] < 2:
                continue
            self._copies.append(
                RuntimeCopy(self._place(file.path), name, self._package_of(file.path), self._build_of(file.path))
            )
        yield from judge_copies(self._copies)

    def _name_of(self, file: _ElfFile) -> str:
        return file.image.soname or posixpath.basename(file.path)

    def _package_of(self, path: str) -> str:
        """Return the name of the top folder of the package that a file is in; "the system" for files elsewhere."""
        top = self._code.top_of(self.system.host_path(path))
        if top is None:
            return "the environment" if self._place(path) != path else "the system"
        return posixpath.basename(top).removesuffix(".libs")

    def _build_of(self, path: str) -> str:
        """Return what tells one build of a library from another: its build-id, else the file itself."""
        here = self.system.host_path(path)
        if here not in self._builds:
            try:
                self._builds[here] = read_build_id(here, self._read(path)) or here
            except (OSError, BinaryFormatError):
                self._builds[here] = here
        return self._builds[here]

    def _are_rivals(self, one: str, other: str) -> bool:
        return self._package_of(one) != self._package_of(other) and self._build_of(one) != self._build_of(other)

    def _conflict(self, conflict: Conflict) -> Problem:
        name, earlier = posixpath.basename(conflict.taken), self._place(conflict.earlier)
        more = f" and {len(conflict.lacking) - 1} more" if len(conflict.lacking) > 1 else ""
        return self._problem(
            "runtime-conflict", Severity.WARNING, conflict.user,
            f"it fails where {earlier} was loaded before, which has no {conflict.lacking[0]}{more}",
            (f"alone it gets {self._place(conflict.taken)}", f"a process has one {name}: the first that is loaded",
             *conflict.lacking[1:_SYMBOLS_NAMED]),
            f"import {self._package_of(conflict.user)} before {self._package_of(conflict.earlier)}, or install builds"
            " that use the same library",
        )  # fmt: skip

    def _severity(self, file: _ElfFile) -> Severity:
        """Return the severity of a file that does not load."""
        if file.is_module:
            return Severity.WARNING if _STANDARD_LIBRARY in file.path else Severity.ERROR
        if file.is_program:
            folder = posixpath.basename(posixpath.dirname(file.path))
            return Severity.ERROR if folder in _PROGRAM_FOLDERS else Severity.WARNING
        return self.library_severity

    def _is_optional(self, file: _ElfFile) -> bool:
        """Return whether the file is a module that its package goes on without."""
        return file.is_module and self._code.is_optional(self.system.host_path(file.path))

    def _judge_tree(self, file: _ElfFile, tree: LoadTree, severity: Severity) -> Iterator[Problem]:
        for binding in tree.missing:
            # Without the system of the files (of another machine) what every system has is taken for present.
            if self._has_system or not self._usual.provides(posixpath.basename(binding.need)):
                yield from self._once(self._missing(binding, severity, file.path))
        for missing in self._scope.find_missing_versions(tree):
            self._unversioned.add((missing.requested_by, missing.version))
            yield from self._once(
                self._problem(
                    "missing-symbol", severity, missing.requested_by,
                    f"it needs the version {missing.version} of {missing.library}, which {missing.provider} lacks",
                    (f"ld.so says: version `{missing.version}' not found", *self._leads(file, missing.requested_by)),
                    f"bring a newer {missing.library}, or a build of the package for this system",
                )
            )  # fmt: skip

    def _judge_symbols(self, file: _ElfFile, severity: Severity, load: Load) -> Iterator[Problem]:
        groups: dict[str, list[MissingSymbol]] = {}
        for missing in self._scope.find_missing(load):
            if (missing.requested_by, missing.version) not in self._unversioned:
                groups.setdefault(missing.requested_by, []).append(missing)
        for path, symbols in groups.items():
            names = [f"{one.name}@{one.version}" if one.version else one.name for one in symbols]
            elsewhere = next(self._scope.defined_in(symbols[0].name, self._libraries()), None)
            evidence = [*names[1:_SYMBOLS_NAMED], *self._leads(file, path)]
            if elsewhere is not None:
                evidence.append(f"{self._place(elsewhere)} has it, which this load does not bring")
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            # A program starts, and fails at the first call. A library may get the symbol of the program that loads it.
            is_lazy = not file.is_module
            is_loaded = elsewhere is not None and self._code.loads(self.system.host_path(path))
            worst = Severity.NOTE if is_loaded else Severity.WARNING if is_lazy else severity
            yield from self._once(
                self._problem(
                    "missing-symbol", max(worst, severity, key=lambda each: each.rank), path,
                    f"it needs the symbol {names[0]}{more}, which nothing that it loads has", evidence,
                    "install versions of the packages that were built for one another",
                )
            )  # fmt: skip

    def _libraries(self) -> list[str]:
        return [path for path, file in self._files.items() if not _is_root(file)]

    def _leads(self, file: _ElfFile, path: str) -> tuple[str, ...]:
        """Return a sentence on what needs a library, if that is another file."""
        if self.system.identity(file.path) == self.system.identity(path):
            return ()
        return (f"{self._place(file.path)} needs it",)

    def _wrong_machine(self, file: _ElfFile, like: ElfImage) -> Problem:
        made = describe_kind(file.image.bits, file.image.little_endian, file.image.machine)
        wanted = describe_kind(like.bits, like.little_endian, like.machine)
        severity = Severity.ERROR if file.is_module else Severity.NOTE
        return self._problem(
            "wrong-machine", severity, file.path, f"it is for {made}, and this environment is for {wanted}", (),
            "install the package again on this machine: it was installed or copied from another",
        )  # fmt: skip

    def _missing(self, binding: Binding, severity: Severity, root: str) -> Problem:
        """Return the problem of a need that nothing fulfils."""
        name, path = posixpath.basename(binding.need), binding.requested_by or root
        leads = () if path == root else (f"{self._place(root)} needs it",)
        if binding.state is BindingState.REFUSED:
            if binding.path == root:
                path, leads, title = root, (), f"the loader does not take it: {binding.reason}"
            else:
                title = f"it needs {binding.need}, and the loader does not take {binding.path}: {binding.reason}"
            return self._problem("wrong-file", severity, path, title, leads)
        if name.startswith(("libc.so.6", "libc.musl")) and severity is not Severity.NOTE:
            built = "musl" if "musl" in name else "glibc"
            return self._problem(
                "other-c-library", severity, path, f"it was built for {built}, which this system does not have", leads,
                "install the package again on this system",
            )  # fmt: skip
        if is_libpython(name):
            return self._problem(
                "other-libpython", severity, path, f"it is linked with {name}, which this Python does not have", leads,
                "install a build of the package for this Python",
            )  # fmt: skip
        by_path = binding.need.startswith("/")  # no loader searches for it
        same = [other for other in self._named(name) if other != path and not by_path]
        if same:
            if self._code.loads(self.system.host_path(root)):
                severity = Severity.NOTE
                leads = (*leads, "code of the package loads libraries itself, and may load this one first")
            return self._elsewhere(name, path, same, severity, leads)
        if is_of_driver(name, "linux"):
            severity = min(Severity.WARNING, severity, key=lambda each: -each.rank)
        title, fix = f"it needs {name}, which is nowhere where the loader looks", f"install what brings {name} into a "
        fix += "folder of the system, or a build of the package that has it"
        if by_path:
            title = f"it needs {binding.need} by that very path, where nothing is"
            fix = "link it again with a library that has a soname (-Wl,-soname), or patchelf --replace-needed "
            fix += f"{binding.need} {name} on it"
        leads = (*leads, "no file of the environment has that name")
        return self._problem("missing-image", severity, path, title, leads, fix)

    def _elsewhere(
        self, name: str, path: str, same: Sequence[str], severity: Severity, leads: Sequence[str]
    ) -> Problem:  # fmt: skip
        """Return the problem of a need whose file is in the environment, where the loader does not look."""
        other = self._place(same[0])
        is_mangled = posixpath.basename(other) != name and without_hash(posixpath.basename(other)) == name
        code = "mangled-name" if is_mangled else "not-on-runpath"
        where = "under another name" if is_mangled else "where the loader does not look"
        folder = posixpath.relpath(posixpath.dirname(same[0]), posixpath.dirname(path))
        return self._problem(
            code, severity, path, f"it needs {name}, which is in the environment {where}: {other}", leads,
            f"give it the RUNPATH {'$ORIGIN' if folder == '.' else f'$ORIGIN/{folder}'}"
            if not is_mangled else f"patchelf --replace-needed {name} {posixpath.basename(other)} on it",
        )  # fmt: skip


def _kind(image: ElfImage) -> tuple[int, bool, int]:
    return image.bits, image.little_endian, image.machine


def _is_root(file: _ElfFile) -> bool:
    return file.is_module or file.is_program


def _order(file: _ElfFile) -> int:
    """Modules of packages first, as the first that needs a library says how bad it is that this lacks something."""
    return 0 if file.is_module and _STANDARD_LIBRARY not in file.path else 1 if file.is_module else 2
