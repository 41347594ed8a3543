"""Checks whether the PE files of a wheel would load on Windows, by the search of a fresh CPython."""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Iterator

from ..errors import BinaryFormatError
from ..host.copies import read_added_folders
from ..host.filesystem import WindowsFiles
from ..host.stored_images import StoredPeFiles
from ..host.wheel import Wheel
from ..knowledge import explain_not_system, is_of_driver
from ..model.check import Problem, Severity
from ..model.environment import is_debug_runtime, without_hash
from ..model.loader_context import context_for_wheel
from ..model.pe import CONSTANT_MUTEX, MACHINE_AMD64, MACHINE_ARM64, MACHINE_I386, PeImage, Version
from ..model.tree import Binding, BindingState, LoadTree, MissingSymbol
from ..resolve.windows import KnownExports, find_missing_imports, resolve_windows
from ..resolve.winsearch import WindowsSearchMemo
from .platform_check import PlatformCheck
from .platforms import Platform
from .python_abi import judge_api, judge_python3_dll
from .tags import PythonPromise, file_python

_MACHINES = {MACHINE_AMD64: "x64", MACHINE_ARM64: "ARM64", MACHINE_I386: "x86", 0x1C4: "32-bit ARM"}
_DEBUG_PYTHON = re.compile(r"python\d+t?_d\.dll", re.IGNORECASE)
_CPP_RUNTIME = re.compile(r"msvcp140(?:_\d|_\w+)?\.dll", re.IGNORECASE)
_VC_RUNTIME = re.compile(r"(?:msvcp140|vcruntime140|concrt140|vccorlib140|vcomp140|mfc140)\w*\.dll", re.IGNORECASE)
_PYTHON_DLL = re.compile(r"python\d+t?\.dll", re.IGNORECASE)
_STABLE_DLL = re.compile(r"python3t?\.dll", re.IGNORECASE)
_MOST_TREES = 5_000


def check_windows(wheel: Wheel, platform: Platform, promise: PythonPromise) -> Iterator[Problem]:
    """Yield what is wrong with the PE files of a wheel on a platform, for the Pythons that it promises."""
    yield from WindowsCheck(wheel, platform, promise).run()


class WindowsCheck(PlatformCheck):
    """The check of the files in one folder, which is drive C:."""

    def __init__(self, wheel: Wheel, platform: Platform, promise: PythonPromise) -> None:
        super().__init__(wheel, platform, promise)
        self._files: StoredPeFiles | WindowsFiles
        if wheel.images is None:
            self._files = WindowsFiles({"C:": wheel.folder}, symbols=True, resources=True)
        else:
            self._files = StoredPeFiles(wheel.images)
        self._images: dict[str, PeImage] = {}
        self._reached: set[str] = set()
        self._loaded: set[str] = set()
        self._exports = KnownExports()
        self._memo = WindowsSearchMemo()

    def run(self) -> Iterator[Problem]:
        """Yield what is wrong: with each file by itself, then with what each module would load."""
        for place in sorted(self._wheel.native):
            yield from self._read(place)
        yield from self._judge_foreign(self._foreign, self._images)
        for place, image in self._images.items():
            yield from self._judge_file(place, image)
        roots = [place for place in self._images if _is_root(place)]
        self._has_modules = any(map(_is_module, roots))
        for place in roots[:_MOST_TREES]:
            yield from self._judge_load(place)
        for place in [other for other in self._images if other.lower() not in self._reached][:_MOST_TREES]:
            yield from self._judge_load(place)
        yield from self._yield_deferred(self._loaded)

    def _read(self, place: str) -> Iterator[Problem]:
        is_module = _is_module(place)
        try:
            image = self._files.read_image(_windows_path(place))
        except BinaryFormatError as error:
            if is_module or place.lower().endswith(".dll"):
                severity = Severity.ERROR if is_module else Severity.NOTE
                what = str(error.problem)
                code = "other-platform" if what.startswith("not a PE") else "damaged-image"
                yield self._problem(code, severity, place, f"it is no PE file that loads: {what}")
            return
        if image.machine != self._platform.pe_machine and not image.is_managed:
            is_for = _MACHINES.get(image.machine, f"machine {image.machine:#x}")
            wanted = _MACHINES[self._platform.pe_machine]
            title = f"it is for {is_for}, and {self._wheel.promises} {wanted}"
            if is_module:
                yield self._problem("wrong-machine", Severity.ERROR, place, title)
            else:  # installers made by setuptools and distlib ship launchers for every processor
                self._foreign[place] = title
            return
        self._images[place] = image

    def _judge_file(self, place: str, image: PeImage) -> Iterator[Problem]:
        is_runtime = _CPP_RUNTIME.fullmatch(posixpath.basename(place)) is not None
        version = _file_version(image)
        if is_runtime and version is not None and version[:2] < CONSTANT_MUTEX:
            yield self._problem(
                "old-vc-runtime", Severity.WARNING if self._wheel.others else Severity.ERROR, place,
                f"the {self._wheel.noun} brings {posixpath.basename(place)} {'.'.join(map(str, version))} under its own"
                " name",
                ("Windows has one DLL of a name in a process: every later import gets this old copy",
                 "code of Visual Studio 2022 17.10 and later crashes in it, in the lock of a mutex"),
                "bring 14.40 or later, or under a name of its own: delvewheel repair",
            )  # fmt: skip
        yield from self._judge_python_dlls(place, image)

    def _judge_python_dlls(self, place: str, image: PeImage) -> Iterator[Problem]:
        """Judge what a file imports of Python's DLLs."""
        python = file_python(place, self._promise)
        for imported in image.imports:
            if imported.delayed or _PYTHON_DLL.fullmatch(imported.library) is None:
                continue
            names = [symbol.name for symbol in imported.symbols or () if symbol.name is not None]
            if _STABLE_DLL.fullmatch(imported.library):
                for found in judge_python3_dll(names, python):
                    yield self._api_problem(place, found)
            elif python.is_stable:
                yield self._problem(
                    "abi3-violation", Severity.ERROR if _is_module(place) else Severity.WARNING, place,
                    f"it needs {imported.library}, the DLL of one version, and the tags promise the stable ABI",
                    ("a process has the DLL of the Python that it runs, and no other one",),
                    "define Py_LIMITED_API, so that it is linked with python3.dll",
                )  # fmt: skip
            else:
                for found in judge_api(names, python):
                    yield self._api_problem(place, found)

    def _judge_load(self, place: str) -> Iterator[Problem]:
        tree = self._resolve(place)
        places = [_place(path).lower() for path in tree.images]
        self._reached.update(places)
        if _is_module(place):
            self._loaded.update(places[1:])
        self._lacking = tuple(binding.need for binding in tree.missing)
        for binding in tree.missing:
            problem = self._missing(binding, place)
            if problem.code == "not-on-search-path" and not self._wheel.others:
                self._defer(problem, self._of_name(binding.need)[0].lower())
            else:
                yield from self._once(problem)
        yield from self._judge_mutexes(tree, self._severity_of_load(place, Severity.ERROR))
        for missing in find_missing_imports(tree.bindings, tree.images, self._exports):
            if not isinstance(missing, MissingSymbol):
                continue
            name = missing.name or f"ordinal {missing.ordinal}"
            severity = self._severity_of_load(place, Severity.ERROR)
            yield from self._once(
                self._problem(
                    "missing-symbol", severity, _place(missing.requested_by),
                    f"it needs {name} of {missing.library}, which does not export it", (),
                    "bring libraries that were built for one another",
                )
            )  # fmt: skip

    def _severity_of_load(self, place: str, of_module: Severity) -> Severity:
        """Return how bad a fault in a load is, by what is loaded."""
        if _is_module(place):
            return of_module
        return Severity.WARNING if _is_root(place) else self._severity_of_library(place)

    def _resolve(self, place: str) -> LoadTree:
        folders = tuple(map(_windows_path, (*self._folders_of_code(place), *self._wheel.added_folders)))
        python = file_python(place, self._promise)
        context = context_for_wheel(
            self._platform.pe_machine, python.usual, free_threaded=python.is_free_threaded, added_folders=folders
        )
        return resolve_windows(_windows_path(place), context, self._files, self._memo)

    def _folders_of_code(self, place: str) -> list[str]:
        """Return the folders, from the top, that the packages of a file add to the search."""
        if isinstance(self._files, StoredPeFiles):
            packages, files = self._wheel.packages, self._files
            added = read_added_folders(
                f"/{place}", lambda path: packages.get(path[1:]), lambda path: files.is_folder(f"C:{path}"), posixpath
            )
            return [folder[1:] for folder in added]
        start = len(self._wheel.folder)
        local = posixpath.join(self._wheel.folder, place)
        return [folder[start:].replace("\\", "/").lstrip("/") for folder in read_added_folders(local)]

    def _missing(self, binding: Binding, root: str) -> Problem:
        """Return the problem of a need that nothing fulfils."""
        name, place = binding.need, _place(binding.requested_by) or root
        is_module = _is_module(root)
        severity = self._severity_of(root) if is_module else self._severity_of_load(root, Severity.ERROR)
        if root.lower().startswith(".scripts/"):
            severity = Severity.ERROR
        if binding.state is BindingState.REFUSED:
            title = f"it needs {name}, and Windows does not take {_place(binding.path or '')}: {binding.reason}"
            return self._problem("wrong-file", severity, place, title)
        if is_debug_runtime(name) or _DEBUG_PYTHON.fullmatch(name):
            return self._problem(
                "debug-build", severity, place, f"it is a debug build: it needs {name}",
                ("debug runtimes come with Visual Studio and may not be passed on",),
                "build it in the release configuration",
            )  # fmt: skip
        if _PYTHON_DLL.fullmatch(name):
            return self._problem("other-python", severity, place, f"it needs {name}, the DLL of another Python")
        return self._absent(name, place, root, severity)

    def _absent(self, name: str, place: str, root: str, severity: Severity) -> Problem:
        reason = explain_not_system(name.lower())
        same = self._of_name(name)
        mangled = self._renamed(name)
        code, fix = "missing-image", "put it into the wheel: delvewheel repair"
        title = f"it needs {name}, which is not in the {self._wheel.noun} and not on every Windows"
        evidence = [reason] if reason else []
        if same:
            code = "not-on-search-path"
            title = f"it needs {name}, which is in the {self._wheel.noun} where Windows does not look: {same[0]}"
            fix = "put it beside the module, or call os.add_dll_directory before the import"
            if self._wheel.loads_by_itself or not _is_root(root):
                severity = Severity.NOTE
                evidence.append("code of the package adds folders or loads libraries, and may do so for this one")
        elif _VC_RUNTIME.fullmatch(name) and not self._wheel.others:
            code = "missing-vc-runtime"
            fix = "bring it under a name of its own (delvewheel repair), or require msvc-runtime"
            if "msvc-runtime" in self._wheel.requires:
                severity = Severity.NOTE
        elif mangled:
            code = "mangled-name"
            title = f"it needs {name}, and the {self._wheel.noun} has it under another name: {mangled[0]}"
            if self._wheel.loads_by_itself:  # perhaps another file of the name that needs it, which it loads before
                severity = Severity.NOTE
        elif owner := self._suppliers.find(name):
            fix = ""
            severity, title = Severity.NOTE, f"it needs {name}, which the wheel expects from {owner}"
        elif is_of_driver(name, "windows"):
            severity, fix, title = Severity.NOTE, "", f"it needs {name}, which comes with a driver"
        if code in ("missing-image", "missing-vc-runtime"):
            shared = self._shared_folders(place)
            severity, more = self._downgraded(severity, name, shared, is_runtime=code == "missing-vc-runtime")
            evidence.extend(more)
            fix = fix if severity is not Severity.NOTE else ""
        return self._problem(code, severity, place, title, evidence, fix)

    def _shared_folders(self, place: str) -> list[str]:
        """Return the folder of a file, if other wheels may fill it: it has another name than the wheel, or its code
        adds folders to the search."""
        top = place.partition("/")[0].lower()
        is_own = top == self._wheel.name.partition("-")[0].lower()
        return [posixpath.dirname(place)] if self._wheel.loads_by_itself or not is_own else []

    def _judge_mutexes(self, tree: LoadTree, severity: Severity) -> Iterator[Problem]:
        """Judge who relies on mutexes of a new runtime, and which runtime it gets."""
        for binding in tree.bindings:
            user = tree.images.get(binding.requested_by)
            if binding.delayed or not isinstance(user, PeImage):
                continue
            if _CPP_RUNTIME.fullmatch(without_hash(binding.need)) is None:
                continue
            if not user.locks_without_initialising(binding.need):
                continue
            runtime = tree.images.get(binding.path or "")
            version = _file_version(runtime) if isinstance(runtime, PeImage) else None
            if version is None and (self._wheel.others or self._of_name(binding.need)):
                continue
            if version is not None and version[:2] >= CONSTANT_MUTEX:
                continue
            has = "no copy is in its reach"
            if version is None and self._suppliers.family(self._shared_folders(_place(binding.requested_by))):
                severity = Severity.WARNING  # another wheel of the folder may bring one
            elif version is not None:
                has = f"the copy in its reach is {'.'.join(map(str, version))}"
            yield from self._once(
                self._problem(
                    "vc-runtime-too-old", severity, _place(binding.requested_by),
                    f"it needs {binding.need} 14.40 or later, and {has}",
                    ("it calls _Mtx_lock and never _Mtx_init_in_situ: such code relies on a runtime from 14.40 on",
                     "an older one in the process, of Python or of another package, makes it crash"),
                    "bring the runtime under a name of its own (delvewheel repair), or build with"
                    " _DISABLE_CONSTEXPR_MUTEX_CONSTRUCTOR",
                )
            )  # fmt: skip


def _is_module(place: str) -> bool:
    return place.lower().endswith(".pyd")


def _is_root(place: str) -> bool:
    return place.lower().endswith((".pyd", ".exe"))


def _windows_path(place: str) -> str:
    return ntpath.join("C:\\", *place.split("/"))


def _place(path: str) -> str:
    return ntpath.splitdrive(path)[1].replace("\\", "/").lstrip("/")


def _file_version(image: PeImage) -> Version | None:
    return image.resources.file_version if image.resources is not None else None
