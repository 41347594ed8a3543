"""What the HTML report costs a browser: until its script is done, until it is painted, and what it makes of elements.

    python benchmarks/bench_page.py [--loads N] [--json FILE]

Needs chromium and chromedriver. The page has 1,866 images, of which 190 failed (tests/builders/large_run.py). The times
are those of the browser (`performance.now()`, and the first paint after it), from the start of the load of the page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

PAINTED = """\
const done = arguments[0];
requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0));
"""


def measure(loads: int) -> dict[str, object]:
    """Load the page so often, in one browser that is told to forget it in between."""
    from browser.chromium import Browser
    from builders.large_run import IMAGES, large_run
    from dlltracer.report.html import render_html

    started = time.perf_counter()
    html = render_html(large_run())
    rendered = time.perf_counter() - started
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        sys.exit("chromium and chromedriver are needed")
    chromium, driver = map(str, programs)
    ready, first_paint, elements = [], [], 0
    with tempfile.TemporaryDirectory() as name, Browser(chromium, driver, Path(name) / "profile") as browser:
        for _ in range(loads):
            browser.open(html, Path(name) / "page.html")
            browser.driver.execute_async_script(PAINTED)
            ready.append(float(browser.run("return document.documentElement.dataset.ready")))
            paints = browser.run("return performance.getEntriesByType('paint').map(entry => entry.startTime)")
            first_paint += paints[:1]
            elements = int(browser.run("return document.getElementsByTagName('*').length"))
    return {
        "images": IMAGES, "characters": len(html), "elements": elements, "rendered_ms": round(1000 * rendered),
        "ready_ms": [round(value) for value in ready], "ready_median_ms": round(statistics.median(ready)),
        "first_paint_ms": [round(value) for value in first_paint],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loads", type=int, default=7)
    parser.add_argument("--json", help="write the result there")
    options = parser.parse_args()
    found = measure(options.loads)
    text = json.dumps(found, indent=1)
    if options.json:
        Path(options.json).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
