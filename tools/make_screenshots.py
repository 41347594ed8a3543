"""Makes the pictures of docs/images: `python tools/make_screenshots.py`. Needs chromium and an index for pip.

All pages are made by the commands, of real packages: pillow with a library taken away; numpy, pandas and scipy as they
are, and with every library of this system opened by a script, of which some do not load.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

BROKEN, WHOLE = "pillow==12.2.0", ("numpy==2.4.6", "pandas==3.1.1", "scipy==1.17.1")
ANALYSIS = "import numpy, numpy.fft, numpy.random, pandas, scipy.linalg, scipy.stats, sqlite3, ssl, asyncio"
EVERYTHING = f"""\
import ctypes, glob
{ANALYSIS}
for path in sorted(glob.glob("/usr/lib/*-linux-gnu/**/*.so*", recursive=True)):
    if "san.so" in path:
        continue  # a sanitizer ends a process that it was not started with
    try:
        ctypes.CDLL(path, ctypes.RTLD_LOCAL)
    except OSError:
        pass
print("done", flush=True)
import os
os._exit(0)
"""
"""Opens what it finds: exit handlers of a thousand libraries would not all end well."""


def dlltracer(folder: Path, *words: str) -> None:
    """Run the command in the folder; that what it looks at fails is no error here."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        [sys.executable, "-m", "dlltracer", *words], cwd=folder, env=environment, capture_output=True, check=False
    )  # fmt: skip


def install(folder: Path, *packages: str) -> None:
    """Install packages into the folder, without what they need."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), *packages], check=True
    )  # fmt: skip


def make_pages(folder: Path) -> None:
    """failure.html, success.html, large.html."""
    app, analysis = folder / "app", folder / "analysis"
    install(app, BROKEN)
    for library in (app / "pillow.libs").glob("libjpeg-*"):
        library.unlink()
    dlltracer(app, "why", "PIL.Image", "--html", str(folder / "failure.html"))
    install(analysis, *WHOLE)
    (analysis / "analysis.py").write_text(ANALYSIS, encoding="utf-8")
    dlltracer(analysis, "run", "-o", str(folder / "success.html"), "analysis.py")
    (analysis / "everything.py").write_text(EVERYTHING, encoding="utf-8")
    dlltracer(analysis, "run", "-o", str(folder / "large.html"), "everything.py")


def take(page: Path, name: str, folder: Path, *, dark: bool = False, width: int = 1200, height: int = 800) -> None:
    """Take a picture of the top of a page; as few colours as it needs make it small."""
    from browser.chromium import Browser

    programs = [shutil.which(program) for program in ("chromium", "chromedriver")]
    if None in programs:
        sys.exit("chromium and chromedriver are needed: Debian has them in chromium and chromium-driver")
    chromium, driver = map(str, programs)
    with Browser(chromium, driver, folder / f"profile-{name}") as browser:
        html = page.read_text(encoding="utf-8")
        for made, shown in ((str(folder), "/home/ada"), (sys.executable, "python")):
            # Paths also stand with a place to break behind each separator.
            html = html.replace(made, shown).replace(made.replace("/", "/<wbr>"), shown.replace("/", "/<wbr>"))
        browser.open(html, folder / "shown.html", width=width, height=height, dark=dark)
        browser.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        taken = browser.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "optimizeForSpeed": False})
    (IMAGES / name).write_bytes(base64.b64decode(taken["data"]))


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pages(folder)
        take(folder / "failure.html", "report-failure.png", folder, height=900)
        take(folder / "failure.html", "report-failure-phone.png", folder, width=390, height=800)
        take(folder / "success.html", "report-success-dark.png", folder, dark=True)
        take(folder / "large.html", "report-large.png", folder, height=900)


if __name__ == "__main__":
    main()
