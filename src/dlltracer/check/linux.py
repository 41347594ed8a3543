"""Checks whether the ELF files of a wheel would load on a Linux platform, by glibc's or musl's own search.

Extension modules and programs are judged as what is loaded; vendored libraries in the context of what needs them. A
library that nothing in the wheel needs is loaded by code, which may prepare the search, so less is reported about it.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator, Sequence

from ..binary.elf import read_elf
from ..errors import BinaryFormatError
from ..host.filesystem import SteadyFiles
from ..host.stored_images import StoredElfFiles
from ..host.wheel import Wheel
from ..knowledge import is_of_driver
from ..model.check import Problem, Severity
from ..model.elf import DF_STATIC_TLS, ET_DYN, ET_EXEC, PF_X, ElfImage, describe_kind
from ..model.environment import MODULE_ENDING, is_libpython
from ..model.loader_context import GlibcContext, MuslContext
from ..model.tree import Binding, BindingState, LoadTree
from ..resolve.linux import resolve_linux
from ..resolve.lookup import Filesystem
from .elf_symbols import CheckedElf, ElfSymbolCheck
from .platform_check import place_of, search_places
from .platforms import GLIBC_LIBRARIES, VERSION_FAMILIES, Loader, Platform
from .tags import PythonPromise

_PT_LOAD, _PT_TLS, _PT_GNU_STACK = 1, 7, 0x6474E551
_STATIC_TLS_LEFT = 1_728
"""Bytes of the static TLS block that glibc keeps free for dlopen, at most: TLS_STATIC_SURPLUS of elf/dl-tls.c, rounded
up. glibc 2.36 took a file with 1,680 and refused one with 1,720."""
_MODULE = re.compile(MODULE_ENDING)
_MODULE_ENTRY = "PyInit_"
_VERSION = re.compile(rf"({'|'.join(VERSION_FAMILIES)})_(\d+(?:\.\d+)*)")
_PACKED_RELOCATIONS = "GLIBC_ABI_DT_RELR"
"""A version that glibc has from 2.36 on, the first to read DT_RELR."""
_STACKS_BY_DEFAULT = {62, 3}
"""Processors, x86-64 and i386, where a file without PT_GNU_STACK gets an executable stack: stackinfo.h of glibc."""
_MOST_TREES = 5_000

_OF_DESKTOPS = (
    "libxcb*", "libxkbcommon*", "libEGL*", "libGLX*", "libOpenGL*", "libGLU*", "libGLES*", "libfontconfig*",
    "libfreetype*", "libdbus-1*", "libwayland*", "libasound*", "libpulse*", "libdrm*", "libgbm*", "libnss*",
    "libnspr*", "libcups*", "libgtk*", "libgdk*", "libgio*", "libpango*", "libcairo*", "libatk*", "libX*", "libgst*",
    "libudev*", "libspeechd*", "libpcsclite*", "libbrotli*", "libmysqlclient*", "libpq*", "libodbc*", "libfbclient*",
)  # fmt: skip


def check_linux(wheel: Wheel, platform: Platform, promise: PythonPromise) -> Iterator[Problem]:
    """Yield what is wrong with the ELF files of a wheel on a platform, for the Pythons that it promises."""
    yield from _LinuxCheck(wheel, platform, promise).run()


class _LinuxCheck(ElfSymbolCheck):
    def __init__(self, wheel: Wheel, platform: Platform, promise: PythonPromise) -> None:
        super().__init__(wheel, platform, promise)
        self._reached: set[str] = set()
        self._loaded: set[str] = set()
        self._folders: set[str] = set()
        self._system: Filesystem
        if wheel.images is None:
            self._system = SteadyFiles(wheel.folder, lambda path: read_elf(path, symbols=True))
        else:
            self._system = StoredElfFiles(wheel.images)

    def run(self) -> Iterator[Problem]:
        for place in sorted(self._wheel.native):
            yield from self._read(place)
        yield from self._judge_foreign(self._foreign, self._files)
        for file in self._files.values():
            yield from self._judge_file(file)
        roots = [file for file in self._files.values() if file.is_root]
        self._has_modules = any(file.is_module for file in roots)
        for file in roots[:_MOST_TREES]:
            yield from self._judge_load(file)
        # What nothing in the wheel needs is loaded by code (ctypes). What is needed and missing is reported above.
        needed = {posixpath.basename(need) for file in self._files.values() for need in file.image.needed}
        others = [
            file for file in self._files.values()
            if not file.is_root and file.place not in self._reached and posixpath.basename(file.place) not in needed
        ]  # fmt: skip
        for file in others[:_MOST_TREES]:
            yield from self._judge_load(file)
        yield from self._yield_deferred(self._loaded)

    def _read(self, place: str) -> Iterator[Problem]:
        """Read a file; yield a problem where it is damaged, or for another system or processor."""
        is_module = _MODULE.search(place) is not None
        try:
            image = self._system.read_image(f"/{place}")
            assert isinstance(image, ElfImage)
        except BinaryFormatError as error:
            if is_module or posixpath.basename(place).partition(".so")[1]:
                severity = Severity.ERROR if is_module else Severity.NOTE
                what = str(error.problem)
                code = "other-platform" if what.startswith("not an ELF") else "damaged-image"
                yield self._problem(code, severity, place, f"it is no ELF file that loads: {what}")
            return
        if image.kind not in (ET_EXEC, ET_DYN):
            return
        wanted = self._platform.elf
        entries = image.symbols.provides if image.symbols is not None else {}
        is_module = is_module or any(name.startswith(_MODULE_ENTRY) for name in entries)
        if (image.machine, image.bits, image.little_endian) != (wanted.number, wanted.bits, wanted.little_endian):
            is_for = describe_kind(image.bits, image.little_endian, image.machine)
            title = f"it is for {is_for}, and the tag promises {self._platform.machine}"
            if is_module:
                yield self._problem("wrong-machine", Severity.ERROR, place, title)
            else:
                self._foreign[place] = title
            return
        self._files[place] = CheckedElf(place, image, is_module, image.is_program and not is_module)

    def _judge_file(self, file: CheckedElf) -> Iterator[Problem]:
        """Judge what can be said without looking for anything: versions, stack, alignment, search paths."""
        yield from self._judge_versions(file)
        yield from self._judge_lost_names(file)
        yield from self._judge_c_library(file)
        yield from self._judge_stack(file)
        symbols = file.image.symbols
        if symbols is not None:
            yield from self._judge_api(file.place, file.strong_names)
            yield from self._judge_musl_names(file, file.strong_names)
        page = self._platform.elf.largest_page
        bad = [segment for segment in file.image.segments if segment.type == _PT_LOAD and segment.align % page]
        if bad:
            yield self._problem(
                "misaligned-image", Severity.ERROR, file.place,
                f"its segments are aligned to {bad[0].align:#x} bytes: no load where pages have {page // 1024} KiB",
                (f"there glibc says: ELF load command alignment not page-aligned ({self._platform.machine})",),
                f"link it with -Wl,-z,max-page-size={page:#x}",
            )  # fmt: skip
        yield from self._judge_runpath(file)

    def _judge_stack(self, file: CheckedElf) -> Iterator[Problem]:
        """Judge whether a file asks for an executable stack, which newer glibc refuses to give in dlopen."""
        stacks = [segment.flags for segment in file.image.segments if segment.type == _PT_GNU_STACK]
        asks = any(flags & PF_X for flags in stacks)
        if not asks and (stacks or self._platform.elf.number not in _STACKS_BY_DEFAULT or file.is_program):
            return
        why = "its PT_GNU_STACK has the flag PF_X" if asks else "it has no PT_GNU_STACK, which means the same"
        # The kernel gives a program such a stack at its start. musl does not read the flag at all.
        is_refused = self._platform.loader is Loader.GLIBC and not file.is_program
        yield self._problem(
            "executable-stack", Severity.ERROR if is_refused else Severity.NOTE, file.place,
            "it asks for an executable stack",
            (why, "glibc 2.41 and later refuses such a file in dlopen" if is_refused else "it loads all the same"),
            "clear the flag (patchelf --clear-execstack), or build its assembler files with .note.GNU-stack",
        )  # fmt: skip

    def _judge_runpath(self, file: CheckedElf) -> Iterator[Problem]:
        """Judge the folders that a file names for the search of what it needs."""
        folders = [folder for folder in (file.image.runpath or file.image.rpath or "").split(":") if folder]
        for folder in folders:
            if not folder.startswith(("$ORIGIN", "${ORIGIN}")):
                where = "a folder of the machine that built it" if folder.startswith("/") else "relative to the process"
                title = f"its RUNPATH names {folder}, {where}"
                yield self._problem("absolute-runpath", Severity.NOTE, file.place, title)
                break
        origin = posixpath.dirname(file.place)
        for folder in folders:
            rest = re.sub(r"^\$(?:ORIGIN|\{ORIGIN\})", "", folder)
            place = posixpath.normpath(posixpath.join(origin, rest.lstrip("/")))
            if rest != folder and file.image.needed and not place.startswith("..") and not self._has_folder(place):
                title = f"its RUNPATH names {folder}, and the wheel has no such folder"
                yield self._problem("dangling-runpath", Severity.NOTE, file.place, title)
                break

    def _has_folder(self, place: str) -> bool:
        if not self._folders:
            for name in self._wheel.names:
                while (name := posixpath.dirname(name)) not in self._folders:
                    self._folders.add(name)
        return place == "." or place in self._folders

    def _judge_versions(self, file: CheckedElf) -> Iterator[Problem]:
        highest: dict[str, tuple[tuple[int, ...], str]] = {}
        for need in file.image.version_needs:
            match = _VERSION.fullmatch("GLIBC_2.36" if need.version == _PACKED_RELOCATIONS else need.version)
            if match is None or need.weak or not self._platform.provides(need.library):
                continue
            number = tuple(map(int, match[2].split(".")))
            highest[match[1]] = max(highest.get(match[1], ((), "")), (number, need.library))
        for family, (number, library) in sorted(highest.items()):
            allowed = self._platform.highest(family)
            if allowed is None or number <= allowed:
                continue
            needs = f"{family}_{'.'.join(map(str, number))}"
            has = f"{family}_{'.'.join(map(str, allowed))}"
            if family != "GLIBC" and self._of_name(library):
                continue  # it brings its own
            yield self._problem(
                "glibc-above-tag" if family == "GLIBC" else "libstdcxx-above-tag", Severity.ERROR, file.place,
                f"it needs {needs} of {library}, and the tag promises {has} at most",
                (f"its version needs name {needs}",),
                f"build it on a system with {has}, or give the wheel the tag of a newer one",
            )  # fmt: skip

    def _judge_c_library(self, file: CheckedElf) -> Iterator[Problem]:
        other = "libc.so.6" if self._platform.loader is Loader.MUSL else "libc.musl"
        needed = next((need for need in file.image.needed if need.startswith(other)), None)
        if needed is not None:
            is_musl = self._platform.loader is Loader.GLIBC
            severity = Severity.ERROR if file.is_root else Severity.NOTE
            title = f"it was built for {'musl' if is_musl else 'glibc'}: it needs {needed}"
            yield self._problem("other-c-library", severity, file.place, title)

    def _brings_other_c_library(self, place: str, need: str) -> Problem:
        return self._problem(
            "other-c-library", Severity.ERROR, place, f"an extension module needs it, and it needs {need}",
            ("it was built for another C library than the tag promises",), "build it in the image of the tag",
        )  # fmt: skip

    def _judge_load(self, file: CheckedElf) -> Iterator[Problem]:
        """Follow the load of a file, and judge every need that fails, and every symbol that nothing has."""
        if file.is_program and file.image.interpreter is None:
            return  # a static program: the kernel starts it, and no loader has a part in it
        tree = self._resolve(file)
        places = [place_of(path) for path in tree.images]
        self._reached.update(places)
        if file.is_module:
            self._loaded.update(places[1:])
        is_whole = True
        self._lacking = tuple(posixpath.basename(binding.need) for binding in tree.missing)
        for binding in tree.missing:
            name = posixpath.basename(binding.need)
            if self._platform.provides(name) and not (self._platform.loader is Loader.MUSL and "/" in binding.need):
                is_whole &= name in GLIBC_LIBRARIES or name.startswith(("ld-", "libc."))
                continue
            is_whole = False
            if binding.need.startswith(("libc.so.6", "libc.musl")):
                if place_of(binding.requested_by) != file.place and file.is_module:
                    yield from self._once(self._brings_other_c_library(place_of(binding.requested_by), binding.need))
                continue  # reported already, as the other C library
            problem = self._missing(binding, file)
            found = [place for place in self._of_name(name) if self._has_soname(place, name)]
            if problem.code == "not-on-runpath" and found:
                self._defer(problem, found[0])
            else:
                yield from self._once(problem)
        yield from self._judge_second_python(file, places)
        yield from self._judge_static_tls(file, places)
        if not file.is_program and not tree.unresolved:
            yield from self._judge_symbols(file, places, is_whole=is_whole)

    def _judge_second_python(self, file: CheckedElf, places: Sequence[str]) -> Iterator[Problem]:
        """Judge a libpython that the wheel brings and that its extension modules load."""
        for place in places[1:] if file.is_module else ():
            if is_libpython(place):
                yield from self._once(
                    self._problem(
                        "other-libpython", Severity.WARNING, file.place, f"it brings a Python of its own: {place}",
                        ("the process has one already; which of them a module gets depends on how that was built",),
                        "link extension modules without libpython, and leave it out of the wheel",
                    )
                )  # fmt: skip

    def _judge_static_tls(self, file: CheckedElf, places: Sequence[str]) -> Iterator[Problem]:
        """Judge files that want their thread-local variables in the static TLS block, which is laid out at the start.

        musl gives no place in it to what dlopen loads (do_relocs in ldso/dynlink.c); glibc has a few bytes left.
        """
        is_musl = self._platform.loader is Loader.MUSL
        for place in places if not file.is_program else ():
            if place not in self._files or not self._files[place].image.dynamic_flags & DF_STATIC_TLS:
                continue
            size = sum(part.memory_size for part in self._files[place].image.segments if part.type == _PT_TLS)
            if size and (is_musl or size > _STATIC_TLS_LEFT):
                severity = self._severity_of(file.place) if file.is_module else self._severity_of_library(file.place)
                said = "initial-exec TLS resolves to dynamic definition" if is_musl else (
                    "cannot allocate memory in static TLS block"
                )
                yield from self._once(
                    self._problem(
                        "static-tls", severity, place,
                        "it wants its thread-local variables in the static TLS block, where"
                        f" {'musl has no' if is_musl else 'glibc has not that much'} place after the start",
                        (f"DT_FLAGS has DF_STATIC_TLS; the variables take {size} bytes", f"in dlopen it says: {said}"),
                        "build it with -ftls-model=global-dynamic (a Go library for musl: not as c-shared)",
                    )
                )  # fmt: skip

    def _resolve(self, file: CheckedElf) -> LoadTree:
        elf = self._platform.elf
        own = f"/{file.place}"
        common = {"bits": elf.bits, "little_endian": elf.little_endian, "machine": elf.number}
        context: GlibcContext | MuslContext
        if self._platform.loader is Loader.MUSL:
            context = MuslContext(**common)  # type: ignore[arg-type]
        else:
            lib = "lib64" if elf.bits == 64 else "lib"
            context = GlibcContext(**common, lib=lib, platform=self._platform.machine)  # type: ignore[arg-type]
        return resolve_linux(own, context, self._system, program=file.is_program)

    def _severity_of_need(self, file: CheckedElf) -> Severity:
        """Return how bad it is that the load of a file lacks a library."""
        if file.is_program:
            # A program among the scripts is started as it is; another one by code, which may set LD_LIBRARY_PATH.
            return Severity.ERROR if file.place.startswith(".scripts/") else Severity.WARNING
        return self._severity_of(file.place) if file.is_module else self._severity_of_library(file.place)

    def _missing(self, binding: Binding, file: CheckedElf) -> Problem:
        """Return the problem of a need that nothing fulfils: who needs it, where it lies instead, what to do."""
        name = posixpath.basename(binding.need)
        place = place_of(binding.requested_by) or file.place
        severity = self._severity_of_need(file)
        if binding.state is BindingState.REFUSED:
            title = f"it needs {binding.need}, and the loader does not take {binding.path}: {binding.reason}"
            return self._problem("wrong-file", severity, place, title)
        if is_libpython(name) and not self._wheel.others:
            return self._problem(
                "other-libpython", severity, place, f"it is linked with {name}",
                ("a Python may have no such library, or another one; PEP 513 forbids it",),
                "link extension modules without libpython",
            )  # fmt: skip
        evidence = [f"{len(binding.probes)} places were looked at, from {place}"] if binding.probes else []
        if in_wheel := self._out_of_reach(name, place, file, severity, evidence):
            return in_wheel
        fix = "put it into the wheel: auditwheel repair"
        title = f"it needs {name}, which is not in the wheel and not on every system of the tag"
        if owner := self._suppliers.find(name, self._folders_of(place)):
            severity = Severity.NOTE
            title = f"it needs {name}, which the wheel expects from {owner}"
        elif not self._platform.version:
            severity = Severity.WARNING
        elif is_of_driver(name, "linux"):
            severity, fix = Severity.NOTE, ""
            title = f"it needs {name}, which comes with a driver"
        elif any(fnmatch.fnmatchcase(name, pattern) for pattern in _OF_DESKTOPS):
            severity = Severity.WARNING
        severity, more = self._downgraded(severity, name, self._folders_of(place))
        fix = fix if severity is not Severity.NOTE else ""
        return self._problem("missing-image", severity, place, title, (*evidence, *more), fix)

    def _out_of_reach(
        self, name: str, place: str, file: CheckedElf, severity: Severity, evidence: Sequence[str]
    ) -> Problem | None:
        """Return the problem of a library that the wheel has where the loader does not look, or under another name."""
        same = [other for other in self._of_name(name) if posixpath.basename(other) == name]
        if same:
            title = f"it needs {name}, which is in the wheel where the loader does not look: {same[0]}"
            if self._wheel.loads_by_itself or not file.is_root:
                severity = Severity.NOTE
                evidence = (*evidence, "code of the wheel loads libraries itself, and may load this one first")
            fix = f"give it the RUNPATH {_origin_path(place, same[0])}"
            return self._problem("not-on-runpath", severity, place, title, evidence, fix)
        mangled = self._renamed(name)
        if not mangled:
            return None
        other = posixpath.basename(mangled[0])
        title = f"it needs {name}, and the wheel has it under another name: {other}"
        severity = Severity.NOTE if self._wheel.loads_by_itself else severity
        fix = f"patchelf --replace-needed {name} {other} on it"
        return self._problem("mangled-name", severity, place, title, evidence, fix)

    def _has_soname(self, place: str, name: str) -> bool:
        return place in self._files and self._files[place].image.soname == name

    def _folders_of(self, place: str) -> list[str]:
        image = self._files[place].image
        return search_places(place, [one for one in f"{image.runpath or ''}:{image.rpath or ''}".split(":") if one])

def _origin_path(place: str, library: str) -> str:
    """Return the RUNPATH that leads from a file to the folder of a library of the same wheel."""
    folder = posixpath.relpath(posixpath.dirname(library) or ".", posixpath.dirname(place) or ".")
    return "$ORIGIN" if folder == "." else f"$ORIGIN/{folder}"
