"""Walks the needs of an image as glibc and musl both do: breadth first, each file once.

What differs between them is in their `LinuxRules`.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterable, Iterator

from ..binary.reading import HEAD_SIZE
from ..errors import BinaryFormatError
from ..model.elf import ElfImage
from ..model.events import FOLDER_LOCKED, Phase, Probe, ProbeOutcome
from ..model.light import Protocol, TypeVar, dataclass, replace
from ..model.loader_context import FileKind, LinuxContext, LoadedImage
from ..model.tree import Binding, BindingState, LoadTree
from .lookup import Filesystem, HeaderCheck, LookupStep, TreeBuilder

_NO_FILES = {
    FileKind.DENIED: HeaderCheck(LookupStep.NEXT_PLACE, "permission denied"),
    FileKind.HIDDEN: HeaderCheck(LookupStep.NEXT_PLACE, FOLDER_LOCKED),
    FileKind.FOLDER: HeaderCheck(LookupStep.STOP, "a folder, not a file"),
    FileKind.OTHER: HeaderCheck(LookupStep.STOP, "not a regular file"),
}


@dataclass(frozen=True)
class ElfRequester:
    """An image that asks for others.

    Attributes: `path`; `image`, itself; `by`, the nearest of those that asked for it that has a search path of its own,
    as only these matter to a search: a chain may be as long as there are files.
    """

    path: str
    image: ElfImage
    by: ElfRequester | None = None


class LinuxRules(Protocol):
    """The rules in which C libraries differ.

    Attributes: `on_symlink_loop`, what it does at a link that leads back to itself.
    """

    @property
    def on_symlink_loop(self) -> LookupStep:
        """The loader's next step at a link that leads back to itself."""

    def expand(self, need: str, requester: ElfRequester | None) -> str | None:
        """The need with its tokens replaced; `None` when that cannot be."""
        ...

    def find_known(self, name: str) -> str | None:
        """The path of an image that the process has by that name."""
        ...

    def list_places(self, name: str, requester: ElfRequester | None) -> Iterator[Probe]:
        """The places to try, in order. Asked for one by one, and no further once a file is taken."""
        ...

    def judge_head(self, head: bytes) -> HeaderCheck:
        """Return whether the loader would take a file that begins like this."""
        ...

    def judge_image(self, image: object, *, is_top: bool) -> HeaderCheck:
        """Return whether the loader would map an image whose head it took; `is_top` for the file that all began
        with."""
        ...

    def remember(self, name: str, path: str, image: ElfImage | None) -> None:
        """An image now has that name: one mapped from `path`, or (`None`) one that was there already."""
        ...

    def search_key(self, requester: ElfRequester | None) -> object:
        """All that the places for a name depend on besides the name; hashable. Equal keys mean equal places."""
        ...


@dataclass(frozen=True)
class _Tried:
    """A place tried: the probe with its outcome, the image of a new file, the path of one that was there already."""

    probe: Probe
    step: LookupStep
    image: ElfImage | None = None
    known: str | None = None


@dataclass(frozen=True)
class _SearchResult:
    """The result of a search: its state, the file, the rule, why it was refused, its image and identity."""

    state: BindingState
    path: str | None = None
    phase: Phase | None = None
    reason: str | None = None
    image: ElfImage | None = None
    identity: tuple[int, int] | None = None


class SearchMemo:
    """Remembers the searches of many loads in one process, for walks that keep no probes.

    Most loads of an environment look for the same names in the same folders. Files are taken not to change meanwhile.
    """

    def __init__(self) -> None:
        self.results: dict[tuple[str, object], _SearchResult] = {}
        self.bindings: dict[tuple[str, str, str | None], Binding] = {}


class LinuxWalk:
    """One load, followed to its end.

    Arguments:
        context: the process.
        files: its files.
        rules: of its C library.
        memo: of other loads in such a process; bindings then have no probes.
    """

    def __init__(
        self, context: LinuxContext, files: Filesystem, rules: LinuxRules, memo: SearchMemo | None = None
    ) -> None:  # fmt: skip
        self._context = context
        self._files = files
        self._rules = rules
        self._memo = memo
        self._tree = TreeBuilder()
        self._paths: dict[tuple[int, int], str] = {}
        for loaded in context.loaded:
            identity = files.identity(loaded.path)
            if identity is not None:
                self._paths.setdefault(identity, loaded.path)

    def follow(
        self,
        top: str,
        caller: ElfRequester | None,
        parent: ElfRequester | None,
        notes: tuple[str, ...],
        preload: tuple[str, ...] = (),
    ) -> LoadTree:
        """Load `top` and all it needs, breadth first.

        Arguments: `caller` asks for `top`; `parent` is whom `top` inherits search paths from; `notes` for the tree;
        `preload`, names that are loaded between `top` and what it needs (LD_PRELOAD of a program that starts).
        """
        binding, image = self._bind(top, caller, self._context.program or "")
        if binding is None:
            self._tree.skip_need()
            return self._tree.build(top, notes)
        if binding.phase is not Phase.DIRECT or binding.state is not BindingState.BOUND:
            self._tree.add(binding)
        queue: deque[ElfRequester] = deque()
        if image is not None and binding.path is not None:
            queue.append(ElfRequester(binding.path, image, parent))
            self._preload(preload, queue)
        elif binding.state is BindingState.BOUND:
            notes = (*notes, f"{binding.path} is in the process already: nothing is loaded")
        while queue:
            requester = queue.popleft()
            for need in requester.image.needed:
                self._meet(need, requester, queue)
        return self._tree.build(binding.path or top, notes)

    def _preload(self, names: Iterable[str], queue: deque[ElfRequester]) -> None:
        """Load what LD_PRELOAD names.

        glibc goes on without one that cannot be loaded ("cannot be preloaded: ignored", do_preload in elf/rtld.c).
        """
        program = queue[0]
        for name in names:
            binding, image = self._bind(name, program, program.path)
            if binding is None:
                self._tree.skip_need()
                continue
            self._tree.add(replace(binding, phase=Phase.PRELOAD))
            if image is not None and binding.path is not None:
                queue.append(ElfRequester(binding.path, image, _heir_of(program)))

    def _meet(self, need: str, requester: ElfRequester, queue: deque[ElfRequester]) -> None:
        """Find what an image needs; a newly mapped image is queued, to have its own needs met."""
        binding, image = self._bind(need, requester, requester.path)
        if binding is None:
            self._tree.skip_need()
            return
        self._tree.add(binding)
        if image is not None and binding.path is not None:
            queue.append(ElfRequester(binding.path, image, _heir_of(requester)))

    def _bind(
        self, need: str, requester: ElfRequester | None, requested_by: str
    ) -> tuple[Binding | None, ElfImage | None]:
        """Return what becomes of a need, and the image that it newly brings.

        The binding is `None` if that would have taken more work than one tree may.
        """
        name = self._rules.expand(need, requester)
        known = self._rules.find_known(name) if name else None
        if known is not None:
            return self._bind_known(need, requested_by, known), None
        binding = Binding(need, requested_by, BindingState.MISSING)
        if not name:
            reason = "empty dynamic string token substitution" if need else "an empty name"
            return replace(binding, state=BindingState.REFUSED, reason=reason), None
        if self._tree.is_spent:
            return None, None
        if self._memo is not None and self._tree.images:
            return self._recall(self._memo, name, requester, binding)
        return self._search(name, requester, binding)

    def _bind_known(self, need: str, requested_by: str, path: str) -> Binding:
        """Return the binding of a need that an image of the process fulfils."""
        if self._memo is None:
            return Binding(need, requested_by, BindingState.BOUND, path, Phase.LOADED)
        return _same_binding(self._memo, need, requested_by, BindingState.BOUND, path, Phase.LOADED, None)

    def _recall(
        self, memo: SearchMemo, name: str, requester: ElfRequester | None, binding: Binding
    ) -> tuple[Binding, ElfImage | None]:
        """Return what `_search` does, without probes, and search only where no load has done so before."""
        key = name, self._rules.search_key(requester)
        result = memo.results.get(key)
        if result is None:
            result = memo.results[key] = self._find(name, requester)
        path, image = result.path, result.image
        state, phase, reason = result.state, result.phase, result.reason
        known = self._paths.get(result.identity) if result.identity is not None else None
        if known is not None:
            path, image, state, reason = known, None, BindingState.BOUND, None
        elif image is not None and path is not None:
            if result.identity is not None:
                self._paths[result.identity] = path
            self._tree.images[path] = image
        if state is BindingState.BOUND and path is not None:
            self._rules.remember(name, path, image)
        return _same_binding(memo, binding.need, binding.requested_by, state, path, phase, reason), image

    def _find(self, name: str, requester: ElfRequester | None) -> _SearchResult:
        """Look for a name in all its places, whatever this load has mapped."""
        left: tuple[Phase, str | None] | None = None
        for place in self._rules.list_places(name, requester):
            if (place.phase, place.origin) == left or place.outcome is not ProbeOutcome.PASSED:
                continue
            self._tree.places_left -= 1
            if self._tree.places_left < 0:
                break
            path = posixpath.join(self._context.current_folder, place.path)
            kind = self._files.kind(path)
            if kind is FileKind.ABSENT:
                continue
            check, image = self._examine(path, kind)
            if check.step is LookupStep.NEXT_PLACE:
                continue
            if check.step is LookupStep.NEXT_RULE:
                left = place.phase, place.origin
                continue
            identity = self._files.identity(path)
            if check.step is LookupStep.STOP:
                return _SearchResult(BindingState.REFUSED, place.path, place.phase, check.reason, None, identity)
            return _SearchResult(BindingState.BOUND, place.path, place.phase, None, image, identity)
        return _SearchResult(BindingState.MISSING)

    def _search(
        self, name: str, requester: ElfRequester | None, binding: Binding
    ) -> tuple[Binding | None, ElfImage | None]:
        """Try the places for a name, and return the binding completed; the rest is as for `_bind`."""
        probes: list[Probe] = []
        left: tuple[Phase, str | None] | None = None
        for place in self._rules.list_places(name, requester):
            if (place.phase, place.origin) == left:
                continue
            if self._tree.places_left <= 0:
                return None, None
            tried = self._try(place)
            probe = tried.probe
            probes.append(probe)
            if tried.step in (LookupStep.NEXT_PLACE, LookupStep.NEXT_RULE):
                left = (probe.phase, probe.origin) if tried.step is LookupStep.NEXT_RULE else None
                continue
            binding = replace(binding, phase=probe.phase, probes=tuple(probes))
            if tried.step is LookupStep.STOP:
                return replace(binding, state=BindingState.REFUSED, path=probe.path, reason=probe.reason), None
            path = tried.known or probe.path
            if tried.image is not None:
                self._tree.images[path] = tried.image
            self._rules.remember(name, path, tried.image)
            return replace(binding, state=BindingState.BOUND, path=path), tried.image
        return replace(binding, probes=tuple(probes)), None

    def _try(self, probe: Probe) -> _Tried:
        if probe.outcome is not ProbeOutcome.PASSED:  # its outcome was known beforehand
            return _Tried(probe, LookupStep.NEXT_PLACE)
        self._tree.places_left -= 1
        path = posixpath.join(self._context.current_folder, probe.path)
        kind = self._files.kind(path)
        if kind is FileKind.ABSENT:
            absent = Probe(probe.path, probe.phase, probe.origin, ProbeOutcome.ABSENT)
            return _Tried(absent, LookupStep.NEXT_PLACE)
        verdict, image = self._examine(path, kind)
        identity = self._files.identity(path)
        # Both loaders open a file and read its head before they compare it with those that they have: one that is
        # denied, or for another processor, is passed over (open_verify in elf/dl-load.c, load_library in musl).
        is_passed_over = verdict.step in (LookupStep.NEXT_PLACE, LookupStep.NEXT_RULE)
        if not is_passed_over and identity is not None and identity in self._paths:
            return _Tried(_taken(probe), LookupStep.TAKE, known=self._paths[identity])
        if verdict.step is not LookupStep.TAKE:
            outcome = ProbeOutcome.PASSED if kind is FileKind.HIDDEN else ProbeOutcome.PRESENT
            return _Tried(replace(probe, outcome=outcome, reason=verdict.reason), verdict.step)
        if identity is not None:
            self._paths[identity] = probe.path
        return _Tried(_taken(probe), LookupStep.TAKE, image)

    def _examine(self, path: str, kind: FileKind) -> tuple[HeaderCheck, ElfImage | None]:
        image = None
        try:
            if kind is FileKind.FILE:
                verdict = self._rules.judge_head(self._files.read_head(path, HEAD_SIZE))
                if verdict.step is LookupStep.TAKE:
                    image = self._files.read_image(path)
                    verdict = self._rules.judge_image(image, is_top=not self._tree.images)
            elif kind is FileKind.SYMLINK_LOOP:
                verdict = HeaderCheck(self._rules.on_symlink_loop, "a link that leads back to itself")
            else:
                verdict = _NO_FILES[kind]
        except PermissionError:
            verdict = _NO_FILES[FileKind.DENIED]
        except OSError as error:
            verdict = HeaderCheck(LookupStep.STOP, f"cannot read file data: {error.strerror}")
        except BinaryFormatError as error:
            verdict = HeaderCheck(LookupStep.STOP, str(error))
        return verdict, image if isinstance(image, ElfImage) else None


def _same_binding(
    memo: SearchMemo, need: str, requested_by: str, state: BindingState, path: str | None, phase: Phase | None,
    reason: str | None,
) -> Binding:  # fmt: skip
    """Return the one binding that all loads with that outcome share."""
    key = need, requested_by, path
    binding = memo.bindings.get(key)
    if binding is None or binding.state is not state or binding.phase is not phase:
        binding = memo.bindings[key] = Binding(need, requested_by, state, path, phase, reason=reason)
    return binding


def _heir_of(requester: ElfRequester) -> ElfRequester | None:
    """Return the nearest requester with a search path, for an image that `requester` brings."""
    return requester if requester.image.rpath or requester.image.runpath else requester.by


def _taken(probe: Probe) -> Probe:
    return replace(probe, outcome=ProbeOutcome.LOADED)


_Context = TypeVar("_Context", bound=LinuxContext)


def without_environment(context: _Context) -> _Context:
    """Return the context of a process in secure mode, in which LD_LIBRARY_PATH and LD_PRELOAD do not count.

    The kernel sets AT_SECURE (getauxval(3)) for a program that is set-user-ID, set-group-ID or has file capabilities,
    when these give it more than its caller had. ld.so(8) "Secure-execution mode". (LD_PRELOAD may then still name
    set-user-ID libraries of the system's folders: nobody does.)
    """
    ignored = [
        name for name, value in (("LD_LIBRARY_PATH", context.library_path), ("LD_PRELOAD", context.preload)) if value
    ]
    notes = context.notes
    if ignored:
        notes = (*notes, f"{' and '.join(ignored)} do not count: the program runs in secure mode (AT_SECURE)")
    return replace(context, library_path=(), preload=(), notes=notes)


def with_preloaded(context: _Context, files: Filesystem) -> _Context:
    """Return the context of a running process whose images are not known, with those that LD_PRELOAD brought.

    Only names with a folder: where a bare name was found depends on the program as it started.
    """
    if context.loaded or not context.preload:
        return context
    found = []
    for path in context.preload:
        requester = read_requester(path, files) if path.startswith("/") else path
        if not isinstance(requester, str):
            found.append(LoadedImage(path, requester.image.soname))
    left = [path for path in context.preload if path not in [image.path for image in found]]
    notes = context.notes
    if left:
        notes = (*notes, f"LD_PRELOAD is not taken into account: {', '.join(left)}")
    return replace(context, loaded=tuple(found), notes=notes)


def read_requester(path: str, files: Filesystem) -> ElfRequester | str:
    """An image whose search paths count, though it is not loaded now; or why it cannot be read."""
    try:
        image = files.read_image(path)
    except (OSError, BinaryFormatError) as error:
        return f"{path} could not be read, so its search path does not count here: {error}"
    if not isinstance(image, ElfImage):
        return f"{path} is no ELF file, so it has no search path"
    return ElfRequester(path, image)
