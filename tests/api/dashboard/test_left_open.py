"""A page that stays open when no node answers, when a clock is wrong; and on a phone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support import browser
from tests.support.browser_world import HOSTILE

if TYPE_CHECKING:
    from tests.support.browser import Viewer
    from tests.support.browser_world import World

pytestmark = [pytest.mark.timeout(300), pytest.mark.takes(30)]
PHONE: Any = {"width": 390, "height": 844}
SILENT = "The page asks again until a node answers"


def test_a_page_whose_node_is_away_asks_seldom_and_comes_back(own_viewer: Viewer) -> None:
    """It says so and keeps what it showed; it asks more and more seldom; with the first answer all of it is fresh."""
    viewer, page = own_viewer, own_viewer.page
    page.clock.install()
    viewer.open("#/jobs?q=good")
    page.get_by_role("link", name="Good job").wait_for()
    page.context.set_offline(True)
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    for _ in range(30):
        page.clock.run_for(1000)
    page.get_by_text(SILENT).wait_for()
    assert page.get_by_role("link", name="Good job").is_visible()
    for _ in range(270):
        page.clock.run_for(1000)
    assert 5 <= len(asked) <= 40, asked
    page.context.set_offline(False)
    for _ in range(45):
        page.clock.run_for(1000)
    page.get_by_text(SILENT).wait_for(state="detached")
    viewer.complaints[:] = [c for c in viewer.complaints if "ERR_INTERNET_DISCONNECTED" not in c]


def test_a_change_whose_answer_is_lost_is_not_made_twice(viewer: Viewer, world: World) -> None:
    """The node has done it, and the page does not know: pressed again, the request has the same name."""
    world.put("once-only")
    page = viewer.page
    viewer.open("#/jobs/once-only")

    def lose(route: Any) -> None:
        route.fetch()
        route.abort("connectionreset")

    page.route("**/jobs/once-only/trigger", lose, times=1)
    page.get_by_role("button", name="Run now").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Run now").click()
    dialog.get_by_text("may have been done, or not").wait_for()
    dialog.get_by_role("button", name="Run now").click()
    dialog.wait_for(state="detached")
    assert len(httpx.get(f"{world.url}/jobs/once-only/executions").json()) == 1
    viewer.complaints[:] = [c for c in viewer.complaints if "ERR_CONNECTION_RESET" not in c]


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_clock_that_is_an_hour_wrong_changes_nothing_but_a_note(world: World, chromium: Any, wrong: int) -> None:
    """Ages, what is silent and what is asked for go by the time of the nodes."""
    world.run("bad")
    with browser.viewer(chromium, world.url) as viewer:
        page = viewer.page
        page.clock.install(time=datetime.now(UTC) + timedelta(hours=wrong))
        page.clock.resume()
        viewer.open("#/")
        page.get_by_text(f"Your clock is 1 h {'ahead' if wrong > 0 else 'behind'}").wait_for()
        page.locator(".verdict h1").wait_for()
        viewer.wait("!document.querySelector('.verdict h1').textContent.includes('…')")
        assert "silent" not in viewer.text()
        viewer.open("#/failed?hours=1")
        page.locator(".group").first.wait_for()
        age = page.locator(".group .group-aside time").first.inner_text()
        assert not any(far in age for far in ("h ago", "59 min", "in ")), age


def test_what_is_shown_on_a_phone_fits_and_can_be_hit(world: World, chromium: Any) -> None:
    """At 390 and 320 px nothing sticks out, rows of tables show all their cells, and buttons are large enough."""
    httpx.put(f"{world.url}/queues/a-queue-with-a-long-name", json={"maxPerSecond": 5}).raise_for_status()
    with browser.viewer(chromium, world.url, viewport=PHONE, has_touch=True) as viewer:
        for address in ("#/", "#/time", "#/jobs/good", "#/executions", "#/cluster", "#/queues", "#/failed"):
            viewer.open(address)
            for width in (390, 320):
                viewer.page.set_viewport_size({"width": width, "height": 844})
                viewer.wait(f"document.documentElement.scrollWidth <= {width}")
                scrolling = viewer.page.evaluate(
                    "[...document.querySelectorAll('.segments, .stack')].map(e => e.closest('.table-wrap') ?? e)"
                    ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)"
                )
                assert scrolling == [], (address, width)
                low = viewer.page.evaluate(
                    "[...document.querySelectorAll('main button:not(.link):not(.sort), main .button')]"
                    ".filter(b => b.checkVisibility() && b.getBoundingClientRect().height < 36).map(b => b.innerText)"
                )
                assert low == [], (address, width)
        assert viewer.complaints == []
    httpx.delete(f"{world.url}/queues/a-queue-with-a-long-name").raise_for_status()


def test_names_of_queues_windows_and_calendars_are_never_markup(viewer: Viewer, world: World) -> None:
    """Free texts of every set-up screen, of a pause, of an audit entry, and of an answer that the editor's test got."""
    markup = "<b>x</b>"
    httpx.put(
        f"{world.url}/windows/w",
        json={"mode": "mute", "tags": [markup], "from": "2030-01-01T00:00:00Z", "until": "2030-01-02T00:00:00Z"},
    ).raise_for_status()
    world.put("hostile-too", name=HOSTILE, description=HOSTILE, tags=[markup], api=f"{world.target}/hostile/x")
    httpx.post(f"{world.url}/jobs/hostile-too/pause", json={"reason": HOSTILE}).raise_for_status()
    for address in (
        "#/windows",
        "#/audit",
        "#/jobs/hostile-too",
        "#/jobs?q=onerror",
        "#/proof",
        "#/time?by=tag&q=onerror",
    ):
        viewer.open(address)
        assert viewer.page.locator("main img, main script, main i, main td b b").count() == 0, address
    viewer.open("#/jobs/hostile-too/edit")
    viewer.page.get_by_role("button", name="Send a test").click()
    viewer.page.get_by_text("400 after").wait_for()
    viewer.open("#/jobs?q=onerror")
    viewer.page.get_by_role("button", name="Act on all of these…").click()
    viewer.page.get_by_role("dialog").get_by_text(re.compile(r"\d+ jobs? match")).wait_for()
    assert viewer.page.locator("img").count() == 0
    assert "owned" not in viewer.page.title().split(" · ")[-1]
    httpx.delete(f"{world.url}/jobs/hostile-too").raise_for_status()
    httpx.delete(f"{world.url}/windows/w").raise_for_status()
