"""What is done to jobs, one and many, pressed in a real browser: the count first, the progress, the stop, the way back."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.browser import Viewer
    from tests.support.browser_world import World

pytestmark = [pytest.mark.timeout(300), pytest.mark.takes(45)]
OF_THE_VIEWER = ZoneInfo("Europe/Berlin")


def local(ahead: timedelta) -> str:
    """A time as an input of the viewer's browser takes it."""
    return (datetime.now(OF_THE_VIEWER) + ahead).strftime("%Y-%m-%dT%H:%M")


def test_many_jobs_are_counted_and_changed_at_once(viewer: Viewer, world: World) -> None:
    """The dialog counts what the filter of the list matches, says which, shows the progress, and finds it again."""
    page = viewer.page
    for name in ("many-1", "many-2", "many-3"):
        world.put(name, tags=["many"])
    viewer.open("#/jobs?tag=many")
    page.get_by_role("button", name="Act on all of these…").press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("3 jobs match").wait_for()
    assert "many-2" in dialog.inner_text()
    dialog.get_by_role("button", name="pause 3").press("Enter")
    dialog.get_by_text("3 of 3 done: done.").wait_for()
    assert {world.job(f"many-{n}")["state"] for n in (1, 2, 3)} == {"paused"}
    dialog.get_by_role("button", name="Close").last.press("Enter")
    page.get_by_role("button", name="Act on all of these…").press("Enter")
    dialog.get_by_label("What").select_option("patch")
    dialog.get_by_label("Merge patch").fill('{"timeoutSeconds": 7}')
    dialog.get_by_role("button", name="patch 3").press("Enter")
    dialog.get_by_text("3 of 3 done: done.").wait_for()
    assert world.job("many-1")["timeoutSeconds"] == 7
    dialog.get_by_role("button", name="Close").last.press("Enter")
    page.get_by_role("button", name="Act on all of these…").press("Enter")
    dialog.get_by_text("The latest actions").press("Enter")
    dialog.get_by_role("button", name="patch 3").first.press("Enter")
    dialog.get_by_text("3 of 3 done: done.").wait_for()


def test_an_action_on_many_jobs_is_stopped(viewer: Viewer, world: World) -> None:
    """An action that goes on slowly is found in the list, and stopped from there."""
    page = viewer.page
    lines = "".join(
        f'{{"jobId":"slowly-{n}","schedule":"@yearly","api":"{world.target}/ok/x","tags":["slowly"]}}\n'
        for n in range(60)
    )
    kind = {"Content-Type": "application/x-ndjson"}
    httpx.post(f"{world.url}/jobs/import", content=lines, headers=kind).raise_for_status()
    asked = {"action": "trigger", "filter": {"tag": "slowly"}, "maxPerSecond": 1}
    made = httpx.post(f"{world.url}/jobs/actions", json=asked).raise_for_status().json()
    viewer.open("#/jobs?tag=slowly")
    page.get_by_role("button", name="Act on all of these…").press("Enter")
    dialog = page.get_by_role("dialog").first
    dialog.get_by_text("The latest actions").press("Enter")
    dialog.get_by_role("button", name="trigger 60").first.press("Enter")
    dialog.get_by_role("progressbar").wait_for()
    viewer.confirm("Stop")
    dialog.get_by_text(": stopped.").wait_for()
    assert httpx.get(f"{world.url}/jobs/actions/{made['actionId']}").json()["state"] == "stopped"


def test_a_job_is_paused_for_a_while_with_a_reason(viewer: Viewer, world: World) -> None:
    world.put("paused-a-while")
    viewer.open("#/jobs/paused-a-while")
    page = viewer.page
    page.get_by_role("button", name="Pause").press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Until").fill(local(timedelta(hours=3)))
    dialog.get_by_label("Reason").fill("the target moves")
    dialog.get_by_role("button", name="Pause").last.press("Enter")
    page.get_by_role("button", name="Resume").wait_for()
    job = world.job("paused-a-while")
    assert (job["state"], job["pauseReason"]) == ("paused", "the target moves")
    assert job["pausedUntil"]
    page.get_by_text("the target moves").wait_for()
    viewer.confirm("Resume")
    page.get_by_role("button", name="Pause").wait_for()
    assert world.job("paused-a-while")["pausedUntil"] is None


def test_a_backfill_is_counted_begun_watched_and_stopped(viewer: Viewer, world: World) -> None:
    """The dry run says how many and what to know before; the list of the job keeps what came of it."""
    half_past = (datetime.now(OF_THE_VIEWER).minute + 30) % 60  # so that no end of a range is an occurrence
    world.put("filled", schedule=f"0 {half_past} * * * *")
    viewer.open("#/jobs/filled")
    page = viewer.page
    page.get_by_role("button", name="Backfill").press("Enter")
    dialog = page.get_by_role("dialog").first
    dialog.get_by_label("From").fill(local(timedelta(hours=-5)))
    dialog.get_by_label("Until").fill(local(timedelta(hours=-1)))
    dialog.get_by_text("4 will be sent").wait_for()
    dialog.get_by_role("button", name="Send 4").press("Enter")
    dialog.get_by_text("4 of 4 sent: done.").wait_for()
    dialog.get_by_role("button", name="Close").last.press("Enter")
    page.get_by_role("heading", name="Backfills").wait_for()
    page.get_by_role("button", name="Backfill").press("Enter")
    dialog.get_by_text("ran already,").wait_for()
    dialog.get_by_label("Also those that ran already").press("Space")
    dialog.get_by_label("At most per second").fill("0.1")
    dialog.get_by_role("button", name="Send 24").press("Enter")
    dialog.get_by_role("progressbar").wait_for()
    viewer.confirm("Stop")
    dialog.get_by_text(": stopped.").wait_for()


def test_an_earlier_revision_is_compared_and_comes_back(viewer: Viewer, world: World) -> None:
    world.put("revised", schedule="0 0 1 * * *", name="First")
    world.put("revised", schedule="0 0 2 * * *", name="Second")
    viewer.open("#/jobs/revised")
    page = viewer.page
    page.get_by_role("heading", name="Revisions").scroll_into_view_if_needed()
    newest = page.locator(".card", has=page.get_by_role("heading", name="Revisions")).locator("details")
    newest.first.locator("summary").press("Enter")
    assert newest.first.locator("del", has_text="0 0 1 * * *").is_visible()
    assert newest.first.locator("ins", has_text="0 0 2 * * *").is_visible()
    newest.nth(1).locator("summary").press("Enter")
    viewer.confirm("Revert to this")
    page.get_by_role("heading", name="First").wait_for()
    assert (world.job("revised")["schedule"], world.job("revised")["revision"]) == ("0 0 1 * * *", 3)


def test_the_editor_shows_the_crowd_and_tries_the_target(viewer: Viewer, world: World) -> None:
    """How crowded the chosen second is, and a request that is marked as a test and is no run."""
    for n in range(4):
        world.put(f"crowd-{n}", schedule="0 0 9 * * *")
    world.put("tried", schedule="0 0 9 * * *")
    viewer.open("#/jobs/tried/edit")
    page = viewer.page
    page.get_by_text("other requests are due in the busiest").wait_for()
    page.get_by_text("spreadSeconds: ").first.wait_for()
    page.get_by_role("button", name="Send a test").press("Enter")
    page.get_by_text("200 after").wait_for()
    page.get_by_text("as the path says").wait_for()
    assert httpx.get(f"{world.url}/jobs/tried/executions").json() == []
    page.get_by_label("Target URL").fill(f"{world.target}/bad/x")
    page.get_by_role("button", name="Send a test").press("Enter")
    page.get_by_text("500 after").wait_for()


def test_a_replay_at_a_slow_rate_is_stopped(viewer: Viewer, world: World) -> None:
    """The dialog may be closed: the list of the screen goes on with it."""
    world.put("stopped", api=f"{world.target}/bad/stopped")
    for _ in range(3):
        world.run("stopped")
    viewer.open("#/failed")
    page = viewer.page
    page.get_by_role("button", name="Send again…").first.press("Enter")
    dialog = page.get_by_role("dialog").first
    dialog.get_by_label("At most per second").fill("0.1")
    dialog.get_by_role("button", name=re.compile(r"Send \d")).last.press("Enter")
    dialog.get_by_role("progressbar").wait_for()
    dialog.get_by_role("button", name="Close").last.press("Enter")
    card = page.locator(".card", has=page.get_by_role("heading", name="Replays"))
    card.get_by_text("running").wait_for()
    viewer.confirm("Stop")
    card.get_by_text("stopped").wait_for()
    latest = httpx.get(f"{world.url}/executions/retry").json()["items"][0]
    assert (latest["state"], latest["sent"] < latest["matched"]) == ("stopped", True)


def test_a_file_is_imported_by_dropping_it(viewer: Viewer, world: World) -> None:
    viewer.open("#/jobs")
    line = '{"jobId":"dropped","schedule":"@hourly","api":"http://127.0.0.1:9/x"}'
    viewer.page.evaluate(
        """text => {
          const data = new DataTransfer();
          data.items.add(new File([text], "jobs.ndjson"));
          document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        }""",
        line,
    )
    dialog = viewer.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Import 1 job").press("Enter")
    dialog.get_by_text("1 created").wait_for()
    wait_until(lambda: world.job("dropped").get("schedule") == "@hourly", 5, "the job to be there")
