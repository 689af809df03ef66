"""One node and one Chromium for all tests of the page in this process; each test has a context of its own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import browser, browser_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.support.browser import Viewer
    from tests.support.browser_world import World


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """A browser for the tests of this folder, none of which is a coroutine: while it runs, Playwright's event loop keeps all
    others of the process from running. It ends before a test of another folder begins.
    """
    browser.require()
    with browser.browser() as found:
        yield found


@pytest.fixture(scope="session")
def world(mongodb_uri: str) -> Iterator[World]:
    """A node without keys, with a job that ran well, one that failed, and one whose every text is markup."""
    browser.require()
    with browser_world.world(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}") as found:
        found.put("good", name="Good job", tags=["calm"], schedule="0 30 2 * * *", timezone="Europe/Berlin")
        found.put("bad", name="Bad job", api=f"{found.target}/bad/x", tags=["broken"])
        yield found


@pytest.fixture(scope="package")
def window(chromium: Any) -> Iterator[Page]:
    """A window in the light for one test after the other."""
    with browser.viewer(chromium, "", viewport=browser.WIDE, color_scheme="light") as found:
        yield found.page


@pytest.fixture
def viewer(world: World, window: Page) -> Iterator[Viewer]:
    """A wide window on the node; the test fails if the console complained."""
    found = browser.Viewer(window, world.url)
    yield found
    found.leave()
    assert found.complaints == []


@pytest.fixture
def own_viewer(world: World, chromium: Any) -> Iterator[Viewer]:
    """The same for a test that stops the clock of its window or cuts its network."""
    with browser.viewer(chromium, world.url, viewport=browser.WIDE) as found:
        yield found
        assert found.complaints == []
