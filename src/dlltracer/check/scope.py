"""Finds the symbols that the images of many loads need of one another and lack, for loads that share most images.

The rules are those of `resolve.symbols`; the work is done once for all loads. Images are distinguished by file, as one
file has many spellings ("$ORIGIN/../.."). Only names that anybody needs are looked up. What an image needs is looked
for again only in a load that lacks one of the images that had it before.

Source: check_match and do_lookup_x in elf/dl-lookup.c, elf/dl-version.c of glibc.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import compress

from ..errors import BinaryFormatError
from ..model.elf import ElfImage, ElfSymbols
from ..model.tree import BindingState, LoadTree, MissingSymbol, MissingVersion

_MOST_RIVALS = 20
"""Files of one name that are held against each other."""
_MOST_SETS = 8
"""Sets of providers remembered of an image. Real images have one or two."""


@dataclass(frozen=True)
class _Definition:
    """A definition of a name: the image, its versions, and whether a reference without a version finds it."""

    image: int
    versions: tuple[str | None, ...]
    is_plain: bool


@dataclass
class _Member:
    """An image: its `path`, headers, what it needs of others by name and version, and who has had that."""

    path: str
    image: ElfImage
    names: tuple[str, ...] = ()
    versions: tuple[str | None, ...] = ()
    satisfied: list[frozenset[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """A load: the path of its top, and the numbers of the images that it brings, the top first."""

    top: str
    images: tuple[int, ...]


@dataclass(frozen=True)
class Conflict:
    """An image (`user`) that has all it needs of the library `taken`, and lacks something with `earlier`."""

    user: str
    taken: str
    earlier: str
    lacking: tuple[str, ...]


class SymbolScope:
    """The symbols of the images of many loads.

    First `add` all trees, then `index`, then ask `find_missing` of each load.

    Arguments:
        read: the image at a path, without symbols.
        take_needs: what the image of an identity needs: names and their versions, without the weak ones.
        read_provided: which of some names the image at a path defines.
        read_all: the image at a path with all its symbols, for what is missing.
        identity: what all paths of a file have in common.
    """

    def __init__(
        self,
        read: Callable[[str], ElfImage],
        take_needs: Callable[[tuple[int, int] | None], tuple[tuple[str, ...], tuple[str | None, ...]]],
        read_provided: Callable[[str, Set[str]], ElfSymbols],
        read_all: Callable[[str], ElfImage],
        identity: Callable[[str], tuple[int, int] | None],
    ) -> None:
        self._read = read
        self._needs_of = take_needs
        self._read_provided = read_provided
        self._read_all = read_all
        self._identity = identity
        self._members: list[_Member] = []
        self._numbers: dict[object, int] = {}
        self._by_path: dict[str, int] = {}
        self._base: frozenset[int] = frozenset()
        self._providers: set[int] = set()
        self._definitions: dict[str, list[_Definition]] = {}
        self._versions_seen: set[int] = set()

    def set_base(self, paths: Iterable[str]) -> None:
        """Take images for loaded before everything else: the interpreter and what it brings."""
        numbers = [self._number(path) for path in paths]
        self._base = frozenset(number for number in numbers if number is not None)

    def add(self, tree: LoadTree) -> Load:
        """Take the images of a load."""
        numbers = [self._number(path) for path in tree.images]
        images = tuple(dict.fromkeys(number for number in numbers if number is not None))
        self._providers.update(images[1:])
        return Load(tree.top, images)

    def index(self) -> None:
        """Read what the images define of all that others need."""
        for number, member in enumerate(self._members):
            needs = self._needs_of(self._identity(member.path))
            if number not in self._base:
                member.names, member.versions = needs
        wanted = {name for member in self._members for name in member.names}
        self._index(self._base, wanted)
        # What the base has, every load finds there: nothing more is asked about it. Of the base itself nothing is.
        plain, free, versioned = self._list_base()
        for member in self._members:
            kept = [
                name not in plain if version is None else name not in free and (name, version) not in versioned
                for name, version in zip(member.names, member.versions, strict=True)
            ]
            member.names = tuple(compress(member.names, kept))
            member.versions = tuple(compress(member.versions, kept))
        self._index(self._providers - self._base, {name for member in self._members for name in member.names})

    def find_missing(self, load: Load) -> Iterator[MissingSymbol]:
        """Yield the symbols that images of a load need and that no image of it has."""
        scope = self._base.union(load.images)
        for number in load.images:
            member = self._members[number]
            if any(used <= scope for used in member.satisfied):
                continue
            used: set[int] = set()
            missing = []
            for name, version in zip(member.names, member.versions, strict=True):
                for found in self._definitions.get(name, ()):
                    if found.image in scope and _fits(found, version):
                        used.add(found.image)
                        break
                else:
                    missing.append((name, version))
            if missing:
                yield from self._confirm(member, missing, load)
            elif len(member.satisfied) < _MOST_SETS:
                member.satisfied.append(frozenset(used))

    def find_missing_versions(self, tree: LoadTree) -> Iterator[MissingVersion]:
        """Yield the versions for which glibc refuses a load, each pair of images judged once."""
        for binding in tree.bindings:
            if binding.state is not BindingState.BOUND or binding.path is None:
                continue
            # Loads share their bindings (`resolve.walk.SearchMemo`, which keeps them): one is asked about once.
            if id(binding) in self._versions_seen:
                continue
            self._versions_seen.add(id(binding))
            requester, provider = self._member(binding.requested_by), self._member(binding.path)
            if requester is None or provider is None or not provider.image.is_versioned:
                continue
            names = (provider.image.soname, posixpath.basename(binding.path), binding.path)
            has = provider.image.version_defs
            for need in requester.image.version_needs:
                is_its = need.library in names and not need.weak
                if is_its and need.version not in has and need.version != provider.image.soname:
                    yield MissingVersion(need.version, need.library, binding.path, binding.requested_by, has)

    def find_conflicts(self, loads: Iterable[Load], rivals: Callable[[str, str], bool]) -> Iterator[Conflict]:
        """Yield who would lack what if the library of a name were another one, which was loaded before.

        glibc takes the image that has the name already, whatever the search would find.

        Argument: `rivals`, whether the images at two paths with one name may be of different packages and builds.
        """
        by_name: dict[str, list[int]] = {}
        for number in sorted(self._providers):
            soname = self._members[number].image.soname
            if soname is not None:
                by_name.setdefault(soname, []).append(number)
        others: dict[int, list[int]] = {}
        for numbers in by_name.values():
            for number in numbers if 1 < len(numbers) <= _MOST_RIVALS else ():
                path = self._members[number].path
                others[number] = [
                    other for other in numbers if other != number and rivals(path, self._members[other].path)
                ]
        seen: set[tuple[int, int, int]] = set()
        for load in loads:
            for taken in load.images[1:]:
                for earlier in others.get(taken, ()):
                    if earlier in load.images or taken in self._base:
                        continue
                    for user in load.images:
                        if (user, taken, earlier) not in seen:
                            seen.add((user, taken, earlier))
                            yield from self._compare(user, taken, earlier, load)

    def _compare(self, user: int, taken: int, earlier: int, load: Load) -> Iterator[Conflict]:
        """Yield what an image has of one library, and neither of the earlier copy nor of the rest of the load."""
        member, image, other = self._members[user], self._members[taken].image, self._members[earlier].image
        lacking = [
            f"the version {need.version}" for need in member.image.version_needs
            if need.library == image.soname and not need.weak and other.is_versioned
            and need.version not in other.version_defs and need.version != other.soname
        ]  # fmt: skip
        scope = (self._base.union(load.images) - {taken}) | {earlier}
        for name, version in zip(member.names, member.versions, strict=True):
            definitions = [found for found in self._definitions.get(name, ()) if _fits(found, version)]
            if any(found.image == taken for found in definitions) and not any(
                found.image in scope for found in definitions
            ):
                lacking.append(name)
        if lacking and user not in (taken, earlier):
            members = self._members
            yield Conflict(members[user].path, members[taken].path, members[earlier].path, tuple(lacking))

    def defined_in(self, name: str, paths: Iterable[str]) -> Iterator[str]:
        """Yield which of the images at some paths define a name."""
        for path in paths:
            if name in self._provided(path, frozenset((name,))).provides:
                yield path

    def _number(self, path: str) -> int | None:
        if path in self._by_path:
            return self._by_path[path]
        key: object = self._identity(path) or path
        number = self._numbers.get(key)
        if number is None:
            try:
                image = self._read(path)
            except (OSError, BinaryFormatError):
                return None
            number = self._numbers[key] = len(self._members)
            self._members.append(_Member(path, image))
        self._by_path[path] = number
        return number

    def _member(self, path: str) -> _Member | None:
        number = self._number(path)
        return None if number is None else self._members[number]

    def _index(self, numbers: Set[int], wanted: Set[str]) -> None:
        for number in sorted(numbers):
            symbols = self._provided(self._members[number].path, wanted)
            for name, versions in symbols.provides.items():
                found = _Definition(number, versions, name not in symbols.versioned_only)
                self._definitions.setdefault(name, []).append(found)

    def _list_base(self) -> tuple[set[str], set[str], set[tuple[str, str | None]]]:
        """Return the names that a reference without a version finds, that one with any does, and pairs of the two."""
        plain: set[str] = set()
        free: set[str] = set()
        versioned: set[tuple[str, str | None]] = set()
        for name, definitions in self._definitions.items():
            for found in definitions:
                versioned.update((name, version) for version in found.versions)
                if None in found.versions:
                    free.add(name)
                if found.is_plain:
                    plain.add(name)
        return plain, free, versioned

    def _provided(self, path: str, wanted: Set[str]) -> ElfSymbols:
        try:
            return self._read_provided(path, wanted)
        except (OSError, BinaryFormatError):
            return ElfSymbols((), {})

    def _confirm(
        self, member: _Member, missing: Sequence[tuple[str, str | None]], load: Load
    ) -> Iterator[MissingSymbol]:  # fmt: skip
        """Yield what is missing in truth: not what no relocation uses, nor what the top of the load has itself."""
        try:
            symbols = self._read_all(member.path).symbols
        except (OSError, BinaryFormatError):
            return
        used = {(need.name, need.version): need for need in symbols.needs} if symbols is not None else {}
        own = self._provided(load.top, frozenset(name for name, _ in missing))
        for name, version in missing:
            need = used.get((name, version))
            versions = own.provides.get(name)
            if need is None or (versions and _fits(_Definition(-1, versions, name not in own.versioned_only), version)):
                continue
            yield MissingSymbol(name, version, member.path, need.library)


def _fits(found: _Definition, version: str | None) -> bool:
    """Return whether a lookup takes the definition: check_match."""
    return found.is_plain if version is None else version in found.versions or None in found.versions
