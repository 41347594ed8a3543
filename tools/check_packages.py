"""Check the current wheels of popular packages on all platforms, and write the table of what comes of it.

    python tools/check_packages.py run RESULTS.jsonl [--jobs N] [PACKAGE ...]    download, check, delete; goes on later
    python tools/check_packages.py table RESULTS.jsonl                 write docs/reference/checked-packages.md

The environment variable WHEELS names a folder that keeps what was downloaded.

Of each package the newest version counts, and of each platform tag one wheel: the one for CPython 3.12 if there is one,
else for the stable ABI, for any Python 3, for another CPython. Wheels for "any" have nothing native to be judged, and
wheels for other interpreters, Android, iOS and WebAssembly are left out. tools/checked_packages.toml has what was found
out about each problem.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import tomllib

from dlltracer.check.packages import check_wheel
from dlltracer.model.check import Severity

PACKAGES = [
    "aiohttp", "argon2-cffi-bindings", "av", "bcrypt", "blosc2", "bottleneck", "brotli", "cffi",
    "charset-normalizer", "cmake", "contourpy", "coverage", "cramjam", "cryptography", "cython", "duckdb",
    "fonttools", "frozenlist", "gevent", "greenlet", "grpcio", "h5py", "httptools", "kiwisolver", "lightgbm",
    "llvmlite", "lxml", "lz4", "markupsafe", "matplotlib", "msgpack", "multidict", "mypy", "netCDF4", "ninja",
    "numba", "numexpr", "numpy", "onnxruntime", "opencv-python-headless", "orjson", "pandas", "pillow",
    "polars-runtime-32", "protobuf", "psutil", "psycopg2-binary", "pyarrow", "pycryptodome", "pydantic-core",
    "pymupdf", "pynacl", "pyodbc", "PyQt6-Qt6", "PySide6-Essentials", "pywin32", "pyyaml", "pyzmq", "rasterio",
    "regex", "rpds-py", "ruff", "safetensors", "scikit-image", "scikit-learn", "scipy", "shapely", "shiboken6",
    "sqlalchemy", "statsmodels", "tables", "tokenizers", "tornado", "ujson", "uvloop", "watchfiles", "wrapt",
    "xgboost", "yarl", "zstandard",
]  # fmt: skip
_HERE = Path(__file__).resolve().parent
_EXPLANATIONS = _HERE / "checked_packages.toml"
_PAGE = _HERE.parent / "docs/reference/checked-packages.md"
_CHECKS = "../../src/dlltracer/report/pages/checks.md"
"""The page on the codes, from the folder of `_PAGE`."""
_CHUNK = 1 << 20
_OTHERS = re.compile(r"-(?:pp\d|graalpy|android|ios|pyodide|pyemscripten|emscripten|wasm)")


def main() -> int:
    command, results, *names = sys.argv[1:]
    jobs = 1
    if names[:1] == ["--jobs"]:
        jobs, names = int(names[1]), names[2:]
    if command == "run":
        run(Path(results), names or PACKAGES, jobs)
    elif command == "table":
        _PAGE.write_text(table(Path(results)), encoding="utf-8")
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


def run(results: Path, names: list[str], jobs: int = 1) -> None:
    """Check what `results` does not have yet, by so many processes, and add a line for each wheel."""
    done = {line["wheel"] for line in _lines(results)} if results.exists() else set()
    with results.open("a", encoding="utf-8") as target, ProcessPoolExecutor(jobs) as pool:
        for name in names:
            with urllib.request.urlopen(f"https://pypi.org/pypi/{name}/json", timeout=60) as answer:
                release = json.load(answer)
            about = {"package": release["info"]["name"], "version": release["info"]["version"]}
            for found in pool.map(_check, [one for one in _choose(release["urls"]) if one["filename"] not in done]):
                print(json.dumps(found | about), file=target, flush=True)
                print(f"{found['seconds']:6.1f} s  {found['wheel']}", flush=True)


def _choose(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one wheel for each platform tag."""
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for entry in entries:
        name = entry["filename"]
        if not name.endswith(".whl") or name.endswith("-any.whl") or _OTHERS.search(name):
            continue
        *_, python, abi, platform = name.removesuffix(".whl").split("-")
        rank = _rank(python, abi)
        if platform not in best or rank < best[platform][0]:
            best[platform] = rank, entry
    return [entry for _, entry in best.values()]


def _rank(python: str, abi: str) -> float:
    minors = [int(minor) for minor in re.findall(r"cp3(\d+)", python)]
    if "cp312" in python.split(".") and "cp312" in abi.split("."):
        return 0
    if "abi3" in abi:
        return 1 if min(minors) <= 12 else 5
    if abi == "none":
        return 2
    return 9 if not minors or abi.endswith("t") else 3 - minors[0] / 100


def _check(entry: dict[str, Any]) -> dict[str, Any]:
    """Download a wheel, unless it is there, and check it."""
    with tempfile.TemporaryDirectory(prefix="check-packages-") as folder:
        path = Path(os.environ.get("WHEELS", folder)) / entry["filename"]
        if not path.exists():
            # An index in between may give addresses relative to its own page of the package.
            _download(urllib.parse.urljoin("https://pypi.org/simple/package/", entry["url"]), path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 != entry["digests"]["sha256"]:
            raise SystemExit(f"{path} is not what the index has")
        started = time.process_time()
        report = check_wheel(str(path))
        return {
            "wheel": path.name, "sha256": sha256, "size": path.stat().st_size, "files": report.files,
            "platforms": report.platforms, "unreadable": report.unreadable,
            "seconds": round(time.process_time() - started, 2),
            "problems": [
                [one.severity.value, one.code, one.file, one.title, one.platform] for one in report.problems
            ],
        }  # fmt: skip


def _download(url: str, path: Path) -> None:
    if not url.startswith("https://"):
        raise SystemExit(f"{url} is not of the index")
    with urllib.request.urlopen(url, timeout=600) as answer, path.open("wb") as target:  # noqa: S310
        while chunk := answer.read(_CHUNK):
            target.write(chunk)


def _lines(results: Path) -> Iterator[dict[str, Any]]:
    with results.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def table(results: Path) -> str:
    """Return the page with all errors and warnings, each with what was found out about it."""
    wheels = sorted(_lines(results), key=lambda wheel: wheel["wheel"].lower())
    known = {(one["package"], one["code"]): one for one in tomllib.loads(_EXPLANATIONS.read_text("utf-8"))["problem"]}
    groups: dict[tuple[str, str, str, str], list[tuple[str, str, str]]] = {}
    for wheel in wheels:
        for severity, code, file, title, platform in wheel["problems"]:
            if severity != Severity.NOTE.value:
                key = severity, wheel["package"], wheel["version"], code
                groups.setdefault(key, []).append((platform or "all", file, title))
    rows = []
    for key, found in sorted(groups.items(), key=lambda item: (item[0][1].lower(), item[0])):
        severity, package, version, code = key
        about = known.get((package, code))
        platforms = ", ".join(dict.fromkeys(platform for platform, _, _ in found))
        example = min(found, key=lambda one: len(one[1]))
        cells = (
            f"{package} {version}", platforms, f"{severity} [{code}]({_CHECKS}#{code})",
            str(len({one[1] for one in found})), f"`{example[1]}`: {example[2]}",
            *((about["true"], about["verified"]) if about else ("?", "?")),
        )  # fmt: skip
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return _PAGE_TEXT.format(
        packages=len({wheel["package"] for wheel in wheels}), wheels=len(wheels), rows="\n".join(rows),
        files=f"{sum(wheel['files'] for wheel in wheels):,}",
        clean=sum(not _has(wheel, "error", "warning") for wheel in wheels),
        errors=sum(_has(wheel, "error") for wheel in wheels),
        size=f"{sum(wheel['size'] for wheel in wheels) / 1e9:.1f}",
        tags=len({tag for wheel in wheels for tag in wheel["platforms"]}),
        seconds=f"{sum(wheel['seconds'] for wheel in wheels):.0f}",
        count=sum(len(found) for (severity, *_), found in groups.items() if severity == "error"),
        warnings=sum(len(found) for (severity, *_), found in groups.items() if severity == "warning"),
    )  # fmt: skip


def _has(wheel: dict[str, Any], *severities: str) -> bool:
    return any(problem[0] in severities for problem in wheel["problems"])


_PAGE_TEXT = """# Checked packages

What `dlltracer check` says of the current wheels of {packages} popular packages with native code, on all platforms
that they have: {wheels} wheels ({size} GB) with {files} native files, for {tags} platform tags. Of each platform tag
one wheel counts, the one for CPython 3.12 if there is one. It took {seconds} seconds of one processor.

- {clean} wheels have neither errors nor warnings, {errors} have errors.
- There are {count} errors and {warnings} warnings, in the groups of this table. Each was looked into.

"True" means that the file does not load on a system that the tag promises, or for a warning that what it says is so.
"Real loader" means ld.so of Debian 13 in a root without other packages. Nothing was run on Windows or a Mac:
what is said of these rests on the files, and on reports of people where one is named.

The page is written by `tools/check_packages.py`; `tools/checked_packages.toml` has the last two columns.

| package | platforms | what | files | example | true | how that was found out |
| --- | --- | --- | --- | --- | --- | --- |
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
