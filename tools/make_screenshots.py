"""Makes the pictures of docs/images: `python tools/make_screenshots.py`. Needs chromium and an index for pip.

A page is made by the commands, of a real package (pillow), whole and with a library taken away; the one with a thousand
images of a trace that is made up. Then chromium takes a picture of each.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

CHROMIUM = [
    "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
PACKAGE = "pillow==12.2.0"


def dlltracer(folder: Path, *words: str) -> None:
    """Run the command in the folder; that what it looks at fails is no error here."""
    subprocess.run([sys.executable, "-m", "dlltracer", *words], cwd=folder, capture_output=True, check=False)


def make_pages(folder: Path) -> None:
    """success.html, failure.html, many.html."""
    from builders.report_traces import many_images
    from dlltracer.report.html import render_html

    app = folder / "app"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(app), PACKAGE], check=True
    )  # fmt: skip
    dlltracer(app, "run", "-o", str(folder / "success.html"), "-c", "import PIL._imaging, PIL._imagingft, ssl, sqlite3")
    for library in (app / "pillow.libs").glob("libjpeg-*"):
        library.unlink()
    dlltracer(app, "why", "PIL.Image", "--html", str(folder / "failure.html"))
    (folder / "many.html").write_text(render_html(many_images()), encoding="utf-8")


def take(page: Path, name: str, *, dark: bool = False, height: int = 1500) -> None:
    """A picture of a page."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *CHROMIUM, f"--user-data-dir={profile}", f"--window-size=1300,{height}",
                f"--screenshot={IMAGES / name}", *(["--force-dark-mode"] if dark else []), page.as_uri(),
            ],
            check=True, capture_output=True,
        )  # fmt: skip


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pages(folder)
        take(folder / "failure.html", "report-failure.png", height=1700)
        take(folder / "success.html", "report-success-dark.png", dark=True, height=1500)
        take(folder / "many.html", "report-1000-images.png", height=1300)


if __name__ == "__main__":
    main()
