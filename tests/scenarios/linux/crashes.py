"""Processes that die in an import."""

from __future__ import annotations

from scenarios.linux.workshop import Workshop
from scenarios.scenario import Question, Scenario

ORIGIN = "-Wl,-rpath,$ORIGIN"


def in_init(shop: Workshop) -> Question:
    shop.module("ext", "static void boom(int *where) { *where = 1; }", init="boom((int *) 8)")
    shop.write("app.py", "import json\nimport ext\n")
    return shop.ask("app.py")


def in_constructor(shop: Workshop) -> Question:
    shop.module("ext", "__attribute__((constructor)) static void boom(void) { *(volatile int *) 8 = 1; }")
    return shop.ask("ext")


def in_library_constructor(shop: Workshop) -> Question:
    code = (
        "int leaf(void) { return 1; } __attribute__((constructor)) static void boom(void) { *(volatile int *) 8 = 1; }"
    )
    shop.library("libleaf.so.1", code)
    shop.module("ext", "int leaf(void);", ["libleaf.so.1"], [ORIGIN], init="leaf()")
    return shop.ask("ext")


def aborts(shop: Workshop) -> Question:
    shop.module(
        "ext", "#include <stdlib.h>\n#include <stdio.h>\n",
        init='fputs("the license of ext has expired\\n", stderr); abort()',
    )  # fmt: skip
    return shop.ask("ext")


def illegal(shop: Workshop) -> Question:
    shop.module("ext", init='__asm__ volatile ("ud2")')
    return shop.ask("ext")


def large_frame_in_thread(shop: Workshop) -> Question:
    """One function that wants more than the thread has: nothing of the guard page is touched first."""
    shop.module(
        "ext", "static int deep(int n) { volatile char room[2000000]; room[n] = 1; return room[n]; }",
        init="deep(1)", options=["-fno-stack-protector"],
    )  # fmt: skip
    shop.write("app.py", "import threading\nthreading.stack_size(512 << 10)\ndef f():\n    import ext\n"
                         "thread = threading.Thread(target=f)\nthread.start()\nthread.join()\n")  # fmt: skip
    return shop.ask("app.py")


def endless_recursion(shop: Workshop) -> Question:
    shop.module("ext", "static int deep(int n) { volatile int more = n; return more ? deep(n + 1) + more : 0; }",
                init="deep(1)")  # fmt: skip
    return shop.ask("ext")


def in_libc(shop: Workshop) -> Question:
    shop.module("ext", "#include <string.h>\nvolatile size_t n; char *volatile p;", init="n = strlen(p)")
    return shop.ask("ext")


def throws(shop: Workshop) -> Question:
    shop.module("ext", "#include <stdexcept>", init='throw std::runtime_error("no GPU")', cplusplus=True)
    return shop.ask("ext")


def later(shop: Workshop) -> Question:
    shop.write("app.py", "import json, ctypes\nctypes.string_at(0)\n")
    return shop.ask("app.py")


def terminated(shop: Workshop) -> Question:
    return shop.ask("-c", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)")


def killed(shop: Workshop) -> Question:
    return shop.ask("-c", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")


def leaves(shop: Workshop) -> Question:
    return shop.ask("-c", "import os\nos._exit(3)")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("crash-init", "SIGSEGV in PyInit", in_init, "crash-in-import", "ext.",
             ("SIGSEGV", "app.py:2: import ext", "offset")),
    Scenario("crash-constructor", "SIGSEGV in a static initialiser", in_constructor, "crash-in-initialiser", "ext.",
             ("SIGSEGV",)),
    Scenario("crash-library", "SIGSEGV in the initialiser of a library", in_library_constructor, "crash-in-initialiser",
             "libleaf.so.1", ("SIGSEGV", "import ext")),
    Scenario("abort", "abort() in PyInit", aborts, "abort", "ext.", ("the license of ext has expired",)),
    Scenario("illegal-instruction", "an instruction that the processor does not know", illegal, "illegal-instruction",
             "ext."),
    Scenario("stack-of-thread", "a function wants more stack than its thread has", large_frame_in_thread,
             "crash-in-import", "ext.", ("SIGSEGV, stack overflow", "threading.stack_size")),
    Scenario("stack-recursion", "a recursion without an end, on the stack of the program", endless_recursion,
             "crash-in-import", "ext.", ("SIGSEGV, stack overflow", "ulimit -s")),
    Scenario("crash-libc", "SIGSEGV in the C library, called by the module", in_libc, "crash-in-import", "ext."),
    Scenario("exception-escapes", "a C++ exception that nobody catches", throws, "abort", "ext.", ("no GPU",)),
    Scenario("crash-later", "SIGSEGV long after the imports", later, "crash", "libc.so.6", ("app.py", "line 2")),
    Scenario("terminated", "SIGTERM", terminated, "undecided"),
    Scenario("killed", "SIGKILL from outside", killed, "undecided"),
    Scenario("left", "the program leaves by os._exit", leaves, "undecided"),
)  # fmt: skip
