"""Imports that end in other ways than with an ImportError, and searches that go by their own call."""

from __future__ import annotations

import textwrap

from builders.pe_file import I386, Export, build_pe
from scenarios.scenario import IMPORTED, Question, Scenario
from windows.lab import windows_path

from .workshop import DLL_MAIN, FUNCTION, Workshop


def exit_in_dll_main(shop: Workshop) -> Question:
    source = FUNCTION.format(name="work") + DLL_MAIN.format(body="ExitProcess(0); return TRUE;")
    shop.pyd("ext", ["work"], [shop.dll("site/leaves.dll", source)])
    return shop.question("ext")


def exit_in_module(shop: Workshop) -> Question:
    shop.pyd("ext", start="_exit(0); ")
    return shop.question("ext")


def terminated_in_module(shop: Workshop) -> Question:
    shop.pyd("ext", start="extern int TerminateProcess(void *, unsigned); TerminateProcess((void *)-1, 0); ")
    return shop.question("ext")


def winmode_path(shop: Workshop) -> Question:
    # LoadLibraryExW with 0 searches PATH for needs, and not the folder of the library: that is what is to be said.
    path = shop.library("lib/engine.dll", {"beside.dll": ["f"]})
    shop.library("lib/beside.dll")
    return shop.question("-c", f"import ctypes; ctypes.CDLL({windows_path(path)!r}, winmode=0)")


def winmode_works(shop: Workshop) -> Question:
    folder = shop.place("onpath")
    (folder / "ofpath.dll").write_bytes(build_pe(None, ["f"]))
    path = shop.library("engine.dll", {"ofpath.dll": ["f"], "gone_all.dll": ["f"]})
    return shop.question("-c", f"import ctypes; ctypes.CDLL({windows_path(path)!r}, winmode=0)", path=[folder])


def _with_added(shop: Workshop, program: str, **more: str) -> Question:
    folder = shop.place("given")
    (folder / "engine.dll").write_bytes(build_pe(None, ["f"]))
    shop.module("ext", {"engine.dll": ["f"]})
    shop.write("asks.py", textwrap.dedent(program).format(folder=windows_path(folder), **more))
    return shop.question("asks")


def folder_taken_back(shop: Workshop) -> Question:
    return _with_added(shop, "import os\nwith os.add_dll_directory({folder!r}):\n    pass\nimport ext\n")


def folder_added_later(shop: Workshop) -> Question:
    text = """
        import os
        try:
            import ext
        except ImportError as error:
            os.add_dll_directory({folder!r})
            raise
    """
    return _with_added(shop, text)


def folder_in_force(shop: Workshop) -> Question:
    """The handle is closed by the failure itself: the folder did count."""
    folder = shop.place("given")
    (folder / "engine.dll").write_bytes(build_pe({"engine_gone.dll": ["f"]}, ["f"]))
    shop.module("ext", {"engine.dll": ["f"]})
    shop.write("asks.py", f"import os\nwith os.add_dll_directory({windows_path(folder)!r}):\n    import ext\n")
    return shop.question("asks")


def native_value_error(shop: Workshop) -> Question:
    shop.write("asks.py", "import ext\n")
    start = (
        'void *LoadLibraryA(const char *); if (!LoadLibraryA("sib_engine_gone.dll")) { PyErr_SetString('
        'PyExc_ValueError, "cannot load sib_engine_gone.dll"); return NULL; } '
    )
    shop.pyd("ext", start=start)
    return shop.question("asks")


def quoted_os_error(shop: Workshop) -> Question:
    path = windows_path(shop.library("engine.dll", {"engine_gone.dll": ["f"]}))
    text = f"""
        import ctypes
        failed = None
        try:
            ctypes.CDLL({path!r})
        except OSError as error:
            failed = repr(str(error))
        if failed:
            raise RuntimeError("no backend: " + failed)
    """
    shop.write("asks.py", textwrap.dedent(text))
    return shop.question("asks")


def narrow_by_ctypes(shop: Workshop) -> Question:
    path = shop.library("narrow.dll", machine=I386)
    return shop.question("-c", f"import ctypes; ctypes.CDLL({windows_path(path)!r})")


def debug_runtime_deep(shop: Workshop) -> Question:
    shop.module("ext", {"engine.dll": ["f"]})
    shop.library("engine.dll", {"ucrtbased.dll": ["f"]})
    return shop.question("ext")


def forwarder_by_ctypes(shop: Workshop) -> Question:
    shop.pyd("ext", ["passed_on"], [shop.dll("site/passes.dll", FUNCTION.format(name="passed_on"))])
    shop.library("passes.dll", exports=[Export("passed_on", forwarder="no_such_engine.passed_on")])
    return shop.question("ext")


def hangs(shop: Workshop) -> Question:
    shop.write("waits.py", "import time\ntime.sleep(10**6)\n")
    return shop.question("--timeout", "20", "waits")


def hangs_in_native_code(shop: Workshop) -> Question:
    shop.pyd("ext", start="void Sleep(unsigned); Sleep(0xffffffff); ")
    shop.write("waits.py", "import ext\n")
    return shop.question("--timeout", "20", "waits")


def hangs_in_dll_main(shop: Workshop) -> Question:
    source = FUNCTION.format(name="work") + DLL_MAIN.format(body="Sleep(INFINITE); return TRUE;")
    shop.pyd("ext", ["work"], [shop.dll("site/waiting.dll", source)])
    return shop.question("--timeout", "20", "ext")


def in_time(shop: Workshop) -> Question:
    return shop.question("--timeout", "60", "json")


def tried_folder(shop: Workshop) -> Question:
    """A fix that needs no installation is tried: here it works, in the process of a child."""
    folder = shop.site / "pkg.libs"
    folder.mkdir()
    built = shop.dll("site/pkg.libs/tried_engine.dll", FUNCTION.format(name="work"))
    shop.pyd("ext", ["work"], [built])
    return shop.question("--try", "ext")


def tried_in_vain(shop: Workshop) -> Question:
    """The copy elsewhere lacks what is wanted of it: the fix is dropped."""
    real = shop.dll("built/vain_engine.dll", FUNCTION.format(name="work"))
    shop.pyd("ext", ["work"], [real])
    (shop.site / "pkg.libs").mkdir()
    (shop.site / "pkg.libs" / "vain_engine.dll").write_bytes(build_pe({"vain_gone.dll": ["f"]}, ["work"]))
    return shop.question("--try", "ext")


def conda_behind_venv(shop: Workshop) -> Question:
    """A virtual environment whose Python is conda's: the environment itself has no conda-meta."""
    python = shop.python()
    (python / "conda-meta").mkdir()
    folder = shop.place("python/Library/bin")
    (folder / "behind.dll").write_bytes(build_pe(None, ["f"]))
    shop.module("ext", {"behind.dll": ["f"]})
    scripts = shop.place("venv/Scripts")
    launcher = shop.lab.python_dir("3.11") / "Lib/venv/scripts/nt/python.exe"
    (scripts / "python.exe").write_bytes(launcher.read_bytes())
    (scripts.parent / "pyvenv.cfg").write_text(f"home = {windows_path(python)}\nversion = 3.11.9\n")
    return Question(("--python", windows_path(scripts / "python.exe"), "--no-try", "ext"), {}, shop.site)


def function_of_another(shop: Workshop) -> Question:
    """A library of another program, found by its name in PATH: it lacks a function."""
    folder = shop.place("other/bin")
    (folder / "sib_zlib.dll").write_bytes(build_pe(None, ["compress"]))
    shop.write("asks.py", "import ctypes\nlib = ctypes.CDLL('sib_zlib.dll', winmode=0)\nlib.compress9\n")
    return shop.question("--no-try", "asks", path=[folder])


W = Workshop
SCENARIOS: tuple[Scenario[W], ...] = (
    Scenario("exit-dll-main", "DllMain ends the process with 0", exit_in_dll_main, "exit-in-import", "import ext"),
    Scenario("exit-module", "a module ends the process with 0", exit_in_module, "exit-in-import", "import ext"),
    Scenario("terminated", "a module terminates its process with 0", terminated_in_module, "exit-in-import"),
    Scenario("winmode-beside", "winmode=0 and a need beside", winmode_path, "folder-not-searched", "beside.dll",
             ("leave winmode out of the call",)),
    Scenario("winmode-path", "winmode=0: PATH counts", winmode_works, "missing-image", "gone_all.dll"),
    Scenario("folder-closed", "a folder added and taken back", folder_taken_back, "folder-not-searched", "engine.dll",
             ("taken back before the load",)),
    Scenario("folder-later", "a folder added too late", folder_added_later, "folder-not-searched", "engine.dll"),
    Scenario("folder-in-force", "a folder in force at the failure", folder_in_force, "missing-image",
             "engine_gone.dll"),
    # Python asked for nothing here: only the words name a file.
    Scenario("native-value-error", "a ValueError of native code", native_value_error, "library-not-found",
             "sib_engine_gone.dll", ("ValueError", "could not find")),
    Scenario("quoted-os-error", "a RuntimeError that quotes an OSError", quoted_os_error, "missing-image",
             "engine_gone.dll"),
    Scenario("narrow-ctypes", "a 32-bit library for ctypes", narrow_by_ctypes, "wrong-machine", "narrow.dll"),
    Scenario("debug-deep", "a need is a debug build", debug_runtime_deep, "debug-build", "ucrtbased.dll"),
    Scenario("forwarder-nowhere", "a forwarder to nowhere", forwarder_by_ctypes, "missing-forwarder",
             "no_such_engine.dll"),
    Scenario("hangs", "an import that waits", hangs, "import-hangs", "", ("waits.py", "line 2")),
    Scenario("hangs-native", "native code that waits", hangs_in_native_code, "import-hangs", "", ("waits.py",)),
    Scenario("hangs-dll-main", "a DllMain that waits", hangs_in_dll_main, "import-hangs", "waiting.dll"),
    Scenario("in-time", "a timeout that is not needed", in_time, IMPORTED),
    Scenario("tried-folder", "a folder that a trial proves", tried_folder, "folder-not-searched", "tried_engine.dll",
             ("the import works after os.add_dll_directory",)),
    Scenario("conda-behind-venv", "a venv of a conda Python", conda_behind_venv, "conda-not-activated", "behind.dll",
             ("behind this one", "add_dll_directory")),
    Scenario("function-of-another", "a function that a library lacks", function_of_another, "symbol-not-in-library",
             "sib_zlib.dll", ("compress9",)),
    Scenario("tried-in-vain", "a folder that does not help", tried_in_vain, "folder-not-searched", "vain_engine.dll",
             ("the import fails after os.add_dll_directory",)),
)  # fmt: skip
