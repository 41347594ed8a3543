"""The codes of mangled names ("Itanium C++ ABI", section 5.1), in the wording of c++filt."""

from __future__ import annotations

from .text import Text

BUILTIN = {
    "v": "void", "w": "wchar_t", "b": "bool", "c": "char", "a": "signed char", "h": "unsigned char", "s": "short",
    "t": "unsigned short", "i": "int", "j": "unsigned int", "l": "long", "m": "unsigned long", "x": "long long",
    "y": "unsigned long long", "n": "__int128", "o": "unsigned __int128", "f": "float", "d": "double",
    "e": "long double", "g": "__float128", "z": "...",
}  # fmt: skip
BUILTIN_D = {
    "Dn": "decltype(nullptr)", "Di": "char32_t", "Ds": "char16_t", "Du": "char8_t", "Da": "auto",
    "Dc": "decltype(auto)", "Df": "decimal32", "Dd": "decimal64", "De": "decimal128",
}  # fmt: skip
OPERATORS = {
    "nw": " new", "na": " new[]", "dl": " delete", "da": " delete[]", "ps": "+", "ng": "-", "ad": "&", "de": "*",
    "co": "~", "pl": "+", "mi": "-", "ml": "*", "dv": "/", "rm": "%", "an": "&", "or": "|", "eo": "^", "aS": "=",
    "pL": "+=", "mI": "-=", "mL": "*=", "dV": "/=", "rM": "%=", "aN": "&=", "oR": "|=", "eO": "^=", "ls": "<<",
    "rs": ">>", "lS": "<<=", "rS": ">>=", "eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">=",
    "ss": "<=>", "nt": "!", "aa": "&&", "oo": "||", "pp": "++", "mm": "--", "cm": ",", "pm": "->*", "pt": "->",
    "cl": "()", "ix": "[]",
}  # fmt: skip
_CHARS = "char, std::char_traits<char>"
ABBREVIATIONS = {
    "Sa": Text("std::allocator", last="allocator"),
    "Sb": Text("std::basic_string", last="basic_string"),
    "Ss": Text(f"std::basic_string<{_CHARS}, std::allocator<char> >", last="basic_string"),
    "Si": Text(f"std::basic_istream<{_CHARS} >", last="basic_istream"),
    "So": Text(f"std::basic_ostream<{_CHARS} >", last="basic_ostream"),
    "Sd": Text(f"std::basic_iostream<{_CHARS} >", last="basic_iostream"),
}
SPECIAL = {"TV": "vtable for ", "TT": "VTT for ", "TI": "typeinfo for ", "TS": "typeinfo name for "}
"""Followed by a type; those of `SPECIAL_NAME` by a name."""
SPECIAL_NAME = {
    "GV": "guard variable for {}", "GR": "reference temporary #{1} for {0}", "TH": "TLS init function for {}",
    "TW": "TLS wrapper function for {}",
}  # fmt: skip
DECLARATORS = "PROAMu"
"""Pointer, references, array, pointer to member, a vendor's type."""
QUALIFIERS = {"r": "restrict", "V": "volatile", "K": "const"}
INTEGER_SUFFIX = {"i": "", "j": "u", "l": "l", "m": "ul", "x": "ll", "y": "ull"}
