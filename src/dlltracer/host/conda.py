"""Opens a conda package without trusting it: its index, its sums, and a private copy of its native files.

Sources: "Conda package specification" of conda's documentation (.tar.bz2, and .conda: a zip of two tar archives packed
with Zstandard); "paths.json" of conda-build; RFC 8878 for the head of a Zstandard frame.
"""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import importlib
import json
import lzma
import os
import posixpath
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

from ..binary.reading import open_regular
from ..errors import BinaryFormatError
from ..model.check import Problem, Severity
from .wheel import (
    FREE_SIZE,
    KEPT_NAMES,
    LARGEST_RATIO,
    LARGEST_SIZE,
    MOST_ENTRIES,
    UnfitName,
    UnreadableTarget,
    Wheel,
    create_copy,
    is_native_head,
    is_unsafe_name,
    names_loading,
)

_CHUNK = 1 << 20
_MOST_TEXT = 64 << 20
_TEXTS = {"info/index.json", "info/paths.json"}
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9_.-]+)")
_OTHERS = "a package that it depends on"
_NO_DECODER = (
    "Zstandard cannot be read here: it needs Python 3.14 or the package zstandard (pip install dlltracer[conda]), or"
    " unpack the package (cph extract) and check the folder"
)


@dataclass(frozen=True)
class CondaPackage:
    """The content of a conda package.

    Attributes:
        content: its native files and problems. Places are below the prefix of an environment.
        subdir: the platform: "linux-64", "noarch".
        depends: the packages that it depends on, each with its conditions: "python >=3.12,<3.13.0a0".
    """

    content: Wheel
    subdir: str
    depends: tuple[str, ...]


@dataclass
class _Found:
    """The parts read so far."""

    wheel: Wheel
    length: int
    sums: dict[str, tuple[str, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    size: int = 0

    def add(self, code: str, file: str, title: str, severity: Severity = Severity.ERROR) -> None:
        self.wheel.problems.append(Problem(code=code, severity=severity, file=file, title=title))

    def count(self, size: int) -> None:
        """Count unpacked bytes. Raises `UnreadableTarget` when they are too many."""
        self.size += size
        if self.size > LARGEST_SIZE:
            raise UnreadableTarget(f"unpacked it has more than {LARGEST_SIZE >> 30} GiB")
        if self.size > FREE_SIZE and self.size > LARGEST_RATIO * self.length:
            raise UnreadableTarget(f"it is a bomb: {self.length} bytes that become more than {self.size}")


def open_conda(path: str, folder: str) -> CondaPackage:
    """Read a conda package whole, and copy its native files below `folder`, an empty private one.

    Nothing is written elsewhere. Raises `UnreadableTarget`.
    """
    found = _Found(Wheel(os.path.basename(path), folder), 0)
    try:
        os.close(open_regular(path))  # a FIFO or a device would be waited for
        found.length = os.stat(path).st_size
        if path.lower().endswith(".conda"):
            _read_zip(path, found)
        else:
            with bz2.open(path) as stream:
                _read_tar(stream, found)
    except BinaryFormatError as error:
        raise UnreadableTarget(f"it is {error.problem}") from error
    except (
        tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError,
        RuntimeError, struct.error, OverflowError,
    ) as error:  # fmt: skip
        raise UnreadableTarget(f"not a whole conda package: {error}") from error
    except OSError as error:
        raise UnreadableTarget(f"not a whole conda package: {error.strerror or error}") from error
    return _describe(found)


def _read_zip(path: str, found: _Found) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [entry for entry in archive.infolist() if entry.filename.endswith(".tar.zst")]
        names = sorted(entry.filename.partition("-")[0] for entry in members)
        if names != ["info", "pkg"]:
            raise UnreadableTarget("not a conda package: it needs one info-*.tar.zst and one pkg-*.tar.zst")
        for entry in members:
            if entry.flag_bits & 1:
                raise UnreadableTarget(f"{entry.filename} is encrypted")
            with archive.open(entry) as packed, _open_zstd(packed) as stream:
                _read_tar(stream, found)


def _open_zstd(packed: IO[bytes]) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Return the stream unpacked, by what is installed. Raises `UnreadableTarget` where nothing is."""
    openers: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("compression.zstd", lambda module: module.open(packed)),
        ("backports.zstd", lambda module: module.open(packed)),
        ("zstandard", lambda module: module.ZstdDecompressor().stream_reader(packed)),
        ("pyarrow", lambda module: module.CompressedInputStream(module.PythonFile(packed, mode="r"), "zstd")),
    )
    for name, opener in openers:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        try:
            return cast("contextlib.AbstractContextManager[IO[bytes]]", opener(module))
        except Exception as error:  # each decoder has an error of its own
            raise UnreadableTarget(f"not a whole conda package: {error}") from error
    raise UnreadableTarget(_NO_DECODER)


class _Unpacked:
    """A decoder's stream as tarfile reads one: whatever the decoder raises is an `OSError`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        try:
            return bytes(self._stream.read(size))
        except Exception as error:  # zstandard.ZstdError and compression.zstd.ZstdError have no common base
            raise OSError(f"its compressed data are damaged: {error}") from error


def _read_tar(stream: IO[bytes], found: _Found) -> None:
    stream = cast("IO[bytes]", _Unpacked(stream))
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if len(found.sums) + len(found.links) > MOST_ENTRIES:
                raise UnreadableTarget(f"it has more than {MOST_ENTRIES} entries")
            found.count(512)
            _read_member(archive, member, found)
    while rest := stream.read(_CHUNK):  # an archive that is cut short behind its last file tells so at its end
        found.count(len(rest))


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, found: _Found) -> None:
    name = posixpath.normpath(member.name)
    if member.isdir():
        return
    if is_unsafe_name(member.name):
        found.add("unsafe-entry", member.name, "its path leads out of the folder of the installation")
    elif name in found.sums or name in found.links:
        found.add("duplicate-entry", name, "the archive has two files of that name")
    elif member.islnk():
        _copy_linked(name, posixpath.normpath(member.linkname), found)
    elif member.issym():
        _make_link(name, member.linkname, found)
    elif member.isfile():
        _read_file(archive, member, name, found)
    else:
        found.add("unsafe-entry", name, "it is a device or a pipe, which no package has")


def _read_file(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, found: _Found) -> None:
    file = archive.extractfile(member)
    if file is None:
        return
    digest, size, kept, head = hashlib.sha256(), 0, None, b""
    try:
        while chunk := file.read(_CHUNK):
            found.count(len(chunk))
            if not size:
                head = chunk
                if is_native_head(chunk) or KEPT_NAMES.search(name):
                    kept = _create(name, found)
            size += len(chunk)
            digest.update(chunk)
            if kept is not None:
                kept.write(chunk)
            elif name in _TEXTS:
                if size > _MOST_TEXT:
                    raise UnreadableTarget(f"{name} has more than {_MOST_TEXT >> 20} MiB")
                found.texts[name] = found.texts.get(name, b"") + chunk
    finally:
        if kept is not None:
            kept.close()
    if kept is not None and is_native_head(head):
        found.wheel.native[name] = name
    if name.endswith(".py") and names_loading(head):
        found.wheel.loads_by_itself = True
    found.sums[name] = digest.hexdigest(), size


def _create(name: str, found: _Found) -> IO[bytes] | None:
    try:
        return create_copy(found.wheel.folder, name)
    except UnfitName as error:
        found.add(error.code, name, str(error))
        return None


def _copy_linked(name: str, target: str, found: _Found) -> None:
    """Take a hard link: another name of a file that came before it."""
    if target not in found.sums:
        found.add("unsafe-entry", name, f"it is a hard link to {target}, which is not in the package")
        return
    found.sums[name] = found.sums[target]
    if target in found.wheel.native:
        source = os.path.join(found.wheel.folder, *target.split("/"))
        copy = _create(name, found)
        if copy is not None:
            with copy, open(source, "rb") as file:
                while chunk := file.read(_CHUNK):
                    found.count(len(chunk))
                    copy.write(chunk)
            found.wheel.native[name] = name


def _make_link(name: str, target: str, found: _Found) -> None:
    """Make a symbolic link that stays below the folder; libraries have several names ("libz.so" for "libz.so.1")."""
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if is_unsafe_name(inside) or target.startswith("/"):
        found.add("unsafe-entry", name, f"it is a link to {target}, out of the folder of the installation")
        return
    found.links[name] = inside
    try:
        create_copy(found.wheel.folder, name).close()
        path = os.path.join(found.wheel.folder, *name.split("/"))
        os.unlink(path)
        os.symlink(target, path)
    except UnfitName as error:
        found.add(error.code, name, str(error))
    except OSError:  # Windows asks for a right that few have: there the link's name stays unknown
        return


def _describe(found: _Found) -> CondaPackage:
    """Return the package; raises `UnreadableTarget` where its index is missing."""
    index = _json(found, "info/index.json")
    subdir, depends = index.get("subdir"), index.get("depends")
    if not isinstance(subdir, str):
        raise UnreadableTarget("not a conda package: info/index.json names no platform")
    requirements = tuple(one for one in depends if isinstance(one, str)) if isinstance(depends, list) else ()
    wheel = found.wheel
    wheel.names = {name for name in (*found.sums, *found.links) if not name.startswith("info/")}
    matches = [_REQUIREMENT.match(one) for one in requirements]
    wheel.requires = tuple(match[1].lower() for match in matches if match is not None)
    wheel.others = _OTHERS
    if subdir.startswith("win-"):
        wheel.added_folders = ("", "Library/mingw-w64/bin", "Library/usr/bin", "Library/bin", "Scripts", "bin", "DLLs")
    _check_paths(found)
    return CondaPackage(wheel, subdir, requirements)


def _json(found: _Found, name: str) -> Mapping[str, Any]:
    try:
        plain = json.loads(found.texts.get(name, b"{}"))
    except (ValueError, RecursionError) as error:
        raise UnreadableTarget(f"{name} cannot be read: {error}") from error
    return plain if isinstance(plain, dict) else {}


def _check_paths(found: _Found) -> None:
    """Compare info/paths.json with the files, as RECORD of a wheel is."""
    if "info/paths.json" not in found.texts:
        return  # packages before conda-build 3 have none
    entries = _json(found, "info/paths.json").get("paths")
    listed = set()
    for name, entry in _named(entries):
        listed.add(name)
        if name in found.links:
            continue
        if name not in found.sums:
            found.add("record-mismatch", name, "info/paths.json lists it, and the package does not have it")
            continue
        listed_digest, size = entry.get("sha256"), entry.get("size_in_bytes")
        digest, length = found.sums[name]
        if isinstance(listed_digest, str) and listed_digest.lower() != digest:
            found.add("record-mismatch", name, "its sum is not the one in info/paths.json: it was changed afterwards")
        elif isinstance(size, int) and size != length:
            found.add("record-mismatch", name, f"it has {length} bytes, and info/paths.json says {size}")
    for name in sorted({*found.sums, *found.links} - listed):
        if not name.startswith("info/"):
            found.add("record-mismatch", name, "info/paths.json does not list it, so that conda does not install it")


def _named(entries: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("_path"), str):
            yield entry["_path"], entry
