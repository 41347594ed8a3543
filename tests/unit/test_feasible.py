"""Remedies that cannot work on the machine are not offered; what could not be checked is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from builders.failed_case import PYTHON, absent, case, process, tree
from dlltracer.api.explain import explain
from dlltracer.diagnose import engine
from dlltracer.diagnose.case import Case, InstallFacts, MachineLimits
from dlltracer.diagnose.engine import diagnose
from dlltracer.diagnose.feasible import keep_feasible, packages_to_install
from dlltracer.diagnose.providers import provider_by_rule
from dlltracer.host.packages import parse_apk_policy, parse_apt_policy
from dlltracer.model.environment import AvailablePackages, CLibrary, ProviderKind
from dlltracer.model.finding import Confidence, Finding, Remedy

GONE = "libgone.so.1: cannot open shared object file: No such file or directory"
APT = ("apt-get", "install")


def kept(
    command: tuple[str, ...], facts: InstallFacts | None, *, glibc: str | None = None, **environment: str
) -> Remedy | None:
    """The remedy with that command, as it is offered on a machine."""
    limits = MachineLimits(c_library=CLibrary("glibc", glibc)) if glibc is not None else None
    made = replace(
        case(GONE, process=process(environment=tuple(environment.items()))), install=facts, limits=limits
    )
    finding = Finding(
        code="c", title="t", confidence=Confidence.LIKELY, subject="s", remedies=(Remedy("do", command),)
    )
    return next(iter(keep_feasible(finding, made).remedies), None)


def available(unchecked: str | None = None, **candidates: str | None) -> InstallFacts:
    return InstallFacts(available=AvailablePackages(
        candidates=candidates, installed={"libhere1": "2"}, unchecked=unchecked
    ))  # fmt: skip


def test_packages_of_the_distribution() -> None:
    facts = available(libfoo1="1.2", libbar2=None, libbar2t64="2-1", libnone3=None, libnone3t64=None)
    assert kept((*APT, "libfoo1"), facts) == Remedy("do", (*APT, "libfoo1"))
    assert kept((*APT, "libnone3"), facts) is None, "there is none to be had"
    assert kept((*APT, "libhere1"), facts) is None, "it is installed"
    assert kept((*APT, "libbar2"), facts) == Remedy("do (libbar2 is libbar2t64 here)", (*APT, "libbar2t64"))
    not_checked = kept((*APT, "libfoo1"), available("no lists"))
    assert not_checked == Remedy("do (not checked whether there is one: no lists)", (*APT, "libfoo1"))
    assert kept((*APT, "libnone3"), None) is not None, "of another machine nothing is known"


@pytest.mark.parametrize("package", ["libc6", "libc6:amd64", "libc6-dev", "libstdc++6", "glibc", "musl", "libgcc-s1"])
def test_no_fix_replaces_what_the_system_runs_on(package: str) -> None:
    assert kept((*APT, "--reinstall", package), InstallFacts()) is None
    assert kept((*APT, "--reinstall", "libfoo1"), InstallFacts()) is not None


def test_conda_is_for_a_python_of_conda() -> None:
    install = ("conda", "install", "-c", "conda-forge", "icu")
    assert kept(install, InstallFacts()) is None and kept(install, InstallFacts(is_conda=True)) is not None
    assert kept(("conda", "activate", "/env"), InstallFacts()) is not None


def test_pip_installs_nothing_that_is_installed() -> None:
    facts = InstallFacts(distributions={"nvidia-cuda-runtime-cu12": "12.9"})
    pip = (PYTHON, "-m", "pip", "install")
    assert kept((*pip, "nvidia_cuda.runtime-cu12"), facts) is None
    assert kept((*pip, "nvidia-cuda-runtime-cu12>=13"), facts) is not None
    assert kept((*pip, "--force-reinstall", "--no-deps", "nvidia-cuda-runtime-cu12"), facts) is not None
    assert kept((*pip, "other"), facts) is not None


def test_a_variable_that_is_set_already() -> None:
    command = ("env", "LD_LIBRARY_PATH=/x", PYTHON)
    assert kept(command, InstallFacts()) is not None
    assert kept(command, InstallFacts(), LD_LIBRARY_PATH="/a:/x") is None
    assert kept(("env", "-u", "LD_LIBRARY_PATH", PYTHON), InstallFacts()) is None
    assert kept(("env", "-u", "LD_LIBRARY_PATH", PYTHON), InstallFacts(), LD_LIBRARY_PATH="/a") is not None


@pytest.mark.parametrize(("version", "offered"), [("2.40", False), ("2.41", True), ("2.5", False)])
def test_a_tunable_that_this_glibc_has(version: str, offered: bool) -> None:
    command = ("env", "GLIBC_TUNABLES=glibc.rtld.execstack=2", PYTHON)
    assert (kept(command, InstallFacts(), glibc=version) is not None) is offered


def test_an_option_that_the_tool_has() -> None:
    command = ("patchelf", "--clear-execstack", "/x.so")
    assert kept(command, InstallFacts(tools={"patchelf": "0.18.0"})) == Remedy("do", command)
    old, none = kept(command, InstallFacts(tools={"patchelf": "0.14.3"})), kept(command, InstallFacts())
    assert old is not None and old.command == () and "0.18 or later (here is 0.14.3, which has no" in old.what
    assert none is not None and none.command == () and "0.18 or later (none is installed here)" in none.what


def test_what_to_ask_about() -> None:
    missing = tree(absent("libGL.so.1"))
    words = GONE.replace("libgone", "libGL")
    findings = diagnose(case(words, tree=missing, distribution="debian")).findings
    assert packages_to_install(findings) == (ProviderKind.APT, ("libgl1",))
    assert packages_to_install(()) == (None, ())
    others = (Remedy("x", ("apt-get",)), Remedy("x"), Remedy("x", (*APT, "--reinstall", "libgl1")))
    assert packages_to_install([replace(findings[0], remedies=others)]) == (None, ())


def test_the_words_of_apt() -> None:
    """As apt 2.6 writes them."""
    text = (
        "libgl1:\n  Installed: 1.6.0-1\n  Candidate: 1.6.0-1\n  Version table:\n *** 1.6.0-1 500\n"
        "        500 http://deb.debian.org/debian bookworm/main amd64 Packages\n        100 /var/lib/dpkg/status\n"
        "libpurged:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n"
        "libnew:\n  Installed: (none)\n  Candidate: 2:1.0~rc1\n"
    )
    assert parse_apt_policy(text) == (
        {"libgl1": "1.6.0-1", "libpurged": None, "libnew": "2:1.0~rc1"}, {"libgl1": "1.6.0-1"}
    )  # fmt: skip
    assert parse_apt_policy("") == parse_apt_policy("  Candidate: 1\n") == ({}, {})


def test_the_words_of_apk() -> None:
    """As apk-tools 2.14 writes them."""
    text = (
        "musl policy:\n  1.2.4-r2:\n    lib/apk/db/installed\n    https://dl-cdn.alpinelinux.org/alpine/v3.19/main\n"
        "mesa-gl policy:\n  23.3.6-r1:\n    https://dl-cdn.alpinelinux.org/alpine/v3.19/main\n"
    )
    assert parse_apk_policy(text) == ({"musl": "1.2.4-r2", "mesa-gl": "23.3.6-r1"}, {"musl": "1.2.4-r2"})


APK_ADD = ("apk", "add", "so:libuv.so.1")


@pytest.mark.parametrize(
    ("facts", "offered"),
    [
        (AvailablePackages(providers={APK_ADD[2]: ("libuv",)}), Remedy("install libuv", ("apk", "add", "libuv"))),
        (AvailablePackages(providers={APK_ADD[2]: ("a", "b")}), Remedy("do: a or b", APK_ADD)),
        (AvailablePackages(providers={APK_ADD[2]: ()}), None),
        (AvailablePackages(providers={APK_ADD[2]: ("libuv",)}, installed={"libuv": ""}), None),
        (AvailablePackages(unchecked="no lists"), Remedy("do (not checked whether there is one: no lists)", APK_ADD)),
    ],
)
def test_apk_installs_by_the_name_of_a_library(facts: AvailablePackages, offered: Remedy | None) -> None:
    assert kept(APK_ADD, InstallFacts(available=facts)) == offered


@pytest.mark.parametrize(("distribution", "command"), [("alpine", APK_ADD), ("wolfi", APK_ADD), ("debian", None)])
def test_a_library_that_no_table_has_on_alpine(distribution: str, command: tuple[str, ...] | None) -> None:
    words = "Error loading shared library libuv.so.1: No such file or directory (needed by /x.so)"
    (finding,) = diagnose(case(words, tree=tree(absent("libuv.so.1")), distribution=distribution)).findings
    assert (command in [remedy.command for remedy in finding.remedies]) is (command is not None)


@pytest.mark.parametrize("name", ["libfoo.so", "libtorch-1a2b3c4d.so.1", "foo.so.1", "libfoo.so.1;reboot", "lib.so.1"])
def test_no_command_for_a_name_that_is_no_numbered_library(name: str) -> None:
    assert not provider_by_rule(name, "alpine")


def test_rules_run_once_for_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which packages can be installed is asked between the rules and the verdict, not by a second run of the rules."""
    cases = []

    def count(case: Case) -> Iterator[Finding]:
        cases.append(case)
        yield Finding(
            code="c", title="t", confidence=Confidence.LIKELY, subject="s",
            remedies=(Remedy("do", (PYTHON, "-m", "pip", "install", "pytest")), Remedy("or", ("unheard-of", "x"))),
        )  # fmt: skip

    monkeypatch.setattr(engine, "LINUX_RULES", (count,))
    monkeypatch.setattr(engine, "WINDOWS_RULES", (count,))
    (found,) = explain(ImportError(f"{PYTHON}: {GONE}", name="x", path="/nowhere/x.so")).findings
    assert len(cases) == 1
    assert [remedy.what for remedy in found.remedies] == ["or"], "pytest is installed here"


@pytest.mark.parametrize(
    ("distribution", "library", "search"),
    [
        ("arch", "libGL.so.1", "pacman -F libGL.so.1"),  # the table has conda's package, and none of Arch
        ("debian", "libgone.so.1", "apt-file search libgone.so.1"),  # Debian's rule gives a name that apt does not know
        ("nixos", "libGL.so.1", "nix-locate lib/libGL.so.1"),
    ],
)
def test_where_no_package_is_left_to_offer_the_system_is_asked(distribution: str, library: str, search: str) -> None:
    message = f"{library}: cannot open shared object file: No such file or directory"
    facts = available(libgone1=None, libgone1t64=None)
    made = replace(case(message, tree=tree(absent(library)), distribution=distribution), install=facts)
    (remedy,) = diagnose(made).findings[0].remedies
    assert search in remedy.what and not remedy.command


def test_an_installed_package_without_its_library_is_no_reason_to_look_for_another() -> None:
    facts = InstallFacts(available=AvailablePackages(installed={"libgl1": "1.7"}))
    message = "libGL.so.1: cannot open shared object file: No such file or directory"
    made = replace(case(message, tree=tree(absent("libGL.so.1")), distribution="debian"), install=facts)
    assert not diagnose(made).findings[0].remedies
