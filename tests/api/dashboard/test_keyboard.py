"""Every control and every dialog by keyboard alone; where the focus goes when what had it is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.support.browser import Viewer
    from tests.support.browser_world import World

pytestmark = [pytest.mark.timeout(300), pytest.mark.takes(35)]

CONTROLS = "button:not(:disabled), a[href]:not([tabindex='-1']), input:not([hidden]):not(:disabled), select, textarea, summary, [tabindex='0']"
WATCH = """
([place, controls]) => {
  const inside = document.querySelector(place);
  window.unreached = new Set([...inside.querySelectorAll(controls)].filter((e) => e.checkVisibility()));
  window.bare = [];
  window.outside = [];
  if (window.watching) return window.unreached.size;
  window.watching = true;
  document.addEventListener("focusin", (e) => {
    window.unreached.delete(e.target);
    if (!e.target.closest("dialog, main")) window.outside.push(e.target.outerHTML);
    const style = getComputedStyle(e.target);
    if (style.boxShadow === "none" && style.outlineStyle === "none") window.bare.push(e.target.outerHTML);
  });
  return window.unreached.size;
}
"""
"""Notes which controls of a place have not had the focus, and which had it without a sign of it."""
LEFT = "[...window.unreached].filter((e) => e.isConnected && e.checkVisibility()).map((e) => e.outerHTML)"
DIALOGS = (
    ("#/jobs", "Act on all of these…"), ("#/jobs/good", "Run now"), ("#/jobs/good", "Pause"), ("#/jobs/good", "Backfill"),
    ("#/jobs/good", "Delete"), ("#/jobs/asleep", "Resume"), ("#/failed", "Send again…"), ("#/proof", "Verify…"),
    ("#/cluster", "Drain"), ("#/queues", "New queue"), ("#/queues", "Change"), ("#/queues", "Delete"),
    ("#/windows", "New window"), ("#/calendars", "New calendar"), ("#/channels", "New channel"), ("#/channels", "Test"),
    ("#/keys", "New key"), ("#/messages", "New message"), ("#/messages", "Cancel"), ("#/executions/{bad}", "Send again"),
)  # fmt: skip


@pytest.fixture
def furnished(world: World) -> Iterator[str]:
    """One of everything that has buttons; the execution that failed."""
    put = httpx.Client(base_url=world.url)
    world.put("asleep", state="paused", pauseReason="it rests")
    put.put("/queues/a-queue", json={"maxPerSecond": 5}).raise_for_status()
    put.put("/channels/a-channel", json={"type": "webhook", "url": f"{world.target}/ok/alerts"}).raise_for_status()
    later = {"api": f"{world.target}/ok/x", "delay": "1h"}
    sent = put.post("/messages", json=later).raise_for_status().json()
    yield world.run("bad")
    for path in ("/jobs/asleep", "/queues/a-queue", "/channels/a-channel", f"/messages/{sent['messageId']}"):
        put.delete(path)


def unreached(page: Page, place: str) -> list[str]:
    """The controls of a place that Tab does not reach, and what had the focus without a sign of it or outside."""
    presses = page.evaluate(WATCH, [place, CONTROLS])
    for _ in range(5):  # a time has several stops of its own
        for _ in range(presses):
            page.keyboard.press("Tab")
        if not page.evaluate(LEFT):
            break
        presses = 6
    outside = "window.outside" if place == "dialog" else "[]"
    left: list[str] = page.evaluate(f"[...{LEFT}, ...window.bare, ...{outside}]")
    return left


@pytest.mark.long
def test_tab_reaches_every_control_of_every_screen_and_shows_where_it_is(viewer: Viewer, furnished: str) -> None:
    page = viewer.page
    viewer.open("#/")
    listed = page.eval_on_selector_all("#navigation a", "links => links.map(a => a.getAttribute('href'))")
    page.get_by_role("button", name="Live").click()  # what is refreshed meanwhile would be another control
    for address in [*listed, "#/jobs/good", "#/new", "#/jobs/good/edit", f"#/executions/{furnished}"]:
        page.evaluate("a => { location.hash = a }", address)
        viewer.wait(f"location.hash === '{address}'")
        viewer.settled()
        page.locator(".switches a, .switches button").last.focus()
        assert unreached(page, "main") == [], address


@pytest.mark.long
def test_dialogs_open_and_close_by_keyboard_and_have_no_serious_finding(viewer: Viewer, furnished: str) -> None:
    """Enter opens, Tab reaches all of it and nothing else, Escape closes and gives the focus back; in the light and (contrast)
    in the dark; at 320 px nothing sticks out.
    """
    page = viewer.page
    wide = page.viewport_size
    assert wide is not None
    shown = ""
    for address, name in DIALOGS:
        is_new = address != shown
        if is_new:
            viewer.open(address.format(bad=furnished))
            shown = address
        button = page.get_by_role("button", name=name, exact=True).first
        button.wait_for()
        viewer.wait(f"[...document.querySelectorAll('button')].some(b => b.textContent === '{name}' && !b.disabled)")
        button.focus()
        page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for()
        assert page.evaluate("document.activeElement.closest('dialog') !== null"), (address, name)
        assert unreached(page, "dialog") == [], (address, name)
        assert page.locator("dialog details.curl pre").first.text_content(), (address, name)
        assert viewer.serious_findings(within="dialog") == [], (address, name)
        if is_new:
            page.emulate_media(color_scheme="dark")
            assert viewer.serious_findings("color-contrast", within="dialog") == [], (address, name)
            page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 320, "height": 844})
        viewer.wait("(d => d.scrollWidth <= d.clientWidth)(document.querySelector('dialog'))")
        page.set_viewport_size(wide)
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="detached")
        viewer.wait(f"document.activeElement.textContent === '{name}'")


def test_the_focus_stays_near_when_what_had_it_is_gone(viewer: Viewer, world: World) -> None:
    """A button that another one replaces, a row that is deleted, a filter that is taken off."""
    page = viewer.page
    world.put("focused")
    httpx.put(f"{world.url}/queues/focused", json={"maxPerSecond": 5}).raise_for_status()
    viewer.open("#/jobs/focused")
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Enter")
    page.locator("dialog[open]").wait_for()  # a key before that would move the focus that the dialog gives back
    viewer.tab_to("e.closest('.dialog-foot') && e.textContent === 'Pause'")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Resume").wait_for()
    viewer.wait("document.activeElement.closest('.actions') !== null")
    viewer.open("#/queues")
    page.get_by_role("row", name="focused").get_by_role("button", name="Delete").focus()
    page.keyboard.press("Enter")
    page.locator("dialog[open]").wait_for()  # a key before that would move the focus that the dialog gives back
    viewer.tab_to("e.closest('.dialog-foot') && e.textContent === 'Delete'")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="focused").wait_for(state="detached")
    viewer.wait("document.activeElement.closest('main') !== null")
    viewer.open("#/jobs?tag=none-such")
    page.get_by_role("button", name="Remove the filter tag").focus()
    page.keyboard.press("Enter")
    viewer.wait("document.activeElement.closest('.filters') !== null")
    httpx.delete(f"{world.url}/jobs/focused").raise_for_status()


@pytest.mark.long
def test_a_job_is_made_and_the_axis_is_read_by_keyboard_alone(viewer: Viewer, world: World) -> None:
    """From the heading, where the focus begins, through the form to the saved job; on the axis from tick to tick, and from its
    table, to what explains them.
    """
    page = viewer.page
    keys = page.keyboard
    viewer.open("#/jobs")
    viewer.wait("document.activeElement.tagName === 'H1'")
    viewer.tab_to("e.textContent === 'New job'")
    keys.press("Enter")
    viewer.wait("location.hash === '#/new'")
    for label, text in (
        ("Name", "By keyboard"),
        ("Id", "by-keyboard"),
        ("Schedule", "0 0 3 * * *"),
        ("Target URL", f"{world.target}/ok/x"),
    ):
        viewer.tab_to(f"e.closest('label')?.querySelector('.field-label')?.textContent === '{label}'")
        keys.press("Control+A")
        keys.type(text)
    page.get_by_role("button", name="Create").focus()
    keys.press("Enter")
    viewer.wait("location.hash === '#/jobs/by-keyboard'")
    world.run("by-keyboard")
    viewer.open("#/time?by=job&span=600&q=keyboard")
    page.locator(".as-table").wait_for()
    viewer.tab_to("e.tagName === 'SUMMARY'")
    keys.press("Enter")
    page.locator(".as-table td", has_text="succeeded").wait_for(timeout=25_000)
    viewer.tab_to("e.closest('.as-table td') && e.tagName === 'BUTTON'")
    keys.press("Enter")
    viewer.wait("location.hash.includes('row=by-keyboard')")
    page.get_by_role("link", name="Explain by-keyboard at").wait_for()
    assert viewer.serious_findings() == []
    viewer.tab_to("e.getAttribute('aria-label')?.startsWith('Explain by-keyboard at')")
    keys.press("Enter")
    viewer.wait("location.hash.startsWith('#/jobs/by-keyboard?at=')")
    page.locator(".explanation").first.wait_for()
    viewer.open("#/time?by=job&span=600&q=keyboard")
    page.locator(".as-table").wait_for()
    viewer.tab_to("e.tagName === 'CANVAS'")
    for key in ("ArrowDown", "Shift+ArrowLeft"):
        keys.press(key)
    page.locator(".axis [role=status]", has_text="succeeded").wait_for()
    keys.press("Enter")
    page.locator(".tick").wait_for()
    viewer.wait("document.activeElement.closest('.tick') !== null")
    httpx.delete(f"{world.url}/jobs/by-keyboard").raise_for_status()
