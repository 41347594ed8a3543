"""The packages of the table of sources, held against what Debian itself says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from dlltracer.knowledge import read_table

ROWS = [row for row in read_table("providers")["providers"] if row.get("apt")]
OF_OTHER_RELEASES = {"libffi7", "libssl1.1", "libtiff5", "libjpeg-turbo8", "libmysqlclient12"}
"""Not in Debian 12, and the rows say so: of Debian 11, and of Ubuntu."""


def _is_debian_12() -> bool:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return False
    return "\nID=debian\n" in f"\n{text}\n" and 'VERSION_ID="12"' in text


pytestmark = pytest.mark.skipif(not _is_debian_12(), reason="the names are those of Debian 12")


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout


def test_every_package_can_be_installed() -> None:
    """By the lists of apt, as far as there are any."""
    known = set(_run("apt-cache", "pkgnames").split())
    if "libglvnd0" not in known or len(known) < 10_000:
        pytest.skip("no lists of packages on this machine (apt-get update)")
    for row in ROWS:
        for package in row["apt"]:
            release = re.compile(re.escape(package).replace(re.escape("{1}"), r"\d+"))
            assert any(map(release.fullmatch, known | OF_OTHER_RELEASES)), package


@pytest.mark.slow
def test_every_package_has_the_file() -> None:
    """By the lists of contents, which apt-file downloads: a package has the file itself, or depends on one that has."""
    wanted = {name for row in ROWS for name in row["names"] if "#" not in name}
    having = _packages_with(wanted)
    if not having:
        pytest.skip("no lists of contents on this machine (apt-file update)")
    for row in ROWS:
        for name in wanted.intersection(row["names"]):
            for package in {*row["apt"]} - OF_OTHER_RELEASES:
                assert {package, *_needs(package)} & having[name], (name, package, having[name])


def _packages_with(wanted: set[str]) -> dict[str, set[str]]:
    """Name of a shared library to the packages that put it into a folder of libraries; {} without such lists."""
    try:
        listed = _run("apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Contents-deb").split()
    except (OSError, subprocess.CalledProcessError):
        return {}
    having: dict[str, set[str]] = defaultdict(set)
    for name in listed:
        if name.partition(".lz4")[0].endswith("Contents-all"):
            continue  # libraries are for one machine
        with subprocess.Popen(["/usr/lib/apt/apt-helper", "cat-file", name], stdout=subprocess.PIPE) as helper:
            assert helper.stdout is not None
            for line in helper.stdout:
                path, _, packages = line.decode("utf-8", "replace").rstrip().rpartition(" ")
                for file in _names_of(path.rstrip()) & wanted:
                    having[file].update(package.rpartition("/")[2] for package in packages.split(","))
    return having


def _names_of(path: str) -> set[str]:
    """The names that a row may have for a file: its own, and that without its version, by which find_library asks."""
    file = path.rpartition("/")[2]
    return {file, re.sub(r"(?:-\d[\w.]*)?\.so(?:\.[\d.]+\w*)?$", ".so", file)}


def _needs(package: str) -> set[str]:
    text = _run("apt-cache", "depends", "--important", package)
    return set(re.findall(r"Depends: (\S+)", text))


def test_the_packages_of_this_machine() -> None:
    """For every package of the table that is installed here: it has the file, or what it depends on has it."""
    if shutil.which("dpkg-query") is None:
        pytest.skip("no dpkg on this machine")
    lines = _run("dpkg-query", "-W", "-f", "${Package}\t${Status}\t${Depends}\n").splitlines()
    installed = {
        package: set(re.findall(r"[a-z0-9][a-z0-9+.-]+(?=[ ,|:]|$)", needs))
        for package, status, needs in (line.split("\t") for line in lines)
        if status == "install ok installed"
    }
    checked = 0
    for row in ROWS:
        for package in set(row["apt"]) & installed.keys():
            packages = [package, *(installed[package] & installed.keys())]
            files = {name for line in _run("dpkg", "-L", *packages).splitlines() for name in _names_of(line)}
            assert files & set(row["names"]), (package, row["names"])
            checked += 1
    if not checked:
        pytest.skip("none of them is installed")
