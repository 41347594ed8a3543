"""The walk that glibc and musl have in common: breadth first, each file once, from need to image.

What differs between them is in their `Rules`.
"""

from __future__ import annotations

import posixpath
from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

from ..binary.notimage import HEAD_SIZE
from ..errors import BinaryFormatError
from ..model.elf import ElfImage
from ..model.probe import Phase, Probe, ProbeOutcome
from ..model.tree import Binding, BindingState, LoadTree
from .elf_header import Fate, HeaderCheck
from .filesystem import FileKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model.linux_context import LinuxContext
    from .filesystem import Filesystem


_NO_FILES = {
    FileKind.DENIED: HeaderCheck(Fate.PASS, "permission denied"),
    FileKind.FOLDER: HeaderCheck(Fate.STOP, "a folder, not a file"),
    FileKind.OTHER: HeaderCheck(Fate.STOP, "not a regular file"),
}


@dataclass(frozen=True)
class Requester:
    """An image that asks for others: its `path`, itself, and the one that asked for it."""

    path: str
    image: ElfImage
    by: Requester | None = None


class Rules(Protocol):
    """What a C library has of its own.

    Attributes: `on_symlink_loop`, what it does at a link that leads back to itself.
    """

    @property
    def on_symlink_loop(self) -> Fate: ...

    def expand(self, need: str, requester: Requester | None) -> str | None:
        """The need with its tokens replaced; `None` when that cannot be."""
        ...

    def find_known(self, name: str) -> str | None:
        """The path of an image that the process has by that name."""
        ...

    def list_places(self, name: str, requester: Requester | None) -> Iterator[Probe]:
        """The places to try, in order. Asked for one by one, and no further once a file is taken."""
        ...

    def judge_head(self, head: bytes) -> HeaderCheck:
        """Whether it would take a file that begins like this."""
        ...

    def judge_image(self, image: object, *, is_top: bool) -> HeaderCheck:
        """Whether it would map an image whose head it took; `is_top` for the file that all began with."""
        ...

    def remember(self, name: str, path: str, image: ElfImage | None) -> None:
        """An image now has that name: one mapped from `path`, or (`None`) one that was there already."""
        ...


@dataclass(frozen=True)
class _Tried:
    """A place tried: the probe with its outcome, the image of a new file, the path of one that was there already."""

    probe: Probe
    fate: Fate
    image: ElfImage | None = None
    known: str | None = None


class Walk:
    """One load, followed to its end.

    Arguments:
        context: the process.
        files: its files.
        rules: of its C library.
    """

    def __init__(self, context: LinuxContext, files: Filesystem, rules: Rules) -> None:
        self._context = context
        self._files = files
        self._rules = rules
        self._bindings: list[Binding] = []
        self._images: dict[str, ElfImage] = {}
        self._paths: dict[tuple[int, int], str] = {}
        for loaded in context.loaded:
            identity = files.identity(loaded.path)
            if identity is not None:
                self._paths.setdefault(identity, loaded.path)

    def follow(self, top: str, caller: Requester | None, parent: Requester | None, notes: tuple[str, ...]) -> LoadTree:
        """Load `top` and all it needs.

        Arguments: `caller` asks for `top`; `parent` is whom `top` inherits search paths from; `notes` for the tree.
        """
        binding, image = self._bind(top, caller, self._context.program or "")
        if binding.phase is not Phase.DIRECT or binding.state is not BindingState.BOUND:
            self._bindings.append(binding)
        queue: deque[Requester] = deque()
        if image is not None and binding.path is not None:
            queue.append(Requester(binding.path, image, parent))
        elif binding.state is BindingState.BOUND:
            notes = (*notes, f"{binding.path} is in the process already: nothing is loaded")
        while queue:
            requester = queue.popleft()
            for need in requester.image.needed:
                found, image = self._bind(need, requester, requester.path)
                self._bindings.append(found)
                if image is not None and found.path is not None:
                    queue.append(Requester(found.path, image, requester))
        return LoadTree(binding.path or top, self._images, tuple(self._bindings), notes)

    def _bind(self, need: str, requester: Requester | None, requested_by: str) -> tuple[Binding, ElfImage | None]:
        """What becomes of a need, and the image that it newly brings."""
        binding = Binding(need, requested_by, BindingState.MISSING)
        name = self._rules.expand(need, requester)
        if not name:
            reason = "empty dynamic string token substitution" if need else "an empty name"
            return replace(binding, state=BindingState.REFUSED, reason=reason), None
        known = self._rules.find_known(name)
        if known is not None:
            return replace(binding, state=BindingState.BOUND, path=known, phase=Phase.LOADED), None
        probes: list[Probe] = []
        left: tuple[Phase, str | None] | None = None
        for place in self._rules.list_places(name, requester):
            if (place.phase, place.origin) == left:
                continue
            tried = self._try(place)
            probe = tried.probe
            probes.append(probe)
            if tried.fate in (Fate.PASS, Fate.LEAVE):
                left = (probe.phase, probe.origin) if tried.fate is Fate.LEAVE else None
                continue
            binding = replace(binding, phase=probe.phase, probes=tuple(probes))
            if tried.fate is Fate.STOP:
                return replace(binding, state=BindingState.REFUSED, path=probe.path, reason=probe.reason), None
            path = tried.known or probe.path
            if tried.image is not None:
                self._images[path] = tried.image
            self._rules.remember(name, path, tried.image)
            return replace(binding, state=BindingState.BOUND, path=path), tried.image
        return replace(binding, probes=tuple(probes)), None

    def _try(self, probe: Probe) -> _Tried:
        if probe.outcome is not ProbeOutcome.PASSED:  # its outcome was known beforehand
            return _Tried(probe, Fate.PASS)
        path = posixpath.join(self._context.current_folder, probe.path)
        kind = self._files.kind(path)
        if kind is FileKind.ABSENT:
            return _Tried(replace(probe, outcome=ProbeOutcome.ABSENT), Fate.PASS)
        identity = self._files.identity(path)
        if identity is not None and identity in self._paths:
            return _Tried(_taken(probe), Fate.TAKE, known=self._paths[identity])
        verdict, image = self._examine(path, kind)
        if verdict.fate is not Fate.TAKE:
            return _Tried(replace(probe, outcome=ProbeOutcome.PRESENT, reason=verdict.reason), verdict.fate)
        if identity is not None:
            self._paths[identity] = probe.path
        return _Tried(_taken(probe), Fate.TAKE, image)

    def _examine(self, path: str, kind: FileKind) -> tuple[HeaderCheck, ElfImage | None]:
        image = None
        try:
            if kind is FileKind.FILE:
                verdict = self._rules.judge_head(self._files.read_head(path, HEAD_SIZE))
                if verdict.fate is Fate.TAKE:
                    image = self._files.read_image(path)
                    verdict = self._rules.judge_image(image, is_top=not self._images)
            elif kind is FileKind.SYMLINK_LOOP:
                verdict = HeaderCheck(self._rules.on_symlink_loop, "a link that leads back to itself")
            else:
                verdict = _NO_FILES[kind]
        except PermissionError:
            verdict = _NO_FILES[FileKind.DENIED]
        except OSError as error:
            verdict = HeaderCheck(Fate.STOP, f"cannot read file data: {error.strerror}")
        except BinaryFormatError as error:
            verdict = HeaderCheck(Fate.STOP, str(error))
        return verdict, image if isinstance(image, ElfImage) else None


def _taken(probe: Probe) -> Probe:
    return replace(probe, outcome=ProbeOutcome.LOADED)


def read_requester(path: str, files: Filesystem) -> Requester | str:
    """An image whose search paths count, though it is not loaded now; or why it cannot be read."""
    try:
        image = files.read_image(path)
    except (OSError, BinaryFormatError) as error:
        return f"{path} could not be read, so its search path does not count here: {error}"
    if not isinstance(image, ElfImage):
        return f"{path} is no ELF file, so it has no search path"
    return Requester(path, image)
