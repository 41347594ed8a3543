"""Opens a wheel without trusting it: its names, sizes, sums and metadata, and a private copy of its native files.

Sources: PEP 427 and "Binary distribution format" of the PyPA; APPNOTE.TXT of PKWARE for zip files.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..binary.reading import is_macho
from ..errors import DlltracerError
from ..model.check import Problem, Severity

_MOST_ENTRIES = 200_000
_LARGEST = 4 << 30
"""Bytes of all files of a wheel together, unpacked. The largest wheels on PyPI have less than 3 GB."""
_SUSPICIOUS_SIZE, _SUSPICIOUS_RATIO = 64 << 20, 400
"""A file of more bytes than this that was packed so well is a zip bomb: deflate reaches 1,032 with zeros only."""
_CHUNK = 1 << 20
_MOST_TEXT = 1 << 20
_METADATA_LIMIT = 64 << 20

_KEPT = re.compile(r"(?:__init__|_distributor_init\w*|_?init\w*)\.pyi?$|\.pth$")
"""Python files that may add folders to the search of DLLs."""
LOADING_WORDS = re.compile(
    rb"add_dll_directory|CDLL|cdll|LoadLibrary|WinDLL|windll|dlopen|os\.environ\s*\[\s*['\"](?:PATH|LD_LIBRARY_PATH)"
)
_UNLISTED = {"RECORD", "RECORD.jws", "RECORD.p7s"}
_DATA = re.compile(r"[^/]+\.data/(purelib|platlib|scripts|data|headers)/(.+)")


class UnreadableTarget(DlltracerError):
    """A target that cannot be checked; its text says why."""


@dataclass
class Wheel:
    """What was found in a wheel.

    Attributes:
        name: of the file.
        folder: where the copies of native files are.
        native: path in the folder, as installed, to the path in the wheel, of every native file.
        names: every file in the wheel, by its place when installed.
        loads_by_itself: whether Python code in it names a function that loads libraries or adds folders.
        tags: of the metadata file WHEEL.
        requires: the names of the packages that it always needs, lower case.
        problems: what is wrong with the archive.
    """

    name: str
    folder: str
    native: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    loads_by_itself: bool = False
    tags: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    is_pure: bool = False
    problems: list[Problem] = field(default_factory=list)


def open_wheel(path: str, folder: str) -> Wheel:
    """Read a wheel whole, and copy its native files below `folder`, an empty private one, as an installer places them.

    Nothing is written elsewhere. Raises `UnreadableTarget`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive, os.path.basename(path), folder).read()
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise UnreadableTarget(f"not a whole zip archive: {error}") from error
    except RuntimeError as error:  # zipfile's error for a file with a password
        raise UnreadableTarget(f"it cannot be unpacked: {error}") from error
    except OSError as error:
        raise UnreadableTarget(error.strerror or str(error)) from error


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, name: str, folder: str) -> None:
        self._archive = archive
        self._wheel = Wheel(name, folder)
        self._sums: dict[str, tuple[str, int]] = {}
        self._metadata: dict[str, bytes] = {}

    def read(self) -> Wheel:
        entries = self._sound_entries()
        for entry in entries:
            if not entry.is_dir():
                self._read_entry(entry)
        info = self._find_info()
        self._check_record(info)
        self._read_metadata(info)
        return self._wheel

    def _sound_entries(self) -> list[zipfile.ZipInfo]:
        """Return the entries that can be unpacked; raises for what no real wheel has."""
        entries = self._archive.infolist()
        if len(entries) > _MOST_ENTRIES:
            raise UnreadableTarget(f"it has {len(entries)} entries; {_MOST_ENTRIES} are the most that are read")
        if sum(entry.file_size for entry in entries) > _LARGEST:
            raise UnreadableTarget(f"unpacked it has more than {_LARGEST >> 30} GiB")
        sound, seen = [], set()
        for entry in entries:
            if entry.flag_bits & 1:
                raise UnreadableTarget(f"{entry.filename} is encrypted")
            name, packed, size = entry.filename, max(entry.compress_size, 1), entry.file_size
            if size > _SUSPICIOUS_SIZE and size > _SUSPICIOUS_RATIO * packed:
                raise UnreadableTarget(f"{name} is a zip bomb: {packed} bytes that become {size}")
            if _is_unsafe(name):
                self._add("unsafe-entry", name, "its path leads out of the folder of the installation")
            elif name in seen:
                self._add("duplicate-entry", name, "the archive has two files of that name")
            else:
                sound.append(entry)
            seen.add(name)
        return sound

    def _read_entry(self, entry: zipfile.ZipInfo) -> None:
        """Read a file, note its sum, and keep what is native, metadata, or Python code that may add folders."""
        name = entry.filename
        place = _installed(name)
        self._wheel.names.add(place)
        digest, size, kept = hashlib.sha256(), 0, None
        is_text = name.endswith((".py", ".pth"))
        head = b""
        with self._archive.open(entry) as file:
            while chunk := file.read(_CHUNK):
                if not size:
                    head = chunk
                    if _is_native(chunk) or _KEPT.search(posixpath.basename(name)):
                        kept = self._create(place)
                size += len(chunk)
                if size > entry.file_size:
                    raise UnreadableTarget(f"{name} is longer than the archive says")
                digest.update(chunk)
                if kept is not None:
                    kept.write(chunk)
                elif ".dist-info/" in name and size <= _METADATA_LIMIT:
                    self._metadata[name] = self._metadata.get(name, b"") + chunk
        if not size and _KEPT.search(posixpath.basename(name)):
            kept = self._create(place)  # an empty __init__.py makes a package, too
        if kept is not None:
            kept.close()
            if _is_native(head):
                self._wheel.native[place] = name
        if is_text and LOADING_WORDS.search(head[:_MOST_TEXT]):
            self._wheel.loads_by_itself = True
        self._sums[name] = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode("ascii"), size

    def _create(self, place: str) -> io.BufferedWriter:
        path = os.path.join(self._wheel.folder, *place.split("/"))
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return open(path, "xb")

    def _find_info(self) -> str:
        """Return the path of the folder with the metadata. Raises `UnreadableTarget`."""
        folders = sorted({name.split("/")[0] for name in self._metadata if name.split("/")[0].endswith(".dist-info")})
        wanted = "-".join(self._wheel.name.split("-")[:2]).lower()
        for folder in folders:
            if folder.lower().removesuffix(".dist-info").replace("-", "_") == wanted.replace("-", "_"):
                return folder
        if not folders:
            raise UnreadableTarget("it has no .dist-info folder, so it is no wheel")
        return folders[0]

    def _check_record(self, info: str) -> None:
        """Compare RECORD with the files: every file listed once, with its sum and size."""
        record = self._metadata.get(f"{info}/RECORD")
        if record is None:
            self._add("record-mismatch", f"{info}/RECORD", "the wheel has no RECORD", fix="build the wheel again")
            return
        listed: dict[str, tuple[str, str]] = {}
        for row in csv.reader(io.StringIO(record.decode("utf-8", "replace"))):
            if row:
                listed[row[0]] = (*row[1:3], "", "")[:2]  # type: ignore[assignment]
        for problem in _compare_record(info, listed, self._sums):
            self._add("record-mismatch", *problem, fix="build the wheel again, or repack it with: python -m wheel pack")

    def _read_metadata(self, info: str) -> None:
        wheel = self._metadata.get(f"{info}/WHEEL", b"").decode("utf-8", "replace")
        self._wheel.tags = tuple(_fields(wheel, "Tag"))
        self._wheel.is_pure = next(iter(_fields(wheel, "Root-Is-Purelib")), "").lower() == "true"
        metadata = self._metadata.get(f"{info}/METADATA", b"").decode("utf-8", "replace").split("\n\n")[0]
        self._wheel.requires = tuple(
            re.split(r"[^A-Za-z0-9._-]", text.strip(), maxsplit=1)[0].lower().replace("_", "-")
            for text in _fields(metadata, "Requires-Dist")
            if "extra" not in text.partition(";")[2]
        )

    def _add(self, code: str, file: str, title: str, fix: str = "") -> None:
        self._wheel.problems.append(Problem(code=code, severity=Severity.ERROR, file=file, title=title, fix=fix))


def _compare_record(
    info: str, listed: dict[str, tuple[str, str]], sums: dict[str, tuple[str, int]]
) -> Iterator[tuple[str, str]]:
    """Yield file and title of each difference between RECORD and the archive."""
    exempt = {f"{info}/{name}" for name in _UNLISTED}
    for name in sums.keys() - listed.keys() - exempt:
        yield name, "RECORD does not list it, so that uninstalling leaves it behind"
    for name, (told, size) in listed.items():
        if name in exempt:
            continue
        if name not in sums:
            yield name, "RECORD lists it, and the archive does not have it"
            continue
        method, _, value = told.partition("=")
        found, length = sums[name]
        if method == "sha256" and value.rstrip("=") != found:
            yield name, "its sum is not the one in RECORD: it was changed after the wheel was built"
        elif size.isdecimal() and int(size) != length:
            yield name, f"it has {length} bytes, and RECORD says {size}"


def _is_unsafe(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) is not None or "\0" in name


def _installed(name: str) -> str:
    """Return where an installer puts a file, from the top of site-packages ("NAME.data/platlib/x" is x there)."""
    match = _DATA.fullmatch(name)
    if match is None:
        return name
    kind, rest = match.groups()
    return rest if kind in ("purelib", "platlib") else f".{kind}/{rest}"


def _is_native(head: bytes) -> bool:
    return head.startswith((b"\x7fELF", b"MZ")) or is_macho(head)


def _fields(text: str, name: str) -> Iterable[str]:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == name.lower():
            yield value.strip()
