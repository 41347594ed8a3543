"""Failed imports on a Windows that is only in memory: images as values, the load worked out by the real resolver."""

from __future__ import annotations

import ntpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from builders.failed_case import fields_of_case
from dlltracer.diagnose.case import Case
from dlltracer.errors import BinaryFormatError
from dlltracer.model.failure import ProcessFacts, PythonError, System
from dlltracer.model.loader_context import FileKind, WindowsContext
from dlltracer.model.pe import (
    MACHINE_AMD64,
    MissingForwarder,
    PeExport,
    PeImage,
    PeImport,
    PeResources,
    PeSymbol,
    Version,
)
from dlltracer.model.tree import MissingSymbol
from dlltracer.resolve.windows import find_missing_imports, resolve_windows

PYTHON = "C:\\Python"
SITE = "C:\\site\\pkg"
TOP = f"{SITE}\\ext.pyd"

PROCESS = ProcessFacts(
    System.WINDOWS, (3, 11, 9), (".cp311-win_amd64.pyd", ".pyd"), 64, f"{PYTHON}\\python.exe", PYTHON, PYTHON,
    environment=(("PATH", "C:\\Windows"),),
)  # fmt: skip


def pe_image(
    imports: Mapping[str, Iterable[str]] | None = None,
    exports: Iterable[str | PeExport] = ("f",),
    *,
    version: Version | None = None,
    delayed: Iterable[str] = (),
    **changes: object,
) -> PeImage:
    """An x86-64 DLL that imports these names of these libraries."""
    needs = [PeImport(name, tuple(PeSymbol(symbol) for symbol in names)) for name, names in (imports or {}).items()]
    needs += [PeImport(name, (PeSymbol("f"),), delayed=True) for name in delayed]
    offered = [PeExport(n, one) if isinstance(one, str) else one for n, one in enumerate(exports, 1)]
    plain = PeImage(
        MACHINE_AMD64, 64, 0x2022, 0, 3, (14, 29), 0, 0x1000, 0, tuple(needs), exports=tuple(offered),
        resources=PeResources(version),
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Files:
    images: Mapping[str, PeImage]

    def kind(self, path: str) -> FileKind:
        return FileKind.FILE if self._key(path) else FileKind.ABSENT

    def identity(self, path: str) -> tuple[int, int] | None:
        key = self._key(path)
        return (1, list(self.images).index(key)) if key else None

    def real_path(self, path: str) -> str:
        return path

    def read_head(self, path: str, size: int) -> bytes:
        return b"MZ"[:size]

    def read_image(self, path: str) -> PeImage:
        key = self._key(path)
        if key is None:
            raise BinaryFormatError(0, "no such file")
        return self.images[key]

    def _key(self, path: str) -> str | None:
        wanted = ntpath.normcase(ntpath.normpath(path))
        return next((one for one in self.images if ntpath.normcase(one) == wanted), None)


@dataclass(frozen=True)
class Windows:
    """A machine: path to image; `loaded`, what the process has already."""

    images: Mapping[str, PeImage]
    loaded: tuple[str, ...] = ()
    added_folders: tuple[str, ...] = ()
    facts: ProcessFacts = field(default=PROCESS)

    def case(
        self, code: int | None = None, message: str = "DLL load failed while importing ext: ...", **more: object
    ) -> Case:
        """The failure of `import ext`, whose file is `TOP`."""
        context = WindowsContext(
            MACHINE_AMD64, PYTHON, known_dlls=frozenset(), api_sets={}, loaded=self.loaded,
            added_folders=self.added_folders,
        )  # fmt: skip
        tree = resolve_windows(TOP, context, _Files(self.images))
        images = {**self.images, **tree.images}  # Windows does not mind case; whoever looks a path up does
        lacking = find_missing_imports(tree.bindings, images)
        error = PythonError("ImportError", message, ("ImportError", "Exception"), "ext", TOP)
        facts: dict[str, object] = {
            "process": replace(self.facts, loaded=self.loaded, added_folders=self.added_folders),
            "error": None if "crash" in more else error, "errors": () if "crash" in more else (error,),
            "subject": TOP, "tree": tree, "images": images, "code": code,
            "symbols": tuple(one for one in lacking if isinstance(one, MissingSymbol)),
            "forwarders": tuple(one for one in lacking if isinstance(one, MissingForwarder)),
        }  # fmt: skip
        return Case(what="import ext", system=System.WINDOWS, **fields_of_case({**facts, **more}))
