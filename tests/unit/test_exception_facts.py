"""What the parameters of an exception lead to, in a memory made by hand: delayed loads, C++ exceptions."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.capture.windows.debugger.bindings import EXCEPTION_RECORD
from dlltracer.capture.windows.debugger.process_log import ExceptionFacts, read_exception_facts
from dlltracer.diagnose.rules.crash import cplusplus_name

BASE = 0x1_8000_0000


class Memory:
    """Pieces of memory at addresses; anything else cannot be read."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}

    def put(self, at: int, data: bytes) -> None:
        self.pieces[at] = data

    def read(self, at: int, size: int) -> bytes:
        for start, data in self.pieces.items():
            if start <= at < start + len(data):
                return data[at - start : at - start + size]
        return b""


def record(code: int, *parameters: int) -> EXCEPTION_RECORD:
    made = EXCEPTION_RECORD(ExceptionCode=code, NumberParameters=len(parameters))
    for index, value in enumerate(parameters):
        made.ExceptionInformation[index] = value
    return made


@pytest.mark.parametrize(("width", "size"), [(8, 72), (4, 36)])
def test_the_delayed_load(width: int, size: int) -> None:
    memory = Memory()
    pointer = "Q" if width == 8 else "I"
    by_name = struct.pack(f"<{pointer * 6}", 0x5000, 0, 0x2000, 1, 0x2100, 0)
    info = size.to_bytes(width, "little") + by_name + bytes(width) + (126).to_bytes(width, "little")
    memory.put(0x1000, info)
    memory.put(0x2000, b"later.dll\0")
    memory.put(0x2100, b"compute\0")
    facts = read_exception_facts(record(0xC06D007E, 0x1000), memory.read)
    assert facts == ExceptionFacts("later.dll", "compute", 0x5000, 126)
    memory.put(0x1000, info[: 4 * width] + struct.pack(f"<{pointer * 2}", 0, 7) + info[6 * width :])
    facts = read_exception_facts(record(0xC06D007F, 0x1000), memory.read)
    assert (facts.wanted, facts.wanted_symbol) == ("later.dll", "ordinal 7")


def visual_cpp(width: int) -> tuple[Memory, EXCEPTION_RECORD]:
    """A std::runtime_error, thrown by an image at `BASE` in 64-bit code, at 0 in 32-bit code."""
    memory, base = Memory(), BASE if width == 8 else 0x40_0000
    offset = base if width == 4 else 0  # 32-bit code has addresses where 64-bit code has offsets
    memory.put(base + 0x100, struct.pack("<4I", 0, 0, 0, offset + 0x200))
    memory.put(base + 0x200, struct.pack("<3I", 2, offset + 0x300, offset + 0x320))
    memory.put(base + 0x300, struct.pack("<2I", 0, offset + 0x400))
    memory.put(base + 0x320, struct.pack("<2I", 0, offset + 0x480))
    memory.put(base + 0x400, bytes(2 * width) + b".?AVruntime_error@std@@\0")
    memory.put(base + 0x480, bytes(2 * width) + b".?AVexception@std@@\0")
    memory.put(0x7000, bytes(width) + (0x7100).to_bytes(width, "little"))
    memory.put(0x7100, b"no device\0")
    parameters = (0x1993_0520, 0x7000, base + 0x100) + ((base,) if width == 8 else ())
    return memory, record(0xE06D7363, *parameters)


@pytest.mark.parametrize("width", [8, 4])
def test_the_type_and_the_text_that_visual_cpp_threw(width: int) -> None:
    memory, thrown = visual_cpp(width)
    facts = read_exception_facts(thrown, memory.read)
    assert facts == ExceptionFacts(thrown=".?AVruntime_error@std@@", message="no device")


def test_the_type_and_the_text_that_gcc_threw() -> None:
    memory = Memory()
    memory.put(0x8000, (0x9000).to_bytes(8, "little") + bytes(72) + b"\0++CCUNG" + bytes(56) + bytes(8)
               + (0x9200).to_bytes(8, "little"))  # fmt: skip
    memory.put(0x9000, bytes(8) + (0x9100).to_bytes(8, "little"))
    memory.put(0x9100, b"St13runtime_error\0")
    memory.put(0x9200, b"no device\0")
    thrown = record(0x2047_4343, 0x8000 + 80)
    assert read_exception_facts(thrown, memory.read) == ExceptionFacts(thrown="St13runtime_error", message="no device")
    memory.put(0x9100, b"*7Failure\0")  # a type of its own: where its text lies is not known
    assert read_exception_facts(thrown, memory.read) == ExceptionFacts(thrown="7Failure")


def test_texts_without_an_end_or_with_control_characters_are_none() -> None:
    memory = Memory()
    memory.put(0x1000, struct.pack("<9Q", 72, 0x5000, 0, 0x2000, 1, 0x2100, 0, 0, 126))
    memory.put(0x2000, b"x" * 5000)
    memory.put(0x2100, b"\x1b]0;x\7\0")
    facts = read_exception_facts(record(0xC06D007E, 0x1000), memory.read)
    assert (facts.wanted, facts.wanted_symbol) == (None, None)


@given(
    st.sampled_from([0xC06D007E, 0xC06D007F, 0xE06D7363, 0x20474343, 0xC0000005]),
    st.lists(st.integers(0, 2**64 - 1), max_size=15), st.binary(max_size=300),
)  # fmt: skip
def test_no_memory_raises(code: int, parameters: list[int], data: bytes) -> None:
    facts = read_exception_facts(record(code, *parameters), lambda at, size: data[at % 300 :][:size])
    assert all(text is None or len(text) <= 600 for text in (facts.wanted, facts.thrown, facts.message))


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        (".?AVruntime_error@std@@", "std::runtime_error"),
        (".?AUFailure@@", "Failure"),
        (".?AV?$Box@H@@", ".?AV?$Box@H@@"),
        ("St9bad_alloc", "std::bad_alloc"),
        ("7Failure", "Failure"),
        ("N3pkg5ErrorE", "pkg::Error"),
    ],
)
def test_names_of_types(spelled: str, name: str) -> None:
    assert cplusplus_name(spelled) == name
