"""Checks whether the Mach-O files of a wheel would load on a macOS platform, for each processor of its tag."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping

from ..errors import BinaryFormatError
from ..host.filesystem import MacosFiles
from ..host.stored_images import StoredMachoFiles
from ..host.wheel import Wheel
from ..knowledge import musl_names
from ..model.check import Problem, Severity
from ..model.environment import MODULE_ENDING, is_libpython
from ..model.loader_context import MacosContext
from ..model.macho import (
    CPU_ARM64,
    MH_BUNDLE,
    MH_DYLIB,
    MH_EXECUTE,
    MH_TWOLEVEL,
    MachoFile,
    MachoImage,
    MachoImport,
    MachoImports,
    SymbolPlace,
    describe_cpu,
)
from ..model.tree import Binding, BindingState, LoadTree
from ..resolve.macos import find_missing_macho_symbols, is_system_path, pick_image, resolve_macos
from .platform_check import PlatformCheck, place_of, search_places
from .platforms import Platform
from .python_abi import is_python_name
from .tags import PythonPromise, file_python, macos_tag

_MODULE_ENTRY = "_PyInit_"
_MODULE = re.compile(rf"(?!.*-linux-){MODULE_ENDING}")
"""The end of a module's name. A file for Linux in a wheel for macOS is no module of it: Python passes over that."""
_FIRST_ARM64 = (11, 0)
"""The first macOS for arm64: a lower promise of a universal2 tag is for x86_64 only."""
_MOST_TREES = 5_000
_MOST_SHOWN = 3

_OF_SYSTEM = ("libc++.1.dylib", "libc++abi.dylib", "libz.1.dylib", "libiconv.2.dylib", "libsqlite3.dylib")
"""Libraries of macOS that conda and Homebrew have, too: with theirs, a file is linked by @rpath."""
_NEWER_SYMBOLS = {
    (10, 10): "openat fstatat fstatat$INODE64 unlinkat mkdirat renameat linkat symlinkat readlinkat faccessat fchmodat"
    " fchownat getattrlistbulk",
    (10, 12): "clock_gettime clock_getres clock_settime getentropy mkostemp mkostemps os_unfair_lock_lock"
    " os_unfair_lock_unlock os_unfair_lock_trylock renamex_np renameatx_np clonefile fclonefileat os_log_create"
    " _os_log_impl",
    (10, 13): "futimens utimensat fmemopen open_memstream _ZnwmSt11align_val_t _ZdlPvSt11align_val_t",
    (10, 15): "___chkstk_darwin aligned_alloc timespec_get posix_spawn_file_actions_addchdir_np objc_opt_class"
    " objc_opt_self objc_opt_isKindOfClass objc_opt_respondsToSelector objc_opt_new",
    (11, 0): "__darwin_check_fd_set_overflow preadv pwritev pthread_jit_write_protect_np",
    (12, 0): "kIOMainPortDefault IOMainPort",
    (13, 0): "mkfifoat mknodat freadlink",
    (13, 3): "_ZNSt3__122__libcpp_verbose_abortEPKcz _ZNSt3__18to_charsEPcS0_d _ZNSt3__18to_charsEPcS0_f"
    " _ZNSt3__18to_charsEPcS0_e",
    (14, 0): "_ZNSt3__13pmr20get_default_resourceEv _ZNSt3__13pmr15memory_resourceD2Ev",
    (14, 4): "os_sync_wait_on_address os_sync_wake_by_address_any os_sync_wake_by_address_all",
    (15, 4): "strchrnul",
}  # fmt: skip
_SINCE = {f"_{name}": version for version, names in _NEWER_SYMBOLS.items() for name in names.split()}
"""Symbols of the system's libraries that are newer than macOS 10.9, as Mach-O files spell them, with their first
version: Apple's headers (__OSX_AVAILABLE), <__availability> of libc++, and reports of what dyld did not find on older
systems."""
_NEWER_PARTS = tuple(
    (re.compile(pattern), version) for pattern, version in (
        (r"__ZN?K?(?:T[IVS]N)?St3__119__shared_mutex_base|___cxa_uncaught_exceptions$", (10, 12)),
        (r"__Z\w*St(?:3__1)?(?:19bad_optional_access|18bad_variant_access|12bad_any_cast)", (10, 13)),
        (r"__ZNK?St3__14__fs10filesystem", (10, 15)),
        (r"__ZNSt3__1(?:20__libcpp_atomic_wait|23__libcpp_atomic_monitor|23__cxx_atomic_notify_)", (11, 0)),
        (
            r"__Z\w*NSt3__1(?:15basic_stringbuf|18basic_stringstream|19basic_[io]stringstream|13basic_filebuf"
            r"|14basic_[io]fstream)Ic", (12, 0),
        ),
        (r"___cxa_init_primary_exception$|__ZNSt13exception_ptr31__from_native_exception_pointer", (15, 0)),
        (r"__ZNSt3__119__is_posix_terminal", (15, 0)),
        (r"__ZNSt3__1(?:17bad_function_callD[012]|6chrono\w*get_tzdb)|__ZNSt3__119bad_expected_accessIvED", (15, 4)),
        (r"__ZNSt3__127__from_chars_floating_point", (26, 0)),
    )
)  # fmt: skip
_NEWER_ENDS = (("$NEWLAPACK", (13, 3)), ("$NEWLAPACK$ILP64", (13, 3)))
"""Parts of libc++ with their first version of macOS (libcxx/include/__configuration/availability.h of LLVM, and its
older <__availability>), and the new interfaces of Accelerate."""


def check_macos(wheel: Wheel, platform: Platform, promise: PythonPromise) -> Iterator[Problem]:
    """Yield what is wrong with the Mach-O files of a wheel on a platform, for the Pythons that it promises."""
    files: MacosFiles | StoredMachoFiles
    if wheel.images is None:
        files = MacosFiles(wheel.folder, symbols=True, sums=True)
    else:
        files = StoredMachoFiles(wheel.images)
    for cpu in platform.cpus:
        yield from MacosCheck(wheel, platform, promise, cpu, files).run()


class MacosCheck(PlatformCheck):
    """The check for one processor, `cpu` (CPU_TYPE_..., mach/machine.h)."""

    def __init__(
        self, wheel: Wheel, platform: Platform, promise: PythonPromise, cpu: int, files: MacosFiles | StoredMachoFiles
    ) -> None:  # fmt: skip
        super().__init__(wheel, platform, promise)
        self._cpu = cpu
        self._files = files
        self._architecture = describe_cpu(cpu, 0)
        self._images: dict[str, MachoImage] = {}
        self._without: dict[str, MachoFile] = {}
        self._reached: set[str] = set()

    def run(self) -> Iterator[Problem]:
        """Yield what is wrong, file by file; a dylib with its loads once, where a module or program leads to it."""
        for place in sorted(self._wheel.native):
            yield from self._read(place)
        for place, file in self._without.items():
            yield from self._judge_slice(place, file)
        for place, image in self._images.items():
            yield from self._judge_file(place, image)
        roots = [place for place, image in self._images.items() if self._is_module(place) or image.kind == MH_EXECUTE]
        self._has_modules = any(map(self._is_module, roots))
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
        of_python = _imports(image, lambda name: name.startswith(("_Py", "__Py")))
        yield from self._judge_api(place, [one.name[1:] for one in of_python])
        lowest, promised = image.lowest_macos, self._platform.version
        if self._cpu == CPU_ARM64:
            promised = max(promised, _FIRST_ARM64)
            if not image.is_signed:
                yield self._problem(
                    "unsigned-image", Severity.ERROR, place, "its image for arm64 has no code signature",
                    ("the kernel of macOS ends a process that maps arm64 code without one",),
                    f"codesign --force -s - {place}",
                )  # fmt: skip
            elif image.changed_page is not None:
                yield self._problem(
                    "signature-invalid", Severity.ERROR, place, "its image for arm64 was changed after it was signed",
                    (f"the sum of page {image.changed_page} is not the one in its code signature",
                     "the kernel of macOS ends a process that uses such a page: Killed: 9"),
                    f"codesign --force -s - {place}, as the last step: install_name_tool and strip break the signature",
                )  # fmt: skip
        newer = self._newer_symbols(image, promised)
        has = ".".join(map(str, promised))
        if lowest is not None and lowest[:2] > promised:
            needs = ".".join(map(str, lowest[:2]))
            evidence = [f"it imports {name}, which macOS {'.'.join(map(str, since))} brought" for name, since in newer]
            yield self._problem(
                "macos-above-tag", Severity.ERROR if newer else Severity.WARNING, place,
                f"it was built for macOS {needs} and later, and {self._wheel.promises} {has}",
                evidence or ("dyld does not refuse it for that; symbols that older systems lack would",),
                f"build it with MACOSX_DEPLOYMENT_TARGET={has}, or tag the wheel {macos_tag(lowest)}",
            )  # fmt: skip
        elif newer:
            name, since = max(newer, key=lambda one: one[1])
            yield self._problem(
                "macos-above-tag", Severity.ERROR, place,
                f"it imports {name}, which macOS {'.'.join(map(str, since))} brought, and the tag promises {has}",
                [f"{one}: macOS {'.'.join(map(str, version))}" for one, version in newer],
                f"do not call it where it is missing, or tag the wheel {macos_tag(since)}",
            )  # fmt: skip

    def _newer_symbols(self, image: MachoImage, promised: tuple[int, ...]) -> list[tuple[str, tuple[int, int]]]:
        """Return the symbols of the system's libraries that it cannot do without and that the promised macOS lacks."""
        newer = _imports(image, lambda name: _first_version(name) > promised)
        return [
            (one.name, _first_version(one.name)) for one in newer
            if 0 < one.ordinal <= len(image.needs) and is_system_path(image.needs[one.ordinal - 1].name)
        ]  # fmt: skip

    def _judge_load(self, place: str) -> Iterator[Problem]:
        tree = resolve_macos(f"/{place}", MacosContext(cpu=self._cpu), self._files)
        self._reached.update(place_of(path) for path in tree.images)
        self._lacking = tuple(posixpath.basename(binding.need) for binding in tree.missing)
        for binding in tree.missing:
            if not is_libpython(binding.need) or self._is_module(place):
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

        if self._is_module(place) or (self._images[place].kind == MH_DYLIB and not self._has_modules):
            yield from self._judge_flat(place, images, tree)

    def _judge_flat(self, place: str, images: Mapping[str, MachoImage], tree: LoadTree) -> Iterator[Problem]:
        """Judge symbols without a library: the linker was told to leave them to whatever the process has.

        That is meant for the names of Python. Any other was in no library that the linker knew, the system's included:
        its library was forgotten. dyld says "symbol not found in flat namespace".
        """
        if tree.missing:
            return
        exports = [image.symbols.exports for image in images.values() if image.symbols is not None]
        has_blas = any(_BLAS.search(need.name) for image in images.values() for need in image.needs)
        python = file_python(place, self._promise)
        for path, image in images.items():
            names = [
                one.name for one in _imports(image, lambda name: not _is_left_to_process(name, python))
                if one.ordinal == SymbolPlace.FLAT and not any(one.name in has for has in exports)
                and not (has_blas and _OF_BLAS.match(one.name))
            ] if image.flags & MH_TWOLEVEL else []  # fmt: skip
            if not names:
                continue
            names.sort(key=lambda name: name[1:2].isupper())  # the surest first
            severity, evidence = self._severity_of_flat(place, names[0])
            more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
            yield from self._once(
                self._problem(
                    "missing-symbol", severity, place_of(path),
                    f"it needs {', '.join(names[:_MOST_SHOWN])}{more}, of no library that it names: symbol not found in"
                    " flat namespace",
                    (*evidence, "dyld looks for it in the whole process, by -undefined dynamic_lookup"),
                    "link it with the library that has the symbol: -undefined dynamic_lookup is for Python's names",
                )
            )  # fmt: skip

    def _severity_of_flat(self, root: str, name: str) -> tuple[Severity, tuple[str, ...]]:
        """Return how bad it is that nothing in a load exports a symbol, and what may have it all the same."""
        others = [place for place, image in self._images.items() if image.symbols and name in image.symbols.exports]
        if others:
            return Severity.NOTE, (f"{others[0]} of the wheel has it, which this load does not bring",)
        if self._suppliers.may_bring_symbols():
            return Severity.WARNING, ("a package that it requires may have it",)
        if _OF_FRAMEWORKS.match(name) and any(
            "/System/Library/Frameworks/" in need.name for image in self._images.values() for need in image.needs
        ):
            # Frameworks export names that Apple's SDK lists no more, as FSPathMakeRef of CoreServices. Any that another
            # module has loaded is in the process, too: pygame.base loads AppKit, whose names sdlmain_osx needs.
            return Severity.WARNING, ("a framework of the system may have it, which files of the wheel load",)
        # Other libraries that the file names cannot have it: the linker would have bound it to them.
        severity = self._severity_of(root) if self._is_module(root) else self._severity_of_library(root)
        return severity, ("no image of the load has it, nor had a library of the system that the linker was given",)

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
        if self._images[root].kind == MH_EXECUTE:
            severity = Severity.ERROR if root.startswith(".scripts/") else Severity.WARNING
        else:
            severity = self._severity_of(root) if self._is_module(root) else self._severity_of_library(root)
        if binding.state is BindingState.REFUSED:
            path = place_of(binding.path or "")
            title = f"it needs {binding.need}, and dyld does not take {path}: {binding.reason}"
            return self._problem("wrong-file", severity, place, title)
        if is_libpython(binding.need) and not self._wheel.others:
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
        image = self._images[place]
        folders = search_places(place, image.rpaths)
        if owner := self._suppliers.find(name, folders):
            return self._problem(
                "missing-image", Severity.NOTE, place, f"it needs {binding.need}, which the wheel expects from {owner}"
            )
        is_here = binding.need.startswith("/") and not is_system_path(binding.need)
        where = "a path of the machine that built it" if is_here else "in none of the folders that dyld searches"
        title = f"it needs {binding.need}: {where}, and not in the {self._wheel.noun}"
        severity, more = self._downgraded(severity, name, folders)
        if name in _OF_SYSTEM:
            evidence.append(f"macOS has it as /usr/lib/{name}, where @rpath does not lead")
            fix = f"install_name_tool -change {binding.need} /usr/lib/{name} {posixpath.basename(place)}; then codesign"
        fix = fix if severity is not Severity.NOTE else ""
        return self._problem("missing-image", severity, place, title, [*evidence, *more], fix)


_BLAS = re.compile(r"/(?:Accelerate|vecLib)\.framework/|/lib(?:BLAS|LAPACK)\.dylib$")
_OF_BLAS = re.compile(r"_(?:cblas|catlas|clapack)_|_[sdcz][a-z0-9]{2,7}_$")
"""Libraries of the system with the names of BLAS and LAPACK, and these names."""
_OF_FRAMEWORKS = re.compile(r"_k?[A-Z]")


def _is_left_to_process(name: str, python: PythonPromise) -> bool:
    """Return whether a symbol is one that the process has anyhow: of Python, of C, of the runtimes of C++ and
    Objective-C.

    libSystem brings libobjc into every process. CPython for macOS is linked with CoreFoundation (configure.ac).
    """
    plain = name[1:]
    of_runtime = ("__", "objc_", "_objc_", "CF", "kCF", "_ZS", "_ZNS", "_ZNKS", "_ZT", "_Zn", "_Zd")
    return is_python_name(plain, python) or plain in musl_names() or plain.startswith(of_runtime)


def _imports(image: MachoImage, wanted: Callable[[str], bool]) -> list[MachoImport]:
    """Return the symbols with wanted names that an image imports and cannot do without."""
    imports = image.symbols.imports if image.symbols is not None else ()
    names = imports.names if isinstance(imports, MachoImports) else [one.name for one in imports]
    found = (imports[place] for place, name in enumerate(names) if wanted(name))
    return [one for one in found if not (one.weak or (image.symbols and image.symbols.is_passed_on(one)))]


def _first_version(name: str) -> tuple[int, int]:
    """Return the first macOS that has a symbol of its libraries; (0, 0) where that is not known."""
    parts = (since for pattern, since in _NEWER_PARTS if pattern.match(name)) if "St" in name or "cxa" in name else ()
    ends = (since for end, since in _NEWER_ENDS if name.endswith(end))
    return _SINCE.get(name) or next(iter(parts), None) or next(ends, (0, 0))
