"""Which version of libstdc++ has the symbols that a file needs without saying a version.

The linker leaves the version out where its own libstdc++ was older than the compiler, and lacked the symbol. The loader
takes a symbol of any version for such a need: the file loads where libstdc++ is new enough, whatever its tag says.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from .platforms import Platform

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


@functools.cache
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
