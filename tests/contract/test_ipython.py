"""`%load_ext dlltracer` in real IPython: the magic, and the verdict behind the traceback of a cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.native import Native

pytest.importorskip("IPython")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fixtures' messages are those of Linux")

SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance(colors="NoColor")
shell.history_manager.enabled = False
said = []
for cell in json.loads(sys.argv[1]):
    with capture_output() as captured:
        result = shell.run_cell(cell, store_history=True)
    said.append({
        "ok": result.success, "result": repr(result.result), "out": captured.stdout, "err": captured.stderr,
        "shown": [output.data for output in captured.outputs],
    })
print(json.dumps(said))
"""

Cells = Callable[..., list[dict[str, object]]]


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the fixtures are long, and their headlines are to be on one line."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def run_cells(tmp_path: Path) -> Cells:
    """Run cells in one shell of their own: for each, whether it was fine, its text, what it showed."""

    def run(*cells: str) -> list[dict[str, object]]:
        ran = subprocess.run(
            [sys.executable, "-c", SHELL, json.dumps(cells)], env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipy")},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return list(json.loads(ran.stdout))

    return run


@pytest.fixture
def broken(native: Native, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that fails for want of `Native.missing`."""
    module = native.broken_module()
    monkeypatch.setenv("PYTHONPATH", str(module.parent))
    return module.name.partition(".")[0]


def texts(cell: dict[str, object]) -> list[str]:
    """What a cell showed, as text."""
    shown = cell["shown"]
    assert isinstance(shown, list) and all(set(data) == {"text/plain", "text/html"} for data in shown), cell
    return [data["text/plain"] for data in shown]


def test_the_tree_of_a_line_and_of_a_cell(run_cells: Cells, native: Native) -> None:
    path, other = native.tiny(), native.tiny()
    _, line, cell = run_cells(
        "%load_ext dlltracer",
        f"%dlltrace import ctypes; name = {{'a': 1}}; ctypes.CDLL({str(path)!r}).tiny_answer()",
        f"%%dlltrace --backend=snapshot\nx = name['a']\n!true\nctypes.CDLL({str(other)!r})\nx + 1\n",
    )
    (tree,) = texts(line)
    assert line["ok"] and "Out[2]: 42" in str(line["out"])
    assert f"{path.name}  {path}" in tree and tree.endswith("1 image loaded, 0 failed; traced by rtld")
    (tree,) = texts(cell)
    assert cell["ok"] and "Out[3]: 2" in str(cell["out"]) and other.name in tree and "traced by snapshot" in tree
    html = str(cell["shown"])
    assert "<details open><summary>" in html and other.name in html


def test_a_cell_that_fails(run_cells: Cells, broken: str) -> None:
    _, cell, plain, after = run_cells(
        "%load_ext dlltracer", f"%%dlltrace --failed-only\nimport bz2\ndef f():\n    import {broken}\nf()\n",
        f"import {broken}", "1",
    )  # fmt: skip
    tree, verdict = texts(cell)
    assert not cell["ok"] and Native.missing in tree and "bz2" not in tree
    out = str(cell["out"])
    assert out.count("Traceback") == 1 and "ipython.py" not in out
    assert f"Cell In[2], line 4, in f()\n      3 def f():\n----> 4     import {broken}" in out
    assert verdict.startswith(f"import {broken} failed: {Native.missing} was not found")
    assert f"chain   Cell In[2], line 4: import {broken}\n" in verdict and "there was no trace" not in verdict
    (verdict,) = texts(plain)
    assert not plain["ok"] and "Cell In[3], line 1" in verdict and "note    there was no trace" in verdict
    assert after["ok"] and after["shown"] == []


def test_each_exception_is_explained_once_and_others_not_at_all(run_cells: Cells, broken: str) -> None:
    cells = run_cells(
        "import dlltracer; dlltracer.install(); get_ipython().run_line_magic('load_ext', 'dlltracer')",
        f"try:\n    import {broken}\nexcept ImportError as error:\n    kept = error\n    raise ValueError from error",
        "raise kept",
        "raise kept",
        "import no_such_module",
        "open('/none')",
        "1 / 0",
        f"try:\n    import {broken}\nexcept ImportError:\n    pass",
    )
    assert [len(texts(cell)) for cell in cells] == [0, 1, 1, 0, 0, 0, 0, 0]
    assert all(f"{Native.missing} was not found" not in str(cell["err"]) for cell in cells)


def test_wrong_lines(run_cells: Cells) -> None:
    wrong = {
        "%dlltrace --backend nope x = 1": "UsageError: unknown backend 'nope'",
        "%dlltrace --backend": "UsageError: --backend wants the name of a mechanism",
        "%dlltrace --fast x = 1": "UsageError: there is no option --fast",
        "%%dlltrace x = 1\nx = 2": "UsageError: the code stands in the lines below",
        "%%dlltrace\nx = 3\nx =": "SyntaxError: invalid syntax",
    }
    _, *cells, after = run_cells("%load_ext dlltracer", *wrong, "x")
    for cell, printed in zip(cells, wrong.values(), strict=True):
        assert not cell["ok"] and printed in f"{cell['out']}{cell['err']}" and cell["shown"] == []
    assert "line 3\n" in str(cells[-1]["out"])
    assert "NameError" in str(after["out"]), "nothing of it was run"


def test_where_no_trace_can_start_the_cell_runs_all_the_same(run_cells: Cells, broken: str) -> None:
    _, cell, failing = run_cells(
        "%load_ext dlltracer", "%dlltrace --backend etw 6 * 7", f"%dlltrace --backend etw import {broken}"
    )
    assert cell["ok"] and "Out[2]: 42" in str(cell["out"]) and cell["shown"] == []
    assert str(cell["err"]).startswith("dlltracer: not traced: backend 'etw' is not available here: ")
    assert "note    there was no trace" in texts(failing)[0]


def test_unload(run_cells: Cells, broken: str) -> None:
    cells = run_cells(
        "%load_ext dlltracer", "%reload_ext dlltracer", f"import {broken}", "%unload_ext dlltracer", f"import {broken}",
        "%dlltrace 1",
    )  # fmt: skip
    assert [len(texts(cell)) for cell in cells] == [0, 0, 1, 0, 0, 0]
    assert "not found" in str(cells[-1]["err"])


def test_a_verdict_that_cannot_be_made(run_cells: Cells, broken: str) -> None:
    cells = run_cells(
        "%load_ext dlltracer",
        "import dlltracer.api.explain as e\ndef bad(*_): raise KeyError('ours')\ne.explain_if_of_a_loader = bad",
        f"import {broken}",
    )
    assert cells[2]["shown"] == [] and cells[2]["err"] == "dlltracer: no verdict: KeyError: 'ours'\n"
