"""What `dlltracer check` costs, next to the tools that do a part of it, for the same files.

A folder (a whole environment, or a part of one) or a single ELF file is held against `ldd -r`, `lddtree` and
`libtree`, which are called file by file, as they are made for one. `ldd -r` compares symbols as `check` does; the
others read names only. A wheel is held against `auditwheel show`, `delvewheel show` or `delocate-listdeps`, as its
platform is, and next to it stands what unpacking and hashing alone cost: RECORD has a sum of every byte. Processor time
is that of all processes of a command, its start included. The commands take turns, and of each the best round counts,
as other work only adds.

`--growth` checks all targets as one command, with 1, 2 and 4 processes and with a local Dask cluster of as many.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dlltracer.host.native_files import list_native_files

OWN = [sys.executable, "-m", "dlltracer", "check"]
CLUSTER = """
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers={count}, threads_per_worker=1, dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    input()
"""


@dataclass(frozen=True)
class Sample:
    """What commands cost: processor time and clock time in seconds, largest resident memory of a process in MB."""

    processor: float
    clock: float
    megabytes: float


Run = Callable[[], Sample]


def measure(commands: Sequence[Sequence[str]], environment: dict[str, str] | None = None) -> Sample:
    """Run the commands one after the other."""
    seconds = largest = 0.0
    start = time.perf_counter()
    for command in commands:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        _, _, usage = os.wait4(process.pid, 0)
        seconds += usage.ru_utime + usage.ru_stime
        largest = max(largest, usage.ru_maxrss / 1024)
    return Sample(seconds, time.perf_counter() - start, largest)


def for_files(target: str, files: Sequence[str], cache: str, slow: bool) -> dict[str, Run]:
    """Return what is measured of ELF files: `check` of their folder, and the others file by file."""
    environment = {**os.environ, "XDG_CACHE_HOME": cache}

    def first() -> Sample:
        shutil.rmtree(cache, ignore_errors=True)
        return measure([[*OWN, target]], environment)

    found: dict[str, Run] = {"dlltracer check --no-cache": lambda: measure([[*OWN, target, "--no-cache"]])}
    if os.path.isdir(target):
        found["dlltracer check, first"] = first
        found["dlltracer check, again"] = lambda: measure([[*OWN, target]], environment)
    for name, arguments in (("ldd", ("-r",)), ("lddtree", ("-l",)), ("libtree", ("-p",))):
        path = find(name)
        if path is not None and (slow or name != "lddtree"):
            commands = [[path, *arguments, file] for file in files]
            found[" ".join((name, *arguments))] = lambda commands=commands: measure(commands)  # type: ignore[misc]
    return found


def for_wheel(path: str) -> dict[str, Run]:
    """Return what is measured of a wheel: `check`, the tool for its platform, and unpacking and hashing alone."""
    found: dict[str, Run] = {
        "dlltracer check": lambda: measure([[*OWN, path]]),
        "inflating and SHA-256 alone": lambda: floor(path),
    }
    name = os.path.basename(path)
    peer = ("auditwheel", "show") if "linux" in name else ("delvewheel", "show")
    if "macosx" in name:
        peer = ("delocate-listdeps", "--all")
    program = find(peer[0])
    if program is not None:
        found[" ".join(peer)] = lambda: measure([[program, *peer[1:], path]])
    return found


def find(name: str) -> str | None:
    """Return the path of a program, also of one beside this interpreter; say where there is none."""
    path = shutil.which(name, path=os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", ""))))
    if path is None:
        print(f"{name} is not installed", file=sys.stderr)
    return path


def floor(path: str) -> Sample:
    """Inflate every file of a wheel and hash it, in this process."""
    start, clock = time.process_time(), time.perf_counter()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            digest = hashlib.sha256()
            with archive.open(entry) as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return Sample(time.process_time() - start, time.perf_counter() - clock, 0.0)


def compare(title: str, runs: dict[str, Run], rounds: int, base: str) -> None:
    """Let the commands take turns, and print the best of each as a row of a table."""
    best: dict[str, Sample] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            sample = run()
            if name not in best or sample.processor < best[name].processor:
                best[name] = sample
    print(f"\n{title}\n\n| | processor s | of `{base}` | clock s | peak MB |\n| --- | --- | --- | --- | --- |")
    for name, sample in best.items():
        ratio = f"{sample.processor / best[base].processor:.2f}" if base in best else ""
        cells = f"`{name}`", f"{sample.processor:.2f}", ratio, f"{sample.clock:.2f}", f"{sample.megabytes:.0f}"
        print(f"| {' | '.join(cells)} |", flush=True)


@contextmanager
def cluster(count: int) -> Iterator[str]:
    """Give the address of a Dask scheduler with so many workers of one thread on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "cluster.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(CLUSTER.format(count=count))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([sys.executable, path], text=True, **pipes) as process:  # type: ignore[call-overload]
            try:
                yield process.stdout.readline().strip()
            finally:
                process.communicate("\n", timeout=30)


def grow(targets: Sequence[str], rounds: int) -> None:
    """Print how long all targets take by the clock, with more and more processes."""
    rows: dict[str, float] = {}
    for count in (1, 2, 4) * rounds:
        taken = measure([[*OWN, "--no-cache", "--jobs", str(count), *targets]]).clock
        rows[f"--jobs {count}"] = min(rows.get(f"--jobs {count}", 1e9), taken)
    for count in (1, 2, 4) * rounds:
        with cluster(count) as address:
            taken = measure([[*OWN, "--no-cache", "--dask", address, *targets]]).clock
        rows[f"--dask, {count} workers"] = min(rows.get(f"--dask, {count} workers", 1e9), taken)
    print(f"\n{len(targets)} targets, {os.cpu_count()} processors\n\n| | clock s | times faster |\n| --- | --- | --- |")
    for name, seconds in rows.items():
        print(f"| `{name}` | {seconds:.1f} | {rows['--jobs 1'] / seconds:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", help="environments, folders of packages in one, ELF files, wheels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-slow", action="store_true", help="leave out lddtree, a third of a second a file")
    parser.add_argument("--growth", action="store_true", help="check all targets with more and more processes")
    options = parser.parse_args()
    # What is measured is not the compiler of Python.
    measure([[*OWN, "--no-cache", options.targets[0]]])
    if options.growth:
        grow(options.targets, options.rounds)
        return
    for target in options.targets:
        if target.endswith(".whl"):
            size = os.path.getsize(target) >> 20
            compare(f"{os.path.basename(target)}, {size} MiB", for_wheel(target), options.rounds, "dlltracer check")
            continue
        files = [target]
        if os.path.isdir(target):
            files = [file.path for file in list_native_files([target]).files if file.format == "elf"]
        with tempfile.TemporaryDirectory() as folder:
            runs = for_files(target, files, os.path.join(folder, "cache"), not options.no_slow)
            base = "ldd -r" if files else "dlltracer check --no-cache"
            compare(f"{target}: {len(files)} ELF files", runs, options.rounds, base)


if __name__ == "__main__":
    main()
