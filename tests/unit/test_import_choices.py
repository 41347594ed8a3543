"""The variable by which a program chose an import, read in the code of its traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlltracer.host.import_choices import find_import_choice
from dlltracer.model.environment import ImportChoice
from dlltracer.model.failure import Frame, PythonError

READS = "import os\nENGINE = os.environ.get('PKG_ENGINE', 'python').lower()\n"
SETTING = {"PKG_ENGINE": "Native", "HOME": "/root"}


def choice(
    folder: Path, main: str, line: int, environment: dict[str, str], *, module: str = "pkg._fast", setup: str = READS
) -> ImportChoice | None:
    """What is found for a line of the package's __init__.py; `setup` is another file of the package."""
    package = folder / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text(main)
    (package / "setting.py").write_text(setup)
    frames = (Frame("<string>", 1, "<module>"), Frame(str(package / "__init__.py"), line, "<module>"))
    return find_import_choice(PythonError("ImportError", "", frames=frames), module, environment)


@pytest.mark.parametrize(("main", "line", "condition"), [
    ("if ENGINE == 'native':\n    import pkg._fast\n", 2, "ENGINE == 'native'"),
    ("if ENGINE in ('native', 'c') and True:\n    x = 1\n    from . import _fast\n", 3, "ENGINE in ('native', 'c')"),
    ("try:\n    pass\nfinally:\n    if 'native' == e():\n        from pkg import _fast\n", 5, "'native' == e()"),
    ("def f():\n    if ENGINE == 'native':\n        from ._fast import g\nf()\n", 3, "ENGINE == 'native'"),
    ("if ENGINE != 'python':\n    from . import _fast\nif ENGINE == 'native':\n    from ._fast import x\n", 2,
     "ENGINE == 'native'"),
])  # fmt: skip
def test_a_value_that_the_package_compares_with(main: str, line: int, condition: str, tmp_path: Path) -> None:
    found = choice(tmp_path, main, line, SETTING)
    assert found is not None and (found.name, found.value, found.condition) == ("PKG_ENGINE", "Native", condition)
    assert found.reader == f"{tmp_path / 'pkg' / 'setting.py'}, line 2"


@pytest.mark.parametrize("read", ["os.environ.get('PKG_FAST')", "os.getenv('PKG_FAST', '')", "environ['PKG_FAST']"])
def test_of_a_variable_that_is_only_set_no_value_is_shown(read: str, tmp_path: Path) -> None:
    found = choice(tmp_path, f"if {read}:\n    import secretq\n", 2, {"PKG_FAST": "s3cret"}, module="secretq")
    place = f"{tmp_path / 'pkg' / '__init__.py'}, line"
    assert found is not None and (found.name, found.value, found.reader) == ("PKG_FAST", None, f"{place} 1")
    assert found.place == f"{place} 2"


def test_an_import_under_no_condition_was_chosen_by_nothing(tmp_path: Path) -> None:
    main = "import pkg._fast\nif ENGINE == 'native':\n    from . import _fast\n"
    assert choice(tmp_path, main, 1, SETTING) is None


def test_a_module_whose_name_is_the_value(tmp_path: Path) -> None:
    main = "from importlib import import_module\nimport_module(f'pkg.engines.{ENGINE}')\n"
    found = choice(tmp_path, main, 2, SETTING, module="pkg.engines.native")
    assert found is not None and (found.name, found.condition) == ("PKG_ENGINE", "")


@pytest.mark.parametrize(("main", "line"), [
    ("import pkg._fast\n", 1),
    ("if ENGINE != 'native':\n    import pkg._fast\n", 2),
    ("if not ENGINE == 'native':\n    import pkg._fast\n", 2),
    ("if ENGINE == 'native' or True:\n    import pkg._fast\n", 2),
    ("if ENGINE == 'native':\n    pass\nelse:\n    import pkg._fast\n", 4),
    ("if ENGINE == 'native':\n    def f():\n        import pkg._fast\n", 3),
    ("import sys, platform\nif sys.platform == 'native':\n    import pkg._fast\n", 3),
    ("if ENGINE == 'other':\n    import pkg._fast\n", 2),
    ("import os\nif os.getenv('UNSET') or not os.getenv('HOME'):\n    import pkg._fast\n", 3),
    ("import os\nif os.getenv('UNSET'):\n    import pkg._fast\n", 3),
    ("if ENGINE == 'native':\n    import (\n", 2),
    (f"if {'(' * 50}ENGINE == 'native'{')' * 50}:\n    x = {'-' * 90000}1\n", 2),
    (f"if {'a.b + ' * 3000}x == 'native':\n    import pkg._fast\n", 2),
])  # fmt: skip
def test_nothing_is_said_of_other_conditions(main: str, line: int, tmp_path: Path) -> None:
    assert choice(tmp_path, main, line, SETTING, module="pkg._other") is None


@pytest.mark.parametrize(("setup", "environment"), [
    ("import os\nENGINE = os.environ['PKG_ENGINE']\nOTHER = os.environ['PKG_OTHER']\n",
     {"PKG_ENGINE": "native", "PKG_OTHER": "native"}),
    ("ENGINE = 'PKG_ENGINE'\n", SETTING),
    (READS, {"OTHER_ENGINE": "native"}),
    (READS, {"PKG_ENGINE": ""}),
])  # fmt: skip
def test_the_package_has_to_read_one_variable_of_that_value(
    setup: str, environment: dict[str, str], tmp_path: Path
) -> None:
    main = "if ENGINE == 'native':\n    import pkg._fast\n"
    assert choice(tmp_path, main, 2, environment, setup=setup) is None
