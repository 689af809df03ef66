"""Every screen opens in a real browser: without a complaint, at every width, in both themes, for everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import browser

if TYPE_CHECKING:
    from tests.support.browser import Viewer
    from tests.support.browser_world import World

pytestmark = [pytest.mark.timeout(300), pytest.mark.takes(60)]
PHONE: Any = {"width": 390, "height": 844}
CUT_OFF = """
[...document.querySelectorAll("main *")]
  .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1)
  .filter((e) => ["hidden", "clip"].includes(getComputedStyle(e).overflowX))
  .filter((e) => getComputedStyle(e).textOverflow !== "ellipsis" && !e.title && !e.closest(".hidden, .axis, input, textarea, select"))
  .map((e) => e.outerHTML.slice(0, 200))
"""
"""What hides a part of itself without an ellipsis."""


def addresses(viewer: Viewer, world: World) -> list[str]:
    """Every item of the navigation, and the screens of single things."""
    viewer.open()
    listed = viewer.page.eval_on_selector_all("#navigation a", "links => links.map(a => a.getAttribute('href'))")
    assert len(listed) >= 3
    good, bad = world.run("good"), world.run("bad")
    return [
        *listed,
        "#/new",
        "#/jobs/good",
        "#/jobs/good/edit",
        "#/jobs/bad",
        f"#/executions/{good}",
        f"#/executions/{bad}",
        "#/nowhere",
    ]


@pytest.mark.long
def test_every_screen_opens_for_everybody(viewer: Viewer, world: World) -> None:
    """No error in the console, a heading and a title each; no serious finding of axe-core (contrast, labels, roles) in light,
    and of contrast in dark; and at 390 and 320 px nothing sticks out or is cut off.
    """
    for address in addresses(viewer, world):
        viewer.open(address)
        assert viewer.page.locator("main h1").count() == 1, address
        assert viewer.page.title().endswith("· Horae"), address
        assert viewer.serious_findings() == [], address
        viewer.page.emulate_media(color_scheme="dark")
        assert viewer.serious_findings("color-contrast") == [], f"{address} in the dark"
        viewer.page.emulate_media(color_scheme="light")
        for width in (390, 320):
            viewer.page.set_viewport_size({"width": width, "height": 844})
            viewer.wait(f"document.documentElement.scrollWidth <= {width}")
            assert viewer.page.evaluate(CUT_OFF) == [], (address, width)
        viewer.page.set_viewport_size(browser.WIDE)


def test_the_menu_of_a_phone_leads_on(viewer: Viewer) -> None:
    viewer.page.set_viewport_size(PHONE)
    viewer.open()
    viewer.page.get_by_role("button", name="Menu").click()
    viewer.page.get_by_role("link", name="Failed", exact=True).click()
    viewer.wait("location.hash === '#/failed'")
    assert not viewer.page.get_by_role("link", name="Failed", exact=True).is_visible()


def test_the_address_bar_is_the_state(viewer: Viewer) -> None:
    """What was searched, filtered and sorted is in the fragment, and a copy of the address shows the same."""
    viewer.open("#/jobs")
    viewer.page.get_by_role("searchbox").fill("bad")
    viewer.wait("location.hash.includes('q=bad')")
    viewer.page.get_by_role("button", name="Active").click()
    viewer.page.get_by_role("button", name="Job", exact=False).first.click()
    viewer.page.wait_for_selector("th[aria-sort=ascending]")
    address = viewer.page.evaluate("location.hash")
    for part in ("q=bad", "state=active", "sort=name"):
        assert part in address
    viewer.wait("!document.body.innerText.includes('Good job')")
    viewer.page.goto("about:blank")
    viewer.open(address)
    viewer.page.get_by_role("link", name="Bad job").wait_for()
    assert viewer.page.get_by_role("searchbox").input_value() == "bad"
    assert "Good job" not in viewer.text()


def test_an_address_that_no_screen_can_show_leaves_the_others_in_reach(viewer: Viewer) -> None:
    """Times far away, words that are no numbers, filters that the server refuses: a heading, a sentence, and the way on."""
    for address in (
        "#/time?from=%2B275760-09-12T00:00:00Z&until=%2B275760-09-13T00:00:00Z",
        "#/time?span=-5&by=nothing",
        "#/failed?hours=1e9",
        "#/jobs?state=nothing&sort=x",
        "#/executions?state=%00&since=never",
        "#/jobs/%ff%2e%2e",
    ):
        viewer.open(address)
        assert viewer.page.locator("main h1").count() == 1, address
    viewer.page.get_by_role("link", name="Jobs", exact=True).first.click()
    viewer.wait("location.hash === '#/jobs'")
    viewer.page.get_by_role("heading", name="Jobs").wait_for()
    viewer.forgive(400, 404, 422)


@pytest.mark.long
def test_a_screen_that_gets_no_answer_says_why(viewer: Viewer) -> None:
    """Too many requests, or a database that is away: the words of the server, and nothing that seems to load for ever."""
    page = viewer.page
    viewer.open("#/")
    listed = page.eval_on_selector_all("#navigation a", "links => links.map(a => a.getAttribute('href'))")
    status = 503

    def refuse(route: Any) -> None:
        asked = route.request.resource_type == "fetch" and not route.request.url.endswith("/session")
        why = {"title": "Not now", "status": status, "detail": f"wait, it is {status}"}
        route.fulfill(status=status, json=why) if asked else route.continue_()

    page.route("**/*", refuse)
    for address in [*listed, "#/jobs/good", "#/jobs/good/edit", "#/executions/good:1795651200000"]:
        status = 429 if status == 503 else 503
        page.evaluate("a => { location.hash = a }", f"{address}?{status}" if address == "#/" else address)
        page.locator("main [role=alert]", has_text=f"wait, it is {status}").first.wait_for()
        viewer.settled()
        assert "Loading…" not in viewer.text(), address
        assert page.locator("main h1").inner_text() != "…", address
    viewer.forgive(429, 503)


def test_a_count_of_failures_that_is_a_bound_says_so(viewer: Viewer) -> None:
    """How many are counted, how far back they go, and the way to further groups."""
    group: dict[str, Any] = {
        "host": "a:80",
        "error": None,
        "status": 503,
        "executions": 3000,
        "jobs": 0,
        "jobIds": [],
        "latest": [],
    }
    at = "2026-11-27T10:00:00.000Z"
    found = {"since": at, "executions": 3000, "complete": False, "countedSince": at, "groupsInAll": 90}

    def answer(route: Any) -> None:
        route.fulfill(json={**found, "groups": [{**group, "latestAt": at}]})

    viewer.page.route("**/executions/failures?*", answer)
    viewer.open("#/failed")
    viewer.page.get_by_text("the latest 3,000 are counted here, back to").wait_for()
    assert "3,000 executions or more" in viewer.text()
    with viewer.page.expect_request(lambda request: "limit=60" in request.url):
        viewer.page.get_by_role("button", name="Show more groups").press("Enter")
    viewer.wait("location.hash.includes('groups=60')")


def test_it_works_by_keyboard(viewer: Viewer) -> None:
    """From the skip link to a job and into a dialog and out again, with the focus where it was."""
    viewer.open("#/jobs?q=good")
    viewer.page.get_by_role("link", name="Good job").focus()
    viewer.page.keyboard.press("Enter")
    viewer.wait("document.activeElement.tagName === 'H1'")
    run_now = viewer.page.get_by_role("button", name="Run now")
    run_now.wait_for()
    run_now.focus()
    viewer.page.keyboard.press("Enter")
    viewer.page.get_by_role("dialog").wait_for()
    assert viewer.page.evaluate("document.activeElement.closest('dialog') !== null")
    viewer.page.keyboard.press("Escape")
    viewer.page.get_by_role("dialog").wait_for(state="detached")
    viewer.wait("document.activeElement.textContent === 'Run now'")


def test_a_paused_page_asks_nothing_more_and_a_live_one_seldom(own_viewer: Viewer) -> None:
    """Some minutes of its clock: a live page asks a few times a minute, a paused one never."""
    viewer, asked = own_viewer, list[str]()
    viewer.page.clock.install()
    viewer.open("#/jobs?q=good")
    viewer.wait("document.querySelector('.strip') && !document.querySelector('.strip[aria-label=Loading]')")
    viewer.page.on("request", lambda r: asked.append(r.url))
    for _ in range(60):
        viewer.page.clock.run_for(1000)
    live = len(asked)
    assert 1 <= live <= 20, asked
    viewer.page.get_by_role("button", name="Live").click()
    viewer.wait("document.body.innerText.includes('Refresh paused')")
    asked.clear()
    viewer.page.clock.run_for(300_000)
    assert asked == []


@pytest.mark.long
def test_the_api_page_tries_requests_under_its_policy(viewer: Viewer) -> None:
    """`/docs` is a library's page; "try it" sends a request of this node."""
    asked: list[str] = []
    viewer.page.on("request", lambda r: asked.append(r.url))
    viewer.page.goto(f"{viewer.url}/docs")
    viewer.page.get_by_text("Check whether this process responds").click()
    viewer.page.get_by_role("button", name="Execute").click()
    viewer.page.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
    assert all(a.startswith((f"{viewer.url}/", "data:")) for a in asked), asked
