"""Keeps results of a long check in a file that grows: JSON lines, or Parquet with a journal; a second run continues it.

A line is one object of "targets" of `dlltracer check --json`. Lines reach the disk in batches. So a run that was killed
loses the last batch at most, and leaves at most one line that is not whole, at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

from ..model.check import NOTHING, UNREADABLE, CheckReport, Severity
from ..model.encode import encode
from .output import CommandFailed

_BATCH, _BATCH_SECONDS = 64, 5.0
"""Lines, and seconds, after which they are forced to the disk."""
_LONGEST_LINE = 256 << 20
_ROW_GROUP = 1_000


class Results(Protocol):
    """A file of results.

    Attributes: `done`, the targets that it has, each with the rank of its worst problem, `UNREADABLE` or `NOTHING`.
    """

    done: dict[str, int]

    def add(self, report: CheckReport) -> None:
        """Put a report behind the others."""

    def finish(self) -> None:
        """All targets are there: make the file complete."""

    def close(self) -> None:
        """Keep what there is, for a run that goes on with it."""


def open_results(path: str, form: str, *, again: bool) -> Results:
    """Open a file of results, new or with what an earlier run left.

    Arguments: `form`, "jsonl" or "parquet"; `again`, whether to take out the targets that could not be read. Raises
    `CommandFailed`.
    """
    return ParquetFile(path, again=again) if form == "parquet" else JsonLines(path, again=again)


def make_line(report: CheckReport) -> str:
    """Return a result as a line of JSON."""
    return json.dumps(encode(report)) + "\n"


class JsonLines:
    """A file with a line of JSON for each target. One run at a time writes to it.

    Arguments: `again`, check targets again that could not be read; their lines are dropped.
    Attributes: `done`, of each target in the file, `CheckReport.worst` of its result.
    Raises `CommandFailed`.
    """

    def __init__(self, path: str, *, again: bool) -> None:
        self.done: dict[str, int] = {}
        self._path = path
        self._unforced, self._forced_at = 0, time.monotonic()
        try:
            self._file = _open_alone(path)
            try:
                dropped = self._read_existing()
                if again and dropped:
                    self._rewrite()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise CommandFailed(f"cannot write {path}: {error.strerror or error}") from error

    def add(self, report: CheckReport) -> None:
        self._file.write(make_line(report).encode("ascii"))
        self._file.flush()
        self.done[report.target] = report.worst
        self._unforced += 1
        if self._unforced >= _BATCH or time.monotonic() - self._forced_at > _BATCH_SECONDS:
            self._force()

    def finish(self) -> None:
        self._force()

    def close(self) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):  # `add` has reported a full disk
                self._force()
            self._file.close()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the results, each as the object of its line."""
        self._file.seek(0)
        while line := self._file.readline():
            yield json.loads(line)

    def _force(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unforced, self._forced_at = 0, time.monotonic()

    def _read_existing(self) -> bool:
        """Note what the file has, and cut off a last line that is not whole. Whether a target could not be read."""
        end = number = 0
        self._file.seek(0)
        while line := self._file.readline(_LONGEST_LINE):
            number += 1
            plain = _parse(line)
            if plain is None:
                if self._file.read(1):
                    problem = f"line {number} is not a result of dlltracer check, and others follow it"
                    raise CommandFailed(f"cannot go on with {self._path}: {problem}")
                if number == 1 and not line.startswith(b'{"target"'[: len(line)]):
                    raise CommandFailed(f"cannot go on with {self._path}: it has no results of dlltracer check")
                break
            self.done[plain["target"]] = _rank_of_row(plain)
            end += len(line)
        self._file.truncate(end)
        self._file.seek(end)
        return UNREADABLE in self.done.values()

    def _rewrite(self) -> None:
        """Write the file anew without the targets that could not be read."""
        part = f"{self._path}.part"
        with open(part, "wb") as file:
            for plain in self.rows():
                if not plain["unreadable"]:
                    file.write(json.dumps(plain).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._file.close()
        os.replace(part, self._path)
        self.done = {target: rank for target, rank in self.done.items() if rank != UNREADABLE}
        self._file = _open_alone(self._path)
        self._file.seek(0, os.SEEK_END)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the object of a whole line, `None` if it is none."""
    try:
        plain = json.loads(line) if line.endswith(b"\n") else None
        _rank_of_row(plain)
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    assert isinstance(plain, dict)
    return plain


def _rank_of_row(plain: Any) -> int:
    """Return `CheckReport.worst` of a row. Raises `KeyError`, `TypeError` or `ValueError` for another object."""
    ranks = [Severity(problem["severity"]).rank for problem in plain["problems"]]
    if not isinstance(plain["target"], str) or not isinstance(plain["unreadable"], str):
        raise TypeError("the target and why it is unreadable are texts")
    return UNREADABLE if plain["unreadable"] else min(ranks, default=NOTHING)


def _open_alone(path: str) -> BinaryIO:
    """Open a file to read and to write, made if need be, for this process alone. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(22, "results go to a regular file")
    file: BinaryIO = open(descriptor, "r+b")  # noqa: SIM115 - it stays open for the whole run
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 40)  # the lock is of a place that no result reaches: it keeps readers out, too
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise OSError(error.errno, "another run writes to it") from error
    except BaseException:
        file.close()
        raise
    return file


class ParquetFile:
    """A Parquet file, written whole at the end; until then the results are in a journal beside it, FILE.jsonl.

    A run that was stopped leaves the journal, and the next one goes on with it. A row is a target. Arguments,
    attributes and errors as of `JsonLines`.
    """

    def __init__(self, path: str, *, again: bool) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise CommandFailed("a file .parquet needs pyarrow: pip install 'dlltracer[parquet]'") from error
        self._path, self._parquet, self._schema = path, parquet, _make_schema(pyarrow)
        self._earlier: dict[str, int] = {}
        self._journal = JsonLines(f"{path}.jsonl", again=again)
        try:
            if os.path.exists(path):
                self._earlier = {row["target"]: _rank_of_row(row) for row in self._rows()}
        except (OSError, pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
            self._journal.close()
            raise CommandFailed(f"cannot go on with {path}: it has no results of dlltracer check") from error
        if again:
            self._earlier = {target: rank for target, rank in self._earlier.items() if rank != UNREADABLE}
        self.done = {**self._earlier, **self._journal.done}

    def add(self, report: CheckReport) -> None:
        self._journal.add(report)
        self.done[report.target] = self._journal.done[report.target]

    def finish(self) -> None:
        """Write the file, with the rows that it had and those of the journal, which is then deleted."""
        self._journal.finish()
        part = f"{self._path}.part"
        with self._parquet.ParquetWriter(part, self._schema) as writer:
            batch = []
            for row in self._all_rows():
                batch.append(row)
                if len(batch) == _ROW_GROUP:
                    writer.write_batch(self._batch(batch))
                    batch = []
            if batch:
                writer.write_batch(self._batch(batch))
        with open(part, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, self._path)
        self._journal.close()
        os.unlink(f"{self._path}.jsonl")

    def close(self) -> None:
        self._journal.close()

    def _batch(self, rows: list[dict[str, Any]]) -> Any:
        from pyarrow import RecordBatch

        return RecordBatch.from_pylist(rows, schema=self._schema)

    def _all_rows(self) -> Iterator[dict[str, Any]]:
        # Where a run was killed between the two last steps of `finish`, both files have the rows of the journal.
        kept = self._earlier.keys() - self._journal.done.keys()
        if kept:
            yield from (row for row in self._rows() if row["target"] in kept)
        yield from self._journal.rows()

    def _rows(self) -> Iterator[dict[str, Any]]:
        with self._parquet.ParquetFile(self._path) as file:
            for batch in file.iter_batches(batch_size=_ROW_GROUP):
                yield from batch.to_pylist()


def _make_schema(pyarrow: Any) -> Any:
    """Return the columns: the keys of a line, the problems as a list of structures."""
    text, texts = pyarrow.string(), pyarrow.list_(pyarrow.string())
    problem = pyarrow.struct([
        ("code", text), ("severity", text), ("file", text), ("title", text), ("evidence", texts), ("fix", text),
        ("platform", text),
    ])  # fmt: skip
    content = pyarrow.struct([("name", text), ("version", text), ("files", texts)])
    return pyarrow.schema([
        ("target", text), ("problems", pyarrow.list_(problem)), ("files", pyarrow.int64()), ("platforms", texts),
        ("unreadable", text), ("notes", texts), ("packages", pyarrow.list_(content)),
    ])  # fmt: skip
