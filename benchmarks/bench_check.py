"""What `dlltracer check` of an environment costs, next to `ldd -r`, `lddtree` and `libtree` for the same files.

Processor time is that of all processes of a command, its start included; the others are called file by file, as they
are made for one. `ldd -r` compares symbols as `check` does; the others read names only. The commands take turns, and
of each the best round counts, as other work only adds. The folders are a whole environment, or parts of one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from dlltracer.host.native_files import list_native_files

Sample = tuple[float, float]
"""Processor time in seconds, and the largest resident memory of a process in MB."""


def measure(commands: Sequence[Sequence[str]], environment: dict[str, str]) -> Sample:
    """Run the commands one after the other."""
    seconds = largest = 0.0
    for command in commands:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        _, _, usage = os.wait4(process.pid, 0)
        seconds += usage.ru_utime + usage.ru_stime
        largest = max(largest, usage.ru_maxrss / 1024)
    return seconds, largest


def contestants(folder: str, files: Sequence[str], cache: str) -> dict[str, Callable[[], Sample]]:
    own = [sys.executable, "-m", "dlltracer", "check", folder]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}

    def first() -> Sample:
        shutil.rmtree(cache, ignore_errors=True)
        return measure([own], environment)

    found: dict[str, Callable[[], Sample]] = {
        "dlltracer check --no-cache": lambda: measure([[*own, "--no-cache"]], environment),
        "dlltracer check, first": first,
        "dlltracer check, again": lambda: measure([own], environment),
    }
    for name, arguments in (("ldd", ("-r",)), ("lddtree", ("-l",)), ("libtree", ("-p",))):
        path = shutil.which(name)
        if path is None:
            print(f"{name} is not installed", file=sys.stderr)
            continue
        commands = [[path, *arguments, file] for file in files]
        found[" ".join((name, *arguments))] = lambda commands=commands: measure(commands, environment)  # type: ignore[misc]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="environments, or folders of packages in one")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        for folder in options.folders:
            files = [file.path for file in list_native_files([folder]).files if file.format == "elf"]
            runs = contestants(folder, files, os.path.join(cache, "cache"))
            best: dict[str, Sample] = {}
            for _ in range(options.rounds):
                for name, run in runs.items():
                    best[name] = min(best.get(name, (1e9, 0.0)), run())
            base = best.get("ldd -r", (0.0, 0.0))[0]
            print(f"{folder}: {len(files)} files")
            for name, (seconds, megabytes) in best.items():
                ratio = f"{seconds / base:6.2f}" if base else "     -"
                print(f"  {name:28} {seconds:8.2f} s  {ratio} of ldd -r  {megabytes:6.0f} MB")


if __name__ == "__main__":
    main()
