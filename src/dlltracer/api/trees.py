"""Resolves the load of any file on any system."""

from __future__ import annotations

import ntpath
import os
from collections.abc import Iterable, Sequence

from ..binary.elf import read_elf, read_provided
from ..binary.elf_symbols import hash_names
from ..binary.reading import is_macho
from ..errors import BinaryFormatError, DlltracerError
from ..host.filesystem import HostFilesystem, Place, locate
from ..host.linux import read_linux_context
from ..model.elf import ET_EXEC, ElfImage
from ..model.light import replace
from ..model.loader_context import GlibcContext, MuslContext
from ..model.tree import BindingState, LoadTree
from ..resolve.linux import resolve_linux
from ..resolve.symbols import find_missing_symbols, find_missing_versions


class CannotResolve(DlltracerError, ValueError):
    """The question cannot be answered as asked; its text says why, and what to do."""


def load_tree(
    file: str, *, root: str | None = None, search: Sequence[str] = (), python: str | None = None
) -> LoadTree:
    """Return the load that `file` would cause: every image, every need, every place tried.

    Arguments:
        file: an ELF, PE or Mach-O file, of any machine.
        root: a folder that holds the system to look in (a mounted disk, an unpacked image, drive C: of a Windows);
            `None` for this machine.
        search: folders to look in first: as LD_LIBRARY_PATH has them, os.add_dll_directory, or
            DYLD_LIBRARY_PATH.
        python: the interpreter that would load it; `None` for this one. Without `root` only.

    Raises `BinaryFormatError` when it is no image, `OSError` when it cannot be read, `CannotResolve`.
    """
    place = locate(file, root)
    if place.inside is None:
        raise CannotResolve(f"{file} is not inside of {root}: with a root, name the file by its path in it")
    head = HostFilesystem().read_head(place.path, 8)
    if head[:2] == b"MZ":
        from ..binary.pe import read_pe
        from .foreign_trees import windows_tree

        return windows_tree(place, read_pe(place.path), root, search, python)
    if is_macho(head):
        from .foreign_trees import macos_tree

        return macos_tree(place, root, search, python)
    return _linux_tree(place, read_elf(place.path), root, search, python)


def _linux_tree(
    place: Place, image: ElfImage, root: str | None, search: Sequence[str], python: str | None
) -> LoadTree:
    if root is None and os.sep == "\\":
        # Paths of Linux are divided by slashes and have no drives: on Windows the drive of the file is the root.
        root = ntpath.splitdrive(place.path)[0] + os.sep
    files = HostFilesystem(root)
    path = place.path if root is None else place.inside or ""
    # A shared object is taken for an extension module: loaded into the Python.
    is_program = image.kind == ET_EXEC or image.interpreter is not None
    context = read_linux_context(root, program=path if is_program else python, files=files, kind=image)
    context = replace(context, library_path=(*search, *context.library_path))
    tree = resolve_linux(path, context, files, program=is_program)
    tree = _with_symbols(tree, context, files, is_program=is_program)
    return _with_other_cases(tree, files) if tree.missing else tree


def _with_other_cases(tree: LoadTree, files: HostFilesystem) -> LoadTree:
    """Return the tree with notes on files that only differ in case from a library that was not found."""
    from .search_leads import find_other_cases

    tried = {one.need: [probe.path for probe in one.probes] for one in reversed(tree.missing)}
    notes = (
        f"{need} was not found, and there is {path}: the loader tells upper from lower case"
        for need, path in find_other_cases(tried.items(), files)
    )
    return replace(tree, notes=tuple(dict.fromkeys((*tree.notes, *notes))))


_MOST_SYMBOLS = 1_000_000
"""Names held at once while symbols are compared: about 150 MB."""
_PYTHON_API = ("Py", "_Py")
_MODULE_ENTRY = "PyInit_"


def _with_symbols(
    tree: LoadTree, context: GlibcContext | MuslContext, files: HostFilesystem, *, is_program: bool
) -> LoadTree:
    """Return the tree with the symbols and versions that its images need and that nothing in their reach has.

    What a program has is known. An extension module finds the symbols of the Python that loads it, which need not be
    this one: those of Python's API are not judged. A library may find symbols in whatever program loads it: of a
    library only those with a version are judged, which have to be in the library that the version is of.
    """
    paths = list(dict.fromkeys((*_images_of_python(context, files, is_program), *tree.images)))
    # Of what is in the process already only the names are in the tree.
    paths += [b.path for b in tree.bindings if b.path is not None and b.state is BindingState.BOUND]
    # A program may have undefined symbols behind its first ones, where `needs=True` does not look: with the address of
    # its own PLT, for pointers to functions (pointer_equality_needed in bfd/elfxx-x86.c).
    if not (is_program or tree.missing or tree.unresolved) and _has_all_symbols(tree, dict.fromkeys(paths), files):
        return tree
    images: dict[str, ElfImage] = {}
    left = _MOST_SYMBOLS
    for path in dict.fromkeys(paths):
        try:
            image = read_elf(files.host_path(path), symbols=True)
        except (BinaryFormatError, OSError) as error:
            problem = error.problem if isinstance(error, BinaryFormatError) else error.strerror or str(error)
            tree = replace(tree, notes=(*tree.notes, f"the symbols of {path} were not checked: {problem}"))
            continue
        left -= len(image.symbols.provides) + len(image.symbols.needs) if image.symbols is not None else 0
        if left < 0:
            note = f"symbols were not checked: the images have more than {_MOST_SYMBOLS} of them"
            return replace(tree, notes=(*tree.notes, note))
        images[path] = image
    top = images.get(tree.top)
    provides = top.symbols.provides if top is not None and top.symbols is not None else {}
    is_module = any(name.startswith(_MODULE_ENTRY) for name in provides)
    complete = (is_program or is_module) and not tree.missing and not tree.unresolved
    of_tree = set(tree.images)
    symbols = tuple(
        symbol for symbol in find_missing_symbols(images, list(images), complete=complete)
        if symbol.requested_by in of_tree and (is_program or not symbol.name.startswith(_PYTHON_API))
    )  # fmt: skip
    versions = tuple(v for v in find_missing_versions(images, list(images)) if v.requested_by in of_tree)
    return replace(tree, symbols=symbols, versions=versions)


def _has_all_symbols(tree: LoadTree, paths: Iterable[str], files: HostFilesystem) -> bool:
    """Return whether the images of a tree are seen to find all symbols and versions that they name; `paths`, where they
    look.

    For most files that answers all: needs are read without the relocations, and of the definitions only those with the
    hash of a needed name. An image that cannot be read, or a symbol that is missing, takes the whole comparison.
    """
    images: dict[str, ElfImage] = {}
    wanted: set[str] = set()
    try:
        for path in paths:
            image = files.read_image(path)
            if not isinstance(image, ElfImage):
                return False
            images[path] = image
            if path in tree.images:
                images[path] = image = read_elf(files.host_path(path), needs=True)
                needs = image.symbols.needs if image.symbols is not None else ()
                wanted.update(need.name for need in needs if not need.weak)
        if len(wanted) > _MOST_SYMBOLS:
            return False
        hashes = hash_names(wanted)
        for path, image in images.items():
            found = read_provided(files.host_path(path), wanted, hashes)
            images[path] = replace(image, symbols=replace(found, needs=image.symbols.needs if image.symbols else ()))
    except (BinaryFormatError, OSError):
        return False
    return not find_missing_symbols(images, list(images)) and not find_missing_versions(images, list(images))


def _images_of_python(
    context: GlibcContext | MuslContext, files: HostFilesystem, is_program: bool
) -> tuple[str, ...]:
    """Return the images that the Python which would load a module has from its start."""
    if is_program or context.program is None:
        return ()
    return tuple(resolve_linux(context.program, replace(context, loaded=()), files, program=True).images)


def is_windows_program(path: str) -> bool:
    """Return whether a file is a Windows program: a PE file that is no DLL (IMAGE_FILE_DLL, "PE Format", MS Learn)."""
    from ..binary.pe import read_pe

    try:
        return HostFilesystem().read_head(path, 2) == b"MZ" and not read_pe(path).is_dll
    except (DlltracerError, OSError):
        return False


def provided_names(path: str) -> frozenset[str]:
    """The names that an image provides to others. Raises `BinaryFormatError`, `OSError`."""
    if HostFilesystem().read_head(path, 2) == b"MZ":
        from ..binary.pe import read_pe

        return frozenset(export.name for export in read_pe(path, symbols=True).exports or () if export.name)
    if is_macho(HostFilesystem().read_head(path, 8)):
        from ..binary.macho import read_macho

        every = [image.symbols for image in read_macho(path, symbols=True).images]
        return frozenset(name for symbols in every if symbols is not None for name in symbols.exports)
    symbols = read_elf(path, symbols=True).symbols
    return frozenset(symbols.provides if symbols is not None else ())
