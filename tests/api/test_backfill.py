"""`/jobs/{jobId}/backfill`: what would be sent, what is refused, and the progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Ending
from cluster.core.instants import format_instant
from cluster.core.lifecycle import State
from cluster.store import history, jobs, missed_ranges
from cluster.store.missed_ranges import MissedRange
from cluster.usecases import backfill
from tests.support.api_client import paths
from tests.support.engine import Crank, lead
from tests.support.execution_values import attempt, execution

if TYPE_CHECKING:
    from tests.support.api_client import Api

HOUR = 3_600_000
LONG_AGO = {"from": "2026-03-28T00:00:00Z", "until": "2026-03-31T00:00:00Z"}
"""Clocks go forward in Berlin on the 29th."""


async def test_a_dry_run_says_what_would_be_sent(api: Api) -> None:
    """Of the time before the job existed too; what has a final result is counted, and nothing is stored."""
    await api.make(jobId="j", schedule="0 0 * * * *")
    now = api.clock.now_ms()
    first = now - now % HOUR - 5 * HOUR
    found = [
        Ending(execution("j", first + HOUR), State.SUCCEEDED, now, (attempt(1, now),)),
        Ending(execution("j", first + 2 * HOUR), State.DEAD, now, (attempt(1, now),)),
        Ending(execution("j", first + 3 * HOUR), State.MISSED, now, (), "no leader"),
    ]
    await history.record(api.db, found, 7)
    # Created just now: that its retention was not shorter before is known by the shortest that was ever in use.
    asked = {"from": format_instant(first), "until": format_instant(now), "dryRun": True}
    answer = await api.call("POST", "/jobs/j/backfill", asked)
    assert answer.status_code == 200, answer.text
    assert {k: v for k, v in answer.json.items() if k != "remarks"} == {
        "dryRun": True,
        "count": 6,
        "first": format_instant(first),
        "last": format_instant(first + 5 * HOUR),
        "alreadyRun": 2,
        "toSend": 4,
    }
    assert answer.json["remarks"][0].startswith("6 of them are before the job was created")
    again = await api.call("POST", "/jobs/j/backfill", {**asked, "again": True})
    assert again.json["toSend"] == 6
    assert await api.db.api["requested_backfills"].count_documents({}) == 0


async def test_a_dry_run_says_what_is_different_in_that_time(api: Api) -> None:
    """Changed clocks, an earlier schedule, a pause, the age, the overlap, startAt."""
    await api.make(
        jobId="j",
        schedule="0 30 2 * * *",
        timezone="Europe/Berlin",
        overlap="skip",
        retry={"maxAgeSeconds": 1},
        startAt="2026-03-28T12:00:00Z",
    )
    await api.db.api["jobs"].update_one(
        {"_id": "j"},
        {
            "$set": {"created_at": DatetimeMS(0)},
            "$push": {
                "past": {
                    "schedule_version": "v", "schedule": "@daily", "timezone": "UTC", "anchor": None, "start_at": None,
                    "end_at": None, "from": DatetimeMS(1_774_700_000_000), "to": DatetimeMS(1_774_800_000_000),
                    "ended_by": "pause", "key": "cron|0 0 0 * * *|UTC", "retention_days": None,
                }
            },
        },
    )  # fmt: skip
    asked = {**LONG_AGO, "again": True, "dryRun": True, "maxPerSecond": 0.1}
    answer = await api.call("POST", "/jobs/j/backfill", asked)
    assert answer.json["count"] == 2
    text = "\n".join(answer.json["remarks"])
    for part in (
        "its schedule was `@daily`",
        "it was paused from 2026-03-29",
        "at 2026-03-29T01:00:00.000Z clocks in Europe/Berlin went forward: the job runs when the gap ends",
        "maxAgeSeconds (1) counts from the request",
        "`overlap` is `skip`: each run waits",
        "outside its startAt and endAt",
    ):
        assert part in text


INVALID: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["from", "until"]),
    ({"from": "yesterday", "until": "2026-01-01T00:00:00Z"}, ["from"]),
    ({"from": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z", "again": True}, ["from"]),
    ({"from": "2026-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z", "again": True}, ["until"]),
    (LONG_AGO, ["from"]),
    ({**LONG_AGO, "again": True, "maxPerSecond": 0}, ["maxPerSecond"]),
    ({**LONG_AGO, "again": "yes"}, ["again"]),
    ({**LONG_AGO, "order": "newest"}, ["order"]),
]


@pytest.mark.parametrize(("body", "where"), INVALID)
async def test_an_invalid_backfill_names_its_fields(api: Api, body: dict[str, Any], where: list[str]) -> None:
    """422, with what to do: a time that has not come is the schedule's, one whose results may be gone needs `again`."""
    await api.make(jobId="j")
    answer = await api.call("POST", "/jobs/j/backfill", body)
    assert (answer.status_code, paths(answer)) == (422, where)
    message = answer.json["errors"][0]["message"]
    if where == ["until"]:
        assert "must not be in the future" in message
    if body == LONG_AGO:
        assert '"again": true' in message


async def test_the_shortest_retention_bounds_what_is_known(api: Api) -> None:
    """For the time before the job's last change: it may have had that retention."""
    await api.make(jobId="short", retentionDays=0.5)
    await api.make(jobId="j", schedule="0 0 * * * *")
    now = api.clock.now_ms()
    asked = {"until": format_instant(now), "dryRun": True}
    for hours, status in ((11, 200), (13, 422)):
        answer = await api.call("POST", "/jobs/j/backfill", {**asked, "from": format_instant(now - hours * HOUR)})
        assert answer.status_code == status, answer.text
    await api.db.api["jobs"].update_one({"_id": "j"}, {"$set": {"updated_at": DatetimeMS(0)}})
    answer = await api.call("POST", "/jobs/j/backfill", {**asked, "from": format_instant(now - 100 * HOUR)})
    assert answer.status_code == 200, answer.text


async def test_too_many_occurrences_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted within one request."""
    monkeypatch.setattr(backfill, "MOST_OCCURRENCES", 500)
    await api.make(jobId="j", schedule="* * * * * *")
    answer = await api.call("POST", "/jobs/j/backfill", {**LONG_AGO, "again": True, "dryRun": True})
    assert (answer.status_code, paths(answer)) == (422, ["from"])


async def test_a_backfill_can_be_followed_listed_and_stopped(api: Api) -> None:
    """The same key begins one; another job has none of it."""
    await api.make(jobId="j")
    await api.make(jobId="other")
    asked = {**LONG_AGO, "again": True, "maxPerSecond": 1}
    first, second = [await api.call("POST", "/jobs/j/backfill", asked, Idempotency_Key="k") for _ in range(2)]
    assert first.status_code == 202, first.text
    assert first.json == second.json
    name = first.json["backfillId"]
    assert first.headers["location"] == f"/jobs/j/backfill/{name}"
    leader = await lead(api.db, Crank(api.clock.now_ms()))
    await leader.backfiller.step(api.clock.now_ms())
    shown = (await api.call("GET", f"/jobs/j/backfill/{name}")).json
    assert {k: shown[k] for k in ("state", "count", "sent", "alreadyRun", "unknown", "again")} == {
        "state": "running", "count": 3, "sent": 1, "alreadyRun": 0, "unknown": 0, "again": True
    }  # fmt: skip
    owed = (await api.call("GET", "/jobs/j/executions?state=pending")).json
    assert [e["executionId"] for e in owed] == [f"j:1774666800000:{name}"]
    one = await api.call("GET", f"/executions/{owed[0]['executionId']}")
    assert (one.status_code, one.json["scheduledAt"]) == (200, "2026-03-28T03:00:00.000Z")
    assert (await api.call("DELETE", f"/jobs/other/backfill/{name}")).status_code == 404
    for _ in range(2):
        assert (await api.call("DELETE", f"/jobs/j/backfill/{name}")).status_code == 204
    listed = (await api.call("GET", "/jobs/j/backfill")).json["items"]
    assert [(b["backfillId"], b["state"]) for b in listed] == [(name, "stopped")]
    assert (await api.call("GET", "/jobs/other/backfill")).json == {"items": [], "nextCursor": None}
    for path in ("/jobs/none/backfill", "/jobs/other/backfill/" + name, "/jobs/j/backfill/nope"):
        assert (await api.call("GET", path)).status_code == 404
    assert (await api.call("POST", "/jobs/none/backfill", asked)).status_code == 404


async def test_the_backfills_of_a_job_are_listed_in_pages(api: Api) -> None:
    """The latest first, those of one millisecond too: no page repeats or leaves out one, and a false cursor is a fault."""
    await api.make(jobId="j")
    await api.make(jobId="other")
    asked = {**LONG_AGO, "again": True, "maxPerSecond": 1}
    made = [(await api.call("POST", f"/jobs/{j}/backfill", asked)).json["backfillId"] for j in ("j",) * 5 + ("other",)]
    listed: list[str] = []
    cursor = ""
    for size in (2, 2, 1):
        page = (await api.call("GET", f"/jobs/j/backfill?limit=2{cursor}")).json
        listed += [b["backfillId"] for b in page["items"]]
        assert len(page["items"]) == size
        cursor = f"&cursor={page['nextCursor']}"
    assert page["nextCursor"] is None
    assert sorted(listed) == sorted(made[:5])
    assert (await api.call("GET", "/jobs/j/backfill?limit=5")).json["nextCursor"] is None
    refused = await api.call("GET", "/jobs/j/backfill?cursor=none")
    assert (refused.status_code, paths(refused)) == (422, ["cursor"])


@pytest.mark.parametrize(
    ("first", "last", "remark"),
    [(0, 9, False), (1, 4, False), (0, 3, True), (2, 9, True), (2, 3, True), (4, 9, False), (0, 1, False)],
)
async def test_a_dry_run_names_a_missed_range_of_which_it_has_a_part(
    api: Api, first: int, last: int, remark: bool
) -> None:
    """Its record stays, so whoever names its last occurrence as `until` should know that this one is not in it."""
    await api.make(jobId="j", schedule="@hourly")
    start = api.clock.now_ms() // 3_600_000 * 3_600_000 - 12 * 3_600_000
    at = [start + n * 3_600_000 for n in range(10)]
    job = await jobs.get(api.db, "j")
    assert job is not None
    missed = MissedRange("j", job.schedule_version, at[1], at[3], 3, "no leader")
    await missed_ranges.record(api.db, [missed], api.clock.now_ms(), 7)
    asked = {"from": format_instant(at[first]), "until": format_instant(at[last]), "dryRun": True}
    for again in (False, True):
        answer = await api.call("POST", "/jobs/j/backfill", {**asked, "again": again})
        told = [r for r in answer.json.get("remarks", []) if "recorded as missed together" in r]
        assert bool(told) == (remark and not again), answer.text
