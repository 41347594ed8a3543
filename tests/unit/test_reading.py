"""Files are read without waiting, without a map, and never beyond their end."""

from __future__ import annotations

import os
import socket
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.elf_file import ElfFile, Symbol
from builders.pe_file import build_pe
from dlltracer.binary.elf import parse_elf, read_elf
from dlltracer.binary.pe import parse_pe, read_pe
from dlltracer.binary.reading import FileBytes, OpenedFile, open_regular, read_regular
from dlltracer.errors import BinaryFormatError

CONTENT = bytes(range(256)) * 300
OFFSETS = st.integers(-10, len(CONTENT) + 10)


def large_elf() -> bytes:
    """An ELF file whose tables lie in several blocks, in more than is read at once."""
    return ElfFile(symbols=tuple(Symbol(f"symbol_{number}_{'x' * 40}") for number in range(4000))).build()


def large_pe() -> bytes:
    return build_pe(exports=tuple(f"export_{number}_{'x' * 40}" for number in range(3000)))


@given(start=OFFSETS, stop=OFFSETS)
def test_slices_are_those_of_bytes(start: int, stop: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "content"
    path.write_bytes(CONTENT)
    with OpenedFile(str(path)) as data:
        assert isinstance(data, FileBytes)
        assert len(data) == len(CONTENT)
        assert data[start:stop] == CONTENT[start:stop]


@given(start=st.integers(0, len(CONTENT) + 10), end=OFFSETS, byte=st.binary(min_size=1, max_size=1))
def test_a_byte_is_found_where_bytes_finds_it(
    start: int, end: int, byte: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = b"\1" * 50_000 + CONTENT
    path = tmp_path_factory.getbasetemp() / "found"
    path.write_bytes(content)
    end = max(end, 0)
    with OpenedFile(str(path)) as data:
        assert data.find(byte, start, end) == content.find(byte, start, end)


@pytest.mark.parametrize(("build", "parse"), [(large_elf, parse_elf), (large_pe, parse_pe)])
def test_a_file_is_read_from_the_disk_as_from_memory(build, parse, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = build()
    path = tmp_path / "image"
    path.write_bytes(data)
    with OpenedFile(str(path)) as opened:
        assert isinstance(opened, FileBytes)
        assert parse(opened, symbols=True) == parse(data, symbols=True)


@pytest.mark.parametrize(("build", "parse"), [(large_elf, parse_elf), (large_pe, parse_pe)])
@pytest.mark.parametrize("kept", [0, 1, 100, 0x5000, 0x10000])
@pytest.mark.parametrize("is_touched", [False, True])
def test_a_file_that_shrinks_while_it_is_read_is_an_error(  # type: ignore[no-untyped-def]
    build, parse, kept: int, is_touched: bool, tmp_path: Path
) -> None:
    """From a map the access behind the new end would be SIGBUS, the end of this very process."""
    path = tmp_path / "image"
    path.write_bytes(build())
    assert path.stat().st_size > 0x20000
    with OpenedFile(str(path)) as data:
        if is_touched:
            assert data[:2]
        os.truncate(path, kept)
        with pytest.raises(BinaryFormatError, match="became shorter"):
            parse(data, symbols=True)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 30)
    tracemalloc.start()
    try:
        with OpenedFile(str(path)) as data:
            assert isinstance(data, FileBytes)
            for offset in range(0, 1 << 27, 1 << 15):
                assert data[offset : offset + 1] == b"\0"
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize("read", [read_elf, read_pe, open_regular])
def test_only_regular_files_are_read(read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (str(tmp_path / "fifo"), str(tmp_path / "socket"), "/dev/null", "/dev/zero"):
            with pytest.raises(BinaryFormatError, match="not a regular file"):
                read(path)
    with pytest.raises(IsADirectoryError):
        read(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_put_in_place_of_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a path and its opening another user may swap the file."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    real = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda *_, **__: real)
    with pytest.raises(BinaryFormatError, match="not a regular file"):
        open_regular(str(tmp_path / "fifo"))


def test_no_more_than_asked_for_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    assert read_regular(str(tmp_path / "file"), 4) == b"abcd"
    assert read_regular(str(tmp_path / "file"), 40) == b"abcdef"


def test_a_limit_is_no_size(tmp_path: Path) -> None:
    """A read makes room for all that it asks for: of a small file no more is asked for than a piece at a time."""
    path = tmp_path / "small"
    path.write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        data = read_regular(str(path), 1 << 28)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(data), peak < 1 << 20) == (1000, True), peak


def test_pieces_are_put_together(tmp_path: Path) -> None:
    path = tmp_path / "large"
    whole = bytes(range(256)) * 5000
    path.write_bytes(whole)
    assert read_regular(str(path), 1 << 28) == whole
    assert read_regular(str(path), 700_001) == whole[:700_001]
