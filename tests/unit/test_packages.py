"""Which package has a file: managers that are here, environments made up, and the words of managers that are not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from dlltracer.host.packages import check_record, find_library_owners, find_owners
from dlltracer.model.provider import FileState, PackageManager, PackageOwner

posix_only = pytest.mark.skipif(os.name == "nt", reason="programs written in sh")

FILES = {"pkg/mod.so": b"\x7fELF and so on", "pkg/__init__.py": b"", "../../Library/bin/mkl_rt.2.dll": b"MZ and so on"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An environment with one distribution, installed as pip does."""
    folder = tmp_path / "env" / "lib" / "site-packages"
    info = folder / "Some_Pkg-1.2.dist-info"
    info.mkdir(parents=True)
    lines = []
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-pkg\nVersion: 1.2\n")
    (info / "RECORD").write_text("\n".join([*lines, "pkg/__pycache__/x.pyc,,", "a line that is none", ""]))
    return folder


def by_pip(path: Path, *folders: Path) -> list[PackageOwner]:
    found = find_owners(str(path), [str(folder) for folder in folders])
    return [owner for owner in found.owners if owner.manager is PackageManager.PIP]


def test_the_distribution_of_a_file(site: Path) -> None:
    path = site / "pkg" / "mod.so"
    assert by_pip(path) == [PackageOwner(PackageManager.PIP, "some-pkg", "1.2", str(path), str(site))]
    assert by_pip(site / "pkg" / "other.so") == []
    assert by_pip(site / "mod.so") == []


def test_a_file_outside_of_site_packages(site: Path) -> None:
    path = Path(os.path.realpath(site / "../../Library/bin/mkl_rt.2.dll"))
    assert [owner.package for owner in by_pip(path, site)] == ["some-pkg"]
    assert PackageManager.PIP in [manager for manager, _ in find_owners(str(path)).unavailable]


def test_the_folder_is_named_as_on_the_search_path(site: Path, tmp_path: Path) -> None:
    """What a loader says of a file may be its real path, and the prefix that Python knows a link."""
    link = tmp_path / "link"
    link.symlink_to(site)
    owner = by_pip(site / "pkg" / "mod.so", link)[0]
    assert (owner.package, owner.folder) == ("some-pkg", str(link))
    assert check_record("some-pkg", [str(link)]).folder == str(link)


def test_a_file_that_was_taken_away_still_has_an_owner(site: Path) -> None:
    path = site / "pkg" / "mod.so"
    path.unlink()
    assert [owner.package for owner in by_pip(path)] == ["some-pkg"]


def test_nothing_changed(site: Path) -> None:
    found = check_record("some.PKG", [str(site)])
    assert (found.version, found.checked, found.changed, found.problem) == ("1.2", len(FILES), (), None)


@pytest.mark.parametrize(
    ("content", "state", "size"),
    [
        (None, FileState.ABSENT, None),
        (b"\x7fELF", FileState.CHANGED, 4),
        (b"\x7fELF and so oN", FileState.CHANGED, 14),
        (b"", FileState.CHANGED, 0),
    ],
    ids=["quarantined", "cut short", "altered", "empty"],
)
def test_what_became_of_a_file(site: Path, content: bytes | None, state: FileState, size: int | None) -> None:
    path = site / "pkg" / "mod.so"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    (changed,) = check_record("some-pkg", [str(site)]).changed
    assert (changed.state, changed.expected_size, changed.size) == (state, 14, size)
    assert os.path.samefile(os.path.dirname(changed.path), site / "pkg")
    only_sizes = check_record("some-pkg", [str(site)], hashes=False).changed
    assert bool(only_sizes) is (size != 14)


def test_only_some_files(site: Path) -> None:
    assert check_record("some-pkg", [str(site)], suffixes=[".so", ".dll"]).checked == 2
    assert check_record("some-pkg", [str(site)], suffixes=[".2"]).checked == 1


def test_a_hash_that_is_not_to_be_had_counts_as_the_same(site: Path) -> None:
    record = site / "Some_Pkg-1.2.dist-info" / "RECORD"
    record.write_text("pkg/mod.so,whirlpool9=AAAA,14\npkg/__init__.py,shake_128=AAAA,0\n")
    assert check_record("some-pkg", [str(site)]).changed == ()


def test_nothing_to_check(site: Path) -> None:
    assert check_record("no-such-package", [str(site)]).problem == "it is not installed"
    (site / "Some_Pkg-1.2.dist-info" / "RECORD").unlink()
    assert check_record("some-pkg", [str(site)]).problem == "it has no RECORD"


def test_a_distribution_of_this_python() -> None:
    found = check_record("pytest", suffixes=[".py"], hashes=False)
    assert found.problem is None and found.checked > 10 and found.version == pytest.__version__


def test_conda(tmp_path: Path) -> None:
    metadata = tmp_path / "conda-meta"
    metadata.mkdir()
    package = {"name": "icu", "version": "73.2", "files": ["Library/bin/icuuc.dll", "Library/bin/icuuc73.dll"]}
    (metadata / "icu-73.2-h0.json").write_text(json.dumps(package))
    for name, content in (("bad.json", "{icuuc.dll"), ("list.json", '["icuuc.dll"]'), ("deep.json", "[" * 9999)):
        (metadata / name).write_text(content + "icuuc.dll")
    path = tmp_path / "Library" / "bin" / "icuuc.dll"
    found = find_owners(str(path))
    assert found.owners == (PackageOwner(PackageManager.CONDA, "icu", "73.2", str(path)),)
    assert PackageManager.CONDA in found.asked
    assert find_owners(str(path.with_name("icu.dll"))).owners == ()


def test_what_is_not_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_owners(str(tmp_path / "x.so"))
    assert found.owners == found.asked == ()
    reasons = dict(found.unavailable)
    assert reasons[PackageManager.DPKG] == "dpkg-query is not installed"
    assert set(reasons) == {
        PackageManager.PIP, PackageManager.CONDA, PackageManager.DPKG, PackageManager.RPM, PackageManager.APK,
    }  # fmt: skip
    assert find_library_owners("libGL.so.1").asked == ()
    assert find_library_owners("--eval=x").unavailable == ()


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no dpkg on this machine")
def test_dpkg() -> None:
    listed = Path("/var/lib/dpkg/info")
    package, path = next(
        (list_.name[: -len(".list")], line)
        for list_ in sorted(listed.glob("libc6*.list"))
        for line in list_.read_text().splitlines()
        if line.endswith("/libc.so.6")
    )
    for spelling in (path, path.removeprefix("/usr") if path.startswith("/usr") else f"/usr{path}"):
        (owner,) = find_owners(spelling).owners
        assert owner.manager is PackageManager.DPKG
        assert (owner.package, owner.path) == (package, path)
        assert owner.version[:1] == "2"
    assert package in [owner.package for owner in find_library_owners("libc.so.6").owners]
    for name in ("libc.so.[6]", "lib*.so.6", "no-such-library.so.9"):
        found = find_library_owners(name)
        assert PackageManager.DPKG in found.asked
        assert [owner for owner in found.owners if owner.manager is PackageManager.DPKG] == []


RPM = """
case "$*" in
*-qf\\ /usr/lib64/libGL.so.1) printf 'libglvnd-glx\\t1.7.0-4.fc40\\n' ;;
*whatprovides*libGL.so.1*) printf 'libglvnd-glx\\t1.7.0-4.fc40\\n' ;;
*) echo "file $5 is not owned by any package"; exit 1 ;;
esac
"""
APK = """
case "$3" in
/usr/lib64/libGL.so.1) echo "$3 symlink target is owned by mesa-gl-23.3.6-r1" ;;
*) echo "ERROR: $3: Could not find owner package" >&2; exit 1 ;;
esac
"""
APT_FILE = """
echo "libgl1: /usr/lib/x86_64-linux-gnu/libGL.so.1"
echo "libgl1: /usr/lib/x86_64-linux-gnu/libGL.so.1.7.0"
"""


@posix_only
def test_the_answers_of_other_managers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of rpm 4.19, apk-tools 2.14 and apt-file 3.3."""
    for name, script in (("rpm", RPM), ("apk", APK), ("apt-file", APT_FILE)):
        write_program(tmp_path / name, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    path = "/usr/lib64/libGL.so.1"
    assert find_owners(path).owners == (
        PackageOwner(PackageManager.RPM, "libglvnd-glx", "1.7.0-4.fc40", path),
        PackageOwner(PackageManager.APK, "mesa-gl", "23.3.6-r1", path),
    )
    found = find_library_owners("libGL.so.1").owners
    assert [owner.package for owner in found] == ["libglvnd-glx", "libgl1"]
    assert find_owners("/usr/lib64/none.so").owners == ()


@posix_only
def test_a_manager_that_fails_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlltracer.host.packages.TIMEOUT", 0.2)
    write_program(tmp_path / "dpkg-query", "exit 2")
    write_program(tmp_path / "rpm", "read -r line && exec sleep 5")
    write_program(tmp_path / "apk", "exec sleep 5")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    reasons = dict(find_owners("/x/y.so").unavailable)
    assert reasons[PackageManager.DPKG] == "dpkg-query failed with exit code 2"
    assert PackageManager.RPM not in reasons, "its input should be closed"
    assert reasons[PackageManager.APK] == "apk did not answer within 0.2 s"


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
