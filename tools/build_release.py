"""Makes what a release consists of: `python tools/build_release.py FOLDER`.

The sdist; the wheel, built from the sdist in an environment of its own; `twine check` of both; a bill of materials
(CycloneDX) of the wheel installed alone; dlltracer.pyz, all of it in one file. Needs `build`, `twine` and
`cyclonedx-bom` (.ci/tools.txt), and an index.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from build_pyz import build_pyz

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run it; `subprocess.CalledProcessError` if it fails."""
    subprocess.run([str(word) for word in command], check=True, cwd=cwd, stdin=subprocess.DEVNULL)


def build(folder: Path) -> tuple[Path, Path]:
    """Build into `folder`; the sdist and the wheel."""
    run(sys.executable, "-m", "build", "--sdist", "--wheel", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    return sdist, wheel


def write_bill_of_materials(wheel: Path) -> Path:
    """Install the wheel alone, and list what came with it; the file, beside the wheel."""
    result = wheel.with_name(f"{'-'.join(wheel.name.split('-')[:2])}.cdx.json")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        scripts = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin")
        run(scripts / "python", "-m", "pip", "install", "-q", wheel)
        # The tools that every environment starts with are no part of the product.
        run(scripts / "python", "-m", "pip", "uninstall", "-q", "-y", "setuptools", "pip")
        run(
            sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", ROOT / "pyproject.toml",
            "--output-reproducible", "--validate", "-o", result, scripts / "python",
        )  # fmt: skip
    return result


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.exit(f"{folder} is not empty")
    _, wheel = build(folder)
    write_bill_of_materials(wheel)
    build_pyz(wheel, folder)


if __name__ == "__main__":
    main()
