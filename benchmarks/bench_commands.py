"""What the commands cost from their start to their end, next to `python -c pass`: processor time and elapsed time.

Each round runs every command once, in alternating order; printed are the medians, and those of the ratios to
`python -c "import ssl"` of the same round. Bytecode is compiled first. With
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


def usual_file() -> str:
    """The file that `deps` is asked about: an extension module of this Python, with libraries where there are some."""
    import _ssl

    return _ssl.__file__


def print_table(rounds: int, file: str, kind: str = "compiled", environment: dict[str, str] | None = None) -> None:
    """Run every command once a round, and print the medians."""
    ways = commands(file)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            found[name].append(measure(ways[name], dict(os.environ) if environment is None else environment))
    print(f"{kind}: median of {rounds}, ms; and of the ratios to import ssl")
    print(f"{'':<24} {'CPU':>7} {'elapsed':>8}  {'CPU ratio':>9} {'elapsed':>8}")
    bases = found["python -c 'import ssl'"]
    for name, samples in found.items():
        cpu, elapsed = (statistics.median(values) for values in zip(*samples, strict=True))
        ratios = zip(samples, bases, strict=True)
        of_cpu, of_elapsed = (
            statistics.median(values) for values in zip(*((a / c, b / d) for (a, b), (c, d) in ratios), strict=True)
        )
        print(f"{name:<24} {cpu:7.1f} {elapsed:8.1f}  {of_cpu:9.2f} {of_elapsed:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--file", default=usual_file())
    parser.add_argument("--cold", action="store_true", help="also without compiled bytecode")
    options = parser.parse_args()
    compileall.compile_dir(str(SOURCE), quiet=1)
    print_table(options.rounds, options.file)
    if options.cold:
        with tempfile.TemporaryDirectory() as folder:
            cold = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": "1"}
            print_table(options.rounds, options.file, "cold", cold)


if __name__ == "__main__":
    main()
