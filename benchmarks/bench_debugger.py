"""What the debugger of Windows costs: loads and imports in a block of `Trace(backend="debugger")`, and in a program
that `dlltracer` debugs from its start, against the same untraced.

    python benchmarks/bench_debugger.py [--pairs N] [--python 3.13] [--json FILE]

On Linux it runs CPython for Windows under Wine, of the lab of the tests; on Windows, the Python that runs it. Each
sample is a process of its own that measures itself; traced and untraced take turns, and the ratio is that of each pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench_import import interval_of_median, quartiles

ROOT = Path(__file__).resolve().parents[1]

# Prints seconds of the block, of the start and of the end of the trace, and how many images the block loaded. The block
# of "loads" is ten times its median tenth: what else the machine does then counts less.
WORK = """
import json, os, shutil, sys, tempfile, time
way, what = sys.argv[1:3]

def loads():
    import ctypes, statistics
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source = os.path.join(sys.base_prefix, "DLLs", "libffi-8.dll")
        paths = [shutil.copy(source, os.path.join(folder, f"copy{number}.dll")) for number in range(100)]
        yield
        tenths = []
        for start in range(0, 100, 10):
            begun = time.perf_counter()
            for path in paths[start : start + 10]:
                ctypes.WinDLL(path)
            tenths.append(time.perf_counter() - begun)
        yield 10 * statistics.median(tenths)

def imports():
    yield
    begun = time.perf_counter()
    import asyncio, bz2, ctypes, decimal, lzma, multiprocessing, sqlite3, ssl, unittest, uuid, xml.etree.ElementTree
    yield time.perf_counter() - begun

steps = {"loads": loads, "imports": imports}[what]()
next(steps)
begun = time.perf_counter()
if way == "attached":
    import dlltracer
    trace = dlltracer.Trace(backend="debugger")
    trace.start()
started = time.perf_counter()
block = next(steps)
done = time.perf_counter()
count = 0
if way == "attached":
    trace.close()
    count = len(trace.recording.loads)
ended = time.perf_counter()
print(json.dumps([block, started - begun, ended - done, count]), flush=True)
"""

# Runs the above as its debugger; a program's own time counts, not ours.
DEBUG = """
import sys
from dlltracer.capture.windows.debugger.run import run_debugged
run_debugged([sys.executable, *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Sample:
    """Seconds of the block, of the start and the end of the trace; images that the trace saw (0 untraced)."""

    block: float
    start: float
    end: float
    images: int


@dataclass(frozen=True)
class Row:
    """One way against untraced, over all pairs. Triples are (lower quartile, median, upper quartile)."""

    what: str
    way: str
    pairs: int
    block_s: tuple[float, float, float]
    ratio: tuple[float, float, float]
    interval: tuple[float, float]
    """95 % bootstrap interval of the median ratio."""
    start_s: float
    end_s: float
    ms_an_image: float | None
    """Of "loads": median of what a pair differs by, in milliseconds, by the images that the block loads."""


Run = Callable[[Sequence[str]], str]


def runner(version: str) -> tuple[Run, str]:
    """What runs the Windows Python with these arguments and gives its output; and its name."""
    if sys.platform == "win32":
        import os
        import subprocess

        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

        def here(arguments: Sequence[str]) -> str:
            command = [sys.executable, *arguments]
            return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

        return here, f"Python {sys.version.split()[0]} on Windows"
    sys.path.insert(0, str(ROOT / "tests"))
    from windows.lab import find_lab, windows_path

    lab = find_lab()
    if isinstance(lab, str):
        raise SystemExit(f"no Windows lab: {lab}")

    def under_wine(arguments: Sequence[str]) -> str:
        done = lab.run(version, list(arguments), env={"PYTHONPATH": windows_path(ROOT / "src")}, timeout=300)
        if done.returncode:
            raise SystemExit(done.stderr)
        return done.stdout

    return under_wine, f"Python {version} for Windows under Wine"


def measure(run: Run, way: str, what: str) -> Sample:
    words = ["-c", WORK, way, what]
    if way == "debugged":
        words = ["-c", DEBUG, *words]
    return Sample(*json.loads(run(words)))


def compare(run: Run, way: str, what: str, pairs: int) -> Row:
    measured: list[tuple[Sample, Sample]] = []
    for number in range(pairs):
        if number % 2:
            base = measure(run, "untraced", what)
            sample = measure(run, way, what)
        else:
            sample = measure(run, way, what)
            base = measure(run, "untraced", what)
        measured.append((sample, base))
    ratios = [sample.block / base.block for sample, base in measured]
    images = max(sample.images for sample, _ in measured) or measure(run, "attached", what).images
    extra = statistics.median(sample.block - base.block for sample, base in measured)
    return Row(
        what, way, pairs, quartiles([sample.block for sample, _ in measured]), quartiles(ratios),
        interval_of_median(ratios), statistics.median(sample.start for sample, _ in measured),
        statistics.median(sample.end for sample, _ in measured),
        1000 * extra / images if what == "loads" and way != "untraced" else None,
    )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    head = f"{'':<8} {'':<17} {'block s':>8}  {'ratio (quartiles) [95 %]':>36}  {'ms an image':>11}  {'start s':>7}"
    lines = [f"{head}  {'end s':>6}"]
    for row in rows:
        low, ratio, high = row.ratio
        spread = f"{ratio:.2f} ({low:.2f}-{high:.2f}) [{row.interval[0]:.2f}-{row.interval[1]:.2f}]"
        image = "" if row.ms_an_image is None else f"{row.ms_an_image:.2f}"
        name = "untraced (noise)" if row.way == "untraced" else row.way
        times = f"{row.start_s:7.3f}  {row.end_s:6.3f}"
        lines.append(f"{row.what:<8} {name:<17} {row.block_s[1]:8.3f}  {spread:>36}  {image:>11}  {times}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, help="pairs for each way (default 10)")
    parser.add_argument("--python", default="3.13", help="under Wine: 3.11 or 3.13 (default 3.13)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    run, name = runner(options.python)
    rows = []
    for what in ("loads", "imports"):
        measure(run, "attached", what)  # files into the page cache, byte code
        rows += [compare(run, way, what, options.pairs) for way in ("untraced", "attached", "debugged")]
    print(f"{name}; {options.pairs} pairs each\n\n{table(rows)}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
