"""What `import dlltracer` costs beyond a bare Python, and what a trace of nothing costs, in milliseconds.

Each sample is a new process; with and without run in alternating pairs, and the differences' quartiles are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BARE = "pass"
CASES = {
    "import dlltracer": "import dlltracer",
    "dlltracer.Trace": "import dlltracer; dlltracer.Trace",
    "start a trace": "import dlltracer; dlltracer.Trace(collect=True).start()",
    "start and end a trace": "import dlltracer\nwith dlltracer.Trace(collect=True): pass",
    "import ctypes (for scale)": "import ctypes",
    "import dataclasses (for scale)": "import dataclasses",
}


def elapsed(code: str, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


def differences(code: str, pairs: int, environment: dict[str, str]) -> list[float]:
    elapsed(code, environment)  # writes the byte code
    found = []
    for number in range(pairs):
        order = (code, BARE) if number % 2 else (BARE, code)
        times = {one: elapsed(one, environment) for one in order}
        found.append(times[code] - times[BARE])
    return found


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs for each case (default 40)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    source = str(Path(__file__).resolve().parents[1] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    rows = {name: quartiles(differences(code, options.pairs, environment)) for name, code in CASES.items()}
    print(f"beyond a bare Python {sys.version.split()[0]}, {options.pairs} pairs each: median (quartiles), ms\n")
    for name, (low, middle, high) in rows.items():
        print(f"{name:<32} {middle:7.2f}  ({low:.2f} to {high:.2f})")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
