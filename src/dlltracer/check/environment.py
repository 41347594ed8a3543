"""Checks an environment: whether every extension module, library and program in it would load on its own system."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import DlltracerError
from ..host import machine
from ..host.distributions import Distribution, find_changed, is_repackaged, list_distributions
from ..host.environments import (
    PythonEnvironment,
    environment_in,
    environment_of,
    folder_exists,
    own_environment,
    read_path_files,
)
from ..host.file_states import FileStates, code_above, describe_process, has_linked_folders, own_folder
from ..host.filesystem import HostFilesystem
from ..host.image_cache import ImageCache, cache_folder, is_settled
from ..host.native_files import NativeFile, NativeListing, is_cut_short, list_native_files
from ..host.wheel import UnreadableTarget
from ..model.check import CheckReport, PackageContent, Problem, Severity
from ..model.decode import decode
from ..model.encode import encode
from ..model.environment import ChangedFile, FileState

_FORMATS = {"elf": "Linux", "pe": "Windows", "macho": "macOS"}


def check_environment(path: str, root: str | None = None, *, is_folder: bool, use_cache: bool = True) -> CheckReport:
    """Check the environment of an interpreter, or one in a folder.

    Arguments:
        path: the interpreter, "" for the running one; with `is_folder` the folder.
        root: a folder that holds the system that it belongs to; `None` for this machine.
        is_folder: `path` is a folder.
        use_cache: whether results of earlier checks may be used and kept.
    Nothing of it is run. The report says what cannot be read.
    """
    try:
        environment = _find(path, root, is_folder=is_folder)
    except DlltracerError as error:
        return CheckReport(target=path, unreadable=str(error))
    added = [folder for site in environment.site_folders for folder in read_path_files(site)] if not is_folder else []
    folders = (*environment.folders, *added)
    target = path if is_folder else environment.folder
    with ImageCache(cache_folder() if use_cache else None) as cache:
        kept = KeptReport(cache, environment, folders, root, target)
        report = kept.find() or _check_folders(environment, folders, root, target, cache, kept)
    return replace(report, notes=tuple(dict.fromkeys((*report.notes, *cache.notes))))


def _check_folders(
    environment: PythonEnvironment, folders: Sequence[str], root: str | None, target: str, cache: ImageCache,
    kept: KeptReport,
) -> CheckReport:  # fmt: skip
    listing = list_native_files(folders, one_system=root is not None)
    if not listing.entries and listing.unreadable:
        return CheckReport(target=target or environment.folder, unreadable=listing.unreadable[0][1])
    notes = [*environment.notes, *listing.describe_losses()]
    system, files, left = _choose(environment, listing)
    notes += left
    used: list[HostFilesystem] = []
    problems = list(_check_files(environment, system, files, root, notes, cache, used))
    places = {file.path: environment.place(file.path) for file in listing.files}
    distributions = list(list_distributions(environment.site_folders))
    problems += check_package_files(environment, places, distributions)
    problems.sort(key=lambda problem: (problem.severity.rank, problem.file, problem.code, problem.title))
    report = CheckReport(
        target=target, problems=tuple(dict.fromkeys(problems)), files=len(files), notes=tuple(dict.fromkeys(notes)),
        packages=tuple(_contents_of(distributions, places)),
    )  # fmt: skip
    kept.keep(report, used, (path for one in distributions for path in one.recorded_elsewhere()))
    return report


def _contents_of(distributions: Sequence[Distribution], places: Mapping[str, str]) -> Iterator[PackageContent]:
    """Yield the native files of each package that has some, by their RECORDs."""
    for distribution in distributions:
        paths = map(distribution.locate, (row[0] for row in distribution.record or ()))
        files = tuple(places[path] for path in paths if path in places)
        if files:
            yield PackageContent(name=distribution.name, version=distribution.version, files=files)


def _find(path: str, root: str | None, *, is_folder: bool) -> PythonEnvironment:
    if is_folder:
        if root is not None and not Path(path).resolve().is_relative_to(Path(root).resolve()):
            inside = Path(root, path.lstrip("/"))
            advice = f": name {inside}" if machine.is_folder(inside) else ""
            raise UnreadableTarget(f"it is not in {root}, the folder of --root{advice}")
        return environment_in(path, root)
    if root is not None:
        return environment_in(root, root)
    return environment_of(path) if path else own_environment()


def _choose(environment: PythonEnvironment, listing: NativeListing) -> tuple[str, list[NativeFile], list[str]]:
    """Return the format of the environment's native files, these files, and a note on those of other systems.

    Packages ship files of other systems: pip and setuptools have launchers for Windows.
    """
    modules = Counter(file.format for file in listing.files if file.path.lower().endswith((".so", ".pyd")))
    every = Counter(file.format for file in listing.files)
    chosen = "pe" if environment.is_windows else next(
        (form for form, _ in (*modules.most_common(1), *every.most_common(1))), "elf"
    )  # fmt: skip
    others = Counter(_FORMATS[file.format] for file in listing.files if file.format != chosen)
    notes = [
        f"{count} {'file is' if count == 1 else 'files are'} for {name}, and not judged"
        for name, count in sorted(others.items())
    ]
    return chosen, [file for file in listing.files if file.format == chosen], notes


def _check_files(
    environment: PythonEnvironment, form: str, files: list[NativeFile], root: str | None, notes: list[str],
    cache: ImageCache, used: list[HostFilesystem],
) -> Iterator[Problem]:  # fmt: skip
    # Not above: a report that was kept needs none of them.
    if form == "elf":
        from .linux_environment import check_linux_files

        return check_linux_files(environment, files, root, notes, cache, used)
    from .foreign_environment import check_macos_files, check_windows_files

    if form == "pe":
        return check_windows_files(environment, files, notes)
    return check_macos_files(environment, files, notes, used)


_NATIVE = re.compile(r"\.(?:so(?:\.\d+)*|pyd|dll|dylib)$", re.IGNORECASE)
_TESTS = re.compile(r"/(?:tests?|testing)/|/_?test\w*\.[^/]*$")
_NAMED = 4


@dataclass
class _Changes:
    """Changes of the files of one distribution, by path: their places in the target."""

    gone: list[str] = field(default_factory=list)
    gone_code: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)


def check_package_files(
    environment: PythonEnvironment, places: Mapping[str, str], distributions: Sequence[Distribution]
) -> Iterator[Problem]:  # fmt: skip
    """Yield what is wrong with the files that the RECORDs of an environment list.

    Arguments: `places`, path of each native file on this machine to its path in the target; `distributions`, those
    that are held against their RECORDs.
    """
    for distribution in distributions:
        yield from _check_one(distribution, environment, places)


def _check_one(
    distribution: Distribution, environment: PythonEnvironment, places: Mapping[str, str]
) -> Iterator[Problem]:  # fmt: skip
    check = find_changed(distribution, places)
    if check.problem or not check.changed:
        return
    who = f"{distribution.name} {distribution.version}"
    fix = f"install it again: pip install --force-reinstall --no-deps {distribution.name}=={distribution.version}"
    absent = [changed for changed in check.changed if changed.state is FileState.ABSENT]
    own = [changed for changed in absent if not changed.path.startswith(f"{distribution.info}/")]
    if own and len(own) >= check.checked - _metadata_files(distribution):
        yield Problem(
            code="missing-file", severity=Severity.WARNING, file=environment.place(distribution.info),
            title=f"none of the {len(own)} files of {who} is there", fix=fix,
            evidence=("only the metadata of the package is left",),
        )  # fmt: skip
        return
    changes, conda = _Changes(), is_repackaged(distribution)
    for changed in check.changed:
        yield from _judge(changed, environment, who, fix, changes, is_conda=conda)
    info = environment.place(distribution.info)
    if changes.gone_code:
        yield _summary("missing-file", Severity.WARNING, info, f"{who} lacks modules", changes.gone_code, fix)
    if changes.gone:
        yield _summary("missing-file", Severity.NOTE, info, f"{who} lacks files", changes.gone, "")
    if changes.other:
        yield _summary("changed-file", Severity.NOTE, info, f"{who} has files that were changed", changes.other, "")


def _judge(
    changed: ChangedFile, environment: PythonEnvironment, who: str, fix: str, changes: _Changes, *, is_conda: bool
) -> Iterator[Problem]:
    """Yield the problem of a native file; note other files in `changes`."""
    path, place = changed.path, environment.place(changed.path)
    is_native = _NATIVE.search(path) is not None
    if changed.state is FileState.ABSENT:
        # Who makes an image small removes whole folders, tests above all.
        is_removed = _TESTS.search(path) is not None or not folder_exists(posixpath.dirname(path))
        if is_native and not is_removed:
            yield Problem(
                code="missing-file", severity=Severity.ERROR, file=place, title=f"it is gone: RECORD of {who} lists it",
                fix=fix,
            )  # fmt: skip
        else:
            (changes.gone_code if path.endswith(".py") and not is_removed else changes.gone).append(place)
        return
    if changed.state is FileState.UNREADABLE or not is_native or is_conda:
        changes.other.append(place)
        return
    severity, what = Severity.WARNING, "it was changed after it was installed"
    evidence = [f"it has {changed.size} bytes, and RECORD of {who} says {changed.expected_size}"]
    if changed.size == changed.expected_size:
        # No tool that works on native files keeps the size to the byte and changes the content.
        severity, what = Severity.ERROR, "its content is damaged"
        evidence = [f"its sum is not the one in RECORD of {who}, and its size is"]
    elif is_cut_short(path):
        severity, what = Severity.ERROR, "it is cut short"
    else:
        evidence.append("strip and patchelf do that, and leave it whole")
    yield Problem(
        code="changed-file", severity=severity, file=place, title=what, evidence=tuple(evidence), fix=fix
    )  # fmt: skip


def _metadata_files(distribution: Distribution) -> int:
    """Return how many files of the RECORD are in the folder of the metadata."""
    info = posixpath.basename(distribution.info)
    return sum(1 for row in distribution.record or () if row[1] and row[0].startswith(f"{info}/"))


def _summary(code: str, severity: Severity, file: str, what: str, places: Sequence[str], fix: str) -> Problem:
    """Return one problem for several files."""
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return Problem(
        code=code, severity=severity, file=file, title=f"{what}: {', '.join(places[:_NAMED])}{more}", fix=fix,
        evidence=tuple(places[_NAMED : 10 * _NAMED]),
    )  # fmt: skip


class KeptReport:
    """Keeps the report on an environment, and gives it again as long as nothing has changed that it rests on.

    That is: every file below the environment's folders; every file of the system that the search looked at; the names
    in the folders where it found nothing; the settings of the process; the machine; the files of dlltracer itself.
    All of it is asked for its state (`host.file_states`), nothing is read.

    Arguments:
        cache: where it is kept.
        environment, folders: what is checked, and all folders that are looked through.
        root: the folder of the system that it belongs to; `None` for this machine.
        target: what the report is on, as it names it.
    """

    def __init__(
        self, cache: ImageCache, environment: PythonEnvironment, folders: Sequence[str], root: str | None, target: str
    ) -> None:
        self._cache = cache
        self._root = root
        self._start = time.time_ns()
        self._is_possible = cache.is_open
        if not self._is_possible:
            return
        own = FileStates()
        own.add_folders([own_folder()])
        tops = dict.fromkeys((*folders, *environment.site_folders))
        self._tree = FileStates()
        self._tree.add_folders(tops, one_system=root is not None)
        self._tree.add_paths(code_above(tops), HostFilesystem())
        is_linked = root is not None and has_linked_folders(environment.site_folders)
        self._is_possible = own.is_complete and self._tree.is_complete and not is_linked
        asked = [
            own.digest(), repr(environment), repr(tuple(tops)), repr(root), target, *describe_process(),
        ]  # fmt: skip
        name = json.dumps(asked).encode("ascii")
        self._name = f"report-{hashlib.blake2b(name, digest_size=20).hexdigest()}"

    def find(self) -> CheckReport | None:
        """Return the report of an earlier check, if it is still true."""
        data = self._cache.get_named(self._name) if self._is_possible else None
        if data is None:
            return None
        try:
            plain = json.loads(data)
            if plain["tree"] != self._tree.digest():
                return None
            paths, names, others = (decode(tuple[str, ...], plain[key], key) for key in ("paths", "names", "others"))
            if plain["rest"] != self._add_up(paths, names, others).digest():
                return None
            report: CheckReport = decode(CheckReport, plain["report"], "report")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None  # none of ours
        return report

    def keep(self, report: CheckReport, used: Iterable[HostFilesystem], others: Iterable[str]) -> None:
        """Keep a report, unless something that it rests on has changed since just before the check began.

        Arguments: `used`, the files of the system as the search looked at them; `others`, more paths of this machine.
        """
        if not self._is_possible:
            return
        looks = [files.looked_at() for files in used]
        paths = [path for found, _ in looks for path in found]
        names = [folder for _, folders in looks for folder in folders]
        outside = list(dict.fromkeys(others))
        rest = self._add_up(paths, names, outside)
        newest = max(self._tree.newest, rest.newest)
        if not rest.is_complete or not is_settled(newest, self._start, is_coarse=newest % 1_000_000_000 == 0):
            return
        plain = {
            "tree": self._tree.digest(), "paths": paths, "names": names, "others": outside, "rest": rest.digest(),
            "report": encode(report),
        }  # fmt: skip
        self._cache.put_named(self._name, json.dumps(plain, separators=(",", ":")).encode("ascii"))

    def _add_up(self, paths: Sequence[str], names: Sequence[str], others: Sequence[str]) -> FileStates:
        # Without what an earlier object remembers: the states are those of now.
        rest, system = FileStates(), HostFilesystem(self._root)
        rest.add_paths(paths, system)
        rest.add_names(names, system)
        rest.add_paths(others, HostFilesystem())
        return rest
