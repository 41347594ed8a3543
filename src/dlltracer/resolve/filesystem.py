"""What the resolvers need of a file system; implemented by `host.filesystem`, and in memory by tests."""

from __future__ import annotations

from typing import Protocol

from ..model.filekind import FileKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.elf import ElfImage
    from ..model.pe import PeImage

__all__ = ["FileKind", "Filesystem"]


class Filesystem(Protocol):
    """Files, by the paths that the loader in question would use."""

    def kind(self, path: str) -> FileKind:
        """What is at the path."""
        ...

    def identity(self, path: str) -> tuple[int, int] | None:
        """What two paths of one file have in common (device and inode); `None` if there is no file."""
        ...

    def real_path(self, path: str) -> str:
        """The path without symbolic links, as far as it exists."""
        ...

    def read_head(self, path: str, size: int) -> bytes:
        """The first `size` bytes of the file there, or all if it has fewer. Raises `OSError`, `BinaryFormatError`."""
        ...

    def read_image(self, path: str) -> ElfImage | PeImage:
        """Names and headers of the image there, without symbols. Raises `BinaryFormatError`, `OSError`."""
        ...
