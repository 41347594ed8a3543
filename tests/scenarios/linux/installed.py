"""Packages that were installed badly, and fixes that must be right for this machine."""

from __future__ import annotations

from scenarios.linux.missing import CALLS_LEAF, LEAF, ORIGIN
from scenarios.linux.pythons import SUFFIX
from scenarios.linux.workshop import Workshop
from scenarios.scenario import Question, Scenario


def _package(shop: Workshop) -> None:
    shop.write("pkg/__init__.py", "from . import _core\n")
    shop.library("pkg/libleaf.so.1", LEAF)
    shop.module("pkg/_core", CALLS_LEAF, ["pkg/libleaf.so.1"], [ORIGIN], init="leaf()")


def requirement(shop: Workshop) -> Question:
    """The library comes from a package of its own, which is required and was not installed (pip install --no-deps)."""
    _package(shop)
    shop.remove("pkg/libleaf.so.1")
    shop.record("pkg-dist", "1.2", ["pkg/__init__.py", f"pkg/_core{SUFFIX}"])
    metadata = shop.folder / "pkg_dist-1.2.dist-info" / "METADATA"
    metadata.write_text(
        metadata.read_text() + "Requires-Dist: pkg-libleaf (>=3)\nRequires-Dist: pkg-win; sys_platform == 'win32'\n"
        "Requires-Dist: pkg-doc; extra == 'doc'\n"
    )
    return shop.ask("pkg")


def hostile_folder(shop: Workshop) -> Question:
    """The copy that would do lies in a folder whose name a shell would run."""
    inner = Workshop(shop.folder / "$(touch pwn) 'x")
    inner.library("libleaf.so.1", LEAF)
    inner.module("ext", CALLS_LEAF, ["libleaf.so.1"], init="leaf()")
    inner.write("vendor/__init__.py", "")
    inner.move("libleaf.so.1", "vendor/lib/libleaf.so.1")
    return inner.ask("ext")


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("requirement-missing", "what the package requires is not installed", requirement, "missing-image",
             "libleaf.so.1", ("pkg-dist 1.2 requires pkg-libleaf (>=3), which is not installed",
                              "-m pip install 'pkg-libleaf>=3'")),
    Scenario("missing-hostile-folder", "a copy lies in a folder whose name is a command", hostile_folder,
             "missing-image", "libleaf.so.1", ("$(touch pwn) '\"'\"'x/vendor/lib'",)),
)  # fmt: skip
