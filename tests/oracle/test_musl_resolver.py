"""The musl resolver against musl, in a root. musl gives no account: what it mapped and its error text are compared."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import Any

import pytest

from oracle.roots import find_root
from oracle.tiny_elf import build_scenarios

if sys.platform != "linux":
    pytest.skip("musl is of Linux", allow_module_level=True)
if shutil.which("gcc") is None:
    pytest.skip("no gcc on this machine", allow_module_level=True)

pytestmark = pytest.mark.slow

MAPPED_WITHOUT_A_LOOK = {
    "wrong machine", "top wrong machine", "wrong class", "top wrong class", "wrong order", "top wrong order",
    "wrong version", "top wrong version", "nothing but another machine",
}  # fmt: skip
"""musl does not read these bytes of a header. It fails at the first relocation of such a file; these have none."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = find_root("musl")
    if isinstance(root, str):
        pytest.skip(root)
    tiny = build_scenarios(tmp_path_factory.mktemp("tiny"))
    done = root.run(tiny.folder, "resolve_inside.py")
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen.keys() == {scenario["name"] for scenario in tiny.scenarios}
    return seen


def test_every_scenario_ends_as_the_loader_ends_it(results: dict[str, Any]) -> None:
    wrong = {}
    for scenario, seen in results.items():
        if scenario in MAPPED_WITHOUT_A_LOOK:
            continue
        if seen["error"] is None:
            agree = not seen["failures"] and seen["new"] == seen["images"]
        else:
            agree = bool(seen["failures"]) and names_of(seen["error"]) == first_failure(seen)
        if not agree:
            wrong[scenario] = seen
    assert not wrong, json.dumps(wrong, indent=1)


def names_of(error: str) -> tuple[str, str | None]:
    """What was looked for, and for whom, in musl's words."""
    match = re.fullmatch(r"Error loading shared library (.*?): .*?(?: \(needed by (.*)\))?", error)
    assert match is not None, error
    return match[1], match[2]


def first_failure(seen: dict[str, Any]) -> tuple[str, str | None]:
    need, requested_by, _, _, _ = next(binding for binding in seen["bindings"] if binding[2] in ("MISSING", "REFUSED"))
    top = seen["failures"][0][0]
    return need, None if len(seen["bindings"]) == 1 and not seen["images"] and top == need else requested_by


def test_a_file_of_another_machine_is_refused_where_musl_only_sees_it_later(results: dict[str, Any]) -> None:
    for scenario in MAPPED_WITHOUT_A_LOOK:
        seen = results[scenario]
        assert seen["error"] is None, scenario
        ((_, state, reason, path),) = seen["failures"]
        assert state == "REFUSED" and "wrong_" in path
        assert re.search("made for|of 32 bits|unknown format version", reason), reason


def test_what_differs_from_glibc(results: dict[str, Any]) -> None:
    """A RUNPATH is inherited, the environment comes before an RPATH, and a text file ends the search."""
    assert results["runpath of the chain"]["error"] is None
    first = {b[0]: b[3] for b in results["rpath before environment"]["bindings"]}
    assert first["libx.so"].endswith("/env/libx.so")
    assert results["$LIB"]["error"] is not None
    assert results["wrong text"]["failures"][0][1:3] == [
        "REFUSED", "Exec format error: this is a script of the GNU linker, which only linkers read",
    ]  # fmt: skip
