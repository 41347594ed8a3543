"""The ETW simulator behaves as the documentation of ETW says, under Wine, seen by Windows Python.

What the tests of the ETW backend prove is worth no more than this. Each scenario is one Windows process.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from windows.eventstream import (
    DC_END,
    DC_START,
    IMAGE,
    LOAD,
    NO_ID,
    SYSTEM_CONFIG,
    UNLOAD,
    Result,
    Stream,
    file_name,
    is_image,
)
from windows.fixtures import build_native_fixtures, python_without_libcrypto
from windows.lab import HERE, PYTHONS, Lab, windows_path

CONTROLLED = 0x02000100  # a real-time system logger

Scenario = Callable[..., Result]


@pytest.fixture(scope="module")
def scenario(lab: Lab, simulator: Path, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    def run(name: str, *arguments: Path, version: str = "3.11", python: Path | None = None) -> Result:
        state = windows_path(tmp_path_factory.mktemp("state"))
        done = lab.run(
            version,
            [HERE / "sim" / "client.py", simulator, name, *arguments],
            env={"DLLTRACER_SIM_STATE": state},
            python=python,
        )
        assert done.returncode == 0, done.stderr
        result: Result = json.loads(done.stdout)
        return result

    return run


MODULES = ("ssl", "sqlite3", "simplemod", "brokenmod", "refusemod", "brokenmod")


@pytest.fixture(scope="module", params=sorted(PYTHONS))
def stream(
    lab: Lab, scenario: Scenario, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Stream:
    version: str = request.param
    folder = build_native_fixtures(lab, version, tmp_path_factory.mktemp("native"))
    return Stream(scenario("importing", folder, *MODULES, version=version))


def test_start_trace_gives_the_documented_codes(scenario: Scenario) -> None:
    assert scenario("starting") == {
        "ok": [0, True, 64, True, "mine"],
        "ok most": True,
        "same name": [183, 0],
        "same guid": [183, 0],
        "stop": 0,
        "after stop": 0,
        "short wnode": [24, 0],
        "no room for the name": [24, 0],
        "name offset in the struct": [87, 0],
        "a log file without a name": [161, 0],
        "more buffers at least than at most": [87, 0],
        "buffers too large": [87, 0],
        "no name": [87, 0],
        "not a traced guid": [87, 0],
        "not real time": [87, 0],
        "paged memory": [87, 0],
        "kernel guid, private name": [87, 0],
        "kernel name, private guid": [87, 0],
        "kernel flags, ordinary session": [87, 0],
        "ordinary session": 0,
        "private unsupported": [87, 0],
        "kernel logger": 0,
        "kernel logger again": [183, 0],
        "no admin": [5, 0],
        "slots": [0, 0, 0, 0, 0, 0, 1450],
        "count": 8,  # six private ones, the kernel logger, the ordinary one
        "planned failure": [[1314, 0], 0],
        "count after reset": 0,
        "a name that lingers": [0, 0, 4201, 183, 183, 0],
    }


def test_control_trace_gives_the_documented_codes_and_counts(scenario: Scenario) -> None:
    assert scenario("controlling") == {
        "absent": [4201, 4201, 4201, 4201],
        "half a handle": 4201,
        "neither": 87,
        "unknown code": 87,
        "short": 24,
        "query": [0, "mine", True, CONTROLLED, 4, 60],
        "update": [0, 7],
        "lost at query": [0, 11, 12, 13],
        "stop without room": [234, 11, 12, 13],
        "stopped all the same": [4201, 0],
        "no admin": [5, 4201, 1],
        "planned failure": [24, 0],
        "all": [0, 2],
        "all names": ["a", "b"],
        "all, one place": [234, 2],
    }


def test_consumers_get_the_documented_codes(scenario: Scenario) -> None:
    assert scenario("consuming") == {
        "refused": [[True, 87], [True, 87], [True, 5], [True, 161]],
        "not an open trace": [6, 6],
        "absent session": [True, 4201, 0, 6],
        "session handle": 6,
        "planned failure": 87,
        "two at once": 87,
        "pointer size": 8,
        "frequency": True,
        "mode overwritten": CONTROLLED,
        "kernel trace": 1,
        "runs": 1,
        "stop, join, close": [0, 0, 0],
        "threads": 0,
        "close first": [7007, 6, 0, 0, ["ready"]],  # the event after it is lost
        "close amid a buffer": [0, 0, 7007, ["ready", "before"]],
        "buffer callback says no": [1223, 0],
        "after reset": [0, 0],
    }


@pytest.fixture(scope="module")
def delivery(scenario: Scenario) -> Result:
    return scenario("delivering")


def test_events_wait_for_a_flush_the_timer_or_the_stop(delivery: Result) -> None:
    assert delivery["buffered"] == [0, True]
    assert delivery["flushed"] == [["ready", "0", "1", "2"], 0]
    assert delivery["end"] == [[0, 0, 0], ["ready", "0", "1", "2", "last"]]
    assert delivery["by the timer"] is True


def test_an_injected_event_arrives_as_it_is(delivery: Result) -> None:
    assert delivery["injected into"] == [1, 1, 1]
    assert delivery["marker"] == {
        "provider": "11112222-3333-4444-5555-666677778888",
        "opcode": 99,
        "version": 7,
        "flags": 0x40,
        "kind": 0,
        "size": 80 + 1,
        "pid": 77,
        "tid": 78,
        "length": 1,
        "context": 0x1234,
        "text": "0",
    }
    record = bytes.fromhex(delivery["record"])
    assert len(record) == 112
    assert record[40:42] == b"\0\0", "classic events have no id"
    assert struct.unpack_from("<HH", record, 84) == (0, 1), "no extended data, one byte of payload"


def test_times_are_file_times_or_raw_counters(delivery: Result) -> None:
    times = delivery["file times"]
    assert times == sorted(times)
    assert 132_223_104_000_000_000 < times[0] < 159_000_000_000_000_000, "a FILETIME between 2020 and 2104"
    assert delivery["raw time"] is True


def test_image_events_need_the_image_flag(delivery: Result) -> None:
    assert delivery["without flags"] == 2, "the markers alone"
    assert delivery["flags set"] == 0
    assert delivery["with flags"] is True


def test_noise_can_be_off_and_version_2_spells_loads_without_volume(delivery: Result) -> None:
    quiet = delivery["quiet"]
    assert {event["provider"] for event in quiet} == {IMAGE}
    assert {event["version"] for event in quiet} == {2}
    assert len({event["owner"] for event in quiet}) == 1
    assert [file_name(event) for event in quiet if event["opcode"] == LOAD] == ["_lzma.pyd"]


def test_two_processors_deliver_out_of_order(delivery: Result) -> None:
    output = delivery["two processors"]
    assert sorted(output[-6:]) == [str(number) for number in range(6)]
    assert output[-6:] != sorted(output[-6:])
    assert delivery["their times"] != sorted(delivery["their times"])


def test_a_path_can_be_spelled_otherwise_and_the_rundown_be_left_out(delivery: Result) -> None:
    assert delivery["another spelling"] == ["\\Device\\Mup\\server\\share\\unicodedata.pyd"]
    assert delivery["no rundown"] == [LOAD, 99], "the marker's and the load"


def test_hooks_are_in_place_and_nothing_comes_before_the_stop(stream: Stream) -> None:
    assert stream.result["hooks"] == 1
    assert stream.result["before the stop"] == 0
    assert stream.result["end"] == [0, 0, 0]


def test_loads_come_in_mapping_order_top_first(stream: Stream) -> None:
    ssl = stream.during("ssl")
    assert {kind for kind, _ in ssl} == {"load"}
    names = [name for _, name in ssl]
    assert names[:4] == ["_ssl.pyd", "crypt32.dll", "libcrypto-3.dll", "libssl-3.dll"]
    assert [name for name in names if name.endswith(".pyd")] == ["_ssl.pyd", "_socket.pyd", "select.pyd"]
    assert stream.during("sqlite3") == [("load", "_sqlite3.pyd"), ("load", "sqlite3.dll")]
    assert stream.during("simplemod") == [("load", "simplemod.pyd"), ("load", "simpledep.dll")]


def test_a_missing_dependency_unloads_what_was_mapped_for_it(stream: Stream) -> None:
    assert "brokenmod" in stream.result["outcome"]["brokenmod"]
    once = [
        ("load", "brokenmod.pyd"),
        ("load", "goodlib.dll"),
        ("unload", "goodlib.dll"),
        ("unload", "brokenmod.pyd"),
    ]
    assert stream.during("brokenmod") == once * 2, "and a second attempt maps it all again"


def test_a_new_thread_starts_after_failed_loads(stream: Stream) -> None:
    assert [event["text"] for event in stream.events if "text" in event] == [
        "ready",
        *MODULES,
        "new thread",
        "freelib",
        "end",
    ]


def test_a_refusing_dependency_unloads_the_module(stream: Stream) -> None:
    assert "refusemod" in stream.result["outcome"]["refusemod"]
    events = stream.during("refusemod")
    assert events[:2] == [("load", "refusemod.pyd"), ("load", "refusedep.dll")]
    assert sorted(events[2:]) == [("unload", "refusedep.dll"), ("unload", "refusemod.pyd")]


def test_free_library_unloads(stream: Stream) -> None:
    assert stream.during("freelib") == [("load", "freelib.dll"), ("unload", "freelib.dll")]


def test_no_base_is_loaded_twice_without_an_unload_between(stream: Stream) -> None:
    mapped: set[int] = set()
    for event in stream.events:
        if not (is_image(event) and event["owner"] == stream.pid):
            continue
        if event["opcode"] in (LOAD, DC_START):
            assert event["base"] not in mapped, event["path"]
            mapped.add(event["base"])
        elif event["opcode"] == UNLOAD:
            mapped.remove(event["base"])
    assert mapped == {event["base"] for event in stream.images(DC_END)}, "the end rundown is what is left"


def test_payloads_tell_the_truth_about_the_file(stream: Stream, lab: Lab) -> None:
    volumes: dict[str, str] = stream.result["volumes"]
    roots = {volumes["C:"]: lab.prefix / "drive_c", volumes["Z:"]: Path("/")}
    events = [event for event in stream.images(LOAD) if event["path"].startswith(volumes["Z:"])]
    assert len(events) > 8
    for event in events:
        device = next(device for device in roots if event["path"].startswith(device + "\\"))
        data = Path(str(roots[device]) + event["path"][len(device) :].replace("\\", "/")).read_bytes()
        (header,) = struct.unpack_from("<I", data, 0x3C)
        (stamp,) = struct.unpack_from("<I", data, header + 8)
        size, _, checksum = struct.unpack_from("<III", data, header + 24 + 56)
        assert (event["image_size"], event["checksum"], event["stamp"]) == (size, checksum, stamp), event["path"]
        assert event["end"] == "0000"
        assert event["length"] == 56 + 2 * len(event["path"]) + 2
        assert (event["version"], event["flags"], event["kind"]) == (3, 0x240, 0)
        assert (event["pid"], event["tid"]) == (stream.pid, stream.result["tid"])


def test_rundown_frames_the_stream_without_process_ids(stream: Stream) -> None:
    order = [event["opcode"] for event in stream.events if is_image(event)]
    last_start, first_end = len(order) - order[::-1].index(DC_START), order.index(DC_END)
    assert set(order[:last_start]) == {DC_START}
    assert set(order[first_end:]) == {DC_END}
    start, end = stream.images(DC_START), stream.images(DC_END)
    assert {(event["pid"], event["tid"]) for event in start + end} == {(NO_ID, NO_ID)}
    assert {"python.exe", "ntdll.dll", "kernel32.dll"} <= {file_name(event) for event in start}
    gone = {"brokenmod.pyd", "goodlib.dll", "refusemod.pyd", "freelib.dll"}
    new = {file_name(event) for event in end} - {file_name(event) for event in start}
    assert {"simplemod.pyd", "_ssl.pyd"} <= new
    assert not new & gone
    drivers = [event for event in stream.events if is_image(event) and event["owner"] == 0]
    assert {event["opcode"] for event in drivers} == {DC_START, LOAD, DC_END}
    assert {event["pid"] for event in drivers if event["opcode"] == DC_START} == {stream.pid}, "the controller's"


def test_other_processes_and_providers_are_mixed_in(stream: Stream) -> None:
    own = [index for index, event in enumerate(stream.events) if stream.is_change(event)]
    for index in own:
        before, event, after = stream.events[index - 1 : index + 2]
        assert (before["opcode"], after["opcode"]) == (LOAD, UNLOAD)
        assert before["owner"] == before["pid"] == after["owner"] == after["pid"] != stream.pid
        assert before["base"] == event["base"] == after["base"], "distinguished by the process only"
    config = [event for event in stream.events if event["provider"] == SYSTEM_CONFIG]
    assert [(event["opcode"], event["pid"]) for event in config] == [(10, stream.pid), (25, stream.pid)]
    pointers = [event for event in stream.events if event["provider"] == IMAGE and event["opcode"] in (33, 34)]
    assert [(event["length"], event["pid"]) for event in pointers] == [(8, NO_ID), (8, NO_ID)]


def test_the_documented_example(lab: Lab, scenario: Scenario, tmp_path: Path) -> None:
    python = python_without_libcrypto(lab, "3.11", tmp_path / "python")
    stream = Stream(scenario("importing", tmp_path, "ssl", python=python))
    assert "_ssl" in stream.result["outcome"]["ssl"]
    assert stream.during("ssl") == [
        ("load", "_ssl.pyd"),
        ("load", "crypt32.dll"),
        ("load", "libssl-3.dll"),
        ("unload", "crypt32.dll"),
        ("unload", "libssl-3.dll"),
        ("unload", "_ssl.pyd"),
    ]


def test_sessions_outlive_a_killed_process_and_cross_processes(lab: Lab, simulator: Path, tmp_path: Path) -> None:
    client, env = HERE / "sim" / "client.py", {"DLLTRACER_SIM_STATE": windows_path(tmp_path)}
    killed = lab.run("3.11", [client, simulator, "dying"], env=env)
    assert killed.returncode == 9, killed.stderr
    assert len(list(tmp_path.glob("*.session"))) == 1
    after = lab.run("3.11", [client, simulator, "surviving", simulator], env=env)
    assert after.returncode == 0, after.stderr
    result: Result = json.loads(after.stdout)
    view = json.loads(result.pop("the other's view"))
    assert result == {
        "count": 1,
        "taken": [183, 0],
        "query": [0, "left behind", 3, 4],
        "stop": [0, 4201, 0],
        "other": "ready",
        "stop the other's": 0,
    }
    assert (view["result"], view["control"], view["close"]) == (0, 4201, 0)
    assert {DC_START, DC_END} <= set(view["opcodes"]), "a foreign stop brings the end rundown too"
    assert not list(tmp_path.glob("*.session"))


def test_the_environment_takes_the_privilege_away(lab: Lab, simulator: Path) -> None:
    client = HERE / "sim" / "client.py"
    codes = [
        lab.run("3.11", [client, simulator, "asking"], env={"DLLTRACER_SIM_ADMIN": admin}).stdout for admin in "01"
    ]
    assert codes == ["5\n", "0\n"]
