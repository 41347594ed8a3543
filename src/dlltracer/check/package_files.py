"""Do the packages of an environment still have the files that they were installed with, and unchanged.

Source: "Recording installed projects", Python Packaging User Guide (RECORD).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..host.distributions import Distribution, find_changed, is_from_conda, list_distributions
from ..host.environments import PythonEnvironment, folder_exists
from ..host.native_files import is_cut_short
from ..model.check import Problem, Severity
from ..model.environment import ChangedFile, FileState

_NATIVE = re.compile(r"\.(?:so(?:\.\d+)*|pyd|dll|dylib)$", re.IGNORECASE)
_TESTS = re.compile(r"/(?:tests?|testing)/|/_?test\w*\.[^/]*$")
_NAMED = 4


@dataclass
class _Changes:
    """What became of the files of one distribution, by path: their places in the target."""

    gone: list[str] = field(default_factory=list)
    gone_code: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)


def check_package_files(
    environment: PythonEnvironment, places: Mapping[str, str], sites: Sequence[str]
) -> Iterator[Problem]:  # fmt: skip
    """Yield what is wrong with the files that the RECORDs of an environment list.

    Arguments: `places`, path of each native file on this machine to its path in the target; `sites`, the folders whose
    packages are held against their RECORDs.
    """
    for distribution in list_distributions(sites):
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
    changes, conda = _Changes(), is_from_conda(distribution)
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
