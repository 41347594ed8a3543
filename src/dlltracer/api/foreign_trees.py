"""Resolves the load of a Windows or macOS file, on that system or on any other.

Apart from `trees`, so that `deps` of an ELF file need not wait for the import of these resolvers.
"""

from __future__ import annotations

import ntpath
import platform
import posixpath
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from ..host.copies import read_added_folders
from ..host.filesystem import HostFilesystem, MacosFiles, Place, WindowsFiles, locate
from ..host.machine import is_macos, this_system
from ..model.events import Probe
from ..model.failure import System
from ..model.loader_context import STANDARD_SEARCH, MacosContext, WindowsContext, context_for_wheel
from ..model.macho import CPU_ARM64, CPU_X86_64, MH_EXECUTE, MachoFile, MachoImage
from ..model.pe import MACHINE_I386, PeImage
from ..model.tree import Binding, LoadTree, MissingSymbol
from ..resolve.macos import find_missing_macho_symbols, resolve_macos
from ..resolve.windows import find_missing_imports, resolve_windows

_PYTHON_DLL = re.compile(r"python(\d)(\d+)(t?)(?:_d)?\.dll", re.IGNORECASE)
_USUAL_VERSION = (3, 11)
_DRIVE = "Z:"
"""Stands for the root of a system that has no drives, as in Wine."""


def windows_tree(
    place: Place, image: PeImage, root: str | None, search: Sequence[str], python: str | None = None
) -> LoadTree:
    """Return what `trees.load_tree` does, for a PE file that has been read; arguments as there."""
    own = read_added_folders(place.path)
    notes = tuple(f"the package adds {folder} when it is imported (delvewheel)" for folder in own)
    tree = _tree(place, image, root, (*search, *own), python)
    missing = find_missing_imports(tree.bindings, tree.images)
    tree = replace(tree, symbols=tuple(item for item in missing if isinstance(item, MissingSymbol)))
    notes += tuple(
        f"{item.exporter} forwards {item.symbol.name or item.symbol.ordinal} to {item.target}, which is not there"
        for item in missing
        if not isinstance(item, MissingSymbol)
    )
    return replace(tree, notes=(*tree.notes, *notes))


def _tree(
    place: Place, image: PeImage, root: str | None, search: Sequence[str], python: str | None
) -> LoadTree:
    if this_system() is System.WINDOWS and root is None:
        from ..host.windows import read_windows_context

        own = read_windows_context(added_folders=tuple(search))
        if python is not None:
            own = replace(own, application_folder=ntpath.dirname(ntpath.abspath(python)), loaded=())
        context = own if own.machine == image.machine else for_machine(own, image.machine, python_of(image))
        if not image.is_dll:  # a program: its own folder is the one searched first
            context = replace(context, application_folder=ntpath.dirname(place.path), loaded=(), flags=STANDARD_SEARCH)
        tree = resolve_windows(place.path, context, WindowsFiles(symbols=True, resources=True))
        if context.machine == own.machine:
            return tree
        folder = context.application_folder
        return replace(tree, notes=(*tree.notes, f"{folder} stands for the folder of a python.exe of that machine"))
    drive = _DRIVE if root is None else "C:"
    files = WindowsFiles({drive: root or "/"}, symbols=True, resources=True)
    added = tuple(_windows_path(locate(folder, root), drive) for folder in search)
    context = context_for_wheel(image.machine, python_of(image), added_folders=added)
    if root is not None and files.local_path("C:\\Windows\\System32\\kernel32.dll") is not None:
        context = replace(context, has_system_files=True)
        is_64_bit = files.local_path("C:\\Windows\\SysWOW64\\kernel32.dll") is not None
        if image.machine == MACHINE_I386 and is_64_bit:
            context = replace(context, system_folder="C:\\Windows\\SysWOW64")
    tree = resolve_windows(_windows_path(place, drive), context, files)
    return tree if root is not None else _with_local_paths(tree, context)


def for_machine(context: WindowsContext, machine: int, version: tuple[int, int]) -> WindowsContext:
    """Return the context of a Python of that version for another machine, on the Windows of `context`.

    What our own process has loaded, and what lies beside our python.exe, is nothing to it. A 32-bit process finds its
    system files in SysWOW64 ("File System Redirector", MS Learn).
    """
    python = context_for_wheel(machine, version)
    system = ntpath.join(context.windows_folder, "SysWOW64") if machine == MACHINE_I386 else context.system_folder
    return replace(
        context, machine=machine, system_folder=system, application_folder=python.application_folder,
        provided=python.provided, loaded=(), redirection=None,
    )  # fmt: skip


def python_of(image: PeImage) -> tuple[int, int]:
    """The version of Python that an extension module is for, by the DLL it imports; a usual one if it does not say."""
    for imported in image.imports:
        if match := _PYTHON_DLL.fullmatch(imported.library):
            return int(match[1]), int(match[2])
    return _USUAL_VERSION


def _windows_path(place: Place, drive: str) -> str:
    return ntpath.join(f"{drive}\\", *(place.inside or "").strip("/").split("/"))


def _with_local_paths(tree: LoadTree, context: WindowsContext) -> LoadTree:
    """The tree with the paths of this system instead of those that Windows would see."""
    return LoadTree(
        _local(tree.top),
        {_local(path): image for path, image in tree.images.items()},
        tuple(_local_binding(binding) for binding in tree.bindings),
        (*tree.notes, f"Windows itself is not here: {context.application_folder} stands for the folder of python.exe"),
    )


def _local_binding(binding: Binding) -> Binding:
    return replace(
        binding,
        requested_by=_local(binding.requested_by),
        path=None if binding.path is None else _local(binding.path),
        probes=tuple(_local_probe(probe) for probe in binding.probes),
    )


def _local_probe(probe: Probe) -> Probe:
    return replace(probe, path=_local(probe.path), origin=None if probe.origin is None else _local(probe.origin))


def _local(path: str) -> str:
    return path[len(_DRIVE) :].replace("\\", "/") if path.startswith(f"{_DRIVE}\\") else path


_OWN_CPUS = {"arm64": CPU_ARM64, "aarch64": CPU_ARM64, "x86_64": CPU_X86_64}


def macos_tree(
    place: Place, root: str | None, search: Sequence[str], python: str | None = None
) -> LoadTree:
    """Return what `trees.load_tree` does, for a Mach-O file; arguments as there. Raises `BinaryFormatError`, `OSError`.

    Of a universal file the image for one processor is followed; the notes name it.
    """
    files = MacosFiles(root, symbols=True)
    path = place.path if root is None else place.inside or ""
    file = files.read_image(path)
    image = _choose(file)
    context = MacosContext(
        cpu=image.cpu,
        subtype=image.subtype,
        program=_own_program(image, root, python),
        library_path=tuple(_inside(folder, root) for folder in search),
        current_folder=posixpath.dirname(path),
        notes=tuple(_notes(file, image, root)),
    )
    tree = resolve_macos(path, context, files)
    images = {path: found for path, found in tree.images.items() if isinstance(found, MachoImage)}
    return replace(tree, symbols=find_missing_macho_symbols(images, tree.bindings))


def _choose(file: MachoFile) -> MachoImage:
    """Return the image for the processor of this machine; if there is none, the first."""
    own = _OWN_CPUS.get(platform.machine().lower())
    return next((image for image in file.images if image.cpu == own), file.images[0])


def _own_program(image: MachoImage, root: str | None, python: str | None) -> str | None:
    """Return the program that would load it: the Python, on a Mac, for what is no program itself."""
    if not is_macos() or root is not None or image.kind == MH_EXECUTE:
        return None
    return HostFilesystem().real_path(python or sys.executable)


def _inside(folder: str, root: str | None) -> str:
    place = locate(folder, root)
    return place.path if root is None else place.inside or place.path


def _notes(file: MachoFile, image: MachoImage, root: str | None) -> list[str]:
    notes = []
    if len(file.images) > 1:
        others = ", ".join(other.architecture for other in file.images if other is not image)
        notes.append(f"the file has several images: this is the one for {image.architecture}, not {others}")
    if not is_macos() and root is None:
        notes.append("macOS is not here: what its own libraries are and have is not checked")
    return notes
