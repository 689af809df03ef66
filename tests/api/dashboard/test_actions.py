"""What the buttons do: the same as the curl command that stands beside them, and nothing for those who may only read."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.browser_world import HOSTILE
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.browser import Viewer
    from tests.support.browser_world import World

pytestmark = [pytest.mark.timeout(300), pytest.mark.takes(45)]


def curl(command: str) -> str:
    """The answer to a command that the page shows."""
    done = subprocess.run(
        [*shlex.split(command.replace("\\\n", " ")), "-s"], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout


def test_a_job_is_run_paused_resumed_and_deleted(viewer: Viewer, world: World) -> None:
    """Each with one button and a dialog; curl does the same."""
    world.put("acted", name="Acted on")
    viewer.open("#/jobs/acted")
    command = viewer.confirm("Run now")
    viewer.page.get_by_role("link", name="Show").press("Enter")
    viewer.wait("location.hash.startsWith('#/executions/acted:')")
    assert "executionId" in curl(command)
    viewer.open("#/jobs/acted")
    viewer.confirm("Pause")
    viewer.page.get_by_role("button", name="Resume").wait_for()
    assert world.job("acted")["state"] == "paused"
    viewer.confirm("Resume")
    viewer.page.get_by_role("button", name="Pause").wait_for()
    assert world.job("acted")["state"] == "active"
    viewer.confirm("Delete")
    viewer.wait("location.hash === '#/jobs'")
    assert httpx.get(f"{world.url}/jobs/acted").status_code == 404


def test_what_failed_is_sent_again_one_by_one_and_by_filter(viewer: Viewer, world: World) -> None:
    """The plan comes with its count, the start with its progress; that of a group names its host and how it ended."""
    world.put("again", api=f"{world.target}/bad/again")
    execution = world.run("again")
    world.put("again", api=f"{world.target}/ok/again")
    viewer.open(f"#/executions/{execution}")
    viewer.confirm("Send again")
    wait_until(lambda: world.state(execution) == "succeeded", 20, "the execution to be sent again")
    world.run("bad")
    viewer.open("#/failed")
    dialog = viewer.page.get_by_role("dialog")
    group = viewer.page.locator(".group", has_text="500").first
    group.get_by_role("button", name="Send again…").press("Enter")
    command = dialog.locator("details.curl pre").text_content() or ""
    assert '"status":500' in command
    assert f'"host":"{world.target.removeprefix("http://")}"' in command
    viewer.page.keyboard.press("Escape")
    viewer.page.get_by_role("button", name="Send again…").first.press("Enter")
    dialog.get_by_text("match").wait_for()
    dialog.get_by_role("button", name="Send").press("Enter")
    dialog.get_by_text("sent again: done").wait_for(timeout=20_000)


def test_jobs_are_imported_from_a_file(viewer: Viewer, world: World, tmp_path: Path) -> None:
    """Good lines land; each bad one is named with its faults."""
    file = tmp_path / "jobs.ndjson"
    file.write_text(
        '{"jobId":"imported","schedule":"@hourly","api":"http://127.0.0.1:9/x"}\n{"jobId":"b","schedule":"never"}\n'
    )
    viewer.open("#/jobs")
    viewer.page.locator("input[type=file]").set_input_files(str(file))
    dialog = viewer.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Import 2 jobs").press("Enter")
    dialog.get_by_text("1 created").wait_for()
    assert "Line 2" in dialog.inner_text()
    assert world.job("imported")["schedule"] == "@hourly"


def test_text_of_users_is_never_markup(viewer: Viewer, world: World) -> None:
    """Names, descriptions, tags, headers, bodies, and what a target answers."""
    tag = "<b>'\"&"
    world.put(
        "hostile", name=HOSTILE, description=HOSTILE, tags=[tag], body={"x": HOSTILE}, headers={"X-Evil": "<i>1</i>"},
        api=f"{world.target}/hostile/%3Cimg%3E",
    )  # fmt: skip
    execution = world.run("hostile")
    message = {"api": f"{world.target}/hostile/%3Cimg%3E", "tags": [tag], "delay": "1h", "body": HOSTILE}
    sent = httpx.post(f"{world.url}/messages", json=message).raise_for_status().json()
    for address in ("#/jobs", "#/jobs/hostile", f"#/executions/{execution}", "#/failed", "#/executions", "#/messages",
                    "#/audit", "#/cluster", "#/time?by=tag&span=600", f"#/time?by=job&q={HOSTILE}",
                    f"#/jobs?tag={HOSTILE}&host={HOSTILE}&q=%3Cimg", f"#/jobs/{HOSTILE}"):  # fmt: skip
        viewer.open(address)
        for details in viewer.page.locator("main details").all():
            details.evaluate("d => d.open = true")
        assert viewer.page.locator("main img, main script, main i").count() == 0, address
        assert "owned" not in viewer.page.title().split(" · ")[-1], address
    httpx.delete(f"{world.url}/messages/{sent['messageId']}").raise_for_status()
    viewer.open("#/jobs/hostile")
    viewer.page.get_by_role("heading", name="onerror").first.wait_for()
    viewer.forgive(404, 422)


def test_a_job_is_made_changed_and_copied(viewer: Viewer, world: World) -> None:
    """By the form and as JSON; faults of the server stand beside their fields, and a secret keeps its value."""
    page = viewer.page
    viewer.open("#/new")
    page.get_by_label("Name", exact=True).fill("Made by hand")
    page.get_by_label("Id", exact=True).fill("made")
    page.get_by_label("Target URL").fill(f"{world.target}/ok/made")
    page.get_by_label("Schedule").fill("61 0 * * * *")
    page.get_by_role("button", name="Create").press("Enter")
    page.locator(".at-fault", has_text="Schedule").wait_for()
    page.get_by_label("Schedule").fill("0 30 2 * * *")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_text("at 02:30:00").wait_for()
    page.get_by_label("Signing secret").fill("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")
    page.get_by_role("button", name="Create").press("Enter")
    viewer.wait("location.hash === '#/jobs/made'")
    assert world.job("made")["timezone"] == "Europe/Berlin"
    viewer.open("#/jobs/made/edit")
    page.get_by_label("Tags").fill("one, two")
    page.get_by_role("button", name="JSON").press("Enter")
    text = page.get_by_label("The definition as JSON")
    text.fill(text.input_value().replace("Made by hand", "Changed by hand"))
    page.locator("details.curl").first.evaluate("d => d.open = true")
    assert "-X PATCH" in page.locator("details.curl pre").first.inner_text()
    page.get_by_role("button", name="Save").press("Enter")
    viewer.wait("location.hash === '#/jobs/made'")
    made = world.job("made")
    assert (made["name"], made["tags"], made["timezone"]) == ("Changed by hand", ["one", "two"], "Europe/Berlin")
    viewer.settled()
    page.get_by_role("link", name="Clone").press("Enter")
    page.get_by_text("A copy does not get its secrets").wait_for()
    page.get_by_role("button", name="Create").press("Enter")
    page.get_by_role("heading", name="Changed by hand (copy)").wait_for()
    viewer.forgive(422)


def test_the_form_has_what_follows_a_run_and_keeps_what_it_does_not_show(viewer: Viewer, world: World) -> None:
    """A chain, callbacks, a calendar, rules and bounds are made by the form; faults of nested fields stand beside them."""
    httpx.put(f"{world.url}/calendars/days", json={"dates": ["2030-12-24"]}).raise_for_status()
    callback = {
        "api": f"{world.target}/ok/told",
        "headers": {"X-Key": {"secret": "s3cret"}},
        "signingSecret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz",
    }
    world.put("follows", onSuccess=callback, retentionDays=9, startAt="2030-01-01T00:00:00Z")
    page = viewer.page
    viewer.open("#/jobs/follows/edit")
    page.get_by_label("Not after").fill("soon")
    page.get_by_label("Calendar").fill("days")
    page.get_by_label("On a day that is left out").select_option("nextIncluded")
    failed = page.get_by_role("group", name="When it has failed for good")
    failed.get_by_label("Tell").select_option("api")
    failed.get_by_label("Callback URL").fill("ftp://x")
    page.get_by_text("What it sends and what counts").press("Enter")
    page.get_by_label("Statuses that are a success").fill("200, 3xx, 999")
    page.get_by_role("button", name="Save").press("Enter")
    for label in ("Not after", "Callback URL", "Statuses that are a success"):
        page.locator(".at-fault", has_text=label).wait_for()
    page.get_by_label("Not after").fill("2031-01-01T00:00:00Z")
    failed.get_by_label("Callback URL").fill(f"{world.target}/ok/told")
    page.get_by_label("Statuses that are a success").fill("200, 3xx")
    page.get_by_role("button", name="Save").press("Enter")
    viewer.wait("location.hash === '#/jobs/follows'")
    made = world.job("follows")
    assert made["calendar"] == {"name": "days", "onExcluded": "nextIncluded"}
    assert (made["successCodes"], made["endAt"]) == ([200, "3xx"], "2031-01-01T00:00:00.000Z")
    assert made["onFailure"]["api"] == f"{world.target}/ok/told"
    kept = {"headers": {"X-Key": {"secret": True}}, "signingSecret": {"secret": True}}
    assert made["onSuccess"] == {"api": f"{world.target}/ok/told", **kept}
    assert (made["retentionDays"], made["startAt"]) == (9, "2030-01-01T00:00:00.000Z")
    viewer.open("#/jobs/follows/edit")
    page.get_by_role("button", name="After another job").press("Enter")
    page.get_by_label("Runs after the job").fill("good")
    page.get_by_label("When that one has").select_option("any")
    page.get_by_text("Once after each execution of good").wait_for()
    page.get_by_role("button", name="Save").press("Enter")
    viewer.wait("location.hash === '#/jobs/follows'")
    assert world.job("follows")["after"] == {"jobId": "good", "on": "any"}
    assert (world.job("follows")["schedule"], world.job("follows")["retentionDays"]) == (None, 9)
    httpx.delete(f"{world.url}/jobs/follows").raise_for_status()
    httpx.delete(f"{world.url}/calendars/days").raise_for_status()
    viewer.forgive(422)


def test_queues_and_channels_are_made_changed_and_deleted(viewer: Viewer, world: World) -> None:
    page = viewer.page
    viewer.open("#/queues")
    page.get_by_role("button", name="New queue").press("Enter")
    page.get_by_label("Name", exact=True).fill("mail")
    page.get_by_label("At most per second").fill("20")
    page.get_by_role("dialog").get_by_role("button", name="Create").press("Enter")
    page.get_by_role("button", name="Change").press("Enter")
    page.get_by_label("At most at once").fill("5")
    page.get_by_role("dialog").get_by_role("button", name="Save").press("Enter")
    page.get_by_role("dialog").wait_for(state="detached")
    stored = httpx.get(f"{world.url}/queues/mail").json()
    assert (stored["maxPerSecond"], stored["maxConcurrent"]) == (20, 5)
    viewer.confirm("Delete")
    page.get_by_text("There is no queue yet").wait_for()
    viewer.open("#/channels")
    page.get_by_role("button", name="New channel").press("Enter")
    page.get_by_label("Name", exact=True).fill("ops")
    page.get_by_label("URL", exact=True).fill(f"{world.target}/ok/alerts")
    page.get_by_role("dialog").get_by_role("button", name="Create").press("Enter")
    page.get_by_role("button", name="Test", exact=True).wait_for()
    viewer.confirm("Test")
    page.get_by_role("link", name="Show").press("Enter")
    viewer.wait("location.hash.startsWith('#/executions/alert.')")
    viewer.open("#/channels")
    viewer.confirm("Delete")
    page.get_by_text("There is no channel yet").wait_for()
    viewer.forgive(404)  # of the execution of the test alert, which is written a moment after the answer
