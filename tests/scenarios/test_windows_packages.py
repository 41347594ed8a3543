"""Real packages for Windows under Wine, with Microsoft's C runtime: whole, with a DLL gone, an older copy first.

On demand: DLLTRACER_LAB=packages (see tests/windows/lab.py). For Wine a missing symbol is no error of the load, as
it is for Windows (127): the program dies when it calls it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.scenario import IMPORTED, Question, Scenario, judge
from scenarios.windows.desk import Desk
from scenarios.windows.workshop import VERSION, Workshop
from windows.lab import Lab, find_microsoft_lab

pytestmark = pytest.mark.slow

@pytest.fixture(scope="module")
def package_lab() -> Lab:
    found = find_microsoft_lab()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="module")
def desk(package_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(package_lab, VERSION, tmp_path_factory.mktemp("desk"))
    yield desk
    desk.close()


def install(shop: Workshop) -> Path:
    """Fill the site folder with all packages. Hard links: cv2 looks for itself by its real path."""
    shutil.copytree(shop.lab.packages, shop.site, copy_function=_link, dirs_exist_ok=True)
    return shop.site


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # the cache is on another file system
        shutil.copyfile(source, target)


def remove(site: Path, pattern: str) -> None:
    (found,) = site.glob(pattern)
    found.unlink()


def whole(module: str):
    def build(shop: Workshop) -> Question:
        install(shop)
        return shop.question(module)

    return build


def without(package: str, pattern: str, module: str = ""):
    def build(shop: Workshop) -> Question:
        remove(install(shop), pattern)
        return shop.question(module or package)

    return build


def cv2_without_python3(shop: Workshop) -> Question:
    install(shop)
    (shop.python() / "python3.dll").unlink()
    return shop.question("cv2")


def old_runtime_beside_python(shop: Workshop) -> Question:
    """As an installer of an old program leaves it: beside python.exe comes before System32."""
    install(shop)
    shop.library(shop.python() / "msvcp140.dll", exports=["?_Xbad_alloc@std@@YAXXZ"])
    return shop.question("onnxruntime")


def older_copy_loaded_before(package: str, name: str):
    """Another package has loaded its own, older copy of a DLL: a name that is loaded is not searched for."""

    def build(shop: Workshop) -> Question:
        install(shop)
        shop.library(f"other/{name}", exports=["other_function"])
        shop.write("other/__init__.py", f"import ctypes, os\nctypes.CDLL(os.path.join(__path__[0], {name!r}))\n")
        shop.write("both.py", f"import other\nimport {package}\n")
        return shop.question("both")

    return build


HEALTHY = ("numpy", "pandas", "scipy.linalg", "pyarrow", "h5py", "cv2", "onnxruntime")
SCENARIOS = [
    *(Scenario(f"{module}-whole", "nothing is wrong", whole(module), IMPORTED) for module in HEALTHY),
    Scenario(
        "numpy-without-openblas", "the DLL of numpy.libs is gone",
        without("numpy", "numpy.libs/libscipy_openblas64_-*.dll"), "package-file-missing", "libscipy_openblas64_-",
    ),
    Scenario(
        "pandas-without-runtime", "numpy has loaded a DLL of the same name before",
        without("pandas", "pandas.libs/msvcp140-*.dll"), IMPORTED,
    ),
    Scenario(
        "scipy-without-openblas", "the DLL of scipy.libs is gone",
        without("scipy", "scipy.libs/libscipy_openblas-*.dll", "scipy.linalg"),
        "package-file-missing", "libscipy_openblas-",
    ),
    Scenario(
        "pyarrow-without-arrow", "a DLL in the package is gone", without("pyarrow", "pyarrow/arrow.dll"),
        "package-file-missing", "arrow.dll",
    ),
    Scenario(
        "h5py-without-zlib", "a DLL that a DLL needs is gone", without("h5py", "h5py/z.dll"),
        "package-file-missing", "z.dll",
    ),
    Scenario("cv2-without-python3", "python3.dll is gone", cv2_without_python3, "incomplete-python", "python3.dll"),
    Scenario(
        "onnxruntime-old-runtime", "an old msvcp140.dll lies beside python.exe", old_runtime_beside_python,
        "wrong-copy", "MSVCP140.dll",  # as the module that asks for it spells it
    ),
    Scenario(
        # Wine ends the program only when h5py calls the function. On Windows its import would fail (127).
        "h5py-older-hdf5", "another package has loaded an older hdf5.dll", older_copy_loaded_before("h5py", "hdf5.dll"),
        "crash",
    ),
    Scenario(
        "pyarrow-older-arrow", "another package has loaded an older arrow.dll",
        older_copy_loaded_before("pyarrow", "arrow.dll"), "first-wins", "arrow.dll",
    ),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
def test_scenario(scenario: Scenario[Workshop], package_lab: Lab, desk: Desk, tmp_path: Path) -> None:
    shop = Workshop(package_lab, desk, tmp_path)
    question = scenario.build(shop)
    judgement = judge(scenario, lambda: shop.ask(question))
    if judgement.is_wrong_and_firm:
        pytest.fail(f"a WRONG CAUSE was stated as {judgement.confidence}: {judgement.problem}")
    assert not judgement.problem, judgement
