"""Finding the loader's words by their pattern."""

from __future__ import annotations

import os
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the loader of glibc is Linux's", allow_module_level=True)

from dlltracer.capture.linux import debug_mask, log_file
from dlltracer.errors import BackendUnavailable

TICKS = os.sysconf("SC_CLK_TCK")


def words(*tail: int) -> tuple[int, ...]:
    return (0, 7, 9, 0, *tail, 0, 0, 0, 0)


def test_the_pattern() -> None:
    assert debug_mask.find_debug_fd(words(TICKS, 0, 2, 1)) == 6
    assert debug_mask.find_debug_fd(words(5, TICKS, 1, 9, 0)) == 7


@pytest.mark.parametrize("tail", [(TICKS, 2, 2, 1), (TICKS, 0, -1, 1), (TICKS, 0, 2, 5), ()])
def test_no_place_fits(tail: tuple[int, ...]) -> None:
    with pytest.raises(BackendUnavailable, match="0 places fit"):
        debug_mask.find_debug_fd(words(*tail))


def test_two_places_fit_is_no_answer() -> None:
    with pytest.raises(BackendUnavailable, match="2 places fit"):
        debug_mask.find_debug_fd(words(TICKS, 0, 2, 1, TICKS, 0, 2, 1))


def test_page_protection_of_a_known_mapping() -> None:
    assert debug_mask.page_protection(id(object())) & 3 == 3
    with pytest.raises(BackendUnavailable, match="not in /proc/self/maps"):
        debug_mask.page_protection(1)


def test_a_system_without_glibc_gets_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    class Without:
        @staticmethod
        def in_dll(library: object, name: str) -> object:
            raise ValueError("undefined symbol: _rtld_global_ro")

    monkeypatch.setattr(ctypes, "c_char", Without)
    with pytest.raises(BackendUnavailable, match=r"not glibc .*backend='snapshot'"):
        debug_mask.DebugMaskPatch()


def test_words_that_say_nothing_are_refused_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    found = debug_mask.DebugMaskPatch()
    before = found.before
    monkeypatch.setattr(debug_mask.DebugMaskPatch, "barrier", lambda self: None)
    fd = log_file.create_memory_file("test")
    try:
        assert not found.prove(fd)
        assert debug_mask.DebugMaskPatch().before == before
        with pytest.raises(BackendUnavailable, match="produced no log"):
            debug_mask.prove_patch(found, fd)
    finally:
        os.close(fd)
    assert debug_mask.DebugMaskPatch().before == before


def test_a_page_that_cannot_be_written_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = debug_mask.DebugMaskPatch()

    class Libc:
        @staticmethod
        def mprotect(*arguments: int) -> int:
            return -1

    monkeypatch.setattr(found, "_libc", Libc)
    with pytest.raises(BackendUnavailable, match="does not let the loader's page be written"):
        found.write(*found.before)


def test_a_memory_file_without_the_interpreters_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    fd = log_file.create_memory_file("test")
    try:
        assert os.write(fd, b"x") == 1 and os.pread(fd, 2, 0) == b"x" and not os.get_inheritable(fd)
        assert "memfd:test" in os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
