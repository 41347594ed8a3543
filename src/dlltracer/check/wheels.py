"""Check one wheel: its archive, its tags, and its native files on every platform that the tags promise."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator

from ..host.wheel import UnreadableTarget, Wheel, open_wheel
from ..model.check import CheckReport, Problem
from .linux import check_linux
from .macos import check_macos
from .platforms import Loader, Platform, read_platforms
from .tags import PythonPromise, judge_suffixes, judge_tags, read_promise, read_tags
from .windows import check_windows


def check_wheel(path: str) -> CheckReport:
    """Check the wheel at `path`. Nothing of it is run, and nothing is written outside of a private temporary folder."""
    name = path.replace("\\", "/").rpartition("/")[2]
    try:
        tags = read_tags(name)
        with tempfile.TemporaryDirectory(prefix="dlltracer-check-") as folder:
            wheel = open_wheel(path, folder)
            platforms, unknown = read_platforms(dict.fromkeys(platform for _, _, platform in tags))
            promise = read_promise(tags, wheel.requires_python)
            problems = [*wheel.problems, *judge_tags(wheel, tags), *judge_suffixes(wheel, tags, platforms, promise)]
            for platform in platforms:
                problems += judge_platform(wheel, platform, promise)
    except UnreadableTarget as error:
        return CheckReport(target=path, unreadable=str(error))
    problems = sorted_problems(problems)
    notes = tuple(f"the platform tag {tag} is not known: nothing was held against it" for tag in unknown)
    return CheckReport(
        target=path, problems=tuple(problems), files=len(wheel.native),
        platforms=tuple(platform.tag for platform in platforms), notes=notes,
    )  # fmt: skip


def sorted_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once, the worst first; of those that differ by their severity alone, the worst."""
    found: dict[tuple[str, ...], Problem] = {}
    for problem in sorted(problems, key=lambda one: (one.severity.rank, one.file, one.code, one.title, one.platform)):
        found.setdefault((problem.code, problem.file, problem.title, problem.platform), problem)
    return list(found.values())


def judge_platform(wheel: Wheel, platform: Platform, promise: PythonPromise) -> Iterator[Problem]:
    """Yield what is wrong with the native files of a wheel, or of another package, on a platform."""
    if platform.loader is Loader.WINDOWS:
        return check_windows(wheel, platform, promise)
    check = check_macos if platform.loader is Loader.DYLD else check_linux
    return check(wheel, platform, promise)
