"""The ETW structures against the headers that a Windows compiler sees."""

from __future__ import annotations

import ctypes
from pathlib import Path

from dlltracer.capture.windows.etw import bindings
from windows.lab import Lab

STRUCTS = (
    "GUID", "WNODE_HEADER", "EVENT_TRACE_PROPERTIES", "EVENT_TRACE_HEADER", "EVENT_TRACE", "SYSTEMTIME",
    "TIME_ZONE_INFORMATION", "TRACE_LOGFILE_HEADER", "EVENT_TRACE_LOGFILEW", "EVENT_DESCRIPTOR", "EVENT_HEADER",
    "ETW_BUFFER_CONTEXT", "EVENT_RECORD",
)  # fmt: skip


def test_every_field_lies_where_the_compiler_puts_it(lab: Lab, tmp_path: Path) -> None:
    reported: dict[str, tuple[int, ...]] = {}
    for line in lab.run_exe(lab.compile_layout(tmp_path)).splitlines():
        name, *numbers = line.split()
        reported[name] = tuple(map(int, numbers))
    compared = 0
    for name in STRUCTS:
        kind = getattr(bindings, name)
        assert reported[name] == (ctypes.sizeof(kind),), name
        for field, *_ in kind._fields_:
            place = getattr(kind, field)
            assert reported[f"{name}.{field}"] == (place.offset, place.size), f"{name}.{field}"
            compared += 1
    assert compared > 100
