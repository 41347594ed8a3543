"""The tiny images of the self-test: what the package carries is what tools/make_selftest_images.py makes."""

from __future__ import annotations

import base64
import importlib.util
import shutil
import subprocess
import zlib
from pathlib import Path
from types import ModuleType

import pytest

from dlltracer.binary.elf import parse_elf
from dlltracer.binary.pe import parse_pe
from dlltracer.selftest.step import MACHINES, read_image, read_images

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_selftest_images.py"
WINDOWS = ("x64", "x86", "arm64")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_selftest_images", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_up_to_date() -> None:
    made = load().make_images()
    carried = {
        machine: {name: zlib.decompress(base64.b64decode(data)) for name, data in images.items()}
        for machine, images in read_images().items()
    }
    assert carried == made, "run tools/make_selftest_images.py"
    assert set(made) == set(MACHINES)


def test_every_windows_machine_has_the_same_ones_and_every_linux_machine_too() -> None:
    names = {machine: set(images) for machine, images in read_images().items()}
    assert len({frozenset(names[machine]) for machine in WINDOWS}) == 1
    assert len({frozenset(found) for machine, found in names.items() if machine not in WINDOWS}) == 1


@pytest.mark.parametrize("machine", MACHINES)
def test_a_letter_gives_names_that_nobody_loaded_before(machine: str) -> None:
    first, second = read_image("needs-missing", machine), read_image("needs-missing", machine, "z")
    assert len(first) == len(second)
    if machine in WINDOWS:
        assert [one.library for one in parse_pe(second).imports] == ["dt_gonez.dll"]
    else:
        assert parse_elf(second).needed == ("libdt_gonez.so",)


def test_the_file_is_small() -> None:
    file = Path(__file__).resolve().parents[2] / "src" / "dlltracer" / "selftest" / "images.json"
    assert file.stat().st_size < 30_000


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_the_code_is_what_its_comments_say(tmp_path: Path) -> None:
    """The machine code of x64 and x86, as binutils reads it (it knows no ARM64 here)."""
    for machine, architecture in (("x64", "i386:x86-64"), ("x86", "i386")):
        for name, words in (("good", ["mov    $0x2a,%eax", "ret"]), ("refuses", ["xor    %eax,%eax", "ret"])):
            image = parse_pe(read_image(name, machine))
            assert image.is_dll
            code = bytes.fromhex((load().RETURN_42 if name == "good" else load().RETURN_FALSE)[image.machine])
            assert code in read_image(name, machine)
            file = tmp_path / "code"
            file.write_bytes(code)
            command = ["objdump", "-D", "-b", "binary", "-m", architecture, str(file)]
            shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert all(word in shown for word in words), shown
