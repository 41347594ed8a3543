"""The HTML report in a real browser: it asks for nothing, runs nothing but its own, and does what it says."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from browser.chromium import Browser
from builders.failed_case import bound, image
from builders.large_run import large_run
from builders.report_traces import GONE, many_images, small_failure, windows_failure
from dlltracer.model.tree import LoadTree
from dlltracer.report.html import render_html, render_html_tree
from unit.test_html_page import HOSTILE, trace_named, tree_named

DOWN, LEFT, RIGHT, ENTER, ESCAPE, HOME, END, BACKSPACE = (
    "\ue015", "\ue012", "\ue014", "\ue007", "\ue00c", "\ue011", "\ue010", "\ue003",
)  # fmt: skip
MOST_ELEMENTS = 3000


def open_failure(browser: Browser, pages: Path, **more: Any) -> None:
    browser.open(render_html(small_failure()), pages / "failure.html", **more)


def shown_rows(browser: Browser) -> list[str]:
    names = "return [...document.querySelectorAll('.nm .mid')].map(one => one.innerText.replace('\\n', ''))"
    return list(browser.run(names))


def active_row(browser: Browser) -> str:
    return str(browser.run(
        "return document.querySelector('#' + document.activeElement.getAttribute('aria-activedescendant') + ' .mid')"
        ".innerText.replace('\\n', '')"
    ))  # fmt: skip


def click_row(browser: Browser, name: str) -> None:
    browser.run(
        "[...document.querySelectorAll('.row')].find(one => one.querySelector('.mid').innerText.replace('\\n', '')"
        " === arguments[0]).click()", name,
    )  # fmt: skip


def choose(browser: Browser, key: str) -> None:
    browser.click(f".exhead [data-k={key}]")


@pytest.mark.parametrize(
    "trace", [small_failure(), many_images(60, processes=3), windows_failure(), trace_named("a.so")],
    ids=["failure", "processes", "windows", "everything"],
)  # fmt: skip
def test_no_request_and_no_console_message(browser: Browser, pages: Path, trace: Any) -> None:
    browser.open(render_html(trace), pages / "page.html")
    browser.click("#themes [data-k=dark]")
    browser.click(".row")
    assert browser.problems() == []
    assert browser.requests() == [(pages / "page.html").as_uri()]


LONG = "</script>" + "\u05d0\u202e" * 5_000


@pytest.mark.parametrize("name", [HOSTILE[0], "".join(HOSTILE), LONG], ids=["script", "all", "long"])
def test_a_hostile_name_is_inert(browser: Browser, pages: Path, name: str) -> None:
    for html in (render_html(trace_named(name)), render_html_tree(tree_named(name))):
        browser.open(html, pages / "hostile.html", width=800)
        assert browser.run("return document.documentElement.dataset.ready")  # its own script did run
        browser.run("document.querySelectorAll('.row.opens, .row.isbad').forEach(one => one.click())")
        browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert browser.run("return document.images.length + document.scripts.length") == 2
        assert browser.run(
            "return [...document.querySelectorAll('*')]"
            ".every(e => [...e.attributes].every(a => !a.name.startsWith('on')))"
        )
        assert browser.run("return document.documentElement.scrollWidth") <= 800
        assert browser.problems() == [] and browser.requests() == [(pages / "hostile.html").as_uri()]


def test_failures_are_shown_first_and_the_filters_show_the_rest(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    assert GONE in shown_rows(browser) and "_json.so" not in shown_rows(browser)
    browser.click(".states [data-k=loaded]")
    choose(browser, "list")
    assert shown_rows(browser) == ["_json.so", "core….so", "libdep.so.2", GONE]
    browser.click("#filter")
    browser.type("PKG 1.0")
    assert shown_rows(browser) == ["core….so", "libdep.so.2"]
    browser.type(*7 * [BACKSPACE], "no such name")
    assert browser.text(".sizer") == "Nothing fits the filter."


def test_a_click_on_an_image_opens_its_needs_and_its_details(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    choose(browser, "list")
    assert shown_rows(browser) == ["core….so", "libdep.so.2", GONE]
    click_row(browser, "core….so")
    assert shown_rows(browser) == ["core….so", "libdep.so.2", "libc.so.6", "libdep.so.2", GONE]
    details = browser.text(".det")
    for text in ("dropped", "because libgone.so.1 failed", "pkg 1.0", "0x7f0000000000", "Needs (2)", "libc.so.6"):
        assert text in details
    browser.run("[...document.querySelectorAll('.det .link')].find(one => one.innerText === 'libdep.so.2').click()")
    assert browser.text(".det h3") == "libdep.so.2" and "Needed by (1)" in browser.text(".det")
    click_row(browser, "core….so")
    click_row(browser, "core….so")
    assert shown_rows(browser) == ["core….so", "libdep.so.2", GONE]
    click_row(browser, GONE)
    assert "16 places, none had it" in browser.text(".det")
    browser.click(".det .dlt-fold summary")
    assert "/lib/x86_64-linux-gnu/libgone.so.1" in browser.text(".det")


def test_needs_that_are_mutual_do_not_open_without_end(browser: Browser, pages: Path) -> None:
    needs = tuple(bound(f"{end}.so", f"/l/{end}.so", f"/l/{start}.so") for start in range(50) for end in range(50))
    tree = LoadTree("/l/0.so", {f"/l/{n}.so": image() for n in range(50)}, needs)
    browser.open(render_html_tree(tree), pages / "mutual.html")
    click_row(browser, "0.so")
    click_row(browser, "1.so")
    assert shown_rows(browser)[:4] == ["0.so", "1.so", "0.so", "2.so"]
    assert not browser.run("return document.querySelectorAll('.row')[2].classList.contains('opens')")
    assert browser.run("return document.getElementsByTagName('*').length") < MOST_ELEMENTS
    assert browser.problems() == []


def test_the_table_by_keyboard(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    browser.run("document.querySelector('.grid').focus()")
    assert active_row(browser) == GONE  # what failed is where the reader starts
    browser.type(HOME, DOWN)
    assert active_row(browser) == "pkg 1.0"
    browser.type(DOWN, RIGHT, RIGHT)
    assert active_row(browser) == "libdep.so.2"
    browser.type(LEFT)
    assert active_row(browser) == "core….so"
    browser.type(LEFT, END)
    assert active_row(browser) == GONE
    shadow = browser.run("return getComputedStyle(document.querySelector('.row.act')).boxShadow")
    assert "inset" in shadow
    browser.type(ENTER)
    assert browser.run("return document.activeElement.className") == "det"
    browser.type(ESCAPE)
    assert browser.run("return document.activeElement.className") == "grid"
    assert browser.run("return document.querySelector('.det').hidden")
    roles = browser.run(
        "const row = document.querySelector('.row.opens');"
        "return ['role', 'aria-level', 'aria-posinset', 'aria-setsize', 'aria-expanded'].map(n => row.getAttribute(n))"
    )
    assert roles[0] == "row" and all(roles)
    assert browser.run("return document.querySelector('.grid').getAttribute('role')") == "treegrid"


def test_the_map_by_keyboard_and_the_focus_is_seen(browser: Browser, pages: Path) -> None:
    browser.open(render_html(many_images(100)), pages / "map.html")
    browser.run("document.querySelector('.cell[tabindex=\"0\"]').focus()")
    browser.type(DOWN)
    assert browser.run("return document.activeElement.innerText").startswith("pkg0")
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.type(ENTER)
    assert browser.run("return document.querySelectorAll('.crumbs button').length") == 3
    browser.type(BACKSPACE)
    assert browser.run("return document.querySelectorAll('.crumbs button').length") == 2
    browser.run("document.querySelector('.filter').blur()")
    browser.type("/")
    assert browser.run("return document.activeElement.id") == "filter"


def test_sorting(browser: Browser, pages: Path) -> None:
    browser.open(render_html(many_images(30)), pages / "sorted.html")
    choose(browser, "list")
    browser.click(".hrow [data-k=name] button")
    order = "return document.querySelector('.hrow > *').ariaSort"
    assert shown_rows(browser)[0].startswith("_ext00") and browser.run(order) == "ascending"
    browser.click(".hrow [data-k=name] button")
    assert shown_rows(browser)[0].startswith("libpkg01-") and browser.run(order) == "descending"


def test_a_cause_of_the_verdict_shows_its_images(browser: Browser, pages: Path) -> None:
    browser.open(render_html(large_run()), pages / "large.html")
    browser.click("[data-cause='1']")
    assert browser.text(".crumbs [aria-current]") == "Library not found"
    assert "102 of 1,866 images" in browser.text(".foot")


def test_the_theme_follows_the_system_and_the_choice(browser: Browser, pages: Path) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    open_failure(browser, pages)
    browser.run("localStorage.clear()")
    open_failure(browser, pages)
    light = browser.run(colour)
    open_failure(browser, pages, dark=True)
    dark = browser.run(colour)
    assert light != dark
    browser.click("#themes [data-k=light]")
    assert browser.run(colour) == light
    open_failure(browser, pages, dark=True)
    assert browser.run(colour) == light  # remembered
    browser.run("localStorage.clear()")


def test_copying_the_command_and_the_report(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    read = "navigator.clipboard.readText().then(arguments[0], arguments[0])"
    browser.click("[data-copy]")
    assert browser.driver.execute_async_script(read) == "apt-get install libgone1"
    browser.click("#copy-report")
    assert browser.driver.execute_async_script(read).startswith("### dlltracer: `import pkg` failed")


def test_without_scripts_verdict_fix_failures_and_a_list_are_there(browser: Browser, pages: Path) -> None:
    try:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        open_failure(browser, pages, width=390, height=800)
        text = browser.text("body")
        assert browser.text("h1").endswith(f"{GONE} was not found")
        for part in ("apt-get install libgone1", f"{GONE} not found, needed by libdep.so.2", "lib-dynload/_json.so"):
            assert part in text
        assert not browser.driver.find_element("css selector", "#themes").is_displayed()
        assert not browser.driver.find_element("css selector", "[data-copy]").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_the_fix_is_above_the_fold_and_nothing_makes_the_page_wider(browser: Browser, pages: Path, width: int) -> None:
    open_failure(browser, pages, width=width, height=800)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return document.querySelector('.dlt-command').getBoundingClientRect().bottom") < 800
    row = browser.run("return document.querySelector('.row').getBoundingClientRect().height")
    assert row == (40 if width < 600 else 32)


def test_on_paper_all_rows_are_there_and_no_controls(browser: Browser, pages: Path) -> None:
    browser.open(render_html(many_images(200)), pages / "paper.html", dark=True)
    choose(browser, "list")
    assert len(shown_rows(browser)) < 60
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert len(shown_rows(browser)) == 200
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = "return [...document.querySelectorAll('.exhead .seg, .filter, #copy-report')].every(e => !e.offsetParent)"
    assert browser.run(hidden)
    browser.run("dispatchEvent(new Event('afterprint'))")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(shown_rows(browser)) < 60


def test_landmarks_headings_and_names(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    click_row(browser, GONE)
    headings = browser.run("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert headings.count(1) == 1 and headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert browser.run("return ['header', 'main'].every(t => document.querySelectorAll('body > ' + t).length === 1)")
    nameless = browser.run(
        "return [...document.querySelectorAll('button, input, a, section, aside, [role=region], [role=treegrid]')]"
        ".filter(e => e.offsetParent && !(e.textContent.trim() || e.ariaLabel || e.getAttribute('aria-labelledby')"
        " || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert nameless == []


def test_1866_images_stay_below_3000_elements(browser: Browser, pages: Path) -> None:
    """The time until it is ready is measured by benchmarks/bench_page.py: a busy machine would fail a test of it."""
    elements = "return document.getElementsByTagName('*').length"
    browser.open(render_html(large_run()), pages / "large.html", height=2000)
    assert browser.run(elements) < MOST_ELEMENTS
    browser.click(".states [data-k=loaded]")
    for arrangement in ("import", "package", "needs", "list", "cause"):
        choose(browser, arrangement)
        browser.run("document.querySelectorAll('.row.opens').forEach(one => one.click())")
        browser.run("document.querySelector('.grid').scrollTop = 9000")
        assert browser.run(elements) < MOST_ELEMENTS, arrangement
    assert browser.problems() == []
