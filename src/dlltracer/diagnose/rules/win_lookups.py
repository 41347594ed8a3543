"""Windows: searches that a program makes itself, for a library by name or for a function by GetProcAddress.

`ctypes.util.find_library` looks into the folders of PATH and asks no loader (Lib/ctypes/util.py), so that no audit
event shows it: what is left is the exception, and the line that raised it.
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterable, Iterator

from ...model.environment import Provider
from ...model.failure import PythonError, System
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.loader_context import LoadFlags
from ...model.pe import PeImage
from ...model.request import Request, RequestKind
from ..case import Case, Copy
from ..loader_errors import ends_of
from ..providers import NO_DLL_SITES, find_providers, install_remedies
from ..windows_load import base_name, described, load_error, name_of

LIBRARY_CODE = "library-not-found"
SYMBOL_CODE = "symbol-not-in-library"

_NO_FUNCTION = re.compile(
    r"^function ordinal (?P<ordinal>\d{1,6}) not found$|^(?:function|symbol) '?(?P<name>[^'\n]{1,2000}?)'? not found$"
)
"""Words of CPython (Modules/_ctypes/_ctypes.c) for Windows, in no other language."""
_CTYPES_FILE = re.compile(r"[/\\]ctypes[/\\]__init__\.py$")
_OF_CDLL = ("__init__", "_load_library", "LoadLibrary")
_SEARCH = re.compile(r"find_library\(\s*[rbu]?(['\"])([^'\"\n]{1,200})\1")
_NAMED = re.compile(r"(?<![\w.\\/:+-])([\w.+-]{1,80}\.dll|lib[\w+-]{2,80})(?![\w\\/]|\.(?:so|dylib)\b)", re.IGNORECASE)
_DENIES = re.compile(
    r"\b(?:not|no|unable|cannot|can't|couldn't|could not|missing|fail\w*|without)\b.{0,200}"
    r"\b(?:load|find|found|locate|install\w*|librar\w+|dlls?|available|open|backends?)\b"
    r"|\b(?:load|find|found|locate|librar\w+|dlls?|available)\b.{0,200}\b(?:not|missing|fail\w*)\b",
    re.IGNORECASE,
)
_BY_WORDS = (
    (re.compile(r"\bOracle Client librar"), "oci.dll"),
    (re.compile(r"\bODBC Driver 17 for SQL Server\b"), "msodbcsql17.dll"),
    (re.compile(r"\bODBC Driver 18 for SQL Server\b"), "msodbcsql18.dll"),
)
"""Words for a library that are not its name."""
_BY_PACKAGE = {
    "usb": "libusb-1.0", "magic": "libmagic", "pyzbar": "libzbar-64", "sounddevice": "portaudio",
    "soundfile": "libsndfile", "enchant": "libenchant-2", "wand": "core_rl_magickwand_", "pylibdmtx": "libdmtx-64",
    "cairocffi": "libcairo-2", "weasyprint": "libgobject-2.0-0", "pyvips": "libvips-42", "openslide": "libopenslide-1",
    "mpv": "libmpv-2", "vlc": "libvlc", "sdl2": "sdl2",
}  # fmt: skip
"""Packages that look for one library by themselves, and may say no more than that there is none."""
_WORD = re.compile(r"[A-Za-z][\w+.-]{2,60}")
_LIBRARY = re.compile(r"\blibrar(?:y|ies)\b|\bdlls?\b", re.IGNORECASE)
_NO_NAMES = re.compile(r"lib(?:rar\w*|eral\w*|ert\w*|s|clang format)?", re.IGNORECASE)
_MOST_NAMED = 3


def check(case: Case) -> Iterator[Finding]:
    """Yield the library that the program did not find, or the function that a library lacks."""
    error = case.error
    if error is not None and error.frames and error.frames[-1].function == "add_dll_directory":
        yield from _bad_folder(case, error)
    if error is None or load_error(case) is not None or case.missing_module is not None:
        return
    function = _NO_FUNCTION.match(error.message) if {"AttributeError", "ValueError"} & set(error.bases) else None
    if function is not None and _is_of_ctypes(error):
        yield _symbol(case, function["name"] or f"ordinal {function['ordinal']}")
    elif "TypeError" in error.bases and _is_of_ctypes(error) and error.frames[-1].function in _OF_CDLL:
        yield _nameless(case, error)
    else:
        yield from _denied(case)


def names_of(name: str) -> tuple[str, ...]:
    """Return the file names that a library's name may stand for: "cairo-2" for cairo-2.dll and libcairo-2.dll."""
    plain = base_name(name).removesuffix(".dll")
    plain = re.sub(r"\.so(?:\.\d+)*$", "", plain)
    bare = plain.removeprefix("lib")
    return tuple(dict.fromkeys((f"{plain}.dll", f"lib{bare}.dll", f"{bare}.dll", f"lib{bare}-64.dll")))


def providers_of(name: str) -> tuple[Provider, ...]:
    """Return the sources of a library for Windows, by any of its names."""
    return next((found for one in names_of(name) if (found := find_providers(one, System.WINDOWS))), ())


def libraries_asked_for_a_function(error: PythonError | None, requests: Iterable[Request]) -> tuple[str, ...]:
    """Return the file names of the libraries, loaded by ctypes, that may lack the function of an exception."""
    if error is None or not _NO_FUNCTION.match(error.message) or not _is_of_ctypes(error):
        return ()
    return tuple(dict.fromkeys(_file_name(one.target) for one in _loaded_by_ctypes(requests)))


def _file_name(target: str) -> str:
    """Return the file name that a request leads to: Windows puts .dll behind a name without an extension."""
    name = base_name(target)
    return name if "." in name else f"{name}.dll"


def _loaded_by_ctypes(requests: Iterable[Request]) -> list[Request]:
    """Return what the program loaded by ctypes.

    The import of ctypes loads kernel32 itself (Lib/ctypes), and so do we, from System32 alone, to describe a failure.
    """
    loads = (one for one in requests if one.kind is RequestKind.CTYPES and one.succeeded)
    return [one for one in loads if one.flags != LoadFlags.SYSTEM32 and one.imports[-1:] != ("ctypes",)]


def _is_of_ctypes(error: PythonError) -> bool:
    return bool(error.frames) and _CTYPES_FILE.search(error.frames[-1].file) is not None


def _symbol(case: Case, name: str) -> Finding:
    """Return the finding about a function that ctypes did not find in a library that is loaded and whole."""
    loaded = dict.fromkeys(one.target for one in _loaded_by_ctypes(case.run.requests))
    # The last one comes last, and what is Windows' own before all others.
    targets = sorted(loaded, key=lambda target: _file_name(target) not in case.windows_own)
    line = case.python_line
    source = line.source or "" if line is not None else ""
    # ctypes.windll.NAME.function names the library in the line itself.
    stems = {one: re.escape(base_name(one).removesuffix(".dll")) for one in targets}
    telling = [one for one, stem in stems.items() if re.search(rf"\b{stem}\b", source, re.IGNORECASE)]
    likely = telling or targets
    path = _image_of(case, likely[-1]) if likely else None
    library = path or (likely[-1] if likely else "")
    is_sure = len(likely) == 1
    copies = _copies_that_have(case, library, name)
    other = f" There is {copies[0].path}, too ({copies[0].where})." if copies else ""
    nearest = _alike(case, path, name)
    alike = f" Alike, and there: {', '.join(nearest)}." if nearest else ""
    more = "" if is_sure else f" It may be any of {', '.join(likely[-_MOST_NAMED:])}." if likely else ""
    who = name_of(library) or "a library that the program loaded"
    return Finding(
        code=SYMBOL_CODE,
        title=f"{who} has no function {name}, which the program asks for",
        confidence=Confidence.CERTAIN if is_sure else Confidence.LIKELY,
        subject=library or name,
        chain=case.chain_to(None, library, name),
        explanation=f"{described(case, library) if is_sure else 'The library'} is loaded. The program asked for "
        f"{name} by name (GetProcAddress), and it exports no such function: it is older or newer than the program "
        f"expects, or another library of that name.{more}{other}{alike}",
        evidence=(Evidence(Source.PYTHON, f"ctypes found no {name}"),),
        remedies=(
            *((Remedy(f"see whether the other one has it: load it by its whole path, {copies[0].path}"),) if copies
              else ()),
            Remedy(
                f"bring {who} and the program to versions that belong together"
                + (": it may be the file of another program, since its name alone was given"
                   if is_sure and not ntpath.dirname(likely[0]) else "")
            ),
        ),
    )  # fmt: skip


def _image_of(case: Case, target: str) -> str | None:
    """Return the image that a request by ctypes led to: the one of its name that the process has."""
    if ntpath.dirname(target):
        return target
    loaded = case.run.process.loaded if case.run.process is not None else ()
    events = case.run.recording.loads if case.run.recording is not None else ()
    paths = [*(event.shown_path for event in events), *loaded]
    return next((path for path in paths if base_name(path) == _file_name(target)), None)


def _copies_that_have(case: Case, library: str, symbol: str) -> list[Copy]:
    """Return copies that have the function, or that were not read: those of the process are known not to have it."""
    found = case.copies.get(base_name(library), ())
    return [
        copy for copy in found
        if copy.unfit is None and copy.path.lower() != library.lower()
        and (copy.path not in case.images or symbol in _exports(case, copy.path))
    ]  # fmt: skip


def _exports(case: Case, path: str | None) -> tuple[str, ...]:
    image = case.images.get(path or "")
    exports = image.exports if isinstance(image, PeImage) else None
    return tuple(export.name for export in exports or () if export.name)


def _alike(case: Case, path: str | None, symbol: str) -> list[str]:
    """Return exported names that only differ in what compilers and makers add: _name, name@8, name_2, nameW."""
    plain = re.escape(symbol.strip("_"))
    pattern = re.compile(rf"_*{plain}(?:@\d+|_?\d+|[AW])?")
    return [name for name in _exports(case, path) if name != symbol and pattern.fullmatch(name)][:_MOST_NAMED]


def _nameless(case: Case, error: PythonError) -> Finding:
    """Return the finding about ctypes.CDLL(None): the program handed on the `None` of a search in vain."""
    searched = [found[2] for frame in reversed(error.frames) for found in _SEARCH.finditer(frame.source or "")]
    line = case.python_line
    where = f"{name_of(line.file)}, line {line.line}" if line is not None else "the program"
    name = searched[0] if searched else ""
    return Finding(
        code=LIBRARY_CODE,
        title=f"the library {name} was not found" if name else f"{where} loads a library that was not found before",
        confidence=Confidence.CERTAIN if name else Confidence.LIKELY,
        subject=name or where,
        chain=case.chain_to(None, f"ctypes.util.find_library({name!r})" if name else ""),
        explanation=(
            "ctypes was given None for the name of a library, which is what ctypes.util.find_library returns when it "
            "finds none. On Windows it looks into the folders of PATH, for that very name and with .dll behind it; a "
            "name as on Linux, without lib and version, fits no file there."
        ),
        evidence=(Evidence(Source.PYTHON, f"{error.type} in ctypes, called at {where}"),),
        remedies=tuple(_sources(name)),
    )


def _sources(name: str) -> Iterator[Remedy]:
    if name:
        yield from install_remedies(providers_of(name))
        yield Remedy(f"put the folder that has {' or '.join(names_of(name)[:2])} on PATH before the program starts")
    else:
        yield Remedy("see for which library the program searches in that place, and install what brings it")
    yield Remedy(NO_DLL_SITES)


FOLDER_CODE = "no-such-file"
_QUOTED_PATH = re.compile(r": ('(?:[^'\\\n]|\\.){1,2000}'|\"(?:[^\"\\\n]|\\.){1,2000}\")\s*$")
_INVALID_PARAMETER = 87
_NOT_THERE = (2, 3)
"""ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND."""


def _bad_folder(case: Case, error: PythonError) -> Iterator[Finding]:
    """Yield the finding about a folder that os.add_dll_directory refuses: AddDllDirectory takes whole paths only."""
    found = _QUOTED_PATH.search(error.message)
    folder = found[1][1:-1].replace("\\\\", "\\") if found is not None else ""
    is_relative = bool(folder) and not ntpath.isabs(folder)
    if error.code not in (_INVALID_PARAMETER, *_NOT_THERE) or (error.code == _INVALID_PARAMETER and not is_relative):
        return
    line = case.python_line
    what = f"{folder!r}" if folder else "a folder"
    why = "is a relative path, and only whole paths are taken" if is_relative else "is not there"
    yield Finding(
        code=FOLDER_CODE,
        title=f"os.add_dll_directory was given {what}, which {why}",
        confidence=Confidence.CERTAIN,
        subject=folder or "os.add_dll_directory",
        chain=case.chain_to(None, folder),
        explanation=f"{f'{line.file}, line {line.line},' if line is not None else 'The program'} adds a folder to the "
        f"search for DLLs, and Windows refuses it (error {error.code}): it {why}. No DLL was asked for yet.",
        evidence=(Evidence(Source.PYTHON, error.message),),
        remedies=(
            Remedy(f"make it a whole path: os.add_dll_directory(os.path.abspath({folder!r}))") if is_relative
            else Remedy(
                f"install what brings {what}, or correct the setting that it comes from: a variable of the environment "
                "(CUDA_PATH, JAVA_HOME) may name a version that is gone"
            ),
        ),
    )  # fmt: skip


def _denied(case: Case) -> Iterator[Finding]:
    """Yield the library that the program itself reports as missing, where no load failed that would tell more."""
    if any(one.succeeded is False for one in case.run.requests):
        return
    for error in case.run.errors:
        for line in ends_of(error.message).splitlines():
            if not _DENIES.search(line):
                continue
            known = [found[1] for found in _NAMED.finditer(line) if not _NO_NAMES.fullmatch(found[1])]
            words = _WORD.findall(line) if _LIBRARY.search(line) else []
            name = next((one for one in (*known, *words) if providers_of(one)), next(iter(known), None))
            if name is None:
                name = next((library for pattern, library in _BY_WORDS if pattern.search(line)), None)
            if name is None and error.frames:
                parts = re.split(r"[/\\]", error.frames[-1].file.lower().removesuffix(".py"))
                name = next((_BY_PACKAGE[part] for part in parts[-2:] if part in _BY_PACKAGE), None)
            if name is not None and "Exception" in error.bases:
                yield _reported(case, error, name)
                return


def _reported(case: Case, error: PythonError, name: str) -> Finding:
    providers = providers_of(name)
    is_known = bool(providers) or name.lower().endswith(".dll")
    return Finding(
        code=LIBRARY_CODE,
        title=f"the program could not find {name}, or could not load it",
        confidence=Confidence.LIKELY if is_known else Confidence.POSSIBLE,
        subject=name,
        chain=case.chain_to(None, name),
        explanation=(
            f"{error.type} says so. The program looked for it by itself, mostly in the folders of PATH "
            "(ctypes.util.find_library): where it looks, its documentation says."
        ),
        evidence=(Evidence(Source.PYTHON, f"{error.type} names {name}"),),
        remedies=(
            *_sources(name),
            Remedy("if the file is there, ask what it lacks: dlltracer why, with its path"),
        ),
    )
