"""What reading a recorded ETW session costs, next to the PyPI package etl-parser.

For each file and each reader the processor time of reading it whole, the best of several; the readers take turns.
"one process" is what a search for python.exe takes (here for a process that is not there, so that nothing is built);
"every event" makes an event of every load and unload. MB are of the file, and of its events when they are decompressed.
etl-parser decodes the image events that it finds, of the kernel's hooks; it is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dlltracer.capture.etl import read_etl
from dlltracer.capture.etl.scan import EtlCounts, scan_etl
from dlltracer.errors import NoSuchProcess

Read = Callable[[Path], EtlCounts]
HOOKS = {(0x03, 10): 10, (0x14, 2): 2, (0x14, 3): 3, (0x14, 4): 4}


def one_process(path: Path) -> EtlCounts:
    with suppress(NoSuchProcess):
        read_etl(path, process="no such program")
    return EtlCounts()


def every_event(path: Path) -> EtlCounts:
    recording = read_etl(path).recording
    return EtlCounts(len(recording.loads), len(recording.unloads))


def peer() -> Read | None:
    try:
        from etl.etl import IEtlFileObserver, build_from_stream
    except ImportError:
        return None

    class Images(IEtlFileObserver):  # type: ignore[misc]
        def __init__(self) -> None:
            self.seen: Counter[int] = Counter()

        def _take(self, event: object, header: object) -> None:
            kind = HOOKS.get((int(header.group), int(header.type)))  # type: ignore[attr-defined]
            if kind is not None:
                event.get_mof()  # type: ignore[attr-defined]
                self.seen[kind] += 1

        def on_system_trace(self, event: object) -> None:
            self._take(event, event.source.system_header.header)  # type: ignore[attr-defined]

        def on_perfinfo_trace(self, event: object) -> None:
            self._take(event, event.source.header)  # type: ignore[attr-defined]

        def on_event_record(self, event: object) -> None: ...
        def on_trace_record(self, event: object) -> None: ...
        def on_win_trace(self, event: object) -> None: ...

    def read(path: Path) -> EtlCounts:
        found = Images()
        build_from_stream(path.read_bytes()).parse(found)
        return EtlCounts(found.seen[10], found.seen[2], found.seen[3], found.seen[4])

    return read


def measure(path: Path, readers: dict[str, Read], rounds: int) -> dict[str, float | str]:
    """Seconds that each reader takes, or what it raised."""
    best: dict[str, float | str] = {}
    for _ in range(rounds):
        for name, read in readers.items():
            start = time.process_time()
            try:
                read(path)
            except Exception as error:  # noqa: BLE001 - the peer has no common error
                best[name] = type(error).__name__
                continue
            spent = time.process_time() - start
            known = best.get(name, spent)
            best[name] = min(spent, known) if isinstance(known, float) else spent
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="an .etl file, or a folder of them")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    readers: dict[str, Read] = {"one process": one_process, "every event": every_event}
    other = peer()
    if other is None:
        print("etl-parser is not installed (pip install etl-parser): no comparison", file=sys.stderr)
    else:
        readers["etl-parser"] = other
    files = [one for path in options.files for one in (sorted(path.glob("*.etl")) if path.is_dir() else [path])]
    for path in files:
        scan = scan_etl(path)
        size = path.stat().st_size
        print(f"{path.name}: {size / 1e6:.2f} MB, {scan.size / 1e6:.2f} MB of events; {scan.counts}")
        found = measure(path, readers, options.rounds)
        own = found["one process"]
        for name, spent in found.items():
            if isinstance(spent, str) or isinstance(own, str):
                print(f"  {name:<12} {spent}")
                continue
            print(
                f"  {name:<12} {spent * 1000:9.1f} ms  {size / 1e6 / spent:7.1f} MB/s of file  "
                f"{scan.size / 1e6 / spent:7.1f} MB/s of events  x{spent / own:.1f}"
            )
        if other is not None and not isinstance(found["etl-parser"], str):
            print(f"  etl-parser finds {other(path)}")


if __name__ == "__main__":
    main()
