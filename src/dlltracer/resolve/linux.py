"""What the loader of a Linux process would do, whichever C library it has."""

from __future__ import annotations

from ..model.loader_context import GlibcContext, MuslContext
from ..model.tree import LoadTree
from .glibc import resolve_glibc
from .lookup import Filesystem
from .musl import resolve_musl


def resolve_linux(
    path: str, context: GlibcContext | MuslContext, files: Filesystem, *, program: bool = False
) -> LoadTree:
    """`resolve_glibc` or `resolve_musl`, by the kind of the context."""
    if isinstance(context, MuslContext):
        return resolve_musl(path, context, files, program=program)
    return resolve_glibc(path, context, files, program=program)
