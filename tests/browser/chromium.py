"""A chromium without a window, driven by selenium: pages from files, what they asked for and complained about."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


class Browser:
    """Use as a context manager.

    Arguments: `chromium`, `driver`: paths of the programs; `folder`: an empty one, for the profile.
    """

    def __init__(self, chromium: str, driver: str, folder: Path) -> None:
        # With a driver given, selenium looks for none; should that change, it must fail rather than download one.
        os.environ |= {"SE_OFFLINE": "true", "SE_AVOID_STATS": "true"}
        webdriver = pytest.importorskip("selenium.webdriver")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for switch in (*SWITCHES, f"--user-data-dir={folder}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=driver, log_output=subprocess.DEVNULL)
        self.driver: Any = webdriver.Chrome(options=options, service=service)
        self.driver.set_script_timeout(20)
        self.driver.set_page_load_timeout(40)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.quit()

    def open(self, html: str, path: Path, *, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        """Write a page to a file and open it, as new: nothing chosen, nothing remembered."""
        path.write_text(html, encoding="utf-8")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        self.problems(), self.requests()
        self.driver.get(path.as_uri())

    def run(self, script: str, *arguments: object) -> Any:
        """What the script returns, in the page."""
        return self.driver.execute_script(script, *arguments)

    def text(self, css: str) -> str:
        """The text that an element shows."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", css))

    def click(self, css: str) -> None:
        """Click on an element with the mouse, where it is once the page has drawn what it had to.

        The driver looks up the place and clicks there: what moves in the next frame would not get the click.
        """
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        self.driver.find_element("css selector", css).click()

    def type(self, *keys: str) -> None:
        """Press keys, at whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def problems(self) -> list[str]:
        """What came to the console since the last call, of any level; breaches of the policy are among it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that the page asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent if params["request"]["url"] != "about:blank"]
