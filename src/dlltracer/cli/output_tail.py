"""Keeps the ends of what a program writes, its two streams apart, in bounded memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from types import TracebackType

from ..model.run import ProgramOutput

_LIMIT = 64 * 1024
"""Bytes of a stream that are kept: its last ones."""

_GRACE = 0.5
"""Seconds for what is still on its way when the program has ended: a process it left behind may hold the pipe open."""


class OutputTail:
    """Two pipes and a thread for each that reads it, as long as the program runs.

    `stdout` and `stderr` are the descriptors to hand to a child process; after the end of the block `result` is what
    came. A process that the program leaves behind finds its pipe closed then. Where no thread can be started, the
    output goes to the null device and `note` says so.
    """

    def __init__(self) -> None:
        self.result = ProgramOutput()
        self.note: str | None = None
        self._streams: list[_Stream] = []

    def __enter__(self) -> OutputTail:
        try:
            self._streams = [_Stream(), _Stream()]
            self.stdout, self.stderr = (stream.write_end for stream in self._streams)
        except (OSError, RuntimeError) as error:  # no descriptors, no threads
            self.note = f"what the program wrote could not be kept: {error}"
            for stream in self._streams:
                stream.finish()
            self.stdout = self.stderr = os.open(os.devnull, os.O_WRONLY)
            self._streams = []
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._streams:
            os.close(self.stdout)
            return
        stdout, stderr = (stream.finish() for stream in self._streams)
        omitted = sum(stream.omitted for stream in self._streams)
        self.result = ProgramOutput(stdout=stdout, stderr=stderr, omitted=omitted)


class _Stream:
    """One pipe. Raises `OSError`, `RuntimeError` (no thread)."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self.omitted = 0
        self._thread = threading.Thread(target=self._read, name="dlltracer-output", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._read_end)
            os.close(self.write_end)
            raise

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._read_end, _LIMIT)
            except OSError:
                return
            if not chunk:
                return
            self._chunks.append(chunk)
            self._size += len(chunk)
            while self._size - len(self._chunks[0]) >= _LIMIT:
                self._size -= len(self._chunks[0])
                self.omitted += len(self._chunks.popleft())

    def finish(self) -> str:
        """Close the pipe; the text that is left."""
        os.close(self.write_end)
        self._thread.join(_GRACE)
        data = b"".join(tuple(self._chunks))
        if not self._thread.is_alive():
            os.close(self._read_end)  # else a process that was left behind has it: closed when ours ends
        if len(data) > _LIMIT:
            self.omitted += len(data) - _LIMIT
            data = data[-_LIMIT:]
        if self.omitted:
            data = data.partition(b"\n")[2]
        return data.decode("utf-8", "replace").replace("\r\n", "\n")
