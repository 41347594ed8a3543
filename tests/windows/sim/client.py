"""Drives the simulator from Windows Python, by raw offsets only, so that it shares no code with what it tests.

Run as ``python.exe client.py <simulator.dll> <scenario> [arguments]``; prints one JSON document.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable
from ctypes import c_int, c_uint32, c_uint64, c_void_p, c_wchar_p
from typing import Any
from uuid import UUID

IMAGE = UUID("2cb15d1d-5fc1-11d2-abe1-00a0c911f518")
KERNEL_GUID = UUID("9e814aad-3204-11d2-9a82-006008a86939")
MARKER = UUID("11112222-3333-4444-5555-666677778888")
KERNEL_LOGGER = "NT Kernel Logger"
QUERY, STOP, UPDATE, FLUSH = range(4)
SYSTEM_LOGGER, REAL_TIME, RECORDS, RAW = 0x02000000, 0x100, 0x10000000, 0x1000
INVALID = 0xFFFFFFFFFFFFFFFF
NEVER = 60  # a flush timer that does not run out within a test
PATIENCE = 30.0  # seconds for something that must happen

RECORD_CALLBACK = ctypes.WINFUNCTYPE(None, c_void_p)
BUFFER_CALLBACK = ctypes.WINFUNCTYPE(c_uint32, c_void_p)


# Of EVENT_TRACE_PROPERTIES.
OFFSETS = {
    "wnode_size": 0, "handle": 8, "guid": 24, "clock": 40, "flags": 44, "buffer": 48, "least": 52, "most": 56,
    "mode": 64, "timer": 68, "enable": 72, "buffers": 80, "events_lost": 88, "log_lost": 96, "rt_lost": 100,
    "file_offset": 112, "name_offset": 116,
}  # fmt: skip


class Properties:
    """EVENT_TRACE_PROPERTIES with room for two names."""

    def __init__(self, **changes: int | bytes) -> None:
        self.raw = ctypes.create_string_buffer(120 + 4096)
        values: dict[str, int | bytes] = {
            "wnode_size": 120 + 4096, "guid": bytes(16), "clock": 1, "flags": 0x20000, "buffer": 64, "least": 64,
            "most": 128, "mode": SYSTEM_LOGGER | REAL_TIME, "timer": NEVER, "enable": 4,
            "file_offset": 0, "name_offset": 120,
        }  # fmt: skip
        values |= changes
        for name, value in values.items():
            self[name] = value

    def __setitem__(self, name: str, value: int | bytes) -> None:
        data = value if isinstance(value, bytes) else value.to_bytes(4, "little")
        offset = OFFSETS[name]
        ctypes.memmove(ctypes.byref(self.raw, offset), data, len(data))

    def __getitem__(self, name: str) -> int:
        value: int = struct.unpack_from("<Q" if name == "handle" else "<I", self.raw, OFFSETS[name])[0]
        return value

    @property
    def guid(self) -> UUID:
        return UUID(bytes_le=self.raw.raw[24:40])

    @property
    def name(self) -> str:
        return ctypes.wstring_at(ctypes.addressof(self.raw) + 120)


class Simulator:
    """The DLL with its functions typed; attribute access reaches the control exports."""

    def __init__(self, path: str) -> None:
        self.dll = ctypes.WinDLL(path, use_last_error=True)
        for name, result, *arguments in (
            ("StartTraceW", c_uint32, c_void_p, c_wchar_p, c_void_p),
            ("ControlTraceW", c_uint32, c_uint64, c_wchar_p, c_void_p, c_uint32),
            ("OpenTraceW", c_uint64, c_void_p),
            ("ProcessTrace", c_uint32, c_void_p, c_uint32, c_void_p, c_void_p),
            ("CloseTrace", c_uint32, c_uint64),
            ("QueryAllTracesW", c_uint32, c_void_p, c_uint32, c_void_p),
            ("TraceSetInformation", c_uint32, c_uint64, c_int, c_void_p, c_uint32),
            ("EnableTraceEx2", c_uint32, c_uint64, c_void_p, c_uint32, ctypes.c_ubyte, c_uint64, c_uint64, c_uint32,
             c_void_p),
            ("sim_inject", c_int, c_void_p, c_int, c_int, c_int, c_uint32, c_uint32, c_void_p, c_int),
        ):  # fmt: skip
            function = getattr(self.dll, name)
            function.restype, function.argtypes = result, arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dll, "sim_" + name)

    def start(self, name: str | None = "mine", **changes: int | bytes) -> tuple[int, int, Properties]:
        """The code, the handle and the properties as they came back."""
        properties = Properties(**changes)
        handle = c_uint64(0xDEAD)
        code = self.dll.StartTraceW(ctypes.byref(handle), name, properties.raw)
        return code, handle.value, properties

    def started(self, name: str = "mine", **changes: int | bytes) -> int:
        code, handle, _ = self.start(name, **changes)
        if code:
            raise OSError(code, f"StartTraceW({name})")
        return handle

    def control(
        self, code: int, handle: int = 0, name: str | None = None, **changes: int | bytes
    ) -> tuple[int, Properties]:
        properties = Properties(**changes)
        return self.dll.ControlTraceW(handle, name, properties.raw, code), properties

    def inject(self, text: str, pid: int = 1, tid: int = 2) -> int:
        """One event of the marker provider: version 7, opcode 99."""
        data = text.encode("ascii")
        count: int = self.dll.sim_inject(MARKER.bytes_le, 7, 99, 0x40, pid, tid, data, len(data))
        return count


class Consumer:
    """OpenTraceW, and ProcessTrace in a thread."""

    def __init__(self, sim: Simulator, name: str | None = "mine", mode: int = REAL_TIME | RECORDS) -> None:
        self.sim = sim
        self.events: list[dict[str, Any]] = []
        self.records: list[bytes] = []
        self.result: int | None = None
        self.go_on = 1
        self.close_at: str | None = None  # the marker whose callback calls CloseTrace
        self.closed: int | None = None
        self.arrived = threading.Condition()
        self._callbacks = RECORD_CALLBACK(self._record), BUFFER_CALLBACK(lambda _logfile: self.go_on)
        self._name = ctypes.create_unicode_buffer(name) if name is not None else None
        self.logfile = ctypes.create_string_buffer(448)
        name_address = ctypes.addressof(self._name) if self._name else 0
        struct.pack_into("<Q", self.logfile, 8, name_address)
        struct.pack_into("<I", self.logfile, 28, mode)
        struct.pack_into("<Q", self.logfile, 400, ctypes.cast(self._callbacks[1], c_void_p).value)
        struct.pack_into("<Q", self.logfile, 424, ctypes.cast(self._callbacks[0], c_void_p).value)
        struct.pack_into("<Q", self.logfile, 440, 0x1234)
        ctypes.set_last_error(0)
        self.handle: int = sim.dll.OpenTraceW(self.logfile)
        self.error = ctypes.get_last_error()
        self._thread = threading.Thread(target=self._process)

    def _record(self, address: int) -> None:
        raw = ctypes.string_at(address, 112)
        length, data = struct.unpack_from("<86xH8xQ", raw)
        event = decode(raw, ctypes.string_at(data, length))
        with self.arrived:
            self.records.append(raw)
            self.events.append(event)
            self.arrived.notify_all()
        if self.close_at is not None and event.get("text") == self.close_at:
            self.closed = self.close()

    def _process(self) -> None:
        self.result = self.process()

    def process(self) -> int:
        code: int = self.sim.dll.ProcessTrace(ctypes.byref(c_uint64(self.handle)), 1, None, None)
        return code

    def run(self, session: int) -> Consumer:
        """Start ProcessTrace and wait until it consumes: a STOP that comes before that is found as 4201."""
        self._thread.start()
        if not self.barrier(session, "ready"):
            raise TimeoutError("ProcessTrace delivers nothing")
        return self

    def markers(self) -> list[str]:
        return [event["text"] for event in self.events if event["provider"] == str(MARKER)]

    def wait(self, condition: Callable[[], bool]) -> bool:
        with self.arrived:
            return self.arrived.wait_for(condition, PATIENCE)

    def barrier(self, session: int, text: str) -> bool:
        """Flush, and wait until the marker has come through."""
        self.sim.inject(text)
        self.sim.control(FLUSH, session)
        return self.wait(lambda: text in self.markers())

    def join(self) -> int | None:
        self._thread.join(PATIENCE)
        return self.result

    def close(self) -> int:
        code: int = self.sim.dll.CloseTrace(self.handle)
        return code

    def finish(self, session: int) -> list[int | None]:
        """STOP, wait for the end of ProcessTrace, CloseTrace: the right order."""
        return [self.sim.control(STOP, session)[0], self.join(), self.close()]


def decode(raw: bytes, payload: bytes) -> dict[str, Any]:
    size, kind, flags, _, tid, pid, time = struct.unpack_from("<HHHHIIq", raw)
    event: dict[str, Any] = {
        "provider": str(UUID(bytes_le=raw[24:40])), "opcode": raw[45], "version": raw[42], "flags": flags,
        "kind": kind, "size": size, "pid": pid, "tid": tid, "time": time, "length": len(payload),
        "context": struct.unpack_from("<Q", raw, 104)[0],
    }  # fmt: skip
    if event["provider"] == str(IMAGE) and len(payload) > 56:
        base, image_size, owner, checksum, stamp, _, preferred = struct.unpack_from("<QQIIIIQ", payload)
        event |= {
            "base": base, "image_size": image_size, "owner": owner, "checksum": checksum, "stamp": stamp,
            "preferred": preferred, "path": payload[56:-2].decode("utf-16-le"), "end": payload[-2:].hex(),
        }  # fmt: skip
    elif event["provider"] == str(MARKER):
        event["text"] = payload.decode("ascii")
    return event


if __name__ == "__main__":
    import json
    import sys

    import scenarios  # of this folder, which is the script's own

    _, dll, scenario, *arguments = sys.argv
    print(json.dumps(getattr(scenarios, scenario)(Simulator(dll), *arguments)))
