"""Checks a wheel, a conda package or a single native file: each file by the rules of its platform."""

from __future__ import annotations

import os
import posixpath
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..binary.reading import is_macho, read_regular
from ..errors import BinaryFormatError
from ..host.wheel import UnreadableTarget, Wheel, is_native_head, opened_wheel
from ..model.check import CheckReport, Problem, Severity
from ..model.macho import CPU_ARM64, CPU_X86_64
from .platforms import WINDOWS_TAGS, Loader, Platform, conda_platform, read_platforms
from .tags import PythonPromise, judge_suffixes, judge_tags, read_promise, read_tags

_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[\w,-]*\])?(?:(?:[=~!<>]=|[<>])[\w.*+!,=<>~-]+)?")
"""How pip is asked for a package (PEP 508)."""
_MOST_NAMES = 10_000


def check_wheel(path: str) -> CheckReport:
    """Check the wheel at `path`. Nothing of it is run, and nothing is written but private temporary files."""
    name = path.replace("\\", "/").rpartition("/")[2]
    try:
        os.stat(path)  # a file that is not there has no wrong name
        tags = read_tags(name)
        with opened_wheel(path) as wheel:
            platforms, unknown = read_platforms(dict.fromkeys(platform for _, _, platform in tags))
            promise = read_promise(tags, wheel.requires_python)
            problems = [*wheel.problems, *judge_tags(wheel, tags), *judge_suffixes(wheel, tags, platforms, promise)]
            if any(platform.loader in (Loader.WINDOWS, Loader.DYLD) for platform in platforms):
                problems += _judge_cases(wheel)
            for platform in platforms:
                problems += judge_platform(wheel, platform, promise)
    except UnreadableTarget as error:
        return CheckReport(target=path, unreadable=str(error))
    except FileNotFoundError as error:
        return CheckReport(target=path, unreadable=error.strerror or str(error))
    problems = sorted_problems(problems)
    notes = tuple(f"the platform tag {tag} is not known: nothing was held against it" for tag in unknown)
    return CheckReport(
        target=path, problems=tuple(problems), files=len(wheel.native),
        platforms=tuple(platform.tag for platform in platforms), notes=notes,
    )  # fmt: skip


def _judge_cases(wheel: Wheel) -> Iterator[Problem]:
    """Yield a problem for each file whose name differs from that of another one by the case of its letters only.

    The file systems of Windows and macOS, as they come, take both for one. None of 1,269 wheels of PyPI has such files.
    """
    places: dict[str, str] = {}
    for place in sorted(wheel.names):
        other = places.setdefault(place.lower(), place)
        if other != place:
            yield Problem(
                code="duplicate-entry", severity=Severity.WARNING, file=place,
                title=f"on Windows and macOS it is one file with {other}: the one that is installed later stays",
                fix="give it another name",
            )  # fmt: skip


def sorted_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once, the worst first; of those that differ by their severity alone, the worst."""
    found: dict[tuple[str, ...], Problem] = {}
    for problem in sorted(problems, key=lambda one: (one.severity.rank, one.file, one.code, one.title, one.platform)):
        found.setdefault((problem.code, problem.file, problem.title, problem.platform), problem)
    return list(found.values())


def judge_platform(wheel: Wheel, platform: Platform, promise: PythonPromise) -> Iterator[Problem]:
    """Yield what is wrong with the native files of a wheel, or of another package, on a platform."""
    # Not above: most wheels are for one system, and the rules of the others take a quarter of the start.
    if platform.loader is Loader.WINDOWS:
        from .windows import check_windows

        return check_windows(wheel, platform, promise)
    if platform.loader is Loader.DYLD:
        from .macos import check_macos

        return check_macos(wheel, platform, promise)
    from .linux import check_linux

    return check_linux(wheel, platform, promise)


_PYTHON_OF = (
    re.compile(r"python_abi\s+(\d)\.(\d+)\.\*(?:\s+\S*_cp\d+(t?))?"), re.compile(r"python\s+>=(\d)\.(\d+)\S*,<\S+"),
    re.compile(r"python\s+(\d)\.(\d+)"),
)  # fmt: skip
_FLOOR = re.compile(r"(__glibc|__osx)\s+>=(\d+(?:\.\d+)*)")
_PYTHON_DLL = re.compile(r"python(\d)(\d+)(t?)\.dll", re.IGNORECASE)
_MAC_NAMES = {CPU_ARM64: "arm64", CPU_X86_64: "x86_64"}
_ANY_MACOS = (999, 0)
"""A single file promises no system."""
_HEAD = 64


def check_conda(path: str) -> CheckReport:
    """Check the conda package at `path`. Nothing of it is run; nothing is written but a private temporary folder."""
    import tempfile

    from ..host.conda import open_conda

    try:
        with tempfile.TemporaryDirectory(prefix="dlltracer-check-") as folder:
            package = open_conda(path, folder)
            wheel = package.content
            platform = conda_platform(package.subdir, _floors(package.depends))
            problems = list(wheel.problems)
            if platform is not None:
                problems += judge_platform(wheel, platform, _promise(package.depends))
    except UnreadableTarget as error:
        return CheckReport(target=path, unreadable=str(error))
    notes = []
    if platform is None and wheel.native:
        notes.append(f"{len(wheel.native)} native files in a package for {package.subdir} were held against nothing")
    return CheckReport(
        target=path, problems=tuple(sorted_problems(problems)), files=len(wheel.native),
        platforms=(package.subdir,) if platform is not None else (), notes=tuple(notes),
    )  # fmt: skip


def _floors(depends: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Return the lowest glibc and macOS among what a conda package depends on."""
    matches = [_FLOOR.match(one) for one in depends]
    return {match[1]: (*map(int, match[2].split(".")), 0)[:2] for match in matches if match is not None}


def _promise(depends: tuple[str, ...]) -> PythonPromise:
    for pattern in _PYTHON_OF:
        for one in depends:
            if match := pattern.match(one):
                minor = int(match[2])
                is_free = pattern.groups == 3 and match[3] == "t"
                return PythonPromise(version=(int(match[1]), minor), is_free_threaded=is_free)
    return PythonPromise()


def check_file(path: str, root: str | None = None) -> CheckReport:
    """Check one native file where it lies, by the search of its system as far as that is known here.

    An ELF file is held against this system, or the one in `root`. Of a PE or Mach-O file, the libraries of its folder
    and the names of Windows and macOS count.
    """
    try:
        return _check_native(path, root)
    except BinaryFormatError as error:
        return CheckReport(target=path, unreadable=str(error.problem))
    except UnreadableTarget as error:
        return CheckReport(target=path, unreadable=str(error))
    except FileNotFoundError as error:
        why = error.strerror or str(error)
        if _REQUIREMENT.fullmatch(path):
            why += f"; packages are not looked up by name: pip download --no-deps {path}"
        return CheckReport(target=path, unreadable=why)
    except OSError as error:
        return CheckReport(target=path, unreadable=error.strerror or str(error))


def _check_native(path: str, root: str | None) -> CheckReport:
    head = read_regular(path, _HEAD)
    if not is_native_head(head):
        raise UnreadableTarget(_describe_other(path, head))
    notes: list[str] = []
    if head.startswith(b"\x7fELF"):
        platforms: tuple[str, ...] = ()
        problems = list(_judge_elf(path, root, notes))
    else:
        found = _platforms_of(path, head)
        platforms = tuple(platform.tag for platform in found)
        problems = list(_judge_others(path, found))
    return CheckReport(
        target=path, problems=tuple(sorted_problems(problems)), files=1, platforms=platforms, notes=tuple(notes)
    )


def _judge_elf(path: str, root: str | None, notes: list[str]) -> Iterator[Problem]:
    from ..host.environments import environment_in
    from ..host.image_cache import ImageCache
    from ..host.native_files import NativeFile
    from .linux_environment import check_linux_files

    place = Path(path).resolve()
    status, folder = place.stat(), str(place.parent)
    native = NativeFile(
        str(place), "elf", (status.st_dev, status.st_ino), status.st_size, (status.st_mtime_ns, status.st_ctime_ns)
    )
    environment = replace(environment_in(folder, root), folder=folder, folders=())
    with ImageCache(None) as cache:
        yield from check_linux_files(environment, [native], root, notes, cache, [], is_named=True)


def _platforms_of(path: str, head: bytes) -> Sequence[Platform]:
    """Return the platforms that a PE or Mach-O file is for."""
    from ..binary.macho import read_macho
    from ..binary.pe import read_pe

    if is_macho(head):
        cpus = dict.fromkeys(image.cpu for image in read_macho(path).images)
        return [
            Platform(f"macOS {_MAC_NAMES[cpu]}", Loader.DYLD, _MAC_NAMES[cpu], _ANY_MACOS) for cpu in cpus
            if cpu in _MAC_NAMES
        ]  # fmt: skip
    machine = WINDOWS_TAGS.get(read_pe(path).machine)
    return [Platform(machine, Loader.WINDOWS, machine)] if machine is not None else []


def _judge_others(path: str, platforms: Sequence[Platform]) -> Iterator[Problem]:
    place = Path(path).resolve()
    # The folder is read in place, for the libraries beside the file, and not copied.
    content = Wheel(
        place.name, place.parent.as_posix(), native={place.name: place.name}, names={place.name}, code_folders=()
    )
    for platform in platforms:
        yield from judge_platform(content, platform, _python_of_dlls(path, platform))


def _python_of_dlls(path: str, platform: Platform) -> PythonPromise:
    """Return the Python that a PE file is for, by the DLL that it needs: there are no tags to tell."""
    from ..binary.pe import read_pe

    imports = read_pe(path).imports if platform.loader is Loader.WINDOWS else ()
    matches = [_PYTHON_DLL.fullmatch(imported.library) for imported in imports]
    version = next((match for match in matches if match is not None), None)
    if version is None:
        return PythonPromise()
    return PythonPromise(version=(int(version[1]), int(version[2])), is_free_threaded=bool(version[3]))


def _describe_other(path: str, head: bytes) -> str:
    """Return why a file is nothing to check, and what to do with it."""
    name = path.lower()
    if name.endswith(".egg"):
        return "it is an egg, which pip does not install any more: build a wheel and check that"
    if not head:
        return "the file is empty"
    if head.startswith(b"!<arch>\n"):
        return "it is an archive of object files, which no loader loads: check what is linked with it"
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "it is an archive: unpack it and check the folder, or name a wheel or a conda package"
    return "it is no native file (ELF, PE or Mach-O), wheel, conda package or folder"


def refuse_sdist(path: str) -> CheckReport:
    """Return the report on a source distribution: there is nothing in it that a loader loads."""
    fix = "build a wheel of it (pip wheel --no-deps FILE) and check that"
    try:
        head = read_regular(path, _HEAD)
        text = f"it is a source distribution, which has nothing to load: {fix}"
        if path.lower().endswith(".zip") and not _is_sdist_zip(path):
            text = _describe_other(path, head)
    except (OSError, BinaryFormatError) as error:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return CheckReport(target=path, unreadable=text)


def _is_sdist_zip(path: str) -> bool:
    """Return whether a zip archive may be a source distribution: it has its metadata, code that builds, or no list."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {posixpath.basename(name) for name in archive.namelist()[:_MOST_NAMES]}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return True
    return bool(names & {"PKG-INFO", "setup.py", "pyproject.toml"})
