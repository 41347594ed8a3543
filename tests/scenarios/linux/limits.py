"""Files that are right, in systems that do not let them in."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click

import dlltracer
from oracle.roots import IN_ROOT, find_root
from scenarios.linux.workshop import Workshop
from scenarios.scenario import CannotBuild, Question, Scenario

IN_STATIC_BLOCK = 'static __thread __attribute__((tls_model("initial-exec"))) char'


def static_tls(shop: Workshop) -> Question:
    shop.module("ext", f"{IN_STATIC_BLOCK} block[65536]; char *where(void) {{ return block; }}", init="where()")
    return shop.ask("ext")


def static_tls_used_up(shop: Workshop) -> Question:
    """Each takes a little; the last one gets nothing."""
    names = [f"part{number}" for number in range(8)]
    for name in (*names, "ext"):
        shop.module(name, f"{IN_STATIC_BLOCK} block[400]; char *where(void) {{ return block; }}", init="where()")
    return shop.ask("-c", "".join(f"import {name}\n" for name in (*names, "ext")))


def address_space(shop: Workshop) -> Question:
    shop.module("ext", "static char room[1 << 30]; char *where(void) { return room; }", init="where()")
    shop.write(
        "app.py",
        "import resource\nwith open('/proc/self/statm') as f:\n    used = int(f.read().split()[0]) * 4096\n"
        "limit = used + (300 << 20)\nresource.setrlimit(resource.RLIMIT_AS, (limit, limit))\nimport ext\n",
    )  # fmt: skip
    return shop.ask("app.py")


def too_many_files(shop: Workshop) -> Question:
    shop.library("libx.so", "int x;")
    return shop.ask("-c", "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
                    "import ctypes, os\nkept = []\ntry:\n    while True:\n"
                    "        kept.append(os.open('/dev/null', 0))\n"
                    "except OSError:\n    pass\n"
                    f"ctypes.CDLL({str(shop.folder / 'libx.so')!r})")  # fmt: skip


NOEXEC = """
mount -t tmpfs -o noexec tmpfs "$1"
cp "$2" "$1"
shift 2
exec "$@"
"""
IN_NAMESPACE = ("unshare", "--mount", "--propagation", "private", "sh", "-euc")


def noexec(shop: Workshop) -> Question:
    """A tmpfs in a mount namespace of its own."""
    allowed = subprocess.run([*IN_NAMESPACE[:4], "true"], capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or allowed.returncode:
        raise CannotBuild(f"needs root, and unshare --mount: {allowed.stderr.strip()}")
    made = shop.module("build/ext")
    locked = shop.write("locked/.keep", "").parent
    asked = shop.ask("-c", f"import sys\nsys.path.insert(0, {str(locked)!r})\nimport ext")
    return replace(asked, prefix=(*IN_NAMESPACE, NOEXEC, "sh", str(locked), str(made)))


LANDLOCK = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
READ_FILE = 4
handled = (ctypes.c_uint64 * 1)(READ_FILE)
rules = libc.syscall(444, handled, 8, 0)  # landlock_create_ruleset, linux/landlock.h
for top in TOPS:
    place = os.open(top, os.O_PATH)
    rule = READ_FILE.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder, signed=True)
    assert libc.syscall(445, rules, 1, rule, 0) == 0, os.strerror(ctypes.get_errno())
libc.prctl(38, 1, 0, 0, 0)  # no_new_privs
assert libc.syscall(446, rules, 0) == 0, os.strerror(ctypes.get_errno())
import ext
"""


def forbidden_by_landlock(shop: Workshop) -> Question:
    """The permissions of the file allow it, and the program has forbidden it to itself."""
    create = ctypes.CDLL(None).syscall
    if platform.machine() not in ("x86_64", "aarch64") or create(444, None, 0, 1) < 1:  # its version
        raise CannotBuild("this kernel has no Landlock")
    shop.library("closed/libdep.so.1", "int dep(void) { return 1; }")
    shop.module("ext", "int dep(void);", ["closed/libdep.so.1"], ["-Wl,-rpath,$ORIGIN/closed"], init="dep()")
    own = [str(path) for path in shop.folder.iterdir() if path.is_file()]
    tops = [str(top) for top in Path("/").iterdir() if top.is_dir() and not shop.folder.is_relative_to(top)]
    allowed = [*own, *tops, *filter(os.path.isdir, sys.path), sys.prefix, sys.base_prefix]
    shop.write("app.py", f"TOPS = {allowed}\n{LANDLOCK}")
    return shop.ask("app.py")


def executable_stack_refused(shop: Workshop) -> Question:
    """In a root with glibc 2.41."""
    root = find_root("trixie")
    if isinstance(root, str):
        raise CannotBuild(root)
    shop.library("libjit.so", "int jit(void) { return 1; }", options=["-Wl,-z,execstack", "-nostdlib"])
    for package in (dlltracer, click):
        source = Path(package.__file__ or "").parent
        shutil.copytree(source, shop.folder / "site" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    enter = (*IN_NAMESPACE, IN_ROOT, "sh", str(root.folder), str(shop.folder), "")
    asked = shop.ask("/mnt/libjit.so", environment={"PYTHONPATH": "/mnt/site"})
    return replace(asked, prefix=enter, python=root.python)


def executable_stack(shop: Workshop) -> Question:
    version = os.confstr("CS_GNU_LIBC_VERSION") or "" if "CS_GNU_LIBC_VERSION" in os.confstr_names else ""
    if not version or tuple(map(int, version.split()[1].split("."))) >= (2, 41):
        raise CannotBuild(f"needs a glibc before 2.41, this is {version or 'another C library'}")
    shop.module("ext", options=["-Wl,-z,execstack"])
    return shop.ask("ext")


MDWE = "import ctypes\nif ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):\n    raise SystemExit('no PR_SET_MDWE')\n"
"""PR_SET_MDWE of linux/prctl.h (Linux 6.3 and later), which systemd's MemoryDenyWriteExecute=yes uses."""


def _under_mdwe(shop: Workshop, code: str) -> Question:
    done = subprocess.run([sys.executable, "-c", MDWE], capture_output=True, check=False)
    if done.returncode:
        raise CannotBuild("the kernel has no PR_SET_MDWE")
    shop.write("app.py", MDWE + code)
    return shop.ask("app.py")


def stack_of_dependency(shop: Workshop) -> Question:
    """The mark is on a library that the module needs."""
    shop.library("libjitx.so.1", "int jit(void) { return 1; }", options=["-Wl,-z,execstack"])
    shop.module("ext", "int jit(void);", ["libjitx.so.1"], ["-Wl,-rpath,$ORIGIN"], init="jit()")
    return _under_mdwe(shop, "import ext\n")


def text_of_module(shop: Workshop) -> Question:
    if platform.machine() != "x86_64":
        raise CannotBuild("needs the code model large of x86-64")
    code = 'int number; int *where(void) { int *p; __asm__("movabs $number, %0" : "=r"(p)); return p; }'
    options = ["-fno-pic", "-mcmodel=large", "-Wl,-z,notext"]
    made = shop.library("libtextx.so.1", code, options=options)
    return _under_mdwe(shop, f"ctypes.CDLL({str(made)!r})\n")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("static-tls", "64 KiB of initial-exec TLS", static_tls, "static-tls", "ext.",
             ("LD_PRELOAD", "does not help")),
    Scenario("static-tls-used-up", "many modules take a little", static_tls_used_up, "static-tls", "part",
             ("before everything else", "Others that use it")),
    Scenario("address-space", "RLIMIT_AS leaves no room", address_space, "memory-limit", "ext.", ("RLIMIT_AS",)),
    Scenario("too-many-files", "no file descriptor is left", too_many_files, "too-many-files", "libx.so"),
    Scenario("noexec", "the module lies on a file system mounted noexec", noexec, "noexec-mount", "locked/ext.",
             ("noexec", "mount -o remount,exec")),
    Scenario("forbidden-by-landlock", "a sandbox forbids a file whose permissions allow it", forbidden_by_landlock,
             "unreadable-image", "closed/libdep.so.1", ("there and fits", "Landlock")),
    Scenario("executable-stack-refused", "glibc 2.41 gives no executable stack", executable_stack_refused,
             "executable-stack", "libjit.so", ("patchelf", "RWE")),
    Scenario("stack-under-mdwe", "a policy forbids the executable stack of a dependency", stack_of_dependency,
             "executable-stack", "libjitx.so.1", ("MemoryDenyWriteExecute",)),
    Scenario("text-under-mdwe", "a policy forbids relocations in code", text_of_module, "text-relocations",
             "libtextx.so.1", ("MemoryDenyWriteExecute", "-fPIC")),
    Scenario("executable-stack", "glibc before 2.41 gives an executable stack", executable_stack, "imported"),
)  # fmt: skip
