"""The HTML report in a real browser: it asks for nothing, runs nothing but its own, and does what it says."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from browser.chromium import Browser
from builders.report_traces import GONE, many_images, small_failure
from dlltracer.report.html import render_html
from unit.test_html_page import HOSTILE, trace_named

DOWN, UP, LEFT, RIGHT, ENTER, ESCAPE, TAB, HOME, END = (
    "\ue015", "\ue013", "\ue012", "\ue014", "\ue007", "\ue00c", "\ue004", "\ue011", "\ue010",
)  # fmt: skip


def open_failure(browser: Browser, pages: Path, **more: Any) -> None:
    browser.open(render_html(small_failure()), pages / "failure.html", **more)


def shown_rows(browser: Browser) -> list[str]:
    return list(
        browser.run("return [...document.querySelectorAll('#table tbody tr:not([hidden]) th a')].map(a => a.innerText)")
    )


def chosen(browser: Browser) -> str:
    return str(browser.run("return document.querySelector('.node.now')?.textContent ?? ''"))


def focused(browser: Browser) -> str:
    return str(browser.run("return document.activeElement.id"))


@pytest.mark.parametrize("trace", [small_failure(), many_images(60, processes=3), trace_named("a.so")])
def test_no_request_and_no_complaint(browser: Browser, pages: Path, trace: Any) -> None:
    browser.open(render_html(trace), pages / "page.html")
    browser.click("#theme")
    assert browser.complaints() == []
    assert browser.requests() == [(pages / "page.html").as_uri()]


@pytest.mark.parametrize("name", [HOSTILE[0], "".join(HOSTILE), "".join(reversed(HOSTILE))])
def test_a_hostile_name_is_inert(browser: Browser, pages: Path, name: str) -> None:
    browser.open(render_html(trace_named(name)), pages / "hostile.html")
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.run("return document.querySelectorAll('#details .tag').length") == 1  # its own script did run
    assert browser.run("return document.images.length + document.scripts.length") == 2
    assert browser.run(
        "return [...document.querySelectorAll('*')]"
        ".every(e => [...e.attributes].every(a => !a.name.startsWith('on')))"
    )
    assert browser.complaints() == [] and browser.requests() == [(pages / "hostile.html").as_uri()]


def test_what_failed_is_chosen_first_with_its_places(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    assert chosen(browser) == GONE
    details = browser.text("#details")
    for text in ("not found", "Needed by (1)", "libdep.so.2", "Places tried, in order (16)", "/etc/ld.so.cache"):
        assert text in details
    box = browser.run(
        "const v = document.querySelector('#view').getBoundingClientRect(),"
        "n = document.querySelector('.now').getBoundingClientRect();"
        "return n.left >= v.left && n.right <= v.right && n.top >= v.top && n.bottom <= v.bottom"
    )
    assert box


def test_a_click_on_an_image_shows_it_and_a_link_leads_on(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    node = browser.run("return [...document.querySelectorAll('.node')].find(n => n.textContent === 'libdep.so.2')")
    node.click()
    details = browser.text("#details")
    for text in ("dropped", "RUNPATH of", "pkg 1.0", "87.8 KiB", "Needs (1)", "libc.so.6", "0x7f0000000000", "4711"):
        assert text in details
    browser.click("#details a[href='#n4']")
    assert chosen(browser) == GONE and focused(browser) == "h-details"


def test_the_graph_by_keyboard(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    browser.run("document.querySelector('#fit').focus()")
    browser.type(TAB)
    assert focused(browser) == "view"
    assert browser.run("return document.activeElement.getAttribute('role')") == "tree"
    steps = [(HOME, "import pkg"), (RIGHT, "_json.so"), (DOWN, "core….so"), (RIGHT, "libdep.so.2"), (LEFT, "core….so")]
    steps += [(UP, "_json.so"), (END, GONE)]
    for key, name in steps:
        browser.type(key)
        assert chosen(browser) == name
        active = browser.run("return document.getElementById(arguments[0]).textContent", browser.run(
            "return document.activeElement.getAttribute('aria-activedescendant')"
        ))  # fmt: skip
        assert active == name
    browser.type(ENTER)
    assert focused(browser) == "h-details"
    browser.type(ESCAPE)
    assert focused(browser) == "view"
    before = browser.run("return document.querySelector('#picture').getAttribute('viewBox')")
    browser.type("+")
    assert browser.run("return document.querySelector('#picture').getAttribute('viewBox')") != before


def test_the_search(browser: Browser, pages: Path) -> None:
    browser.open(render_html(many_images(100)), pages / "many.html")
    browser.run("document.querySelector('#search').focus()")
    browser.type("pkg02 _EXT1")
    assert browser.run("return document.querySelectorAll('.node.hit').length") == 6
    assert browser.text("#found") == "1 of 6"
    browser.type(ENTER)
    assert browser.text("#found") == "2 of 6" and chosen(browser).startswith("_ext1")
    browser.driver.set_script_timeout(5)
    said = browser.driver.execute_async_script(
        "const done = arguments[0]; new MutationObserver(() => done(document.querySelector('#live').textContent))"
        ".observe(document.querySelector('#live'), {childList: true}); document.querySelector('#next').click()"
    )
    assert said.startswith("3 of 6: _ext1") and said.endswith(", loaded")


def test_filter_and_states(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    assert len(shown_rows(browser)) == 4
    browser.run("document.querySelector('#filter').focus()")
    browser.type("PKG 1.0")
    assert shown_rows(browser) == ["core.cpython-311-x86_64-linux-gnu.so", "libdep.so.2"]
    assert browser.text("#shown") == "2 of 4"
    for _ in range(7):
        browser.type("\ue003")
    browser.click("[data-state=dropped][type=checkbox]")
    assert shown_rows(browser) == ["_json.so", GONE]


def test_sorting(browser: Browser, pages: Path) -> None:
    browser.open(render_html(many_images(40)), pages / "sorted.html")
    sizes = (
        "return [...document.querySelectorAll('#table td[data-key]')].map(td => td.innerText).filter(t => /B$/.test(t))"
    )
    heads = browser.driver.find_elements("css selector", "#table thead button")
    (size,) = (head for head in heads if head.text == "Size")
    size.click()
    assert browser.run(sizes)[0] == "132.0 KiB"
    (name,) = (head for head in heads if head.text == "Image")
    name.click()
    rows = shown_rows(browser)
    assert rows[0].startswith("_ext00") and rows[-1].startswith("libpkg01-") and sorted(rows) != rows[::-1]
    name.click()
    assert shown_rows(browser)[-1].startswith("_ext00")
    assert browser.run("return document.querySelector('#table th:nth-child(2)').ariaSort") == "descending"


def test_the_theme_follows_the_system_and_the_button(browser: Browser, pages: Path) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    open_failure(browser, pages)
    browser.run("localStorage.clear()")
    open_failure(browser, pages)
    light = browser.run(colour)
    open_failure(browser, pages, dark=True)
    dark = browser.run(colour)
    assert light != dark
    browser.click("#theme")
    assert browser.run(colour) == light
    open_failure(browser, pages, dark=True)
    assert browser.run(colour) == light  # remembered
    browser.run("localStorage.clear()")


def test_copying_a_command(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    browser.click("#verdict .copy")
    copied = browser.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0], arguments[0])")
    assert copied == "apt-get install libgone1"


def test_without_scripts_the_verdict_the_table_and_the_picture_are_there(browser: Browser, pages: Path) -> None:
    try:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        open_failure(browser, pages)
        assert browser.text("h1") == f"{GONE} was not found"
        assert browser.driver.find_element("css selector", "#table tbody tr").is_displayed()
        assert browser.driver.find_element("css selector", "#n4").is_displayed()
        assert not browser.driver.find_element("css selector", "#search").is_displayed()
        assert not browser.driver.find_element("css selector", ".copy").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_makes_the_page_wider_than_the_window(browser: Browser, pages: Path, width: int) -> None:
    open_failure(browser, pages, width=width)
    assert browser.run("return document.documentElement.scrollWidth") <= width


def test_landmarks_headings_and_names(browser: Browser, pages: Path) -> None:
    open_failure(browser, pages)
    headings = browser.run("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert headings.count(1) == 1 and headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert browser.run(
        "return ['header', 'nav', 'main', 'footer'].every(t => document.querySelectorAll(t).length === 1)"
    )
    nameless = browser.run(
        "return [...document.querySelectorAll('button, input, a, section, aside, [role=region], [role=tree]')]"
        ".filter(e => e.offsetParent && !(e.innerText.trim() || e.ariaLabel || e.getAttribute('aria-labelledby')"
        " || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert nameless == []


def test_a_thousand_images(browser: Browser, pages: Path) -> None:
    browser.open(render_html(many_images(1000)), pages / "thousand.html")
    assert browser.run("return document.querySelectorAll('.node.image').length") == 1000
    assert browser.run("return document.getElementsByTagName('*').length") < 20_000
    assert len(shown_rows(browser)) == 250
    browser.run("document.querySelector('#filter').focus()")
    browser.type("pkg39")
    assert len(shown_rows(browser)) == 25
    browser.run("const f = document.querySelector('#filter'); f.value = ''; f.dispatchEvent(new Event('input'))")
    browser.click("#more")
    assert len(shown_rows(browser)) == 1000
    # What a reader waits for, with room for a busy machine.
    spent = browser.run(
        "const start = performance.now(); graph.choose(500); document.body.offsetHeight;"
        "return performance.now() - start"
    )
    assert spent < 2000
    assert browser.complaints() == []
