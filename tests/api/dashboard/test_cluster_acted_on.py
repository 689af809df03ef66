"""The screens of the cluster and its objects, pressed in a real browser: time, proof, nodes, calendars, windows, messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.browser import Viewer
    from tests.support.browser_world import World

pytestmark = [pytest.mark.timeout(300), pytest.mark.takes(35)]


def test_the_axis_of_time_is_moved_and_leads_to_an_explanation(viewer: Viewer, world: World) -> None:
    """Hover names the tick, a click explains it; spans, rows, zoom and keys change the address."""
    page = viewer.page
    world.put("ticking", schedule="* * * * * *", tags=["tick"])
    wait_until(lambda: len(httpx.get(f"{world.url}/jobs/ticking/executions").json()) >= 3, 20, "three runs")
    try:
        viewer.open("#/time")
        page.get_by_role("button", name="1 min", exact=True).press("Enter")
        page.get_by_role("button", name="Job", exact=True).press("Enter")
        page.get_by_role("searchbox").fill("ticking")
        viewer.wait("location.hash.includes('q=ticking')")
        canvas = page.locator(".axis canvas")
        page.get_by_text("The same as a table").press("Enter")
        page.locator(".as-table td", has_text="ticking").wait_for()
        box = canvas.bounding_box()
        assert box is not None
        now_x, row_y = box["x"] + 150 + (box["width"] - 150) / 2, box["y"] + 30 + 60

        def named() -> bool:
            page.mouse.move(now_x - 20, row_y + 1)
            page.mouse.move(now_x - 24, row_y)
            return page.locator(".tip", has_text="succeeded").count() > 0

        wait_until(named, 20, "the tick to be named")
        page.mouse.click(now_x - 24, row_y)
        viewer.wait("location.hash.startsWith('#/jobs/ticking?at=')")
        page.locator(".explanation").first.wait_for()
        viewer.open("#/time?by=job&span=600&q=ticking")
        before = viewer.hash()
        for name in ("Zoom in", "Earlier", "Later", "Zoom out"):
            page.get_by_role("button", name=name, exact=True).press("Enter")
        viewer.wait("location.hash.includes('from=')")
        assert viewer.hash() != before
        page.get_by_role("button", name="1 year", exact=True).press("Enter")
        viewer.settled()
        canvas.focus()
        page.keyboard.press("+")
        viewer.wait("location.hash.includes('from=')")
    finally:
        httpx.delete(f"{world.url}/jobs/ticking")


def test_a_verification_is_begun_and_its_findings_are_read(viewer: Viewer, world: World) -> None:
    page = viewer.page
    world.run("good")
    viewer.open("#/proof")
    page.get_by_role("button", name="Verify…").press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Only this job").fill("good")
    dialog.get_by_role("button", name="Start").press("Enter")
    viewer.wait("location.hash.startsWith('#/proof?run=')")
    page.get_by_text("No finding: all that was owed was done").wait_for()
    page.get_by_role("button", name="Hide findings").press("Enter")
    page.get_by_text("No finding: all that was owed was done").wait_for(state="detached")


@pytest.mark.long
def test_nodes_are_drained_and_work_in_hand_is_shown(viewer: Viewer, world: World) -> None:
    """Leases, limits with who waits, catch-up, the replica set; a node is drained and put back to work."""
    page = viewer.page
    viewer.open("#/cluster")
    for heading in ("Nodes", "Circuit breakers", "Limits", "Catch-up", "Leases of batches", "MongoDB"):
        page.get_by_role("heading", name=heading).wait_for()
    page.get_by_text("primary").wait_for()
    viewer.confirm("Drain")
    page.get_by_text("draining").wait_for()
    viewer.confirm("Undrain")
    page.get_by_role("button", name="Drain", exact=True).wait_for()
    wait_until(lambda: not httpx.get(f"{world.url}/cluster").json()["nodes"][0]["draining"], 20, "the node to work")
    wait_until(lambda: httpx.get(f"{world.url}/readyz").status_code == 200, 20, "the node to be ready")


def test_calendars_and_windows_are_made_changed_and_deleted(viewer: Viewer, world: World) -> None:
    page = viewer.page
    viewer.open("#/calendars")
    page.get_by_role("button", name="New calendar").press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("holidays")
    dialog.get_by_label("Dates").fill("2026-12-24, 24.12.2026")
    dialog.get_by_role("button", name="Create").press("Enter")
    dialog.locator(".fault").first.wait_for()
    dialog.get_by_label("Dates").fill("2026-12-24, 2026-12-31")
    dialog.get_by_label("Ranges").fill('[{"from": "2027-08-02", "until": "2027-08-13"}]')
    dialog.get_by_role("button", name="Create").press("Enter")
    dialog.wait_for(state="detached")
    page.get_by_role("button", name="Change").press("Enter")
    dialog.get_by_label("Weekdays").fill("SAT, SUN")
    dialog.get_by_role("button", name="Save").press("Enter")
    dialog.wait_for(state="detached")
    stored = httpx.get(f"{world.url}/calendars/holidays").json()
    assert (stored["dates"], stored["weekdays"]) == (["2026-12-24", "2026-12-31"], ["SAT", "SUN"])
    assert stored["ranges"] == [{"from": "2027-08-02", "until": "2027-08-13"}]
    viewer.confirm("Delete")
    page.get_by_text("There is no calendar yet").wait_for()
    viewer.open("#/windows")
    for name, fill in (
        ("weekly", {"Begins by": "0 0 2 * * SUN", "Lasts (s)": "7200"}),
        ("once", {"From (once)": "2030-01-01T00:00:00Z", "Until (once)": "2030-01-01T06:00:00Z"}),
    ):
        page.get_by_role("button", name="New window").press("Enter")
        dialog.get_by_label("Name", exact=True).fill(name)
        dialog.get_by_label("Jobs with a tag of").fill("billing")
        for label, text in fill.items():
            dialog.get_by_label(label, exact=True).fill(text)
        dialog.get_by_role("button", name="Create").press("Enter")
        dialog.wait_for(state="detached")
    page.get_by_role("row", name="once").get_by_role("button", name="Change").press("Enter")
    dialog.get_by_label("Mode").select_option("mute")
    dialog.get_by_role("button", name="Save").press("Enter")
    dialog.wait_for(state="detached")
    assert httpx.get(f"{world.url}/windows/once").json()["mode"] == "mute"
    for _ in range(2):
        rows = page.get_by_role("button", name="Delete", exact=True).count()
        viewer.confirm("Delete")
        viewer.wait(f"document.querySelectorAll('tbody tr').length < {rows}")
    page.get_by_text("There is no window yet").wait_for()
    viewer.forgive(422)


def test_a_message_is_sent_listed_and_cancelled(viewer: Viewer, world: World) -> None:
    page = viewer.page
    viewer.open("#/messages")
    page.get_by_role("button", name="New message").press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Target URL").fill(f"{world.target}/ok/message")
    dialog.get_by_label("In", exact=True).fill("soon")
    dialog.get_by_role("button", name="Send").press("Enter")
    dialog.locator(".at-fault", has_text="In").wait_for()
    dialog.get_by_label("In", exact=True).fill("1h")
    dialog.get_by_label("Body").fill('{"order": 1}')
    dialog.get_by_label("Other fields, as JSON").fill('{"timeoutSeconds": 5}')
    dialog.get_by_role("button", name="Send").press("Enter")
    dialog.wait_for(state="detached")
    page.get_by_role("link", name="Show").press("Enter")
    page.get_by_role("heading", name="msg.").wait_for()
    page.get_by_role("link", name="Messages").first.press("Enter")
    page.get_by_text("waiting").wait_for()
    viewer.confirm("Cancel", "Cancel the message")
    page.get_by_text("No message waits").wait_for()
    assert httpx.get(f"{world.url}/messages").json()["items"] == []
    viewer.forgive(422)
