"""The cache of what was read: what it answers, what it refuses, several users at once, one that is killed."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from dlltracer.host.image_cache import FORMAT, ImageCache, cache_folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(10**18, 10**18 + 1))
    return path


def settled(path: Path) -> os.stat_result:
    """Wait until the state of the file may be kept: its entry was changed a second ago."""
    while (status := os.stat(path)).st_ctime_ns > time.time_ns() - 1_100_000_000:
        time.sleep(0.05)
    return status


def test_an_answer_is_for_one_state(tmp_path: Path, file: Path) -> None:
    folder, status = str(tmp_path / "cache"), settled(file)
    with ImageCache(folder) as cache:
        assert cache.get(status, "needs") is None
        cache.put(status, "needs", b"first")
        cache.put(status, "other", b"second")
    with ImageCache(folder) as cache:
        assert (cache.get(status, "needs"), cache.get(status, "other")) == (b"first", b"second")
        assert cache.get(status, "third") is None and (cache.found, cache.missed) == (2, 1)
        os.utime(file, ns=(10**18, 10**18 + 2))
        assert cache.get(os.stat(file), "needs") is None
    assert cache.notes == []


def test_what_is_of_no_file_has_a_name(tmp_path: Path, file: Path) -> None:
    folder = str(tmp_path / "cache")
    with ImageCache(folder) as cache:
        assert cache.get_named("report") is None
        cache.put_named("report", b"first")
        cache.put_named("other", b"other")
    with ImageCache(folder) as cache:
        cache.put_named("report", b"second")
        assert cache.get(os.stat(file), "report") is None
    with ImageCache(folder) as cache:
        assert (cache.get_named("report"), cache.get_named("other")) == (b"second", b"other")


def test_what_has_just_changed_is_not_kept(tmp_path: Path, file: Path) -> None:
    folder = str(tmp_path / "cache")
    file.write_bytes(b"new")
    status = os.stat(file)
    with ImageCache(folder) as cache:
        cache.put(status, "needs", b"kept too early")
    with ImageCache(folder) as cache:
        assert cache.get(status, "needs") is None


def test_no_cache_at_all() -> None:
    with ImageCache(None) as cache:
        cache.put(os.stat(os.__file__), "needs", b"x")
        assert cache.get(os.stat(os.__file__), "needs") is None and not cache.is_open and cache.notes == []


def test_hostile_databases_are_left_alone(tmp_path: Path) -> None:
    """Each is ignored with a note, in bounded time, and stays as it is."""
    status, folder = os.stat(os.__file__), tmp_path / "cache"
    folder.mkdir()
    path = folder / f"images-{FORMAT}.sqlite"

    def endless() -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "CREATE VIEW files AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n)"
                " SELECT i AS device, i AS number, 'needs' AS kind, i AS size, i AS modified, i AS changed, i AS used,"
                " x'00' AS data FROM n"
            )

    def foreign() -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE files (x)")

    def damaged() -> None:
        with ImageCache(str(folder)) as cache:
            for number in range(200):
                cache.put(status, f"kind {number}", random.Random(number).randbytes(2_000))
        data = bytearray(path.read_bytes())
        for at in range(100, len(data), 97):
            data[at] ^= 0xFF
        path.write_bytes(data)

    hostile = {
        "garbage": lambda: path.write_bytes(os.urandom(50_000)), "endless": endless, "foreign": foreign,
        "damaged": damaged, "a folder": path.mkdir, "cut": lambda: path.write_bytes(b"SQLite format 3\0" * 3),
    }  # fmt: skip
    for what, make in hostile.items():
        make()
        start = time.process_time()
        with ImageCache(str(folder)) as cache:
            assert cache.get(status, "needs") is None, what
            cache.put(status, "needs", b"x")
        assert len(cache.notes) == 1 and "was not used" in cache.notes[0], (what, cache.notes)
        assert time.process_time() - start < 2, what
        if path.is_dir():
            path.rmdir()
        for each in folder.glob("images-*"):
            each.unlink()


WRITER = """
import os, sys
from dlltracer.host.image_cache import ImageCache
folder, file, number = sys.argv[1], sys.argv[2], sys.argv[3]
status = os.stat(file)
print("ready", flush=True)
for turn in range(1000):
    with ImageCache(folder) as cache:
        for kind in range(20):
            cache.put(status, f"{number}-{turn}-{kind}", b"x" * 20_000)
        assert cache.get(status, "kept") == b"kept", cache.notes
"""


def test_several_at_once_and_one_killed(tmp_path: Path) -> None:
    """Writers are killed in the middle: what was written before is whole, and the next one goes on."""
    folder, status = str(tmp_path / "cache"), os.stat(os.__file__)
    with ImageCache(folder) as cache:
        cache.put(status, "kept", b"kept")
    command = [sys.executable, "-c", WRITER, folder, os.__file__]
    writers = [subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(3)]
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        seen = 0
        while seen < 200:  # until much of all three is there
            with closing(sqlite3.connect(os.path.join(folder, f"images-{FORMAT}.sqlite"))) as database, database:
                (seen,) = database.execute("SELECT count(*) FROM files").fetchone()
            assert all(writer.poll() is None for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    with ImageCache(folder) as cache:
        assert cache.get(status, "kept") == b"kept"
        cache.put(status, "after", b"after")
    with ImageCache(folder) as cache:
        assert cache.get(status, "after") == b"after" and cache.notes == []
    with closing(sqlite3.connect(os.path.join(folder, f"images-{FORMAT}.sqlite"))) as database, database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlltracer.host.image_cache.MOST_KEPT", 50_000)
    folder, status = str(tmp_path / "cache"), os.stat(os.__file__)
    for turn in range(10):
        with ImageCache(folder) as cache:
            cache.put(status, f"turn {turn}", bytes(10_000))
    with ImageCache(folder) as cache:
        assert cache.get(status, "turn 9") is not None and cache.get(status, "turn 0") is None


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == str(tmp_path / "dlltracer")
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_folder() is None
