"""The shell blocks of README.md, in fresh roots of Debian 12 and 13: a checkout, Python, and what the page asks for.

On demand, since it takes minutes and an index: DLLTRACER_README=1 runs the first block as it is, and the second one
with the part of the tests that the page names. DLLTRACER_README=all runs the second one as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.blocks import parse_blocks
from oracle.roots import Root, find_root

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
ASKED = os.environ.get("DLLTRACER_README", "")
THIS = "tests/release/test_readme.py"
PART = "tests/unit/test_question.py"
"""What the page names for a part of the tests."""

pytestmark = pytest.mark.slow
on_demand = pytest.mark.skipif(not ASKED, reason="set DLLTRACER_README=1: it installs from an index, in fresh roots")


def blocks() -> list[str]:
    """The blocks of the page that this test runs."""
    return [block.code for block in parse_blocks(README) if block.other_test == THIS]


@pytest.fixture(params=["fresh-bookworm", "fresh-trixie"])
def root(request: pytest.FixtureRequest) -> Root:
    found = find_root(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder that is /mnt in the root: the files of this checkout, a home, and the certificates of this machine."""
    (tmp_path / "home").mkdir()
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / "dlltracer" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "dlltracer" / name)
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if certificates:
        shutil.copy(certificates, tmp_path / "certificates.pem")
    return tmp_path


def run(root: Root, shared: Path, block: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a block as somebody does who copies it into a shell in the folder of the checkout."""
    environment = {"HOME": "/mnt/home", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if (shared / "certificates.pem").exists():
        environment |= {"PIP_CERT": "/mnt/certificates.pem", "SSL_CERT_FILE": "/mnt/certificates.pem"}
    environment |= {name: os.environ[name] for name in ("PIP_INDEX_URL", "https_proxy") if name in os.environ}
    return root.execute(shared, ["bash", "-ec", f"cd /mnt/dlltracer\n{block}"], environment, timeout)


def test_the_page_has_two_blocks_to_copy() -> None:
    install, test = blocks()
    assert install.startswith("python3 -m venv") and "pip install .\n" in install and "dlltracer why" in install
    assert test.startswith("python3 -m venv") and "-n 2" in test and "python -m pytest\n" in test
    assert f"`python -m pytest {PART}`" in README.read_text("utf-8")


@on_demand
def test_what_a_reader_copies_works(root: Root, shared: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("roots of Debian")
    install, test = blocks()
    first = run(root, shared, install, 900)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "import ssl works: nothing to explain\n" in first.stdout
    assert re.search(r"import ssl > import _ssl\n.*_ssl\.", first.stderr, re.S) and ", 0 failed" in first.stderr
    print(first.stdout[-400:], first.stderr[-1500:], sep="\n")
    if ASKED != "all":
        test = test.replace("python -m pytest\n", f"python -m pytest {PART}\n")
    second = run(root, shared, test, 3600)
    print(second.stdout[-1500:])
    assert second.returncode == 0, second.stdout[-5000:] + second.stderr[-2000:]
    assert re.search(r"\d+ passed", second.stdout)
