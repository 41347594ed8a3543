"""What tracing costs: the time of importing large native packages, traced and untraced, in pairs; and the commands.

Each sample is a new process. A pair is one traced and one untraced run, back to back, in alternating order, so that
slow drifts of the machine fall out of the ratio. With `--together` both run at the same time on one processor: fast
drifts fall out as well, and the processor time tells one hundredth from two. Printed are the median of the pairs'
ratios with its quartiles, of the elapsed and of the processor time, and the peak memory of the largest process.
Bytecode is compiled first. The table of bench_commands.py follows, unless `--only` chooses rows.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import importlib.util
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import bench_commands

MODULES = ("numpy", "pandas", "scipy.stats", "sklearn", "pyarrow")
SOURCE = str(Path(__file__).resolve().parents[1] / "src")


@dataclass(frozen=True)
class Sample:
    """Seconds of one process: elapsed, and of processor (user and system, its children included); and megabytes: the
    most that one of them had in memory."""

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class Row:
    """One way of tracing against untraced, over all pairs. Each triple is (lower quartile, median, upper quartile)."""

    name: str
    pairs: int
    wall_s: tuple[float, float, float]
    wall_ratio: tuple[float, float, float]
    cpu_ratio: tuple[float, float, float]
    interval: tuple[float, float]
    """95 % bootstrap interval of the median of `cpu_ratio`."""
    peak_mb: tuple[float, float]
    """Of the largest process, untraced and traced: medians."""


Command = Callable[[Path], tuple[list[str], dict[str, str]]]
"""Given a fresh folder: the command, and what it needs in the environment."""


# A process of our own around the program, so that its RUSAGE_CHILDREN is this sample's alone.
MEASURE = """
import os, resource, subprocess, sys, time
if sys.argv[1]:
    os.sched_setaffinity(0, {int(sys.argv[1])})
start = time.perf_counter()
status = subprocess.run(
    sys.argv[2:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
).returncode
wall = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def measure(*commands: Command, processor: str = "") -> list[Sample]:
    """Run the programs at the same time, all on one processor if its number is given."""
    with contextlib.ExitStack() as stack:
        running = []
        for command in commands:
            arguments, extra = command(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            # All have the same folders to search, untraced as well: most imports of the program look into each.
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": SOURCE, **extra}
            line = [sys.executable, "-c", MEASURE, processor, *arguments]
            running.append((arguments, subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True)))
        samples = []
        for arguments, process in running:
            status, wall, cpu, peak = process.communicate()[0].split()
            if status != "0":
                raise SystemExit(f"status {status}: {' '.join(arguments)}")
            samples.append(Sample(float(wall), float(cpu), float(peak)))
    return samples


def commands(python: str, modules: Sequence[str]) -> dict[str, Command]:
    """The ways of tracing that exist on this machine; "untraced" first."""
    imports = f"import {', '.join(modules)}"
    traced = f"import dlltracer\nwith dlltracer.Trace(collect=True) as events: {imports}\nassert len(events) > 50"
    ways: dict[str, Command] = {
        "untraced": lambda folder: ([python, "-c", imports], {}),
        "dlltracer.Trace": lambda folder: ([python, "-c", traced], {}),
    }
    tool = Path(python).with_name("dlltracer")
    if tool.exists():
        ways["dlltracer run"] = lambda folder: (
            [str(tool), "run", "--output", str(folder / "report"), "-c", imports], {}
        )  # fmt: skip
        ways["dlltracer run --follow"] = lambda folder: (
            [str(tool), "run", "--follow", "--output", str(folder / "report"), "-c", imports], {}
        )  # fmt: skip
        if sys.platform == "linux":
            ways["dlltracer run seccomp"] = lambda folder: (
                [str(tool), "run", "--backend", "seccomp", "--output", str(folder / "report"), "-c", imports], {}
            )  # fmt: skip
        ways["dlltracer run -- COMMAND"] = lambda folder: (
            [str(tool), "run", "--output", str(folder / "report"), "--", python, "-c", imports], {}
        )  # fmt: skip
    ways["LD_DEBUG=libs,files"] = lambda folder: (
        [python, "-c", imports], {"LD_DEBUG": "libs,files", "LD_DEBUG_OUTPUT": str(folder / "text")}
    )  # fmt: skip
    if shutil.which("strace"):
        strace = ["strace", "-f", "--seccomp-bpf", "-e", "trace=openat"]
        ways["strace --seccomp-bpf"] = lambda folder: ([*strace, "-o", str(folder / "text"), python, "-c", imports], {})
    return ways


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def interval_of_median(values: Sequence[float], rounds: int = 4000) -> tuple[float, float]:
    """95 % bootstrap interval, with a fixed seed: the same samples give the same interval."""
    draw = random.Random(20)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(rounds * 0.025)], medians[int(rounds * 0.975) - 1]


def compare(name: str, way: Command, plain: Command, pairs: int, *, together: bool) -> Row:
    measured: list[tuple[Sample, Sample]] = []
    processor = str(max(os.sched_getaffinity(0))) if together else ""
    for number in range(pairs):
        order = (plain, way) if number % 2 else (way, plain)
        found = measure(*order, processor=processor) if together else [*measure(order[0]), *measure(order[1])]
        sample, base = reversed(found) if number % 2 else found
        measured.append((sample, base))
    cpu = [sample.cpu / base.cpu for sample, base in measured]
    return Row(
        name,
        pairs,
        quartiles([sample.wall for sample, _ in measured]),
        quartiles([sample.wall / base.wall for sample, base in measured]),
        quartiles(cpu),
        interval_of_median(cpu),
        (statistics.median(base.peak for _, base in measured), statistics.median(one.peak for one, _ in measured)),
    )


def table(rows: Sequence[Row]) -> str:
    lines = [
        f"{'':<24} {'wall s':>7}  {'wall ratio (quartiles)':>23}  {'cpu ratio (quartiles) [95 %]':>41}  {'peak MB':>15}"
    ]  # fmt: skip
    for row in rows:
        low, ratio, high = row.wall_ratio
        cpu_low, cpu, cpu_high = row.cpu_ratio
        interval = f"[{row.interval[0]:.3f}-{row.interval[1]:.3f}]"
        lines.append(
            f"{row.name:<24} {row.wall_s[1]:7.2f}  {f'{ratio:.3f} ({low:.3f}-{high:.3f})':>23}"
            f"  {f'{cpu:.3f} ({cpu_low:.3f}-{cpu_high:.3f}) {interval}':>41}"
            f"  {f'{row.peak_mb[0]:.0f} -> {row.peak_mb[1]:.0f}':>15}"
        )
    return "\n".join(lines)


def compile_all(python: str, modules: Sequence[str]) -> None:
    """Compile our bytecode, and that of the modules if they are of this Python: some installers leave it to a run."""
    compileall.compile_dir(SOURCE, quiet=1)
    for name in {module.partition(".")[0] for module in modules} if python == sys.executable else ():
        found = importlib.util.find_spec(name)
        for folder in found.submodule_search_locations or () if found is not None else ():
            compileall.compile_dir(folder, quiet=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12, help="pairs for each way of tracing (default 12)")
    parser.add_argument(
        "--together", action="store_true",
        help="both of a pair at the same time on one processor (Linux): for ratios of processor time, not of wall time",
    )  # fmt: skip
    parser.add_argument("--only", action="append", help="one way of tracing; may be repeated (default: all)")
    parser.add_argument("--modules", default=",".join(MODULES), help="what to import, with commas between")
    parser.add_argument("--python", default=sys.executable, help="the Python that has the modules (default: this one)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    if options.together and not hasattr(os, "sched_setaffinity"):
        parser.error("--together: this system does not keep a process on one processor")
    ways = commands(options.python, options.modules.split(","))
    plain = ways.pop("untraced")
    compile_all(options.python, options.modules.split(","))
    chosen = options.only or list(ways)
    if unknown := set(chosen) - set(ways):
        parser.error(f"no such way here: {', '.join(sorted(unknown))}; there are {', '.join(ways)}")
    for way in (plain, *(ways[name] for name in chosen)):
        measure(way)  # files into the page cache
    # "untraced" against itself: what this machine's noise alone makes of the ratio
    compared = {"untraced (noise)": plain} | {name: ways[name] for name in chosen}
    rows = [compare(name, way, plain, options.pairs, together=options.together) for name, way in compared.items()]
    print(f"import {options.modules}; {options.pairs} pairs each; Python {sys.version.split()[0]}\n")
    print(table(rows))
    if not options.only:
        print()
        bench_commands.print_table(15, bench_commands.usual_file())
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
