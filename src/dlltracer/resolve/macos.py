"""Works out from files what dyld (macOS 12 and later) would do with a file.

Sources: dyld(1), dlopen(3); Loader.cpp, DyldProcessConfig.cpp and JustInTimeLoader.cpp of dyld, versions 941 to 1378.
The rules come from these sources. They have not been compared with a running dyld yet.

Unlike ld.so, dyld goes on to the next place when a file there is damaged or for another processor. It fails when no
place is left; its message then lists them all ("tried: ...").

Symbols have two levels: each names the library that must have it (ld(1), "Two-level namespace"; <mach-o/nlist.h>).
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from ..errors import BinaryFormatError
from ..model.events import Phase, Probe, ProbeOutcome
from ..model.light import dataclass, replace
from ..model.loader_context import FileKind, MacosContext
from ..model.macho import (
    CPU_ARM64,
    CPU_X86_64,
    MH_BUNDLE,
    MH_DYLIB,
    MH_EXECUTE,
    PLATFORM_MACOS,
    SUBTYPE_ARM64E,
    MachoFile,
    MachoImage,
    NeedKind,
    describe_platform,
)
from ..model.tree import Binding, BindingState, LoadTree, MissingSymbol
from .lookup import Filesystem, TreeBuilder
from .symbols import MAX_NEAREST, Nearest

_SYSTEM = (
    "/usr/lib/", "/System/Library/", "/System/iOSSupport/usr/lib/", "/System/iOSSupport/System/Library/",
    "/System/DriverKit/",
)  # fmt: skip
"""Since macOS 11 the libraries of the system are in the shared cache only, and no file is there."""

_FALLBACK_FOLDERS = ("/usr/local/lib", "/usr/lib")
_FALLBACK_FRAMEWORKS = ("/Library/Frameworks", "/System/Library/Frameworks")
_NO_FALLBACK_SINCE = (14, 0, 0)
"""Images linked with an SDK of macOS 14 or later get no default fallback folders (dyld of macOS 13 and later)."""

_RPATH, _LOADER, _PROGRAM = "@rpath/", "@loader_path", "@executable_path"
_WRONG_KINDS = {
    FileKind.DENIED: "permission denied", FileKind.HIDDEN: "permission denied",
    FileKind.FOLDER: "not a file", FileKind.OTHER: "not a file",
    FileKind.SYMLINK_LOOP: "a link that leads back to itself",
}  # fmt: skip


@dataclass(frozen=True)
class _MachoRequester:
    """An image that asks for others: its `path`, itself, and `by`, who asked for it."""

    path: str
    image: MachoImage
    by: _MachoRequester | None = None


def pick_image(file: MachoFile, cpu: int, subtype: int = 0) -> MachoImage | None:
    """Return the image that a process of that processor takes from a file; `None` if there is none for it.

    An arm64 process takes no arm64e image; an arm64e process (Apple's own programs) takes arm64 where there is no
    arm64e. On x86-64 the image for Haswell ("x86_64h") comes first.
    """
    fitting = [image for image in file.images if image.cpu == cpu]
    if cpu == CPU_ARM64 and subtype != SUBTYPE_ARM64E:
        fitting = [image for image in fitting if image.subtype != SUBTYPE_ARM64E]
    fitting.sort(key=lambda image: image.subtype, reverse=cpu in (CPU_ARM64, CPU_X86_64))
    return fitting[0] if fitting else None


def is_system_path(path: str) -> bool:
    """Return whether dyld takes a path for one of the system's, which may be in the shared cache without a file."""
    return path.startswith(_SYSTEM)


def resolve_macos(path: str, context: MacosContext, files: Filesystem) -> LoadTree:
    """Work out what dlopen(path, RTLD_NOW) would do in a process, or starting `path`, without loading anything.

    Args:
        path: the file, absolute.
        context: the process. A file that is a program is its own main executable.
        files: its files. `read_image` returns a `MachoFile` for each.

    Returns the tree. Names of the system's libraries are bound to `BindingState.SYSTEM` where no file is there.
    """
    return _Walk(context, files).follow(path)


class _Walk:
    """Follows one load: all needs of an image in their order, then those of each of these in turn (breadth first)."""

    def __init__(self, context: MacosContext, files: Filesystem) -> None:
        self._context = context
        self._files = files
        self._tree = TreeBuilder()
        self._by_name: dict[str, str] = {}
        self._by_file: dict[tuple[int, int], str] = {}
        self._program = context.program
        self._main: MachoImage | None = None
        for loaded in context.loaded:
            self._remember(loaded.path, loaded.soname)

    def follow(self, top: str) -> LoadTree:
        notes = list(self._context.notes)
        place = self._look(Probe(top, Phase.DIRECT), is_top=True)
        if place.image is None:
            state = BindingState.MISSING if place.probe.outcome is ProbeOutcome.ABSENT else BindingState.REFUSED
            self._tree.add(
                Binding(top, self._program or "", state, top, Phase.DIRECT, (place.probe,), reason=place.probe.reason)
            )
            return self._tree.build(top, notes)
        if place.image.kind == MH_EXECUTE:
            self._program, self._main = self._files.real_path(top), place.image
        elif self._program is not None:
            found = self._look(Probe(self._program, Phase.DIRECT), is_top=True)
            self._main = found.image
            if found.image is None:
                notes.append(f"{self._program} could not be read, so its LC_RPATHs do not count here")
        self._map(top, place.image)
        queue = deque([_MachoRequester(top, place.image)])
        while queue:
            requester = queue.popleft()
            for need in requester.image.needs:
                if self._tree.is_spent:
                    self._tree.skip_need()
                    continue
                binding, image = self._bind(need.name, requester)
                is_lazy, is_weak = need.kind is NeedKind.LAZY, need.kind is NeedKind.WEAK
                self._tree.add(replace(binding, delayed=is_lazy, optional=is_weak))
                if image is not None and binding.path is not None:
                    queue.append(_MachoRequester(binding.path, image, requester))
        return self._tree.build(top, notes)

    def _bind(self, name: str, requester: _MachoRequester) -> tuple[Binding, MachoImage | None]:
        """Return what becomes of a need, and the image that it newly brings."""
        binding = Binding(name, requester.path, BindingState.MISSING)
        # The first image of an install name serves everybody who asks for that name: the whole text counts, and for
        # "@rpath/libomp.dylib" it does not matter whose LC_RPATH would have led elsewhere.
        if name in self._by_name:
            return replace(binding, state=BindingState.BOUND, path=self._by_name[name], phase=Phase.LOADED), None
        probes: list[Probe] = []
        for probe in self._list_places(name, requester):
            place = self._look(probe)
            probes.append(place.probe)
            if place.known is None and place.image is None:
                # A fallback in /usr/lib proves nothing: the name was not made for that folder.
                is_named = probe.phase in (Phase.DIRECT, Phase.RPATH) and is_system_path(probe.path)
                if is_named and place.probe.outcome is ProbeOutcome.ABSENT:
                    probes[-1] = replace(place.probe, outcome=ProbeOutcome.PASSED, reason="perhaps in the shared cache")
                    state = BindingState.SYSTEM
                    return replace(binding, state=state, phase=probe.phase, probes=tuple(probes)), None
                continue
            path = place.known or probe.path
            self._by_name.setdefault(name, path)
            if place.image is not None:
                self._map(path, place.image)
            found = replace(binding, state=BindingState.BOUND, path=path, phase=probe.phase, probes=tuple(probes))
            return found, place.image
        refused = next((probe for probe in probes if probe.outcome is ProbeOutcome.PRESENT), None)
        if refused is None:
            return replace(binding, probes=tuple(probes)), None
        return (
            replace(
                binding, state=BindingState.REFUSED, path=refused.path, phase=refused.phase, probes=tuple(probes),
                reason=refused.reason,
            ),
            None,
        )  # fmt: skip

    def _list_places(self, name: str, requester: _MachoRequester) -> Iterator[Probe]:
        """Yield the places to try for a name, in order."""
        context = self._context
        leaf = posixpath.basename(name)
        framework = _framework_part(name)
        if framework is not None:
            for folder in context.framework_path:
                yield Probe(posixpath.join(folder, framework), Phase.ENVIRONMENT)
        else:
            for folder in context.library_path:
                yield Probe(posixpath.join(folder, leaf), Phase.ENVIRONMENT)
        yield from self._expand(name, requester)
        if framework is not None:
            for folder in context.fallback_frameworks or _default_fallbacks(requester.image, _FALLBACK_FRAMEWORKS):
                yield Probe(posixpath.join(folder, framework), Phase.SYSTEM)
        else:
            for folder in context.fallback_path or _default_fallbacks(requester.image, _FALLBACK_FOLDERS):
                yield Probe(posixpath.join(folder, leaf), Phase.SYSTEM)

    def _expand(self, name: str, requester: _MachoRequester) -> Iterator[Probe]:
        """Yield the places that a name stands for by itself."""
        if name.startswith(_RPATH):
            rest = name.removeprefix(_RPATH)
            for owner in self._owners_of_rpaths(requester):
                for rpath in owner.image.rpaths:
                    folder = self._folder_of(rpath, owner.path)
                    if folder is not None:
                        yield Probe(posixpath.normpath(posixpath.join(folder, rest)), Phase.RPATH, owner.path)
            return
        path = self._folder_of(name, requester.path)
        if path is not None:
            yield Probe(posixpath.normpath(path), Phase.DIRECT)
        elif not name.startswith("@"):  # relative: from the current folder
            yield Probe(posixpath.normpath(posixpath.join(self._context.current_folder, name)), Phase.CURRENT)

    def _owners_of_rpaths(self, requester: _MachoRequester) -> Iterator[_MachoRequester]:
        """Yield whose LC_RPATHs count: the image's own, then those of who asked for it, and so on, then the program's.

        Asking goes up to the image that was given to dlopen; the main executable comes last.
        """
        owner: _MachoRequester | None = requester
        seen = set()
        while owner is not None:
            seen.add(owner.path)
            if owner.image.rpaths:
                yield owner
            owner = owner.by
        if self._main is not None and self._program is not None and self._program not in seen:
            yield _MachoRequester(self._program, self._main)

    def _folder_of(self, text: str, owner: str) -> str | None:
        """Return the absolute path that a name or an LC_RPATH stands for; `None` for a relative one."""
        for token, base in ((_LOADER, owner), (_PROGRAM, self._program)):
            if text == token or text.startswith(f"{token}/"):
                if base is None:
                    return None
                # Of the file itself, not of a link to it: dyld takes the real path.
                folder = posixpath.dirname(self._files.real_path(base))
                return posixpath.join(folder, text[len(token) + 1 :])
        return text if text.startswith("/") else None

    def _look(self, probe: Probe, *, is_top: bool = False) -> _Place:
        """Return what is at a place."""
        self._tree.places_left -= 1
        kind = self._files.kind(probe.path)
        if kind is FileKind.ABSENT:
            return _Place(replace(probe, outcome=ProbeOutcome.ABSENT))
        identity = self._files.identity(probe.path)
        if identity is not None and identity in self._by_file and not is_top:
            return _Place(replace(probe, outcome=ProbeOutcome.LOADED), known=self._by_file[identity])
        image, reason = self._read(probe.path, is_top=is_top) if kind is FileKind.FILE else (None, _WRONG_KINDS[kind])
        if image is None:
            return _Place(replace(probe, outcome=ProbeOutcome.PRESENT, reason=reason))
        return _Place(replace(probe, outcome=ProbeOutcome.LOADED), image)

    def _read(self, path: str, *, is_top: bool) -> tuple[MachoImage | None, str | None]:
        """Return the image that the process would map from a file; else `None`, and why."""
        try:
            file = self._files.read_image(path)
        except PermissionError:
            return None, _WRONG_KINDS[FileKind.DENIED]
        except (OSError, BinaryFormatError) as error:
            return None, f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        if not isinstance(file, MachoFile):
            return None, "not a mach-o file"
        image = pick_image(file, self._context.cpu, self._context.subtype)
        if image is None:
            has = ",".join(image.architecture for image in file.images)
            what = "fat file, but missing compatible" if file.is_universal else "mach-o file, but is an incompatible"
            return None, f"{what} architecture (have '{has}', need '{self._context.architecture}')"
        reason = _judge(image, is_top=is_top)
        return (image, None) if reason is None else (None, reason)

    def _map(self, path: str, image: MachoImage) -> None:
        self._tree.images[path] = image
        self._remember(path, image.install_name)

    def _remember(self, path: str, install_name: str | None) -> None:
        """Note an image by its path and its install name: who asks for one of them gets it."""
        self._by_name.setdefault(path, path)
        if install_name is not None:
            self._by_name.setdefault(install_name, path)
        identity = self._files.identity(path)
        if identity is not None:
            self._by_file.setdefault(identity, path)


@dataclass(frozen=True)
class _Place:
    """A place that was looked at: the probe, and the image of a new file, or the path of one that was there already."""

    probe: Probe
    image: MachoImage | None = None
    known: str | None = None


def _judge(image: MachoImage, *, is_top: bool) -> str | None:
    """Return why dyld would not map an image of the right processor, in its own words; `None` if it would."""
    if image.kind == MH_BUNDLE and not is_top:
        return "cannot link against bundle"
    if image.kind == MH_EXECUTE and not is_top:
        return "cannot link against a main executable"
    if image.kind not in (MH_DYLIB, MH_BUNDLE, MH_EXECUTE):
        return f"unloadable mach-o file type {image.kind}"
    platforms = [target.platform for target in image.targets]
    if platforms and PLATFORM_MACOS not in platforms:
        return f"mach-o file, but incompatible platform (have '{describe_platform(platforms[0])}', need 'macOS')"
    if image.unknown_commands:
        return f"unknown required load command {image.unknown_commands[0]:#x}"
    return None


def _framework_part(name: str) -> str | None:
    """Return the part of a name that is a framework ("Python.framework/Versions/3.12/Python"); `None` if none is."""
    parts = name.split("/")
    for number, part in enumerate(parts):
        if part.endswith(".framework") and parts[-1] == part.removesuffix(".framework"):
            return "/".join(parts[number:])
    return None


def _default_fallbacks(image: MachoImage, folders: tuple[str, ...]) -> tuple[str, ...]:
    sdk = next((target.sdk for target in image.targets if target.platform == PLATFORM_MACOS), (0, 0, 0))
    return folders if sdk < _NO_FALLBACK_SINCE else ()


_MOST_LIBRARIES = 100
"""Libraries that one may pass on the exports of."""


def find_missing_macho_symbols(
    images: Mapping[str, MachoImage], bindings: Iterable[Binding]
) -> tuple[MissingSymbol, ...]:
    """Return the symbols that an image expects of a library that was found, and that this library does not export.

    Args:
        images: path to image, with symbols.
        bindings: what became of their needs.

    A symbol of the "flat namespace" may come from any image of the process, the interpreter and the libraries of the
    system among them: those are not judged. Nor is what a library of the system should have.
    """
    search = _TwoLevelSearch(images, bindings)
    return tuple(missing for path in images for missing in search.find_missing(path))


class _TwoLevelSearch:
    """Looks for symbols in the libraries of a tree."""

    def __init__(self, images: Mapping[str, MachoImage], bindings: Iterable[Binding]) -> None:
        self._images = images
        self._found = {
            (binding.requested_by, binding.need): binding.path for binding in bindings
            if binding.state is BindingState.BOUND and binding.path is not None and binding.path in images
        }  # fmt: skip
        self._nearest: dict[str, Nearest] = {}
        self._guesses_left = MAX_NEAREST

    def find_missing(self, path: str) -> Iterator[MissingSymbol]:
        """Yield what the image at `path` lacks."""
        image = self._images[path]
        if image.symbols is None:
            return
        for wanted in image.symbols.imports:
            if not 0 < wanted.ordinal <= len(image.needs) or image.symbols.is_passed_on(wanted):
                continue
            need = image.needs[wanted.ordinal - 1]
            library = self._found.get((path, need.name))
            if library is None or need.kind is NeedKind.LAZY:
                continue
            reach, is_complete = self._reach(library)
            if is_complete and not any(wanted.name in self._exports(one) for one in reach):
                is_weak = wanted.weak or need.kind is NeedKind.WEAK
                nearest = self._guess(wanted.name, library)
                yield MissingSymbol(wanted.name, None, path, need.name, is_weak, nearest)

    def _guess(self, name: str, library: str) -> tuple[str, ...]:
        if not self._guesses_left:
            return ()
        self._guesses_left -= 1
        if library not in self._nearest:
            self._nearest[library] = Nearest(self._exports(library))
        return self._nearest[library].to(name)

    def _exports(self, path: str) -> Mapping[str, tuple[int, str] | None]:
        symbols = self._images[path].symbols
        return symbols.exports if symbols is not None else {}

    def _reach(self, library: str) -> tuple[list[str], bool]:
        """Return a library and those that it passes on (LC_REEXPORT_DYLIB), and whether all of these are known."""
        reach, is_complete = [library], True
        for path in reach:
            image = self._images[path]
            is_complete &= image.symbols is not None
            for need in image.needs:
                if need.kind is not NeedKind.REEXPORT:
                    continue
                passed_on = self._found.get((path, need.name))
                if passed_on is None or len(reach) >= _MOST_LIBRARIES:
                    is_complete = False
                elif passed_on not in reach:
                    reach.append(passed_on)
        return reach, is_complete
