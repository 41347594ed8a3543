"""Commands of pip are for the Python that failed, as its own shell takes them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.failed_case import EXT, absent, case, process, tree
from builders.windows_case import PROCESS, SITE, TOP, Windows, pe_image
from dlltracer.diagnose.engine import diagnose
from dlltracer.diagnose.package_tools import (
    TOOLS,
    PackageTool,
    installs_again,
    is_package_name,
    package_tool,
    tool_that_installs,
    with_version,
)
from dlltracer.diagnose.remedies import for_interpreter, operand, reinstall, reinstall_by_pip
from dlltracer.model.environment import PackageManager, PackageOwner
from dlltracer.model.failure import ProcessFacts, System
from dlltracer.model.finding import Confidence, Finding, Remedy

REINSTALL = ("-m", "pip", "install", "--force-reinstall", "--no-deps")


def facts(system: System, executable: str) -> ProcessFacts:
    return ProcessFacts(system, (3, 11, 0), (), 64, executable, "", "")


def test_the_interpreter_is_the_one_that_failed() -> None:
    commands = {
        ("python", "-m", "pip", "install", "x"): ("/a b/python", "-m", "pip", "install", "x"),
        ("env", "LD_LIBRARY_PATH=/x", "python", "-c", "import m"):
            ("env", "LD_LIBRARY_PATH=/x", "/a b/python", "-c", "import m"),
        ("/usr/bin/python", "-m", "pip"): ("/usr/bin/python", "-m", "pip"),
        ("apt-get", "install", "python"): ("apt-get", "install", "python"),
        ("ulimit", "-n", "4096"): ("ulimit", "-n", "4096"),
        (): (),
    }  # fmt: skip
    finding = Finding(
        code="c", title="t", confidence=Confidence.LIKELY, subject="s",
        remedies=tuple(Remedy("w", one) for one in commands),
    )  # fmt: skip
    changed = for_interpreter(finding, facts(System.LINUX, "/a b/python"))
    assert [remedy.command for remedy in changed.remedies] == list(commands.values())
    assert for_interpreter(finding, None) == for_interpreter(finding, facts(System.LINUX, "")) == finding


def test_in_a_verdict_of_linux() -> None:
    owner = PackageOwner(PackageManager.PIP, "numpy", "2.1.0", EXT)
    made = case(
        "libgone-0123abcd.so: cannot open shared object file: No such file or directory",
        tree=tree(absent("libgone-0123abcd.so")), owners={EXT: (owner,)},
        process=process(executable="/srv/my env/bin/python"),
    )  # fmt: skip
    commands = [remedy.command for remedy in diagnose(made).findings[0].remedies if remedy.command]
    assert ("/srv/my env/bin/python", *REINSTALL, "numpy==2.1.0") in commands


def test_in_a_verdict_of_windows() -> None:
    made = Windows({TOP: pe_image({"libomp140.x86_64.dll": ["f"]}), f"{SITE}\\x.dll": pe_image()}).case(126)
    commands = [remedy.command for remedy in diagnose(made).findings[0].remedies if remedy.command]
    assert (PROCESS.executable, "-m", "pip", "install", "torch>=2.4.1") in commands


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
    assert remedy.command == ("python", *REINSTALL, "numpy==2.1.0")
    assert remedy.what == "install numpy again"


@pytest.mark.parametrize(
    ("folder", "process_facts"),
    [
        ("/srv/my app/libs", placed(System.LINUX, "/usr")),
        ("/srv/$(x)", placed(System.LINUX, "/usr")),
        ("/usr/lib/app/site-packages/x", placed(System.LINUX, "/usr")),
        ("/usr/share/app/site-packages", placed(System.LINUX, "/usr")),
        ("/other/lib/python3.11/site-packages", placed(System.LINUX, "/usr")),
        ("C:\\my app\\libs", placed(System.WINDOWS, "C:\\Py")),
        ("C:\\app\\site-packages", placed(System.WINDOWS, "C:\\Py")),
    ],
)
def test_another_folder_is_given_to_pip(folder: str, process_facts: ProcessFacts) -> None:
    remedy = reinstall_by_pip("numpy", "", folder, process_facts, "a file of it is damaged")
    assert remedy.command == ("python", *REINSTALL, "--target", folder, "--upgrade", "numpy")
    assert remedy.what.startswith(f"install numpy again, a file of it is damaged (into {folder}, ")
    assert "what other packages have" in remedy.what  # pip removes a folder that it replaces


def test_other_managers_know_the_folder_themselves() -> None:
    assert again(PackageManager.DPKG, "libfoo1", "debian").command == ("apt-get", "install", "--reinstall", "libfoo1")


def again(manager: PackageManager, name: str, distribution: str | None) -> Remedy:
    """How to install the package of a file again."""
    path = "/usr/lib/libfoo.so.1"
    made = replace(case(""), owners={path: (PackageOwner(manager, name, "1", path),)}, distribution=distribution)
    (remedy,) = reinstall(made, path)
    return remedy


@pytest.mark.parametrize(
    ("manager", "distribution", "command"),
    [
        (PackageManager.DPKG, None, ("apt-get", "install", "--reinstall")),
        (PackageManager.DPKG, "fedora", ("apt-get", "install", "--reinstall")),  # dpkg lists the file, so it has it
        (PackageManager.RPM, "opensuse-leap suse opensuse", ("zypper", "install", "--force")),
        (PackageManager.RPM, "sles suse", ("zypper", "install", "--force")),
        (PackageManager.RPM, "rocky rhel centos fedora", ("dnf", "reinstall")),
        (PackageManager.RPM, "mageia", ("dnf", "reinstall")),
        (PackageManager.RPM, "ubuntu debian", ("dnf", "reinstall")),
        (PackageManager.RPM, None, ("dnf", "reinstall")),
        (PackageManager.APK, "wolfi", ("apk", "fix", "--reinstall")),
        (PackageManager.CONDA, "opensuse suse", ("conda", "install", "--force-reinstall")),
    ],
)
def test_the_distribution_decides_which_tool_installs_again(
    manager: PackageManager, distribution: str | None, command: tuple[str, ...]
) -> None:
    assert again(manager, "libgl1", distribution).command[:-1] == command
    assert installs_again((*command, "libgl1")) is (manager is not PackageManager.CONDA)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_commands_of_a_tool_are_told_apart(tool: PackageTool) -> None:
    """A command that installs again starts with the words of the other one (apt-get install --reinstall)."""
    assert package_tool(" ".join(sorted(tool.family))) is tool
    if tool.install:
        found = tool_that_installs((*tool.install, "libgl1"))
        assert found is not None and found.install == tool.install and not installs_again((*tool.install, "libgl1"))
    assert not tool.reinstall or tool_that_installs((*tool.reinstall, "libgl1")) is None


def test_on_windows_conda_installs_its_own_files_again() -> None:
    path = "C:\\env\\Library\\bin\\icuuc73.dll"
    made = Windows({TOP: pe_image({"libomp140.x86_64.dll": ["f"]})}).case(126)
    owned = replace(made, owners={path: (PackageOwner(PackageManager.CONDA, "icu", "73.2", path),)})
    assert [one.command[-1] for one in reinstall(owned, path)] == ["icu=73.2"] and not [*reinstall(owned, None)]


HOSTILE = (
    "x; rm -rf ~", "$(touch pwn)", "-e", "--index-url=http://x", "", "a b", "a\nb", "x" * 300, "x;y", "../x", "..",
)  # fmt: skip


@pytest.mark.parametrize("manager", PackageManager)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_no_package_has_is_in_no_command(manager: PackageManager, name: str) -> None:
    remedy = again(manager, name, "debian")
    assert remedy.command == () and not is_package_name(name, manager)


@pytest.mark.parametrize(("manager", "names"), [
    (PackageManager.PIP, ("numpy", "Pillow", "ruamel.yaml", "nvidia-cublas-cu12", "a", "zope.interface")),
    (PackageManager.CONDA, ("numpy", "_libgcc_mutex", "libstdcxx-ng", "r-base", "cuda-version")),
    (PackageManager.DPKG, ("libc6", "libstdc++6", "libgl1-mesa-glx", "libc6:amd64", "libglib2.0-0t64", "python3.11")),
    (PackageManager.RPM, ("glibc", "libstdc++", "java-1.8.0-openjdk", "PackageKit", "python3.11-libs", "mesa-libGL")),
    (PackageManager.APK, ("musl", "libstdc++", "so_x", "py3-numpy", "qt6-qtbase", "gtk+3.0")),
])  # fmt: skip
def test_names_that_packages_have(manager: PackageManager, names: tuple[str, ...]) -> None:
    assert [name for name in names if not is_package_name(name, manager)] == []


@pytest.mark.parametrize("version", ["1; x", "$(x)", "-1", "", "1 2", "==1"])
def test_a_version_that_is_none_is_left_out(version: str) -> None:
    assert reinstall_by_pip("numpy", version, "", None).command == ("python", *REINSTALL, "numpy")
    assert with_version("icu", version, PackageManager.CONDA) == "icu"


def test_versions() -> None:
    assert with_version("numpy", "2.1.0+cu121", PackageManager.PIP) == "numpy==2.1.0+cu121"
    assert with_version("icu", "73.2", PackageManager.CONDA) == "icu=73.2"
    assert with_version("libc6", "2.36-9", PackageManager.DPKG) == "libc6"


def test_operands_are_no_options() -> None:
    assert operand("-rf") == "./-rf" and operand("/-x") == "/-x"
    remedy = reinstall_by_pip("numpy", "", "-x", placed(System.LINUX, "/usr"))
    assert remedy.command[-4:] == ("--target", "./-x", "--upgrade", "numpy")
