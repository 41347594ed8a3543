"""Which package has a file: managers that are here, environments made up, and the words of managers that are not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlltracer.host import bounded, packages
from dlltracer.host.bounded import ProgramAnswer, ask_loader_program, ask_program, find_program, run_bounded
from dlltracer.host.distributions import Distribution, check_record, list_distributions
from dlltracer.host.packages import find_owners, read_available
from dlltracer.model.environment import FileState, PackageManager, PackageOwner, ProviderKind, normalized_name

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
    found = find_owners([str(path)], [str(folder) for folder in folders])
    return [owner for owner in found.owners.get(str(path), ()) if owner.manager is PackageManager.PIP]


def owners_of(path: str) -> tuple[PackageOwner, ...]:
    return find_owners([path]).owners.get(path, ())


def test_the_distribution_of_a_file(site: Path) -> None:
    path = site / "pkg" / "mod.so"
    assert by_pip(path) == [PackageOwner(PackageManager.PIP, "some-pkg", "1.2", str(path), str(site))]
    assert by_pip(site / "pkg" / "other.so") == []
    assert by_pip(site / "mod.so") == []


def installed(*folders: Path | str, name: str = "some-pkg") -> Distribution:
    (found,) = (one for one in list_distributions(map(str, folders)) if normalized_name(one.name) == name)
    return found


def test_a_file_outside_of_site_packages(site: Path) -> None:
    path = Path(os.path.realpath(site / "../../Library/bin/mkl_rt.2.dll"))
    assert [owner.package for owner in by_pip(path, site)] == ["some-pkg"]
    assert PackageManager.PIP in [manager for manager, _ in find_owners([str(path)]).unavailable]


def test_the_folder_is_named_as_on_the_search_path(site: Path, tmp_path: Path) -> None:
    """What a loader says of a file may be its real path, and the prefix that Python knows a link."""
    link = tmp_path / "link"
    link.symlink_to(site)
    owner = by_pip(site / "pkg" / "mod.so", link)[0]
    assert (owner.package, owner.folder) == ("some-pkg", str(link))
    assert check_record(installed(link)).folder == str(link)


def test_a_file_that_was_taken_away_still_has_an_owner(site: Path) -> None:
    path = site / "pkg" / "mod.so"
    path.unlink()
    assert [owner.package for owner in by_pip(path)] == ["some-pkg"]


def test_nothing_changed(site: Path) -> None:
    found = check_record(installed(site))
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
    (changed,) = check_record(installed(site)).changed
    assert (changed.state, changed.expected_size, changed.size) == (state, 14, size)
    assert os.path.samefile(os.path.dirname(changed.path), site / "pkg")
    only_sizes = check_record(installed(site), hashed=()).changed
    assert bool(only_sizes) is (size != 14)


def test_only_some_files(site: Path) -> None:
    assert check_record(installed(site), suffixes=[".so", ".dll"]).checked == 2
    assert check_record(installed(site), suffixes=[".2"]).checked == 1


def test_a_file_is_hashed_where_its_name_says_so(site: Path) -> None:
    """Same size, other bytes: seen in the files that are named, whatever their suffix."""
    (site / "pkg" / "mod.so").write_bytes(b"\x7fELF and so oN")
    assert check_record(installed(site), suffixes=[".dll"], hashed=["other.so"]).changed == ()
    (changed,) = check_record(installed(site), suffixes=[".dll"], hashed=["mod.so"]).changed
    assert changed.state is FileState.CHANGED


def test_a_hash_that_is_not_to_be_had_counts_as_the_same(site: Path) -> None:
    record = site / "Some_Pkg-1.2.dist-info" / "RECORD"
    record.write_text("pkg/mod.so,whirlpool9=AAAA,14\npkg/__init__.py,shake_128=AAAA,0\n")
    assert check_record(installed(site)).changed == ()


def test_nothing_to_check(site: Path) -> None:
    (site / "Some_Pkg-1.2.dist-info" / "RECORD").unlink()
    assert check_record(installed(site)).problem == "it has no RECORD"


def test_a_distribution_of_this_python() -> None:
    found = check_record(installed(*sys.path, name="pytest"), suffixes=[".py"], hashed=())
    assert found.problem is None and found.checked > 10 and found.version == pytest.__version__


def test_conda(tmp_path: Path) -> None:
    metadata = tmp_path / "conda-meta"
    metadata.mkdir()
    package = {"name": "icu", "version": "73.2", "files": ["Library/bin/icuuc.dll", "Library/bin/icuuc73.dll"]}
    (metadata / "icu-73.2-h0.json").write_text(json.dumps(package))
    for name, content in (("bad.json", "{icuuc.dll"), ("list.json", '["icuuc.dll"]'), ("deep.json", "[" * 9999)):
        (metadata / name).write_text(content + "icuuc.dll")
    path = tmp_path / "Library" / "bin" / "icuuc.dll"
    found = find_owners([str(path)])
    assert found.owners == {str(path): (PackageOwner(PackageManager.CONDA, "icu", "73.2", str(path)),)}
    assert PackageManager.CONDA in found.asked
    assert owners_of(str(path.with_name("icu.dll"))) == ()


def test_both_owners_of_one_file(site: Path) -> None:
    other = site / "other-2.dist-info"
    other.mkdir()
    (other / "RECORD").write_text("pkg/mod.so,,\npkg/mod.so,,\n")
    owners = {owner.package: owner.version for owner in by_pip(site / "pkg" / "mod.so")}
    assert owners == {"some-pkg": "1.2", "other": "2"}


def test_many_files_at_once(site: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.so"
    link.symlink_to(site / "pkg" / "mod.so")
    paths = [str(site / name) for name in FILES] + [str(site / "none.so"), str(link)]
    found = find_owners(paths, [str(site)]).owners
    assert set(found) == {*paths[:3], str(link)}


@posix_only
def test_a_fifo_in_the_place_of_metadata_holds_nobody_up(site: Path) -> None:
    for name in ("RECORD", "METADATA"):
        path = site / "Some_Pkg-1.2.dist-info" / name
        path.unlink()
        os.mkfifo(path)
    (found,) = list_distributions([str(site)])
    assert (found.name, found.version, found.record) == ("Some_Pkg", "1.2", None)
    assert by_pip(site / "pkg" / "mod.so") == []


def test_the_requirements_of_a_distribution(site: Path) -> None:
    (site / "Some_Pkg-1.2.dist-info" / "METADATA").write_text(
        "Name: some-pkg\nVersion: 1.2\nRequires-Dist: numpy (>=1)\nRequires-Dist: x; extra == 'y'\n"
        "\nRequires-Dist: in the description\n"
    )
    found = installed(site)
    assert found.requires == ("numpy (>=1)", "x; extra == 'y'")
    assert normalized_name("A.b_-C") == "a-b-c"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the programs of a system, with none in it."""
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(bounded, "SYSTEM_FOLDERS", (str(folder),))
    return folder


def test_what_is_not_here_is_said(tmp_path: Path, system: Path) -> None:
    found = find_owners([str(tmp_path / "x.so")])
    assert found.owners == {} and found.asked == ()
    reasons = dict(found.unavailable)
    assert reasons[PackageManager.DPKG] == "dpkg-query is not installed"
    assert set(reasons) == set(PackageManager)


@pytest.mark.skipif(find_program("dpkg-query") is None, reason="no dpkg on this machine")
def test_dpkg() -> None:
    listed = Path("/var/lib/dpkg/info")
    package, path = next(
        (list_.name[: -len(".list")], line)
        for list_ in sorted(listed.glob("libc6*.list"))
        for line in list_.read_text().splitlines()
        if line.endswith("/libc.so.6")
    )
    for spelling in (path, path.removeprefix("/usr") if path.startswith("/usr") else f"/usr{path}"):
        (owner,) = owners_of(spelling)
        assert owner.manager is PackageManager.DPKG
        assert (owner.package, owner.path) == (package, path)
        assert owner.version[:1] == "2"
    for pattern in ("/lib/*/libc.so.6", "--help", "/usr/lib/x86_64-linux-gnu/libc.so.[6]"):
        assert owners_of(pattern) == ()


RPM = """
case "$*" in
*-qf\\ --\\ /usr/lib64/libGL.so.1) printf 'libglvnd-glx\t1.7.0-4.fc40\n' ;;
*) echo "file $5 is not owned by any package"; exit 1 ;;
esac
"""
APK = """
case "$4" in
/usr/lib64/libGL.so.1) echo "$4 symlink target is owned by mesa-gl-23.3.6-r1" ;;
*) echo "ERROR: $4: Could not find owner package" >&2; exit 1 ;;
esac
"""


@posix_only
@pytest.mark.parametrize(("name", "script", "owner"), [
    ("rpm", RPM, PackageOwner(PackageManager.RPM, "libglvnd-glx", "1.7.0-4.fc40", "/usr/lib64/libGL.so.1")),
    ("apk", APK, PackageOwner(PackageManager.APK, "mesa-gl", "23.3.6-r1", "/usr/lib64/libGL.so.1")),
])  # fmt: skip
def test_the_answers_of_other_managers(system: Path, name: str, script: str, owner: PackageOwner) -> None:
    """In the words of rpm 4.19 and apk-tools 2.14."""
    write_program(system / name, script)
    assert owners_of(owner.path) == (owner,)
    assert owners_of("/usr/lib64/none.so") == ()


APK_LIBRARIES = """
case "$*" in
"policy -- so:libuv.so.1 so:libnone.so.1 mesa-gl") printf 'mesa-gl policy:\n  23.3.6-r1:\n    https://x/v3.19/main\n' ;;
"search --exact -- so:libuv.so.1") printf 'libuv-1.47.0-r0\nlibuv-1.46.0-r0\nlib-uv2-2_git20240101-r1\n' ;;
"info --installed -- lib-uv2 libuv") echo libuv ;;
esac
"""


@posix_only
def test_the_libraries_in_packages_of_apk(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of apk-tools 2.14 and 3: `search` takes the names that packages provide, `policy` does not."""
    write_program(system / "apk", APK_LIBRARIES)
    lists = system / "lists"
    lists.mkdir()
    (lists / "APKINDEX.066df28d.tar.gz").touch()
    monkeypatch.setitem(packages._LISTS, ProviderKind.APK, str(lists))
    found = read_available(ProviderKind.APK, ["so:libuv.so.1", "so:libnone.so.1", "mesa-gl"])
    assert found.providers == {"so:libuv.so.1": ("lib-uv2", "libuv"), "so:libnone.so.1": ()}
    assert (found.candidates["mesa-gl"], found.installed, found.unchecked) == ("23.3.6-r1", {"libuv": ""}, None)


@posix_only
def test_a_manager_that_fails_or_reads(system: Path) -> None:
    write_program(system / "dpkg-query", "exit 2")
    write_program(system / "rpm", "read -r line && exec /bin/sleep 5")
    reasons = dict(find_owners(["/x/y.so"]).unavailable)
    assert reasons[PackageManager.DPKG] == "dpkg-query failed with exit code 2"
    assert PackageManager.RPM not in reasons, "its input should be closed"


@posix_only
def test_a_program_that_hangs_is_killed_with_its_children(system: Path) -> None:
    write_program(system / "x", f"(/bin/sleep 600; echo > {system}/late) & echo $!; wait")
    began = time.monotonic()
    assert ask_program("x", seconds=0.3) == "x did not answer within 0.3 s"
    assert time.monotonic() - began < 300
    write_program(system / "y", "exec >&- 2>&-; exec /bin/sleep 600")
    assert ask_program("y", seconds=3) == "y did not end"


@posix_only
def test_a_program_that_never_stops_to_talk_is_stopped(system: Path) -> None:
    write_program(system / "x", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded, "MOST_OUTPUT", 1 << 20)
        assert ask_program("x") == "x answered with more than 1 MiB"


@posix_only
def test_a_program_gets_nothing_of_ours(system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "APT_CONFIG", "RPM_CONFIGDIR", "DPKG_ROOT", "BASH_ENV", "ENV"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_program(system / "x", "pwd; /usr/bin/env; echo err >&2")
    answer = ask_program("x")
    assert isinstance(answer, ProgramAnswer) and answer.status == 0
    folder, *variables = answer.output.splitlines()
    assert folder == "/"
    assert {line.partition("=")[0] for line in variables} <= {"LC_ALL", "PATH", "HOME", "PWD", "_", "SHLVL", "OLDPWD"}
    assert ask_loader_program((str(system / "x"),), {}) == ProgramAnswer(0, "err\n")


@posix_only
def test_a_loader_is_asked_where_our_own_streams_are_closed(system: Path) -> None:
    write_program(system / "ld.so", "echo out; echo err >&2; exit 3")
    code = (
        "import os; [os.close(fd) for fd in (0, 1, 2)]\n"
        "from dlltracer.host.bounded import ask_loader_program as ask\n"
        "import sys; answer = ask((sys.argv[1],), {}); os._exit(answer.status if answer.output == 'err\\n' else 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(system / "ld.so")], check=False).returncode == 3


@posix_only
def test_a_loader_that_does_not_end_is_killed(system: Path) -> None:
    write_program(system / "ld.so", "sleep 60 & sleep 60")
    assert ask_loader_program((str(system / "ld.so"),), {}, seconds=0.2) == "ld.so did not answer within 0.2 s"
    assert ask_loader_program((str(system / "none"),), {}).startswith("none could not be run: ")


@posix_only
def test_path_is_not_looked_at(system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dpkg-query", "rpm", "apk"):
        write_program(tmp_path / name, f"touch {tmp_path}/ran")
    monkeypatch.setenv("PATH", f".:{tmp_path}")
    monkeypatch.chdir(tmp_path)
    find_owners(["/x/y.so"])
    assert not (tmp_path / "ran").exists()


def test_on_windows_no_program_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder comes first there when a program is looked for: ./dpkg-query.exe would have been run."""
    if os.name != "nt":
        monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.chdir(tmp_path)
    for name in ("dpkg-query", "rpm", "apk"):
        for suffix in ("", ".exe", ".bat"):
            write_program(tmp_path / f"{name}{suffix}", f"touch {tmp_path}/ran")
        assert find_program(name) is None and ask_program(name) == f"{name} is not installed"
    for ask in (run_bounded, ask_loader_program):
        assert ask((str(tmp_path / "rpm"),), {}) == "rpm is not asked on Windows"
    assert dict(find_owners([str(tmp_path / "x.dll")]).unavailable)[PackageManager.RPM] == "rpm is not installed"
    assert not (tmp_path / "ran").exists()


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
