"""A symbol or a symbol version that nothing in the process provides."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from ...knowledge import glibc_names, musl_names
from ...model.elf import ElfImage
from ...model.environment import without_hash
from ...model.failure import ProcessFacts
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import Binding, MissingSymbol, MissingVersion
from ..case import Case, Copy, describe_copies
from ..loader_errors import DlProblem, describe_choice, describe_rule, folder_of
from ..mangled import StringAbi, demangle, guess_owner, read_symbol
from ..remedies import operand, reinstall, with_variable
from .python_module import is_python_api
from .search_rules import hidden_provider, is_about_a_shadowed_copy

CODE = "missing-symbol"
VERSION_CODE = "missing-version"
GLIBC_CODE = "glibc-too-old"
STRING_ABI_CODE = "other-string-abi"
MUSL_CODE = "glibc-symbol-on-musl"
MUSL_AGE_CODE = "musl-too-old"

_MOST_COMPARED = 4000
_MOST_DEFINERS = 3
"""Libraries that define a symbol; more of them say that its name is a common one."""
_STRINGS = re.compile(
    r"std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> ?>"
    r"|std::basic_string<char, std::char_traits<char>, std::allocator<char> ?>"
)
_OF_C = re.compile(r"(libc|libm|libdl|libpthread|librt|ld-linux[^.]*|libgcc_s)\.so")
_NUMBERS = re.compile(r"\d+")
_SYSTEM_FOLDERS = ("/lib/", "/lib64/", "/lib32/", "/usr/lib/", "/usr/lib64/", "/usr/lib32/")
"""Folders where a distribution keeps the libraries of its own programs."""


def check(case: Case) -> Iterator[Finding]:
    """Find what is missing first of all. Other rules find that a wrong copy was taken."""
    dl_error = case.dl_error
    if dl_error is None or is_about_a_shadowed_copy(case) or hidden_provider(case):
        return
    if dl_error.problem is DlProblem.MISSING_VERSION and case.versions:
        yield _version(case.versions[0], case)
    elif dl_error.problem is DlProblem.MISSING_SYMBOL and case.symbols and not is_python_api(case.symbols[0]):
        yield _symbol(case.symbols[0], case)


def _version(missing: MissingVersion, case: Case) -> Finding:
    newest = _newest_like(missing)
    has = f", and has none newer than {newest}" if newest else ""
    is_glibc = _is_of_glibc(missing)
    binding = _binding_of(case, missing.requested_by, missing.library)
    copies = tuple(copy for copy in case.copies.get(missing.library, ()) if copy.has_what_lacks and copy.unfit is None)
    requester, owner = missing.requested_by, case.owner_of(missing.requested_by)
    text = f"{requester}{owner} needs {missing.version} of {missing.library}. "
    text += (
        describe_choice(binding) if binding is not None and not is_glibc else f"{missing.library} is {missing.provider}"
    )
    text += f"{case.owner_of(missing.provider)}: it does not define that version{has}."
    if is_glibc:
        version = case.c_library.version
        system = f" (this is glibc {version})" if version else ""
        text += (
            f" The file was built with another glibc than the one here{system}: parts of one glibc share that version."
            if missing.version == "GLIBC_PRIVATE"
            else f" The file was built on a system with a newer glibc{system}."
        )
    elif copies:
        text += f" {describe_copies(copies)} does."
    own_name = _own_name(missing, case)
    if own_name and not is_glibc:
        text += (
            f" {missing.provider} is {own_name} by its own soname, another version of the library: somebody made a "
            f"link from {missing.library} to it, or gave it that name."
        )
    return Finding(
        code=GLIBC_CODE if is_glibc else VERSION_CODE,
        title=f"{requester.rpartition('/')[2]} needs {missing.version}, and glibc here is older" if is_glibc
        else f"{missing.provider} has no {missing.version}, which {requester.rpartition('/')[2]} needs",
        confidence=Confidence.CERTAIN, subject=missing.version,
        chain=case.chain_to(requester, f"{missing.library} (in use: {missing.provider})"),
        explanation=text,
        evidence=(Evidence(Source.LOADER, f"{missing.version} not found in {missing.provider}"),),
        remedies=tuple(
            _glibc_remedies(case, missing) if is_glibc else _version_remedies(missing, binding, copies, case)
        ),
    )  # fmt: skip


def _is_of_glibc(missing: MissingVersion) -> bool:
    """Return whether the version is one of glibc's own: GLIBC_2.38, and marks of its abilities (GLIBC_ABI_DT_RELR)."""
    is_own = missing.version.startswith(("GLIBC_2.", "GLIBC_ABI_", "GLIBC_PRIVATE"))
    return is_own and _OF_C.match(missing.library) is not None


def _newest_like(missing: MissingVersion) -> str | None:
    """Return the newest version of the provider among those that differ only in their numbers."""
    stem = _NUMBERS.sub("#", missing.version).replace(".#", "")
    like = [version for version in missing.provider_has if _NUMBERS.sub("#", version).replace(".#", "") == stem]
    return max(like, key=lambda version: [int(number) for number in _NUMBERS.findall(version)], default=None)


def _glibc_remedies(case: Case, missing: MissingVersion) -> Iterator[Remedy]:
    for owner in case.owners.get(missing.requested_by, ())[:1]:
        yield Remedy(
            f"install a version of {owner.package} whose wheels are for this system (manylinux tag not above its glibc)"
        )
    yield Remedy("build it on this system, or run it on a newer one; glibc itself cannot be replaced by itself")


def _version_remedies(
    missing: MissingVersion, binding: Binding | None, copies: tuple[Copy, ...], case: Case
) -> Iterator[Remedy]:
    if copies:
        yield Remedy(
            f"let the loader take the copy that has it: {copies[0].path}",
            with_variable(case, "LD_LIBRARY_PATH", folder_of(copies[0].path)),
        )
    yield from _wrong_link_remedies(missing, copies, case)
    process = case.run.process
    if missing.library == "libstdc++.so.6" and _is_inside(missing.provider, process):
        update = ("conda", "install", "-c", "conda-forge", "libstdcxx-ng")
        yield Remedy("with conda: bring its runtime up to date", update)
    if not copies and missing.provider.startswith(_SYSTEM_FOLDERS):
        # Everything on the system runs with it: that file is neither replaced nor taken away.
        owner = next((owner.package for owner in case.owners.get(missing.requested_by, ())), "the file")
        yield Remedy(f"install a build of {owner} for this system, or use a newer system: {missing.library} is its own")
    elif not copies:
        rule = describe_rule(binding.phase) if binding is not None else ""
        yield Remedy(
            f"install a newer {missing.library}, or take the old one out of the way"
            f"{f' (it is found {rule})' if rule else ''}"
        )


def _own_name(missing: MissingVersion, case: Case) -> str | None:
    """Return the soname of the file in use, if it differs from the name by which the file was found."""
    image = case.images.get(missing.provider)
    name = image.soname if isinstance(image, ElfImage) else None
    return name if name != missing.library else None


def _wrong_link_remedies(missing: MissingVersion, copies: tuple[Copy, ...], case: Case) -> Iterator[Remedy]:
    """Yield the remedies for a link by which one version of a library replaces another, outside of system folders."""
    if _own_name(missing, case) is None or not copies or missing.provider.startswith(_SYSTEM_FOLDERS):
        return
    yield Remedy(
        f"let that name lead to the copy that has it: all that use {missing.provider} get it then, and what is there "
        "now is kept with ~ at its end",
        ("ln", "-sfnb", operand(copies[0].path), operand(missing.provider)),
    )


def _is_inside(path: str, process: ProcessFacts | None) -> bool:
    return process is not None and process.prefix not in ("", "/", "/usr") and path.startswith(f"{process.prefix}/")


def _symbol(missing: MissingSymbol, case: Case) -> Finding:
    declaration = demangle(missing.name)
    shown = f"{missing.name} ({declaration})" if declaration else missing.name
    if case.dl_error is not None and case.dl_error.loader == "musl":
        since = musl_names()[missing.name].since if missing.name in musl_names() else (0,)
        own = _musl_version(case)
        if own and own < since:
            return _newer_musl(missing, since, case)
        if _is_for_glibc(case, missing) or missing.name in glibc_names():
            return _glibc_on_musl(missing, case)
    twin = _twin_of_other_abi(missing.name, case)
    if twin is not None:
        return _string_abi(missing, shown, twin, case)
    text = (
        f"{missing.requested_by}{case.owner_of(missing.requested_by)} needs {shown}, and no image in its reach has it."
    )
    copies = {
        need: copy for need, found in case.copies.items() for copy in found if copy.has_what_lacks and not copy.unfit
    }
    owner = guess_owner(missing.name)
    for need, copy in copies.items():
        binding = _binding_of(case, missing.requested_by, need)
        text += f" {describe_choice(binding)}, which lacks it." if binding is not None else ""
        text += f" {copy.path} ({copy.where}) has it."
        break
    else:
        binding = _binding_of(case, missing.requested_by, missing.library) if missing.library else None
        if binding is not None:
            text += (
                f" It should be in {missing.library}: {describe_choice(binding)}{case.owner_of(binding.path or '')}."
            )
        else:
            text += f" By its name it belongs to {owner.name}." if owner is not None else ""
            text += _asked_libraries(case, missing)
    definers = _likely_definers(missing, case)
    if definers:
        text += (
            f" It does not list any library that has it (its needs were left out when it was linked). "
            f"{' and '.join(definers)} {'defines' if len(definers) == 1 else 'define'} it."
        )
    if missing.nearest and not definers:
        text += f" Alike, and there: {', '.join(demangle(name) or name for name in missing.nearest[:2])}."
    more = sum(1 for symbol in case.symbols if symbol.requested_by == missing.requested_by) - 1
    if more > 0:
        text += f" {more} more of its symbols are missing."
    return Finding(
        code=CODE,
        title=_symbol_title(missing, case),
        confidence=Confidence.CERTAIN, subject=missing.name, chain=case.chain_to(missing.requested_by, missing.name),
        explanation=text,
        evidence=(Evidence(Source.LOADER, f"undefined symbol: {missing.name}"),),
        remedies=(*_definer_remedies(missing, definers), *_symbol_remedies(missing, copies, case)),
    )


def _symbol_title(missing: MissingSymbol, case: Case) -> str:
    """Return the library that lacks the symbol, if its version names one; else the requester."""
    requester = missing.requested_by.rpartition("/")[2] or "an image"
    binding = _binding_of(case, missing.requested_by, missing.library) if missing.library else None
    definers = _likely_definers(missing, case)
    if len(definers) == 1 and binding is None:
        definer = definers[0].rpartition("/")[2]
        return f"{requester} needs {missing.name}, which {definer} has, and does not ask for {definer}"
    if binding is None:
        return f"{requester} needs a symbol that nothing provides: {missing.name}"
    version = f" in version {missing.version}" if missing.version else ""
    return f"{missing.library} lacks {missing.name}{version}, which {requester} needs"


def _likely_definers(missing: MissingSymbol, case: Case) -> tuple[str, ...]:
    """Return the libraries that define the symbol, if it may have been meant for them.

    Names are free: libgnutls-openssl.so.27 defines SSL_library_init, which no library of OpenSSL has since 1.1.
    """
    owner = guess_owner(missing.name)
    patterns = owner.libraries if owner is not None else ()
    found = tuple(
        path for path in case.definers
        if not patterns or any(fnmatchcase(without_hash(posixpath.basename(path)), f"{one}*") for one in patterns)
    )  # fmt: skip
    return found if len(found) <= _MOST_DEFINERS else ()


def _asked_libraries(case: Case, missing: MissingSymbol) -> str:
    """Return the copies of the needed libraries, without the C library: one of them should have the symbol."""
    own = [
        describe_choice(binding)
        for binding in (case.tree.bindings if case.tree is not None else ())
        if binding.requested_by == missing.requested_by and binding.path and not _OF_C.match(binding.need)
    ]
    return f" Of what it asks for, {'; '.join(own[:3])}{' ...' if len(own) > 3 else ''}." if own else ""


def _symbol_remedies(missing: MissingSymbol, copies: dict[str, Copy], case: Case) -> Iterator[Remedy]:
    # Another C library than the one of the loader in use ends the process: ld.so(8) and libc belong together.
    useful = [copy for copy in copies.values() if _OF_C.match(copy.path.rpartition("/")[2]) is None]
    for copy in useful[:1]:
        folder = folder_of(copy.path)
        yield Remedy("let the loader take the copy that has it", with_variable(case, "LD_LIBRARY_PATH", folder))
    owner = guess_owner(missing.name)
    requester = next((owner.package for owner in case.owners.get(missing.requested_by, ())), None)
    if owner is not None and owner.package and requester:
        yield Remedy(f"bring {requester} and {owner.package} to versions that were built for one another")
    elif requester:
        yield Remedy(f"install another version of {requester}, or of what it was built with")
    elif not copies:
        yield Remedy("link it with the library that has the symbol, or take versions that were built for one another")


def _definer_remedies(missing: MissingSymbol, definers: tuple[str, ...]) -> Iterator[Remedy]:
    """Yield the remedies for an unlisted need: a library with global symbols in the process would satisfy it."""
    for definer in definers:
        yield Remedy(
            "load that library first, with its symbols for all",
            code=f"import ctypes; ctypes.CDLL({definer!r}, mode=ctypes.RTLD_GLOBAL)",
        )
        yield Remedy(
            f"or add it to the needs of {missing.requested_by.rpartition('/')[2]}",
            ("patchelf", "--add-needed", definer.rpartition("/")[2], operand(missing.requested_by)),
        )
        return


def _string_abi(missing: MissingSymbol, shown: str, twin: tuple[str, str], case: Case) -> Finding:
    path, name = twin
    asked = read_symbol(missing.name).string_abi
    asked_words, has_words = ("old", "new") if asked is StringAbi.OLD else ("new", "old")
    flag = "0" if asked is StringAbi.OLD else "1"
    owners = [owner.package for where in (missing.requested_by, path) for owner in case.owners.get(where, ())[:1]]
    return Finding(
        code=STRING_ABI_CODE,
        title=f"{missing.requested_by.rpartition('/')[2]} was built with the {asked_words} std::string of GCC, "
        f"{path.rpartition('/')[2]} with the {has_words} one",
        confidence=Confidence.CERTAIN, subject=missing.name, chain=case.chain_to(missing.requested_by, missing.name),
        explanation=(
            f"{missing.requested_by}{case.owner_of(missing.requested_by)} needs {shown} with the {asked_words} "
            f"std::string (_GLIBCXX_USE_CXX11_ABI={flag}). {path}{case.owner_of(path)} has the same "
            f"function with the other: {name}."
        ),
        evidence=(Evidence(Source.LOADER, f"undefined symbol: {missing.name}"),
         Evidence(Source.FILES, f"{path} provides {name}")),
        remedies=(Remedy(f"take builds of {' and '.join(owners) or 'both'} that were made for one another"),
         Remedy(f"or build it with -D_GLIBCXX_USE_CXX11_ABI={1 - int(flag)}")),
    )  # fmt: skip


def _twin_of_other_abi(symbol: str, case: Case) -> tuple[str, str] | None:
    """Return the image that has the same function for the other std::string, and the function's name there."""
    wanted = read_symbol(symbol)
    other = {StringAbi.OLD: StringAbi.NEW, StringAbi.NEW: StringAbi.OLD}.get(wanted.string_abi or StringAbi.BOTH)
    if other is None or wanted.declaration is None:
        return None
    plain = _without_abi(wanted.declaration)
    start = symbol[: max(6, len(symbol) // 4)][:12]
    left = _MOST_COMPARED
    for path in case.tree.images if case.tree is not None else ():
        image = case.images.get(path)
        symbols = image.symbols if isinstance(image, ElfImage) else None
        for name in symbols.provides if symbols is not None else ():
            if name[: len(start)] == start and left > 0:
                left -= 1
                found = read_symbol(name)
                if found.string_abi is other and found.declaration and _without_abi(found.declaration) == plain:
                    return path, name
    return None


def _without_abi(declaration: str) -> str:
    return _STRINGS.sub("std::string", declaration).replace("[abi:cxx11]", "").replace("std::__cxx11::", "std::")


def _is_for_glibc(case: Case, missing: MissingSymbol) -> bool:
    image = case.images.get(missing.requested_by)
    return isinstance(image, ElfImage) and any(need.version.startswith("GLIBC_") for need in image.version_needs)


def _is_for_musl(case: Case, missing: MissingSymbol) -> bool:
    image = case.images.get(missing.requested_by)
    return isinstance(image, ElfImage) and image.c_library == "musl"


def _package_of(missing: MissingSymbol, case: Case) -> str:
    """Return the package of the file that needs the symbol, in words."""
    return next((one.package for one in case.owners.get(missing.requested_by, ())), "it")


def _musl_version(case: Case) -> tuple[int, ...]:
    return tuple(map(int, _NUMBERS.findall(case.c_library.version or "")))


def _newer_musl(missing: MissingSymbol, version: tuple[int, ...], case: Case) -> Finding:
    since, own = (".".join(map(str, numbers)) for numbers in (version, _musl_version(case)))
    owner = _package_of(missing, case)
    return Finding(
        code=MUSL_AGE_CODE,
        title=f"{missing.requested_by} needs {missing.name} of musl {since}, and musl here is {own}",
        confidence=Confidence.CERTAIN,
        subject=missing.requested_by,
        chain=case.chain_to(missing.requested_by, missing.name),
        explanation=f"{missing.requested_by}{case.owner_of(missing.requested_by)} was built with a newer musl: the "
        f"function came with musl {since}, and this Python runs on musl {own}.",
        evidence=(Evidence(Source.LOADER, f"{missing.name}: symbol not found"),
         Evidence(Source.FILES, f"{missing.name} is a name of musl since {since}")),
        remedies=(Remedy(f"use a newer release of the system (its image), or a build of {owner} for musl {own}"),),
    )  # fmt: skip


def _glibc_on_musl(missing: MissingSymbol, case: Case) -> Finding:
    if _is_for_musl(case, missing):
        return _name_of_glibc_in_build_for_musl(missing, case)
    has_versions = _is_for_glibc(case, missing)
    return Finding(
        code=MUSL_CODE,
        title=f"{missing.requested_by} was built for glibc, and this Python runs on musl",
        confidence=Confidence.CERTAIN if has_versions else Confidence.LIKELY,
        subject=missing.requested_by,
        chain=case.chain_to(missing.requested_by, missing.name),
        explanation=f"It needs {missing.name}, which only glibc has{', and symbol versions of glibc' * has_versions}.",
        evidence=(Evidence(Source.LOADER, f"{missing.name}: symbol not found"),
         Evidence(Source.FILES, "it needs symbol versions of glibc" if has_versions
                  else f"{missing.name} is a name of glibc that musl does not have")),
        remedies=(Remedy("install a build for musl (a musllinux wheel), or use a Python that runs on glibc"),
         *reinstall(case, missing.requested_by)),
    )  # fmt: skip


def _name_of_glibc_in_build_for_musl(missing: MissingSymbol, case: Case) -> Finding:
    """Return the finding on a file that is linked with musl: another build for musl would not be what it lacks."""
    owner = _package_of(missing, case)
    return Finding(
        code=MUSL_CODE,
        title=f"{missing.requested_by} was built for musl, and asks for {missing.name}, which only glibc has",
        confidence=Confidence.LIKELY,
        subject=missing.requested_by,
        chain=case.chain_to(missing.requested_by, missing.name),
        explanation=(
            f"{missing.requested_by}{case.owner_of(missing.requested_by)} is linked with musl, and a part of it was "
            f"compiled for glibc: {missing.name} is a name of glibc that musl does not have."
        ),
        evidence=(Evidence(Source.LOADER, f"{missing.name}: symbol not found"),
         Evidence(Source.FILES, f"{missing.name} is a name of glibc that musl does not have")),
        remedies=(
            Remedy(f"install another version of {owner}, and tell its makers; or use a Python that runs on glibc"),
        ),
    )  # fmt: skip


def _binding_of(case: Case, requested_by_path: str, need: str | None) -> Binding | None:
    """Return how a need of an image was met; if the image does not list it, how it was met for another one."""
    bindings = [b for b in (case.tree.bindings if case.tree is not None else ()) if b.need == need and b.path]
    return next((b for b in bindings if b.requested_by == requested_by_path), bindings[0] if bindings else None)
