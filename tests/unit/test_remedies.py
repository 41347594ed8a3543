"""Commands of pip are for the Python that failed, as its own shell takes them."""

from __future__ import annotations

import shlex

import pytest

from builders.failed_case import EXT, absent, case, process, tree
from builders.windows_case import PROCESS, SITE, TOP, Windows, pe_image
from dlltracer.diagnose.engine import diagnose
from dlltracer.diagnose.remedies import for_interpreter, interpreter_of
from dlltracer.model.failure import ProcessFacts, System
from dlltracer.model.finding import Confidence, Finding, Remedy
from dlltracer.model.provider import PackageManager, PackageOwner


def facts(system: System, executable: str) -> ProcessFacts:
    return ProcessFacts(system, (3, 11, 0), (), 64, executable, "", "")


@pytest.mark.parametrize(
    ("system", "executable", "word"),
    [
        (System.LINUX, "/opt/env/bin/python3", "/opt/env/bin/python3"),
        (System.LINUX, "/opt/my env/bin/python", "'/opt/my env/bin/python'"),
        (System.LINUX, "/opt/it's/python", "'/opt/it'\"'\"'s/python'"),
        (System.WINDOWS, "C:\\Py\\python.exe", "C:\\Py\\python.exe"),
        (System.WINDOWS, "C:\\Program Files\\Python311\\python.exe", '"C:\\Program Files\\Python311\\python.exe"'),
        (System.WINDOWS, "C:\\a&b\\python.exe", '"C:\\a&b\\python.exe"'),
        (System.WINDOWS, "", "python"),
    ],
)
def test_the_word_for_a_shell(system: System, executable: str, word: str) -> None:
    assert interpreter_of(facts(system, executable)) == word


def test_only_pip_of_any_python_is_replaced() -> None:
    commands = {
        "python -m pip install x": "'/a b/python' -m pip install x",
        "python -m pip uninstall -y a && python -m pip install b":
            "'/a b/python' -m pip uninstall -y a && '/a b/python' -m pip install b",
        "/usr/bin/python -m pip install x": "/usr/bin/python -m pip install x",
        "LD_LIBRARY_PATH=/x python ...": "LD_LIBRARY_PATH=/x python ...",
        "apt-get install python": "apt-get install python",
    }  # fmt: skip
    finding = Finding("c", "t", Confidence.LIKELY, "s", remedies=tuple(Remedy("w", one) for one in commands))
    changed = for_interpreter(finding, facts(System.LINUX, "/a b/python"))
    assert [remedy.command for remedy in changed.remedies] == list(commands.values())
    assert for_interpreter(finding, None) == finding


def test_in_a_verdict_of_linux() -> None:
    owner = PackageOwner(PackageManager.PIP, "numpy", "2.1.0", EXT)
    made = case(
        "libgone-0123abcd.so: cannot open shared object file: No such file or directory",
        tree=tree(absent("libgone-0123abcd.so")), owners={EXT: (owner,)},
        process=process(executable="/srv/my env/bin/python"),
    )  # fmt: skip
    commands = [remedy.command for remedy in diagnose(made).findings[0].remedies if remedy.command]
    wanted = "-m pip install --force-reinstall --no-deps numpy==2.1.0"
    assert f"{shlex.quote('/srv/my env/bin/python')} {wanted}" in commands


def test_in_a_verdict_of_windows() -> None:
    made = Windows({TOP: pe_image({"libomp140.x86_64.dll": ["f"]}), f"{SITE}\\x.dll": pe_image()}).case(126)
    commands = [remedy.command for remedy in diagnose(made).findings[0].remedies if remedy.command]
    assert f'{PROCESS.executable} -m pip install "torch>=2.4.1"' in commands
