"""The files of a Windows, by Windows paths: on Windows itself, or anywhere that has its folders (a mounted disk, an
unpacked wheel, a Wine prefix).

Names are compared as Windows does, without regard to case. Each folder is listed and each image read once, so an object
serves one question and shows the files as they were then.
"""

from __future__ import annotations

import ntpath
import os
import stat

from ..binary.pe import read_pe
from ..binary.reading import read_regular
from ..model.events import FileKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model.pe import PeImage


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
        self._images: dict[str, PeImage] = {}

    def kind(self, path: str) -> FileKind:
        """What is at the path."""
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
        return ntpath.normpath(path)

    def read_head(self, path: str, size: int) -> bytes:
        """The first `size` bytes of the file there. Raises `OSError`, `BinaryFormatError`."""
        return read_regular(self._existing(path), size)

    def read_image(self, path: str) -> PeImage:
        """The image there. Raises `BinaryFormatError`, `OSError`."""
        local = self._existing(path)
        image = self._images.get(local)
        if image is None:
            image = self._images[local] = read_pe(local, symbols=self._symbols, resources=self._resources)
        return image

    def local_path(self, path: str) -> str | None:
        """The file behind a Windows path, as this system names it; `None` if there is none."""
        if self._drives is None:
            return path
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
