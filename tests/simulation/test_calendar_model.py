"""The model of calendars is kept honest: the same random calls to it and to a real MongoDB get the same answers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp, follow_calendar
from cluster.core.job.definition import Definition, JobCalendar
from cluster.core.schedule.calendar_days import excluded_days
from cluster.store import calendars, job_calendars, jobs
from cluster.store.calendars import Calendar
from tests.simulation.model import Store, at_once
from tests.simulation.twins import TWINS

if TYPE_CHECKING:
    from cluster.core.job.definition import JobChange, StoredJob
    from cluster.store.mongo.client import Database

NOW = 1_900_000_000_000
CALLS = 250
DAYS = [excluded_days(days) for days in ([], [(20_900, 20_900)], [(20_901, 20_950)])]
NAMES = ["c", "d", "gone"]
JOBS = [f"j{n}" for n in range(5)]


def by_id(answer: Any) -> Any:
    """Jobs in an order of their own: the store promises none."""
    return sorted(answer[0], key=lambda j: j.id), answer[1]


def empty_store() -> Any:
    store = Store(lambda: NOW)
    vars(store)["calendars"] = {}
    return store


class Caller:
    """Makes up calls from few names, some with jobs that were read a while ago."""

    def __init__(self, database: Database, seed: int) -> None:
        self.random = random.Random(seed)
        self.database = database
        self.store = empty_store()
        self.seen: list[StoredJob] = []
        self.changes = 0

    async def both(self, module: Any, name: str, *args: Any) -> Any:
        twin = TWINS[module.__name__.removeprefix("cluster.store.")][name]
        ours = at_once(twin(self.store, *args))
        theirs = await getattr(module, name)(self.database, *args)
        if name == "behind":
            ours, theirs = by_id(ours), by_id(theirs)
        assert ours == theirs, f"{name}{args}"
        return theirs

    def stamp(self) -> ChangeStamp:
        self.changes += 1
        return ChangeStamp(NOW + self.changes, f"v{self.changes}", f"c{self.changes}")

    async def make_jobs(self) -> None:
        for n, job_id in enumerate(JOBS):
            calendar = JobCalendar(NAMES[n % 2], "skip", DAYS[0]) if n else None
            d = Definition("0 0 3 * * *", "http://t/", 0, calendar=calendar)
            made = changes.define(None, job_id, d, self.stamp())
            assert made is not None
            assert await self.both(jobs, "insert", made)

    async def call(self) -> None:
        """One call, to both."""
        what = self.random.choice(["put", "versions", "get", "behind", "behind", "follow", "follow", "change"])
        await getattr(self, f"_{what}")()

    async def _put(self) -> None:
        calendar = Calendar(self.random.choice(NAMES[:2]), {"weekdays": []}, self.random.choice(DAYS), NOW)
        await calendars.put(self.database, calendar)
        self.store.calendars[calendar.name] = calendar

    async def _versions(self) -> None:
        await self.both(calendars, "versions")

    async def _get(self) -> None:
        await self.both(calendars, "get", self.random.choice(NAMES))

    async def _behind(self) -> None:
        excluded = self.random.choice([[], JOBS[1:3]])
        version = Calendar("c", {}, self.random.choice(DAYS), NOW).version
        name = self.random.choice(NAMES)
        found, _ = await self.both(job_calendars, "behind", name, version, len(JOBS), excluded)
        self.seen = [*self.seen[-4:], *found]

    async def _follow(self) -> None:
        """Also twice the same, and for a job that has changed since it was read."""
        days = self.random.choice(DAYS)
        chosen = self.random.sample(self.seen, min(2, len(self.seen)))
        made = [follow_calendar(j, days, self.stamp()) for j in {j.id: j for j in chosen}.values()]
        await self.both(job_calendars, "write_timing", [c for c in made if c is not None])

    async def _change(self) -> None:
        job = await self.both(jobs, "get", self.random.choice(JOBS))
        if job.state == "deleted":
            return
        decided: JobChange | None = self.random.choice([changes.pause, changes.resume, changes.delete])(
            job, self.stamp()
        )
        if decided is not None and not (decided.job.state == "deleted" and self.random.random() < 0.8):
            await self.both(jobs, "update", decided)


@pytest.mark.parametrize("seed", range(2))
async def test_calendars_answer_as_mongodb_does(database: Database, seed: int) -> None:
    """Which jobs are behind a version, and which of the writes that follow it are on the revision that was read."""
    caller = Caller(database, seed)
    await caller.make_jobs()
    for _ in range(CALLS):
        await caller.call()
    stored = {d["_id"]: d async for d in database.api["jobs"].find()}
    fields = ("revision", "state", "schedule_key", "schedule_version", "calendar")
    assert {i: [d.get(f) for f in fields] for i, d in caller.store.documents.items()} == {
        i: [d.get(f) for f in fields] for i, d in stored.items()
    }
    assert max(d["revision"] for d in stored.values()) > 3
