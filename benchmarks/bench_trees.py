"""What `dlltracer deps` costs, and whether its answer is right, next to ldd, libtree, lddtree, auditwheel, delvewheel.

Each sample of a command is a new process, its start included; the commands take turns, file by file. Printed are
medians, and the median ratio to `dlltracer deps --flat` on the same file in the same round. `load_tree` is the same
answer in a Python that runs already. ldd asks the loader itself, so its answer is the measure of the others'.

The files are those named, or extension modules of the Python given. With --wheel whole wheels are read, by commands
that do so; our own part there is to unpack the wheel and call `load_tree` for each image in it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

OWN = "dlltracer deps --flat"
CALL = "load_tree, in process"
BARE = "python -c pass (for scale)"
GET = {
    "ldd": "comes with the C library",
    "libtree": "apt install libtree",
    "lddtree": "apt install pax-utils python3-pyelftools",
    "auditwheel": "pip install auditwheel",
    "delvewheel": "pip install delvewheel",
}
_LOADER = re.compile(r"(ld-linux|ld-musl|ld64?\.so)")
_LDD = re.compile(r"\t(?:\S+ => )?(/.*) \(0x[0-9a-f]+\)")
_LIBTREE = re.compile(r"[^/]*(/.*) \[[^]]+\]")
_FOUND_BY = re.compile(r"(/.*?)  (?:found by|already loaded).*")


@dataclass(frozen=True)
class Answer:
    """What a file brings, itself and the loader left out.

    Attributes: `images`, each path, links followed, to the file name that it was found by; `missing`, names.
    """

    images: Mapping[str, str]
    missing: frozenset[str] = frozenset()


def answer(paths: Sequence[str], missing: Sequence[str] = ()) -> Answer:
    names = {os.path.realpath(path): os.path.basename(path) for path in paths}
    return Answer({path: name for path, name in names.items() if not _LOADER.match(name)}, frozenset(missing))


def _matched(pattern: re.Pattern[str], text: str) -> list[str]:
    return [match[1] for match in map(pattern.fullmatch, text.splitlines()) if match]


def parse_ldd(text: str) -> Answer:
    return answer(_matched(_LDD, text), re.findall(r"^\t(\S+) => not found$", text, re.MULTILINE))


def parse_flat(text: str) -> Answer:
    # The file itself has no rule behind it.
    return answer(_matched(_FOUND_BY, text), re.findall(r"^(\S+)  (?:NOT FOUND|REFUSED)", text, re.MULTILINE))


def parse_libtree(text: str) -> Answer:
    return answer(_matched(_LIBTREE, text), re.findall(r"(\S+) not found", text))


def parse_lddtree(text: str) -> Answer:
    # The file itself comes first. What is not found is a bare name.
    lines = text.splitlines()[1:]
    return answer([one for one in lines if one[0] == "/"], [one for one in lines if one[0] != "/"])


def parse_auditwheel(text: str) -> Answer:
    libraries = json.loads(text[text.index("{") :])["libraries"]
    paths = [one["path"] for one in libraries.values() if one["path"]]
    return answer(paths, [name for name, one in libraries.items() if not one["path"]])


@dataclass(frozen=True)
class Tool:
    """A command that is given one file; `parse` reads its answer from its output."""

    command: tuple[str, ...]
    parse: Callable[[str], Answer] | None = None
    environment: Mapping[str, str] | None = None


def find_tool(name: str) -> str | None:
    """A command of PATH, or of the environment that runs this."""
    return shutil.which(name) or shutil.which(name, path=os.path.dirname(sys.executable))


def file_tools(own: Tool) -> dict[str, Tool]:
    tools = {
        OWN: replace(own, command=(*own.command, "-m", "dlltracer", "deps", "--flat"), parse=parse_flat),
        BARE: Tool((*own.command, "-c", "pass")),
    }
    known = {
        "ldd": ("ldd", (), parse_ldd),
        # Without -vv it stops at the C library and the like.
        "libtree -p -vv": ("libtree", ("-p", "-vv"), parse_libtree),
        "lddtree -l": ("lddtree", ("-l",), parse_lddtree),
        "auditwheel lddtree": ("auditwheel", ("lddtree",), parse_auditwheel),
    }
    for title, (name, options, parse) in known.items():
        if path := find_tool(name):
            tools[title] = Tool((path, *options), parse)
    return tools


@dataclass(frozen=True)
class Sample:
    """One run: milliseconds, all that it printed, and the answer in it."""

    ms: float
    text: str
    answer: Answer | None = None


def run(tool: Tool, file: str) -> Sample:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(tool.environment or {})}
    start = time.perf_counter()
    done = subprocess.run(
        [*tool.command, file], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    elapsed = (time.perf_counter() - start) * 1000
    # What is missing has other statuses than 0 too: 1, and 28 and more of libtree. 2 is wrong usage.
    try:
        if done.returncode < 0 or done.returncode == 2 or "Traceback (most recent call last)" in done.stdout:
            raise ValueError("failed")
        return Sample(elapsed, done.stdout, tool.parse(done.stdout) if tool.parse else None)
    except (ValueError, LookupError) as error:
        last = (done.stdout.strip().splitlines() or [""])[-1]
        command = " ".join((*tool.command, file))
        raise RuntimeError(f"status {done.returncode}: {command}: {last}") from error


Times = dict[str, dict[str, list[float]]]
"""File to tool to milliseconds, one for each round; for a tool that fails there are none."""


def measure(tools: Mapping[str, Tool], files: Sequence[str], rounds: int) -> tuple[Times, dict[str, dict[str, Sample]]]:
    """The times; and of the first round, which brings the files into the page cache and is not timed, the output."""
    times: Times = {file: {name: [] for name in tools} for file in files}
    outputs: dict[str, dict[str, Sample]] = {file: {} for file in files}
    names = list(tools)
    for number in range(rounds + 1):
        for file in files:
            for name in names if number % 2 else reversed(names):
                if number and name not in outputs[file]:
                    continue
                try:
                    sample = run(tools[name], file)
                except RuntimeError as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    outputs[file].pop(name, None)
                    continue
                if number:
                    times[file][name].append(sample.ms)
                else:
                    outputs[file][name] = sample
    return {file: {name: of[name] for name in outputs[file]} for file, of in times.items()}, outputs


def call_in_process(listing: str) -> None:
    """In the child: `load_tree` for every file of the listing; prints the milliseconds of each, and its answer."""
    from dlltracer.api.trees import load_tree

    files = Path(listing).read_text().splitlines()
    load_tree(files[0])  # what is imported at the first call
    found = []
    for file in files:
        start = time.perf_counter()
        tree = load_tree(file)
        elapsed = (time.perf_counter() - start) * 1000
        found.append([elapsed, [path for path in tree.images if path != tree.top], [b.need for b in tree.missing]])
    print(json.dumps(found))


def platform_of(wheel: str) -> str:
    return Path(wheel).stem.rsplit("-", 1)[-1]


def unpack_and_call(wheel: str) -> None:
    """In the child: a whole wheel, as the commands that show wheels do it. Prints what it found."""
    import zipfile

    from dlltracer.api.trees import load_tree

    suffixes = (".pyd", ".dll") if "win" in platform_of(wheel) else (".so",)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        images = [path for path in Path(folder).rglob("*") if path.suffix in suffixes or ".so." in path.name]
        # A package adds its folders of DLLs by code of its own (os.add_dll_directory), which is not run here.
        added = sorted({str(path.parent) for path in images if path.suffix == ".dll"})
        trees = [load_tree(str(path), search=added) for path in images]
    missing = sorted({binding.need for tree in trees for binding in tree.missing})
    print(f"{len(images)} images, not found: {', '.join(missing) or 'none'}")


@dataclass(frozen=True)
class Row:
    """A tool over all files; `ratio` is the median of its time to our own."""

    tool: str
    files: int
    ms: float
    ratio: float


def rows_of(times: Times, own: str) -> list[Row]:
    rows = []
    for name in dict.fromkeys(name for of in times.values() for name in of):
        found = {file: of[name] for file, of in times.items() if of.get(name)}
        ratios = [a / b for file, ms in found.items() for a, b in zip(ms, times[file].get(own, ()), strict=False)]
        middle = statistics.median(statistics.median(ms) for ms in found.values()) if found else float("nan")
        rows.append(Row(name, len(found), middle, statistics.median(ratios) if ratios else float("nan")))
    return sorted(rows, key=lambda row: row.ratio)


def table(rows: Sequence[Row], own: str) -> str:
    lines = [f"{'':<28} {'files':>5}  {'ms a file':>9}  {'ratio':>7}   ({own} = 1)"]
    lines += [f"{row.tool:<28} {row.files:5}  {row.ms:9.2f}  {row.ratio:7.3f}" for row in rows]
    return "\n".join(lines)


def differences(found: Answer, ldd: Answer) -> list[tuple[str, str]]:
    """Each a reason, and what it is about."""
    names = set(found.images.values())
    lost = {path: name for path, name in ldd.images.items() if path not in found.images}
    result = [("another file of that name" if name in names else "left out", path) for path, name in lost.items()]
    for path, name in found.images.items():
        if path in ldd.images or name in lost.values():
            continue
        if name in ldd.images.values():
            result.append(("a second file of that name", path))
        else:
            result.append(("found, where ldd finds none" if name in ldd.missing else "in excess", path))
    result += [("said to be missing, and is not", name) for name in sorted(found.missing - ldd.missing)]
    return result + [("missing, and not said", name) for name in sorted(ldd.missing - found.missing - names)]


def agreement(answers: Mapping[str, Mapping[str, Answer]]) -> tuple[str, dict[str, dict[str, int]]]:
    """What each tool says differently from ldd: as text, and as counts."""
    lines = [f"{'':<28} {'files':>5}  {'agree':>5}   what differs, images (the loader itself left out)"]
    counts: dict[str, dict[str, int]] = {}
    for tool in dict.fromkeys(tool for of in answers.values() for tool in of if tool != "ldd"):
        files = [(file, of[tool], of["ldd"]) for file, of in answers.items() if tool in of and "ldd" in of]
        found = {file: differences(mine, ldd) for file, mine, ldd in files}
        reasons = Counter(reason for each in found.values() for reason, _ in each)
        agree = sum(not each for each in found.values())
        counts[tool] = {"files": len(files), "agree": agree, **reasons}
        text = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
        lines.append(f"{tool:<28} {len(files):5}  {agree:5}   {text or '-'}")
        for reason in reasons:
            file, about = next((f, what) for f, each in found.items() for why, what in each if why == reason)
            lines.append(f"    {reason}: {about}, of {file}")
    return "\n".join(lines), counts


def collect(python: str, limit: int) -> list[str]:
    """Extension modules of that Python's site-packages, spread evenly over the sorted list of them."""
    code = (
        "import json, sysconfig, importlib.machinery as m\n"
        "print(json.dumps([sysconfig.get_path('platlib'), [s for s in m.EXTENSION_SUFFIXES if s != '.so']]))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    folder, suffixes = json.loads(done.stdout)
    found = sorted(str(path) for path in Path(folder).rglob("*.so") if str(path).endswith(tuple(suffixes)))
    count = min(limit, len(found))
    return [found[number * len(found) // count] for number in range(count)]


def compare_files(own: Tool, files: Sequence[str], rounds: int) -> tuple[list[Row], str, dict[str, dict[str, int]]]:
    """The rows, and how far the answers agree: as text, and as counts."""
    tools = file_tools(own)
    times, outputs = measure(tools, files, rounds)
    answers = {file: {name: one.answer for name, one in of.items() if one.answer} for file, of in outputs.items()}
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch, "files")
        listing.write_text("\n".join(files))
        for _ in range(rounds):
            done = run(replace(own, command=(*own.command, __file__, "--call")), str(listing))
            for file, (ms, paths, missing) in zip(files, json.loads(done.text), strict=True):
                times[file].setdefault(CALL, []).append(ms)
                answers[file][CALL] = answer(paths, missing)
    text, counts = agreement(answers)
    return rows_of(times, OWN), text, counts


def compare_wheels(own: Tool, wheels: Sequence[str], rounds: int) -> tuple[list[Row], list[str]]:
    """The rows, and what each tool says of each wheel."""
    title = "dlltracer, every image"
    rows: list[Row] = []
    notes = []
    for kind, name in (("linux", "auditwheel"), ("win", "delvewheel")):
        chosen = [wheel for wheel in wheels if kind in platform_of(wheel)]
        tools = {title: replace(own, command=(*own.command, __file__, "--unpack"))}
        if path := find_tool(name):
            tools[f"{name} show"] = Tool((path, "show"))
        times, outputs = measure(tools, chosen, rounds)
        for row in rows_of(times, title):
            rows.append(replace(row, tool=f"{row.tool} ({kind})"))
        for wheel in chosen:
            notes.append(Path(wheel).name)
            for tool, sample in outputs[wheel].items():
                ms = statistics.median(times[wheel][tool])
                notes.append(f"    {tool:<22} {ms:7.0f} ms  {wheel_note(sample.text)}")
    return rows, notes


def wheel_note(text: str) -> str:
    """The gist of what a tool says of a wheel, in a line."""
    if "already repaired" in text:
        return "looked at nothing: already repaired"
    if "will be copied into the wheel" in text:
        missing = sorted(re.findall(r"(\S+) \(Error: Not Found\)", text))
        return f"not found: {', '.join(missing) or 'none'}"
    if match := re.search(r'platform tag:\s+"([^"]+)"', text):
        return f"fits {match[1]}"
    return text.strip().splitlines()[-1] if text.strip() else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="*", help="ELF files to take, instead of extension modules")
    parser.add_argument("--python", default=sys.executable, help="the Python with the packages, click and rich")
    parser.add_argument("--files", type=int, default=40, help="how many extension modules (default 40; 0 for none)")
    parser.add_argument("--wheel", action="append", default=[], help="a wheel to show; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="samples for each tool and file (default 5)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers there too")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    parser.add_argument("--unpack", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call or options.unpack:
        call_in_process(options.call) if options.call else unpack_and_call(options.unpack)
        return
    for name, source in GET.items():
        if find_tool(name) is None:
            print(f"no {name} here: {source}")
    own = Tool((options.python,), environment={"PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")})
    report: dict[str, object] = {}
    files = [os.path.abspath(file) for file in options.file] or collect(options.python, options.files)
    if files:
        rows, text, counts = compare_files(own, files, options.rounds)
        print(f"{len(files)} files, {options.rounds} rounds\n\n{table(rows, OWN)}\n\n{text}")
        report |= {"files": [asdict(row) for row in rows], "agreement": counts}
    if options.wheel:
        rows, notes = compare_wheels(own, options.wheel, options.rounds)
        print(f"\n{table(rows, 'dlltracer')}\n", *notes, sep="\n")
        report |= {"wheels": [asdict(row) for row in rows]}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
