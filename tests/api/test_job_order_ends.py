"""The end of the order of the next run: jobs that are active and have none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.instants import format_instant
from cluster.store import engine_jobs
from cluster.store.history import DAY_MS
from cluster.store.queries import job_walks, narrowed_jobs
from tests.support.api_client import walk
from tests.support.engine import T0, lead, settle_all
from tests.support.job_pages import imported, pages

if TYPE_CHECKING:
    from tests.support.api_client import Api

MOST = 20


def stop_clock(api: Api, at_ms: int) -> None:
    api.clock.now_ms = lambda: at_ms  # type: ignore[method-assign]


def say_few(patch: pytest.MonkeyPatch, few: int) -> None:
    patch.setattr(narrowed_jobs, "FEW", few)
    patch.setattr(narrowed_jobs, "MANY", few)
    patch.setattr(job_walks, "PASSED_OVER", MOST)


async def ends(api: Api) -> list[str]:
    """Jobs of every kind that have no next run at T0 + 10 s, in order; two others have one, and one is paused."""
    stop_clock(api, T0)
    end = format_instant(T0 + 5000)
    await api.make(jobId="parent", tags=["x"])
    await api.make(jobId="z-soon", schedule="*/3 * * * * *", endAt=format_instant(T0 + 60_000), tags=["x"])
    await api.make(jobId="m-paused", tags=["x"])
    await api.call("POST", "/jobs/m-paused/pause")
    for name in ("after-b", "after-a"):
        await api.make(jobId=name, schedule=None, after={"jobId": "parent"}, tags=["x"])
    await api.make(jobId="ended-b", schedule="* * * * * *", endAt=end, tags=["x"])
    await api.make(jobId="ended-a", schedule="* * * * * *", endAt=end, tags=["x"])
    await api.make(jobId="early", schedule="* * * * * *", endAt=format_instant(T0 + 2000), tags=["x"])
    await api.make(jobId="once", schedule=f"@at {format_instant(T0 + 4000)}", tags=["x"])
    # Its next run would be after its end, which is still to come.
    await api.make(
        jobId="between", schedule="0-3 0 0 1 1 *", startAt=format_instant(T0), endAt=await year(api), tags=["x"]
    )
    stop_clock(api, T0 + 10_000)
    return ["after-a", "after-b", "early", "once", "ended-a", "ended-b"]


async def year(api: Api) -> str:
    """An end half a year behind the next first of January."""
    made = await api.call("POST", "/jobs", {"schedule": "0 0 0 1 1 *", "api": "http://127.0.0.1:1/", "jobId": "tmp"})
    first = (await api.call("GET", "/jobs/tmp")).json["nextRuns"][0]
    assert made.status_code == 201
    await api.call("DELETE", "/jobs/tmp")
    return f"{first[:4]}-07-01T00:00:00Z"


@pytest.mark.parametrize("few", [1000, 0])
@pytest.mark.parametrize("query", ["limit=50", "limit=1", "limit=3&tag=x", "limit=2&q=x"])
async def test_active_jobs_without_a_next_run_follow_those_with_one(
    api: Api, monkeypatch: pytest.MonkeyPatch, few: int, query: str
) -> None:
    """Jobs that run after others, that have ended, or whose next run would be behind their end; then those that are paused."""
    say_few(monkeypatch, few)
    without = await ends(api)
    assert await walk(api, f"sort=nextRunAt&{query}") == ["z-soon", "parent", "between", *without, "m-paused"]
    assert await walk(api, f"sort=-nextRunAt&{query}") == ["between", "parent", "z-soon", *without, "m-paused"]
    assert await walk(api, f"sort=nextRunAt&state=active&{query}") == ["z-soon", "parent", "between", *without]
    stop_clock(api, first_of_april(await year(api)))
    listed = await walk(api, f"sort=nextRunAt&{query}")
    assert listed[0] == "parent"
    assert listed[1:-1] == ["after-a", "after-b", "early", "once", "ended-a", "ended-b", "z-soon", "between"]


def first_of_april(july: str) -> int:
    return int(datetime.fromisoformat(july.replace("-07-", "-04-")).timestamp() * 1000)


@pytest.mark.parametrize("few", [1000, 0])
@pytest.mark.parametrize("sort", ["nextRunAt", "-nextRunAt"])
async def test_one_off_jobs_that_run_between_two_pages_are_listed_once(
    api: Api, monkeypatch: pytest.MonkeyPatch, few: int, sort: str
) -> None:
    """They are completed by then: those of the first page are not listed again with the completed ones, nor the others lost."""
    say_few(monkeypatch, few)
    stop_clock(api, T0)
    for n in range(8):
        await api.make(jobId=f"once-{n}", schedule=f"@at {format_instant(T0 + 10_000 + n * 1000)}", tags=["x"])
    await api.make(jobId="before", schedule=f"@at {format_instant(T0 + 1000)}", tags=["x"])
    for name in ("daily", "other"):
        await api.make(jobId=name, tags=["x"])
    await settle_all(await lead(api.db, api.clock), api.clock)  # type: ignore[arg-type]
    stop_clock(api, T0 + 5000)
    assert await engine_jobs.complete_ended(api.db, T0 + 5000, 500) == 1
    for query in ("", "&tag=x"):
        first = (await api.call("GET", f"/jobs?sort={sort}&limit=4{query}")).json
        stop_clock(api, T0 + 60_000)
        await engine_jobs.complete_ended(api.db, T0 + 60_000, 500)
        listed, page = [j["jobId"] for j in first["items"]], first
        while page["nextCursor"] is not None:
            page = (await api.call("GET", f"/jobs?sort={sort}&limit=2{query}&cursor={page['nextCursor']}")).json
            listed += [j["jobId"] for j in page["items"]]
        assert len(listed) == len(set(listed)) == 11
        assert listed[-1] == "before"
        stop_clock(api, T0 + 5000)
        await api.db.api["jobs"].update_many({"_id": {"$regex": "^once"}}, {"$set": {"state": "active"}})


async def test_jobs_with_an_end_to_come_are_not_read_for_those_that_have_ended(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are all that have ended read for a page of them, with and without a filter."""
    say_few(monkeypatch, 2)
    await imported(api, [{"jobId": f"far-{n:03}", "endAt": "2099-01-01T00:00:00Z", "tags": ["x"]} for n in range(80)])
    await api.make(jobId="parent")
    await imported(
        api, [{"jobId": f"on-{n:03}", "schedule": None, "after": {"jobId": "parent"}, "tags": ["x"]} for n in range(60)]
    )
    stop = api.clock.now_ms()
    once: dict[str, Any] = {"schedule": f"@at {format_instant(stop + 600_000)}", "tags": ["x"]}
    await imported(api, [{"jobId": f"once-{n:03}", **once} for n in range(60)])
    await api.db.api["jobs"].update_many({}, {"$unset": {"unsettled": ""}})
    stop_clock(api, stop + 700_000)
    ended = [f"on-{n:03}" for n in range(60)] + [f"once-{n:03}" for n in range(60)]
    for query in ("state=active", "tag=x", "q=x"):
        found: list[str] = []
        # The first pages hold jobs with a next run, of which the walk of schedules reads some more.
        read = await pages(api, f"sort=nextRunAt&limit=10&{query}", 30)
        for ids, examined in read:
            found += [i for i in ids if i in ended]
            if set(ids) <= set(ended):
                assert examined <= 14 + 2 * MOST, query
        assert found == ended, query


@pytest.mark.parametrize("few", [1000, 0])
@pytest.mark.parametrize("query", ["limit=1", "limit=1&tag=x"])
async def test_jobs_that_a_calendar_leaves_no_run_hide_no_other_one(
    api: Api, monkeypatch: pytest.MonkeyPatch, few: int, query: str
) -> None:
    """Their first occurrence is behind their end now. They stand with the active jobs without a next run, then with the
    completed ones.
    """
    say_few(monkeypatch, few)
    stop_clock(api, T0)
    bounds = {"startAt": format_instant(T0 + 2 * DAY_MS), "endAt": format_instant(T0 + 9 * DAY_MS)}
    await api.call("PUT", "/calendars/days", {"weekdays": ["SUN"]})
    for name in ("none-a", "none-b", "none-c"):
        await api.make(jobId=name, schedule="@daily", calendar={"name": "days"}, tags=["x"], **bounds)
    await api.make(jobId="near", schedule="0 0 * * * *", tags=["x"])
    await api.make(jobId="far", schedule=f"@at {format_instant(T0 + 300 * DAY_MS)}", tags=["x"])
    dates = [datetime.fromtimestamp(T0 / 1000 + n * 86_400, UTC).date().isoformat() for n in range(20)]
    await api.call("PUT", "/calendars/days", {"dates": dates})
    leader = await lead(api.db, api.clock)
    for _ in range(3):
        await leader.calendar_follower.step()
        await settle_all(leader, api.clock)  # type: ignore[arg-type]
    without = ["none-a", "none-b", "none-c"]
    for at_ms in (T0, T0 + 10 * DAY_MS):
        stop_clock(api, at_ms)
        await engine_jobs.complete_ended(api.db, at_ms, 500)
        assert await walk(api, f"sort=nextRunAt&{query}") == ["near", "far", *without]
        assert await walk(api, f"sort=-nextRunAt&{query}") == ["far", "near", *without]


@pytest.mark.parametrize("few", [1000, 0])
async def test_paused_and_completed_jobs_have_no_next_run(api: Api, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """`nextRunBefore` leaves them out, also those whose pause ends before it; what is imminent is in it."""
    say_few(monkeypatch, few)
    stop_clock(api, T0)
    for name in ("soon", "paused", "until", "late"):
        await api.make(jobId=name, schedule="@daily" if name == "late" else "*/5 * * * * *", tags=["x"])
    await api.make(jobId="once", schedule=f"@at {format_instant(T0 + 1000)}", tags=["x"])
    await settle_all(await lead(api.db, api.clock), api.clock)  # type: ignore[arg-type]
    await api.call("POST", "/jobs/paused/pause")
    paused = await api.call("POST", "/jobs/until/pause", {"until": format_instant(T0 + 30_000)})
    assert paused.status_code == 200, paused.text
    stop_clock(api, T0 + 3000)
    await engine_jobs.complete_ended(api.db, T0 + 3000, 500)
    before = format_instant(T0 + 60_000)
    for sort in ("nextRunAt", "-nextRunAt", "name", "-createdAt", "-lastRunAt"):
        for query in ("", "&tag=x", "&state=active,paused", "&q=x"):
            assert await walk(api, f"sort={sort}&nextRunBefore={before}{query}") == ["soon"], (sort, query)
        assert await walk(api, f"sort={sort}&nextRunBefore={before}&state=paused") == []
    assert (await walk(api, "sort=nextRunAt"))[:2] == ["soon", "late"]


@pytest.mark.parametrize(("schedule", "more"), [("0 0 0 1 1 *", {}), ("@daily", {"startAt": "2098-01-01T00:00:00Z"})])
async def test_jobs_that_are_due_late_are_found_without_reading_all_before_them(
    api: Api, monkeypatch: pytest.MonkeyPatch, schedule: str, more: dict[str, Any]
) -> None:
    """Jobs with a tag that run last of all, or begin later than all, while more of them have it than are sorted at once."""
    say_few(monkeypatch, 2)
    monkeypatch.setattr(narrowed_jobs, "MANY", 30)
    others = [{"jobId": f"soon-{n:03}", "schedule": f"{n % 60} {n // 60} * * * *", "tags": ["y"]} for n in range(200)]
    begin = [
        {"jobId": f"to-{n:03}", "startAt": f"20{n // 50 + 90}-01-01T00:00:{n % 50:02}Z", "tags": ["y"]}
        for n in range(200)
    ]
    late = [{"jobId": f"late-{n:03}", "schedule": schedule, "tags": ["x"], **more} for n in range(30)]
    stop_clock(api, T0)
    await imported(api, [*others, *begin, *late])
    await settle_all(await lead(api.db, api.clock), api.clock)  # type: ignore[arg-type]
    for sort, wanted in (("nextRunAt", range(30)), ("-nextRunAt", range(29, -1, -1))):
        read = await pages(api, f"sort={sort}&limit=10&tag=x", 4)
        assert [i for ids, _ in read for i in ids] == [f"late-{n:03}" for n in wanted]
        assert max(examined for _, examined in read) < 430 / 2, read
        assert len(await walk(api, f"sort={sort}&limit=200&tag=y")) == 400
