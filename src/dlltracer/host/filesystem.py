"""Shows files as a loader sees them: of this machine, of a folder that stands for another one, of a Windows.

`WindowsFiles` compares names without regard to case, as Windows does. It lists each folder and reads each image once,
so one object serves one question, and shows the files as they were then.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping

from ..binary.elf import read_elf
from ..binary.reading import HEAD_SIZE, read_regular
from ..errors import BinaryFormatError
from ..model.elf import ElfImage
from ..model.light import dataclass
from ..model.loader_context import FileKind
from ..model.pe import PeImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.macho import MachoFile

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
        except PermissionError:  # stat(2) needs no right to the file itself
            return FileKind.HIDDEN
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
        try:
            return os.path.realpath(path) if self._root is None else self._follow(path)
        except (OSError, ValueError):
            return path

    def looked_at(self) -> tuple[list[str], list[str]]:
        """Return the paths that were asked about, and the folders whose lists told what is not there.

        Only files that are taken not to change keep account of that; of others, nothing.
        """
        return [], []

    def read_head(self, path: str, size: int) -> bytes:
        return read_regular(self.host_path(path), size)

    def read_bytes(self, path: str) -> bytes:
        """Return all of the file there. Raises `OSError`, also for a file too large for one of a loader's settings,
        and `BinaryFormatError` for anything but a regular file."""
        data = read_regular(self.host_path(path), _LARGEST + 1)
        if len(data) > _LARGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return data

    def read_image(self, path: str) -> ElfImage | PeImage | MachoFile:
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


class SteadyFiles(HostFilesystem):
    """Files that are taken not to change, for checks of many: each folder is listed and each file read only once.

    Arguments: `root`, as for `HostFilesystem`; `read` reads the image at a path of this machine.
    An image is kept by device and number, as search paths lead to one file by many spellings ("$ORIGIN/../..").
    """

    def __init__(
        self, root: str | None = None, read: Callable[[str], ElfImage | PeImage | MachoFile] = read_elf
    ) -> None:  # fmt: skip
        super().__init__(root)
        self._read = read
        self._names: dict[str, frozenset[str] | None] = {}
        self._names_by_folder: dict[tuple[int, int], frozenset[str]] = {}
        self._found: dict[str, tuple[FileKind, tuple[int, int] | None]] = {}
        self._by_file: dict[tuple[int, int], ElfImage | PeImage | MachoFile | BinaryFormatError] = {}
        self._heads: dict[tuple[int, int], bytes] = {}

    def looked_at(self) -> tuple[list[str], list[str]]:
        return list(self._found), list(self._names)

    def read_bytes(self, path: str) -> bytes:
        self._look(path)
        return super().read_bytes(path)

    def kind(self, path: str) -> FileKind:
        return self._look(path)[0]

    def identity(self, path: str) -> tuple[int, int] | None:
        return self._look(path)[1]

    def read_head(self, path: str, size: int) -> bytes:
        identity = self.identity(path)
        if identity is None:
            return super().read_head(path, size)
        head = self._heads.get(identity)
        if head is None:
            head = self._heads[identity] = super().read_head(path, HEAD_SIZE)
        return head[:size] if size <= HEAD_SIZE else super().read_head(path, size)

    def read_image(self, path: str) -> ElfImage | PeImage | MachoFile:
        identity = self.identity(path)
        if identity is None:
            return self._read(self.host_path(path))
        image = self._by_file.get(identity)
        if image is None:
            try:
                image = self._read(self.host_path(path))
            except BinaryFormatError as error:
                image = error
            self._by_file[identity] = image
        if isinstance(image, BinaryFormatError):
            raise image
        return image

    def _look(self, path: str) -> tuple[FileKind, tuple[int, int] | None]:
        """Return kind and identity of what is at the path; what is absent is known by the list of its folder."""
        found = self._found.get(path)
        if found is not None:
            return found
        folder, _, name = path.rpartition("/")
        if name not in ("", ".", ".."):
            names = self._list(folder or "/")
            if names is not None and name not in names:
                return FileKind.ABSENT, None
        kind = super().kind(path)
        identity = None if kind is FileKind.ABSENT else super().identity(path)
        self._found[path] = kind, identity
        return kind, identity

    def _list(self, folder: str) -> frozenset[str] | None:
        """Return the names in a folder, none where there is no folder; `None` where they cannot be listed."""
        if folder in self._names:
            return self._names[folder]
        names: frozenset[str] | None
        try:
            here = self.host_path(folder)
            status = os.stat(here)
            key = status.st_dev, status.st_ino
            names = self._names_by_folder.get(key)
            if names is None:
                names = self._names_by_folder[key] = frozenset(os.listdir(here))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            names = frozenset()
        except OSError:
            names = None
        self._names[folder] = names
        return names


class MacosFiles(HostFilesystem):
    """Files as dyld sees them.

    Args:
        root: as for `HostFilesystem`.
        symbols: read images with their symbols.
        sums: compare images with their code signatures.
    """

    def __init__(self, root: str | None = None, *, symbols: bool = False, sums: bool = False) -> None:
        super().__init__(root)
        self._symbols = symbols
        self._sums = sums
        self._files: dict[str, MachoFile] = {}
        self._looked_at: dict[str, None] = {}

    def looked_at(self) -> tuple[list[str], list[str]]:
        return list(self._looked_at), []

    def kind(self, path: str) -> FileKind:
        self._looked_at[path] = None
        return super().kind(path)

    def identity(self, path: str) -> tuple[int, int] | None:
        self._looked_at[path] = None
        return super().identity(path)

    def read_image(self, path: str) -> MachoFile:
        from ..binary.macho import read_macho

        self._looked_at[path] = None
        here = self.host_path(path)
        if here not in self._files:
            self._files[here] = read_macho(here, symbols=self._symbols, sums=self._sums)
        return self._files[here]


class WindowsFiles:
    """A `Filesystem` of Windows paths.

    Args:
        drives: "C:", or a share, to the folder that has its files; `None` on Windows itself, where the paths are used
            as they are.
        symbols: read images with their symbols, so that forwarders are followed.
        resources: read images with their resources, so that manifests count.
    """

    def __init__(
        self, drives: Mapping[str, str] | None = None, *, symbols: bool = False, resources: bool = False
    ) -> None:
        self._drives = None if drives is None else {drive.lower(): folder for drive, folder in drives.items()}
        self._symbols = symbols
        self._resources = resources
        self._listings: dict[str, dict[str, str]] = {}
        self._folders: dict[str, str | None] = {}
        self._images: dict[str, PeImage] = {}

    def kind(self, path: str) -> FileKind:
        """Return the kind of file at the path."""
        local = self.local_path(path)
        if local is None:
            return FileKind.ABSENT
        try:
            mode = os.stat(local).st_mode
        except PermissionError:
            return FileKind.DENIED
        except (OSError, ValueError):  # ValueError: a null character in the path
            return FileKind.ABSENT
        if stat.S_ISREG(mode):
            return FileKind.FILE
        return FileKind.FOLDER if stat.S_ISDIR(mode) else FileKind.OTHER

    def identity(self, path: str) -> tuple[int, int] | None:
        """Device and number of the file; `None` if there is no file."""
        local = self.local_path(path)
        try:
            found = os.stat(local) if local is not None else None
        except (OSError, ValueError):
            return None
        return (found.st_dev, found.st_ino) if found else None

    def real_path(self, path: str) -> str:
        """The path without "." and "..": links of the folders behind are not Windows' links."""
        import ntpath  # not above: to look at files of Linux needs none

        return ntpath.normpath(path)

    def read_head(self, path: str, size: int) -> bytes:
        """The first `size` bytes of the file there. Raises `OSError`, `BinaryFormatError`."""
        return read_regular(self._existing(path), size)

    def read_image(self, path: str) -> PeImage:
        """The image there. Raises `BinaryFormatError`, `OSError`."""
        local = self._existing(path)
        image = self._images.get(local)
        if image is None:
            from ..binary.pe import read_pe  # the files of Linux need no reader of PE

            image = self._images[local] = read_pe(local, symbols=self._symbols, resources=self._resources)
        return image

    def local_path(self, path: str) -> str | None:
        """The file behind a Windows path, as this system names it; `None` if there is none."""
        if self._drives is None:
            return path
        folder, _, name = path.rpartition("\\")
        if not name or name in (".", "..") or "/" in path or ":" in name or len(folder) < 3:
            return self._follow(path)
        # Searches ask for many names in few folders.
        if folder not in self._folders:
            self._folders[folder] = self._follow(folder)
        local = self._folders[folder]
        found = self._list(local).get(name.lower()) if local is not None else None
        return None if local is None or found is None else os.path.join(local, found)

    def _follow(self, path: str) -> str | None:
        """Return the file behind a path of any form, part by part; `None` if there is none."""
        assert self._drives is not None
        import ntpath

        drive, rest = ntpath.splitdrive(ntpath.normpath(path.replace("/", "\\")))
        local = self._drives.get(drive.lower())
        if local is None or not rest.startswith("\\"):
            return None
        for part in rest.strip("\\").split("\\"):
            if part:
                name = self._list(local).get(part.lower())
                if name is None:
                    return None
                local = os.path.join(local, name)
        return local

    def _existing(self, path: str) -> str:
        local = self.local_path(path)
        if local is None:
            raise FileNotFoundError(2, "no such file", path)
        return local

    def _list(self, folder: str) -> dict[str, str]:
        """Name in lower case to the name as it is; nothing if it is no folder that can be read."""
        listing = self._listings.get(folder)
        if listing is None:
            try:
                listing = {name.lower(): name for name in sorted(os.listdir(folder), reverse=True)}
            except OSError:
                listing = {}
            self._listings[folder] = listing
        return listing
