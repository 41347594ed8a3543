"""Check one wheel: its archive, its tags, and its native files on every platform that the tags promise."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator

from ..host.wheel import UnreadableTarget, Wheel, open_wheel
from ..model.check import CheckReport, Problem, Severity
from .linux import check_linux
from .macos import check_macos
from .platforms import Loader, Platform, read_platforms
from .windows import check_windows

_INTERPRETER = re.compile(r"(cp|py)(\d)(\d*)")
_USUAL_PYTHON = (3, 11)
_SUFFIX = re.compile(r"([^/]+?)\.(cpython-(\d)(\d+)(t?)\w*|cp(\d)(\d+)(t?)-[\w]+)(?:-[\w-]+)?\.(?:so|pyd)$")


def check_wheel(path: str) -> CheckReport:
    """Check the wheel at `path`. Nothing of it is run, and nothing is written outside of a private temporary folder."""
    name = path.replace("\\", "/").rpartition("/")[2]
    try:
        tags = _read_tags(name)
        with tempfile.TemporaryDirectory(prefix="dlltracer-check-") as folder:
            wheel = open_wheel(path, folder)
            platforms, unknown = read_platforms(dict.fromkeys(platform for _, _, platform in tags))
            problems = [*wheel.problems, *_judge_tags(wheel, tags), *_judge_suffixes(wheel, tags)]
            for platform in platforms:
                problems += _judge_platform(wheel, platform, tags)
    except UnreadableTarget as error:
        return CheckReport(target=path, unreadable=str(error))
    problems.sort(key=lambda problem: (problem.severity.rank, problem.file, problem.code, problem.title))
    notes = tuple(f"the platform tag {tag} is not known: nothing was held against it" for tag in unknown)
    return CheckReport(
        target=path, problems=tuple(dict.fromkeys(problems)), files=len(wheel.native),
        platforms=tuple(platform.tag for platform in platforms), notes=notes,
    )  # fmt: skip


def _read_tags(name: str) -> list[tuple[str, str, str]]:
    """Return interpreter, ABI and platform of every tag in the file name of a wheel. Raises `UnreadableTarget`."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        _, _, _, tags = parse_wheel_filename(name)
    except InvalidWheelFilename as error:
        raise UnreadableTarget(f"its name is not that of a wheel: {error}") from error
    return sorted((tag.interpreter, tag.abi, tag.platform) for tag in tags)


def _judge_platform(wheel: Wheel, platform: Platform, tags: list[tuple[str, str, str]]) -> Iterator[Problem]:
    if platform.loader is Loader.WINDOWS:
        version, free_threaded = _python_of(tags)
        return check_windows(wheel, platform, version, free_threaded)
    return check_macos(wheel, platform) if platform.loader is Loader.DYLD else check_linux(wheel, platform)


def _python_of(tags: list[tuple[str, str, str]]) -> tuple[tuple[int, int], bool]:
    """Return the Python that the wheel is for, and whether it is free-threaded; a usual one if the tags do not say."""
    for interpreter, abi, _ in tags:
        match = _INTERPRETER.fullmatch(interpreter)
        if match is not None and match[1] == "cp" and match[3]:
            return (int(match[2]), int(match[3])), abi.endswith("t")
    return _USUAL_PYTHON, False


def _judge_tags(wheel: Wheel, tags: list[tuple[str, str, str]]) -> Iterator[Problem]:
    named = {"-".join(tag) for tag in tags}
    if wheel.tags and set(wheel.tags) != named:
        yield Problem(
            code="tag-mismatch", severity=Severity.WARNING, file="",
            title="its name and its metadata have different tags",
            evidence=(f"the name: {', '.join(sorted(named))}", f"WHEEL: {', '.join(sorted(wheel.tags))}"),
            fix="rename it with: python -m wheel tags",
        )  # fmt: skip


def _judge_suffixes(wheel: Wheel, tags: list[tuple[str, str, str]]) -> Iterator[Problem]:
    """Judge extension modules that no Python of the tags looks for, by the version in the end of their names."""
    matches = [_INTERPRETER.fullmatch(interpreter) for interpreter, _, _ in tags]
    wanted = {f"{match[2]}.{match[3]}" for match in matches if match is not None and match[3]}
    if not wanted or any(abi == "abi3" for _, abi, _ in tags):
        return
    found: dict[str, set[str]] = {}
    files: dict[str, str] = {}
    for place, name in wheel.native.items():
        match = _SUFFIX.search(place)
        if match is not None:
            stem = place[: match.start(2)]
            found.setdefault(stem, set()).add(f"{match[3] or match[6]}.{match[4] or match[7]}")
            files[stem] = name
    for stem, versions in found.items():
        if not versions & wanted:
            has, promised = ", ".join(sorted(versions)), ", ".join(sorted(wanted))
            yield Problem(
                code="suffix-mismatch", severity=Severity.ERROR, file=files[stem],
                title=f"it is a module for Python {has}, and the tags promise {promised}",
                evidence=("the import system of another version passes over a file with that end of its name",),
                fix="build the wheel again with the Python of its tag",
            )  # fmt: skip
