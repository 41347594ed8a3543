"""Mangled C++ names: what is read, what is refused, and that any text is taken within bounds."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.diagnose.mangled import LONGEST_SYMBOL, StringAbi, demangle, guess_owner, read_symbol
from dlltracer.diagnose.mangled.grammar import ABBREVIATIONS, BUILTIN, OPERATORS
from dlltracer.knowledge import read_table

OLD_STRING = "std::basic_string<char, std::char_traits<char>, std::allocator<char> >"
NEW_STRING = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >"


@pytest.mark.parametrize(
    ("symbol", "declaration"),
    [
        ("_Z3foov", "foo()"),
        ("_ZSt4cout", "std::cout"),
        ("_ZN3c105ErrorC2ENS_14SourceLocationESs", f"c10::Error::Error(c10::SourceLocation, {OLD_STRING})"),
        (
            "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",
            f"c10::Error::Error(c10::SourceLocation, {NEW_STRING})",
        ),
        ("_ZNSsC1Ev", f"{OLD_STRING}::basic_string()"),
        ("_ZNK3foo3barB5cxx11Ev", "foo::bar[abi:cxx11]() const"),
        ("_ZN1AD0Ev", "A::~A()"),
        ("_ZlsIiERSoS0_RKT_", "std::basic_ostream<char, std::char_traits<char> >& operator<< <int>("
         "std::basic_ostream<char, std::char_traits<char> >&, int const&)"),
        ("_ZTVN10__cxxabiv120__si_class_type_infoE", "vtable for __cxxabiv1::__si_class_type_info"),
        ("_ZThn16_N1A1fEv", "non-virtual thunk to A::f()"),
        ("_ZnwmSt11align_val_t", "operator new(unsigned long, std::align_val_t)"),
        ("_Z1fPFvPKcE", "f(void (*)(char const*))"),
        ("_Z1fM1AKFiiE", "f(int (A::*)(int) const)"),
        ("_Z1fRA4_A5_Kc", "f(char const (&) [4][5])"),
        ("_Z1fIJidEEvDpOT_", "void f<int, double>(int&&, double&&)"),
        ("_Z1fIRiEvOT_", "void f<int&>(int&)"),
        ("_Z1fILb1ELj3ELin2ELc97EEvv", "void f<true, 3u, -2, (char)97>()"),
        ("_ZZ3foovENKUlvE_clEv", "foo()::{lambda()#1}::operator()() const"),
        ("_ZN12_GLOBAL__N_11fEv", "(anonymous namespace)::f()"),
        ("_ZN1AcviEv", "A::operator int()"),
    ],
)  # fmt: skip
def test_declarations(symbol: str, declaration: str) -> None:
    assert demangle(symbol) == declaration


@pytest.mark.parametrize(
    "symbol",
    [
        "", "foo", "_Z", "_ZN", "_Z3fo", "_Z99999999999999999999999999foo", "_ZN3fooE_", "_Z1fT_", "_Z1fS_",
        "_Z1fS9_i", "_Z1fIJEEvDpT_i", "_ZNStEv", "_ZN3foo\u00e4Ev", "_Z1fDTclL_Z1gvEE", "_ZC1Ev",
        "_Z" + "1f" * LONGEST_SYMBOL,
    ],
)  # fmt: skip
def test_what_cannot_be_read_has_no_declaration(symbol: str) -> None:
    assert demangle(symbol) is None


def test_a_template_parameter_is_not_taken_into_another_scope() -> None:
    """The substitution is the outer function's parameter; read in the lambda's function it would be another type."""
    symbol = (
        "_ZSt16__insertion_sortIPN4llvm3cfg6UpdateIPNS0_10BasicBlockEEEN9__gnu_cxx5__ops15_Iter_comp_iterIZNS1_"
        "15LegalizeUpdatesIS4_EEvNS0_8ArrayRefINS2_IT_EEEERNS0_15SmallVectorImplISD_EEbbEUlRKS5_SJ_E_EEEvSC_SC_T0_"
    )
    found = read_symbol(symbol)
    assert (found.declaration, found.scope) == (None, "std")


@pytest.mark.parametrize(
    ("symbol", "abi"),
    [
        ("_ZN3c105ErrorC2ENS_14SourceLocationESs", StringAbi.OLD),
        ("_Z1fSbIwSt11char_traitsIwESaIwEE", StringAbi.OLD),
        ("_Z1fNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", StringAbi.NEW),
        ("_ZN3foo3barB5cxx11Ev", StringAbi.NEW),
        ("_Z1fSsNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", StringAbi.BOTH),
        ("_ZNSt3__15mutex4lockEv", StringAbi.LIBCXX),
        ("_Z1fSt6vectorIiSaIiEE", None),
        ("_Z1fSsDTclL_Z1gvEE", StringAbi.OLD),
        ("_Z5Ss_7__3SsSv", None),
        ("PyInit_Ss", None),
    ],
)
def test_the_abi_of_strings(symbol: str, abi: StringAbi | None) -> None:
    assert read_symbol(symbol).string_abi is abi


@pytest.mark.parametrize(
    ("symbol", "owner"),
    [
        ("_ZN3c105ErrorC2ENS_14SourceLocationESs", "PyTorch"),
        ("_ZNK2at6Tensor4sizeEDTclL_Z1gvEE", "PyTorch"),
        ("_ZN6google8protobuf7Message3fooEv", "Protocol Buffers"),
        ("_ZN6icu_7212RegexMatcher9inputTextEv", "ICU, of the version in the name"),
        ("_ZN7QString4swapERS_", "Qt"),
        ("_ZNSt3__15mutex4lockEv", "the C++ standard library of LLVM"),
        ("_ZN4at_t1fEv", None),
        ("_Z1fN3c105ErrorE", None),
        ("__nvJitLinkAddData_12_1", "NVIDIA nvJitLink"),
        ("cuInit", "the NVIDIA driver"),
        ("cudaMalloc", "the CUDA runtime"),
        ("cublasLtCreate", "NVIDIA cuBLASLt"),
        ("PyUnicode_New", "CPython"),
        ("_Mtx_init_in_situ", "the C++ runtime of Visual C++"),
        ("??0QString@@QEAA@XZ", "Qt"),
        ("?staticMetaObject@QObject@@2UQMetaObject@@B", "Qt"),
        ("?what@Error@c10@@UEBAPEBDXZ", "PyTorch"),
        ("??0Error@c10@@QEAA@USourceLocation@1@@Z", "PyTorch"),
        ("?f@@YAXVTensor@at@@@Z", None),
        ("?" * 3000, None),
        ("?" + "a@" * 3000, None),
        ("extra", None),
        ("", None),
    ],
)
def test_whose_symbol(symbol: str, owner: str | None) -> None:
    found = guess_owner(symbol)
    assert (found.name if found else None) == owner


def test_the_table_of_owners() -> None:
    table = read_table("symbols")
    assert table
    for rows in table.values():
        matches = [row["match"] for row in rows]
        assert len(set(matches)) == len(matches) > 10
        assert all(set(row) <= {"match", "name", "libraries", "package"} and row["name"] for row in rows)


LETTERS = [*BUILTIN, *OPERATORS, *ABBREVIATIONS, *"NEIJSTPRKOFALXDMCUZGBr_0123456789", "3foo", "_Z", "St", "T_", "Dp"]


@given(st.lists(st.sampled_from(LETTERS), max_size=60).map(lambda words: "_Z" + "".join(words)) | st.text(max_size=40))
def test_any_text_gives_a_declaration_or_none(symbol: str) -> None:
    assert read_symbol(symbol).declaration != ""
    owner = guess_owner(symbol)
    if owner is not None:
        rows = [row for rows in read_table("symbols").values() for row in rows]
        assert owner.name in {row["name"] for row in rows}


@pytest.mark.parametrize(
    "symbol",
    [
        "_Z" + "P" * 8000, "_Z1f" + "P" * 8000 + "i", "_ZGTt" * 3000, "_Z1fI" + "J" * 8000, "_Z1f" + "F" * 8000,
        "_Z" + "N" * 8000,
        "_ZZ" * 5000, "_Z" + "Z1fv" * 4000, "_Z1fN" + "1A" * 7000 + "E" + "S_S0_SZZ_" * 10, "_Z1f3AAA" + "S_" * 8000,
        "_Z1f" + "".join(f"1BI{'' if i else '1A'}{'S_S_' if i else ''}E" for i in range(4000)),
        "_Z1fU" + "lUl" * 5000, "_ZTh" * 4000,
        "_Z1f1AIiiE" + "".join(f"1BIS{i or ''}_S{i or ''}_E" for i in range(2000)),
    ],
    ids=range(14),
)  # fmt: skip
def test_hostile_names_take_bounded_time_and_depth(symbol: str) -> None:
    limit = sys.getrecursionlimit()
    started = time.process_time()
    sys.setrecursionlimit(700)
    try:
        demangle(symbol)
    finally:
        sys.setrecursionlimit(limit)
    assert time.process_time() - started < 2
