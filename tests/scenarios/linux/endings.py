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


SCENARIOS: tuple[Scenario[Workshop], ...] = (
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
