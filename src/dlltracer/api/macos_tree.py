"""What loading a Mach-O file would bring, on a Mac or anywhere else.

Apart from `trees`, which imports it for a Mach-O file only.
"""

from __future__ import annotations

import platform
import posixpath
import sys
from collections.abc import Sequence
from dataclasses import replace

from ..host.filesystem import HostFilesystem, MacosFiles, Place, locate
from ..host.machine import is_macos
from ..model.loader_context import MacosContext
from ..model.macho import CPU_ARM64, CPU_X86_64, MH_EXECUTE, MachoFile, MachoImage
from ..model.tree import LoadTree
from ..resolve.macos import find_missing_macho_symbols, resolve_macos

_OWN_CPUS = {"arm64": CPU_ARM64, "aarch64": CPU_ARM64, "x86_64": CPU_X86_64}


def macos_tree(place: Place, root: str | None, search: Sequence[str]) -> LoadTree:
    """`trees.load_tree` for a Mach-O file; of a universal one, for one processor, which the notes name."""
    files = MacosFiles(root, symbols=True)
    path = place.path if root is None else place.inside or ""
    file = files.read_image(path)
    image = _choose(file)
    context = MacosContext(
        cpu=image.cpu,
        subtype=image.subtype,
        program=_own_program(image, root),
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


def _own_program(image: MachoImage, root: str | None) -> str | None:
    """Return the program that would load it: this Python, on a Mac, for what is no program itself."""
    if not is_macos() or root is not None or image.kind == MH_EXECUTE:
        return None
    return HostFilesystem().real_path(sys.executable)


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
