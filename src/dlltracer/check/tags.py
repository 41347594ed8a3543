"""Holds the Python tags of a wheel against its metadata and the names of its extension modules.

Sources: "Platform compatibility tags" of the PyPA; PEP 3149 and PEP 703 for the ends of names; configure.ac of CPython
for the platforms in them; PEP 384 and PEP 803 for the stable ABI.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ..host.wheel import UnreadableTarget, Wheel
from ..knowledge import NEWEST_PYTHON
from ..model.check import Problem, Severity
from ..model.environment import MODULE_ENDING
from .platforms import MACOSX, Loader, Platform

Tag = tuple[str, str, str]
"""Interpreter, ABI and platform: ("cp312", "abi3", "win_amd64")."""

_USUAL_NAME = re.compile(
    r"[A-Za-z0-9](?:[\w.]*[A-Za-z0-9])?-\d+(?:\.\d+)*"
    r"-([a-z]\w*(?:\.[a-z]\w*)*)-([a-z]\w*(?:\.[a-z]\w*)*)-([a-z]\w*(?:\.[a-z]\w*)*)\.whl", re.ASCII,
)
_USUAL_BOUND = re.compile(r"\s*(>=|<)\s*3\.(\d{1,4})\s*", re.ASCII)
_INTERPRETER = re.compile(r"(cp|py)(\d)(\d*)")
_USUAL_PYTHON = (3, 11)
_FIRST_KNOWN = 6
_FIRST_FREE_THREADED = (3, 13)
_STABLE = ("abi3", "abi3t")
_SUFFIX = re.compile(
    r"(?P<stem>[^/]+?)\.(?:cpython-(?P<so>\d{2,3})(?P<so_flags>[dmut]*)(?:-(?P<so_platform>[\w-]+))?\.so"
    r"|cp(?P<pyd>\d{2,3})(?P<pyd_flags>[dt]*)-(?P<pyd_platform>\w+)\.pyd)$"
)
_ANY_MODULE = re.compile(rf"[^/]+(?:{MODULE_ENDING}|\.pyd$)")
_GNU = {
    "x86_64": "x86_64-linux-gnu", "i686": "i386-linux-gnu", "aarch64": "aarch64-linux-gnu",
    "armv7l": "arm-linux-gnueabihf", "armv6l": "arm-linux-gnueabihf", "ppc64le": "powerpc64le-linux-gnu",
    "ppc64": "powerpc64-linux-gnu", "s390x": "s390x-linux-gnu", "riscv64": "riscv64-linux-gnu",
    "loongarch64": "loongarch64-linux-gnu",
}  # fmt: skip
_MANYLINUX = re.compile(r"manylinux(?:(1|2010)|_(\d+)_(\d+))_(\w+)")
_OLDEST_OTHERS = (2, 17)
"""The glibc of the first manylinux tags for other processors than those of Intel: packaging.tags, PEP 599."""
_SKIPPED_MACOS = range(16, 26)
"""macOS 26 came after 15: since then versions are named after years."""
_MUSL_NAMED_SINCE = (3, 11)
"""From it on every CPython for musl has "musl" in the ends of names (bpo-43112); older ones differ by patch."""


def macos_tag(version: Sequence[int]) -> str:
    """Return the start of the first platform tag for a version of macOS and later: "macosx_12_0" for 11.7."""
    major, minor = version[0], version[1] if len(version) > 1 else 0
    if major == 10:
        return f"macosx_10_{minor}"
    whole = major + bool(minor)
    return f"macosx_{whole if whole not in _SKIPPED_MACOS else _SKIPPED_MACOS.stop}_0"


@dataclass(frozen=True, kw_only=True)
class PythonPromise:
    """The Pythons that the tags of a wheel promise.

    Attributes:
        version: the one version, or the lowest that may use the stable ABI; `None` where the tags name none or several.
        is_stable: whether the tags name the stable ABI.
        is_free_threaded: whether they name the free-threaded build only.
        takes_both_builds: whether free-threaded Pythons of the version install it, too, as for "cp314-none".
        minors: of Python 3, the versions known here that the tags and Requires-Python allow; () without `version`.
    """

    version: tuple[int, int] | None = None
    is_stable: bool = False
    is_free_threaded: bool = False
    takes_both_builds: bool = False
    minors: tuple[int, ...] = ()

    @property
    def usual(self) -> tuple[int, int]:
        """The version to judge by: the promised one, or a usual one where the tags name none."""
        return self.version or _USUAL_PYTHON


def read_tags(name: str) -> list[Tag]:
    """Return every tag in the file name of a wheel. Raises `UnreadableTarget`."""
    # Nearly all names have this form. `packaging.utils` takes as long to import as a small wheel to check.
    usual = _USUAL_NAME.fullmatch(name)
    if usual is not None and "__" not in name.partition("-")[0]:
        return sorted(set(product(*(group.lower().split(".") for group in usual.groups()))))
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        _, _, _, tags = parse_wheel_filename(name)
    except InvalidWheelFilename as error:
        raise UnreadableTarget(f"its name is not that of a wheel: {error}") from error
    return sorted((tag.interpreter, tag.abi, tag.platform) for tag in tags)


def read_promise(tags: Sequence[Tag], requires_python: str = "") -> PythonPromise:
    """Return the Pythons that the tags of a wheel promise.

    Argument: `requires_python`, the field of its metadata, which may leave some of them out.
    """
    versions = set()
    for interpreter, _, _ in tags:
        match = _INTERPRETER.fullmatch(interpreter)
        if match is None or match[1] != "cp" or not match[3]:
            return PythonPromise()
        versions.add((int(match[2]), int(match[3])))
    is_stable = any(abi in _STABLE for _, abi, _ in tags)
    if not versions or (len(versions) > 1 and not is_stable):
        return PythonPromise()
    version = min(versions)
    newest = NEWEST_PYTHON if is_stable else version[1]
    minors = range(max(version[1], _FIRST_KNOWN), newest + 1) if version[0] == 3 else ()
    return PythonPromise(
        version=version, is_stable=is_stable,
        is_free_threaded=all(abi.endswith("t") and abi not in _STABLE for _, abi, _ in tags),
        takes_both_builds=version >= _FIRST_FREE_THREADED and all(abi == "none" for _, abi, _ in tags),
        minors=tuple(minor for minor in minors if _allows(requires_python, minor)),
    )  # fmt: skip


def _allows(requires_python: str, minor: int) -> bool:
    """Return whether some release of 3.`minor` fulfils Requires-Python."""
    bounds = [_USUAL_BOUND.fullmatch(clause) for clause in requires_python.split(",")] if requires_python else []
    if all(bounds):  # nearly always, and `packaging.specifiers` takes a while to import
        return all((minor >= int(one[2])) == (one[1] == ">=") for one in bounds if one is not None)
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        specifiers = SpecifierSet(requires_python)
    except InvalidSpecifier:
        return True
    return any(specifiers.contains(f"3.{minor}.{patch}", prereleases=True) for patch in (0, 5, 99))


def judge_tags(wheel: Wheel, tags: Sequence[Tag]) -> Iterator[Problem]:
    """Judge the tags of the name against those of the metadata, and against there being extension modules at all."""
    named = {"-".join(tag) for tag in tags}
    if wheel.tags and set(wheel.tags) != named:
        yield Problem(
            code="tag-mismatch", severity=Severity.WARNING, file="",
            title="its name and its metadata have different tags",
            evidence=(f"the name: {', '.join(sorted(named))}", f"WHEEL: {', '.join(sorted(wheel.tags))}"),
            fix="rename it with: python -m wheel tags",
        )  # fmt: skip
    yield from _judge_unfit(tags)
    modules = [place for place in wheel.native if _ANY_MODULE.search(posixpath.basename(place))]
    if not modules:
        return
    if all(platform == "any" for _, _, platform in tags):
        yield Problem(
            code="tag-mismatch", severity=Severity.WARNING, file=wheel.native[modules[0]],
            title="the tag promises every platform, and the wheel has extension modules",
            evidence=(f"extension modules: {len(modules)}; each is for one system and processor",),
            fix="build the wheel for its platform (has_ext_modules of setuptools, or python -m wheel tags)",
        )  # fmt: skip
    elif wheel.is_pure:
        yield Problem(
            code="tag-mismatch", severity=Severity.NOTE, file=wheel.native[modules[0]],
            title="WHEEL says Root-Is-Purelib: true, and the wheel has extension modules",
            evidence=("some systems have folders of their own for what is not pure Python (lib64)",),
            fix="build the wheel with Root-Is-Purelib: false",
        )  # fmt: skip


def _judge_unfit(tags: Sequence[Tag]) -> Iterator[Problem]:
    """Judge platform tags that no system has: installers pass over such a wheel without a word."""
    platforms = sorted({platform for _, _, platform in tags})
    unfit = {platform: why for platform in platforms if (why := _why_unfit(platform))}
    if unfit:
        platform, why = next(iter(unfit.items()))
        yield Problem(
            code="unfit-tag", severity=Severity.ERROR if len(unfit) == len(platforms) else Severity.NOTE, file="",
            title=f"no system has the tag {platform}: {why}",
            evidence=("installers pass over the wheel, and take an older release or the source instead",),
            fix="give it a tag that systems have: python -m wheel tags --platform-tag",
        )  # fmt: skip


def _why_unfit(platform: str) -> str:
    """Return why installers look for no wheel of a platform tag; "" for a tag that some look for."""
    if match := MACOSX.fullmatch(platform):
        major, minor, machine = int(match[1]), int(match[2]), match[3]
        if major == 10 and machine == "arm64":
            return "the first macOS for arm64 is 11.0"
        if major > 10 and minor:
            return f"from macOS 11 on, tags count whole versions: macosx_{major}_0 or macosx_{major + 1}_0"
    elif match := _MANYLINUX.fullmatch(platform):
        is_old = match[1] is not None or (int(match[2]), int(match[3])) < _OLDEST_OTHERS
        if is_old and match[4] not in ("x86_64", "i686"):
            return f"tags for {match[4]} begin with manylinux_{'_'.join(map(str, _OLDEST_OTHERS))} (manylinux2014)"
    return ""


def judge_suffixes(
    wheel: Wheel, tags: Sequence[Tag], platforms: Sequence[Platform], promise: PythonPromise
) -> Iterator[Problem]:
    """Judge extension modules that no Python of the tags looks for, by the ends of their names.

    A module may be there several times, once for each Python: it is judged by all of its files together.
    """
    found: dict[str, list[tuple[str, re.Match[str]]]] = {}
    plain = set()
    for place in wheel.native:
        if match := _SUFFIX.search(place):
            found.setdefault(place[: match.end("stem")], []).append((place, match))
        elif place.endswith((".so", ".pyd")):
            plain.add(re.sub(r"(?:\.abi3t?(?:-[\w-]+)?)?\.(?:so|pyd)$", "", place))
    for stem, files in found.items():
        if stem not in plain:
            yield from _judge_pythons(wheel, stem, files, tags, promise)
            yield from _judge_platforms(wheel, files, platforms)


def _judge_pythons(
    wheel: Wheel, stem: str, files: list[tuple[str, re.Match[str]]], tags: Sequence[Tag], promise: PythonPromise
) -> Iterator[Problem]:
    matches = [_INTERPRETER.fullmatch(interpreter) for interpreter, _, _ in tags]
    has = sorted({_python_of(match) for _, match in files}, key=_version_key)
    file = wheel.native[files[0][0]]
    versions = ", ".join(has)
    passed_over = ("the import system of another version passes over a file with that end of its name",)
    if promise.is_stable:
        others = [f"3.{minor}" for minor in promise.minors if not {f"3.{minor}", f"3.{minor}t"} & set(has)]
        if others:
            yield Problem(
                code="suffix-mismatch", severity=Severity.ERROR if len(has) == 1 else Severity.WARNING, file=file,
                title=f"it is a module for Python {versions}, and the tags promise the stable ABI",
                evidence=passed_over,
                fix="give it the end .abi3.so (py_limited_api of setuptools), or the wheel the tags of that version",
            )  # fmt: skip
        return
    wanted = {
        f"{match[2]}.{match[3]}{'t' if abi.endswith('t') else ''}"
        for match, (_, abi, _) in zip(matches, tags, strict=True)
        if match is not None and match[1] == "cp" and match[3]
    }  # fmt: skip
    if any(abi == "none" for _, abi, _ in tags):
        wanted |= {f"{version}t" for version in wanted}
    if wanted and not wanted & set(has):
        yield Problem(
            code="suffix-mismatch", severity=Severity.ERROR, file=file,
            title=f"it is a module for Python {versions}, and the tags promise {', '.join(sorted(wanted))}",
            evidence=passed_over, fix="build the wheel again with the Python of its tag",
        )  # fmt: skip
    elif all(match is not None and match[1] == "py" for match in matches) and not stem.startswith("."):
        yield Problem(
            code="suffix-mismatch", severity=Severity.WARNING, file=file,
            title=f"it is a module for Python {versions}, and the tags promise every Python 3", evidence=passed_over,
            fix="give the wheel the tags of that version",
        )  # fmt: skip


def _judge_platforms(
    wheel: Wheel, files: list[tuple[str, re.Match[str]]], platforms: Sequence[Platform]
) -> Iterator[Problem]:
    """Judge the platforms in the ends of names: a Python for aarch64 looks for no "cpython-312-x86_64-linux-gnu.so"."""
    for platform in platforms:
        wanted = {name for _, match in files for name in _wanted_platforms(platform, _number_of(match))}
        has = {match["so_platform"] or match["pyd_platform"] or "" for _, match in files}
        if wanted and not has & (wanted | {""}):
            place = files[0][0]
            yield Problem(
                code="suffix-mismatch", severity=Severity.ERROR, file=wheel.native[place], platform=platform.tag,
                title=f"its name ends for {', '.join(sorted(has))}, and Python there looks for {min(wanted)}",
                evidence=("the import system passes over a file with the end of another platform",),
                fix="set the end of the name for the platform that it is built for (SETUPTOOLS_EXT_SUFFIX)",
            )  # fmt: skip


def _wanted_platforms(platform: Platform, version: tuple[int, int]) -> set[str]:
    """Return the platforms that the ends of names may have; an empty set where that is not certain."""
    if platform.loader is Loader.WINDOWS:
        return {platform.tag}
    if platform.loader is Loader.DYLD:
        return {"darwin"}
    gnu = _GNU.get(platform.machine)
    if gnu is None:
        return set()
    if platform.loader is Loader.MUSL:
        musl = gnu.replace("-gnu", "-musl")
        return {musl} if version >= _MUSL_NAMED_SINCE else {musl, gnu}
    return {gnu}


def _number_of(match: re.Match[str]) -> tuple[int, int]:
    digits = match["so"] or match["pyd"]
    return int(digits[0]), int(digits[1:])


def _python_of(match: re.Match[str]) -> str:
    """Return the Python that a file is for, by the end of its name: "3.13t"."""
    first, second = _number_of(match)
    flags = (match["so_flags"] or "") + (match["pyd_flags"] or "")
    return f"{first}.{second}{'t' if 't' in flags else ''}"


def _version_key(text: str) -> tuple[int, bool]:
    return int(text.removesuffix("t").partition(".")[2]), text.endswith("t")


def file_python(place: str, promise: PythonPromise) -> PythonPromise:
    """Return the Pythons that one file is for: its name may tell more than the tags.

    A file for one version is judged by that version, whatever else the wheel has.
    """
    match = _SUFFIX.search(place)
    if match is None:
        return promise
    version = _number_of(match)
    flags = (match["so_flags"] or "") + (match["pyd_flags"] or "")
    minors = (version[1],) if version[0] == 3 and _FIRST_KNOWN <= version[1] <= NEWEST_PYTHON else ()
    return PythonPromise(version=version, is_free_threaded="t" in flags, minors=minors)
