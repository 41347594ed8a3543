"""The pure parts of watching for a crash: addresses to files, registers, what the kernel's structures hold."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform != "linux":
    pytest.skip("ptrace of Linux", allow_module_level=True)

from dlltracer.capture.linux.crashwatch import CRASH_SIGNALS, Arrival, availability, is_echo
from dlltracer.capture.linux.processes import is_stack_overflow, locate
from dlltracer.capture.linux.ptrace import SignalInfo, decode_registers, parse_syscall, parse_yama
from dlltracer.model.failure import Crash

MAPS = """\
00400000-00401000 r--p 00000000 fe:00 11                                 /opt/app/program
00401000-00405000 r-xp 00001000 fe:00 11                                 /opt/app/program
00405000-00406000 rw-p 00004000 fe:00 11                                 /opt/app/program
00500000-00600000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000100000 r--s 00000000 fe:00 12                         /lib/libx.so
7f0000100000-7f0000101000 r--p 00000000 fe:00 13                         /lib/lib other.so
7f0000200000-7f0000201000 r--p 00000000 fe:00 12                         /lib/libx.so
7f0000201000-7f0000203000 r-xp 00001000 fe:00 12                         /lib/libx.so
7f0000203000-7f0000204000 ---p 00000000 00:00 0
7f0000204000-7f0000206000 rw-p 00003000 fe:00 12                         /lib/libx.so
7f0000206000-7f0000207000 rw-p 00000000 00:00 0
7f0000300000-7f0000301000 r-xp 00002000 fe:00 14                         /tmp/inside.zip (deleted)
7f0000301000-7f0000302000 rw-p 00003000 fe:00 14                         /tmp/inside.zip (deleted)
7f0000400000-7f0000401000 r-xp 00000000 fe:00 15                         /tmp/line\\012break.so
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]
"""


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (0x401234, ("/opt/app/program", 0x1234)),
        (0x405010, ("/opt/app/program", 0x5010)),
        (0x500010, None),
        (0x7F0000201010, ("/lib/libx.so", 0x1010)),
        (0x7F0000205FFF, ("/lib/libx.so", 0x5FFF)),
        (0x7F0000203010, None),
        (0x7F0000206010, None),
        (0x7F0000100010, ("/lib/lib other.so", 0x10)),
        (0x7F0000301010, ("/tmp/inside.zip", 0x1010)),
        (0x7F0000400010, ("/tmp/line\nbreak.so", 0x10)),
        (0x7FFF00000010, None),
        (0x7F0000207000, None),
        (0, None),
        (1 << 64, None),
    ],
)
def test_locate(address: int, expected: tuple[str, int] | None) -> None:
    assert locate(address, MAPS) == expected


STACKS = """\
00400000-00401000 rw-p 00000000 00:00 0                                  [heap]
7e0000000000-7e0000001000 ---p 00000000 00:00 0
7e0000001000-7e0000081000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]
"""


@pytest.mark.parametrize(
    ("stack", "fault", "is_one"),
    [
        (0x7E0000001010, 0x7E0000000FF8, True),  # a call at the end of the stack
        (0x7DFFFFE00000, 0x7DFFFFE00001, True),  # a frame of 2 MB, beyond the guard page
        (0x7FFBFFFFFFF0, 0x7FFBFFFFFFF0, True),  # below the main thread's
        (0x7E0000001010, 8, False),  # a null pointer
        (0x7E0000001010, 0x7E0000001000, False),  # what may be written
        (0x7E0000001010, None, False),
        (0x7E0000060000, 0x7E0000000FF8, False),  # far below the pointer
        (0x7FFF00000008, 0x7FFF00000000, False),  # no stack above
        (8, 8, False),
    ],
)
def test_is_stack_overflow(stack: int, fault: int | None, is_one: bool) -> None:
    assert is_stack_overflow(stack, fault, STACKS) is is_one


def test_locate_where_code_may_run() -> None:
    assert locate(0x401234, MAPS, runs=True) == ("/opt/app/program", 0x1234)
    assert locate(0x405010, MAPS, runs=True) is None
    assert locate(0x401234, "") is None


@dataclass(frozen=True)
class Segment:
    pages: int
    gap: int
    anonymous: int


SEGMENTS = st.builds(Segment, st.integers(1, 9), st.integers(0, 3), st.integers(0, 2))


@given(
    st.lists(st.lists(SEGMENTS, min_size=1, max_size=5), min_size=1, max_size=6),
    st.integers(0, 1 << 40),
    st.data(),
)
def test_locate_finds_every_byte_of_every_file(files: list[list[Segment]], start: int, data: st.DataObject) -> None:
    """Files mapped one after the other, each from its beginning, the same one now and then more than once."""
    at, lines, known = start << 12, [], []
    for number, segments in enumerate(files):
        base, name = at, f"/lib/lib{number % 3}.so"
        for segment in segments:
            offset, end = at - base, at + (segment.pages << 12)
            lines.append(f"{at:x}-{end:x} r-xp {offset:08x} fe:00 {number % 3} {name}")
            known.append((range(at, end), (name, base)))
            at = end + (segment.gap << 12)
            if segment.anonymous:
                lines.append(f"{at:x}-{at + 4096:x} rw-p 00000000 00:00 0")
                known.append((range(at, at + 4096), None))
                at += 4096
    for span, owner in known:
        address = data.draw(st.sampled_from((span[0], span[-1], span[len(span) // 2])))
        assert locate(address, "\n".join(lines) + "\n") == (owner and (owner[0], address - owner[1]))


def test_locate_in_this_process() -> None:
    """The loader's own log of a function: dladdr(3)."""

    class Info(ctypes.Structure):
        _fields_ = (("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("rest", ctypes.c_void_p * 2))

    libc = ctypes.CDLL(None)
    address = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    assert address is not None
    info = Info()
    assert libc.dladdr(ctypes.c_void_p(address), ctypes.byref(info))
    expected = os.path.realpath(os.fsdecode(info.file)), address - info.base
    assert locate(address, Path("/proc/self/maps").read_text(), runs=True) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-1 0x7ffd9a306928 0x7f4863985ad8\n", (0x7F4863985AD8, 0x7FFD9A306928)),
        ("234 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffcc39fae50 0x7f4bbcca8eec\n", (0x7F4BBCCA8EEC, 0x7FFCC39FAE50)),
        ("running\n", None),
        ("", None),
    ],
)
def test_parse_syscall(text: str, expected: tuple[int, int] | None) -> None:
    assert parse_syscall(text) == expected


@given(st.text())
def test_parse_syscall_of_anything(text: str) -> None:
    found = parse_syscall(text)
    assert found is None or len(found) == 2


def test_registers_of_the_machines() -> None:
    x86 = b"".join(number.to_bytes(8, sys.byteorder) for number in range(27))
    arm = b"".join(number.to_bytes(8, sys.byteorder) for number in range(34))
    assert decode_registers(x86, "x86_64") == (16, 19)
    assert decode_registers(arm, "aarch64") == (32, 31)
    assert decode_registers(x86[:68], "x86_64") is None
    assert decode_registers(x86, "riscv64") is None


LAYOUT = r"""
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/user.h>
int main(void) {
    printf("%zu %zu %zu %zu ", sizeof(siginfo_t), offsetof(siginfo_t, si_code), offsetof(siginfo_t, si_pid),
           offsetof(siginfo_t, si_addr));
#ifdef __x86_64__
    printf("%zu %zu %zu", sizeof(struct user_regs_struct), offsetof(struct user_regs_struct, rip),
           offsetof(struct user_regs_struct, rsp));
#else
    printf("%zu %zu %zu", sizeof(struct user_regs_struct), offsetof(struct user_regs_struct, pc),
           offsetof(struct user_regs_struct, sp));
#endif
}
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="registers of other machines are not known")
def test_the_layouts_are_those_of_the_c_headers(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    (tmp_path / "layout.c").write_text(LAYOUT)
    subprocess.run(["gcc", "layout.c", "-o", "layout"], cwd=tmp_path, check=True)
    output = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True).stdout
    size, code, pid, address, registers, counter, stack = map(int, output.split())
    rest = SignalInfo.rest.offset
    assert (ctypes.sizeof(SignalInfo), SignalInfo.code.offset, rest, rest) == (size, code, pid, address)
    words = b"".join(at.to_bytes(8, sys.byteorder) for at in range(0, registers, 8))
    assert decode_registers(words, os.uname().machine) == (counter, stack)


def arrival(sender: int | None, fault: int | None, address: int = 0x1000, thread: int = 7) -> Arrival:
    return Arrival(Crash(11, "SIGSEGV", address, None, None, thread, fault), sender)


@pytest.mark.parametrize(
    ("before", "new", "expected"),
    [
        (arrival(None, 0x10), arrival(7, None, address=0x2000), True),  # the handler raises it again
        (arrival(None, 0x10), arrival(None, None), True),  # no stack for the handler
        (arrival(None, 0x10), arrival(None, 0x20), False),  # another fault
        (arrival(None, 0x10), arrival(None, None, address=0x2000), False),
        (arrival(None, 0x10), arrival(None, None, thread=8), False),
        (arrival(None, 0x10), arrival(99, None), False),  # somebody else
        (arrival(7, None), arrival(7, None, address=0x2000), False),
        (arrival(99, None), arrival(None, None), False),
    ],
)
def test_what_only_repeats_a_fault(before: Arrival, new: Arrival, expected: bool) -> None:
    assert is_echo(before, new, pid=7) is expected


def test_availability_changes_nothing_and_has_a_reason() -> None:
    found = availability()
    assert found.ok is not bool(found.reason)
    assert signal.SIGSEGV in CRASH_SIGNALS


@pytest.mark.parametrize(
    ("scope", "capabilities", "expected"),
    [
        ("", "0", None),
        ("0\n", "0000000000000000", None),
        ("1\n", "0000000000000000", None),
        ("2\n", "0000000000000000", "only root"),
        ("2\n", "000001ffffffffff", None),
        ("2\n", "", "only root"),
        ("3\n", "000001ffffffffff", "nobody"),
    ],
)
def test_yama(scope: str, capabilities: str, expected: str | None) -> None:
    found = parse_yama(scope, capabilities)
    assert found is None if expected is None else found is not None and expected in found
