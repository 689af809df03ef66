"""One node and one Chromium for all tests of the page in this process; each test has a context of its own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import browser, browser_world

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture
def viewer(world: World, chromium: Any) -> Iterator[Viewer]:
    """A wide window on the node; the test fails if the console complained."""
    with browser.viewer(chromium, world.url, viewport={"width": 1280, "height": 900}) as found:
        yield found
        assert found.complaints == []
