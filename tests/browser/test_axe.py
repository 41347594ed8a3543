"""axe-core finds nothing on the pages, at three widths, light and dark, folded and open.

On demand: set DLLTRACER_AXE to axe.min.js of axe-core 4.14 (`npm install axe-core@4.14`). CI does not fetch it, since
nothing else there needs npm.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from browser.chromium import Browser
from builders.large_run import large_run
from builders.report_traces import many_images, small_failure, windows_failure
from dlltracer.report.html import render_html, render_html_tree
from unit.test_html_page import tree_named

AXE = os.environ.get("DLLTRACER_AXE")
PAGES = {
    "failure": lambda: render_html(small_failure()),
    "large": lambda: render_html(large_run()),
    "works": lambda: render_html(many_images(300)),
    "processes": lambda: render_html(many_images(60, processes=3)),
    "windows": lambda: render_html(windows_failure()),
    "deps": lambda: render_html_tree(tree_named("libq.so")),
}
RUN = """\
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(
  (found) => done(found.violations.map((one) => `${one.id}: ${one.nodes[0].html}`)), (error) => done([String(error)]));
"""


@pytest.mark.skipif(AXE is None, reason="on demand: DLLTRACER_AXE names axe.min.js of axe-core 4.14")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 800, 390])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(browser: Browser, pages: Path, name: str, width: int, dark: bool) -> None:
    browser.open(PAGES[name](), pages / "axe.html", width=width, dark=dark)
    script = Path(str(AXE)).read_text(encoding="utf-8")
    browser.run(f"{script}; window.axe = axe;")
    found: Any = browser.driver.execute_async_script(RUN)
    browser.run("document.querySelector('.row:not(.grp)')?.click()")
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found += browser.driver.execute_async_script(RUN)
    assert found == []
