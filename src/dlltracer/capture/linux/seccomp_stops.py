"""Turns a system call that waits for its tracer into a value: the request, the caller, the file there.

All of this is observation. The kernel carries out the call after it was looked at (the flag CONTINUE in
seccomp_unotify(2)). It goes by the memory and the files of that moment, which another thread can have changed. Nothing
is forbidden here, so a program that does so deceives nobody but the reader of its trace.

Whether a file is there is looked at by us, at the moment of the call, as the process would find it: from its root and
its current folder. The call itself has no result yet, and no later stop shows it.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import time
from collections import OrderedDict

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from collections.abc import Callable

from ...binary.elf import parse_segments, read_elf
from ...binary.elf_dynamic import PT_LOAD, Segment
from ...binary.reading import read_kernel_file
from ...errors import BinaryFormatError
from ...model.elf import ElfImage
from ...model.request import Request
from ..marks import OWN_BEGIN
from .decode import decode_mark
from .processes import read_status_field
from .seccomp_decode import (
    MARK_FRAME,
    ExecStop,
    Identity,
    MapStop,
    MarkStop,
    OpenStop,
    ReadImage,
    Stop,
    UnreadMapStop,
    read_nothing,
)
from .seccomp_filter import AT_FDCWD, I386, MAP_FIXED, Call, CallKind, call_of
from .seccomp_lookup import LONGEST_PATH, FileLookup, find_entries, read_bytes, read_link
from .seccomp_marks import FILLER, SHARED_SIZE, describe_memory

_LONGEST_MARK = 1 << 16
_MARKS_AT_ONCE = 8192
"""Bytes of the memory of marks that are read at once. No mark there is longer."""
_MOST_OPEN = 64
"""Memory files (/proc/PID/mem) that are kept open."""
_MOST_THREADS = 10_000
_MOST_IMAGES = 4096
_MOST_ODD = 100
_AT_BASE, _AT_SYSINFO_EHDR = 7, 33
_HEAD = 1024
"""Bytes of a file in which its program headers lie."""
_VDSO_SIZE = 0x4000
_LONGEST_CODE = 1 << 26


_Key = tuple[Identity, int, int]
"""Of a file: device and inode, size in bytes, nanoseconds of its last change."""


class TracedTask:
    """A process, as long as it runs one program.

    Attributes:
        pid: its process id.
        parent: of the process that started it; 0 where that is not known.
        generation: how many programs it has begun since it was seen first.
        same_files: its root and mounts are ours.
        is_musl: its loader is musl's; `None` if there is no loader, or it could not be looked at.
        is_passed_over: its loader may open files where the filter lets opens pass.
        marks: where the next of its marks will be in its memory (`seccomp_marks.SharedMarks`); 0 if they are nowhere.
        marks_end: the end of that memory.
    """

    def __init__(self, pid: int, parent: int) -> None:
        self.pid = pid
        self.parent = parent
        self.generation = 0
        self.forget()

    def forget(self) -> None:
        """Its program may have changed: all that depends on it is read again."""
        self.is_read = False
        self.may_exec = 0  # the thread that has called execve
        self.same_files = True
        self.is_musl: bool | None = None
        self.is_passed_over = False
        self.loader: range = range(0)
        self.vdso: range = range(0)
        self.start: bytes = b""
        self.marks = self.marks_end = 0


class StopReader:
    """Makes values of system calls that wait.

    Arguments: `on_start`, called with a process when it is first seen, and with one that has become another program;
    `on_marks`, called with what lies in the memory of a process, before the call is returned at which it was read;
    `passed`, of the filter (`seccomp_filter.make_program`).

    Attributes: `unreadable`, how many calls could not be looked at, because the memory of their process cannot be read;
    `on_process`, called with the process id of each process that is new; `takes_memory`, a call that hands over the
    memory of marks can be answered (`MarkStop.is_taken`); `changed`, files that had
    changed when they were to be read.
    """

    def __init__(
        self, on_start: Callable[[TracedTask], None], on_marks: Callable[[MarkStop], None],
        passed: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        self._on_start = on_start
        self._on_marks = on_marks
        self._own_pid = os.getpid()
        self.takes_memory = False
        self._passed = passed
        self._own_loader: Identity | None = None
        self._asked_for: dict[int, str] = {}
        self._odd_names: set[str] = set()
        self._tasks: dict[int, TracedTask] = {}
        self._threads: dict[int, int] = {}
        self._memory: OrderedDict[int, int] = OrderedDict()
        self._images: dict[_Key, ElfImage | None] = {}
        self._segments: dict[_Key, tuple[Segment, ...] | None] = {}
        self.changed: set[str] = set()
        self._lookup = FileLookup()
        self._page = os.sysconf("SC_PAGE_SIZE")
        self.unreadable = 0
        self.on_process: Callable[[int], None] = lambda pid: None

    def read(self, tid: int, audit: int, number: int, address: int, arguments: tuple[int, ...]) -> Stop | None:
        """Return the value of one call; `None` if it is of no interest. Never raises `OSError`.

        Arguments: `tid`, the thread; the others as in struct seccomp_data: architecture, number, the address of the
        instruction, and six arguments.
        """
        call, task = call_of(audit, number), None
        if call is None or call.kind is CallKind.MOVE:
            self._lookup.has_moved = self._lookup.has_moved or call is not None
            return None
        try:
            task = self._task(tid)
            if task is None:
                return None
            self._update(task, tid)
            if call.kind is CallKind.OPEN:
                return self._open(task, tid, audit, call, address, arguments)
            if call.kind is CallKind.MAP:
                return self._map(task, tid, arguments)
            return (self._mark if call.kind is CallKind.MARK else self._exec)(task, tid, call, arguments)
        except (OSError, ValueError, OverflowError) as error:
            self.unreadable += 1
            is_hidden = task is not None and call.kind is CallKind.MAP and isinstance(error, PermissionError)
            return UnreadMapStop(task.pid, tid, time.time()) if task is not None and is_hidden else None

    def end(self, pid: int) -> None:
        """A process has ended: its number may be given to another one."""
        self._tasks.pop(pid, None)
        self._lookup.forget(pid)
        for tid in [tid for tid, owner in self._threads.items() if owner == pid]:
            del self._threads[tid]
        self._close(pid)

    def close(self) -> None:
        """Close all files."""
        for pid in tuple(self._memory):
            self._close(pid)

    def _task(self, tid: int) -> TracedTask | None:
        pid = self._threads.get(tid)
        if pid is not None and pid != tid and not os.path.exists(f"/proc/{pid}/task/{tid}"):
            pid = None  # the thread has ended, and another one, or a process, has its number now
        if pid is None:
            pid = int(read_status_field(tid, "Tgid") or 0)
            if not pid:
                self.unreadable += os.path.exists(f"/proc/{tid}")  # no descriptor is left for its status
                return None
            if len(self._threads) >= _MOST_THREADS:
                self._threads.clear()
            self._threads[tid] = pid
        task = self._tasks.get(pid)
        if task is None:
            self.on_process(pid)
            parent = int(read_status_field(pid, "PPid") or 0)
            task = self._tasks[pid] = TracedTask(pid, parent)
            self._update(task, tid)
        return task

    def _update(self, task: TracedTask, tid: int) -> None:
        """Look at the program of a process, if it is not known, or if another one may have taken its place."""
        if task.is_read and not task.may_exec:
            return
        vector, program = read_bytes(f"/proc/{task.pid}/auxv", 4096), read_link(f"/proc/{task.pid}/exe")
        # The kernel puts 16 random bytes on the new stack, and their address in the vector (AT_RANDOM): a program that
        # starts anew has another vector, unless addresses are not random here. Then its path may still differ.
        start = vector + (program or "").encode("utf-8", "surrogateescape")
        if task.is_read and start == task.start:
            if tid == task.may_exec:
                task.may_exec = 0  # the execve has failed
            return
        self._close(task.pid)
        task.forget()
        task.is_read, task.start = True, start
        task.generation += 1
        task.same_files = self._lookup.has_our_files(task.pid, anew=True)
        words = _auxiliary(vector, self._bits_of(task.pid))
        if vdso := words.get(_AT_SYSINFO_EHDR):
            task.vdso = range(vdso, vdso + _VDSO_SIZE)
        interpreter = self._interpreter(task.pid)
        if interpreter is not None:
            task.is_musl = "ld-musl-" in interpreter
        if base := words.get(_AT_BASE):
            task.loader = _extent(base, read_kernel_file(f"/proc/{task.pid}/maps"))
        task.is_passed_over = bool(self._passed) and self._may_be_passed_over(task, interpreter)
        self._on_start(task)

    def _may_be_passed_over(self, task: TracedTask, interpreter: str | None) -> bool:
        """Return whether the loader of a program may open files where the filter lets opens pass.

        The places of the filter are none of this system's loader. Another one, or the code of a static program, has the
        same place in a page by chance: one in a hundred.
        """
        if interpreter is not None and task.same_files and self._is_own_loader(interpreter):
            return False
        if self._bits_of(task.pid) != struct.calcsize("P") * 8:
            return False
        if not task.loader:
            return bool(find_entries(read_bytes(f"/proc/{task.pid}/exe", _LONGEST_CODE)) & self._passed)
        code = self._peek(task.pid, task.loader.start, len(task.loader))
        return len(code) < len(task.loader) or bool(find_entries(code, task.loader.start) & self._passed)

    def _is_own_loader(self, interpreter: str) -> bool:
        """Return whether a path is that of the loader of this process."""
        try:
            if self._own_loader is None:
                own = os.stat(self._interpreter(os.getpid()) or "")
                self._own_loader = own.st_dev, own.st_ino
            status = os.stat(interpreter)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._own_loader

    def _bits_of(self, pid: int) -> int:
        head = read_bytes(f"/proc/{pid}/exe", 5)
        return 32 if head[:5] == b"\x7fELF\x01" else 64

    def _interpreter(self, pid: int) -> str | None:
        image = self._image(f"/proc/{pid}/exe")
        return None if image is None else image.interpreter

    def _exec(self, task: TracedTask, tid: int, call: Call, arguments: tuple[int, ...]) -> Stop:
        task.may_exec = tid
        path = self._path(task.pid, arguments[call.path or 0], LONGEST_PATH)
        # After an exec the memory file still is that of the former program. It reads as empty; where the process was
        # made by vfork, as its parent's.
        self._close(task.pid)
        privileged = None
        if path is not None:
            dirfd = AT_FDCWD if call.dirfd is None else _signed(arguments[call.dirfd])
            privileged = self._lookup.why_privileged(task.pid, tid, dirfd, path)
        return ExecStop(task.pid, tid, _text(path or b""), privileged)

    def _mark(self, task: TracedTask, tid: int, call: Call, arguments: tuple[int, ...]) -> Stop | None:
        address = arguments[call.path or 0]
        self._read_marks(task)
        head = describe_memory(self._own_pid, tid)
        if self.takes_memory and address and self._peek(task.pid, address, len(head)) == head:
            task.marks, task.marks_end = address + len(head), address + SHARED_SIZE
            return MarkStop(task.pid, tid, (), is_taken=True)
        mark = self._path(task.pid, address, _LONGEST_MARK)
        if mark is None:
            return None
        decoded = (decode_mark(match[1].decode()) for match in MARK_FRAME.finditer(mark))
        marks = tuple(one for one in decoded if one is not None)
        for request in marks:
            if isinstance(request, Request):
                self._note_request(tid, request)
        maps = ""
        if OWN_BEGIN in marks:
            task.marks, maps = 0, read_kernel_file(f"/proc/{task.pid}/maps")
        return MarkStop(task.pid, tid, marks, maps=maps)

    def _read_marks(self, task: TracedTask) -> None:
        """Read the marks that have come into the memory of a process. Raises `OSError`."""
        while task.marks:
            size = min(_MARKS_AT_ONCE, task.marks_end - task.marks)
            text, at = self._peek(task.pid, task.marks, size), 0
            while (found := MARK_FRAME.match(text, at)) is not None:
                at = found.end()
                request = decode_mark(found[1].decode())
                if isinstance(request, Request):
                    self._note_request(request.tid, request)
                    self._on_marks(MarkStop(task.pid, request.tid, (request,)))
            task.marks += at
            if not at or FILLER in text[at : at + 1]:
                return

    def _note_request(self, tid: int, request: Request) -> None:
        if len(self._asked_for) >= _MOST_THREADS:
            self._asked_for.clear()
        self._asked_for[tid] = request.target.rpartition("/")[2]

    def _is_asked_for(self, tid: int, name: str) -> bool:
        """Return whether a name that is not a library's by its look has just been asked for, or is needed by an
        image."""
        return name in self._odd_names or name == self._asked_for.get(tid)

    def _open(
        self, task: TracedTask, tid: int, audit: int, call: Call, address: int, arguments: tuple[int, ...]
    ) -> Stop | None:  # fmt: skip
        by_loader = self._is_by_loader(task, audit, address)
        if by_loader is False:
            return None
        self._read_marks(task)
        raw = self._path(task.pid, arguments[call.path or 0], LONGEST_PATH)
        if not raw:
            return None
        path = _text(raw)
        name = path.rpartition("/")[2]
        if by_loader is None and ".so" not in name and not self._is_asked_for(tid, name):
            return None
        dirfd = AT_FDCWD if call.dirfd is None else _signed(arguments[call.dirfd])
        status = self._lookup.look(task.pid, tid, dirfd, raw)
        if isinstance(status, int):
            return OpenStop(task.pid, tid, time.time(), path, by_loader, None, status)
        read: ReadImage = read_nothing
        if stat.S_ISREG(status.st_mode) and ".so" in name and self._lookup.has_our_files(task.pid):
            # At once where the path leads there as long as the process lives; and where needs are looked for by name.
            is_urgent = by_loader is None or not path.startswith("/")
            read = self._reader_of(_text(self._lookup.whole(task.pid, tid, dirfd, raw)), status, is_urgent)
        return OpenStop(task.pid, tid, time.time(), path, by_loader, (status.st_dev, status.st_ino), read=read)

    def _is_by_loader(self, task: TracedTask, audit: int, address: int) -> bool | None:
        """Return whether the instruction that makes the call is in the loader: glibc's opens libraries itself (rtld has
        its own open64_nocancel, elf/dl-load.c), and libc.so serves the program. `None` if that cannot be known."""
        if not task.loader or (audit == I386.audit and address in task.vdso):
            return None  # a static program; or the kernel's common entry for all of the process (vsyscall)
        if address not in task.loader:
            return False
        return None if task.is_musl is not False else True

    def _map(self, task: TracedTask, tid: int, arguments: tuple[int, ...]) -> Stop | None:
        address, _, _, flags, descriptor, offset = arguments
        place = f"/proc/{task.pid}/task/{tid}/fd/{_signed(descriptor)}"
        status = os.stat(place)
        if not stat.S_ISREG(status.st_mode):
            return None
        segments = self._segments_of(place, status)
        if segments is None:
            return None  # a JIT's code, a closure of libffi: no image
        link = read_link(place) or ""
        path = link.removesuffix(" (deleted)")
        is_urgent = path != link or not path or not self._lookup.has_our_files(task.pid)
        read = self._reader_of(place if is_urgent else path, status, is_urgent)
        base = size = None
        if segments and flags & MAP_FIXED:
            base, size = _place(segments, address, offset, self._page)
        return MapStop(task.pid, tid, time.time(), path, (status.st_dev, status.st_ino), read, base, size)

    def _segments_of(self, place: str, status: os.stat_result) -> tuple[Segment, ...] | None:
        """Return the program headers of a file; () where they are damaged, `None` where it is no ELF file."""
        key = _key_of(status)
        if key not in self._segments:
            if len(self._segments) >= _MOST_IMAGES:
                self._segments.clear()
            self._segments[key] = parse_segments(read_bytes(place, _HEAD))
        return self._segments[key]

    def _reader_of(self, path: str, status: os.stat_result, is_urgent: bool) -> ReadImage:
        """Return what reads an image: now if it `is_urgent`; else when somebody asks, if it is the same file then."""
        if not is_urgent:
            return lambda: self._image_as_of(path, status)
        image = self._image(path, status)
        return lambda: image

    def _image_as_of(self, path: str, status: os.stat_result) -> ElfImage | None:
        key = _key_of(status)
        if key in self._images:
            return self._images[key]
        try:
            now = os.stat(path)
        except OSError:
            now = None
        if now is None or _key_of(now) != key:
            self.changed.add(path)
            return None
        return self._image(path, now)

    def _image(self, path: str, status: os.stat_result | None = None) -> ElfImage | None:
        """Return the image at a path; read once, as long as the file does not change."""
        try:
            status = status or os.stat(path)
            key = _key_of(status)
            if key not in self._images:
                if len(self._images) >= _MOST_IMAGES:
                    self._images.clear()
                self._images[key] = None
                image = self._images[key] = read_elf(path, versions=False)
                odd = [need.rpartition("/")[2] for need in image.needed[:_MOST_ODD] if ".so" not in need]
                self._odd_names.update(odd)
            return self._images[key]
        except (OSError, BinaryFormatError):
            return None

    def _path(self, pid: int, address: int, most: int) -> bytes | None:
        """The bytes at an address up to a NUL, and no more than `most`; `None` if nothing can be read there.

        Raises `OSError` when the memory of the process as a whole cannot be read.
        """
        if not address:
            return None
        found = b""
        step = 256
        while len(found) < most:
            part = self._peek(pid, address + len(found), min(step, most - len(found)))
            if not part:
                return found or None  # a path that runs into a hole: the call will fail with EFAULT
            text, is_end, _ = part.partition(b"\0")
            found += text
            if is_end:
                return found
            step = 4096
        return found

    def _peek(self, pid: int, address: int, size: int) -> bytes:
        """Bytes of the memory of a process; fewer where a hole begins, none in one."""
        for is_again in (False, True):
            descriptor = self._memory.get(pid)
            if descriptor is None:
                while len(self._memory) >= _MOST_OPEN:
                    self._close(next(iter(self._memory)))
                descriptor = self._memory[pid] = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            else:
                self._memory.move_to_end(pid)
            try:
                data = os.pread(descriptor, size, address)
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EFAULT):
                    raise
                return b""
            if data or is_again:
                return data
            self._close(pid)  # the memory of a program that is no more
        return b""

    def _close(self, pid: int) -> None:
        descriptor = self._memory.pop(pid, None)
        if descriptor is not None:
            os.close(descriptor)


def _key_of(status: os.stat_result) -> _Key:
    """What changes with the content of a file."""
    return (status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns


def _place(segments: tuple[Segment, ...], address: int, offset: int, page: int) -> tuple[int | None, int | None]:
    """Base and size of an image of which one segment is mapped to an address."""
    loads = [(start, start + size, at) for kind, _, at, start, _, size, _ in segments if kind == PT_LOAD]
    for start, _, at in loads:
        if at & -page == offset:
            low, high = min(loads)[0] & -page, max(end for _, end, _ in loads)
            return address - (start & -page) + low, high - low
    return None, None


def _extent(base: int, maps: str) -> range:
    """The addresses of the file that is mapped at an address, by the text of /proc/PID/maps."""
    end, file = 0, ""
    for line in maps.split("\n"):
        fields = line.split(None, 5)
        if len(fields) < 5:
            continue
        low, high = (int(part, 16) for part in fields[0].split("-"))
        name = fields[5] if len(fields) == 6 else ""
        if low == base:
            end, file = high, name
        elif end and name == file and file:
            end = high
    return range(base, end)


def _auxiliary(vector: bytes, bits: int) -> dict[int, int]:
    """The auxiliary vector (getauxval(3)) as a dictionary."""
    size = bits // 8
    words = [int.from_bytes(vector[at : at + size], sys.byteorder) for at in range(0, len(vector), size)]
    return dict(zip(words[::2], words[1::2], strict=False))


def _signed(value: int) -> int:
    """A descriptor in a register: its low 32 bits."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
