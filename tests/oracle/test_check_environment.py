"""What `dlltracer check` says of an environment, held against `ldd -r` and a real import of the same files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from dlltracer.check.environment import check_environment
from dlltracer.model.check import CheckReport, Problem, Severity

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="builds ELF files with gcc"
)
MODULE = """
#include <Python.h>
{more}
static struct PyModuleDef def = {{.m_base = PyModuleDef_HEAD_INIT, .m_name = "{name}", .m_size = -1}};
PyMODINIT_FUNC PyInit_{name}(void) {{ {call}; return PyModule_Create(&def); }}
"""
SHARED = ("-shared", "-fPIC")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


def build(path: Path, code: str, *options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-w", "-xc", "-", "-o", str(path), "-xnone", *options]
    subprocess.run(command, input=code, text=True, cwd=path.parent, check=True)
    return path


def module(path: Path, *options: str, call: str = "", more: str = "", suffix: str = SUFFIX) -> Path:
    code = MODULE.format(name=path.name, call=call, more=more)
    return build(path.with_name(path.name + suffix), code, *SHARED, f"-I{sysconfig.get_paths()['include']}", *options)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment whose packages are broken in every way, and some that are sound."""
    prefix = tmp_path_factory.mktemp("venv") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    (site,) = prefix.glob("lib/python3*/site-packages")
    lib = site / "good.libs"
    full = "int base(void){return 1;} int extra(void){return 2;}"
    build(lib / "libgood.so.1", full, *SHARED, "-Wl,-soname,libgood.so.1")
    build(site / "lost/libs/liblost.so.1", full, *SHARED, "-Wl,-soname,liblost.so.1")
    build(site / "old/libold.so.1", full, *SHARED, "-Wl,-soname,libold.so.1")
    build(site / "gone/libgone.so.1", full, *SHARED, "-Wl,-soname,libgone.so.1")
    (site / "v.map").write_text("V1 { global: base; }; V2 { global: extra; };")
    build(site / "ver/libver.so.1", full, *SHARED, "-Wl,-soname,libver.so.1", f"-Wl,--version-script={site}/v.map")
    extra, more = "extra()", "int extra(void);"
    module(site / "good/ext", str(lib / "libgood.so.1"), "-Wl,-rpath,$ORIGIN/../good.libs", call=extra, more=more)
    module(site / "lost/ext", str(site / "lost/libs/liblost.so.1"), call=extra, more=more)
    module(site / "old/ext", str(site / "old/libold.so.1"), "-Wl,-rpath,$ORIGIN", call=extra, more=more)
    module(site / "gone/ext", str(site / "gone/libgone.so.1"), "-Wl,-rpath,$ORIGIN", call=extra, more=more)
    module(site / "ver/ext", str(site / "ver/libver.so.1"), "-Wl,-rpath,$ORIGIN", call=extra, more=more)
    module(site / "under/ext", call="nobody_has_this()", more="void nobody_has_this(void);")
    module(site / "newer/ext", call="PyObject_FromTheFuture()", more="void PyObject_FromTheFuture(void);")
    module(site / "weak/ext", call="if(maybe)maybe()", more="extern void maybe(void) __attribute__((weak));")
    module(site / "plain/ext", suffix=".so")
    for package, code in (("full", full), ("half", "int base(void){return 1;}")):
        same = build(site / package / "libsame.so.1", code, *SHARED, "-Wl,-soname,libsame.so.1")
        call = "extra()" if package == "full" else "base()"
        module(site / package / "ext", str(same), "-Wl,-rpath,$ORIGIN", call=call, more="int extra(void),base(void);")
    (site / "gone/libgone.so.1").unlink()
    build(site / "old/libold.so.1", "int base(void){return 1;}", *SHARED, "-Wl,-soname,libold.so.1")
    (site / "v.map").write_text("V1 { global: base; };")
    build(site / "ver/libver.so.1", full, *SHARED, "-Wl,-soname,libver.so.1", f"-Wl,--version-script={site}/v.map")
    return site


@pytest.fixture(scope="module")
def report(site: Path) -> CheckReport:
    return check_environment(str(site.parents[2]), is_folder=True, use_cache=False)


def of(report: CheckReport, folder: str) -> list[Problem]:
    return [problem for problem in report.problems if f"site-packages/{folder}/" in problem.file]


def test_each_module_as_a_real_import(site: Path, report: CheckReport) -> None:
    """What an import says is what the check says: no more and no less."""
    assert report.unreadable == "" and report.files >= 14
    for folder in ("good", "lost", "old", "gone", "ver", "under", "newer", "weak", "plain"):
        (path,) = (site / folder).glob("ext*.so")
        code = f"import importlib.util as u; s=u.spec_from_file_location('ext', {str(path)!r}); u.module_from_spec(s)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        errors = [problem for problem in of(report, folder) if problem.severity is Severity.ERROR]
        assert bool(done.returncode) == bool(errors), (folder, done.stderr, errors)
        words = done.stderr.strip().splitlines()[-1] if done.returncode else ""
        pattern = r"undefined symbol: (\w+)|version `(\w+)' not found|: (lib\S+\.so[.\d]*): cannot open"
        missing = re.search(pattern, words)
        if missing is not None:
            assert next(filter(None, missing.groups())) in errors[0].title, (words, errors)


def test_the_codes_and_what_they_name(report: CheckReport) -> None:
    (lost,) = of(report, "lost")
    assert lost.code == "not-on-runpath" and lost.fix.endswith("$ORIGIN/libs") and "liblost.so.1" in lost.title
    (old,) = of(report, "old")
    assert (old.code, old.severity) == ("missing-symbol", Severity.ERROR) and "extra" in old.title
    (gone,) = of(report, "gone")
    assert gone.code == "missing-image" and gone.file.endswith(f"gone/ext{SUFFIX}")
    (version,) = of(report, "ver")
    assert version.code == "missing-symbol" and "the version V2 of libver.so.1" in version.title
    assert not of(report, "good") and not of(report, "weak") and not of(report, "plain")


def test_the_same_undefined_symbols_as_ldd(site: Path, report: CheckReport) -> None:
    compared = set()
    for path in sorted(site.rglob("*.so*")):
        done = subprocess.run(["ldd", "-r", str(path)], capture_output=True, text=True, check=False)
        theirs = set(re.findall(r"undefined symbol: (\w+)", done.stdout + done.stderr))
        theirs = {name for name in theirs if not name.startswith(("Py", "_Py")) or "Future" in name}
        texts = [" ".join((p.title, *p.evidence)) for p in report.problems if p.code == "missing-symbol"
                 and p.file.endswith(str(path.relative_to(site)))]  # fmt: skip
        if "not found" in done.stderr + done.stdout:
            continue  # a version or a library: the symbols follow from it
        assert bool(theirs) == bool(texts), (path, theirs, texts)
        assert all(any(name in text for text in texts) for name in theirs)
        compared.add(bool(theirs))
    assert compared == {True, False}, "some files lack symbols, and some do not"


def test_whose_library_wins_by_the_order_of_imports(site: Path, report: CheckReport) -> None:
    """Both packages have a library of one name. A real process says which order fails, and so does the check."""
    paths = [str(next((site / package).glob("ext*.so"))) for package in ("full", "half")]
    code = "import ctypes, sys; [ctypes.CDLL(path) for path in sys.argv[1:]]"
    done = [
        subprocess.run([sys.executable, "-c", code, *order], capture_output=True, text=True, check=False)
        for order in (paths, paths[::-1])
    ]
    assert done[0].returncode == 0 and "undefined symbol: extra" in done[1].stderr
    (conflict,) = [problem for problem in report.problems if problem.code == "runtime-conflict"]
    assert conflict.severity is Severity.WARNING and conflict.file.endswith(f"full/ext{SUFFIX}")
    assert "half/libsame.so.1 was loaded before, which has no extra" in conflict.title
    assert conflict.fix.startswith("import full before half")
    (copies,) = [problem for problem in report.problems if problem.code == "runtime-copies"]
    assert copies.severity is Severity.NOTE and "libsame.so.1 is in 2 packages" in copies.title


def test_a_healthy_environment_is_quiet(tmp_path: Path) -> None:
    """The standard library of this Python, and one package."""
    report = check_environment("", is_folder=False, use_cache=False)
    assert [problem for problem in report.problems if problem.severity is Severity.ERROR] == []
    assert report.unreadable == ""
