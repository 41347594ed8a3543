"""Finds the loader's rules behind the places that were tried, where a mechanism saw only the places.

Backend "seccomp" sees which files a loader opens, on any C library. The rules of the C library (`resolve`) say which
places there are for a name, in which order, and by which rule. Where all places seen come in that order, their rules
are known. Where they do not, the phases stay `Phase.OTHER`: nothing is guessed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from ..binary.elf import read_elf
from ..capture.linux.seccomp_decode import WatchedProgram
from ..errors import BinaryFormatError
from ..host.filesystem import HostFilesystem
from ..host.linux import read_linux_context
from ..model.events import ImageChange, LoadEvent, LoadFailedEvent, Phase, Probe, ProbeOutcome
from ..model.light import replace
from ..model.loader_context import MuslContext
from ..resolve.linux import GlibcRules, MuslRules
from ..resolve.walk import ElfRequester, read_requester

_MOST_CONTEXTS = 64
_MOST_ANSWERS = 10_000
_LOADER_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES")



class _Context:
    """One program in its environment: the rules of its loader, and the images that ask for others."""

    def __init__(self, rules: GlibcRules | MuslRules, main: ElfRequester | None, program: str) -> None:
        self.rules = rules
        self.main = main
        self.requesters = {} if main is None else {program: main}
        self.unread: dict[str, tuple[str | None, str]] = {}


class SearchPhases:
    """Completes events of backend "seccomp"."""

    def __init__(self) -> None:
        self._files = HostFilesystem()
        self._contexts: dict[object, _Context | None] = {}
        self._last: tuple[WatchedProgram | None, _Context | None] = (None, None)
        self._answers: dict[object, tuple[Probe, ...] | None] = {}

    def complete(self, event: ImageChange, program: WatchedProgram) -> ImageChange:
        """The event, with the rule that led to each place, as far as it can be found.

        Arguments: `program`, that of the event's process.
        """
        if not isinstance(event, (LoadEvent, LoadFailedEvent)) or not program.same_files:
            return event
        is_search = bool(event.probes) and any(probe.phase is Phase.OTHER for probe in event.probes or ())
        context = self._context(program)
        if context is None:
            return event
        if is_search and event.probes:
            event = self._with_phases(event, event.probes, context)
        if isinstance(event, LoadEvent):
            self._add_requester(event, context, program)
        return event

    def _with_phases(
        self, event: LoadEvent | LoadFailedEvent, probes: tuple[Probe, ...], context: _Context
    ) -> LoadEvent | LoadFailedEvent:
        name = event.need or event.path
        places = tuple(probe.path for probe in probes)
        key = id(context), name, event.requested_by, places, isinstance(event, LoadEvent)
        if key not in self._answers:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            self._answers[key] = self._match(name, event.requested_by, probes, context)
        found = self._answers[key]
        if found is None:
            return event
        outcomes = {probe.path: probe for probe in probes}
        matched = tuple(
            replace(outcomes[probe.path], phase=probe.phase, origin=probe.origin) if probe.path in outcomes else probe
            for probe in found
        )
        if event.phase is not None and isinstance(event, LoadEvent) and matched[-1].phase is not Phase.OTHER:
            return replace(event, phase=matched[-1].phase, probes=matched)
        return replace(event, probes=matched)

    def _match(
        self, name: str, requested_by: str | None, probes: tuple[Probe, ...], context: _Context
    ) -> tuple[Probe, ...] | None:
        """The places with their rules; `None` where they are not those of anybody who may have asked."""
        is_found = probes[-1].outcome is ProbeOutcome.LOADED
        for requester in self._candidates(requested_by, context):
            places = tuple(probe.path for probe in probes)
            matched = _in_order(places, context.rules.list_places(name, requester), is_found)
            if matched is not None:
                return matched
        return None

    def _candidates(self, requested_by: str | None, context: _Context) -> Iterator[ElfRequester | None]:
        """Return possible requesters: the image known to need the name; else callers of dlopen with a search path, or
        none."""
        known = self._requester(requested_by or "", context)
        if known is not None:
            yield known
            return
        yield context.main
        for path in tuple(context.unread):
            self._requester(path, context)
        for path, requester in context.requesters.items():
            if requester.image.rpath or requester.image.runpath or posixpath.basename(path).startswith("_ctypes"):
                yield requester

    def _add_requester(self, event: LoadEvent, context: _Context, program: WatchedProgram) -> None:
        """Remember an image that may need others, and from whom it inherits search paths."""
        if event.path not in context.requesters:
            context.unread.setdefault(event.path, (event.requested_by, posixpath.join(program.folder, event.path)))

    def _requester(self, name: str, context: _Context) -> ElfRequester | None:
        """The image of that path as one that asks for others; read when it is first asked for."""
        if name not in context.unread:
            return context.requesters.get(name)
        requested_by, path = context.unread.pop(name)
        try:
            image = read_elf(path, versions=False)
        except (OSError, BinaryFormatError):
            return None
        by = self._requester(requested_by or "", context)
        if by is not None and not (by.image.rpath or by.image.runpath):
            by = by.by
        if by is None and isinstance(context.rules, MuslRules):
            by = context.main  # every dlopen inherits from the program (load_library in ldso/dynlink.c)
        context.requesters[name] = found = ElfRequester(name, image, by)
        return found

    def _context(self, program: WatchedProgram) -> _Context | None:
        if program is self._last[0]:  # one event after the other is of one program
            return self._last[1]
        variables = dict(program.environment)
        key = program.program, program.folder, tuple(variables.get(name, "") for name in _LOADER_VARIABLES)
        if key not in self._contexts:
            if len(self._contexts) >= _MOST_CONTEXTS:
                self._contexts.clear()
                self._answers.clear()
            self._contexts[key] = self._read_context(program, variables)
        self._last = program, self._contexts[key]
        return self._contexts[key]

    def _read_context(self, program: WatchedProgram, variables: dict[str, str]) -> _Context | None:
        if program.program is None:
            return None
        try:
            found = read_linux_context(environment=variables, program=program.program, files=self._files)
        except (OSError, BinaryFormatError):
            return None
        found = replace(found, current_folder=program.folder)
        main = read_requester(program.program, self._files)
        if isinstance(found, MuslContext):
            rules: GlibcRules | MuslRules = MuslRules(found, self._files, None)
        else:
            rules = GlibcRules(found, self._files, None)
        requester = None if isinstance(main, str) else main
        return _Context(rules, requester, program.program)


def _in_order(places: tuple[str, ...], rules: Iterator[Probe], is_found: bool) -> tuple[Probe, ...] | None:
    """The rules of places that come in the order of the rules; `None` where one does not.

    With an index that was asked in vain between two of them, or behind the last one of a search that failed. A loader
    may look into subfolders of a folder first (glibc-hwcaps, tls), which the rules list only where they exist.
    """
    matched: list[Probe] = []
    asked: list[Probe] = []
    at = 0
    for rule in rules:
        if rule.outcome is ProbeOutcome.NO_ENTRY:
            asked.append(rule)
            continue
        inside = _count_inside(places, at, rule.path)
        is_tried = places[at + inside : at + inside + 1] == (rule.path,)
        if is_tried or (inside and at + inside == len(places) and is_found):
            tried = places[at : at + inside + is_tried]
            matched += [*asked, *(replace(rule, path=path) for path in tried)]
            asked = []
            at += len(tried)
        if at == len(places) and is_found:
            break
    if at < len(places):
        return None
    return tuple(matched + ([] if is_found else asked))


def _count_inside(places: tuple[str, ...], at: int, plain: str) -> int:
    """Return how many of the next places are in subfolders of the folder of a place."""
    folder, _, name = plain.rpartition("/")
    inside = 0
    for path in places[at:]:
        if path == plain or not path.startswith(f"{folder}/") or not path.endswith(f"/{name}"):
            break
        inside += 1
    return inside
