"""Facts about a Linux machine: as text of the kernel, and as this machine has them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.host import machine
from dlltracer.host.machine import (
    find_mount,
    memory_folders,
    parse_apparmor,
    parse_glibc_version,
    parse_memory_amount,
    parse_mountinfo,
    parse_musl_version,
    parse_process_limits,
    parse_selinux,
)
from dlltracer.model.environment import CLibrary, Enforcement, MemoryLimit, Mount, SecurityModule

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MOUNTINFO = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
23 22 0:21 / /tmp rw,nosuid,noexec master:3 propagate_from:2 - tmpfs tmpfs rw,size=4k
24 23 0:22 / /tmp/with\040space\011and\012\134n rw - tmpfs  rw
25 22 0:23 /docker/abc /sys/fs/cgroup/memory ro,noexec - cgroup cgroup rw,memory
26 22 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
27 22 0:25 / /tmp rw - tmpfs over rw
not a line
"""


def test_mountinfo() -> None:
    mounts = parse_mountinfo(MOUNTINFO)
    assert [mount.number for mount in mounts] == [22, 23, 24, 25, 26, 27]
    assert mounts[1] == Mount(23, "/", "/tmp", ("rw", "nosuid", "noexec"), "tmpfs", "tmpfs", ("rw", "size=4k"))
    assert mounts[2].point == "/tmp/with space\tand\n\\n" and mounts[2].source == ""
    assert [mount.noexec for mount in mounts] == [False, True, False, True, False, False]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/", 22), ("/usr/lib/x.so", 22), ("/tmp", 27), ("/tmp/x", 27), ("/tmpfile", 22),
     ("/tmp/with space\tand\n\\n/x", 24), ("relative", None)],
)  # fmt: skip
def test_the_mount_of_a_path(path: str, expected: int | None) -> None:
    found = find_mount(parse_mountinfo(MOUNTINFO), path)
    assert (found and found.number) == expected


NO_LIMIT = 1 << 62
"""From here on version 1 of control groups means none: it writes a multiple of the page below 2**63."""
FIELD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def escape(field: str) -> str:
    return re.sub(r"[ \t\n\\#]", lambda found: f"\\{ord(found[0]):03o}", field)


@given(st.lists(st.tuples(st.integers(0, 1 << 31), FIELD, FIELD, FIELD, FIELD, st.lists(st.just("shared:1")))))
def test_any_mount_is_read_back(rows: list[tuple[int, str, str, str, str, list[str]]]) -> None:
    text = ""
    for number, root, point, *rest, more in rows:
        fields = [str(number), "1", "0:1", *map(escape, (root, point)), "rw", *more, "-", *map(escape, rest), "rw"]
        text += " ".join(fields) + "\n"
    expected = tuple(Mount(n, root, point, ("rw",), kind, source, ("rw",)) for n, root, point, kind, source, _ in rows)
    assert parse_mountinfo(text) == expected


@given(st.text(st.sampled_from("0179- /:,\n\\smemoryacgroup2")), st.text(st.sampled_from("0:/.memory,\n")))
def test_damaged_text_is_no_error(text: str, cgroup: str) -> None:
    mounts = (*parse_mountinfo(text), *parse_mountinfo(MOUNTINFO))
    assert len(mounts) <= text.count("\n") + 1 + 6
    assert find_mount(mounts, cgroup) in (None, *mounts)
    assert len(memory_folders(cgroup, mounts)) <= len(cgroup) + 1
    is_number = text.strip().isdecimal() and len(text.strip()) <= 20
    assert parse_memory_amount(text) == (int(text) if is_number and int(text) < NO_LIMIT else None)
    limit = re.match(r" *(\d{1,20}) ", text)
    assert parse_process_limits(f"Max address space {text}") == (int(limit[1]) if limit else None)


@linux_only
def test_noexec_of_every_mount_here_is_what_the_system_says() -> None:
    compared = 0
    for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text()):
        with contextlib.suppress(OSError):
            found = machine.read_mount(mount.point)
            flags = os.statvfs(mount.point).f_flag
            assert found is not None and found.point == mount.point
            assert found.noexec == bool(flags & os.ST_NOEXEC)
            compared += 1
    assert compared


MOUNTED = """
import ctypes, json, os, subprocess, sys
from dlltracer.host.machine import parse_mountinfo, find_mount, read_mount
folder = sys.argv[1]
def mount(options, *parts):
    path = os.path.join(folder, *parts)
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    return path
said = []
for options in ("noexec", "exec"):
    path = mount(options, "a " + options)
    library = os.path.join(path, "x.so")
    with open(sys.argv[2], "rb") as source, open(library, "wb") as copy:
        copy.write(source.read())
    try:
        ctypes.CDLL(library)
        loads = True
    except OSError:
        loads = False
    said.append([read_mount(library).noexec, read_mount(library + "/none/such").noexec, loads])
mount("noexec", "b", "c")
mount("exec", "b")
os.mkdir(os.path.join(folder, "b", "c"))
hidden = os.path.join(folder, "b", "c")
with open("/proc/self/mountinfo") as stream:
    said.append([read_mount(hidden).noexec, find_mount(parse_mountinfo(stream.read()), hidden).noexec])
print(json.dumps(said))
"""


@linux_only
def test_real_mounts(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or shutil.which("gcc") is None:
        pytest.skip("needs unshare and gcc")
    new = ["unshare", "--map-root-user", "--mount", "--propagation", "private"]
    refused = subprocess.run([*new, "true"], capture_output=True, text=True, check=False).stderr.strip()
    if refused:
        pytest.skip(f"no mounts of our own here: {refused}")
    (tmp_path / "tiny.c").write_text("int tiny(void) { return 1; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "tiny.so", "tiny.c"], cwd=tmp_path, check=True)
    (tmp_path / "mounts").mkdir()
    done = subprocess.run(
        [*new, sys.executable, "-c", MOUNTED, str(tmp_path / "mounts"), str(tmp_path / "tiny.so")],
        capture_output=True, text=True, check=False, env=with_our_path(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Of the last one the longest mount point would be wrong: another mount has hidden it.
    assert json.loads(done.stdout) == [[True, True, False], [False, False, True], [False, True]]


def with_our_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max address space         1048576000           unlimited            bytes
"""


def test_process_limits() -> None:
    assert parse_process_limits(LIMITS) == 1048576000
    assert parse_process_limits(LIMITS.replace("1048576000", "unlimited ")) is None
    assert parse_process_limits("") is None


@linux_only
def test_the_address_space_of_a_limited_process() -> None:
    code = "from dlltracer.host.machine import *; print(read_address_space_limit())"
    limited = ["sh", "-c", 'ulimit -v 2000000 && exec "$@"', "sh", sys.executable, "-c", code]
    output = subprocess.run(limited, capture_output=True, text=True, check=True, env=with_our_path()).stdout
    found = re.fullmatch(r"MemoryLimit\(where='RLIMIT_AS', limit=(\d+), used=(\d+)\)\n", output)
    assert found is not None and int(found[1]) == 2000000 * 1024
    assert 1 << 20 < int(found[2]) < int(found[1])


def test_what_is_left_of_a_limit() -> None:
    assert MemoryLimit("x", 10, 4).free == 6
    assert MemoryLimit("x", 10, 14).free == 0
    assert MemoryLimit("x", None, 4).free is None and MemoryLimit("x", 10).free is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max\n", None), ("104857600\n", 104857600), ("9223372036854771712\n", None), ("0", 0), ("", None), ("-1", None),
     ("9" * 5000, None)],
)  # fmt: skip
def test_amounts_of_memory(text: str, expected: int | None) -> None:
    assert parse_memory_amount(text) == expected


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("5:cpu,memory:/docker/abc/x\n0::/\n", ("/sys/fs/cgroup/memory/x", "/sys/fs/cgroup/memory")),
        ("5:memory:/docker/abc\n", ("/sys/fs/cgroup/memory",)),
        ("5:memory:/docker/abcdef\n", ("/sys/fs/cgroup/memory",)),
        ("0::/u.slice/a:b\n", tuple(f"/sys/fs/cgroup/unified{end}" for end in ("/u.slice/a:b", "/u.slice", ""))),
        ("0::/../../x\n", ("/sys/fs/cgroup/unified",)),
        ("1:name=systemd:/x\n", ()),
        ("", ()),
    ],
)
def test_folders_of_a_control_group(cgroup: str, expected: tuple[str, ...]) -> None:
    assert memory_folders(cgroup, parse_mountinfo(MOUNTINFO)) == expected


def test_no_control_groups_mounted() -> None:
    assert memory_folders("0::/x\n", ()) == ()


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "4096\n", "memory.current": "1024\n"}, (4096, 1024)),
        ({"memory.max": "max\n", "memory.current": "1024\n"}, (None, 1024)),
        ({"memory.limit_in_bytes": "9223372036854771712\n", "memory.usage_in_bytes": "7\n"}, (None, 7)),
        ({"memory.limit_in_bytes": "4096\n"}, (4096, None)),
    ],
)
def test_the_files_of_a_control_group(tmp_path: Path, files: dict[str, str], limit: tuple[int | None, int]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert machine.read_memory_level(str(tmp_path)) == MemoryLimit(str(tmp_path), *limit)
    assert machine.read_memory_level(str(tmp_path / "none")) is None


@contextlib.contextmanager
def group_below(folder: Path) -> Iterator[Path]:
    """A control group of our own, or a skip where none can be made."""
    mine = folder / f"dlltracer-test-{os.getpid()}"
    try:
        mine.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield mine
    finally:
        mine.rmdir()


@linux_only
def test_a_process_in_a_limited_control_group() -> None:
    here = machine.read_cgroup_limit()
    if here is None:
        pytest.skip("no control groups with memory limits here")
    limit = 1 << 26
    if here.free is not None and here.free < 2 * limit:
        pytest.skip("a group above this one leaves less than the limit that this test sets")
    with group_below(Path(here.where)) as group:
        files = [group / name for name in ("memory.max", "memory.limit_in_bytes") if (group / name).exists()]
        if not files:
            pytest.skip("the memory controller is not for groups below this one")
        files[0].write_text(str(limit))
        inner = group / "inner"
        inner.mkdir()
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            try:
                (inner / "cgroup.procs").write_text(str(child.pid))
                found = machine.read_cgroup_limit(child.pid)
            except OSError as error:
                pytest.skip(f"no process can be moved here: {error}")
            finally:
                child.kill()
                child.wait()
                inner.rmdir()
    assert found is not None and found.free is not None
    assert (found.where, found.limit) == (str(group), limit) and 0 <= found.free <= limit


@linux_only
def test_page_size() -> None:
    assert machine.read_page_size() == os.sysconf("SC_PAGE_SIZE")




CONTEXT = "system_u:system_r:container_t:s0:c1,c2\0"


@pytest.mark.parametrize(
    ("enforce", "label", "expected", "context"),
    [
        ("1", CONTEXT, Enforcement.ENFORCING, CONTEXT.rstrip("\0")),
        ("0\n", CONTEXT, Enforcement.PERMISSIVE, CONTEXT.rstrip("\0")),
        ("", CONTEXT, Enforcement.UNKNOWN, CONTEXT.rstrip("\0")),
        ("", "docker-default (enforce)\n", Enforcement.OFF, None),
        ("", "", Enforcement.OFF, None),
    ],
)
def test_selinux(enforce: str, label: str, expected: Enforcement, context: str | None) -> None:
    assert parse_selinux(enforce, label) == SecurityModule("SELinux", expected, context)


@pytest.mark.parametrize(
    ("profile", "enabled", "expected", "label"),
    [
        ("docker-default (enforce)\n", True, Enforcement.ENFORCING, "docker-default"),
        ("my own profile (complain)\n", True, Enforcement.PERMISSIVE, "my own profile"),
        ("x (kill)", True, Enforcement.ENFORCING, "x"),
        ("a//&b (mixed)", True, Enforcement.UNKNOWN, "a//&b"),
        ("unconfined\n", True, Enforcement.OFF, "unconfined"),
        ("vscode (unconfined)\n", True, Enforcement.OFF, "vscode (unconfined)"),
        ("", True, Enforcement.UNKNOWN, None),
        ("", False, Enforcement.OFF, None),
    ],
)
def test_apparmor(profile: str, enabled: bool, expected: Enforcement, label: str | None) -> None:
    assert parse_apparmor(profile, enabled=enabled) == SecurityModule("AppArmor", expected, label)


@linux_only
def test_the_modules_here_are_known_by_name() -> None:
    selinux, apparmor = machine.read_security_modules()
    assert (selinux.name, apparmor.name) == ("SELinux", "AppArmor")
    active = Path("/sys/kernel/security/lsm")
    if not active.exists():
        pytest.skip("/sys/kernel/security is not mounted: nothing to compare with")
    modules = active.read_text().split(",")
    assert (selinux.enforcement is not Enforcement.OFF) <= ("selinux" in modules)
    assert (apparmor.enforcement is not Enforcement.OFF) <= ("apparmor" in modules)


@linux_only
def test_the_c_library_is_what_it_says_itself() -> None:
    found = machine.read_c_library()
    try:
        version = ctypes.CDLL(None).gnu_get_libc_version
    except AttributeError:
        assert found.name == "musl"
    else:
        version.restype = ctypes.c_char_p
        assert found == CLibrary("glibc", version().decode())


def test_words_of_the_c_libraries() -> None:
    assert parse_glibc_version("glibc 2.36") == CLibrary("glibc", "2.36")
    assert parse_glibc_version("") == CLibrary()
    usage = "Dynamic Program Loader\nUsage: /lib/ld-musl-x86_64.so.1 [options] [--] pathname [args]\n"
    assert parse_musl_version(f"musl libc (x86_64)\nVersion 1.2.5\n{usage}") == CLibrary("musl", "1.2.5")
    assert parse_musl_version("musl libc (x86_64)\n") == CLibrary("musl")
    assert parse_musl_version("ld.so: missing program name\n") == CLibrary()
