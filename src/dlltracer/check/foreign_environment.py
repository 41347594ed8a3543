"""Checks an environment of Windows or macOS on any system, by the rules for wheels.

All packages of such an environment are one tree. What Windows and macOS themselves have is known by name, as for a
wheel. There is no tag: the interpreter, or else most modules, say what processor the environment is for.
"""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import BinaryFormatError
from ..host.copies import read_added_folders
from ..host.environments import PythonEnvironment, folder_exists
from ..host.filesystem import HostFilesystem, MacosFiles
from ..host.machine import is_macos
from ..host.native_files import NativeFile
from ..host.package_code import PackageCode
from ..host.wheel import Wheel
from ..model.check import Problem, Severity
from ..model.loader_context import WindowsContext, context_for_wheel
from ..model.macho import MachoFile, describe_cpu
from ..model.pe import MACHINE_AMD64
from ..model.tree import LoadTree
from ..resolve.windows import resolve_windows
from .macos import MacosCheck
from .platform_check import PlatformCheck, RuntimeCopy, family_of, judge_copies
from .platforms import WINDOWS_TAGS, Loader, Platform
from .tags import PythonPromise, file_python
from .windows import WindowsCheck

_PYD = re.compile(r"\.cp(\d)(\d+)t?-\w+\.pyd$", re.IGNORECASE)
_CONDA_FOLDERS = ("", "Library/mingw-w64/bin", "Library/usr/bin", "Library/bin", "Scripts", "bin")
"""What the Python of conda adds to its search, in order ("Using conda with Windows", CONDA_DLL_SEARCH_MODIFICATION)."""
_FIXES = {
    "missing-image": "install the package that brings it",
    "missing-vc-runtime": "pip install msvc-runtime, or install Microsoft's Visual C++ redistributable",
    "wrong-machine": "install the package again for this Python",
    "missing-slice": "install a build of the package for this processor",
    "suffix-mismatch": "install the package again with this Python",
}


def check_windows_files(
    environment: PythonEnvironment, files: Sequence[NativeFile], notes: list[str]
) -> Iterator[Problem]:  # fmt: skip
    """Yield what is wrong with the PE files of an environment; `notes` gets what was not taken into account."""
    check = _WindowsEnvironment(environment, _as_wheel(environment, files))
    yield from check.run()
    notes.append("of Windows itself only the names of its DLLs are known")


def check_macos_files(
    environment: PythonEnvironment, files: Sequence[NativeFile], notes: list[str], used: list[HostFilesystem]
) -> Iterator[Problem]:  # fmt: skip
    """Yield what is wrong with the Mach-O files of an environment.

    Arguments: `notes` gets what was not taken into account; `used` gets the files, as they were looked at.
    """
    wheel = _as_wheel(environment, files)
    images = MacosFiles(wheel.folder, symbols=True)
    used.append(images)
    cpu = _choose_cpu(wheel, images)
    if cpu is None:
        return
    yield from _MacosEnvironment(environment, wheel, cpu, images).run()
    notes.append("of macOS itself only the names of its libraries are known")


def _as_wheel(environment: PythonEnvironment, files: Sequence[NativeFile]) -> Wheel:
    """Return an environment in the form of a wheel; on a Mac the tree is the whole disk, as libraries may be anywhere.

    A file's place is its path in the tree; its name in problems is its path in the environment.
    """
    top = "" if is_macos() else environment.folder.replace("\\", "/").rstrip("/")
    native = {file.path.replace("\\", "/")[len(top) + 1 :]: environment.place(file.path) for file in files}
    return Wheel(
        environment.folder, "/" if not top else environment.folder, native=native, noun="environment",
        promises="this environment is for", code_folders=environment.site_folders,
    )  # fmt: skip


class _PlacedCode(PackageCode):
    """The same for files by their places, from `folder`."""

    def __init__(self, environment: PythonEnvironment, folder: str) -> None:
        super().__init__(environment.site_folders)
        self._folder = folder.rstrip("/\\")

    def package_of(self, place: str) -> str:
        """Return the folder of the package that a file is in; that of the file where it is in none."""
        top = self.top_of(self.path_of(place))
        return posixpath.dirname(place) if top is None else top[len(self._folder) + 1 :]

    def path_of(self, place: str) -> str:
        """Return the path of a file on this machine."""
        return f"{self._folder}/{place}"

    def name_of(self, place: str) -> str:
        """Return the name of the top folder of the package that a file is in, without the ends of repair tools."""
        return posixpath.basename(self.package_of(place)).removesuffix(".libs") or "the environment"


class _OfEnvironment(PlatformCheck):
    """Overrides of the checks of wheels for an environment; it comes before them in a class's bases.

    Attributes: `_top`, the file whose load is judged, "" for none.
    """

    _code: _PlacedCode
    _top = ""

    def _is_optional(self, module: str) -> bool:
        return self._code.is_optional(self._code.path_of(module))

    def _problem(
        self, code: str, severity: Severity, place: str, title: str, evidence: Sequence[str] = (), fix: str = ""
    ) -> Problem:  # fmt: skip
        if code == "old-vc-runtime" and severity is Severity.ERROR:
            severity = Severity.WARNING  # vc-runtime-too-old names those that need a newer one
        name = self._top.lower()
        is_root = name.endswith((".pyd", ".so", ".exe")) or "." not in posixpath.basename(name)
        if self._top and not is_root:
            severity = Severity.NOTE  # loaded by code, if at all
        elif self._top and severity is Severity.ERROR:
            severity = self._severity_of(self._top)
        problem = super()._problem(code, severity, place, title, evidence, _FIXES.get(code, fix))
        return replace(problem, platform="")


class _WindowsEnvironment(_OfEnvironment, WindowsCheck):
    def __init__(self, environment: PythonEnvironment, wheel: Wheel) -> None:
        promise = PythonPromise(version=environment.version, is_free_threaded=environment.free_threaded)
        super().__init__(wheel, Platform(WINDOWS_TAGS[MACHINE_AMD64], Loader.WINDOWS, "win_amd64"), promise)
        self._environment = environment
        self._code = _PlacedCode(environment, wheel.folder)
        self._dll_folders = tuple(
            dict.fromkeys(posixpath.dirname(place) for place in sorted(wheel.native) if place.lower().endswith(".dll"))
        )
        tag = self._choose_tag()
        self._platform = Platform(tag, Loader.WINDOWS, tag)

    def run(self) -> Iterator[Problem]:
        yield from super().run()
        copies = []
        for place, image in self._images.items():
            name = posixpath.basename(place)
            if name.lower().endswith(".dll") and family_of(name) is not None:
                version = image.resources.file_version if image.resources is not None else None
                build = ".".join(map(str, version)) if version is not None else place
                copies.append(RuntimeCopy(self._wheel.native[place], name.lower(), self._code.name_of(place), build))
        yield from judge_copies(copies)

    def _choose_tag(self) -> str:
        """Return the platform of the interpreter; without one, of most modules."""
        counts: Counter[str] = Counter()
        for place in self._wheel.native:
            is_interpreter = posixpath.basename(place).lower() in ("python.exe", "python3.dll")
            if not is_interpreter and not place.lower().endswith(".pyd"):
                continue
            try:
                image = self._files.read_image(f"C:\\{place}".replace("/", "\\"))
            except (OSError, BinaryFormatError):
                continue
            if image.machine in WINDOWS_TAGS:
                counts[WINDOWS_TAGS[image.machine]] += 100_000 if is_interpreter and "/" not in place else 1
        return counts.most_common(1)[0][0] if counts else "win_amd64"

    def _read(self, place: str) -> Iterator[Problem]:
        match, version = _PYD.search(place), self._environment.version
        if match is not None and version is not None and (int(match[1]), int(match[2])) != version:
            stem = place[: match.start()].lower()
            fits = re.compile(rf"{re.escape(stem)}(?:\.cp{version[0]}{version[1]}t?-\w+)?\.pyd", re.IGNORECASE)
            if not any(map(fits.fullmatch, self._wheel.native)):
                yield self._problem(
                    "suffix-mismatch", Severity.ERROR, place,
                    f"it is a module for Python {match[1]}.{match[2]}, and this is Python {version[0]}.{version[1]}",
                    ("the import system of another version passes over a file with that end of its name",),
                )  # fmt: skip
            return
        yield from super()._read(place)

    def _judge_load(self, place: str) -> Iterator[Problem]:
        self._top = place
        self._wheel.loads_by_itself = self._code.loads(self._code.path_of(place))
        for problem in super()._judge_load(place):
            # The code finds its DLLs where they are, or it would not be there.
            if problem.code != "not-on-search-path" or problem.severity is not Severity.NOTE:
                yield problem
        self._top = ""

    def _resolve(self, place: str) -> LoadTree:
        python = file_python(place, self._promise)
        context = context_for_wheel(
            self._platform.pe_machine, python.usual, free_threaded=python.is_free_threaded,
            added_folders=self._added_folders(place),
        )  # fmt: skip
        path = f"C:\\{place}".replace("/", "\\")
        return resolve_windows(path, self._with_interpreter(context), self._files, self._memo)

    def _with_interpreter(self, context: WindowsContext) -> WindowsContext:
        """Return the context with the folder of the interpreter, where the environment has one of its own."""
        if self._environment.program is None:
            return context
        folder = posixpath.dirname(self._environment.place(self._environment.program))
        return replace(context, application_folder=ntpath.join("C:\\", folder.replace("/", "\\")))

    def _added_folders(self, place: str) -> tuple[str, ...]:
        """Return the folders that are added before a file is loaded: by its package's code, by conda's Python.

        Of a package whose code loads DLLs or adds folders in ways of its own, all folders with DLLs count.
        """
        path = self._code.path_of(place)
        start = len(self._wheel.folder.rstrip("/\\")) + 1
        added = [folder.replace("\\", "/")[start:] for folder in read_added_folders(path)]
        if self._code.loads(self._code.path_of(place)):
            package = self._code.package_of(place)
            added += [folder for folder in self._dll_folders if f"{folder}/".startswith(f"{package}/")]
        if self._environment.is_conda:
            added += [each for each in _CONDA_FOLDERS if folder_exists(f"{self._environment.folder}/{each}")]
        return tuple("C:\\" + folder.replace("/", "\\") for folder in dict.fromkeys(added))


class _MacosEnvironment(_OfEnvironment, MacosCheck):
    def __init__(self, environment: PythonEnvironment, wheel: Wheel, cpu: int, files: MacosFiles) -> None:
        machine = describe_cpu(cpu, 0)
        # No version of macOS is promised: the files may be for the newest.
        platform = Platform(f"macosx_99_0_{machine}", Loader.DYLD, machine, (99, 0))
        promise = PythonPromise(version=environment.version, is_free_threaded=environment.free_threaded)
        super().__init__(wheel, platform, promise, cpu, files)
        self._code = _PlacedCode(environment, wheel.folder)

    def run(self) -> Iterator[Problem]:
        yield from super().run()
        # dyld takes images by their whole install name: that is what two copies may share.
        yield from judge_copies(
            RuntimeCopy(self._wheel.native[place], posixpath.basename(place), self._code.name_of(place),
                        image.uuid or place)
            for place, image in self._images.items() if family_of(posixpath.basename(place)) is not None
        )  # fmt: skip

    def _judge_load(self, place: str) -> Iterator[Problem]:
        self._top = place
        self._wheel.loads_by_itself = self._code.loads(self._code.path_of(place))
        yield from super()._judge_load(place)
        self._top = ""


def _choose_cpu(wheel: Wheel, files: MacosFiles) -> int | None:
    """Return the processor that most modules have an image for; of several the first that most files name."""
    counts: Counter[int] = Counter()
    for place in wheel.native:
        try:
            file = files.read_image(f"/{place}")
        except (OSError, BinaryFormatError):
            continue
        if isinstance(file, MachoFile):
            weight = 100 if place.endswith(".so") else 1
            counts.update({image.cpu: weight for image in file.images})
    return counts.most_common(1)[0][0] if counts else None
