"""Opens a wheel without trusting it: its names, sizes, sums and metadata, and what its native files say.

Sources: PEP 427 and "Binary distribution format" of the PyPA; APPNOTE.TXT of PKWARE for zip files.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import errno
import hashlib
import io
import lzma
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..binary.reading import FileBytes, is_macho
from ..errors import BinaryFormatError, DlltracerError
from ..model.check import Problem, Severity
from ..model.environment import normalized_name
from .stored_images import StoredImage, list_folders, read_stored
from .zip_members import open_archive, read_members

MOST_ENTRIES = 200_000
LARGEST_SIZE = 4 << 30
"""Bytes of all files of a wheel together, unpacked. The largest wheels on PyPI have less than 3 GB."""
_SUSPICIOUS_SIZE, _SUSPICIOUS_RATIO = 64 << 20, 400
"""A file of more bytes than this that was packed so well is a zip bomb: deflate reaches 1,032 with zeros only."""
FREE_SIZE, LARGEST_RATIO = 128 << 20, 100
"""All files of a wheel together may be that large. Beyond, they were packed too well if the archive is so many times
smaller: the best packed of 447 wheels of popular packages has a ratio of 10."""
_CHUNK = 1 << 20
_MOST_CODE = 8 << 20
"""Bytes of a Python file: more than anybody reads of one (`host.package_code`)."""
_METADATA_LIMIT = 64 << 20
_METADATA_NAMES = ("RECORD", "WHEEL", "METADATA")
_HASHES = {"sha256", "sha384", "sha512"}
"""What RECORD may name: PEP 376 and PEP 427 ask for sha256 or better."""

KEPT_NAMES = re.compile(r"\.(?:py|pth)$")
"""Python files: they may add folders to the search of DLLs, and import a module in a `try`. They are not run."""
_LOADING_WORDS = (b"add_dll_directory", b"CDLL", b"cdll", b"LoadLibrary", b"WinDLL", b"windll", b"dlopen")
_SETTING_PATHS = re.compile(rb"os\.environ\s*\[\s*['\"](?:PATH|LD_LIBRARY_PATH)")
_LONGEST_NAME = 255
"""Bytes of one name: NAME_MAX of Linux and macOS; as many units of 16 bits on NTFS."""
_LONGEST_PATH = 4096
"""Bytes of a path: PATH_MAX of Linux. macOS and Windows take fewer."""
_UNLISTED = {"RECORD", "RECORD.jws", "RECORD.p7s"}
_UPPER_BOUND = re.compile(r"[=~]=|<")
"""In a requirement: versions from some on are left out."""
_INFO = re.compile(r"[^/]+\.dist-info/")
_DATA = re.compile(r"[^/]+\.data/(purelib|platlib|scripts|data|headers)/(.+)")


class UnreadableTarget(DlltracerError):
    """A target that cannot be checked; its text says why."""


@dataclass
class Wheel:
    """The content of a wheel, of a package of another kind, or of an environment for another system.

    Attributes:
        name: of the file.
        folder: where the native files are, and Python code; "" for a wheel until `unpack_code` has put code there.
        images: what was read of the native files, by place; `None` where they are in the folder.
        native: path in the folder, as installed, to the path in the wheel, of every native file.
        names: every file in the wheel, by its place when installed.
        loads_by_itself: whether Python code in it names a function that loads libraries or adds folders.
        tags: of the metadata file WHEEL.
        requires: the names of the packages that it always needs (`normalized_name`; of conda, lower case).
        bounded: those among them that it requires in versions up to one ("==2.11", "~=1.90", "<3").
        requires_python: the field Requires-Python of its metadata.
        is_pure: whether the metadata say Root-Is-Purelib.
        others: words for the packages that may bring what this one lacks, as those of conda do; "" for none.
        added_folders: that the process searches for DLLs, from the top.
        problems: what is wrong with the archive.
        code: place of each Python file that is not in the folder yet, to its path in the wheel (`unpack_code`).
        packages: place of each __init__.py, to its text where it loads libraries or adds folders, else "".
        archive: the path of the wheel.
        code_folders: where the Python code of the target is; `None` for all of `folder` (`code_folders_of`).
        noun, promises: words for messages: what it is, and who says what it is for.
    """

    name: str
    folder: str
    native: dict[str, str] = field(default_factory=dict)
    images: dict[str, StoredImage] | None = None
    names: set[str] = field(default_factory=set)
    loads_by_itself: bool = False
    tags: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    bounded: frozenset[str] = frozenset()
    requires_python: str = ""
    is_pure: bool = False
    others: str = ""
    added_folders: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    archive: str = ""
    code_folders: tuple[str, ...] | None = None
    noun: str = "wheel"
    promises: str = "the tag promises"


@contextlib.contextmanager
def opened_wheel(path: str) -> Iterator[Wheel]:
    """Give a wheel that was read whole. Nothing is written but Python code, if that is asked for (`unpack_code`).

    Raises `UnreadableTarget`.
    """
    wheel = _open_wheel(path)
    try:
        yield wheel
    finally:
        if wheel.folder:
            shutil.rmtree(wheel.folder, ignore_errors=True)


def _open_wheel(path: str) -> Wheel:
    try:
        archive, fd = open_archive(path)
        try:
            return _Reader(archive, fd, path).read()
        finally:
            os.close(fd)
    except BinaryFormatError as error:
        raise UnreadableTarget(f"it is {error.problem}") from error
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError, struct.error,
        OverflowError, IndexError,
    ) as error:  # fmt: skip
        raise UnreadableTarget(f"not a whole zip archive: {error}") from error
    except RuntimeError as error:  # zipfile's error for a file with a password
        raise UnreadableTarget(f"it cannot be unpacked: {error}") from error
    except OSError as error:
        raise UnreadableTarget(error.strerror or str(error)) from error


def code_folders_of(wheel: Wheel) -> tuple[str, ...]:
    """Return the folders that have the Python code of the target, unpacked; () where it has none.

    Raises as `unpack_code`.
    """
    unpack_code(wheel)
    return wheel.code_folders if wheel.code_folders is not None else (wheel.folder,) if wheel.folder else ()


def unpack_code(wheel: Wheel) -> None:
    """Put the Python files of a wheel into its folder: few wheels are asked about them, and many have thousands.

    Files go there as an installer places them. Raises `UnreadableTarget` where the wheel was
    changed meanwhile, or no folder takes them.
    """
    if not wheel.code:
        return
    import tempfile  # not above: most wheels need no folder

    try:
        wheel.folder = wheel.folder or tempfile.mkdtemp(prefix="dlltracer-check-")
    except OSError as error:
        raise UnreadableTarget(f"no folder for its Python code: {error.strerror or error}") from error
    try:
        archive, fd = open_archive(wheel.archive)
        try:
            for place, name in wheel.code.items():
                # What this system cannot write, by its names, is code that cannot be asked.
                with contextlib.suppress(UnfitName), create_copy(wheel.folder, place) as copy:
                    copy.write(archive.open(name).read(_MOST_CODE))
        finally:
            os.close(fd)
        wheel.code.clear()
    except (
        zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, RuntimeError, ValueError, NotImplementedError,
    ) as error:  # fmt: skip
        raise UnreadableTarget(f"it was changed while it was read: {error}") from error


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, fd: int, path: str) -> None:
        self._archive = archive
        self._fd = fd
        self._wheel = Wheel(os.path.basename(path), "", images={}, archive=path)
        self._images: dict[str, StoredImage] = {}
        self._sums: dict[str, dict[str, str]] = {}
        self._sizes: dict[str, int] = {}
        self._metadata: dict[str, bytes] = {}
        self._infos: set[str] = set()
        self._methods: dict[str, str] = {}
        self._first: dict[str, str] = {}
        self._code: set[str] = set()

    def read(self) -> Wheel:
        entries = self._sound_entries()
        self._infos = {entry.filename.split("/")[0] for entry in entries if _INFO.match(entry.filename)}
        self._methods = self._named_methods(entries)
        files = [entry for entry in entries if not entry.is_dir()]
        self._place_files([entry.filename for entry in files])
        for entry, content, digest in read_members(self._fd, files, self._methods):
            if content is None:
                self._read_in_pieces(entry)
            else:
                self._note_sum(entry.filename, digest, len(content))
                self._take(entry.filename, content[:_CHUNK], content)
        self._keep_in_order()
        info = self._find_info()
        self._check_record(info)
        self._read_metadata(info)
        return self._wheel

    def _place_files(self, names: Sequence[str]) -> None:
        """Say where an installer puts the files; of several for one place the first one counts."""
        taken: dict[str, str] = {}
        for name in names:
            place = _installed(name)
            self._wheel.names.add(place)
            if taken.setdefault(place, name) == name:
                self._first[name] = place
            else:
                self._add("duplicate-entry", name, f"it is installed to the place of {taken[place]}")
        folders = list_folders(taken)
        for place, name in taken.items():
            if place in folders:
                self._add("duplicate-entry", name, "the archive has a file and a folder of one name there")
                del self._first[name]
            elif len(place) > _LONGEST_NAME and _is_too_long(place):
                self._add("unsafe-entry", name, "it cannot be written: its path, or a name in it, is too long")
                del self._first[name]

    def _keep_in_order(self) -> None:
        """Give the wheel what was found, in the order of the archive: threads found it in any."""
        for name, place in self._first.items():
            if name in self._images:
                self._wheel.native[place] = name
                assert self._wheel.images is not None
                self._wheel.images[place] = self._images[name]
            elif name in self._code:
                self._wheel.code[place] = name

    def _sound_entries(self) -> list[zipfile.ZipInfo]:
        """Return the entries that can be unpacked; raises for what no real wheel has."""
        entries = self._archive.infolist()
        if len(entries) > MOST_ENTRIES:
            raise UnreadableTarget(f"it has {len(entries)} entries; {MOST_ENTRIES} are the most that are read")
        whole, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
        length = self._length()
        if whole > LARGEST_SIZE:
            raise UnreadableTarget(f"unpacked it has more than {LARGEST_SIZE >> 30} GiB")
        if packed > length:
            raise UnreadableTarget(f"its entries overlap: they take {packed} bytes of an archive of {length}")
        if whole > FREE_SIZE and whole > LARGEST_RATIO * length:
            raise UnreadableTarget(f"it is a zip bomb: {length} bytes that become {whole}")
        sound, seen = [], set()
        for entry in entries:
            if entry.flag_bits & 1:
                raise UnreadableTarget(f"{entry.filename} is encrypted")
            name, packed, size = entry.filename, max(entry.compress_size, 1), entry.file_size
            if size > _SUSPICIOUS_SIZE and size > _SUSPICIOUS_RATIO * packed:
                raise UnreadableTarget(f"{name} is a zip bomb: {packed} bytes that become {size}")
            if is_unsafe_name(name):
                self._add("unsafe-entry", name, "its path leads out of the folder of the installation")
            elif name in seen:
                self._add("duplicate-entry", name, "the archive has two files of that name")
            else:
                sound.append(entry)
                if stat.S_ISLNK(entry.external_attr >> 16):
                    self._add(
                        "link-entry", name, "it is stored as a link, and installers write a file with the link's text",
                        "store the file itself, and give each library one name", Severity.WARNING,
                    )  # fmt: skip
            seen.add(name)
        return sound

    def _length(self) -> int:
        file = self._archive.fp
        return os.fstat(file.fileno()).st_size if file is not None else 0

    def _named_methods(self, entries: list[zipfile.ZipInfo]) -> dict[str, str]:
        """Return the file to the hash that RECORD has of it, where that is another one than SHA-256."""
        records = [entry for entry in entries if _INFO.match(entry.filename) and entry.filename.endswith("/RECORD")]
        methods = {}
        for entry in records[:1] if records and records[0].file_size <= _METADATA_LIMIT else ():
            for row in _record_rows(self._archive.read(entry)):
                method = row[1].partition("=")[0] if len(row) > 1 else ""
                if method in _HASHES - {"sha256"}:
                    methods[row[0]] = method
        return methods

    def _read_in_pieces(self, entry: zipfile.ZipInfo) -> None:
        """Read a file that is too large for the memory; one that is damaged raises the errors of `zipfile`."""
        name = entry.filename
        digest, size, kept, head = hashlib.new(self._methods.get(name, "sha256")), 0, None, b""
        with contextlib.ExitStack() as stack:
            with self._archive.open(entry) as file:
                while chunk := file.read(_CHUNK):
                    if not size:
                        head = chunk
                        if is_native_head(chunk):
                            import tempfile

                            kept = stack.enter_context(tempfile.TemporaryFile())
                    size += len(chunk)
                    digest.update(chunk)
                    if kept is not None:
                        kept.write(chunk)
            self._note_sum(name, digest.digest(), size)
            if kept is not None:
                kept.flush()
                self._take(name, head, FileBytes(kept.fileno(), size))
            elif name.rpartition("/")[2] in _METADATA_NAMES and name.rpartition("/")[0] in self._infos:
                if size > _METADATA_LIMIT:
                    raise UnreadableTarget(f"{name} has more than {_METADATA_LIMIT >> 20} MiB")
                self._take(name, head, self._archive.read(entry))
            else:
                self._take(name, head, head)

    def _note_sum(self, name: str, digest: bytes, size: int) -> None:
        method = self._methods.get(name, "sha256")
        self._sums[name] = {method: base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")}
        self._sizes[name] = size

    def _take(self, name: str, head: bytes, content: bytes | FileBytes) -> None:
        """Keep what matters of a file: what an image says, metadata, whether code loads libraries or adds folders.

        Arguments: `head`, its first bytes; `content`, all of it, or no more than those of a large file without use.
        """
        if name in self._first and is_native_head(head):
            self._images[name] = read_stored(content)
            return
        folder, _, last = name.rpartition("/")
        is_asked = last == "__init__.py" or not self._wheel.loads_by_itself
        loads = is_asked and name.endswith((".py", ".pth")) and names_loading(head)
        self._wheel.loads_by_itself |= loads
        if name.endswith(".py") and name in self._first:
            self._code.add(name)
            if last == "__init__.py":
                is_patched = loads or b"delvewheel" in head
                self._wheel.packages[self._first[name]] = head.decode("utf-8", "replace") if is_patched else ""
        if last in _METADATA_NAMES and folder in self._infos:
            self._metadata[name] = bytes(content[:_METADATA_LIMIT])

    def _find_info(self) -> str:
        """Return the path of the folder with the metadata. Raises `UnreadableTarget`."""
        folders = sorted(self._infos)
        if not folders:
            raise UnreadableTarget("it has no .dist-info folder, so it is no wheel")
        distribution = normalized_name(self._wheel.name.partition("-")[0])
        fitting = [folder for folder in folders if normalized_name(folder).startswith(f"{distribution}-")]
        info = fitting[0] if fitting else folders[0]
        if len(folders) > 1:
            self._add(
                "metadata-mismatch", folders[1] if info == folders[0] else folders[0],
                f"the wheel has {len(folders)} .dist-info folders; installers take one only", "build the wheel again",
            )  # fmt: skip
        elif not fitting:
            self._add(
                "metadata-mismatch", info, f"the folder is not named after {self._wheel.name}: installers refuse it",
                "do not rename wheels by hand: build it again, or change its tags with python -m wheel tags",
            )  # fmt: skip
        for needed in ("WHEEL", "METADATA"):
            if f"{info}/{needed}" not in self._metadata:
                self._add("metadata-mismatch", f"{info}/{needed}", "the wheel lacks this file", "build it again")
        return info

    def _check_record(self, info: str) -> None:
        """Compare RECORD with the files: every file listed once, with its sum and size."""
        record = self._metadata.get(f"{info}/RECORD")
        if record is None:
            self._add("record-mismatch", f"{info}/RECORD", "the wheel has no RECORD", fix="build the wheel again")
            return
        listed: dict[str, tuple[str, str]] = {}
        reversed_names = []
        for row in _record_rows(record):
            path = row[0]
            if path not in self._sizes and (plain := path.replace("\\", "/")) in self._sizes:
                # pip and uv take "\\" for "/"; `validate_record` of the library installer (Poetry, PDM) does not.
                reversed_names += [plain] if plain != f"{info}/RECORD" else []
                path = plain
            listed[path] = (*row[1:3], "", "")[:2]  # type: ignore[assignment]
        if reversed_names:
            self._add(
                "record-mismatch", f"{info}/RECORD",
                f"RECORD has backslashes between folders: {len(reversed_names)} file(s) not listed by the name",
                "write \"/\" between folders: python -m wheel pack does",
            )  # fmt: skip
        for problem in _compare_record(info, listed, self._sums, self._sizes):
            self._add("record-mismatch", *problem, fix="build the wheel again, or repack it with: python -m wheel pack")

    def _read_metadata(self, info: str) -> None:
        wheel = self._metadata.get(f"{info}/WHEEL", b"").decode("utf-8", "replace")
        self._wheel.tags = tuple(_fields(wheel, "Tag"))
        self._wheel.is_pure = next(iter(_fields(wheel, "Root-Is-Purelib")), "").lower() == "true"
        metadata = self._metadata.get(f"{info}/METADATA", b"").decode("utf-8", "replace")
        metadata = re.split(r"\r?\n\r?\n", metadata, maxsplit=1)[0]
        self._check_version(f"{info}/METADATA", next(iter(_fields(metadata, "Version")), ""))
        self._wheel.requires_python = next(iter(_fields(metadata, "Requires-Python")), "")
        required = [text.partition(";") for text in _fields(metadata, "Requires-Dist")]
        always = [text for text, _, condition in required if "extra" not in condition]
        self._wheel.requires = tuple(map(_required_name, always))
        self._wheel.bounded = frozenset(_required_name(text) for text in always if _UPPER_BOUND.search(text))

    def _check_version(self, file: str, version: str) -> None:
        """Compare the version of the metadata with that of the name: pip refuses the wheel if they differ."""
        named = self._wheel.name.split("-")[1]
        if not version or version == named:
            return
        from packaging.version import InvalidVersion, Version  # not above: nearly all are spelled alike

        try:
            differs = Version(version) != Version(named.replace("_", "-"))
        except InvalidVersion:
            return
        if differs:
            title = f"it says version {version}, and the name of the wheel says {named}: installers refuse it"
            self._add("metadata-mismatch", file, title, "build the wheel again instead of renaming it")

    def _add(self, code: str, file: str, title: str, fix: str = "", severity: Severity = Severity.ERROR) -> None:
        self._wheel.problems.append(Problem(code=code, severity=severity, file=file, title=title, fix=fix))


def _required_name(requirement: str) -> str:
    return normalized_name(re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0])


def _record_rows(record: bytes) -> Iterator[list[str]]:
    """Yield the rows of RECORD; raises `UnreadableTarget` where it is no table."""
    try:
        yield from filter(None, csv.reader(io.StringIO(record.decode("utf-8", "replace"))))
    except csv.Error as error:
        raise UnreadableTarget(f"its RECORD is no table: {error}") from error


def names_loading(code: bytes) -> bool:
    """Return whether Python code names a function that loads libraries or adds folders to their search."""
    if any(word in code for word in _LOADING_WORDS):
        return True
    return b"os.environ" in code and _SETTING_PATHS.search(code) is not None


def _is_too_long(place: str) -> bool:
    """Return whether a path, or a part of it, is longer than the systems of today take."""
    path = place.encode("utf-8", "surrogatepass")
    return len(path) >= _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in path.split(b"/"))


def _compare_record(
    info: str, listed: Mapping[str, tuple[str, str]], sums: Mapping[str, Mapping[str, str]], sizes: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Yield file and title of each difference between RECORD and the archive."""
    exempt = {f"{info}/{name}" for name in _UNLISTED}
    for name in sums.keys() - listed.keys() - exempt:
        yield name, "RECORD does not list it, so that uninstalling leaves it behind"
    for name, (recorded, size) in listed.items():
        if name in exempt:
            continue
        if name not in sums:
            yield name, "RECORD lists it, and the archive does not have it"
            continue
        method, _, value = recorded.partition("=")
        found, length = sums[name].get(method), sizes[name]
        if found is not None and value.rstrip("=") != found:
            yield name, "its sum is not the one in RECORD: it was changed after the wheel was built"
        elif size.isdecimal() and int(size) != length:
            yield name, f"it has {length} bytes, and RECORD says {size}"


class UnfitName(DlltracerError):
    """A name of a file that cannot be written; `code` is that of the problem."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def create_copy(folder: str, place: str) -> io.BufferedWriter:
    """Open a new file below a folder, and make the folders in between. Raises `UnfitName`.

    Argument: `place`, a relative path that `is_unsafe_name` refused not, "/" between its parts.
    """
    path = os.path.join(folder, *place.split("/"))
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return open(path, "xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise UnfitName("duplicate-entry", "the archive has a file and a folder of one name there") from None
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise
        raise UnfitName("unsafe-entry", f"it cannot be written: {error.strerror}") from error


def is_unsafe_name(name: str) -> bool:
    """Return whether a path leads out of the folder that it is to be in, on any system."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) is not None or "\0" in name


def _installed(name: str) -> str:
    """Return where an installer puts a file, from the top of site-packages ("NAME.data/platlib/x" is x there)."""
    match = _DATA.fullmatch(name)
    if match is None:
        return name
    kind, rest = match.groups()
    return rest if kind in ("purelib", "platlib") else f".{kind}/{rest}"


def is_native_head(head: bytes) -> bool:
    """Return whether a file that begins like this is ELF, PE or Mach-O."""
    return head.startswith((b"\x7fELF", b"MZ")) or is_macho(head)


def _fields(text: str, name: str) -> Iterable[str]:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == name.lower():
            yield value.strip()
