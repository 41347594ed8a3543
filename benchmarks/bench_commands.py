"""What the commands cost from their start to their end, next to `python -c pass`: processor time and elapsed time.

Each round runs every command once, in alternating order; printed are the medians. Bytecode is compiled first. With
--cold each command also runs once a round with an empty folder for bytecode (PYTHONPYCACHEPREFIX): all is compiled.
"""

from __future__ import annotations

import argparse
import compileall
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'dlltracer'; "
    "from dlltracer.__main__ import main; main()"
)


def commands(file: str) -> dict[str, list[str]]:
    """The command lines by their names; the first one is what the others are compared with."""
    ours = [sys.executable, "-c", START, str(SOURCE)]
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import ssl'": [sys.executable, "-c", "import ssl"],
        "--version": [*ours, "--version"],
        "deps FILE": [*ours, "deps", file],
        "why ssl": [*ours, "why", "ssl"],
        "run -c 'import ssl'": [*ours, "run", "-c", "import ssl"],
    }


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Milliseconds of processor time (with child processes) and of elapsed time."""
    null = os.open(os.devnull, os.O_RDWR)
    start = time.perf_counter()
    actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    elapsed = time.perf_counter() - start
    os.close(null)
    if status:
        raise SystemExit(f"status {status}: {command}")
    return (used.ru_utime + used.ru_stime) * 1000, elapsed * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--file", default=sys.modules["_ctypes"].__file__ if "_ctypes" in sys.modules else None)
    parser.add_argument("--cold", action="store_true", help="also without compiled bytecode")
    options = parser.parse_args()
    if options.file is None:
        import _ssl

        options.file = _ssl.__file__
    compileall.compile_dir(str(SOURCE), quiet=1)
    ways = commands(options.file)
    with tempfile.TemporaryDirectory() as folder:
        environments = {"compiled": dict(os.environ)}
        if options.cold:
            environments["cold"] = {
                **os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": "1"
            }  # fmt: skip
        for kind, environment in environments.items():
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for number in range(options.rounds):
                for name in list(ways)[:: -1 if number % 2 else 1]:
                    found[name].append(measure(ways[name], environment))
            print(f"{kind}: median of {options.rounds}, ms\n{'':<24} {'CPU':>7} {'elapsed':>8}")
            for name, samples in found.items():
                cpu, elapsed = (statistics.median(values) for values in zip(*samples, strict=True))
                print(f"{name:<24} {cpu:7.1f} {elapsed:8.1f}")


if __name__ == "__main__":
    main()
