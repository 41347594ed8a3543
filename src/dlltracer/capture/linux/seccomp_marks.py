"""Hands the requests of Python to a tracer of this process's system calls: in memory, or by a call that does nothing.

Runs in the process of the program, and imports nothing that the program could tell from a plain interpreter.

The call is access(2) with `MARK_MODE` and a mark as its path. It stops for the tracer, which costs more than all else
that a request costs. So most marks lie in memory that the tracer reads when it next looks at a call of this process,
before it looks at the call. A request that was written before its thread opens a file is known when that open stops.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock, get_native_id
from io import BytesIO

from ..marks import MARK_END, MARK_MODE, MARK_START, OWN_BEGIN, OWN_END, encode_request
from ..requests import FIND_LIBRARY, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..requests import RawRequest

FILLER = b"\x1d"
"""What is not written yet is full of it. No mark has it, and a path may: NUL would end it."""
SHARED_SIZE = 1 << 16
"""Bytes of memory: some hundred marks."""


def describe_memory(tracer: int, tid: int) -> bytes:
    """Return the mark at the begin of memory that a tracer is to read.

    Arguments: `tracer`, its process id: another one may watch it with all that it watches, and must not take the memory
    on; `tid`, the id of the thread that hands it over, which tells whether both have the same PID namespace.
    """
    return MARK_START + b"memory for %d of %d" % (tracer, tid) + MARK_END


_LONGEST = SHARED_SIZE // 16


class WatchedCalls:
    """The log of a process whose system calls are watched, from the start to `leave`."""

    def __init__(self) -> None:
        # The functions of now: the program may put others in their place.
        self._current_pid, self._access = os.getpid, os.access
        self._tracer = os.getppid()
        self._memory: dict[int, SharedMarks] = {}
        self._watch = Watch(self._note_request)
        self._watch.start()
        self._call(OWN_END)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what was not seen of requests."""
        return self._watch.notes

    def leave(self) -> None:
        """Note no more requests: all further loads are ours."""
        self._watch.end()
        self._call(OWN_BEGIN)

    def _note_request(self, raw: RawRequest) -> None:
        mark = encode_request(raw)
        # After a search that found nothing no file is opened: the tracer might never look for what lies in memory.
        if raw[0] == FIND_LIBRARY or not self._memory_of(self._current_pid()).write(mark):
            self._call(mark)

    def _memory_of(self, pid: int) -> SharedMarks:
        """Return the memory of this process: one that was made by fork has its own."""
        memory = self._memory.get(pid)
        return self._memory.setdefault(pid, SharedMarks(self._call, self._tracer)) if memory is None else memory

    def _call(self, mark: bytes) -> bool:
        """Let a mark stop for the tracer; whether it has taken on the memory of it."""
        return self._access(mark, MARK_MODE)


class SharedMarks:
    """Marks in memory that the tracer reads.

    The memory is that of a `bytes` object. `BytesIO` writes into it in place, as long as nobody else has the object
    (write_bytes in Modules/_io/bytesio.c of CPython), and access(2) gets its address. Nothing is written twice, so the
    tracer never sees half of one mark and half of another: where one is full another takes its place.

    Arguments: `call`, which lets a mark stop for the tracer; `tracer`, its process id.
    """

    def __init__(self, call: Callable[[bytes], bool], tracer: int) -> None:
        self._call = call
        self._tracer = tracer
        self._lock = allocate_lock()
        self._buffer = BytesIO()
        self._at = SHARED_SIZE
        self._id = 0
        self._is_of_use = sys.implementation.name == "cpython"

    def write(self, mark: bytes) -> bool:
        """Write a mark; whether that was possible."""
        # The handler of a signal runs in the thread that it interrupts, which may be at this: it must not wait for it.
        if not self._is_of_use or len(mark) > _LONGEST or not self._lock.acquire(False):
            return False
        try:
            if self._at + len(mark) >= SHARED_SIZE:
                self._is_of_use = self._hand_over()
            if not self._is_of_use:
                return False
            self._buffer.seek(self._at)
            self._buffer.write(mark)
            self._at += len(mark)
            self._is_of_use = id(self._buffer.getvalue()) == self._id
            return self._is_of_use
        finally:
            self._lock.release()

    def _hand_over(self) -> bool:
        """Begin with new memory; whether the tracer has taken it on. It then reads no other of this process.

        A free-threaded CPython writes into a copy. That shows before the tracer knows of memory that is given back.
        """
        head = describe_memory(self._tracer, get_native_id())
        self._buffer, self._at = BytesIO(head + FILLER * (SHARED_SIZE - len(head))), len(head)
        self._id = id(self._buffer.getvalue())
        self._buffer.seek(self._at)
        self._buffer.write(FILLER)
        memory = self._buffer.getvalue()
        return id(memory) == self._id and self._call(memory)
