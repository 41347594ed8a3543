"""Imports that end the process, fail in a thread or in a child process."""

from __future__ import annotations

import shutil
import subprocess

from scenarios.linux.workshop import Workshop
from scenarios.scenario import CannotBuild, Question, Scenario

ORIGIN = "-Wl,-rpath,$ORIGIN"


def exits_with_0_in_a_library(shop: Workshop) -> Question:
    code = (
        "#include <stdlib.h>\n#include <stdio.h>\nint leaf(void) { return 1; }\n"
        '__attribute__((constructor)) static void c(void) { fputs("no dongle found\\n", stderr); exit(0); }'
    )
    shop.library("libleaf.so.1", code)
    shop.module("ext", "int leaf(void);", ["libleaf.so.1"], [ORIGIN], init="leaf()")
    return shop.ask("ext")


def exits_with_0_in_init(shop: Workshop) -> Question:
    shop.module("ext", "#include <unistd.h>", init="_exit(0)")
    return shop.ask("ext")


def leaves_in_python(shop: Workshop) -> Question:
    shop.write("pkg.py", "import os, sys\nprint('giving up', flush=True)\nos._exit(0)\n")
    return shop.ask("pkg")


def ends_in_an_exit_handler(shop: Workshop) -> Question:
    shop.write("pkg.py", "import atexit, os\natexit.register(os._exit, 0)\n")
    return shop.ask("pkg")


def broken_module(shop: Workshop) -> None:
    shop.library("libleaf.so.1", "int leaf(void) { return 1; }")
    shop.module("ext", "int leaf(void);", ["libleaf.so.1"], [ORIGIN], init="leaf()")
    (shop.folder / "libleaf.so.1").unlink()


def leaf_of_a_thread(shop: Workshop) -> Question:
    broken_module(shop)
    shop.write("app.py", "import threading\ndef go():\n    import ext\nthreading.Thread(target=go).start()\n")
    return shop.ask("app.py")


def other_failure_of_a_thread(shop: Workshop) -> Question:
    shop.write("app.py", "import threading\nthreading.Thread(target=lambda: 1 / 0).start()\n")
    return shop.ask("app.py")


def leaf_of_a_pool(shop: Workshop) -> Question:
    broken_module(shop)
    shop.write(
        "app.py",
        "import multiprocessing as mp\ndef work(n):\n    import ext\nif __name__ == '__main__':\n"
        "    with mp.get_context('spawn').Pool(1) as pool:\n        pool.map(work, [1])\n",
    )
    return shop.ask("app.py")


def sanitized(shop: Workshop) -> Question:
    shop.module("ext", "static int v;", options=["-fsanitize=address"], init="v++")
    return shop.ask("ext")


def child_gets_our_library_path(shop: Workshop) -> Question:
    tool = shutil.which("ls")
    listed = subprocess.run(["ldd", tool or "ls"], capture_output=True, text=True, check=False).stdout
    if tool is None or "libselinux.so.1" not in listed:
        raise CannotBuild("ls does not need libselinux here")
    shop.library("bundle/libselinux.so.1", "int unrelated(void) { return 1; }")
    shop.write(
        "app.py",
        "import os, subprocess\nfolder = os.path.join(os.getcwd(), 'bundle')\n"
        "subprocess.run(['ls', '-Z'], env={**os.environ, 'LD_LIBRARY_PATH': folder}, check=True)\n",
    )
    return shop.ask("app.py")


def _starts(shop: Workshop) -> Question:
    (shop.folder / "tool").chmod(0o755)
    shop.write("app.py", "import subprocess\nsubprocess.run(['./tool'], check=True)\n")
    return shop.ask("app.py")


def child_without_loader(shop: Workshop) -> Question:
    shop.write("x.c", "int main(void) { return 0; }\n")
    command = ["gcc", "x.c", "-o", "tool", "-Wl,--dynamic-linker=/lib/ld-none.so.9"]
    subprocess.run(command, cwd=shop.folder, check=True)
    return _starts(shop)


def child_of_other_machine(shop: Workshop) -> Question:
    shop.write("x.c", "int main(void) { return 0; }\n")
    subprocess.run(["gcc", "x.c", "-o", "tool"], cwd=shop.folder, check=True)
    shop.patch("tool", 18, b"\xf3\0")  # e_machine, at the same place in files of 32 and of 64 bits
    return _starts(shop)


def script_of_windows(shop: Workshop) -> Question:
    shop.write("tool", "#!/bin/sh\r\necho hello\r\n")
    return _starts(shop)


def exit_after_failed_load(shop: Workshop) -> Question:
    shop.library("libplugq.so", "int nobody(void); int go(void) { return nobody(); }", (), ["-Wl,-z,now"])
    code = "#include <dlfcn.h>\n#include <stdlib.h>\n__attribute__((constructor)) static void begin(void) {"
    code += 'if (!dlopen("libplugq.so", RTLD_NOW)) _Exit(4); }'
    shop.module("ext", code, (), ["-Wl,-rpath,$ORIGIN"])
    return shop.ask("ext")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("child-without-loader", "a program that it starts has a loader that is not here: no such file",
             child_without_loader, "child-cannot-load", "tool", ("/lib/ld-none.so.9",)),
    Scenario("child-of-other-machine", "a program that it starts is for RISC-V: exec format error",
             child_of_other_machine, "child-cannot-load", "tool", ("RISC-V",)),
    Scenario("script-of-windows", "a script that it starts has CR LF ends: no such file", script_of_windows,
             "child-cannot-load", "tool", ("CR LF",)),
    Scenario("exit-after-failed-load", "an initialiser does not get its plug-in, and exits", exit_after_failed_load,
             "exit-in-initialiser", "ext.", ("libplugq.so", "nobody")),
    Scenario("exit-0-in-library", "exit(0) in the initialiser of a library", exits_with_0_in_a_library,
             "exit-in-initialiser", "libleaf.so.1", ("no dongle found",)),
    Scenario("exit-0-in-init", "_exit(0) in PyInit", exits_with_0_in_init, "exit-in-import", "import ext", ("ext.",)),
    Scenario("exit-0-in-python", "os._exit(0) in a module", leaves_in_python, "exit-in-import", "import pkg",
             ("giving up",)),
    Scenario("exit-0-after-the-end", "os._exit(0) in an exit handler", ends_in_an_exit_handler, "imported"),
    Scenario("thread-leaf", "an import that fails in a thread", leaf_of_a_thread, "missing-image", "libleaf.so.1",
             ("thread Thread-1",)),
    Scenario("thread-error", "a thread that fails for itself", other_failure_of_a_thread, "imported", "",
             ("ZeroDivisionError",)),
    Scenario("pool-leaf", "an import that fails in the worker of a pool", leaf_of_a_pool, "missing-image",
             "libleaf.so.1", ("app.py:3",)),
    Scenario("sanitizer", "a module that wants the runtime of a sanitizer first", sanitized, "sanitizer-not-first",
             "ext."),
    Scenario("child-library-path", "a child with an LD_LIBRARY_PATH of the program's", child_gets_our_library_path,
             "child-inherits-library-path", "", ("bundle", "libselinux.so.1")),
)  # fmt: skip
