"""A real Chromium before a real node: what it shows, what it complains about, and what axe-core finds."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from api.dashboard import built_files
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Error, Page, ViewportSize

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
AXE = Path(built_files.__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE_MS = 30_000
WIDE: ViewportSize = {"width": 1280, "height": 900}
SERIOUS = ("serious", "critical")


def require() -> None:
    """Skip the test, with a sentence, where there is no browser or no page."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium), so the page cannot be tried in one")
    if not (built_files.DIST / "index.html").exists():
        pytest.skip("the page is not built: `make setup` builds it")


class Viewer:
    """One page of a browser, and everything that went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._hear)
        page.on("pageerror", self._hear_error)
        page.on("dialog", self._refuse)

    def leave(self) -> None:
        """Give the window back as it was: the next viewer finds nothing of this one in it."""
        self.page.unroute_all(behavior="ignoreErrors")
        self.page.evaluate("localStorage.clear()")
        self.page.goto("about:blank")
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(WIDE)
        self.page.remove_listener("console", self._hear)
        self.page.remove_listener("pageerror", self._hear_error)
        self.page.remove_listener("dialog", self._refuse)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} {message.location}")

    def _hear_error(self, error: Error) -> None:
        self.complaints.append(str(error))

    def _refuse(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, address: str = "#/") -> None:
        """Go to a screen and wait until it has what it asked for."""
        self.page.goto(f"{self.url}/{address}")
        self.settled()

    def settled(self) -> None:
        """Wait until a heading is there and nothing is loading."""
        self.page.wait_for_selector("main h1")
        self.wait("!document.querySelector('main [aria-busy=true]')")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true. Playwright's own way evaluates texts, which the policy of the page forbids."""
        wait_until(lambda: bool(self.page.evaluate(expression)), PATIENCE_MS / 1000, expression)

    def confirm(self, button: str, label: str | None = None) -> str:
        """Open the dialog of a button, read its curl command, and confirm, all by keys. The command."""
        before = self.page.get_by_role("dialog").count()
        # Behind an open dialog nothing takes a key: the screen may have a button of that name by now too.
        place = self.page.get_by_role("dialog").nth(before - 1) if before else self.page
        place.get_by_role("button", name=button, exact=True).last.press("Enter")
        dialog = self.page.get_by_role("dialog").nth(before)
        dialog.wait_for()
        command = dialog.locator("details.curl pre").first.text_content() or ""
        self.tab_to(f"e.closest('.dialog-foot') && e.textContent === '{label or button}'")
        self.page.keyboard.press("Enter")
        dialog.wait_for(state="detached")
        self.wait(
            "document.activeElement !== document.body"
        )  # whoever works by keys is not sent to the top of the page
        return command

    def tab_to(self, expression: str) -> None:
        """Press Tab until the focus is on what the expression says of it (`e`)."""
        for _ in range(120):
            if self.page.evaluate(f"(e => Boolean({expression}))(document.activeElement)"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(expression)

    def hash(self) -> str:
        """What the address bar has behind the path: the state of the page."""
        return str(self.page.evaluate("location.hash"))

    def forgive(self, *statuses: int) -> None:
        """Chromium complains of every answer that is no success; these were asked for."""
        self.complaints[:] = [c for c in self.complaints if not any(f"status of {s} " in c for s in statuses)]

    def text(self) -> str:
        """What can be read in the screen."""
        return self.page.inner_text("main")

    def serious_findings(self, *rules: str, within: str = "html") -> list[str]:
        """What axe-core finds that keeps people from using the screen, or a place in it; by some of its rules, if named."""
        if not AXE.exists():
            return []
        if not self.page.evaluate("typeof window.axe === 'object'"):
            self.page.evaluate(AXE.read_text())
        only = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
        options = {"resultTypes": ["violations"], "preload": False, **only}
        found: Any = self.page.evaluate("([w, o]) => axe.run(w, o)", [within, options])
        return [
            f"{v['id']}: {v['help']} {[n['target'] for n in v['nodes'][:3]]} {v['nodes'][0].get('failureSummary', '')}"
            for v in found["violations"]
            if v["impact"] in SERIOUS
        ]


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium that fetches nothing by itself."""
    from playwright.sync_api import Error as PlaywrightError
    from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=90_000)
        except PlaywrightTimeoutError:
            raise  # a busy machine: that is no reason to leave the page untested
        except PlaywrightError as exc:
            pytest.skip(f"{CHROMIUM} does not start here, so the page cannot be tried in one: {str(exc)[:500]}")
        try:
            yield started
        finally:
            started.close()


@contextmanager
def viewer(chromium: Any, url: str, **context: Any) -> Iterator[Viewer]:
    """A window of its own, without cookies of others. It costs a second of a core: most tests share one (`leave`)."""
    made: BrowserContext = chromium.new_context(timezone_id="Europe/Berlin", **context)
    try:
        yield Viewer(made.new_page(), url)
    finally:
        made.close()
