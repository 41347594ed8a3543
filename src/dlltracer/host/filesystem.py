"""Files as a loader sees them: of this machine, or of a root folder in it that stands for another one."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from ..binary.elf import read_elf
from ..binary.reading import read_regular
from ..model.events import FileKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.elf import ElfImage
    from ..model.pe import PeImage

_MOST_LINKS = 40
"""What Linux follows in one path (path_resolution(7))."""


_LARGEST = 1 << 25
"""Bytes of a file that is read whole: the largest ld.so.cache seen has some hundred kB, the largest loader 2 MB."""


@dataclass(frozen=True)
class Place:
    """A file: its `path` here, absolute, and its path `inside` the root, in posix form, links of the root followed.

    `inside` is `None` for a file that is not in the root.
    """

    path: str
    inside: str | None


def locate(file: str, root: str | None) -> Place:
    """The place of `file`; `root` is `None` for this machine as a whole."""
    path = os.path.abspath(file)
    top = os.path.realpath(root if root is not None else os.path.splitdrive(path)[0] + os.sep)
    real = os.path.realpath(path)
    try:
        inside = os.path.relpath(real, top)
    except ValueError:  # another drive
        return Place(path, None)
    if inside.split(os.sep)[0] == os.pardir:
        return Place(path, None)
    return Place(path, "/" + inside.replace(os.sep, "/"))


class HostFilesystem:
    """Files as the loaders of this machine see them (`resolve.lookup.Filesystem`).

    Arguments: `root`, a folder that paths are taken to be in, links of that system included; `None` for no such thing.
    An image is read once: what changes afterwards is not seen.
    """

    def __init__(self, root: str | None = None) -> None:
        self._root = None if root is None else os.path.realpath(root)
        self._images: dict[str, ElfImage | PeImage] = {}
        self._inside: dict[str, str] = {}

    def kind(self, path: str) -> FileKind:
        try:
            here = self.host_path(path)
            mode = os.stat(here).st_mode
        except PermissionError:
            return FileKind.DENIED
        except OSError as error:
            return FileKind.SYMLINK_LOOP if error.errno == errno.ELOOP else FileKind.ABSENT
        except ValueError:  # a path with a NUL, which no file has
            return FileKind.ABSENT
        if stat.S_ISDIR(mode):
            return FileKind.FOLDER
        if not stat.S_ISREG(mode):
            return FileKind.OTHER
        return FileKind.FILE if os.access(here, os.R_OK) else FileKind.DENIED

    def identity(self, path: str) -> tuple[int, int] | None:
        try:
            status = os.stat(self.host_path(path))
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino

    def real_path(self, path: str) -> str:
        if self._root is None:
            return os.path.realpath(path)
        try:
            return self._follow(path)
        except OSError:
            return path

    def read_head(self, path: str, size: int) -> bytes:
        return read_regular(self.host_path(path), size)

    def read_bytes(self, path: str) -> bytes:
        """Return all of the file there. Raises `OSError`, also for a file too large for one of a loader's settings,
        and `BinaryFormatError` for anything but a regular file."""
        data = read_regular(self.host_path(path), _LARGEST + 1)
        if len(data) > _LARGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return data

    def read_image(self, path: str) -> ElfImage | PeImage:
        here = self.host_path(path)
        image = self._images.get(here)
        if image is None:
            if self.read_head(path, 2) == b"MZ":
                from ..binary.pe import read_pe

                image = read_pe(here)
            else:
                image = read_elf(here)
            self._images[here] = image
        return image

    def host_path(self, path: str) -> str:
        """The path by which this machine has the file. Raises `OSError` when links go in circles."""
        if self._root is None:
            return path
        return self._root + self._follow(path)

    def _follow(self, path: str) -> str:
        """The absolute path inside the root without links. An absolute link starts from the root, none leads out."""
        known = self._inside.get(path)
        if known is not None:
            return known
        assert self._root is not None
        done: list[str] = []
        parts = path.split("/")[::-1]
        links = 0
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            here = "/".join((self._root, *done, part))
            if not os.path.islink(here):
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)
            if target.startswith("/"):
                done.clear()
            parts += target.split("/")[::-1]
        self._inside[path] = found = "/" + "/".join(done)
        return found
