"""Libraries that are there, and that a search misses because of its rules."""

from __future__ import annotations

from scenarios.linux.workshop import Workshop
from scenarios.scenario import Question, Scenario

LEAF = "int leaf(void) { return 1; }\n"
CALLS_LEAF = "int leaf(void);\n"
OLD = "int base(void) { return 1; }\n"
NEW = "int base(void) { return 1; }\nint extra(void) { return 2; }\n"
CALLS_EXTRA = "int extra(void);\n"


def module_without_library(shop: Workshop, to: str, *options: str, soname: str = "libleaf.so.1") -> None:
    shop.library(soname, LEAF)
    shop.module("ext", CALLS_LEAF, [soname], list(options), init="leaf()")
    shop.move(soname, to)


def set_late_by_a_package(shop: Workshop) -> Question:
    """A package extends the variable for its own library, as wrappers of CUDA and of R do."""
    module_without_library(shop, "bundle/native/libleaf.so.1")
    shop.write(
        "bundle/__init__.py",
        "import os\nhere = os.path.join(os.path.dirname(__file__), 'native')\n"
        "os.environ['LD_LIBRARY_PATH'] = here + ':' + os.environ.get('LD_LIBRARY_PATH', '')\nimport ext\n",
    )
    return shop.ask("bundle", environment={"LD_LIBRARY_PATH": "/nowhere/else"})


def set_late_for_ctypes(shop: Workshop) -> Question:
    shop.library("deep/libleaf.so.1", LEAF)
    code = f"import os, ctypes\nos.environ['LD_LIBRARY_PATH'] = {str(shop.folder / 'deep')!r}\n"
    return shop.ask("-c", f"{code}ctypes.CDLL('libleaf.so.1')")


def needed_by_relative_path(shop: Workshop) -> Question:
    shop.library("out/x/libplain.so", LEAF, options=["-Wl,-soname,out/x/libplain.so"])
    shop.library("libholder.so", "int leaf(void); int hold(void) { return leaf(); }\n", ["out/x/libplain.so"])
    shop.module("ext", "int hold(void);\n", ["libholder.so"], ["-Wl,-rpath,$ORIGIN"], init="hold()")
    shop.write("work/empty", "")
    shop.write("app.py", "import os\nos.chdir(os.path.join(os.path.dirname(__file__), 'work'))\nimport ext\n")
    return shop.ask("app.py")


def origin_without_dollar(shop: Workshop) -> Question:
    module_without_library(shop, "vendor/lib/libleaf.so.1", "-Wl,-rpath,ORIGIN/vendor/lib")
    return shop.ask("ext")


def origin_eaten_in_rpath(shop: Workshop) -> Question:
    module_without_library(shop, "libs/libleaf.so.1", "-Wl,--disable-new-dtags,-rpath,/libs:/opt/none")
    return shop.ask("ext")


def linked_module(shop: Workshop) -> Question:
    shop.library("libleaf.so.1", LEAF)
    module = shop.module("ext", CALLS_LEAF, ["libleaf.so.1"], ["-Wl,-rpath,$ORIGIN/../store/libs"], init="leaf()")
    shop.move("libleaf.so.1", "a/store/libs/libleaf.so.1")
    target = shop.move(module.name, f"a/pkg/{module.name}")
    shop.write("b/site/empty", "")
    (shop.folder / "b/site" / module.name).symlink_to(target)
    shop.write(
        "app.py", "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'b/site'))\nimport ext\n"
    )
    return shop.ask("app.py")


def renamed_t64(shop: Workshop) -> Question:
    shop.library("libclock.so.3", LEAF)
    shop.module("ext", CALLS_LEAF, ["libclock.so.3"], ["-Wl,-rpath,$ORIGIN/sys"], init="leaf()")
    shop.remove("libclock.so.3")
    shop.library("sys/libclock.so.3t64", LEAF)
    return shop.ask("ext")


def link_lost(shop: Workshop) -> Question:
    module_without_library(shop, "lib/libleaf.so.1.4.2", "-Wl,-rpath,$ORIGIN/lib")
    return shop.ask("ext")


def other_case(shop: Workshop) -> Question:
    module_without_library(shop, "lib/libLeaf.so.1", "-Wl,-rpath,$ORIGIN/lib")
    return shop.ask("ext")


def link_as_text(shop: Workshop) -> Question:
    module_without_library(shop, "lib/libleaf.so.1.4.2", "-Wl,-rpath,$ORIGIN/lib")
    shop.write("lib/libleaf.so.1", "libleaf.so.1.4.2")
    return shop.ask("ext")


def preloaded_in_a_list(shop: Workshop) -> Question:
    shop.library("libshared.so.1", NEW)
    shop.module("ext", CALLS_EXTRA, ["libshared.so.1"], ["-Wl,-rpath,$ORIGIN/new"], init="extra()")
    shop.move("libshared.so.1", "new/libshared.so.1")
    first = shop.library("libother.so", LEAF)
    old = shop.library("old/libshared.so.1", OLD)
    return shop.ask("ext", environment={"LD_PRELOAD": f"{first} {old}"})


def hidden_in_a_ctypes_library(shop: Workshop) -> Question:
    shop.library("libcore.so", "int core_fn(void) { return 1; }\n")
    shop.module("plugin", "int core_fn(void);\n", init="core_fn()")
    shop.write("app.py", f"import ctypes\nctypes.CDLL({str(shop.folder / 'libcore.so')!r})\nimport plugin\n")
    return shop.ask("app.py")


def path_is_file(shop: Workshop) -> Question:
    shop.library("sdk/libleaf.so.1", LEAF)
    shop.module("ext", "int leaf(void);", ["sdk/libleaf.so.1"], init="leaf()")
    return shop.ask("ext", environment={"LD_LIBRARY_PATH": str(shop.folder / "sdk/libleaf.so.1")})


def path_with_tilde(shop: Workshop) -> Question:
    path_is_file(shop)
    return shop.ask("ext", environment={"LD_LIBRARY_PATH": "~/sdk"})


def number_only(shop: Workshop) -> Question:
    shop.library("sdk/libleaf.so.1", LEAF)
    shop.write("app.py", "import ctypes\nctypes.CDLL('libleaf.so')\n")
    return shop.ask("app.py", environment={"LD_LIBRARY_PATH": str(shop.folder / "sdk")})


SCENARIOS = (
    Scenario("path-is-file", "LD_LIBRARY_PATH names the library, not its folder", path_is_file, "missing-image",
             "libleaf.so.1", ("has to name its folder",)),
    Scenario("path-with-tilde", "LD_LIBRARY_PATH begins with ~", path_with_tilde, "missing-image", "libleaf.so.1",
             ("what ~ is",)),
    Scenario("number-only", "the library is there with its number, and not without", number_only, "link-missing",
             "libleaf.so", ("libleaf.so.1",)),
    Scenario(
        "late-library-path-package", "a package sets LD_LIBRARY_PATH while it runs", set_late_by_a_package,
        "library-path-set-late", "libleaf.so.1", ("before",),
    ),
    Scenario(
        "late-library-path-ctypes", "LD_LIBRARY_PATH set before CDLL", set_late_for_ctypes,
        "library-path-set-late", "libleaf.so.1", ("before",),
    ),
    Scenario(
        "relative-need-below", "a library of a library is needed by a relative path", needed_by_relative_path,
        "relative-need", "out/x/libplain.so", ("current folder",),
    ),
    Scenario(
        "origin-without-dollar", "ORIGIN/lib for $ORIGIN/lib", origin_without_dollar, "origin-lost", "libleaf.so.1",
        ("$ORIGIN/vendor/lib",),
    ),
    Scenario(
        "origin-eaten-rpath", "an RPATH of two elements lost its $ORIGIN", origin_eaten_in_rpath, "origin-lost",
        "libleaf.so.1", ("$ORIGIN/libs",),
    ),
    Scenario(
        "linked-module", "a module is a link, and $ORIGIN/.. leads elsewhere", linked_module, "origin-of-a-link",
        "libleaf.so.1", ("symbolic link",),
    ),
    Scenario("renamed-t64", "a library has its new name", renamed_t64, "renamed-library", "libclock.so.3", ("t64",)),
    Scenario("other-case", "the name of the file differs in case only", other_case, "missing-image", "libleaf.so.1",
             ("lib/libLeaf.so.1, and the loader tells upper from lower case",)),
    Scenario("link-lost", "the link from the soname is gone", link_lost, "link-missing", "libleaf.so.1", ("ln -s",)),
    Scenario(
        "link-as-text", "git wrote the link as a text", link_as_text, "not-an-image", "libleaf.so.1",
        ("symbolic link", "libleaf.so.1.4.2"),
    ),
    Scenario(
        "preloaded-in-a-list", "LD_PRELOAD has two, one an old copy", preloaded_in_a_list, "first-wins",
        "libshared.so.1", ("LD_PRELOAD",),
    ),
    Scenario(
        "hidden-in-a-ctypes-library", "ctypes loaded the provider with RTLD_LOCAL", hidden_in_a_ctypes_library,
        "symbol-in-local-scope", "core_fn", ("RTLD_GLOBAL", "libcore.so"),
    ),
)  # fmt: skip
