"""Modules that the import system did not find: never built, hidden, unreadable, misspelt, or not installed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ...knowledge import read_table
from ...model.environment import HiddenModule, Hiding, ImportChoice, ModuleTraces, PackageManager, normalized_name
from ...model.failure import ProcessFacts, PythonError
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ..case import Case, describe_owner, module_that_lacks
from ..package_tools import is_package_name, package_tool
from ..remedies import PIP, operand, python_words, reinstall, without_variable
from .integrity import CODE as LOST_CODE
from .integrity import describe_requirements, has_lost_module, install_requirements
from .python_module import this_python
from .wrong_file import LINK_CODE

CODE = "no-such-module"
NOT_BUILT_CODE = "stdlib-not-built"
UNREADABLE_CODE = "unreadable-folder"
ARCHIVE_CODE = "module-in-archive"
HIDDEN_CODE = "module-not-on-path"
SHADOWED_CODE = "package-shadowed"
CHOSEN_CODE = "chosen-by-variable"

_PYENV = re.compile(r"/\.?pyenv/versions/([^/]+)")
_OF_DISTRIBUTION = ("/usr", "/")
"""Prefixes of the Python that a distribution of Linux installs."""
_WHY_HIDDEN = {
    Hiding.CURRENT_FOLDER: (
        "the current folder is not on sys.path: a script has its own folder there instead, and -P, -I and "
        "PYTHONSAFEPATH keep it out",
        "start it as a module from that folder (python -m), without -P, -I and PYTHONSAFEPATH, or add the folder",
    ),
    Hiding.SOURCE_FOLDER: (
        "it is the source folder of a project that is not installed",
        "install the project of the current folder for this Python",
    ),
    Hiding.SITE: (
        "this Python was told to leave its own packages out (-S, -I or a ._pth file)",
        "start Python without -S and -I",
    ),
    Hiding.BASE: (
        "it is installed for the Python that the virtual environment was made from, and the environment has its own "
        "packages",
        "install it into the virtual environment, or make that with --system-site-packages",
    ),
    Hiding.USER: (
        "it is installed for the user, and this Python leaves that folder out (-s, -I, PYTHONNOUSERSITE, or a virtual "
        "environment)",
        "start Python without -s, -I and PYTHONNOUSERSITE, or install it into the environment",
    ),
    Hiding.OTHER_VERSION: (
        "it is installed for another version of Python: the environment's own Python was replaced by this one, as an "
        "upgrade of the system does",
        "make the environment again with this Python, and install its packages into it",
    ),
    Hiding.ENVIRONMENT: (
        "it is installed in another environment than the one of this Python",
        "start the Python of that environment",
    ),
}
_NO_INSTALLATION = (Hiding.CURRENT_FOLDER, Hiding.SOURCE_FOLDER)
"""A folder of the same name may lie there by chance."""


def check(case: Case) -> Iterator[Finding]:
    """Yield why no module of that name was found, or why the one that was found is another one."""
    namesake = _namesake(case)
    if namesake is not None:
        yield namesake
        return
    error, name = case.error, case.missing_module
    if error is None or name is None:
        return
    if case.foreign_modules or has_lost_module(case):
        return
    is_import_name = "ModuleNotFoundError" not in error.bases  # what is not there may be no module at all
    # A program may raise the same exception in words of its own.
    if not is_import_name and not error.message.startswith(f"No module named {name!r}"):
        return
    traces = case.module_traces or ModuleTraces()
    found = [
        *_shadowed(name, case, traces),
        *(_of_another_system(name, case, traces) or _not_built(name, case, traces)),
        *_in_archive(name, case, traces),
        *(_hidden(name, case, traces) if not is_import_name else ()),
        *_broken_link(name, case, traces),
        *_unreadable(name, case, traces),
    ]
    if found:
        yield from found
        return
    nowhere = [] if is_import_name else [_nowhere(error, case, traces)]
    if case.choice is not None:
        others = [] if traces.parent is not None else [remedy for one in nowhere for remedy in one.remedies]
        yield _chosen(name, case.choice, case, others)
    yield from nowhere


def _chosen(name: str, choice: ImportChoice, case: Case, others: list[Remedy]) -> Finding:
    """Return the finding about a variable of the environment that leads to the import of a module that is not there.

    Arguments: `others`, how to install it; empty where it would be in a package that is installed.
    """
    variable = choice.name if choice.value is None else f"{choice.name}={choice.value}"
    how = f"where {choice.condition}" if choice.condition else "by a name that it gets"
    package, _, last = name.rpartition(".")
    there = f" {package} is installed, and has no {last}." if package and not others else ""
    return Finding(
        code=CHOSEN_CODE,
        title=f"{variable} leads to the import of {name}, which is not there",
        confidence=Confidence.LIKELY,
        subject=name,
        chain=case.chain_to(None, f"import {name}"),
        explanation=f"{choice.place}, imports it {how}. {choice.reader}, reads {choice.name}.{there}",
        evidence=(_says(case), Evidence(Source.FILES, f"{choice.place}; {choice.reader}")),
        remedies=(
            Remedy(f"start the program without {choice.name}", without_variable(case, choice.name)),
            *(others or [Remedy(f"or install a version of the package that has {name}")]),
        ),
    )


_INSTALLED = re.compile(r"[/\\\\](?:lib(?:64)?[/\\\\]python3[\d.]*t?|Lib|(?:site|dist)-packages)[/\\\\]")
"""Folders of Python's own modules and of installed packages."""


def _namesake(case: Case) -> Finding | None:
    """Return the finding about a file or folder of the program's that stands for a module of Python or of a package."""
    found = case.namesake
    if found is None or case.dl_error is not None:
        return None
    module = posixpath.basename(found.path).partition(".")[0]
    words = next(
        (one.message for one in case.run.errors if (module_that_lacks((one,)) or "").partition(".")[0] == module), ""
    )
    says = Evidence(Source.PYTHON, words)
    owners = case.owners.get(f"{found.path}/__init__.py", ())
    if found.is_plain_folder and owners:
        return Finding(
            code=LOST_CODE,
            title=f"{found.path}/__init__.py was installed by {describe_owner(owners[0])}, and is gone",
            confidence=Confidence.CERTAIN,
            subject=f"{found.path}/__init__.py",
            chain=case.chain_to(None, found.path),
            explanation=f"Without it Python takes the folder for an empty package, so {module} has nothing in it. "
            "Something took files away after they were installed: an interrupted installation or removal.",
            evidence=(says, Evidence(Source.FILES, f"there is no {found.path}/__init__.py")),
            remedies=tuple(reinstall(case, f"{found.path}/__init__.py")),
        )
    if found.is_plain_folder:
        return Finding(
            code=SHADOWED_CODE,
            title=f"{found.path} is a folder without __init__.py, and Python takes it for the package {module}",
            confidence=Confidence.LIKELY,
            subject=found.path,
            chain=case.chain_to(None, found.path),
            explanation=f"No folder of sys.path has a module {module}. Python then takes a plain folder of that name "
            "for a package (PEP 420), so that the import itself works, and all names are missing from it.",
            evidence=(says, Evidence(Source.FILES, f"there is no {found.path}/__init__.py")),
            remedies=(Remedy(
                f"give the folder another name or start from another folder, and see that {module} is installed for "
                f"{this_python(case)}"
            ),),
        )  # fmt: skip
    if found.behind is None or not _INSTALLED.search(found.behind) or _INSTALLED.search(found.path):
        return None
    return Finding(
        code=SHADOWED_CODE,
        title=f"{found.path} has the name of another module, {module}, and comes first",
        confidence=Confidence.LIKELY,
        subject=found.path,
        chain=case.chain_to(None, found.path),
        explanation=f"What imports {module} gets {found.path}, and not {found.behind}, which comes later on sys.path.",
        evidence=(says, Evidence(Source.FILES, f"{found.behind} is there")),
        remedies=(Remedy(f"give {posixpath.basename(found.path)} another name, or start from another folder"),),
    )


def _executable(case: Case) -> str:
    return case.run.process.executable if case.run.process is not None else "this Python"


def _says(case: Case) -> Evidence:
    return Evidence(Source.PYTHON, case.error.message if case.error is not None else "")


def _of_another_system(name: str, case: Case, traces: ModuleTraces) -> list[Finding]:
    """Return the finding about a module of the standard library that Python has on other systems only.

    Source: "Availability" in the Python documentation of each module.
    """
    table = read_table("modules")
    only_on: dict[str, dict[str, str]] = table["only_on"]
    process = case.run.process
    if name in table["removed"] and process is not None and _is_at_least(process, table["removed"][name]):
        return []
    own = "windows" if case.is_windows else "unix"
    system, stand_in = next(((one, names[name]) for one, names in only_on.items() if name in names), (own, ""))
    if system == own or traces.hidden:
        return []
    here, there = ("Windows", "Unix (Linux, macOS)") if case.is_windows else ("this system", "Windows")
    or_there = ", or run the program in WSL" if case.is_windows else ""
    remedies: tuple[Remedy, ...] = (Remedy(f"use a version of the program that supports {here}{or_there}"),)
    if stand_in:
        remedies = (Remedy(f"install {stand_in}, which brings one", (*PIP, "install", stand_in)), *remedies)
    return [Finding(
        code=CODE,
        title=f"there is no module {name} on {here}: Python has it on {there} only",
        confidence=Confidence.CERTAIN,
        subject=name,
        chain=case.chain_to(None, f"import {name}"),
        explanation=f"{name} is a part of the standard library that belongs to {there}: nothing is missing from this "
        f"Python. What imports it was not written for {here}, or takes the wrong way on it.",
        evidence=(_says(case),),
        remedies=remedies,
    )]  # fmt: skip


def _not_built(name: str, case: Case, traces: ModuleTraces) -> Iterator[Finding]:
    """Yield the finding about a module of the standard library that was not built, for want of a library."""
    table = read_table("modules")
    built: dict[str, str] | None = table["built_in"].get(name)
    packaged: dict[str, str] | None = table["of_distribution"].get(name)
    process = case.run.process
    if (built is None and packaged is None) or process is None or traces.hidden:
        return
    if name in table["removed"] and _is_at_least(process, table["removed"][name]):
        return
    of_distribution = process.base_prefix in _OF_DISTRIBUTION
    if built is None and not of_distribution:
        return
    library = built["library"] if built is not None else name
    is_packaged = of_distribution and packaged is not None
    if case.is_windows:
        yield _left_out(name, library, case)
        return
    title = (
        f"{name} of the standard library is not installed: this system has it in a package of its own"
        if is_packaged
        else f"this Python was built without {library}: it has no {name}"
    )
    home = process.variable("PYTHONHOME")
    text = (
        f"{name} belongs to the standard library, so pip cannot bring it. No folder of sys.path of "
        f"{_executable(case)} has it"
    )
    text += "." if is_packaged else f": its build leaves it out when the headers of {library} are not there."
    if home:
        text += f" PYTHONHOME is {home}: that folder is taken for the standard library."
    yield Finding(
        code=NOT_BUILT_CODE,
        title=title,
        confidence=Confidence.LIKELY if home else Confidence.CERTAIN,
        subject=name,
        chain=case.chain_to(None, f"import {name}"),
        explanation=text,
        evidence=(_says(case), Evidence(Source.FILES, f"no folder of sys.path has a file of {name}")),
        remedies=tuple(_build_remedies(name, built, packaged if of_distribution else None, case, process)),
    )


def _left_out(name: str, library: str, case: Case) -> Finding:
    """Return the finding about a module that the installers of Windows' Python have, and this Python has not.

    The embeddable package has no tkinter ("The embeddable package", Python documentation, Using Python on Windows).
    """
    is_tk = name in ("_tkinter", "tkinter")
    return Finding(
        code=NOT_BUILT_CODE,
        title=f"{name} of the standard library is not in this Python: its file, {name}.pyd, is missing",
        confidence=Confidence.CERTAIN,
        subject=name,
        chain=case.chain_to(None, f"import {name}"),
        explanation=f"{name} ({library}) belongs to Python itself, so pip cannot bring it. No folder of sys.path of "
        f"{_executable(case)} has it: "
        + ("the embeddable package of python.org and some bundles have no tkinter." if is_tk
           else "the installation is not whole, or a bundle left it out."),
        evidence=(_says(case), Evidence(Source.FILES, f"no folder of sys.path has a file of {name}")),
        remedies=(
            Remedy("run the installer of Python again (Modify: tcl/tk and IDLE), not the embeddable one") if is_tk
            else Remedy("run the installer of Python again (Repair); a bundle has to collect the module"),
        ),
    )  # fmt: skip


def _is_at_least(process: ProcessFacts, version: str) -> bool:
    return process.version[:2] >= tuple(int(part) for part in version.split("."))


def _build_remedies(
    name: str, built: dict[str, str] | None, packaged: dict[str, str] | None, case: Case, process: ProcessFacts
) -> Iterator[Remedy]:
    tool = package_tool(case.distribution)
    kind = tool.kind.value if tool is not None and tool.kind is not None else ""
    own = packaged.get(kind) if packaged is not None else None
    if tool is not None and own is not None:
        yield Remedy(f"install {own} of the system", (*tool.install, own))
        return
    version = ".".join(str(part) for part in process.version[:2])
    if process.base_prefix in _OF_DISTRIBUTION:
        yield Remedy(f"install the packages of Python {version} of the system again")
        return
    header = built.get(kind) if built is not None else None
    if tool is not None and header is not None:
        yield Remedy(f"install the headers: {header}", (*tool.install, header))
    elif built is not None:
        yield Remedy(f"install the headers of {built['library']} (a package named -dev or -devel)")
    pyenv = _PYENV.search(process.base_prefix)
    if pyenv:
        yield Remedy("then build that Python again", ("pyenv", "install", "--force", pyenv[1]))
    else:
        yield Remedy(f"then build Python {version} again, or take one that has {name}")


def _broken_link(name: str, case: Case, traces: ModuleTraces) -> Iterator[Finding]:
    for path in traces.broken_links[:1]:
        yield Finding(
            code=LINK_CODE,
            title=f"{path} is a symbolic link that leads to no file",
            confidence=Confidence.CERTAIN,
            subject=path,
            chain=case.chain_to(None, path),
            explanation=f"Python looks for files. It passed over that link{case.owner_of(path)} and found no {name}.",
            evidence=(_says(case), Evidence(Source.FILES, f"{path} leads to no file")),
            remedies=(
                Remedy("install or build again what it leads to"),
                *reinstall(case, path),
            ),
        )


def _unreadable(name: str, case: Case, traces: ModuleTraces) -> Iterator[Finding]:
    if not traces.unreadable:
        return
    folder = traces.unreadable[0]
    yield Finding(
        code=UNREADABLE_CODE,
        title=f"{folder} may not be read, and {name} may be in it",
        confidence=Confidence.LIKELY,
        subject=folder,
        chain=case.chain_to(None, f"import {name}"),
        explanation=(
            f"{folder} is on sys.path, or a package on it, and the user who runs Python has no permission to list it. "
            f"Python passes over such a folder without a word and says that there is no {name}."
        ),
        evidence=(_says(case), Evidence(Source.SYSTEM, f"permission denied: {', '.join(traces.unreadable[:3])}")),
        remedies=(
            Remedy(
                "let the user who runs Python read the folder and what is in it",
                ("chmod", "-R", "a+rX", operand(folder)),
            ),
        ),
    )


def _in_archive(name: str, case: Case, traces: ModuleTraces) -> Iterator[Finding]:
    if not traces.zipped:
        return
    found = traces.zipped[0]
    yield Finding(
        code=ARCHIVE_CODE,
        title=f"{name} is inside a zip archive, and Python loads no extension module from one",
        confidence=Confidence.CERTAIN,
        subject=found,
        chain=case.chain_to(None, found),
        explanation=(
            f"{found} is there. The system's loader takes files only, so that zipimport passes over extension modules "
            "without a word, and Python says that there is no such module."
        ),
        evidence=(_says(case), Evidence(Source.FILES, f"{found} is there")),
        remedies=(Remedy("unpack the archive into a folder, and put that on sys.path instead of the archive"),),
    )


def _shadowed(name: str, case: Case, traces: ModuleTraces) -> Iterator[Finding]:
    """Yield the finding about a package of the same name that comes first and lacks the module."""
    parent, top = traces.parent, name.partition(".")[0]
    error = case.error
    if traces.behind is None or parent is None or error is None or "is not a package" in error.message:
        return
    yield Finding(
        code=SHADOWED_CODE,
        title=f"{parent} comes first on sys.path and has no {name.rpartition('.')[2]}",
        confidence=Confidence.CERTAIN if "ModuleNotFoundError" in error.bases else Confidence.LIKELY,
        subject=parent,
        chain=case.chain_to(None, parent),
        explanation=(
            f"Several folders of sys.path have a package {top}, and Python takes the first. {traces.behind} is in a "
            "later one, which it does not look into."
        ),
        evidence=(_says(case), Evidence(Source.FILES, f"{traces.behind} is there")),
        remedies=(Remedy(
            f"give {parent} another name if it is yours, or take its folder off sys.path: start from another folder, "
            "or without that part of PYTHONPATH"
        ),),
    )  # fmt: skip


def _hidden(name: str, case: Case, traces: ModuleTraces) -> Iterator[Finding]:
    for hidden in traces.hidden[:1]:
        why, remedy = _WHY_HIDDEN[hidden.why]
        yield Finding(
            code=HIDDEN_CODE,
            title=f"{name} is in {hidden.folder}, which is not on sys.path of this Python",
            confidence=Confidence.LIKELY if hidden.why in _NO_INSTALLATION else Confidence.CERTAIN,
            subject=hidden.path,
            chain=case.chain_to(None, hidden.path),
            explanation=f"{hidden.path} is there, but {why}. {_executable(case)} does not look into that folder.",
            evidence=(_says(case), Evidence(Source.FILES, f"{hidden.path} is there")),
            remedies=(Remedy(remedy, _command_for(hidden, case)),),
        )


def _command_for(hidden: HiddenModule, case: Case) -> tuple[str, ...]:
    if hidden.why is Hiding.SOURCE_FOLDER:
        return (*PIP, "install", "-e", ".")
    if hidden.why in (Hiding.BASE, Hiding.USER) and is_package_name(hidden.package, PackageManager.PIP):
        return (*PIP, "install", hidden.package)
    if hidden.why is Hiding.ENVIRONMENT and not case.is_windows:
        python = hidden.folder.rpartition("/lib")[0] + "/bin/python"
        return (python, *python_words(case)[1:])
    return ()


def _nowhere(error: PythonError, case: Case, traces: ModuleTraces) -> Finding:
    name = error.name or ""
    top = name.partition(".")[0]
    table = read_table("modules")
    removed = table["removed"].get(top)
    process = case.run.process
    gone = removed is not None and process is not None and _is_at_least(process, removed)
    is_shadowed = "is not a package" in error.message
    if is_shadowed:
        file = traces.shadow or f"another {top}.py"
        why = f"{top} is a single file where a package was expected: {file} comes first on sys.path."
    elif gone:
        why = f"{top} was removed from the standard library in Python {removed}."
    elif traces.other_case:
        why = f"There is {traces.other_case[0]}: names of modules are case-sensitive."
    elif case.unmet:
        why = describe_requirements(case)
    elif traces.parent is not None:
        why = f"The package {name.rpartition('.')[0]} is there ({traces.parent}), and has no such module."
        if traces.near:
            why += f" Alike, and there: {', '.join(traces.near)}."
    elif brought := module_of_package(top):
        why = f"{top} is the name of a package: the module that it brings is {brought}."
    else:
        why = f"No folder of sys.path of {_executable(case)} has it: it is not installed there, or for another Python."
        if traces.near:
            why += f" Alike, and there: {', '.join(traces.near)}."
    free = " No loader had a part in this." if case.is_proven_free_of_loaders else ""
    return Finding(
        code=CODE,
        title=f"{top} was removed from Python {removed}" if gone else f"there is no module {name}",
        confidence=Confidence.CERTAIN,
        subject=name,
        chain=case.chain_to(None),
        explanation=f"{why}{free}",
        evidence=(_says(case), *(Evidence(Source.PACKAGES, describe_requirements(case)) for _ in case.unmet[:1])),
        remedies=tuple(_remedies(name, top, gone, is_shadowed, case, traces)),
    )


def _remedies(
    name: str, top: str, gone: bool, is_shadowed: bool, case: Case, traces: ModuleTraces
) -> Iterator[Remedy]:
    table = read_table("modules")
    if gone:
        yield Remedy("install a version of the program that does without it, or use an older Python")
    elif is_shadowed:
        file = posixpath.basename(traces.shadow or f"{top}.py")
        yield Remedy(f"give {file} another name, or start from another folder")
    elif traces.other_case:
        yield Remedy(f"write it as it is: import {traces.other_case[0]}")
    elif case.unmet:
        yield install_requirements(case)
    else:
        if brought := module_of_package(top):
            yield Remedy(f"write import {brought}")
        if traces.near:
            yield Remedy(f"see whether {traces.near[0]} is meant")
        module, package = _package_of(brought or name, table["packages"], case)
        if traces.parent is not None:
            owner = next((owner for found in case.owners.values() for owner in found), None)
            known = owner.package if owner is not None else package or top
            yield Remedy(
                f"install {known} again, for {this_python(case)}, in a version that has it",
                (*PIP, "install", "--force-reinstall", "--no-deps", known)
                if package is not None or owner is not None else (),
            )  # fmt: skip
        elif package is None:
            yield Remedy(
                f"find out which package brings {top}, which may have another name, and install it for "
                f"{this_python(case)} ({_executable(case)})"
            )
        else:
            yield from _installation(package, module, case, traces)


def _installation(package: str, module: str, case: Case, traces: ModuleTraces) -> Iterator[Remedy]:
    """Yield how this Python installs a package: a Python of uv has no pip, and pip refuses the system's (PEP 668)."""
    executable = _executable(case)
    if traces.is_externally_managed:
        yield Remedy(
            f"install {package} in a virtual environment: pip does not install into the Python of the system",
            (executable, "-m", "venv", ".venv"),
        )
        yield Remedy("then", (".venv/bin/python", "-m", "pip", "install", package))
    elif traces.is_of_uv:
        yield Remedy(
            f"install {package}, which brings {module}, for this Python",
            ("uv", "pip", "install", "--python", executable, package),
        )
    else:
        if traces.has_pip is False:
            yield Remedy("this Python has no pip: bring it first", (executable, "-m", "ensurepip"))
        yield Remedy(f"install {package}, which brings {module}, for this Python", (*PIP, "install", package))


def package_names(module: str) -> frozenset[str]:
    """Return the normalized names of packages that a module is likely to be of."""
    table = read_table("modules")["packages"]
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return frozenset(normalized_name(name) for name in (parts[0], *(table[one] for one in names if one in table)))


def module_of_package(top: str) -> str:
    """Return the module of a package whose name was used as a module's: PIL for pillow; empty if there is none."""
    table = read_table("modules")["packages"]
    if top in table:
        return ""
    return next((module for module, package in table.items() if normalized_name(package) == normalized_name(top)), "")


def _package_of(name: str, packages: dict[str, str], case: Case) -> tuple[str, str | None]:
    """Return the longest name with a known package (google.protobuf before google), and the package."""
    line = case.python_line
    asked = f"{case.what} {line.source if line is not None else ''}"
    below = [known for known in packages if known.startswith(f"{name}.") and known in asked]
    if below:
        longest = max(below, key=len)
        return longest, packages[longest]
    parts = name.split(".")
    above = [known for length in range(len(parts), 0, -1) if (known := ".".join(parts[:length])) in packages]
    return (above[0], packages[above[0]]) if above else (parts[0], None)
