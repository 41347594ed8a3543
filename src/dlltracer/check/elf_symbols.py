"""Checks whether the symbols that ELF files of a wheel need are there: in the load, the C library, libstdc++."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..host.wheel import Wheel
from ..knowledge import glibc_names, musl_names
from ..model.check import Problem, Severity
from ..model.elf import ElfImage, ElfNeed, ElfNeeds
from .platform_check import PlatformCheck
from .platforms import Loader, Platform
from .python_abi import is_python_name
from .tags import PythonPromise, file_python

# The linker leaves the version of a symbol out where its own libstdc++ was older than the compiler, and lacked the
# symbol. The loader takes a symbol of any version for such a need: the file loads where libstdc++ is new enough,
# whatever its tag says.
_OF_LIBSTDCXX = (
    ("GLIBCXX_3.4.32", r"_ZSt21ios_base_library_init"),
    ("GLIBCXX_3.4.30", r"_ZSt21__glibcxx_assert_fail|_ZNSt18condition_variable4waitERSt11unique_lock"),
    ("GLIBCXX_3.4.29", r"_ZSt28__throw_bad_array_new_length|_ZSt(?:8to|10from)_chars|_ZNKRSt7__cxx11"),
    ("GLIBCXX_3.4.29", r"_ZSt17__istream_extract"),
    ("GLIBCXX_3.4.28", r"_Z(?:N|TVN|TIN)St3pmr15memory_resource"),
    ("GLIBCXX_3.4.26", r"_ZN?K?(?:T[VIS]N)?St(?:3pmr|10filesystem)"),
    ("GLIBCXX_3.4.26", r"_ZNSt7__cxx11(?:18basic_|19basic_[io])stringstreamI\w+C[12]Ev$"),
    ("GLIBCXX_3.4.22", r"_Z(?:T[VIS])?NSt6thread6_State|_ZSt19uncaught_exceptions"),
    ("GLIBCXX_3.4.22", r"_ZNSt6thread15_M_start_threadESt10unique_ptr"),
    (
        "GLIBCXX_3.4.21",
        r"_Z(?:NK?|T[VIST]N)?St(?:\w*St)?7__cxx11\d+(?:basic_(?:string|[io]stringstream)|num|money|time|collate|messages)",
    ),
    ("GLIBCXX_3.4.20", r"_ZSt24__throw_out_of_range_fmt"),
    ("GLIBCXX_3.4.19", r"_ZNSt6chrono3_V2"),
    ("GLIBCXX_3.4.14", r"_ZSt25__throw_bad_function_call|_ZSt20__throw_future_error"),
    ("GLIBCXX_3.4.11", r"_ZNSt(?:6thread|18condition_variable)|_ZSt20__throw_system_error"),
    ("CXXABI_1.3.11", r"_Z[nd][wal]\w*St11align_val_t|__cxa_init_primary_exception"),
    ("CXXABI_1.3.9", r"_Zd[al]Pvm$"),
    ("CXXABI_1.3.8", r"__cxa_throw_bad_array_(?:new_)?length|\w*St20bad_array_new_length"),
    ("CXXABI_1.3.7", r"__cxa_thread_atexit$"),
    ("", r"_ZNK?S[tsiodb]\w|_ZSt\d+__throw_|_ZSt\d(?:cout|cerr|cin|clog)|_ZT[VIS]S[tsiod]|_ZT[VIS]NSt"),
    ("", r"_ZN10__cxxabiv1|_ZT[VIS]N10__cxxabiv1|_ZS[tlr]|_Z[nd][wal]|__cxa_|__gxx_personality|_ZN9__gnu_cxx"),
)
"""The version of symbols of libstdc++, by what their names begin with: nm -D of GCC 12, and gnu.ver of GCC 13."""
_TEMPLATES = re.compile(r"_ZNK?St(?:6vector|3map|3set|4list|5deque|8_Rb_tree|10_Hashtable|8function|10shared_ptr)I")
"""Templates that are compiled into each program, and that libstdc++ has nothing of."""


@functools.lru_cache(maxsize=1 << 16)  # not without an end: the names are those of the files
def libstdcxx_version(name: str) -> str | None:
    """Return the version that libstdc++ has a symbol in, "" where that is not known; `None` for other symbols."""
    if _TEMPLATES.match(name):
        return None
    return next((version for version, pattern in _OF_LIBSTDCXX if re.match(pattern, name)), None)


def symbols_above_tag(names: Iterable[str], platform: Platform) -> list[tuple[str, str, str]]:
    """Return the symbols that libstdc++ has in a version above what a platform promises, the newest first.

    Each is given as its name, its version, and the highest version that is promised.
    """
    above = []
    for name in names:
        family, _, number = (libstdcxx_version(name) or "").partition("_")
        allowed = platform.highest(family) if family else None
        version = tuple(map(int, number.split("."))) if number else ()
        if allowed is not None and version > allowed:
            above.append((version, name, f"{family}_{number}", f"{family}_{'.'.join(map(str, allowed))}"))
    return [(name, has, promised) for _, name, has, promised in sorted(above, reverse=True)]


_LIBSTDCXX = "libstdc++.so.6"
_MOST_SHOWN = 8
_LOST_BY_LIBC = {"scalbln", "scalblnf", "scalblnl"}
"""Names that libc.so.6 exported before glibc 2.15, by mistake: ABI Laboratory, glibc 2.14.1 against 2.15."""
_MUSL_MACHINES = {"x86_64", "i686", "aarch64", "armv7l", "ppc64le", "s390x"}
"""Processors whose musl was read. For the others every name counts that some processor has."""


@dataclass(frozen=True)
class CheckedElf:
    """A file: its place when installed, its image, and whether it is an extension module or a program."""

    place: str
    image: ElfImage
    is_module: bool
    is_program: bool

    @property
    def is_root(self) -> bool:
        """True if a load can begin with the file: an extension module or a program."""
        return self.is_module or self.is_program

    @cached_property
    def strong_names(self) -> tuple[str, ...]:
        """The symbols that it cannot do without."""
        needs = self.image.symbols.needs if self.image.symbols is not None else ()
        if isinstance(needs, ElfNeeds):  # without making a value of each
            return tuple(name for name, weak in zip(needs.names, needs.weak, strict=True) if not weak)
        return tuple(need.name for need in needs if not need.weak)


class ElfSymbolCheck(PlatformCheck):
    """The check of symbols; `_files` has every ELF file of the wheel that is for the platform, by its place."""

    def __init__(self, wheel: Wheel, platform: Platform, promise: PythonPromise) -> None:
        super().__init__(wheel, platform, promise)
        self._files: dict[str, CheckedElf] = {}
        self._exports: dict[str, list[str]] | None = None
        self._satisfied: dict[str, set[str]] = {}
        self._of_c_library = musl_names()
        self._of_process: dict[PythonPromise, dict[str, bool]] = {}
        """For a Python, whether a name is of it or of the C library: the files of a wheel need the same ones."""

    def _judge_lost_names(self, file: CheckedElf) -> Iterator[Problem]:
        """Judge symbols that libc.so.6 of the tag's build system had, and that newer ones lack."""
        symbols = file.image.symbols
        if self._platform.loader is not Loader.GLIBC or symbols is None or _LOST_BY_LIBC.isdisjoint(file.strong_names):
            return
        for need in symbols.needs:
            if need.library == "libc.so.6" and need.name in _LOST_BY_LIBC and not need.weak:
                yield self._problem(
                    "missing-symbol", Severity.ERROR, file.place,
                    f"it needs {need.name} in version {need.version} of libc.so.6, which has it no more",
                    ("with the version, the loader looks for it in libc.so.6 only: not defined in file libc.so.6 with"
                     " link time reference",),
                    "link it with libm (-lm)",
                )  # fmt: skip

    def _judge_musl_names(self, file: CheckedElf, names: Sequence[str]) -> Iterator[Problem]:
        """Judge names that musl brought after the version that the tag promises."""
        version = self._platform.version
        if self._platform.loader is not Loader.MUSL or not version:
            return
        newer = [(self._of_c_library[name].since, name) for name in names if name in self._of_c_library]
        newer = [(since, name) for since, name in newer if since > version and not self._defined_in(name)]
        if newer:
            since, name = max(newer)
            is_other = since[:2] > version[:2]
            yield self._problem(
                "musl-above-tag", Severity.ERROR if is_other else Severity.WARNING, file.place,
                f"it needs {name}, which musl has from {'.'.join(map(str, since))} on, and the tag promises"
                f" {'.'.join(map(str, version))}",
                [f"{name}: musl {'.'.join(map(str, since))}" for since, name in sorted(newer)],
                "build it on a system with an older musl, or without these functions",
            )  # fmt: skip

    def _judge_symbols(self, file: CheckedElf, places: Sequence[str], *, is_whole: bool) -> Iterator[Problem]:
        """Judge the symbols that the images of a load need of one another.

        A library that many modules share is judged once for each set of libraries that has what it needs. Of a load
        that is not whole, what libstdc++ of the tag lacks is judged, and nothing that a missing library may have.
        """
        if not all(place in self._files for place in places):
            return
        known = set(places)
        for place in places:
            if place in self._satisfied and self._satisfied[place] <= known:
                continue
            used: set[str] = set()
            lacking = [need for need in self._needs_of(place) if not self._find(need, places, used)]
            if not lacking:
                self._satisfied[place] = used
            of_libstdcxx = self._of_libstdcxx(lacking, places)
            yield from self._judge_unversioned(place, of_libstdcxx, is_whole=is_whole)
            rest = [need for need in lacking if need.name not in of_libstdcxx] if is_whole else []
            for need in rest[: len(rest) if len(rest) <= _MOST_SHOWN else 1]:
                yield from self._once(self._missing_symbol(file, place, need, known, rest))

    def _of_libstdcxx(self, needs: Sequence[ElfNeed], places: Sequence[str]) -> set[str]:
        """Return the symbols without a version that libstdc++ of the system may have, where a load has it."""
        loads = any(_LIBSTDCXX in self._files[place].image.needed for place in places)
        if self._platform.loader is not Loader.GLIBC or not loads:
            return set()
        return {need.name for need in needs if need.version is None and libstdcxx_version(need.name) is not None}

    def _judge_unversioned(self, place: str, names: Iterable[str], *, is_whole: bool) -> Iterator[Problem]:
        """Judge the symbols of libstdc++ that a file needs without a version.

        The linker leaves the version out, too, where another library that it is given exports such a symbol.
        """
        above = symbols_above_tag(names, self._platform)
        if above:
            name, version, promised = above[0]
            evidence = [f"{one}: {since}" for one, since, _ in above[:_MOST_SHOWN]]
            if len(above) > _MOST_SHOWN:
                evidence.append(f"and {len(above) - _MOST_SHOWN} more")
            is_elsewhere = not is_whole and self._suppliers.may_export_runtime(self._lacking)
            if is_elsewhere:
                evidence.append("a library that the wheel expects from elsewhere may have it")
            yield from self._once(
                self._problem(
                    "libstdcxx-above-tag", Severity.WARNING if is_elsewhere else Severity.ERROR, place,
                    f"it needs {name}, which {_LIBSTDCXX} has in {version}, and the tag promises {promised} at most",
                    evidence, "build and link it with one compiler, in the image of the tag, or give it a newer tag",
                )
            )  # fmt: skip

    def _needs_of(self, place: str) -> Iterator[ElfNeed]:
        """Yield the needs of an image that some image of the wheel has to fulfil."""
        symbols = self._files[place].image.symbols
        python = file_python(place, self._promise)
        known = self._of_process.setdefault(python, {})
        for name in self._files[place].strong_names:
            if name not in known:
                # All that glibc and libstdc++ have has versions. Without one it may still be a name of the C library:
                # Python has libm in the process, and a module that is not linked with it finds it there.
                known[name] = is_python_name(name, python) or self._is_of_c_library(name)
        for need in symbols.needs if symbols is not None else ():
            if not (need.weak or known[need.name]):
                yield need

    def _is_of_c_library(self, name: str) -> bool:
        found = self._of_c_library.get(name)
        is_musl = self._platform.loader is Loader.MUSL
        if not is_musl and name in glibc_names():
            return True
        machines = found.machines if found is not None and is_musl and self._platform.machine in _MUSL_MACHINES else ()
        return found is not None and (not machines or self._platform.machine in machines)

    def _find(self, need: ElfNeed, places: Sequence[str], used: set[str]) -> bool:
        """Return whether an image has what is needed, and add it to `used`; what is of the system is not judged.

        musl goes by the name alone: it does not read the versions of needs.
        """
        wanted = None if self._platform.loader is Loader.MUSL else need.version
        for place in places:
            image = self._files[place].image
            if image.symbols is None or need.name not in image.symbols.provides:
                continue
            versions = image.symbols.provides[need.name]
            if wanted is None or wanted in versions or None in versions:
                used.add(place)
                return True
        names = {name for place in places for name in (self._files[place].image.soname, posixpath.basename(place))}
        return wanted is not None and need.library not in names

    def _missing_symbol(
        self, file: CheckedElf, place: str, need: ElfNeed, load: set[str], lacking: Sequence[ElfNeed]
    ) -> Problem:  # fmt: skip
        """Return the problem of a symbol that nothing has; it stands for all that the file lacks, where they are many.

        Arguments: `file`, what is loaded; `place` of the image that needs it; `load`, the images of the load.
        """
        elsewhere = [other for other in self._defined_in(need.name) if other not in load]
        evidence = [f"none of the {len(load)} images of the load has it, nor has the C library"]
        if elsewhere:
            evidence.append(f"{elsewhere[0]} of the wheel has it, which this load does not bring")
        version = f" in version {need.version} of {need.library}" if need.version is not None else ""
        if len(lacking) > _MOST_SHOWN:
            evidence.append("among them: " + ", ".join(one.name for one in lacking[1 : _MOST_SHOWN + 1]))
            version += f" and {len(lacking) - 1} more"
        severity = Severity.ERROR if file.is_module else self._severity_of_library(file.place)
        return self._problem(
            "missing-symbol", Severity.NOTE if elsewhere else severity, place,
            f"it needs the symbol {need.name}{version}, which nothing that it loads has", evidence,
            "link it with the library that has the symbol, or build it against this C library",
        )  # fmt: skip

    def _defined_in(self, name: str) -> list[str]:
        if self._exports is None:
            self._exports = {}
            for place, file in self._files.items():
                for defined in file.image.symbols.provides if file.image.symbols is not None else ():
                    self._exports.setdefault(defined, []).append(place)
        return self._exports.get(name, [])
