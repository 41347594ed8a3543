"""What is done with the simulator, each in one Windows process; the tests judge the results on Linux."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import struct
import subprocess
import sys
import threading
from ctypes import c_wchar_p
from pathlib import Path
from typing import Any

from client import (
    FLUSH,
    INVALID,
    KERNEL_GUID,
    KERNEL_LOGGER,
    PATIENCE,
    QUERY,
    RAW,
    REAL_TIME,
    RECORDS,
    STOP,
    SYSTEM_LOGGER,
    UPDATE,
    Consumer,
    Simulator,
)

Result = dict[str, Any]


def starting(sim: Simulator) -> Result:
    """Every code of StartTraceW."""
    got: Result = {}
    code, handle, properties = sim.start("mine", buffer=0, least=0, most=0)
    got["ok"] = [code, handle > 0xFFFFFFFF, properties["buffer"], properties["least"] >= 2, properties.name]
    got["ok most"] = properties["most"] > properties["least"]
    got["same name"] = sim.start("MINE")[:2]
    got["same guid"] = sim.start("other", guid=properties.guid.bytes_le)[:2]
    got["stop"] = sim.control(STOP, handle)[0]
    got["after stop"] = sim.start("mine")[0]
    sim.reset()
    got["short wnode"] = sim.start(wnode_size=100)[:2]
    got["no room for the name"] = sim.start(wnode_size=122, file_offset=0)[:2]
    got["name offset in the struct"] = sim.start(name_offset=60)[:2]
    got["a log file without a name"] = sim.start(file_offset=120 + 2048)[:2]
    got["more buffers at least than at most"] = sim.start(least=64, most=10)[:2]
    got["buffers too large"] = sim.start(buffer=2048)[:2]
    got["no name"] = sim.start(None)[:2]
    got["not a traced guid"] = sim.start(flags=0)[:2]
    got["not real time"] = sim.start(mode=SYSTEM_LOGGER)[:2]
    got["paged memory"] = sim.start(mode=SYSTEM_LOGGER | REAL_TIME | 0x01000000)[:2]
    got["kernel guid, private name"] = sim.start(guid=KERNEL_GUID.bytes_le)[:2]
    got["kernel name, private guid"] = sim.start(KERNEL_LOGGER)[:2]
    got["kernel flags, ordinary session"] = sim.start(mode=REAL_TIME)[:2]
    got["ordinary session"] = sim.start("ordinary", mode=REAL_TIME, enable=0)[0]
    sim.set_private_sessions(0)
    got["private unsupported"] = sim.start()[:2]
    got["kernel logger"] = sim.start(KERNEL_LOGGER, guid=KERNEL_GUID.bytes_le, mode=REAL_TIME)[0]
    got["kernel logger again"] = sim.start(KERNEL_LOGGER, guid=KERNEL_GUID.bytes_le, mode=REAL_TIME)[:2]
    sim.set_private_sessions(1)
    sim.set_admin(0)
    got["no admin"] = sim.start()[:2]
    sim.set_admin(1)
    got["slots"] = [sim.start(f"s{number}")[0] for number in range(7)]
    got["count"] = sim.session_count()
    sim.fail_next(1, 1314)
    got["planned failure"] = [sim.start("failing", mode=REAL_TIME, enable=0)[:2]]
    got["planned failure"].append(sim.start("failing", mode=REAL_TIME, enable=0)[0])
    sim.reset()
    got["count after reset"] = sim.session_count()
    return got | _lingering(sim)


def _lingering(sim: Simulator) -> Result:
    """A name that stays taken after the stop, as with a consumer that has not left."""
    got: Result = {}
    sim.set_linger(2)
    got["a name that lingers"] = [sim.start()[0], sim.control(STOP, 0, "mine")[0], sim.control(STOP, 0, "mine")[0]]
    got["a name that lingers"] += [sim.start()[0] for _ in range(3)]
    sim.reset()
    return got


def asking(sim: Simulator) -> int:
    """Whether a session can be started, without a registry folder and with what the environment says."""
    return sim.start()[0]


def controlling(sim: Simulator) -> Result:
    """ControlTraceW, QueryAllTracesW, and the counts of lost events."""
    got: Result = {}
    handle = sim.started()
    got["absent"] = [sim.control(code, 0, "absent")[0] for code in (QUERY, STOP, UPDATE, FLUSH)]
    got["half a handle"] = sim.control(QUERY, handle & 0xFFFFFFFF)[0]
    got["neither"] = sim.control(QUERY)[0]
    got["unknown code"] = sim.control(9, handle)[0]
    got["short"] = sim.control(QUERY, handle, wnode_size=119)[0]
    code, found = sim.control(QUERY, 0, "Mine")
    got["query"] = [code, found.name, found["handle"] == handle, found["mode"], found["enable"], found["timer"]]
    got["update"] = [sim.control(UPDATE, handle, timer=7)[0], sim.control(QUERY, handle)[1]["timer"]]
    sim.set_lost(11, 12)
    sim.set_log_lost(13)
    code, found = sim.control(QUERY, handle)
    got["lost at query"] = [code, found["events_lost"], found["rt_lost"], found["log_lost"]]
    code, found = sim.control(STOP, handle, name_offset=0)
    got["stop without room"] = [code, found["events_lost"], found["rt_lost"], found["log_lost"]]
    got["stopped all the same"] = [sim.control(QUERY, handle)[0], sim.session_count()]
    handle = sim.started()
    sim.set_admin(0)
    got["no admin"] = [sim.control(STOP, handle)[0], sim.control(STOP, 0, "absent")[0], sim.session_count()]
    sim.set_admin(1)
    sim.fail_next(4, 24)
    got["planned failure"] = [sim.control(STOP, handle)[0], sim.control(STOP, handle)[0]]
    sim.started("a")
    sim.started("b")
    count = ctypes.c_uint32()
    blocks = [sim.control(QUERY, 0, name)[1] for name in ("a", "b")]
    array = (ctypes.c_void_p * 2)(*(ctypes.addressof(block.raw) for block in blocks))
    got["all"] = [sim.dll.QueryAllTracesW(array, 2, ctypes.byref(count)), count.value]
    got["all names"] = sorted(block.name for block in blocks)
    got["all, one place"] = [sim.dll.QueryAllTracesW(array, 1, ctypes.byref(count)), count.value]
    sim.reset()
    return got


def consuming(sim: Simulator) -> Result:
    """OpenTraceW, ProcessTrace, CloseTrace without events of interest."""
    got: Result = {}
    refused = [Consumer(sim, None), Consumer(sim, "mine", RECORDS)]
    sim.set_admin(0)
    refused.append(Consumer(sim))
    sim.set_admin(1)
    sim.fail_next(2, 161)
    refused.append(Consumer(sim))
    got["refused"] = [[each.handle == INVALID, each.error] for each in refused]
    got["not an open trace"] = [refused[0].process(), refused[0].close()]
    absent = Consumer(sim, "absent")
    got["absent session"] = [absent.handle != INVALID, absent.process(), absent.close(), absent.close()]
    session = sim.started()
    got["session handle"] = sim.dll.CloseTrace(session)
    opened = Consumer(sim)
    sim.fail_next(3, 87)
    got["planned failure"] = opened.process()
    got["two at once"] = sim.dll.ProcessTrace((ctypes.c_uint64 * 2)(opened.handle, opened.handle), 2, None, None)
    log = opened.logfile
    got["pointer size"] = struct.unpack_from("<I", log, 120 + 44)[0]
    frequency = ctypes.c_int64()
    ctypes.windll.kernel32.QueryPerformanceFrequency(ctypes.byref(frequency))
    got["frequency"] = struct.unpack_from("<q", log, 120 + 256)[0] == frequency.value
    got["mode overwritten"] = struct.unpack_from("<I", log, 28)[0]
    got["kernel trace"] = struct.unpack_from("<I", log, 432)[0]
    opened.run(session)
    got["runs"] = sim.thread_count()
    got["stop, join, close"] = opened.finish(session)
    got["threads"] = sim.thread_count()
    return got | _ending(sim)


def _ending(sim: Simulator) -> Result:
    """The other ends of ProcessTrace: a CloseTrace, and a buffer callback that has enough."""
    got: Result = {}
    session = sim.started()
    early = Consumer(sim).run(session)
    sim.inject("after")
    got["close first"] = [early.close(), early.close(), early.join(), sim.control(STOP, session)[0], early.markers()]
    session = sim.started()
    amid = Consumer(sim)
    amid.close_at = "before"
    amid.run(session)
    sim.inject("before")
    sim.inject("in the same buffer")
    got["close amid a buffer"] = [sim.control(STOP, session)[0], amid.join(), amid.closed, amid.markers()]
    session = sim.started()
    tired = Consumer(sim)
    tired.go_on = 0
    tired.run(session)
    got["buffer callback says no"] = [tired.join(), tired.close()]
    sim.reset()
    got["after reset"] = [sim.session_count(), sim.thread_count()]
    return got


def delivering(sim: Simulator) -> Result:
    """When events come, in what order, and with which time."""
    got: Result = {}
    session = sim.started()
    consumer = Consumer(sim).run(session)
    seen = len(consumer.events)
    got["injected into"] = [sim.inject(str(number), 77, 78) for number in range(3)]
    importlib.import_module("_socket")
    got["buffered"] = [len(consumer.events) - seen, sim.pending_count() > 3]
    sim.control(FLUSH, session)
    consumer.wait(lambda: "2" in consumer.markers())
    got["flushed"] = [consumer.markers(), sim.pending_count()]
    got["marker"] = {key: value for key, value in consumer.events[seen].items() if key != "time"}
    got["record"] = consumer.records[seen].hex()
    sim.inject("last")
    got["end"] = [consumer.finish(session), consumer.markers()]
    session = sim.started(timer=0)
    timed = Consumer(sim).run(session)
    sim.inject("by the timer")
    got["by the timer"] = timed.wait(lambda: "by the timer" in timed.markers())
    timed.finish(session)
    got["file times"] = [event["time"] for event in timed.events]
    return got | _choosing(sim)


def _choosing(sim: Simulator) -> Result:
    """What a consumer and a session can ask for: raw times, flags, an older version."""
    got: Result = {}
    session = sim.started()
    counters = [ctypes.c_int64(), ctypes.c_int64()]
    raw = Consumer(sim, mode=REAL_TIME | RECORDS | RAW).run(session)
    ctypes.windll.kernel32.QueryPerformanceCounter(ctypes.byref(counters[0]))
    sim.inject("raw")
    ctypes.windll.kernel32.QueryPerformanceCounter(ctypes.byref(counters[1]))
    raw.finish(session)
    time = next(event["time"] for event in raw.events if event.get("text") == "raw")
    got["raw time"] = counters[0].value <= time <= counters[1].value
    session = sim.started(enable=0)
    late = Consumer(sim).run(session)
    importlib.import_module("_bz2")
    late.barrier(session, "no flags")
    got["without flags"] = len(late.events)
    flags = ctypes.c_uint64(4)
    got["flags set"] = sim.dll.TraceSetInformation(session, 4, ctypes.byref(flags), 8)
    late.finish(session)
    got["with flags"] = len([event for event in late.events if event["opcode"] == 3]) > 1
    sim.set_noise(0)
    sim.set_version(2)
    session = sim.started()
    quiet = Consumer(sim).run(session)
    importlib.import_module("_lzma")
    quiet.finish(session)
    got["quiet"] = [event for event in quiet.events if "text" not in event]
    return got | _late(sim)


def _late(sim: Simulator) -> Result:
    """Two processors, and other spellings of a path."""
    got: Result = {}
    sim.set_noise(0)
    sim.set_rundown(0)
    session = sim.started()
    late = Consumer(sim).run(session)
    sim.set_queues(2)
    seen = len(late.markers())
    for number in range(6):
        sim.inject(str(number))
    sim.control(FLUSH, session)
    late.wait(lambda: len(late.markers()) >= seen + 3)
    late.finish(session)
    got["two processors"] = late.markers()
    got["their times"] = [event["time"] for event in late.events if "text" in event]
    sim.set_queues(1)
    sim.dll.sim_spell.argtypes = (c_wchar_p, c_wchar_p)
    sim.spell(sys.prefix + "\\DLLs", "\\Device\\Mup\\server\\share")
    session = sim.started()
    spelled = Consumer(sim).run(session)
    importlib.import_module("unicodedata")
    spelled.finish(session)
    got["another spelling"] = [event["path"] for event in spelled.events if "path" in event]
    got["no rundown"] = sorted({event["opcode"] for event in spelled.events})
    return got


def volume(letter: str) -> str:
    """What a consumer asks to turn kernel paths into drive letters."""
    buffer = ctypes.create_unicode_buffer(260)
    ctypes.windll.kernel32.QueryDosDeviceW(letter, buffer, 260)
    return buffer.value


def importing(sim: Simulator, folder: str, *modules: str) -> Result:
    """The events of real imports, of those that fail too, and of a LoadLibrary with its FreeLibrary."""
    sys.path.insert(0, folder)
    session = sim.started()
    consumer = Consumer(sim).run(session)
    before = len(consumer.events)
    outcome: dict[str, str] = {}
    for module in modules:
        sim.inject(module)
        try:
            importlib.import_module(module)
            outcome[module] = "imported"
        except ImportError as error:
            outcome[module] = str(error)
    # What a failed load leaves behind under Wine has killed the next new thread.
    worker = threading.Thread(target=sim.inject, args=("new thread",))
    worker.start()
    worker.join()
    sim.inject("freelib")
    path = str(Path(folder) / "freelib.dll")
    with contextlib.suppress(OSError):  # not in every folder
        library = ctypes.WinDLL(path)
        ctypes.windll.kernel32.FreeLibrary(ctypes.c_void_p(library._handle))
    sim.inject("end")
    before = len(consumer.events) - before
    end = consumer.finish(session)
    return {
        "outcome": outcome, "before the stop": before, "end": end, "events": consumer.events, "pid": os.getpid(),
        "tid": ctypes.windll.kernel32.GetCurrentThreadId(), "hooks": sim.hooks_active(),
        "volumes": {letter: volume(letter) for letter in ("C:", "Z:")},
    }  # fmt: skip


def dying(sim: Simulator) -> Result:
    """Leaves a session behind as a killed process does."""
    sim.set_lost(3, 4)
    sim.started("left behind")
    ctypes.windll.kernel32.TerminateProcess(ctypes.c_void_p(-1), 9)
    return {}


def waiting(sim: Simulator) -> Result:
    """Runs until another process stops the session."""
    session = sim.started("of the other")
    consumer = Consumer(sim, "of the other").run(session)
    print("ready", flush=True)
    result = consumer.join()
    opcodes = sorted({event["opcode"] for event in consumer.events})
    return {"result": result, "opcodes": opcodes, "control": sim.control(STOP, session)[0], "close": consumer.close()}


def surviving(sim: Simulator, dll: str) -> Result:
    """Looks after the sessions of a dead and of a living process."""
    got: Result = {"count": sim.session_count()}
    got["taken"] = sim.start("left behind")[:2]
    code, found = sim.control(QUERY, 0, "left behind")
    got["query"] = [code, found.name, found["events_lost"], found["rt_lost"]]
    got["stop"] = [sim.control(STOP, found["handle"])[0], sim.control(STOP, 0, "left behind")[0], sim.session_count()]
    command = [sys.executable, str(Path(__file__).with_name("client.py")), dll, "waiting"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        got["other"] = other.stdout.readline().strip()
        got["stop the other's"] = sim.control(STOP, 0, "of the other")[0]
        got["the other's view"] = other.communicate(timeout=PATIENCE)[0]
    return got
