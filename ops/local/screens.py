"""`make screens`: the pictures in `api/dashboard/README.md`, of the sample jobs after a few minutes, in a real Chromium.

A demo of its own runs on free ports with data of its own, so that the pictures show what a new user sees.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import api.dashboard
from config.settings import load_settings
from ops.local.demo import Demo
from ops.local.samples import load_samples
from ops.support.embedded_mongodb import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

FOLDER = Path(api.dashboard.__file__).with_name("screens")
RUN_SECONDS = 140
"""So long the demo runs before the first picture: the series of a minute need some minutes."""
VERIFY_SECONDS = 10
SETTLE_MS = 1500
COMPLETE = """
() => document.querySelector("main h1").textContent !== "…" && !document.body.innerText.includes("Counting…")
  && !document.querySelector("main [aria-busy=true]")
  && ![...document.querySelectorAll(".strip[aria-label=Loading]")].some((e) => e.getBoundingClientRect().top < innerHeight)
"""
"""Whether what is in view has come; it settles afterwards."""
PATIENCE_SECONDS = 30
LIGHT, DARK = {"color_scheme": "light"}, {"color_scheme": "dark"}
WIDE = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 780}}
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]


def screens(execution: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The name, the address and the window of each picture."""
    for name, address in (
        ("now", "#/"),
        ("time", "#/time?by=tag&span=600"),
        ("jobs", "#/jobs?sort=-lastRunAt"),
        ("job", "#/jobs/flaky-1"),
        ("execution", f"#/executions/{execution}"),
        ("failed", "#/failed"),
        ("editor", "#/jobs/invoice-shop-01/edit"),
        ("cluster", "#/cluster"),
        ("proof", "#/proof"),
    ):
        yield f"{name}-light", address, LIGHT | WIDE
        if name in ("now", "time", "job", "failed"):
            yield f"{name}-dark", address, DARK | WIDE
        if name in ("now", "job", "time", "failed", "cluster"):
            yield f"{name}-phone", address, LIGHT | PHONE


def main() -> int:
    """Take all pictures. Exit status 1 without a Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("There is no chromium on PATH (Debian: apt-get install chromium).\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HORAE_DATA_DIR"] = folder  # for the nodes, which read their own settings
        settings = load_settings(data_dir=folder, port=free_port(), nodes=2)
        demo = Demo(settings, free_port())
        try:
            demo.start()
            if not demo.wait_ready():
                sys.stderr.write(f"The demo did not start: {demo.last_log_lines('serve')}\n")
                return 1
            load_samples(demo.api, demo.receiver_port)
            time.sleep(RUN_SECONDS)
            demo.api.call("POST", "/verifications", {})
            time.sleep(VERIFY_SECONDS)
            found = demo.api.call("GET", "/jobs/flaky-2/executions?limit=20")
            retried = next((e["executionId"] for e in found if e["attempt"] > 1), found[0]["executionId"])
            _take(chromium, f"http://127.0.0.1:{settings.port}", retried)
        finally:
            demo.stop()
    return 0


def _take(chromium: str, base: str, execution: str) -> None:
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for name, address, window in screens(execution):
            context = browser.new_context(timezone_id="Europe/Berlin", **window)
            page = context.new_page()
            page.goto(f"{base}/{address}")
            page.wait_for_selector("main h1")
            _wait_complete(page)
            page.wait_for_timeout(SETTLE_MS)
            page.screenshot(path=FOLDER / f"{name}.png")
            context.close()
        browser.close()


def _wait_complete(page: Page) -> None:
    """Playwright's own way to wait evaluates a text, which the policy of the page forbids."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not page.evaluate(COMPLETE):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{page.url} is not complete after {PATIENCE_SECONDS} s")
        page.wait_for_timeout(100)


if __name__ == "__main__":
    sys.exit(main())
