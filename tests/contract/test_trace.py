"""The drop-in behaviour of `Trace`, against the real loader. Runs on Linux, and on Windows and Wine."""

from __future__ import annotations

import ctypes
import io
import ntpath
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import dlltracer
from contract.native import BACKEND, WINDOWS, Native, import_file, load, unload

pytestmark = pytest.mark.every_python

RunPython = Callable[..., subprocess.CompletedProcess[str]]


def same(event: object, path: Path) -> bool:
    shown = event.shown_path  # type: ignore[attr-defined]
    return ntpath.normcase(shown) == ntpath.normcase(str(path)) if WINDOWS else shown == str(path)


def loads(events: list[object] | None, path: Path) -> int:
    return sum(isinstance(e, dlltracer.LoadEvent) and same(e, path) for e in events or ())


def fails(events: list[object] | None, path: Path) -> int:
    return sum(isinstance(e, dlltracer.LoadFailedEvent) and same(e, path) for e in events or ())


def lines_with(text: str, path: Path) -> list[str]:
    return [line for line in text.splitlines() if path.name.lower() in line.lower()]


def test_out_gets_one_line_an_event(native: Native) -> None:
    path, out = native.tiny(), io.StringIO()
    with dlltracer.Trace(out=out):
        load(path)
    (line,) = lines_with(out.getvalue(), path)
    assert line.startswith("LoadLibrary ")
    assert line.removeprefix("LoadLibrary ").lower() == str(path).lower()
    for other in out.getvalue().splitlines():
        assert re.fullmatch(r"(LoadLibrary|Failed) \S.*", other)


def test_out_takes_what_print_takes(native: Native) -> None:
    class Sink:
        def __init__(self) -> None:
            self.text = ""

        def write(self, text: str) -> None:
            self.text += text

    path, sink = native.tiny(), Sink()
    with dlltracer.Trace(out=sink):
        load(path)
    assert lines_with(sink.text, path)


def test_out_is_flushed(native: Native, tmp_path: Path) -> None:
    path, file = native.tiny(), tmp_path / "out.txt"
    with file.open("w", encoding="utf-8") as out:
        with dlltracer.Trace(out=out):
            load(path)
        assert lines_with(file.read_text(encoding="utf-8"), path)


def test_without_collect_nothing_is_bound() -> None:
    with dlltracer.Trace() as events:
        assert events is None


def test_collect_binds_a_list(native: Native) -> None:
    path = native.tiny()
    with dlltracer.Trace(collect=True) as events:
        assert events == []
        load(path)
    assert loads(events, path) == 1
    (event,) = [e for e in events or () if same(e, path)]
    assert type(event) is dlltracer.LoadEvent
    assert str(event) == f"LoadLibrary {event.shown_path}"
    assert repr(event) == f"<LoadLibrary({event.path})>"
    assert event.base and event.size and event.pid


def test_a_failed_load_is_collected_as_failed(native: Native) -> None:
    path = native.broken()
    with dlltracer.Trace(collect=True) as events, pytest.raises(OSError):
        load(path)
    failed = {e.path for e in events or () if isinstance(e, dlltracer.LoadFailedEvent)}
    assert loads(events, path) == 1
    assert fails(events, path) == 1
    assert any(path.name in name for name in failed)
    (event,) = [e for e in events or () if isinstance(e, dlltracer.LoadFailedEvent) and same(e, path)]
    assert str(event) == f"Failed {event.shown_path}"


def test_a_failed_import_reads_as_in_the_contract(native: Native) -> None:
    path, out = native.broken_module(), io.StringIO()
    with dlltracer.Trace(out=out), pytest.raises(ImportError):
        import_file("brokenmod", path)
    kinds = [line.split()[0] for line in lines_with(out.getvalue(), path)]
    assert kinds == ["LoadLibrary", "Failed"]


def test_audit_events(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, sys, dlltracer
        def hook(name, args):
            if name.startswith("dlltracer."):
                print(name, *map(repr, args))
        sys.addaudithook(hook)
        with dlltracer.Trace(audit=True):
            ctypes.CDLL(sys.argv[1])
            try:
                ctypes.CDLL(sys.argv[2])
            except OSError:
                pass
        """,
        tiny := native.tiny(),
        broken := native.broken(),
    )
    assert result.returncode == 0, result.stderr
    output = result.stdout.splitlines()
    assert [line.split()[0] for line in output if tiny.name in line] == ["dlltracer.load"]
    assert [line.split()[0] for line in output if broken.name in line] == ["dlltracer.load", "dlltracer.failed"]


def test_a_raising_hook_costs_nothing_and_is_reported_once(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, io, sys, dlltracer
        seen = []
        def hook(name, args):
            if name in ("dlltracer.load", "dlltracer.failed"):
                seen.append(name)
                raise RuntimeError("hook says no")
        sys.addaudithook(hook)
        out = io.StringIO()
        with dlltracer.Trace(audit=True, collect=True, out=out) as events:
            for path in sys.argv[1:]:
                ctypes.CDLL(path)
        assert len(seen) == len(events) == len(out.getvalue().splitlines()) >= 2, (seen, events)
        with dlltracer.Trace(collect=True) as events:
            pass
        assert events == []
        print("alive")
        """,
        native.tiny(),
        native.tiny(),
    )
    assert result.stdout.strip() == "alive", result.stderr
    assert result.stderr.count("dlltracer: ") == 1, result.stderr
    assert result.stderr.count("RuntimeError: hook says no") == 1


def test_a_hook_that_exits_does_not_end_the_process(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, sys, dlltracer
        def hook(name, args):
            if name == "dlltracer.load":
                sys.exit(7)
        sys.addaudithook(hook)
        with dlltracer.Trace(audit=True):
            ctypes.CDLL(sys.argv[1])
        print("alive")
        """,
        native.tiny(),
    )
    assert (result.returncode, result.stdout.strip()) == (0, "alive"), result.stderr


def test_debug_replaces_the_regular_events(native: Native) -> None:
    path, out = native.tiny(), io.StringIO()
    with dlltracer.Trace(collect=True, out=out, debug=True) as events:
        load(path)
    assert events and {type(e) for e in events} == {dlltracer.DebugEvent}
    assert not re.search("^(LoadLibrary|Failed) ", out.getvalue(), re.MULTILINE)
    event = next(e for e in events if path.name in str(e))
    assert isinstance(event.opcode, int) and isinstance(event.header, bytes) and isinstance(event.data, bytes)
    assert re.search(r"^  0000  [0-9a-f]{2} [0-9a-f]{2} ", str(event), re.MULTILINE)
    if WINDOWS:
        assert str(event.provider) == "2cb15d1d-5fc1-11d2-abe1-00a0c911f518"
        assert len(event.header) == 16 and event.header[5] == event.opcode


def test_debug_audit_event_has_four_arguments(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, sys, uuid, dlltracer
        shapes = set()
        def hook(name, args):
            if name.startswith("dlltracer."):
                shapes.add((name, *(type(a).__name__ for a in args)))
        sys.addaudithook(hook)
        with dlltracer.Trace(audit=True, debug=True):
            ctypes.CDLL(sys.argv[1])
        print(shapes)
        """,
        native.tiny(),
    )
    assert result.stdout.strip() == "{('dlltracer.debug', 'UUID', 'int', 'bytes', 'bytes')}", result.stderr


def test_outputs_combine(native: Native) -> None:
    path, out = native.tiny(), io.StringIO()
    with dlltracer.Trace(collect=True, out=out, audit=True) as events:
        load(path)
    assert out.getvalue().splitlines() == [str(e) for e in events or ()]
    assert loads(events, path) == 1


def test_nested(native: Native) -> None:
    first, second, third = native.tiny(), native.tiny(), native.tiny()
    with dlltracer.Trace(collect=True) as outer:
        load(first)
        with dlltracer.Trace(collect=True) as inner:
            load(second)
        load(third)
    assert [loads(outer, p) for p in (first, second, third)] == [1, 1, 1]
    assert [loads(inner, p) for p in (first, second, third)] == [0, 1, 0]


def test_side_by_side(native: Native) -> None:
    first, second, third = native.tiny(), native.tiny(), native.tiny()
    one, two = dlltracer.Trace(collect=True), dlltracer.Trace(collect=True)
    a = one.start()
    load(first)
    b = two.start()
    load(second)
    one.close()
    load(third)
    two.close()
    assert [loads(a, p) for p in (first, second, third)] == [1, 1, 0]
    assert [loads(b, p) for p in (first, second, third)] == [0, 1, 1]


def test_threads(native: Native) -> None:
    # A Windows machine has eight system loggers, two of them reserved: each trace takes one.
    paths = [native.tiny() for _ in range(4 if WINDOWS else 16)]
    results: dict[Path, list[object] | None] = {}
    together = threading.Barrier(len(paths))

    def work(path: Path) -> None:
        together.wait()
        with dlltracer.Trace(collect=True) as events:
            load(path)
        results[path] = events

    threads = [threading.Thread(target=work, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [loads(results[path], path) for path in paths] == [1] * len(paths)


def test_loads_of_other_threads_are_seen(native: Native) -> None:
    path = native.tiny()
    with dlltracer.Trace(collect=True) as events:
        thread = threading.Thread(target=load, args=(path,))
        thread.start()
        thread.join()
    assert loads(events, path) == 1


def test_a_closed_out_costs_nothing_else(native: Native, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = native.tiny(), io.StringIO()
    with dlltracer.Trace(collect=True, out=out) as events:
        out.close()
        load(path)
        load(native.tiny())
    assert loads(events, path) == 1
    output = capsys.readouterr().err
    assert output.count("dlltracer: ") == 1 and "closed file" in output


def test_a_failing_out_gets_the_lines_it_can_take(native: Native, capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            if self.writes == 1:
                raise OSError(28, "No space left on device")
            return super().write(text)

    first, second, out = native.tiny(), native.tiny(), Full()
    trace = dlltracer.Trace(collect=True, out=out)
    with trace as events:
        load(first)
        load(second)
    assert loads(events, first) == loads(events, second) == 1
    assert lines_with(out.getvalue(), second)
    assert capsys.readouterr().err.count("dlltracer: ") == 1
    assert trace.recording is not None and "1 lines could not be written" in trace.recording.notes[-1]


def test_the_exception_of_the_block_passes_unchanged(native: Native) -> None:
    path, out = native.broken(), io.StringIO()
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, dlltracer.Trace(out=out):
        with pytest.raises(OSError):
            load(path)
        raise error
    assert caught.value is error
    assert error.__context__ is None
    files = [frame.path for frame in caught.traceback]
    assert len(files) == 1, files
    assert [line.split()[0] for line in lines_with(out.getvalue(), path)] == ["LoadLibrary", "Failed"]


def test_close_twice_and_without_start(native: Native) -> None:
    trace = dlltracer.Trace(collect=True)
    trace.close()
    events = trace.start()
    path = native.tiny()
    load(path)
    trace.close()
    trace.close()
    assert loads(events, path) == 1


def test_a_second_start_changes_nothing(native: Native) -> None:
    trace, first, second = dlltracer.Trace(collect=True), native.tiny(), native.tiny()
    with trace as events:
        load(first)
        assert trace.start() is events
        load(second)
    assert (loads(events, first), loads(events, second)) == (1, 1)
    trace.close()


def test_a_trace_can_be_used_again(native: Native) -> None:
    trace = dlltracer.Trace(collect=True)
    first, second = native.tiny(), native.tiny()
    with trace as events:
        load(first)
    with trace as again:
        load(second)
    assert (loads(events, first), loads(events, second)) == (1, 0)
    assert (loads(again, first), loads(again, second)) == (0, 1)


def test_an_empty_block_is_empty() -> None:
    out = io.StringIO()
    with dlltracer.Trace(collect=True, out=out):
        pass
    with dlltracer.Trace(collect=True, out=out, unloads=True) as events:
        pass
    if not WINDOWS:  # there, other raw events of this process arrive at any time
        with dlltracer.Trace(collect=True, out=out, debug=True) as events:
            pass
    assert events == [] and out.getvalue() == ""


def test_a_benign_unload_is_silent_unless_asked_for(native: Native) -> None:
    first, second, out = native.tiny(), native.tiny(), io.StringIO()
    with dlltracer.Trace(collect=True) as silent:
        unload(load(first))
    with dlltracer.Trace(collect=True, out=out, unloads=True) as reported:
        unload(load(second))
    assert loads(silent, first) == 1 and fails(silent, first) == 0
    assert {type(e) for e in silent or () if same(e, first)} == {dlltracer.LoadEvent}
    ours = [e for e in reported or () if same(e, second)]
    assert [type(e) for e in ours] == [dlltracer.LoadEvent, dlltracer.UnloadEvent]
    assert ours[0].base == ours[1].base
    assert [line.split()[0] for line in lines_with(out.getvalue(), second)] == ["LoadLibrary", "UnloadLibrary"]


def test_a_load_knows_its_import(native: Native) -> None:
    path = native.module()
    source = path.parent / f"wrapper_{path.stem}.py"
    source.write_text(
        f"import importlib.util\nspec = importlib.util.spec_from_file_location('tinymod', {str(path)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
    )
    sys.path.insert(0, str(path.parent))
    try:
        with dlltracer.Trace(collect=True) as events:
            __import__(source.stem)
    finally:
        sys.path.remove(str(path.parent))
    (event,) = [e for e in events or () if same(e, path)]
    assert event.imports == (source.stem,)


def test_loading_what_is_loaded_is_no_event(native: Native) -> None:
    path = native.tiny()
    load(path)
    with dlltracer.Trace(collect=True) as events:
        load(path)
    assert loads(events, path) == 0


def test_unknown_backend() -> None:
    names = r"choose one of auto, etw, etw\+loader, debugger, rtld, seccomp, snapshot"
    with pytest.raises(dlltracer.UnknownBackend, match=names) as caught:
        dlltracer.Trace(backend="magic")
    assert isinstance(caught.value, ValueError) and caught.value.name == "magic"


@pytest.mark.parametrize("other", ["rtld", "snapshot"] if WINDOWS else ["etw", "debugger"])
def test_a_backend_of_another_system_says_so(other: str) -> None:
    trace = dlltracer.Trace(backend=other)
    with pytest.raises(OSError, match="not available here"):
        trace.start()
    trace.close()
    assert trace.recording is None


def test_the_recording_names_the_mechanism(native: Native) -> None:
    trace = dlltracer.Trace()
    with trace:
        load(native.tiny())
    assert trace.recording is not None
    assert trace.recording.backend == BACKEND
    assert len(trace.recording.loads) >= 1 and not trace.recording.losses


def test_auto_works_and_names_what_it_took(native: Native) -> None:
    path = native.tiny()
    trace = dlltracer.Trace(collect=True, backend="auto")
    with trace as events:
        load(path)
    assert loads(events, path) == 1
    assert trace.recording is not None and trace.recording.backend == BACKEND
    refused = [note for note in trace.recording.notes if note.startswith("etw was not used: ")]
    assert len(refused) == (BACKEND == "debugger")


def test_the_example_of_the_contract(run_python: RunPython) -> None:
    result = run_python(
        """
        import dlltracer, sys
        with dlltracer.Trace(out=sys.stdout):
            import ssl
        """
    )
    assert result.returncode == 0, result.stderr
    names = [re.split(r"[\\\\/]", line)[-1].lower() for line in result.stdout.splitlines()]
    if names == [] and not WINDOWS and "_ssl" in sys.builtin_module_names:
        pytest.skip("this Python has _ssl built in: importing it loads no image")
    assert any(name.startswith("_ssl.") for name in names), result.stdout
    assert any("libssl" in name for name in names), result.stdout
    assert all(line.startswith("LoadLibrary ") for line in result.stdout.splitlines())


def test_import_costs_no_more_than_the_standard_library(run_python: RunPython) -> None:
    result = run_python(
        """
        import sys
        before = set(sys.modules)
        import dlltracer
        print(sorted(set(sys.modules) - before - {"__future__"}))
        dlltracer.Trace().start()
        new = set(sys.modules) - before
        print(sorted(new & {"dataclasses", "typing", "re", "uuid", "json", "inspect", "click", "rich"} - before))
        """
    )
    assert result.stdout.splitlines() == ["['dlltracer']", "[]"], (result.stdout, result.stderr)


def test_a_forgotten_close_does_not_hang_the_exit(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, sys, dlltracer
        trace = dlltracer.Trace(collect=True)
        trace.start()
        ctypes.CDLL(sys.argv[1])
        """,
        native.tiny(),
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.skipif(not WINDOWS, reason="ctypes.windll exists on Windows only")
def test_a_free_in_the_next_breath_is_benign(native: Native) -> None:
    path = native.tiny()
    with dlltracer.Trace(collect=True) as events:
        library = ctypes.CDLL(str(path))
        unload(library)
    assert fails(events, path) == 0


def test_loads_before_in_and_behind_an_inner_import_know_theirs(native: Native) -> None:
    """The names of imports in progress stay with the frames that were looked at: each load has those of its moment."""
    paths = [native.module() for _ in range(4)]
    folder = paths[0].parent
    opens = [f"ctypes.CDLL({str(path)!r})\n" for path in paths]
    (folder / "inner_import.py").write_text(f"import ctypes\n{opens[1]}")
    (folder / "outer_import.py").write_text(
        f"import ctypes\n{opens[0]}import inner_import\n{opens[2]}def later():\n    {opens[3]}"
    )
    sys.path.insert(0, str(folder))
    try:
        with dlltracer.Trace(collect=True) as events:
            import outer_import

            outer_import.later()
    finally:
        sys.path.remove(str(folder))
        for name in ("outer_import", "inner_import"):
            sys.modules.pop(name, None)
    found = [event.imports for path in paths for event in events or () if same(event, path)]
    assert found == [("outer_import",), ("outer_import", "inner_import"), ("outer_import",), ()]
