"""Would the Mach-O files of a wheel load on a macOS platform, for each processor that its tag promises."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ..errors import BinaryFormatError
from ..host.filesystem import MacosFiles
from ..host.wheel import Wheel
from ..model.check import Problem, Severity
from ..model.loader_context import MacosContext
from ..model.macho import CPU_ARM64, MH_BUNDLE, MH_DYLIB, MH_EXECUTE, MachoFile, MachoImage, describe_cpu
from ..model.tree import Binding, BindingState, LoadTree
from ..resolve.macos import find_missing_macho_symbols, is_system_path, pick_image, resolve_macos
from .platform_check import PlatformCheck, place_of
from .platforms import Platform
from .tags import PythonPromise

_MODULE_ENTRY = "_PyInit_"
_MODULE = re.compile(r"\.(?:cpython-\d+\w*-darwin|abi3|pypy\d+-[\w-]+)\.so$")
_LIBPYTHON = re.compile(r"(?:^|/)(?:Python\.framework/|libpython\d[\w.]*\.dylib$|Python3?$)")
_FIRST_ARM64 = (11, 0)
"""The first macOS for arm64: a lower promise of a universal2 tag is for x86_64 only."""
_MOST_TREES = 5_000

_SINCE = {
    "_clock_gettime": (10, 12), "_os_unfair_lock_lock": (10, 12), "____chkstk_darwin": (10, 15),
    "_aligned_alloc": (10, 15), "___darwin_check_fd_set_overflow": (11, 0), "_preadv": (11, 0), "_pwritev": (11, 0),
    "_kIOMainPortDefault": (12, 0), "_mkfifoat": (13, 0), "_mknodat": (13, 0),
}  # fmt: skip
"""Symbols of libSystem and IOKit that are newer than macOS 10.9, with their first version: Apple's headers
(__OSX_AVAILABLE), and reports of what dyld did not find on older systems."""


def check_macos(wheel: Wheel, platform: Platform, promise: PythonPromise) -> Iterator[Problem]:
    """Yield what is wrong with the Mach-O files of a wheel on a platform, for the Pythons that it promises."""
    files = MacosFiles(wheel.folder, symbols=True)
    for cpu in platform.cpus:
        yield from MacosCheck(wheel, platform, promise, cpu, files).run()


class MacosCheck(PlatformCheck):
    """The check for one processor."""

    def __init__(
        self, wheel: Wheel, platform: Platform, promise: PythonPromise, cpu: int, files: MacosFiles
    ) -> None:  # fmt: skip
        super().__init__(wheel, platform, promise)
        self._cpu = cpu
        self._files = files
        self._architecture = describe_cpu(cpu, 0)
        self._images: dict[str, MachoImage] = {}
        self._without: dict[str, MachoFile] = {}
        self._reached: set[str] = set()

    def run(self) -> Iterator[Problem]:
        for place in sorted(self._wheel.native):
            yield from self._read(place)
        for place, file in self._without.items():
            yield from self._judge_slice(place, file)
        for place, image in self._images.items():
            yield from self._judge_file(place, image)
        roots = [place for place, image in self._images.items() if self._is_module(place) or image.kind == MH_EXECUTE]
        for place in roots[:_MOST_TREES]:
            yield from self._judge_load(place)
        # What nothing in the wheel needs is loaded by code (ctypes).
        needed = {posixpath.basename(need.name) for image in self._images.values() for need in image.needs}
        others = [
            place for place in self._images if place not in self._reached and posixpath.basename(place) not in needed
        ]
        for place in others[:_MOST_TREES]:
            yield from self._judge_load(place)

    def _read(self, place: str) -> Iterator[Problem]:
        try:
            file = self._files.read_image(f"/{place}")
        except BinaryFormatError as error:
            if _MODULE.search(place) or place.endswith(".dylib"):
                what = str(error.problem)
                code = "other-platform" if what.startswith("not a Mach-O") else "damaged-image"
                yield self._problem(code, Severity.ERROR, place, f"it is no Mach-O file that loads: {what}")
            return
        image = pick_image(file, self._cpu)
        if image is None:
            self._without[place] = file
        elif image.kind in (MH_BUNDLE, MH_DYLIB, MH_EXECUTE):
            self._images[place] = image

    def _is_module(self, place: str) -> bool:
        image = self._images[place]
        exports = image.symbols.exports if image.symbols is not None else {}
        return _MODULE.search(place) is not None or any(name.startswith(_MODULE_ENTRY) for name in exports)

    def _judge_slice(self, place: str, file: MachoFile) -> Iterator[Problem]:
        """Judge a file that has nothing for the processor."""
        kinds = {image.kind for image in file.images}
        if not kinds & {MH_BUNDLE, MH_DYLIB, MH_EXECUTE}:
            return
        has = ", ".join(image.architecture for image in file.images)
        name = posixpath.basename(place)
        others = [other for other in self._images if posixpath.basename(other) == name]
        is_named = any(image.architecture in place.lower() for image in file.images)
        # A program for x86_64 runs on arm64 where Rosetta is installed; a library in an arm64 process does not load.
        severity = Severity.WARNING if kinds == {MH_EXECUTE} else Severity.ERROR
        if _MODULE.search(place) is None and (others or is_named):
            severity = Severity.NOTE
        yield self._problem(
            "missing-slice", severity, place, f"it has {has} only, and {self._wheel.promises} {self._architecture}",
            (), f"build it for {self._architecture} too (ARCHFLAGS, -arch), or change the tag",
        )  # fmt: skip

    def _judge_file(self, place: str, image: MachoImage) -> Iterator[Problem]:
        if image.symbols is not None:
            names = [one.name for one in image.symbols.imports if not one.weak and one.name.startswith(("_Py", "__Py"))]
            yield from self._judge_api(place, [name[1:] for name in names])
        lowest, promised = image.lowest_macos, self._platform.version
        if self._cpu == CPU_ARM64:
            promised = max(promised, _FIRST_ARM64)
            if not image.is_signed:
                yield self._problem(
                    "unsigned-image", Severity.ERROR, place, "its image for arm64 has no code signature",
                    ("the kernel of macOS ends a process that maps arm64 code without one",),
                    f"codesign --force -s - {place}",
                )  # fmt: skip
        if lowest is not None and lowest[:2] > promised:
            newer = self._newer_symbols(image, promised)
            needs, has = ".".join(map(str, lowest[:2])), ".".join(map(str, promised))
            evidence = [f"it imports {name}, which macOS {'.'.join(map(str, since))} brought" for name, since in newer]
            yield self._problem(
                "macos-above-tag", Severity.ERROR if newer else Severity.WARNING, place,
                f"it was built for macOS {needs} and later, and {self._wheel.promises} {has}",
                evidence or ("dyld does not refuse it for that; symbols that older systems lack would",),
                f"build it with MACOSX_DEPLOYMENT_TARGET={has}, or tag the wheel macosx_{needs.replace('.', '_')}",
            )  # fmt: skip

    def _newer_symbols(self, image: MachoImage, promised: tuple[int, ...]) -> list[tuple[str, tuple[int, int]]]:
        if image.symbols is None:
            return []
        return [
            (one.name, _SINCE[one.name]) for one in image.symbols.imports
            if _SINCE.get(one.name, (0, 0)) > promised and not one.weak and one.ordinal > 0
        ]  # fmt: skip

    def _judge_load(self, place: str) -> Iterator[Problem]:
        tree = resolve_macos(f"/{place}", MacosContext(cpu=self._cpu), self._files)
        self._reached.update(place_of(path) for path in tree.images)
        for binding in tree.missing:
            if not _LIBPYTHON.search(binding.need) or self._is_module(place):
                yield from self._once(self._missing(binding, place))
        images = {path: image for path, image in tree.images.items() if isinstance(image, MachoImage)}
        for symbol in find_missing_macho_symbols(images, tree.bindings):
            yield from self._once(
                self._problem(
                    "missing-symbol", Severity.NOTE if symbol.weak else Severity.ERROR, place_of(symbol.requested_by),
                    f"it needs {symbol.name} of {symbol.library}, which does not export it",
                    (f"{self._found(tree, symbol.requested_by, symbol.library)} is the file found",),
                    "bring libraries that were built for one another",
                )
            )  # fmt: skip

    def _found(self, tree: LoadTree, requested_by: str, library: str | None) -> str:
        return next(
            (
                place_of(binding.path or "") for binding in tree.bindings
                if binding.requested_by == requested_by and binding.need == library
            ),
            "nothing",
        )  # fmt: skip

    def _missing(self, binding: Binding, root: str) -> Problem:
        """Return the problem of a need that nothing fulfils."""
        name, place = posixpath.basename(binding.need), place_of(binding.requested_by)
        severity = self._severity_of(root) if self._is_module(root) else Severity.WARNING
        if binding.state is BindingState.REFUSED:
            path = place_of(binding.path or "")
            title = f"it needs {binding.need}, and dyld does not take {path}: {binding.reason}"
            return self._problem("wrong-file", severity, place, title)
        if _LIBPYTHON.search(binding.need) and not self._wheel.others:
            return self._problem(
                "other-libpython", severity, place, f"it is linked with {binding.need}",
                ("another Python has none, or has it elsewhere",), "link it with -undefined dynamic_lookup instead",
            )  # fmt: skip
        evidence = [f"tried: {probe.path}" for probe in binding.probes[:3]]
        same = [other for other in self._of_name(name) if posixpath.basename(other) == name]
        mangled = self._renamed(name)
        fix = "put it into the wheel: delocate-wheel"
        if same or mangled:
            found = (same or mangled)[0]
            folder, name_of_file = posixpath.relpath(found, posixpath.dirname(place) or "."), posixpath.basename(place)
            fix = f"install_name_tool -change {binding.need} @loader_path/{folder} {name_of_file}; then codesign"
            code = "not-on-rpath" if same else "mangled-name"
            if self._wheel.loads_by_itself:
                severity = Severity.NOTE
            title = f"it needs {binding.need}, which is in the {self._wheel.noun} where dyld does not look: {found}"
            return self._problem(code, severity, place, title, evidence, fix)
        if owner := self._owner_by_name(name):
            return self._problem(
                "missing-image", Severity.NOTE, place, f"it needs {binding.need}, which the wheel expects from {owner}"
            )
        is_here = binding.need.startswith("/") and not is_system_path(binding.need)
        where = "a path of the machine that built it" if is_here else "in none of the folders that dyld searches"
        title = f"it needs {binding.need}: {where}, and not in the {self._wheel.noun}"
        return self._problem("missing-image", severity, place, title, evidence, fix)
