"""A change of a calendar is a change of every job that names it: nothing owed is lost, whoever dies, and the last one counts."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.documents.calendar import read_calendar
from cluster.core.job.definition import WantedPause
from cluster.leader import follow_calendars
from cluster.leader.follow_calendars import CalendarFollower
from cluster.store import calendars, job_calendars
from cluster.store.calendars import Calendar
from cluster.usecases import jobs
from tests.support.cranked_cluster import EACH, Cluster
from tests.support.engine import T0, rows
from tests.support.leaders import Crashed, crash_after

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

TODAY = datetime.fromtimestamp(T0 / 1000, UTC).date().isoformat()
DATES: tuple[list[str], ...] = ([], [TODAY], ["2031-01-01"])
NAMED = {**EACH, "calendar": {"name": "holidays"}}


async def put_calendar(db: Database, dates: list[str]) -> str:
    spec = read_calendar({"dates": dates})
    calendar = Calendar("holidays", spec.to_json(), spec.to_days(), T0)
    await calendars.put(db, calendar)
    return calendar.version


async def follow(cluster: Cluster) -> None:
    follower = CalendarFollower(cluster.db, cluster.clock)
    while (await follower.step()).more:
        pass


async def versions(db: Database) -> set[str]:
    return {j["calendar"]["version"] for j in await rows(db, "jobs")}


async def test_what_an_excluded_day_takes_away_is_not_sent_and_what_came_due_before_is(database: Database) -> None:
    """`horae verify` agrees, by its own reading: before the change, in between, and after the change back."""
    sent: list[int] = []
    cluster = await Cluster.begin(database)
    await put_calendar(database, [])
    await cluster.put("a", NAMED)
    await cluster.run(8)
    for dates in ([TODAY], []):
        await put_calendar(database, dates)
        await follow(cluster)
        sent.append(len(await rows(database, "history")))
        await cluster.run(25)
    final = await rows(database, "history")
    succeeded = [d for d in final if d["state"] == "succeeded"]
    assert sent[0] >= 5
    assert len(succeeded) >= sent[0] + 20
    quiet = [d for d in succeeded if T0 + 11_000 <= int(d["due_at"]) <= T0 + 30_000]
    assert not quiet, "sent on an excluded day"
    assert await cluster.findings() == {}
    periods = (await rows(database, "jobs"))[0]["past"]
    assert [p["ended_by"] for p in periods] == ["change", "change"]


async def test_a_change_that_is_killed_half_way_is_finished_by_the_next_leader(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job follows once: what was rewritten before the death is not rewritten again."""
    monkeypatch.setattr(follow_calendars, "JOBS", 2)
    cluster = await Cluster.begin(database)
    await put_calendar(database, [])
    for n in range(5):
        await cluster.put(f"j{n}", NAMED)
    await cluster.run(3)
    version = await put_calendar(database, [TODAY])
    with monkeypatch.context() as patch:
        crash_after(patch, "job_calendars", "write_timing", 2)
        with pytest.raises(Crashed):
            await follow(cluster)
    assert (await job_calendars.counts(database, "holidays", version)) == (5, 1)
    await follow(cluster)
    assert await versions(database) == {version}
    assert [j["revision"] for j in await rows(database, "jobs")] == [2] * 5
    await cluster.run(20)
    assert await cluster.findings() == {}


POINTS = [(job_calendars, "behind"), (calendars, "get"), (job_calendars, "write_timing")]


@pytest.mark.parametrize("point", range(6))
@pytest.mark.parametrize("second", [False, True])
async def test_a_follower_that_was_replaced_undoes_no_later_change(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    point: int,
    second: bool,
) -> None:
    """It stops before or after each of its calls. Meanwhile the calendar changes, another leader follows it, and a user
    changes the job; then it goes on. The job ends with the last version, whoever looks last."""
    cluster = await Cluster.begin(database)
    await put_calendar(database, DATES[0])
    await cluster.put("a", NAMED)
    await put_calendar(database, DATES[1])
    module, name = POINTS[point // 2]
    real = getattr(module, name)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def halting(*args: Any, **kwargs: Any) -> Any:
        if reached.is_set():
            return await real(*args, **kwargs)
        if point % 2:
            result = await real(*args, **kwargs)
        reached.set()
        await go_on.wait()
        return result if point % 2 else await real(*args, **kwargs)

    monkeypatch.setattr(module, name, halting)
    stale = asyncio.get_running_loop().create_task(CalendarFollower(database, cluster.clock).step())
    await reached.wait()
    version = await put_calendar(database, DATES[2])
    if second:
        await follow(cluster)
        await cluster.put("a", {**NAMED, "name": "changed"})
    go_on.set()
    await stale
    if second:
        assert await versions(database) == {version}, "a later version was undone"
    await follow(cluster)
    assert await versions(database) == {version}


@pytest.mark.parametrize(("first", "last"), list(itertools.permutations(range(3), 2)))
async def test_a_job_that_is_written_while_its_calendar_changes_follows_it(
    database: Database, monkeypatch: pytest.MonkeyPatch, first: int, last: int
) -> None:
    """A request has looked the days up, the calendar changes and all jobs have followed; then the job is written."""
    cluster = await Cluster.begin(database)
    await put_calendar(database, DATES[first])
    real = calendars.days_of

    async def overtaken(*args: Any) -> Any:
        days = await real(*args)
        await put_calendar(database, DATES[last])
        await follow(cluster)
        return days

    with monkeypatch.context() as patch:
        patch.setattr(calendars, "days_of", overtaken)
        await cluster.put("a", NAMED)
    await follow(cluster)
    stored = await calendars.get(database, "holidays")
    assert stored is not None
    assert await versions(database) == {stored.version}


async def test_ended_and_deleted_jobs_follow_no_calendar(database: Database) -> None:
    """Nor do they keep it from being deleted, but for jobs that have ended."""
    cluster = await Cluster.begin(database)
    await put_calendar(database, [])
    await cluster.put("gone", NAMED)
    await jobs.delete(database, "gone", cluster.clock.now_ms())
    await put_calendar(database, [TODAY])
    await follow(cluster)
    assert (await rows(database, "jobs"))[0]["revision"] == 2
    assert await job_calendars.using(database, "holidays", 10) == []


async def test_a_pause_ends_at_its_time_although_the_calendar_changes_in_it(database: Database) -> None:
    """The follower gives a paused job the new days; that the pause ends by itself stays true of it."""
    await put_calendar(database, ["2030-01-01"])
    cluster = await Cluster.begin(database)
    await cluster.put("a", NAMED)
    await cluster.run(5)
    await jobs.pause(database, "a", cluster.clock.now, wanted=WantedPause(T0 + 12_000, "maintenance"))
    await put_calendar(database, ["2031-01-01"])
    await follow(cluster)
    await cluster.run(14)
    (job,) = await rows(database, "jobs")
    assert (job["state"], job["pause"]) == ("active", None)
    assert {f"a:{T0 + s * 1000}" for s in range(13, 18)} <= {h["_id"] for h in await rows(database, "history")}
