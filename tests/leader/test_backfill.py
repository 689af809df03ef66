"""Requested backfills: what has not run is sent once, the oldest first, whoever dies at which write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Attempt, Ending, Execution
from cluster.core.ids import execution_id
from cluster.core.lifecycle import State
from cluster.store import executions, history, missed_ranges, requested_backfills
from cluster.store.missed_ranges import MissedRange
from cluster.usecases import backfill as use
from cluster.usecases import jobs as use_jobs
from cluster.usecases.backfill import BackfillRequest
from tests.support.engine import T0, Crank, check_books, job_document, lead, noting, put_jobs, rows, worker
from tests.support.leaders import Crashed, crash_after
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from cluster.leader.leader import Leader
    from cluster.store.mongo.client import Database

MINUTE = 60_000
FROM = T0 - T0 % MINUTE - 60 * MINUTE
DUES = [FROM + i * MINUTE for i in range(30)]
UNTIL = FROM + 30 * MINUTE


async def fill(db: Database, **fields: Any) -> None:
    """A job on every minute that was created after the time that is backfilled."""
    await put_jobs(db, job_document("j", "0 * * * * *", schedule_version="v1", **fields))


async def begin(db: Database, name: str = "b" * 32, *, again: bool = False, rate: float = 10, now: int = T0) -> str:
    request = BackfillRequest("j", FROM, UNTIL, again, rate, now)
    await use.start(db, name, request, await use.plan(db, request, 7))
    return name


async def write_all(leader: Leader, clock: Crank) -> int:
    """Run pages until the backfill has ended, without waiting for the rate. Returns how many executions were owed."""
    owed = 0
    while await requested_backfills.next_due(leader.backfiller._db) is not None:
        owed += (await leader.backfiller.step(clock.now_ms())).executions
        clock.now += 5000
    return owed


async def send_all(db: Database, clock: Crank, status: int = 200) -> list[str]:
    sent: list[str] = []
    clock.now += 10_000
    await db.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(0)}})
    await run_dry(worker(db, noting(sent, status=status), clock=clock))
    return sent


def ended(due: int, state: State, version: str = "v1") -> Ending:
    x = Execution(execution_id("j", due), "j", due, due, version, "b", 0)
    attempts = () if state in (State.MISSED, State.CANCELLED) else (Attempt(1, due, "n", 1, 5.0, 200),)
    return Ending(x, state, due + 200, attempts, "why", 3)


async def test_what_has_not_run_is_sent_the_oldest_first(database: Database) -> None:
    """Also before the job existed; under the ids of the occurrences; what is final, or owed, is left out."""
    await fill(database)
    await history.record(database, [ended(DUES[2], State.SUCCEEDED), ended(DUES[3], State.CANCELLED)], 3650)
    owed = Execution(execution_id("j", DUES[4]), "j", DUES[4], DUES[4], "v1", "own", 0)
    await executions.insert(database, [owed])
    name = await begin(database)
    clock = Crank()
    leader = await lead(database, clock)
    assert await write_all(leader, clock) == 27
    batches = await rows(database, "batches")
    assert all(b["late"] for b in batches)
    sent = await send_all(database, clock)
    expected = [execution_id("j", t) for t in DUES if t not in (DUES[2], DUES[3], DUES[4])]
    assert sorted(sent) == expected
    done = await requested_backfills.get(database, name)
    assert done is not None
    assert (done.state, done.count, done.sent, done.already, done.unknown) == ("done", 30, 27, 3, 0)
    by_id = {h["_id"]: h for h in await rows(database, "history")}
    one = by_id[expected[0]]
    assert (one["state"], one["trigger"], int(one["asked_at"]), one["request"]) == ("succeeded", True, T0, name)
    assert one["drift_ms"] < 60_000  # from its turn, not from the time that is backfilled


async def test_pages_are_claimed_in_order(database: Database) -> None:
    """The executions of a page are one batch, in order of their due times; pages follow each other."""
    await fill(database)
    await begin(database)
    clock = Crank()
    leader = await lead(database, clock)
    await write_all(leader, clock)
    found = sorted(await rows(database, "batches"), key=lambda b: int(b["claimable_at"]))
    assert [i for b in found for i in b["ids"]] == [execution_id("j", t) for t in DUES]
    sends = {e["_id"]: int(e["send_at"]) for e in await rows(database, "executions")}
    assert sorted(sends, key=sends.__getitem__) == sorted(sends)


async def test_a_backfill_keeps_its_rate_and_leaves_room_for_late_work(database: Database) -> None:
    """Ten a second; none while much late work is waiting."""
    await fill(database)
    await begin(database)
    leader = await lead(database, Crank())
    sent = [(await leader.backfiller.step(T0 + ms)).executions for ms in (0, 500, 999, 1000, 1500)]
    assert sent == [10, 0, 0, 10, 0]
    one = (await rows(database, "batches"))[0]
    await database.api["batches"].insert_many([{**one, "_id": f"l{i}"} for i in range(32)])
    assert (await leader.backfiller.step(T0 + 9000)).executions == 0


WRITES = [
    *[("requested_backfills", "save", n) for n in (1, 2, 4)],
    ("requested_backfills", "save_page", 2),
    ("requested_backfills", "reopen_missed", 1),
    ("requested_backfills", "delete_missed_ranges", 2),
    *[("executions", "insert", n) for n in (1, 3)],
    ("batches", "insert", 2),
]


@pytest.mark.parametrize(("module", "name", "nth"), WRITES)
async def test_a_leader_that_dies_at_any_write_sends_each_occurrence_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: str, name: str, nth: int
) -> None:
    """Its successor does the same page again; what was sent meanwhile is not sent again."""
    await fill(database)
    await history.record(database, [ended(DUES[1], State.MISSED)], 3650)
    await missed_ranges.record(database, [MissedRange("j", "v1", DUES[4], DUES[8], 5, "no leader")], T0, 3650)
    backfill = await begin(database)
    clock = Crank()
    first = await lead(database, clock)
    with monkeypatch.context() as patch:
        calls = crash_after(patch, module, name, nth)
        with pytest.raises(Crashed):
            await write_all(first, clock)
        assert calls == [nth]
    sent = await send_all(database, clock)  # what it had owed is sent before its successor comes
    clock.now += 5000
    await write_all(await lead(database, clock, "b"), clock)
    sent += await send_all(database, clock)
    assert sorted(sent) == [execution_id("j", t) for t in DUES]
    done = await requested_backfills.get(database, backfill)
    assert done is not None
    assert (done.state, done.sent, done.already) == ("done", 30, 0)
    assert {h["state"] for h in await rows(database, "history")} == {"succeeded"}
    await check_books(database)


async def test_missed_records_are_superseded(database: Database) -> None:
    """One of its own is reopened; a range goes once all of it has records; one of another schedule, or that reaches out, stays."""
    await fill(database)
    await history.record(database, [ended(DUES[1], State.MISSED)], 3650)
    ranges = [
        MissedRange("j", "v1", DUES[4], DUES[8], 5, "no leader"),
        MissedRange("j", "v0", DUES[10], DUES[12], 3, "no leader, and another schedule"),
        MissedRange("j", "v1", DUES[28], DUES[29] + 10 * MINUTE, 12, "no leader"),
    ]
    await missed_ranges.record(database, ranges, T0, 3650)
    await begin(database)
    clock = Crank()
    leader = await lead(database, clock)
    await write_all(leader, clock)
    assert len(await send_all(database, clock)) == 30
    left = [h for h in await rows(database, "history") if h["state"] == "missed"]
    assert [int(h["first_at"]) for h in left] == [DUES[10], DUES[28]]
    one = next(h for h in await rows(database, "history") if h["_id"] == execution_id("j", DUES[1]))
    assert (one["state"], "count" in one) == ("succeeded", False)


async def test_again_sends_everything_under_ids_of_its_own(database: Database) -> None:
    """What has run keeps its record."""
    await fill(database)
    await history.record(database, [ended(t, State.SUCCEEDED) for t in DUES[:5]], 3650)
    name = await begin(database, again=True)
    clock = Crank()
    await write_all(await lead(database, clock), clock)
    sent = await send_all(database, clock)
    assert sorted(sent) == [f"j:{t:013d}:{name}" for t in DUES]
    assert len(await rows(database, "history")) == 35


async def test_a_stopped_backfill_begins_no_page(database: Database) -> None:
    """What it has begun is sent."""
    await fill(database)
    name = await begin(database)
    clock = Crank()
    leader = await lead(database, clock)
    await leader.backfiller.step(T0)
    await use.stop(database, "j", name, T0)
    assert await write_all(leader, clock) == 0
    assert len(await send_all(database, clock)) == 10
    stopped = await requested_backfills.get(database, name)
    assert stopped is not None
    assert (stopped.state, stopped.sent) == ("stopped", 10)


async def test_a_deletion_ends_the_backfill(database: Database) -> None:
    """With the reason; also if the job was created again. What it had begun is cancelled with the job."""
    await fill(database)
    name = await begin(database)
    clock = Crank()
    leader = await lead(database, clock)
    await leader.backfiller.step(T0)
    await use_jobs.delete(database, "j", T0 + 10)
    assert await write_all(leader, clock) == 0
    found = await requested_backfills.get(database, name)
    assert found is not None
    assert (found.state, found.reason) == ("stopped", "the job was deleted")
    assert await send_all(database, clock) == []
    assert {h["state"] for h in await rows(database, "history")} == {"cancelled"}


async def test_a_pause_after_the_request_holds_the_backfill(database: Database) -> None:
    """It goes on at the resume; one that is asked for during a pause is sent."""
    await fill(database)
    name = await begin(database)
    clock = Crank()
    leader = await lead(database, clock)
    await use_jobs.pause(database, "j", T0 + 10)
    assert (await leader.backfiller.step(T0 + 20)).executions == 0
    assert (await leader.backfiller.step(T0 + 1000)).executions == 0
    await use_jobs.resume(database, "j", T0 + 2000)
    assert (await leader.backfiller.step(T0 + 6000)).executions == 10
    await use.stop(database, "j", name, T0)
    await use_jobs.pause(database, "j", T0 + 7000)
    await begin(database, "c" * 32, now=T0 + 8000)
    assert (await leader.backfiller.step(T0 + 9000)).executions == 10


async def test_what_may_have_expired_meanwhile_is_left_out(database: Database) -> None:
    """A slow backfill looks at times whose records expire while it runs: nobody knows then what ran."""
    await fill(database, retention_days=1 / 24, active_from=FROM - 1, updated_at=DatetimeMS(FROM - 1))
    clock = Crank(FROM + 60 * MINUTE)
    name = await begin(database, now=clock.now)
    leader = await lead(database, clock)
    clock.now += 10 * MINUTE
    await write_all(leader, clock)
    found = await requested_backfills.get(database, name)
    assert found is not None
    assert found.unknown >= 10
    assert found.unknown + found.sent == 30


async def test_age_counts_from_the_request(database: Database) -> None:
    """`maxAgeSeconds`: what is sent later than that after the request ends as dead."""
    retry = {**job_document("x")["retry"], "max_age_seconds": 60}
    await fill(database, retry=retry)
    await begin(database, rate=1000)
    clock = Crank()
    await write_all(await lead(database, clock), clock)
    clock.now = T0 + 30_000
    assert len(await send_all(database, clock)) == 30
    await database.api["history"].delete_many({})
    await begin(database, "c" * 32, rate=1000)
    clock.now = T0
    await write_all(await lead(database, clock, "b"), clock)
    clock.now = T0 + 80_000
    assert await send_all(database, clock) == []
    assert {h["state"] for h in await rows(database, "history")} == {"dead"}


async def test_runs_of_a_job_that_does_not_overlap_wait_for_each_other(database: Database) -> None:
    """None of a backfill is skipped."""
    await fill(database, overlap="skip")
    await begin(database, rate=1000)
    clock = Crank()
    await write_all(await lead(database, clock), clock)
    owed = (await executions.owed(database, [execution_id("j", DUES[0])]))[execution_id("j", DUES[0])]
    assert owed.waits
