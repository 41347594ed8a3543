"""Keeps facts read from native files, and results of whole checks, for the next check in an SQLite database.

It is in the user's cache folder. The entry of a file answers for one state of it: device, number, size, and both times
to the nanosecond. That of a check has a name of its own, and says itself what it answers for. What changed just now
is not kept, as another change within the same tick of the clock would look the same. The database may be used by
several checks at once and survives any of them being killed (write-ahead log); whoever finds it busy goes without.
A database that is damaged, foreign or of another version is left alone, and a note says so.

Sources: "Write-Ahead Logging", "PRAGMA Statements" and "Defense Against The Dark Arts" of SQLite; the XDG Base
Directory Specification; "racy git" in the documentation of Git.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from .configfile import describe_owner, is_trusted_owner

if TYPE_CHECKING:
    import sqlite3

FORMAT = 1
"""Changes whenever the entries do, or what the readers make of a file. It is in the name of the database."""
_APPLICATION = 0x646C6C74
_LARGEST = 1 << 30
"""Bytes of a database that is used. Ours stay below `MOST_KEPT`."""
MOST_KEPT = 256 << 20
"""Bytes of all entries together; beyond that, the entries go first that were not used for longest."""
_LARGEST_ENTRY = 32 << 20
_AT_ONCE = 4 << 20
"""Bytes that wait to be written."""
_BUSY_MS = 1_000
_STEPS, _MOST_STEPS = 100_000, 500
"""SQLite's own steps between two looks, and how many looks a database gets: ours need a hundredth of that. A hostile
one has views that never end."""
_NAMED = -1
"""The device of entries that are of no file."""
_RECENT_NS = 1_000_000_000
_COARSE_NS = 2_100_000_000
"""FAT counts time in two seconds, ext3 and HFS+ in one."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS files (device INTEGER, number INTEGER, kind TEXT, size INTEGER, modified INTEGER,"
    " changed INTEGER, used INTEGER, data BLOB, PRIMARY KEY (device, number, kind))"
)
_FIND = (
    "SELECT data FROM files WHERE device=? AND number=? AND kind=? AND size=? AND modified=? AND changed=?"
    " AND length(data) <= ?"
)


def cache_folder() -> str | None:
    """Return the folder for what this user's checks keep; `None` where there is none."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    # The XDG specification: a relative path is invalid, and ignored. Without a home the tilde stays.
    return os.path.join(base, "dlltracer") if base and os.path.isabs(base) else None


class ImageCache:
    """The database, for a `with` block. It never raises: without a database nothing is found and nothing kept.

    Argument: `folder`, where it is; `None` for no cache at all.
    Attributes: `notes`, why it was not used; `found` and `missed`, how many entries were.
    """

    def __init__(self, folder: str | None) -> None:
        self.notes: list[str] = []
        self.found = self.missed = 0
        self._database: sqlite3.Connection | None = None
        self._new: dict[tuple[int, int, str], tuple[int, int, int, bytes]] = {}
        self._used: list[tuple[int, int, str]] = []
        self._waiting = 0
        self._has_written = False
        self._steps_left = _MOST_STEPS
        if folder is not None:
            self._open(folder)

    def __enter__(self) -> ImageCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """True if anything is kept."""
        return self._database is not None

    def get(self, status: os.stat_result, kind: str) -> bytes | None:
        """Return what was kept of a file in this state.

        Arguments: `status`, of the file; `kind`, what was kept of it ("needs").
        """
        state = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        return self._find((status.st_dev, _signed(status.st_ino), kind), state)

    def get_named(self, name: str) -> bytes | None:
        """Return what was kept under a name."""
        return self._find((_NAMED, 0, name), (0, 0, 0))

    def _find(self, key: tuple[int, int, str], state: tuple[int, int, int]) -> bytes | None:
        if self._database is None:
            return None
        try:
            self._steps_left = _MOST_STEPS
            row = self._database.execute(_FIND, (*key, *state, _LARGEST_ENTRY)).fetchone()
        except Exception as error:  # noqa: BLE001 - sqlite3.Error, OverflowError: whatever a hostile file makes of it
            self._give_up(error)
            return None
        if row is None or not isinstance(row[0], bytes):
            self.missed += 1
            return None
        self.found += 1
        self._used.append(key)
        return row[0]

    def put(self, status: os.stat_result, kind: str, data: bytes) -> None:
        """Keep something of a file; the last of it is written when the block ends."""
        if not _is_recent(status):
            state = status.st_size, status.st_mtime_ns, status.st_ctime_ns
            self._keep((status.st_dev, _signed(status.st_ino), kind), state, data)

    def put_named(self, name: str, data: bytes) -> None:
        """Keep something under a name, in the place of what was kept under it."""
        self._keep((_NAMED, 0, name), (0, 0, 0), data)

    def _keep(self, key: tuple[int, int, str], state: tuple[int, int, int], data: bytes) -> None:
        if self._database is None or len(data) > _LARGEST_ENTRY:
            return
        self._new[key] = *state, data
        self._waiting += len(data)
        if self._waiting > _AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is new, and let go of the database."""
        self._flush(is_last=True)
        self._close()

    def _flush(self, *, is_last: bool = False) -> None:
        if self._database is None:
            return
        try:
            self._steps_left = 100 * _MOST_STEPS
            self._write(self._database, is_last=is_last)
        except Exception as error:  # noqa: BLE001 - as in `get`
            self._give_up(error)
        self._new.clear()
        self._waiting = 0

    def _open(self, folder: str) -> None:
        path = os.path.join(folder, f"images-{FORMAT}.sqlite")
        try:
            import sqlite3
        except ImportError:
            self.notes.append("nothing is kept for the next check: this Python has no sqlite3")
            return
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            for each in filter(os.path.lexists, (folder, path)):
                if not is_trusted_owner(each):
                    self.notes.append(f"the cache {each} belongs to {describe_owner(each)}, and was not used")
                    return
            if os.path.lexists(path) and not os.path.isfile(path):
                self.notes.append(f"the cache {path} is no file, and was not used")
                return
            if os.path.exists(path) and os.path.getsize(path) > _LARGEST:
                self.notes.append(f"the cache {path} is larger than {_LARGEST >> 20} MiB, and was not used: remove it")
                return
            self._database = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None)
            self._prepare(self._database)
        except Exception as error:  # noqa: BLE001 - as in `get`
            self._give_up(error, path)

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.set_progress_handler(self._count_steps, _STEPS)
        database.execute("PRAGMA trusted_schema=OFF")
        database.execute("PRAGMA cell_size_check=ON")
        application, version = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        kinds = database.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        if not kinds:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute("BEGIN IMMEDIATE")
            database.execute(_TABLE)
            database.execute(f"PRAGMA application_id={_APPLICATION}")
            database.execute(f"PRAGMA user_version={FORMAT}")
            database.execute("COMMIT")
        elif (application, version, kinds) != (_APPLICATION, FORMAT, [("table", "files")]):
            raise ValueError("it is none of this version of dlltracer")
        else:
            database.execute("PRAGMA synchronous=NORMAL")

    def _write(self, database: sqlite3.Connection, *, is_last: bool) -> None:
        now = int(time.time())
        database.execute("BEGIN IMMEDIATE")
        if self._new:
            database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                ((*key, size, modified, changed, now, data)
                 for key, (size, modified, changed, data) in self._new.items()),
            )  # fmt: skip
        if self._used and is_last:
            # To the day is enough to know what goes first, and leaves most runs nothing to write.
            database.executemany(
                "UPDATE files SET used=? WHERE device=? AND number=? AND kind=? AND used < ?",
                ((now, *key, now - 86_400) for key in self._used),
            )
        self._has_written |= bool(self._new)
        if is_last and self._has_written:
            self._drop_oldest(database)
        database.execute("COMMIT")

    def _drop_oldest(self, database: sqlite3.Connection) -> None:
        total = database.execute("SELECT coalesce(sum(length(data)), 0) FROM files").fetchone()[0]
        if total <= MOST_KEPT:
            return
        gone = []
        for row, size in database.execute("SELECT rowid, length(data) FROM files ORDER BY used, rowid"):
            gone.append((row,))
            total -= size
            if total <= MOST_KEPT * 3 // 4:
                break
        database.executemany("DELETE FROM files WHERE rowid=?", gone)

    def _count_steps(self) -> int:
        self._steps_left -= 1
        return int(self._steps_left < 0)

    def _give_up(self, error: Exception, path: str = "") -> None:
        """Go on without the database. One that others write to at the moment is not worth a note."""
        is_busy = "locked" in str(error) or "busy" in str(error)
        if not is_busy:
            where = f"the cache {path}" if path else "the cache"
            self.notes.append(f"{where} was not used, and may be removed: {error}")
        self._close()

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(Exception):  # nothing more can be done for it
                database.close()


def _signed(number: int) -> int:
    """Return a file number as SQLite's integers hold it: 63 bits and a sign. Those of NTFS and ZFS have 64."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _is_recent(status: os.stat_result) -> bool:
    """Return whether the file may change once more without its times changing."""
    times: Iterable[int] = (status.st_mtime_ns, status.st_ctime_ns)
    return not is_settled(max(times), time.time_ns(), is_coarse=all(value % 1_000_000_000 == 0 for value in times))


def is_settled(changed: int, now: int, *, is_coarse: bool) -> bool:
    """Return whether a file that changed last at a time cannot have changed again by now in the same tick of its clock.

    Arguments: both times in nanoseconds; `is_coarse`, the file system may keep whole seconds only.
    """
    return changed <= now - (_COARSE_NS if is_coarse else _RECENT_NS)
