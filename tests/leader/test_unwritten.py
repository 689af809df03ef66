"""What jobs owed before a change and no leader wrote: recorded once, for no longer than history can tell, and nobody waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.job_json import read_job
from cluster.leader import unwritten
from cluster.usecases import jobs
from tests.support.cranked_cluster import CONTEXT, EACH
from tests.support.engine import T0, Crank, job_document, lead, noting, put_jobs, rows, settle_all, worker
from tests.support.leaders import due_of
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.leader.leader import Leader
    from cluster.store.mongo.client import Database

DAY_MS = 86_400_000
SCHEDULES = ("* * * * * *", "*/2 * * * * *")


async def changed(db: Database, name: str, n: int, now_ms: int) -> None:
    await jobs.put(db, name, read_job({**EACH, "schedule": SCHEDULES[n % 2]}, CONTEXT), now_ms)


@pytest.mark.parametrize("behind", [7, 40])
async def test_changes_of_some_jobs_starve_no_others_of_a_schedule_that_is_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    """Three jobs are changed between settling and the main pass of every turn, or catch-up. The other five get all that
    they owe in the first turns all the same, and what the three owed is recorded."""
    clock = Crank()
    others = [f"other-{n}" for n in range(5)]
    await put_jobs(database, *(job_document(name) for name in others))
    for name in ("x", "y", "z"):
        await changed(database, name, 0, clock.now - 1)
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    written_s = max(await due_of(database, "other-0"))
    clock.now += (written_s + behind) * 1000
    turns = 0
    for step in (leader.materialiser, leader.catch_up):
        real = step.step

        async def just_changed(*args: Any, real: Any = real) -> Any:
            nonlocal turns
            turns += 1
            for name in ("x", "y", "z"):
                await changed(database, name, turns, clock.now)
            return await real(*args)

        monkeypatch.setattr(step, "step", just_changed)
    for _ in range(8):
        await leader.step()
    for name in others:
        assert set(range(1, written_s + behind + 10)) <= set(await due_of(database, name))
    await accounted_for(database, leader, clock)


async def accounted_for(db: Database, leader: Leader, clock: Crank) -> None:
    """In the end there is an execution or a missed range for every second that the three owed."""
    while (await leader.settler.step(clock.now, 1)).jobs:
        pass
    for name in ("x", "y", "z"):
        known = set(await due_of(db, name))
        for h in await rows(db, "history"):
            if h["job_id"] == name and "count" in h:
                known |= set(range((int(h["first_at"]) - T0) // 1000, (int(h["last_at"]) - T0) // 1000 + 1))
        seconds = set(range(0, (clock.now - T0) // 1000, 2))
        assert seconds <= known, sorted(seconds - known)[:5]


async def test_a_row_passes_over_nothing_of_a_thousand_and_more_changed_jobs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in portions; here of two, so that five are enough."""
    monkeypatch.setattr(unwritten, "JOBS", 2)
    clock = Crank()
    names = [f"c{n}" for n in range(5)]
    await put_jobs(database, job_document("other"))
    for name in names:
        await changed(database, name, 0, clock.now - 1)
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    written_s = max(await due_of(database, "other"))
    clock.now += (written_s + 5) * 1000
    for name in names:
        await changed(database, name, 1, clock.now)
    await leader.materialiser.step(clock.now, 1)
    missed = {h["job_id"]: (int(h["first_at"]), h["count"]) for h in await rows(database, "history")}
    first = T0 + (written_s + 1) * 1000
    assert missed == dict.fromkeys(names, (first, 5))
    assert max(await due_of(database, "other")) > written_s + 10
    await settle_all(leader, clock)
    assert len(await rows(database, "history")) == len(names), "settling records nothing of it twice"


async def test_what_was_delivered_is_not_recorded_as_missed_once_its_record_has_expired(database: Database) -> None:
    """A job with a short retention is changed twice before a leader looks at it, weeks after others; and another time."""
    clock = Crank()
    await jobs.put(
        database, "a", read_job({**EACH, "retentionDays": 1, "catchUpWindowSeconds": 60}, CONTEXT), clock.now
    )
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    # It ran for two days: all is delivered, recorded and pruned. A range of another job of its schedule is still open.
    clock.now += 2 * DAY_MS
    await database.api["executions"].delete_many({})
    await database.api["batches"].delete_many({})
    await database.api["schedules"].update_many({}, {"$set": {"next_at": DatetimeMS(clock.now + 15_000)}})
    (document,) = await rows(database, "jobs")
    open_range = {"key": document["schedule_key"], "job_id": "b", "from": DatetimeMS(T0), "to": DatetimeMS(T0 + 9000)}
    progress = {"at": DatetimeMS(T0), "cursor_at": DatetimeMS(T0), "until": None, "after": None, "counted": False}
    await database.api["backfills"].insert_one({"_id": "b", **open_range, **progress})
    for n in (1, 0, 1):
        clock.now += 100
        body = {**EACH, "schedule": SCHEDULES[n], "retentionDays": 1, "catchUpWindowSeconds": 60}
        await jobs.put(database, "a", read_job(body, CONTEXT), clock.now)
        await leader.settler.step(clock.now, 1)
    assert [h for h in await rows(database, "history") if h["state"] == "missed"] == []


async def test_a_settled_past_is_not_looked_at_again(database: Database) -> None:
    """Only the schedules that ended since the last settling are, so that an old one is never recorded as missed."""
    clock = Crank()
    await jobs.put(database, "a", read_job(EACH, CONTEXT), clock.now)
    await changed(database, "a", 1, clock.now + 5000)  # twice before any leader: the first schedule was in no pass
    clock.now += 6000
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    first = [h for h in await rows(database, "history") if h["state"] == "missed"]
    assert [h["count"] for h in first] == [5]
    await database.api["history"].delete_many({})  # expired
    for n in range(3):
        clock.now += 1000
        await changed(database, "a", n, clock.now)
        await settle_all(leader, clock)
    assert [h for h in await rows(database, "history") if h["state"] == "missed"] == []


@pytest.mark.parametrize("ended", ["change", "pause", "delete"])
@pytest.mark.parametrize("cancelled", [True, False])
async def test_what_a_schedule_owed_is_missed_although_an_earlier_one_had_an_execution_of_it(
    database: Database, ended: str, cancelled: bool
) -> None:
    """Every second, then every other one, which no leader sees before it ends as well. The executions of the first
    schedule come due after its end: nodes have cancelled them, or will. What the second one owed is told all the same."""
    clock = Crank()
    await changed(database, "a", 0, clock.now - 1)
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    clock.now += 3500
    await changed(database, "a", 1, clock.now)  # owes 4, 6, 8
    clock.now += 5000
    if cancelled:
        await deliver_until(database, worker(database, noting([])), clock.now)
    if ended == "change":
        await changed(database, "a", 0, clock.now)
    elif ended == "pause":
        await jobs.pause(database, "a", clock.now)
    else:
        await jobs.delete(database, "a", clock.now)
    while (await leader.settler.step(clock.now, 1)).jobs:
        pass
    (missed,) = [h for h in await rows(database, "history") if h["state"] == "missed"]
    assert (int(missed["first_at"]) - T0, int(missed["last_at"]) - T0, missed["count"]) == (4000, 8000, 3)
