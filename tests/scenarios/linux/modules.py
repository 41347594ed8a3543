"""Modules that the import system does not find, though there is something of them."""

from __future__ import annotations

import os
import sys
import zipfile

from scenarios.linux.workshop import SUFFIX, Workshop
from scenarios.scenario import CannotBuild, Question, Scenario

VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _home(shop: Workshop, *without: str) -> Question:
    """A Python home with all of the standard library but some extension modules."""
    library = os.path.dirname(os.__file__)
    home = shop.folder / "home/lib" / VERSION
    (home / "lib-dynload").mkdir(parents=True)
    for name in os.listdir(library):
        if name not in ("lib-dynload", "__pycache__"):
            (home / name).symlink_to(os.path.join(library, name))
    dynload = os.path.join(library, "lib-dynload")
    if not os.path.isdir(dynload):
        raise CannotBuild(f"there is no {dynload}")
    for name in os.listdir(dynload):
        if name.partition(".")[0] not in without:
            (home / "lib-dynload" / name).symlink_to(os.path.join(dynload, name))
    return Question((), {"PYTHONHOME": str(home.parent.parent)}, shop.folder)


def no_lzma(shop: Workshop) -> Question:
    home = _home(shop, "_lzma")
    return Question(("lzma",), home.environment, shop.folder)


def no_readline(shop: Workshop) -> Question:
    home = _home(shop, "readline")
    return Question(("readline",), home.environment, shop.folder)


def package_in_zip(shop: Workshop) -> Question:
    module = shop.module("_speed")
    with zipfile.ZipFile(shop.folder / "bundle.zip", "w") as bundle:
        bundle.writestr("pkgz/__init__.py", "from . import _speed\n")
        bundle.write(module, f"pkgz/_speed{SUFFIX}")
    module.unlink()
    return shop.ask("pkgz", environment={"PYTHONPATH": str(shop.folder / "bundle.zip")})


def safe_path(shop: Workshop) -> Question:
    if sys.version_info < (3, 11):
        raise CannotBuild("PYTHONSAFEPATH came with Python 3.11")
    shop.write("helperq.py", "x = 1\n")
    return shop.ask("helperq", environment={"PYTHONSAFEPATH": "1"})


def source_folder(shop: Workshop) -> Question:
    shop.write("src/projectq/__init__.py", "")
    return shop.ask("projectq")


def other_environment(shop: Workshop) -> Question:
    shop.write(f"venv/lib/{VERSION}/site-packages/packageq/__init__.py", "")
    return shop.ask("packageq")


def other_case(shop: Workshop) -> Question:
    shop.write("packageQ/__init__.py", "")
    return shop.ask("packageq")


def near_name(shop: Workshop) -> Question:
    shop.write("measurements.py", "x = 1\n")
    return shop.ask("measurments")


def one_file(shop: Workshop) -> Question:
    shop.write("serialq.py", "x = 1\n")
    return shop.ask("serialq.tools")


def import_name(shop: Workshop) -> Question:
    return shop.ask("win32clipboard")


def unknown_name(shop: Workshop) -> Question:
    return shop.ask("zqxw_nothing")


def name_of_python(shop: Workshop) -> Question:
    shop.write("secrets.py", "print('my own')\n")
    shop.write("app.py", "import secrets\nprint(secrets.token_hex(4))\n")
    return shop.ask("app.py")


def plain_folder(shop: Workshop) -> Question:
    shop.write("arraysq/notes.txt", "to do\n")
    shop.write("app.py", "import arraysq\narraysq.zeros(3)\n")
    return shop.ask("app.py")


def replaced_python(shop: Workshop) -> Question:
    shop.write("venv/pyvenv.cfg", f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    shop.write("venv/lib/python3.1/site-packages/packageq/__init__.py", "")
    (shop.folder / "venv/bin").mkdir()
    (shop.folder / "venv/bin/python").symlink_to(os.path.realpath(sys.executable))
    return shop.ask("--python", str(shop.folder / "venv/bin/python"), "packageq")


def chosen_backend(shop: Workshop) -> Question:
    code = "from .choice import backend\nif backend != 'python':\n    from .fastq import run\n"
    shop.write("enginesq/__init__.py", code)
    shop.write(
        "enginesq/choice.py", "import os\nbackend = os.environ.get('ENGINESQ_BACKEND', 'python')\n"
        "if backend == 'native':\n    try:\n        from .fastq import run\n    except ImportError:\n        pass\n",
    )  # fmt: skip
    return shop.ask("enginesq", environment={"ENGINESQ_BACKEND": "native"})


SCENARIOS: tuple[Scenario[Workshop], ...] = (
    Scenario("chosen-by-variable", "a variable asks for an implementation that a package does not have", chosen_backend,
             "chosen-by-variable", "enginesq.fastq", ("env -u ENGINESQ_BACKEND", "tried")),
    Scenario("name-of-python", "a file of the program has the name of a module of Python", name_of_python,
             "package-shadowed", "secrets.py", ("secrets.py another name",)),
    Scenario("plain-folder", "a folder without __init__.py has the name of a package", plain_folder,
             "package-shadowed", "arraysq", ("without __init__.py",)),
    Scenario("replaced-python", "the environment was made for another version of Python", replaced_python,
             "module-not-on-path", "python3.1/site-packages/packageq", ("make the environment again",)),
    Scenario("stdlib-without-lzma", "a Python that was built without xz", no_lzma, "stdlib-not-built", "_lzma",
             ("pip cannot bring it",)),
    Scenario("stdlib-without-readline", "a Python that was built without readline", no_readline, "stdlib-not-built",
             "readline"),
    Scenario("module-in-zip", "an extension module of a package in a zip archive", package_in_zip, "module-in-archive",
             "bundle.zip", ("unpack",)),
    Scenario("module-safe-path", "a module of the current folder with PYTHONSAFEPATH", safe_path, "module-not-on-path",
             "helperq.py", ("PYTHONSAFEPATH",)),
    Scenario("module-in-src", "a project that is not installed", source_folder, "module-not-on-path", "src/projectq"),
    Scenario("module-of-other-environment", "a package of an environment that is not the one of this Python",
             other_environment, "module-not-on-path", "packageq", ("bin/python",)),
    Scenario("module-other-case", "a package of the same name in other case", other_case, "no-such-module", "packageq",
             ("packageQ",)),
    Scenario("module-near-name", "a module whose name is misspelt", near_name, "no-such-module", "measurments",
             ("measurements",)),
    Scenario("module-one-file", "a single file where a package is expected", one_file, "no-such-module",
             "serialq.tools", ("serialq.py",)),
    Scenario("module-import-name", "a module whose package has another name", import_name, "no-such-module",
             "win32clipboard", ("pywin32",)),
    Scenario("module-unknown", "a module that nobody knows", unknown_name, "no-such-module", "zqxw_nothing"),
)  # fmt: skip
