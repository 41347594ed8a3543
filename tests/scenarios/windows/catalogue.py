"""The failures of Windows, each built for real, with the verdict that it must get."""

from __future__ import annotations

from builders.pe_file import ARM64, I386, Export, build_pe
from scenarios.scenario import IMPORTED, UNDECIDED, Question, Scenario
from windows.fixtures import module_source
from windows.lab import windows_path

from .endings import SCENARIOS as ENDINGS
from .programs import SCENARIOS as PROGRAMS
from .refusals import SCENARIOS as REFUSALS
from .workshop import DLL_MAIN, FUNCTION, VERSION, Workshop, set_linker_version

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
ADDS = """
import os, ssl
kept = []
for number in range(200):
    os.makedirs(f"folder{number}", exist_ok=True)
    kept.append(os.add_dll_directory(os.path.abspath(f"folder{number}")))
import sqlite3
"""
MUTEX = """
struct mutex { int *handle; };
__declspec(dllexport) int _Mtx_lock(struct mutex *it) { return *it->handle; }
__declspec(dllexport) int _Mtx_unlock(struct mutex *it) { (void)it; return 0; }
__declspec(dllexport) int _Mtx_init_in_situ(struct mutex *it, int kind) { (void)it; return kind; }
"""
LOCK = "int _Mtx_lock(void *); static struct { int *volatile handle; } own; _Mtx_lock(&own);"


def missing_leaf(shop: Workshop) -> Question:
    shop.module("ext", {"leaf_a.dll": ["f"]})
    shop.library("leaf_a.dll", {"leaf_b.dll": ["f"]})
    return shop.question("ext")


def two_leaves(shop: Workshop) -> Question:
    shop.module("ext", {"two_a.dll": ["f"], "two_gone.dll": ["f"]})
    shop.library("two_a.dll", {"two_lost.dll": ["f"]})
    return shop.question("ext")


def path_only(shop: Workshop) -> Question:
    shop.module("ext", {"onpath.dll": ["f"]})
    tools = shop.place("tools")
    (tools / "onpath.dll").write_bytes(build_pe(None, ["f"]))
    return shop.question("ext", path=[tools])


def dll_directory(shop: Workshop) -> Question:
    # The process alone knows the folder: taken from ours, the verdict would name the library that is there.
    folder = shop.place("given")
    (folder / "given.dll").write_bytes(build_pe({"given_gone.dll": ["f"]}, ["f"]))
    shop.module("ext", {"given.dll": ["f"]})
    call = f"ctypes.windll.kernel32.SetDllDirectoryW({windows_path(folder)!r})"
    shop.write("sets.py", f"import ctypes\n{call}\nimport ext\n")
    return shop.question("sets")


def conda(shop: Workshop) -> Question:
    python = shop.python()
    (python / "conda-meta").mkdir()
    folder = shop.place("python/Library/bin")
    (folder / "fromconda.dll").write_bytes(build_pe(None, ["f"]))
    shop.module("ext", {"fromconda.dll": ["f"]})
    return shop.question("ext")


def user_base(shop: Workshop) -> Question:
    folder = shop.place("user/Library/bin")
    (folder / "mkl_like.dll").write_bytes(build_pe(None, ["f"]))
    shop.module("ext", {"mkl_like.dll": ["f"]})
    return shop.question("ext", PYTHONUSERBASE=windows_path(shop.folder / "user"))


def other_package(shop: Workshop) -> Question:
    shop.module("pkg/ext", {"elsewhere.dll": ["f"]})
    shop.write("pkg/__init__.py", "from . import ext\n")
    shop.library("other.libs/elsewhere.dll")
    return shop.question("pkg")


def plain_runtime_missing(shop: Workshop) -> Question:
    shop.module("ext", {"mfc140u.dll": ["f"]})
    return shop.question("ext")


def openmp_missing(shop: Workshop) -> Question:
    shop.module("ext", {"libomp140.x86_64.dll": ["f"]})
    return shop.question("ext")


def contract_missing(shop: Workshop) -> Question:
    shop.module("ext", {"api-ms-win-core-dlltracer-l1-1-0.dll": ["f"], "api-ms-win-crt-heap-l1-1-0.dll": ["malloc"]})
    return shop.question("ext")


def debug_runtime(shop: Workshop) -> Question:
    shop.module("ext", {"VCRUNTIME140D.dll": ["f"], "ucrtbased.dll": ["f"]})
    return shop.question("ext")


def debug_python(shop: Workshop) -> Question:
    shop.module("ext", {"python311_d.dll": ["PyModule_Create2"]})
    return shop.question("ext")


def other_python(shop: Workshop) -> Question:
    shop.module("ext", {"python310.dll": ["PyModule_Create2"]})
    return shop.question("ext")


def other_python_present(shop: Workshop) -> Question:
    # Run by CPython before it runs anything of the module: it looks through the imports for a python*.dll.
    shop.library("python310.dll", exports=["PyModule_Create2"])
    shop.module("ext", {"python310.dll": ["PyModule_Create2"]})
    return shop.question("ext")


def quarantined(shop: Workshop) -> Question:
    shop.module("pkg/ext", {"taken.dll": ["f"]})
    shop.write("pkg/__init__.py", "from . import ext\n")
    record = "pkg/__init__.py,,\npkg/ext.pyd,,\npkg/taken.dll,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,1234\n"
    shop.write("pkg-1.2.dist-info/RECORD", record + "pkg-1.2.dist-info/RECORD,,\n")
    shop.write("pkg-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: pkg\nVersion: 1.2\n")
    return shop.question("pkg")


def quarantined_module(shop: Workshop) -> Question:
    shop.write("pkg/__init__.py", "from . import ext\n")
    digest = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    shop.write("pkg-1.2.dist-info/RECORD", f"pkg/__init__.py,,\npkg/ext.pyd,{digest},1234\n")
    shop.write("pkg-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: pkg\nVersion: 1.2\n")
    return shop.question("pkg")


def reraised(shop: Workshop) -> Question:
    shop.module("pkg/_core", {"deep_gone.dll": ["f"]})
    text = "try:\n    from . import _core\nexcept ImportError as error:\n    raise ImportError('broken') from error\n"
    shop.write("pkg/__init__.py", text)
    return shop.question("pkg")


def initialiser(shop: Workshop) -> Question:
    dep = shop.dll("site/refuses.dll", FUNCTION.format(name="refuse") + DLL_MAIN.format(body="return FALSE;"))
    middle = "int refuse(void);" + FUNCTION.format(name="middle").replace("return 1", "return refuse()")
    mid = shop.dll("site/middle.dll", middle, [dep])
    shop.pyd("ext", ["middle"], [mid])
    return shop.question("ext")


def crash(shop: Workshop) -> Question:
    body = "static int *volatile nowhere; return *nowhere;"
    dep = shop.dll("site/crashing.dll", f"__declspec(dllexport) int fall(void) {{ {body} }}\n")
    shop.pyd("ext", ["fall"], [dep])
    return shop.question("ext")


def illegal_instruction(shop: Workshop) -> Question:
    shop.pyd("ext", start='__asm__ volatile ("ud2"); ')
    return shop.question("ext")


def crash_later(shop: Workshop) -> Question:
    body = "static int *volatile nowhere; return *nowhere;"
    path = shop.dll("site/later.dll", f"__declspec(dllexport) int fall(void) {{ {body} }}\n")
    shop.lab.build_pyd(VERSION, "ext", module_source("ext", "fall"), shop.site, [path])
    return shop.question("-c", "import ext\next.answer()")


def aborting(shop: Workshop) -> Question:
    # Of the universal C runtime, as modules built by Visual C++ do; mingw's abort() is of msvcrt.dll, and says nothing.
    return shop.question("-c", "import ctypes; ctypes.CDLL('ucrtbase.dll').abort()")


def nearest_export(shop: Workshop) -> Question:
    dummy = shop.dll("dummy/sc_icu.dll", FUNCTION.format(name="ucnv_open"))
    shop.pyd("ext", ["ucnv_open"], [dummy])
    dummy.unlink()  # a copy that has the symbol would be another verdict
    shop.library("sc_icu.dll", exports=["ucnv_open_73", "ucnv_close_73", "u_init_73"], export_name="sc_icu.dll")
    return shop.question("ext")


def wrong_copy(shop: Workshop) -> Question:
    right = shop.dll("right/twice.dll", FUNCTION.format(name="fresh"))
    shop.pyd("pkg/ext", ["fresh"], [right])
    shop.library("pkg/twice.dll", exports=["stale"], export_name="twice.dll")
    text = f"import os\nos.add_dll_directory({windows_path(shop.folder / 'right')!r})\nfrom . import ext\n"
    shop.write("pkg/__init__.py", text)
    return shop.question("pkg", path=[shop.folder / "right"])


def first_wins(shop: Workshop) -> Question:
    old = shop.dll("site/old/shared.dll", FUNCTION.format(name="common"))
    new = shop.dll("site/new/shared.dll", FUNCTION.format(name="common") + FUNCTION.format(name="added_later"))
    shop.pyd("old/one", ["common"], [old])
    shop.pyd("new/two", ["added_later"], [new])
    shop.write("old/__init__.py", "from . import one\n")
    shop.write("new/__init__.py", "from . import two\n")
    return shop.question("-c", "import old; import new")


def forwarder(shop: Workshop) -> Question:
    dummy = shop.dll("dummy/sc_fwd.dll", FUNCTION.format(name="passed_on"))
    shop.pyd("ext", ["passed_on"], [dummy])
    exports = [Export("passed_on", None, "sc_gone.passed_on")]
    shop.library("sc_fwd.dll", exports=exports, export_name="sc_fwd.dll")
    return shop.question("ext")


def old_runtime_beside_python(shop: Workshop) -> Question:
    shop.python()
    old = shop.dll("python/msvcp140.dll", MUTEX, version=(14, 28, 29334, 0))
    shop.pyd("ext", links=[old], start=LOCK)
    set_linker_version(shop.site / "ext.pyd", (14, 42))
    return shop.question("ext")


def old_runtime_first(shop: Workshop) -> Question:
    old = shop.dll("site/arrow/msvcp140.dll", MUTEX, version=(14, 28, 29334, 0))
    new = shop.dll("site/tree/msvcp140.dll", MUTEX.replace("*it->handle", "it == 0"), version=(14, 42, 34433, 0))
    shop.pyd("arrow/lib", links=[old], start="int _Mtx_unlock(void *); _Mtx_unlock(0); ")
    set_linker_version(shop.site / "arrow/lib.pyd", (14, 28))
    shop.pyd("tree/_C", links=[new], start=LOCK)
    set_linker_version(shop.site / "tree/_C.pyd", (14, 40))
    shop.write("arrow/__init__.py", "from . import lib\n")
    shop.write("tree/__init__.py", "from . import _C\n")
    return shop.question("-c", "import arrow; import tree")


def old_runtime_refuses(shop: Workshop) -> Question:
    old = shop.dll("site/msvcp140.dll", MUTEX, version=(14, 20, 27508, 0))
    source = "int _Mtx_init_in_situ(void *, int);" + FUNCTION.format(name="work")
    source += DLL_MAIN.format(body="_Mtx_init_in_situ(0, 0); return FALSE;")
    dep = shop.dll("site/engine.dll", source, [old])
    set_linker_version(dep, (14, 41))
    shop.pyd("ext", ["work"], [dep])
    return shop.question("ext")


def narrow_dependency(shop: Workshop) -> Question:
    shop.module("ext", {"narrow.dll": ["f"]})
    shop.library("narrow.dll", machine=I386)
    return shop.question("ext")


def arm_module(shop: Workshop) -> Question:
    shop.module("ext", machine=ARM64)
    return shop.question("ext")


def narrow_module(shop: Workshop) -> Question:
    shop.module("ext", machine=I386)
    return shop.question("ext")


def lfs_module(shop: Workshop) -> Question:
    shop.write("ext.pyd", LFS)
    return shop.question("ext")


def page_dependency(shop: Workshop) -> Question:
    shop.module("ext", {"download.dll": ["f"]})
    shop.write("download.dll", "<!DOCTYPE html><html>404</html>")
    return shop.question("ext")


def cut_module(shop: Workshop) -> Question:
    shop.pyd("ext")
    path = shop.site / "ext.pyd"
    path.write_bytes(path.read_bytes()[:3000])
    return shop.question("ext")


def empty_module(shop: Workshop) -> Question:
    shop.write("ext.pyd", b"")
    return shop.question("ext")


def linux_module(shop: Workshop) -> Question:
    shop.write("ext.pyd", b"\x7fELF" + bytes(200))
    return shop.question("ext")


def ctypes_bare_name(shop: Workshop) -> Question:
    return shop.question("-c", "import ctypes; ctypes.CDLL('nowhere_at_all')")


def ctypes_with_need(shop: Workshop) -> Question:
    path = shop.library("loaded.dll", {"behind.dll": ["f"]})
    return shop.question("-c", f"import ctypes; ctypes.CDLL({windows_path(path)!r})")


def a_file(shop: Workshop) -> Question:
    path = shop.library("plain.dll", {"plain_gone.dll": ["f"]})
    return shop.question(windows_path(path))


def no_init_function(shop: Workshop) -> Question:
    shop.library("ext.pyd", exports=["something_else"])
    return shop.question("ext")


def tagged_for_another(shop: Workshop) -> Question:
    shop.module("ext.cp310-win_amd64")
    return shop.question("ext")


def healthy(shop: Workshop) -> Question:
    dep = shop.dll("site/good.dll", FUNCTION.format(name="good"))
    shop.pyd("ext", ["good"], [dep])
    return shop.question("ext")


def healthy_contracts(shop: Workshop) -> Question:
    return shop.question("-c", "import ssl, sqlite3, ctypes, lzma, decimal")


def healthy_frees(shop: Workshop) -> Question:
    path = shop.dll("site/freed.dll", FUNCTION.format(name="freed"))
    code = f"import _ctypes; _ctypes.FreeLibrary(_ctypes.LoadLibrary({windows_path(path)!r}, 0))"
    return shop.question("-c", code)


def long_path(shop: Workshop) -> Question:
    # Windows itself refuses such a path (206); Wine loads it. What must not happen is that the question breaks.
    folder = f"{'x' * 120}/{'y' * 140}"
    shop.module(f"{folder}/ext", {"long_gone.dll": ["f"]})
    return shop.question("-c", f"import sys; sys.path.insert(0, {windows_path(shop.site / folder)!r}); import ext")


def healthy_many_folders(shop: Workshop) -> Question:
    shop.write("adds.py", ADDS)
    return shop.question("adds")


def named_like_windows(shop: Workshop) -> Question:
    # As in the list of Windows' own names, and absent all the same: nothing else is to be recommended.
    shop.module("ext", {"bcryptprimitives.dll": ["ProcessPrng"]})
    return shop.question("ext")


def healthy_delayed(shop: Workshop) -> Question:
    path = shop.library("later.dll", delayed={"later_gone.dll": ["f"]})
    return shop.question(windows_path(path))


def healthy_flags(shop: Workshop) -> Question:
    # On Windows this fails ("search-restricted"); Wine 8 does not heed the flags of an image.
    shop.library("beside.dll")
    path = shop.library("flagged.dll", {"beside.dll": ["f"]}, dependent_load_flags=0x800)
    return shop.question(windows_path(path))


def healthy_after_failure(shop: Workshop) -> Question:
    shop.module("fast", {"fast_gone.dll": ["f"]})
    shop.write("slow.py", "try:\n    import fast\nexcept ImportError:\n    fast = None\n")
    return shop.question("slow")


def other_failure(shop: Workshop) -> Question:
    shop.module("fast", {"fast_gone.dll": ["f"]})
    shop.write(
        "wrong.py", "try:\n    import fast\nexcept ImportError:\n    fast = None\nraise ValueError('bad input')\n"
    )
    return shop.question("wrong")


def absent_data_file(shop: Workshop) -> Question:
    shop.write("reads.py", "open('no-such-settings.toml')\n")
    return shop.question("reads")


def absent_module(shop: Workshop) -> Question:
    shop.write("asks.py", "import no_such_module_at_all\n")
    return shop.question("asks")


def own_import_error(shop: Workshop) -> Question:
    shop.write("picky.py", "raise ImportError('this needs a newer something')\n")
    return shop.question("picky")


def init_raises(shop: Workshop) -> Question:
    shop.pyd("ext", start='PyErr_SetString(PyExc_ImportError, "no licence"); return NULL; ')
    return shop.question("ext")


W = Workshop
SCENARIOS: tuple[Scenario[W], ...] = (
    Scenario("missing-leaf", "a need of a need", missing_leaf, "missing-image", "leaf_b.dll", ("leaf_a.dll",)),
    Scenario("two-leaves", "two are absent", two_leaves, "missing-image", "two_", ("two_gone.dll", "two_lost.dll")),
    Scenario(
        "path-only", "the need is on PATH", path_only, "path-not-searched", "onpath.dll", ("os.add_dll_directory",)
    ),
    Scenario("dll-directory", "SetDllDirectory has a need", dll_directory, "missing-image", "given_gone.dll",
             ("given.dll",)),
    Scenario("conda", "conda, not activated", conda, "conda-not-activated", "fromconda.dll", ("conda activate",)),
    Scenario("user-base", "mkl in USERBASE", user_base, "folder-not-searched", "mkl_like.dll", ("Library",)),
    Scenario("other-package", "another package has it", other_package, "folder-not-searched", "elsewhere.dll"),
    Scenario("runtime-missing", "no VC runtime", plain_runtime_missing, "missing-vc-runtime", "mfc140u.dll",
             ("aka.ms/vs",)),
    Scenario("openmp-missing", "libomp140 is absent", openmp_missing, "missing-image", "libomp140.x86_64.dll",
             ("Web sites that offer single DLL",)),
    Scenario("contract-missing", "an old Windows", contract_missing, "windows-too-old", "api-ms-win-core-dlltracer"),
    Scenario("windows-own", "a file of Windows", named_like_windows, "missing-image", "bcryptprimitives.dll",
             ("a file of Windows itself",)),
    Scenario("debug-runtime", "a debug build", debug_runtime, "debug-build", "VCRUNTIME140D.dll", ("ucrtbased.dll",)),
    Scenario("debug-python", "built for python_d", debug_python, "other-libpython", "ext.pyd", ("a debug build of",)),
    Scenario("other-python", "built for 3.10", other_python, "other-libpython", "ext.pyd", ("Python 3.10",)),
    Scenario("other-python-there", "3.10 is there too", other_python_present, "other-libpython", "", ("Python 3.10",)),
    Scenario("quarantined", "in RECORD, and gone", quarantined, "package-file-missing", "taken.dll", ("pkg 1.2",)),
    Scenario("quarantined-module", "a module in RECORD, gone", quarantined_module, "package-file-missing", "ext.pyd"),
    Scenario("reraised", "the package says it is broken", reraised, "missing-image", "deep_gone.dll", ("_core.pyd",)),
    Scenario("initialiser", "DllMain returns FALSE", initialiser, "initialiser-failed", "refuses.dll", ("1114",)),
    Scenario("crash", "an access violation", crash, "crash-in-import", "crashing.dll", ("0xc0000005", "import ext")),
    Scenario("instruction", "an illegal instruction", illegal_instruction, "illegal-instruction", "ext.pyd"),
    Scenario("abort", "abort()", aborting, "abort"),
    Scenario("crash-later", "a crash after all imports", crash_later, "crash", "later.dll"),
    Scenario("nearest", "names with a version", nearest_export, "missing-symbol", "sc_icu.dll", ("ucnv_open_73",)),
    Scenario("wrong-copy", "an old copy beside it", wrong_copy, "wrong-copy", "twice.dll", ("right", "fresh")),
    Scenario("first-wins", "loaded by another first", first_wins, "first-wins", "shared.dll", ("import old",)),
    Scenario("forwarder", "a lost forwarder", forwarder, "missing-forwarder", "sc_gone.dll", ("sc_gone.passed_on",)),
    Scenario("old-runtime-app", "old msvcp140 beside python.exe", old_runtime_beside_python, "vc-runtime-too-old",
             "msvcp140.dll", ("14.28.29334", "_Mtx_lock")),
    Scenario("old-runtime-first", "old msvcp140 of a package loaded first", old_runtime_first, "vc-runtime-too-old",
             "msvcp140.dll", ("arrow", "14.28")),
    Scenario("old-runtime-init", "1114 with an old msvcp140", old_runtime_refuses, "vc-runtime-too-old", "msvcp140.dll",
             ("14.41", "engine.dll")),
    Scenario("narrow-dependency", "a 32-bit need", narrow_dependency, "wrong-machine", "narrow.dll", ("32 bit",)),
    Scenario("arm-module", "a module for ARM64", arm_module, "wrong-machine", "ext.pyd", ("ARM64",)),
    Scenario("narrow-module", "a 32-bit module", narrow_module, "wrong-machine", "ext.pyd", ("32 bit",)),
    Scenario("lfs", "a Git LFS pointer", lfs_module, "not-an-image", "ext.pyd", ("Git LFS",)),
    Scenario("page", "a web page for a need", page_dependency, "not-an-image", "download.dll", ("HTML",)),
    Scenario("cut", "a file cut short", cut_module, "truncated-image", "ext.pyd", ("cut short",)),
    Scenario("empty", "an empty file", empty_module, "not-an-image", "ext.pyd", ("empty",)),
    Scenario("linux", "a Linux file", linux_module, "not-an-image", "ext.pyd", ("Linux",)),
    Scenario("ctypes-name", "ctypes, a name that is nowhere", ctypes_bare_name, "no-such-file", "nowhere_at_all"),
    Scenario("ctypes-need", "ctypes, a need", ctypes_with_need, "missing-image", "behind.dll", ("loaded.dll",)),
    Scenario("file", "a DLL given by path", a_file, "missing-image", "plain_gone.dll"),
    Scenario("no-init", "no PyInit function", no_init_function, "no-module-function"),
    Scenario("tagged", "a file for Python 3.10", tagged_for_another, "other-python"),
    Scenario("healthy", "an extension module with a need", healthy, IMPORTED),
    Scenario("healthy-contracts", "modules of Python itself", healthy_contracts, IMPORTED),
    Scenario("healthy-frees", "a library loaded and freed", healthy_frees, IMPORTED),
    Scenario("long-path", "a path of 300 characters", long_path, "missing-image", "long_gone.dll"),
    Scenario("healthy-folders", "200 added folders", healthy_many_folders, IMPORTED),
    Scenario("healthy-delayed", "a delayed need is absent", healthy_delayed, IMPORTED),
    Scenario("healthy-flags", "load flags of an image, in Wine", healthy_flags, IMPORTED),
    Scenario("healthy-after", "a failure that was handled", healthy_after_failure, IMPORTED),
    Scenario("value-error", "another failure, after one that was handled", other_failure, UNDECIDED),
    Scenario("data-file", "a data file is absent", absent_data_file, UNDECIDED),
    Scenario("no-module", "a module is absent", absent_module, "no-such-module"),
    Scenario("own-error", "a package's own ImportError", own_import_error, UNDECIDED),
    Scenario("init-raises", "a module's own ImportError", init_raises, UNDECIDED),
    *PROGRAMS,
    *ENDINGS,
    *REFUSALS,
)  # fmt: skip
