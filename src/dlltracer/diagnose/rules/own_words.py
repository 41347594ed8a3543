"""Runtimes that end the process with a message of their own: OpenMP, MKL, Qt.

Sources of the words: openmp/runtime/src/i18n/en_US.txt of LLVM ("LibraryIsAlreadyLoaded"...); oneMKL, "Linking Errors"
of Intel's developer guide; qguiapplication.cpp of Qt (init_platform).
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ...model.environment import without_hash
from ...model.events import LoadEvent
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ..case import Case, compared_name, describe_copies
from ..program_output import OutputKind, OutputMessage
from ..providers import find_providers, install_remedies
from ..remedies import operand

OPENMP_CODE = "two-openmp-runtimes"
MKL_CODE = "missing-at-runtime"
QT_CODE = "qt-platform-plugin"

_OPENMP = re.compile(r"OMP: Error #15: Initializing (\S{1,200}), but found (\S{1,200}) already initialized")
_OPENMP_RUNTIME = re.compile(r"(?:lib)?(?:iomp5(?:md)?|omp(?:140\.\w+)?|gomp|gomp-1)(?:\.so[\d.]*|\.dll|\.dylib)")
_MKL = re.compile(
    r"MKL FATAL ERROR: [Cc]annot load (?!symbol )(?:neither )?(\S{1,200}?)(?: (?:or|nor) (\S{1,200}?))?\.?\s*$"
)
_MKL_ITSELF = re.compile(r"(?:lib)?mkl_(?:rt|core)\b")
_QT = re.compile(r"[Cc]ould not (find|load) the Qt platform plugin \"([\w-]{1,50})\" in \"([^\"\n]{0,500})\"")
_NO_QT = "no Qt platform plugin could be initialized"


def check(case: Case) -> Iterator[Finding]:
    """Yield what the last message of a runtime stands for that ended the process."""
    message = fatal_message(case)
    if message is not None:
        yield message.build(case)


@dataclass(frozen=True)
class FatalMessage:
    """The message of a runtime: its words, as the pattern took them apart, and the line."""

    kind: str
    found: re.Match[str]
    line: str

    def build(self, case: Case) -> Finding:
        """Return the finding about it."""
        return {OPENMP_CODE: _two_runtimes, MKL_CODE: _mkl, QT_CODE: _qt}[self.kind](case, self)


def fatal_message(case: Case) -> FatalMessage | None:
    """Return the message with which a runtime ended the process; `None` for a process that ended otherwise."""
    if case.run.errors or case.run.stopped is not None or not case.run.status or case.run.completed:
        return None
    lines = [line for message in case.messages if message.kind is OutputKind.ABORT for line in message.lines]
    for line in reversed(lines):
        for kind, pattern in ((OPENMP_CODE, _OPENMP), (MKL_CODE, _MKL), (QT_CODE, _QT)):
            found = pattern.search(line)
            # Qt may go on without one of several plug-ins. Only its last sentence says that there is none.
            if found is not None and (kind != QT_CODE or any(_NO_QT in one for one in lines) or case.is_windows):
                return FatalMessage(kind, found, line)
    return None


def mkl_libraries(messages: Iterable[OutputMessage]) -> tuple[str, ...]:
    """Return the names of the libraries that MKL says it cannot load."""
    lines = (line for message in messages if message.kind is OutputKind.ABORT for line in message.lines)
    return tuple(name for line in lines if (found := _MKL.search(line)) for name in found.groups() if name)


def _two_runtimes(case: Case, message: FatalMessage) -> Finding:
    named = message.found.groups()
    names = {event.shown_path: compared_name(event.shown_path, case.system) for event in _loads(case)}
    images = {
        event.shown_path: _by_import(event) for event in _loads(case)
        if _OPENMP_RUNTIME.fullmatch(without_hash(names[event.shown_path]))
    }  # fmt: skip
    where = "; ".join(f"{path}{f', brought by {by}' if by else ''}" for path, by in images.items())
    began = compared_name(named[0], case.system)
    subject = next((path for path in reversed(images) if names[path] == began), named[0])
    return Finding(
        code=OPENMP_CODE,
        title=f"two OpenMP runtimes are in one process: {named[1]} was there when {named[0]} began",
        confidence=Confidence.CERTAIN,
        subject=subject,
        chain=case.chain_to(None, subject),
        explanation="Each package brought an OpenMP runtime of its own. Two in one process share processors and memory "
        f"without knowing of each other, so that one of them ends it.{f' The runtimes that came in: {where}.' if where else ''}",  # noqa: E501
        evidence=(Evidence(Source.PROGRAM, message.line),),
        remedies=(
            Remedy(
                "take the packages that bring them from one source, all by pip or all from one channel of conda, in a "
                "new environment: they then share a runtime"
            ),
            Remedy(
                "KMP_DUPLICATE_LIB_OK=TRUE, which the message offers, is no fix: its makers warn of crashes and of "
                "wrong results without a word"
            ),
        ),
    )


def _mkl(case: Case, message: FatalMessage) -> Finding:
    names = [name for name in message.found.groups() if name]
    name = names[0]
    keys = [compared_name(name, case.system) for name in names]
    copies = tuple(copy for key in keys for copy in case.copies.get(key, ()) if copy.unfit is None)
    is_conda = any("conda" in copy.where for copy in copies)
    loaded = (event.shown_path for event in _loads(case))
    subject = next((path for path in loaded if _MKL_ITSELF.match(compared_name(path, case.system))), "")
    remedies = list(install_remedies(find_providers(name, case.system, case.distribution)))
    if case.is_windows and is_conda and case.run.process is not None:
        activation = ("conda", "activate", case.run.process.prefix)
        remedies.insert(0, Remedy("activate the conda environment first", activation))
    elif copies and case.is_windows:
        remedies.insert(0, Remedy("let MKL find it, by PATH, before the program starts: put "
                                  f"{ntpath.dirname(copies[0].path)} in front of PATH"))  # fmt: skip
    remedies.append(Remedy("install numpy, mkl and what else uses MKL again, from one source and of one release"))
    return Finding(
        code=MKL_CODE,
        title=f"{name}, which Intel's MKL loads while it runs, could not be loaded",
        confidence=Confidence.CERTAIN,
        subject=name,
        chain=case.chain_to(None, subject, name),
        explanation=f"MKL picks a library for the processor at its first use, loads it by its bare name, and ends the "
        f"process if it does not get it: {' or '.join(names)}."
        + (f" There is {describe_copies(copies)}, which was not taken." if copies else "")
        + " Either its folder is not searched, or it is of another release than the rest of MKL.",
        evidence=(Evidence(Source.PROGRAM, message.line),),
        remedies=tuple(remedies),
    )


def _qt(case: Case, message: FatalMessage) -> Finding:
    how, plugin, folder = message.found.groups()
    process = case.run.process
    file = f"q{plugin}.dll" if case.is_windows else f"libq{plugin}.so"
    loaded = (event.shown_path for event in reversed(_loads(case)))
    seen = next((path for path in loaded if compared_name(path, case.system) == file), None)
    variables = [name for name in ("QT_PLUGIN_PATH", "QT_QPA_PLATFORM_PLUGIN_PATH")
                 if process is not None and process.variable(name)]  # fmt: skip
    finding = Finding(
        code=QT_CODE,
        title=f"Qt did not find its platform plug-in {plugin} ({file})",
        confidence=Confidence.CERTAIN,
        subject=seen or file,
        chain=case.chain_to(None, seen or file),
        explanation=f"Qt can show no window without it, and ends the process. It looked in "
        f"{folder or 'its own folders'} and in the folders of QT_PLUGIN_PATH.",
        evidence=(Evidence(Source.PROGRAM, message.line),),
        remedies=(),
    )
    remedies = [
        Remedy(f"start the program without {name} ({process.variable(name)}): plug-ins of another Qt do not fit")
        for name in variables if process is not None
    ]  # fmt: skip
    if how == "find":
        remedies.append(Remedy(
            "install the package of Qt (PyQt5, PyQt6, PySide2, PySide6) again, one of them only; a bundle has to have "
            "its folder plugins/platforms, too"
        ))  # fmt: skip
    else:
        finding = replace(
            finding,
            title=f"Qt found its platform plug-in {plugin} and could not load it",
            explanation="The plug-in is there. A library that it needs is missing, or another Qt was in the process "
            "before, whose libraries do not fit: packages that bring a Qt of their own (opencv-python, PyQt, PySide, "
            "Anaconda) do that.",
        )
        remedies.append(
            Remedy("see what the plug-in lacks", ("dlltracer", "why", operand(seen))) if seen is not None
            else Remedy("set QT_DEBUG_PLUGINS=1: Qt then names the file that it cannot load; ask dlltracer why of that")
        )  # fmt: skip
        remedies.append(Remedy("have one Qt only in the environment: opencv-python-headless in place of opencv-python"))
    return replace(finding, remedies=tuple(remedies))


def _loads(case: Case) -> tuple[LoadEvent, ...]:
    return case.run.recording.loads if case.run.recording is not None else ()


def _by_import(event: LoadEvent) -> str:
    return f"import {event.imports[0].partition('.')[0]}" if event.imports else ""
