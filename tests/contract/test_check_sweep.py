"""`dlltracer check` for many targets: growing results, downloads, workers of a cluster that die."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from builders.elf_file import ElfFile, Symbol
from builders.schema_check import jsonschema
from builders.wheel_file import build_wheel
from dlltracer.cli.commands import cli
from dlltracer.errors import DlltracerError
from dlltracer.report.render_json import bundle_schema

SO = "pkg/mod.cpython-312-x86_64-linux-gnu.so"
COMMAND = [sys.executable, "-m", "dlltracer", "check"]


def run(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    """Call the command in this process, as `main` does: a process each time would take most of the time."""
    done = CliRunner().invoke(cli, ["--no-config", "check", *map(str, arguments)], input=text)
    status, errors = done.exit_code, done.stderr
    if isinstance(done.exception, DlltracerError):
        status, errors = 2, f"{errors}dlltracer: error: {done.exception}\n"
    elif done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess([], status, done.stdout, errors)


def module(*needed: str) -> bytes:
    return ElfFile(loadable=True, symbols=(Symbol("PyInit_mod"),), needed=needed).build()


@functools.cache
def wheel_bytes(folder: Path) -> bytes:
    return build_wheel(folder, {SO: module("libc.so.6")}).read_bytes()


@pytest.fixture
def wheels(tmp_path: Path) -> list[str]:
    """Thirty wheels; the third misses a library."""
    content, paths = wheel_bytes(tmp_path), []
    for number in range(30):
        folder = tmp_path / f"{number:02}"
        folder.mkdir()
        path = folder / "pkg-1.0-cp312-cp312-manylinux_2_17_x86_64.whl"
        if number == 2:
            build_wheel(folder, {SO: module("libtbb.so.12")})
        else:
            path.write_bytes(content)
        paths.append(str(path))
    return paths


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def targets_of(path: Path) -> Counter[str]:
    return Counter(str(line["target"]) for line in lines_of(path))


def test_lines_grow_and_a_second_run_goes_on(wheels: list[str], tmp_path: Path) -> None:
    results, listed = tmp_path / "results.jsonl", tmp_path / "list.txt"
    listed.write_text("# the wheels\n\n" + "\n".join([*wheels, wheels[0]]) + "\n")
    first = run("-o", results, *wheels[:5], wheels[0])
    assert (first.returncode, first.stdout) == (1, "5 targets checked: 1 with errors, 0 could not be read\n")
    assert targets_of(results) == Counter(wheels[:5])
    schema = {**bundle_schema("check"), **bundle_schema("check")["$defs"]["target"]}
    for line in lines_of(results):
        jsonschema.Draft202012Validator(schema).validate(line)
    with results.open("ab") as file:
        file.write(b'{"target": "' + os.fsencode(wheels[5])[:9])  # the end of a run that was killed
    before = results.read_bytes()
    second = run("-o", results, "--from-file", listed)
    assert second.stdout == "30 targets checked, 5 of them earlier: 1 with errors, 0 could not be read\n"
    assert second.returncode == 1 and targets_of(results) == Counter(wheels)
    assert results.read_bytes().startswith(before.rpartition(b"\n")[0]), "what was there is not written again"
    third = run("-o", results, "--from-file", "-", text=listed.read_text())
    assert "30 of them earlier" in third.stdout and targets_of(results) == Counter(wheels)


def test_what_could_not_be_read_is_tried_again_when_asked(wheels: list[str], tmp_path: Path) -> None:
    results, late = tmp_path / "results.jsonl", tmp_path / "late" / Path(wheels[0]).name
    assert run("-o", results, late, wheels[0]).returncode == 3
    late.parent.mkdir()
    late.write_bytes(Path(wheels[0]).read_bytes())
    assert run("-o", results, late, wheels[0]).returncode == 3
    again = run("-o", results, "--retry-unreadable", late, wheels[0])
    assert (again.returncode, targets_of(results)) == (0, Counter([wheels[0], str(late)]))


def test_other_files_are_left_alone(wheels: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    for content in (b"notes of mine\nand more\n", b'{"a": 1}\n', b"\x00" * 5000, b'{"target": 3}\n[]\n'):
        results.write_bytes(content)
        refused = run("-o", results, wheels[0])
        (line,) = refused.stderr.splitlines()
        assert refused.returncode == 2 and "cannot go on with" in line
        assert results.read_bytes() == content
    results.unlink()
    os.mkfifo(results)
    assert "regular file" in run("-o", results, wheels[0]).stderr
    with (tmp_path / "other.jsonl").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = run("-o", tmp_path / "other.jsonl", wheels[0])
    assert refused.returncode == 2 and "another run writes to it" in refused.stderr


def test_lines_on_stdout(wheels: list[str]) -> None:
    done = run("--format", "jsonl", *wheels[:3])
    assert [json.loads(line)["target"] for line in done.stdout.splitlines()] == wheels[:3]
    assert done.returncode == 1


def test_what_contradicts_itself(wheels: list[str], tmp_path: Path) -> None:
    for arguments in (
        ["--format", "parquet", wheels[0]], ["--retry-unreadable", wheels[0]], ["--from-file", tmp_path / "gone"],
        ["--from-file", "-"], ["--jobs", "2", "--dask", "tcp://127.0.0.1:1", wheels[0]],
    ):  # fmt: skip
        refused = run(*arguments)
        assert refused.returncode == 2 and refused.stdout == "", arguments


def test_parquet(wheels: list[str], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    results, journal = tmp_path / "results.parquet", tmp_path / "results.parquet.jsonl"
    assert run("-o", results, *wheels[:5]).returncode == 1
    table = parquet.read_table(results).to_pylist()
    assert [row["target"] for row in table] == wheels[:5] and not journal.exists()
    assert table[2]["problems"][0]["code"] == "missing-image" and table[0]["problems"] == []
    # A run that was killed leaves its journal, and between its last two steps both files.
    run("-o", tmp_path / "other.jsonl", *wheels[3:8])
    (tmp_path / "other.jsonl").rename(journal)
    done = run("-o", results, *wheels)
    assert "8 of them earlier" in done.stdout and not journal.exists()
    assert Counter(row["target"] for row in parquet.read_table(results).to_pylist()) == Counter(wheels)
    results.write_bytes(b"PAR1 no more")
    refused = run("-o", results, wheels[0])
    assert refused.returncode == 2 and "no results of dlltracer check" in refused.stderr
    assert results.read_bytes() == b"PAR1 no more"


class Index(ThreadingHTTPServer):
    """Serves a wheel under many names. The first request for a name with "held" waits until it is let go."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.content = content
        self.held, self.let_go = threading.Event(), threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Answers(BaseHTTPRequestHandler):
    server: Index

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if "held" in self.path and not self.server.held.is_set():
            self.server.held.set()
            self.server.let_go.wait(60)
            return
        if "gone" in self.path:
            self.send_error(404)
        elif "elsewhere" in self.path:
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content[: 100 if "torn" in self.path else None])


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(wheel_bytes(tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.let_go.set()
        server.shutdown()
        thread.join()


NAME = "pkg-1.0-cp312-cp312-manylinux_2_17_x86_64.whl"


def test_downloads(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    digest = hashlib.sha256(index.content).hexdigest()
    good = [index.url(NAME), index.url(f"x/{NAME}#sha256={digest}"), index.url(f"y/{NAME}?z=1#a")]
    bad = {
        index.url(f"gone/{NAME}"): "the server answers 404", index.url(f"elsewhere/{NAME}"): "edirect",
        index.url(f"torn/{NAME}"): "100 of", index.url(f"{NAME}#sha256={'0' * 64}"): "SHA-256",
        index.url(""): "no file name", index.url("a%2fb.whl"): "no file name",
        f"http://me:secret@127.0.0.1/{NAME}": "password", "http://127.0.0.1:1/a.whl": "cannot be downloaded",
        "http://[::1/a.whl": "",
    }  # fmt: skip
    done = run("--json", *good, *bad)
    by_target = {one["target"]: one["unreadable"] for one in json.loads(done.stdout)["targets"]}
    assert done.returncode == 3 and done.stderr == ""
    assert [by_target[url] for url in good] == [""] * len(good)
    for url, words in bad.items():
        assert by_target[url] and words in by_target[url] and "dlltracer failed" not in by_target[url], url
    assert list((tmp_path / "tmp").glob("dlltracer-check-*")) == []


def kill_who_asks(index: Index, first: int) -> None:
    """Kill the process, `first` or below it, that waits for the file that is held: it is in the middle of a target."""
    psutil = pytest.importorskip("psutil", reason="needs psutil")
    assert index.held.wait(60)
    found = [
        process.pid for process in psutil.Process(first).children(recursive=True)
        for connection in process.net_connections("tcp4")
        if connection.raddr and connection.raddr.port == index.server_port
    ]  # fmt: skip
    (worker,) = set(found)
    os.kill(worker, signal.SIGKILL)
    index.let_go.set()


def sweep_and_kill(index: Index, wheels: list[str], results: Path, *how: str, workers_of: int = 0) -> None:
    """Check the wheels and one that is held, kill its worker, and hold that nothing is lost and nothing doubled.

    `workers_of`: the process below which the workers are; 0 for the command itself.
    """
    targets = [*wheels[:10], index.url(f"held/{NAME}"), *wheels[10:]]
    command = [*COMMAND, *how, "-o", str(results), *targets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            kill_who_asks(index, workers_of or process.pid)
        except BaseException:
            process.kill()
            raise
        output, errors = process.communicate(timeout=120)
    assert output == "31 targets checked: 1 with errors, 0 could not be read\n", errors
    assert process.returncode == 1
    assert targets_of(results) == Counter(targets)


def test_processes_of_which_one_is_killed(index: Index, wheels: list[str], tmp_path: Path) -> None:
    sweep_and_kill(index, wheels, tmp_path / "results.jsonl", "--jobs", "3")


def test_processes_end_with_the_one_that_started_them(index: Index, wheels: list[str], tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil", reason="needs psutil")
    command = [*COMMAND, "--jobs", "2", "-o", str(tmp_path / "results.jsonl"), *wheels[:2], index.url(f"held/{NAME}")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert index.held.wait(60)
        below = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert below
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == []


CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


def test_a_cluster_of_which_a_worker_is_killed(index: Index, wheels: list[str], tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs dask.distributed")
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, cwd=tmp_path,
    ) as cluster:  # fmt: skip
        try:
            assert cluster.stdout is not None and cluster.stdin is not None
            address = cluster.stdout.readline().strip()
            sweep_and_kill(index, wheels, tmp_path / "results.jsonl", "--dask", address, workers_of=cluster.pid)
        finally:
            cluster.communicate("")


def test_a_cluster_that_is_not_there(wheels: list[str], tmp_path: Path) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('hidden')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*COMMAND, "--dask", "tcp://127.0.0.1:1", wheels[0]], capture_output=True, text=True, check=False, timeout=60,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 2 and "pip install 'dlltracer[dask]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
