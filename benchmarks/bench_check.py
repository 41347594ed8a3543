"""What `dlltracer check` costs, next to the tools that do a part of it, for the same files.

A folder (a whole environment, or a part of one) or a single ELF file is held against `ldd -r`, `lddtree` and
`libtree`, which are called file by file, as they are made for one. `ldd -r` compares symbols as `check` does; the
others read names only. A wheel is held against `auditwheel show`, `delvewheel show` or `delocate-listdeps`, as its
platform is, and next to it stands what unpacking and hashing alone cost: RECORD has a sum of every byte. Processor time
is that of all processes of a command, its start included. The commands take turns, and of each the best round counts,
as other work only adds.

`--growth` shows how the cost grows, in one run and one table whose rows come as they are measured: with the files (one
module, the package of an environment that has nearest to 100, the environment), with wheels, and with workers (1 and 2
processes, and as many of a local Dask cluster) for all wheels together. A command that goes file by file is stopped
after `--seconds`; the files that it came to are a random part of all, and the row says how many they are.
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dlltracer
from dlltracer.host.native_files import list_native_files

OWN = [sys.executable, "-m", "dlltracer", "check"]
CLUSTER = """
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers={count}, threads_per_worker=1, dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    import sys
    sys.stdin.read()
    cluster.close()
"""


@dataclass(frozen=True)
class Sample:
    """What commands cost: processor time and clock time in seconds, largest resident memory of a process in MB.

    `done` is how many of the commands were run to their end.
    """

    processor: float
    clock: float
    megabytes: float
    done: int = 1


Run = Callable[[], Sample]


def measure(
    commands: Sequence[Sequence[str]], environment: dict[str, str] | None = None, seconds: float = 1e9
) -> Sample:
    """Run the commands one after the other; none is begun after so many seconds, and one that runs then is killed."""
    processor = largest = 0.0
    done = 0
    start = time.perf_counter()
    for command in commands:
        left = seconds - (time.perf_counter() - start)
        if left <= 0:
            break
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        timer = threading.Timer(min(left, 1e6), process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        processor += usage.ru_utime + usage.ru_stime
        largest = max(largest, usage.ru_maxrss / 1024)
        done += not os.WIFSIGNALED(status)
    return Sample(processor, time.perf_counter() - start, largest, done)


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
    peer, program = peer_of(os.path.basename(path))
    if program is not None:
        found[" ".join(peer)] = lambda: measure([[program, *peer[1:], path]])
    return found


def peer_of(wheel: str) -> tuple[tuple[str, ...], str | None]:
    """Return the command of the tool for a wheel's platform, and its path; `None` where it is not installed."""
    peer = ("auditwheel", "show") if "linux" in wheel else ("delvewheel", "show")
    if "macosx" in wheel:
        peer = ("delocate-listdeps", "--all")
    return peer, find(peer[0])


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


class Table:
    """The rows of `--growth`, printed as they come, and a line on stderr that says what is being measured."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._start = time.perf_counter()

    def head(self, title: str, base: str) -> None:
        print(f"\n{title}\n\n| | command | processor s | of `{base}` | clock s | peak MB |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        self._base, self._of = base, 0.0

    def row(
        self, what: str, name: str, commands: Sequence[Sequence[str]], environment: dict[str, str] | None = None
    ) -> None:
        """Measure the commands, and print the row. The base of the table has to come first of its kind."""
        print(f"[{time.perf_counter() - self._start:.0f} s] {name} of {what}", file=sys.stderr, flush=True)
        self.print(what, name, measure(commands, environment, self._seconds), len(commands))

    def print(self, what: str, name: str, sample: Sample, count: int = 1) -> None:
        part = "" if sample.done >= count else f" ({sample.done} of {count}, then stopped)"
        each = sample.processor / max(sample.done, 1) * count
        if name == self._base:
            self._of = each
        ratio = f"{each / self._of:.2f}" if self._of else ""
        cells = what + part, f"`{name}`", f"{sample.processor:.2f}", ratio, f"{sample.clock:.2f}"
        print(f"| {' | '.join(cells)} | {sample.megabytes:.0f} |", flush=True)


def grow_files(table: Table, folder: str) -> None:
    """Print what the checks of one file, of some hundred and of all files of an environment cost."""
    every = [file.path for file in list_native_files([folder]).files if file.format == "elf"]
    if not every:
        print(f"{folder} has no ELF files", file=sys.stderr)
        return
    parts: dict[str, list[str]] = {}
    for path in every:
        for match in re.finditer("/site-packages/[^/]+(?=/)", path):
            parts.setdefault(path[: match.end()], []).append(path)
    part, files = min(parts.items(), key=lambda one: abs(len(one[1]) - 100)) if parts else (folder, every)
    one = next((path for path in files if path.endswith(".so")), files[0])
    table.head(f"{folder}, {os.cpu_count()} processors", "ldd -r")
    for target, several in ((one, [one]), (part, files), (folder, every)):
        what = f"{len(several)} file{'s' if len(several) > 1 else ''}"
        shuffled = random.Random(0).sample(several, len(several))
        for name, arguments in (("ldd", ("-r",)), ("libtree", ("-p",)), ("lddtree", ("-l",))):
            path = find(name)
            if path is not None:
                table.row(what, " ".join((name, *arguments)), [[path, *arguments, file] for file in shuffled])
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "XDG_CACHE_HOME": cache}
            table.row(what, "dlltracer check --no-cache", [[*OWN, "--no-cache", target]])
            if os.path.isdir(target):
                table.row(what, "dlltracer check, first", [[*OWN, target]], environment)
                table.row(what, "dlltracer check, again", [[*OWN, target]], environment)


def grow_wheels(table: Table, wheels: Sequence[str]) -> None:
    """Print what the check of each wheel costs, next to the tool for its platform; then of all, by more workers."""
    for path in wheels:
        name = os.path.basename(path)
        table.head(f"{name}, {os.path.getsize(path) >> 20} MiB", "dlltracer check")
        with zipfile.ZipFile(path) as archive:
            count = sum(one.endswith((".so", ".pyd", ".dll", ".dylib")) or ".so." in one for one in archive.namelist())
        what = f"{count} native files"
        table.row(what, "dlltracer check", [[*OWN, path]])
        table.print(what, "inflating and SHA-256 alone", floor(path))
        peer, program = peer_of(name)
        if program is not None:
            table.row(what, " ".join(peer), [[program, *peer[1:], path]])
    if len(wheels) < 2:
        return
    table.head(f"{len(wheels)} wheels, {os.cpu_count()} processors", "--jobs 1")
    for count in (1, 2):
        command = [*OWN, "--no-cache", "--jobs", str(count), *wheels]
        table.row(f"{count} worker{'s' if count > 1 else ''}", f"--jobs {count}", [command])
    for count in (1, 2):
        what, name = f"{count} worker{'s' if count > 1 else ''}", f"--dask, {count} workers"
        try:
            table.print(what, name, measure_cluster(count, wheels))
        except OSError as error:
            print(f"{name}: {error}", file=sys.stderr)


def measure_cluster(count: int, wheels: Sequence[str]) -> Sample:
    """Check the wheels with a Dask cluster of so many workers of one thread; all its processes count, and its start.

    Raises `OSError` where there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "cluster.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(CLUSTER.format(count=count))
        with open(os.path.join(folder, "errors"), "w+b") as errors:
            process = subprocess.Popen(
                [sys.executable, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=folder
            )
            assert process.stdin is not None and process.stdout is not None
            timer = threading.Timer(120, process.kill)
            timer.start()
            try:
                address = process.stdout.readline().decode().strip()
                found = measure([[*OWN, "--no-cache", "--dask", address, *wheels]], None, 100) if address else None
                process.stdin.close()
                _, _, usage = os.wait4(process.pid, 0)
            finally:
                timer.cancel()
                process.stdout.close()
                process.returncode = 0  # it was waited for above
            if found is None or not found.done:
                errors.seek(0)
                raise OSError(f"no cluster: {errors.read()[-400:].decode('utf-8', 'replace')}")
        return Sample(
            found.processor + usage.ru_utime + usage.ru_stime, found.clock, max(found.megabytes, usage.ru_maxrss / 1024)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", help="environments, folders of packages in one, ELF files, wheels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-slow", action="store_true", help="leave out lddtree, a third of a second a file")
    parser.add_argument("--growth", action="store_true", help="how the cost grows with files, wheels and workers")
    parser.add_argument(
        "--seconds", type=float, default=40.0, help="with --growth, the most that a command may take (default: 40)"
    )
    options = parser.parse_args()
    # What is measured is not the compiler of Python, also where PYTHONDONTWRITEBYTECODE is set.
    compileall.compile_dir(os.path.dirname(dlltracer.__file__), quiet=2)
    measure([[*OWN, "--no-cache", options.targets[-1]]])
    if options.growth:
        table = Table(options.seconds)
        for folder in filter(os.path.isdir, options.targets):
            grow_files(table, folder)
        grow_wheels(table, [path for path in options.targets if path.endswith(".whl")])
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
