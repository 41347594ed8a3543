"""The stable ABI and other versions of Python, by the symbols that files import: ELF, PE and Mach-O."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builders.elf_file import ElfFile, Symbol, need
from builders.macho_file import build_macho
from builders.pe_file import build_pe
from builders.wheel_file import build_wheel
from dlltracer.check.packages import check_wheel
from dlltracer.check.tags import read_promise
from dlltracer.knowledge import python_names
from dlltracer.model.check import Problem, Severity

LINUX, WINDOWS, MAC = "manylinux_2_17_x86_64", "win_amd64", "macosx_11_0_arm64"
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
Check = Callable[..., list[Problem]]


def elf(*names: str) -> bytes:
    return ElfFile(loadable=True, symbols=(Symbol("PyInit_mod"), *map(need, names))).build()


def macho(*names: str) -> bytes:
    imports = [(f"_{name}", -2) for name in names]
    return build_macho(["/usr/lib/libSystem.B.dylib"], imports, {"_PyInit_mod": None}, signature=16)


def pe(library: str, *names: str) -> bytes:
    return build_pe({library: list(names)}, ["PyInit_mod"])


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(files: dict[str, bytes], tag: str, **more: object) -> list[Problem]:
        report = check_wheel(str(build_wheel(tmp_path, files, tag=tag, **more)))  # type: ignore[arg-type]
        assert report.unreadable == ""
        return list(report.problems)

    return run


def test_what_the_table_says() -> None:
    names = python_names()
    assert names["PyArg_ParseTuple"].stable_since == 2
    assert names["PyUnicode_AsUTF8AndSize"].stable_since == 10
    assert names["PyUnicode_AsUTF8AndSize"].minors == frozenset(range(6, 16))
    assert names["_PyUnicode_Ready"].stable_since is None
    assert max(names["_PyUnicode_Ready"].minors) < 15
    assert names["_Py_NegativeRefcount"].is_debug
    assert names["PyErr_SetFromWindowsErr"].is_elsewhere
    # Every later version exports what one has put into the stable ABI: that is what the ABI promises.
    for name, entry in names.items():
        if entry.stable_since is not None and not entry.is_debug and not entry.is_elsewhere:
            assert entry.minors >= set(range(max(entry.stable_since, 10), 16)), name


@pytest.mark.parametrize("build", [elf, macho])
@pytest.mark.parametrize(
    ("tag", "name", "severity", "words"),
    [
        ("cp38-abi3", "PyType_GetName", ERROR, "Python 3.8 to 3.10 does not have"),
        ("cp38-abi3", "_PyDict_GetItemId", ERROR, "does not have"),
        ("cp38-abi3", "PyUnicode_AsUTF8AndSize", NOTE, "from 3.10 on"),
        ("cp310-abi3", "PyUnicode_AsUTF8AndSize", None, ""),
        ("cp38-abi3", "PyUnicode_AsUTF8", WARNING, "which the stable ABI does not have"),
        ("cp38-abi3", "PyArg_ParseTuple", None, ""),
    ],
)
def test_the_stable_abi(
    check: Check, build: Callable[..., bytes], tag: str, name: str, severity: Severity | None, words: str
) -> None:
    platform = LINUX if build is elf else MAC
    problems = check({"pkg/mod.abi3.so": build(name)}, f"{tag}-{platform}")
    found = [(problem.severity, problem.title) for problem in problems if problem.code == "abi3-violation"]
    assert [one for one, _ in found] == ([] if severity is None else [severity])
    assert all(words in title and name in title for _, title in found)


def test_requires_python_leaves_versions_out(check: Check) -> None:
    files = {"pkg/mod.abi3.so": elf("PyType_GetName")}
    (problem,) = check(files, f"cp38-abi3-{LINUX}")
    assert problem.severity is ERROR
    assert check(files, f"cp38-abi3-{LINUX}", requires_python=">=3.11") == []


@pytest.mark.parametrize(
    ("library", "name", "severity", "words"),
    [
        ("python3.dll", "PyArg_ParseTuple", None, ""),
        ("python3.dll", "PyErr_SetFromWindowsErr", None, ""),
        ("python3.dll", "PyUnicode_AsUTF8", ERROR, "has the stable ABI only"),
        ("python3.dll", "PyUnicode_AsUTF8AndSize", ERROR, "from 3.10 on"),
        ("python3.dll", "_PyNever_Heard", ERROR, "has the stable ABI only"),
        ("python38.dll", "PyArg_ParseTuple", ERROR, "python38.dll, the DLL of one version"),
    ],
)
def test_the_stable_abi_on_windows(
    check: Check, library: str, name: str, severity: Severity | None, words: str
) -> None:  # fmt: skip
    problems = check({"pkg/mod.pyd": pe(library, name)}, f"cp38-abi3-{WINDOWS}")
    found = [problem for problem in problems if problem.code == "abi3-violation"]
    assert [problem.severity for problem in found] == ([] if severity is None else [severity])
    assert all(words in problem.title for problem in found)


@pytest.mark.parametrize(
    ("file", "content", "tag"),
    [
        ("mod.cpython-312-x86_64-linux-gnu.so", elf("PyFrame_GetBack", "_PyDict_GetItemId"), LINUX),
        ("mod.cpython-312-darwin.so", macho("_PyDict_GetItemId"), MAC),
        ("mod.cp312-win_amd64.pyd", pe("python312.dll", "_PyDict_GetItemId"), WINDOWS),
    ],
)
def test_a_name_that_the_version_does_not_have(check: Check, file: str, content: bytes, tag: str) -> None:
    problems = check({f"pkg/{file}": content}, f"cp312-cp312-{tag}")
    (problem,) = [one for one in problems if one.code == "other-python"]
    assert problem.severity is ERROR
    assert "_PyDict_GetItemId, which Python 3.12 does not have" in problem.title
    assert "_PyDict_GetItemId: Python 3.6 to 3.9 has it" in problem.evidence


def test_a_name_of_no_python_at_all(check: Check) -> None:
    (problem,) = check({"pkg/mod.cpython-312-x86_64-linux-gnu.so": elf("PyNever_Heard")}, f"cp312-cp312-{LINUX}")
    assert (problem.code, problem.severity) == ("missing-symbol", ERROR)


@pytest.mark.parametrize("tag", ["cp27-cp27mu", "py3-none", "pp310-pypy310_pp73"])
def test_names_of_other_pythons_are_not_judged(check: Check, tag: str) -> None:
    assert check({"pkg/_mod.so": elf("PyString_FromString")}, f"{tag}-{LINUX}") == []
    assert check({"pkg/_mod.so": macho("PyString_FromString")}, f"{tag}-{MAC}") == []


def test_free_threaded(check: Check) -> None:
    name = next(name for name, entry in python_names().items() if entry.is_free_threaded and 14 not in entry.minors)
    own = {"pkg/mod.cpython-314t-x86_64-linux-gnu.so": elf(name, "PyArg_ParseTuple")}
    assert check(own, f"cp314-cp314t-{LINUX}") == []
    (problem,) = check({"pkg/mod.cpython-314-x86_64-linux-gnu.so": elf(name)}, f"cp314-cp314-{LINUX}")
    assert problem.code == "other-python"


@pytest.mark.parametrize("name", ["_Py_RefTotal", "_Py_NegativeRefcount", "PyModule_Create2TraceRefs"])
def test_debug_builds(check: Check, name: str) -> None:
    for file, content, platform in (
        ("mod.cpython-312-x86_64-linux-gnu.so", elf(name), LINUX), ("mod.abi3.so", elf(name), LINUX),
        ("mod.pyd", pe("python3.dll", name), WINDOWS),
    ):  # fmt: skip
        abi = "cp312" if "312" in file else "abi3"
        (problem,) = check({f"pkg/{file}": content}, f"cp312-{abi}-{platform}")
        assert (problem.code, problem.severity) == ("debug-build", ERROR)


def test_what_tags_promise() -> None:
    stable = read_promise([("cp38", "abi3", "win_amd64")], "<3.12,!=3.9.*")
    assert (stable.version, stable.is_stable, stable.minors) == ((3, 8), True, (8, 10, 11))
    assert read_promise([("cp38", "abi3", "any")], "no specifier").minors == tuple(range(8, 16))
    assert read_promise([("cp313", "cp313t", "any")]).is_free_threaded
    assert read_promise([("py3", "none", "any")]).version is None
    assert read_promise([("cp310", "none", "any"), ("cp311", "none", "any")]).version is None
    assert read_promise([("cp27", "cp27mu", "any")]).minors == ()
    assert read_promise([("pp310", "pypy310_pp73", "any")]).minors == ()
