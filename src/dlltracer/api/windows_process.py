"""A process on this Windows as its interpreter described it, seen through the files."""

from __future__ import annotations

import ntpath
from collections.abc import Mapping
from dataclasses import replace

from ..errors import BinaryFormatError
from ..host.machine import this_system
from ..host.winfiles import WindowsFiles
from ..model.failure import ProcessFacts, System
from ..model.pe import MACHINE_I386, MissingForwarder, PeImage
from ..model.probe import FileKind
from ..model.symbols import MissingSymbol
from ..model.tree import LoadTree
from ..model.windows_context import CTYPES_NAME_SEARCH, EXTENSION_MODULE_SEARCH, STANDARD_SEARCH, LoadFlags
from ..resolve.pe_symbols import find_missing_imports
from ..resolve.windows import resolve_windows
from ..resolve.winfile import describe_machine, fits_machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.windows_context import WindowsContext


class WindowsProcess:
    """Answers questions about one process. What could not be looked at is in `notes`."""

    def __init__(self, process: ProcessFacts) -> None:
        self._process = process
        self._files = WindowsFiles(symbols=True, resources=True)
        self._context: WindowsContext | None = None
        self._is_here = this_system() is System.WINDOWS
        self.notes = () if self._is_here else ("this machine is not Windows: its files were not looked at",)

    def resolve(self, subject: str, flags: LoadFlags | None = None) -> tuple[LoadTree | None, str | None]:
        """What loading `subject` (a file, or a bare name that is searched for) would do; or what is wrong with it.

        Argument: `flags` of the call; `None` for those that `import` and ctypes give.
        """
        if not self._is_here:
            return None, None
        problem = self.damage(subject) if self._files.kind(subject) is FileKind.FILE else None
        if problem is not None:
            return None, problem
        if flags is None:
            flags = EXTENSION_MODULE_SEARCH if ntpath.dirname(subject) else CTYPES_NAME_SEARCH
        # Whatever the process has by that very path is the one in question: it came before the load was over.
        here = ntpath.normcase(subject)
        context = self._read_context()
        loaded = tuple(path for path in context.loaded if ntpath.normcase(path) != here)
        return resolve_windows(subject, replace(context, flags=flags, loaded=loaded), self._files), None

    def resolve_program(self, path: str) -> tuple[LoadTree | None, str | None]:
        """What starting a program would load; or what is wrong with its file.

        A program's imports are searched for in the standard order, its own folder first ("Dynamic-link library search
        order", MS Learn); nothing that Python or a package added to the search of this process counts.
        """
        if not self._is_here:
            return None, None
        problem = self.damage(path)
        if problem is not None:
            return None, problem
        image = self._files.read_image(path)
        context = self._read_context()
        if image.machine == MACHINE_I386 != context.machine:  # "File System Redirector", MS Learn
            context = replace(context, system_folder=ntpath.join(context.windows_folder, "SysWOW64"))
        context = replace(
            context, machine=image.machine, application_folder=ntpath.dirname(path), flags=STANDARD_SEARCH,
            added_folders=(), dll_directory=None, loaded=(), redirection=None,
            assemblies=image.resources.assemblies if image.resources is not None else (),
        )  # fmt: skip
        return resolve_windows(path, context, self._files), None

    def damage(self, path: str) -> str | None:
        """What is wrong with a file as an image; `None` if it is one, for whatever machine."""
        try:
            self._files.read_image(path)
        except BinaryFormatError as error:
            return error.problem
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"
        return None

    def read_images(self, tree: LoadTree | None) -> dict[str, PeImage]:
        """The images of the tree and those the process had, with symbols and resources, as far as they can be read."""
        paths = dict.fromkeys((*(tree.images if tree is not None else ()), *self._process.loaded))
        found = {path: self.read_image(path) for path in paths}
        return {path: image for path, image in found.items() if image is not None}

    def read_image(self, path: str) -> PeImage | None:
        """The image there; `None` if there is none."""
        try:
            return self._files.read_image(path) if self._is_here else None
        except (BinaryFormatError, OSError):
            return None

    def find_missing(
        self, tree: LoadTree | None, images: Mapping[str, PeImage]
    ) -> tuple[tuple[MissingSymbol, ...], tuple[MissingForwarder, ...]]:
        """The symbols and forwarders of the load that lead nowhere."""
        lacking = find_missing_imports(tree.bindings, images) if tree is not None else ()
        symbols = tuple(item for item in lacking if isinstance(item, MissingSymbol))
        return symbols, tuple(item for item in lacking if isinstance(item, MissingForwarder))

    def incompatibility(self, path: str) -> str | None:
        """Why an image could not be loaded into the process at all; `None` if nothing speaks against it."""
        problem = self.damage(path)
        if problem is not None:
            return problem
        image, machine = self._files.read_image(path), self._read_context().machine
        return None if fits_machine(image, machine) else f"it is for {describe_machine(image.machine)}"

    def _read_context(self) -> WindowsContext:
        if self._context is None:
            from ..host.windows import read_windows_context

            process = self._process
            self._context = replace(
                read_windows_context(added_folders=process.added_folders),
                dll_directory=process.dll_directory,
                application_folder=ntpath.dirname(process.loaded[0]) if process.loaded else process.base_prefix,
                current_folder=process.current_folder or None,
                path=tuple(part.strip('"') for part in process.variable("PATH").split(";") if part),
                loaded=process.loaded,
            )
        return self._context
