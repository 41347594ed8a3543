"""Commands of pip are for the Python that failed, as its own shell takes them."""

from __future__ import annotations

import shlex

import pytest

from builders.failed_case import EXT, absent, case, process, tree
from builders.windows_case import PROCESS, SITE, TOP, Windows, pe_image
from dlltracer.diagnose.engine import diagnose
from dlltracer.diagnose.remedies import for_interpreter, interpreter_of, reinstall, reinstall_by_pip
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
    finding = Finding(
        code="c",
        title="t",
        confidence=Confidence.LIKELY, subject="s",
        remedies=tuple(Remedy("w", one) for one in commands),
    )
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


def placed(system: System, prefix: str, user_base: str | None = None) -> ProcessFacts:
    return ProcessFacts(system, (3, 11, 0), (), 64, "", prefix, prefix, user_base=user_base)


@pytest.mark.parametrize(
    ("folder", "process_facts"),
    [
        ("/opt/env/lib/python3.11/site-packages", placed(System.LINUX, "/opt/env")),
        ("/opt/env/lib64/python3.11/site-packages/", placed(System.LINUX, "/opt/env/")),
        ("/usr/lib/python3/dist-packages", placed(System.LINUX, "/usr")),
        ("/usr/local/lib/python3.11/dist-packages", placed(System.LINUX, "/usr")),
        ("/home/u/.local/lib/python3.11/site-packages", placed(System.LINUX, "/usr", "/home/u/.local")),
        ("C:\\Py\\Lib\\site-packages", placed(System.WINDOWS, "c:\\PY")),
        ("C:\\R\\Python\\Python311\\site-packages", placed(System.WINDOWS, "C:\\Py", "C:\\R\\Python")),
        ("", placed(System.LINUX, "/usr")),
        ("/srv/app", None),
        ("/srv/app", facts(System.LINUX, "/usr/bin/python3")),
        ("/srv/app", placed(System.OTHER, "/usr")),
    ],
)
def test_a_folder_of_the_interpreter_is_no_target(folder: str, process_facts: ProcessFacts | None) -> None:
    remedy = reinstall_by_pip("numpy", "2.1.0", folder, process_facts)
    assert remedy.command == "python -m pip install --force-reinstall --no-deps numpy==2.1.0" or (
        process_facts is not None
        and process_facts.system is System.WINDOWS
        and remedy.command == 'python -m pip install --force-reinstall --no-deps "numpy==2.1.0"'
    )
    assert remedy.what == "install numpy again"


@pytest.mark.parametrize(
    ("folder", "process_facts", "word"),
    [
        ("/srv/my app/libs", placed(System.LINUX, "/usr"), "'/srv/my app/libs'"),
        ("/srv/$(x)", placed(System.LINUX, "/usr"), "'/srv/$(x)'"),
        ("/usr/lib/app/site-packages/x", placed(System.LINUX, "/usr"), "/usr/lib/app/site-packages/x"),
        ("/usr/share/app/site-packages", placed(System.LINUX, "/usr"), "/usr/share/app/site-packages"),
        ("/other/lib/python3.11/site-packages", placed(System.LINUX, "/usr"), "/other/lib/python3.11/site-packages"),
        ("C:\\my app\\libs", placed(System.WINDOWS, "C:\\Py"), '"C:\\my app\\libs"'),
        ("C:\\app\\site-packages", placed(System.WINDOWS, "C:\\Py"), "C:\\app\\site-packages"),
    ],
)
def test_another_folder_is_given_to_pip(folder: str, process_facts: ProcessFacts, word: str) -> None:
    remedy = reinstall_by_pip("numpy", "", folder, process_facts, "a file of it is damaged")
    assert remedy.command == f"python -m pip install --force-reinstall --no-deps --target {word} --upgrade numpy"
    assert remedy.what.startswith(f"install numpy again, a file of it is damaged (into {folder}, ")
    assert "what other packages have" in remedy.what  # pip removes a folder that it replaces


def test_other_managers_know_the_folder_themselves() -> None:
    owner = PackageOwner(PackageManager.DPKG, "libfoo1", "1", "/usr/lib/libfoo.so.1")
    (remedy,) = reinstall([owner], placed(System.LINUX, "/opt/env"))
    assert remedy.command == "apt-get install --reinstall libfoo1"


def test_a_name_is_a_strangers_text() -> None:
    remedy = reinstall_by_pip("x; rm -rf ~", "1", "", placed(System.LINUX, "/usr"))
    assert remedy.command == "python -m pip install --force-reinstall --no-deps 'x; rm -rf ~==1'"
