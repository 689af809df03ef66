"""The leader's passes against a real database: complete, repeatable from any point, fenced by term."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.errors import OutcomeUnknown, TermLost
from cluster.core.schedule.schedule import parse_schedule
from cluster.core.timings import Timings
from cluster.store import batches, engine_jobs, executions, pauses, schedules
from tests.support.engine import T0, Crank, check_books, job_document, lead, noting, put_jobs, rows, settle_all, worker
from tests.support.leaders import Crashed, crank, crash_after, due_of
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

WRITES = [
    ("executions", "insert", 1),
    ("executions", "insert", 2),
    ("batches", "insert", 1),
    ("batches", "insert", 2),
    ("schedules", "advance", 1),
    ("schedules", "advance", 2),
    ("schedules", "stamp", 1),
    ("schedules", "stamp", 2),
    ("schedules", "insert_missing", 1),
    ("engine_jobs", "mark_settled", 1),
]


async def test_everything_owed_within_the_look_ahead_is_written_once(database: Database) -> None:
    """From the job's start on, at least a look-ahead far, without a hole and each under a batch that lists it."""
    clock = Crank()
    await put_jobs(database, job_document("a"), job_document("b", "*/5 * * * * *"), job_document("c", "@every 7s"))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    await crank(leader, clock, 12)
    for job, expected in (("a", range(100)), ("b", range(0, 100, 5))):
        found = await due_of(database, job)
        assert found == list(expected)[: len(found)]
        assert found[-1] >= 12 + 15 - 5
    every = parse_schedule("@every 7s").between(T0, T0 + 100_000, 100)
    found = await due_of(database, "c")
    assert found == [(t - T0) // 1000 for t in every][: len(found)]
    await check_books(database)


async def test_a_leader_that_found_nothing_rests_until_something_is_settled_or_may_be_due(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it settles is written in the same turn; a new term does not rest."""
    looks, due = list[int](), schedules.due

    async def counted(*args: Any) -> Any:
        looks.append(1)
        return await due(*args)

    monkeypatch.setattr(schedules, "due", counted)
    clock = Crank()
    leader = await lead(database, clock)
    for _ in range(3):
        await leader.step()
    assert len(looks) == 1
    await put_jobs(database, job_document("a"))
    await leader.step()
    assert len(looks) == 2
    assert (await due_of(database, "a"))[:10] == list(range(10))
    while len(looks) < 3:  # until there is nothing more to write
        await leader.step()
    await leader.step()
    assert len(looks) == 3
    clock.now += int(Timings().rest_seconds * 1000)
    await leader.step()
    assert len(looks) == 4
    await (await lead(database, clock, "b")).step()
    assert len(looks) == 5


async def test_a_leader_at_rest_looks_once_a_turn_for_changes_and_for_pauses_that_are_over(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a turn that finds one reads them; the first turn of a term settles whatever there is. The look is by indexes."""
    reads, unsettled = list[int](), engine_jobs.unsettled

    async def counted(*args: Any) -> Any:
        reads.append(1)
        return await unsettled(*args)

    monkeypatch.setattr(engine_jobs, "unsettled", counted)
    clock = Crank()
    await put_jobs(database, *(job_document(f"j{n}", state="paused") for n in range(20)))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    del reads[:]
    for _ in range(3):
        await leader.step()
    assert reads == []
    query = {"$or": [{"unsettled": {"$exists": True}}, pauses._over(clock.now)]}
    plan = await database.api["jobs"].find(query, {"_id": 1}).limit(1).explain()
    assert plan["executionStats"]["totalDocsExamined"] == 0
    await put_jobs(database, job_document("a"))
    await leader.step()
    assert len(reads) == 1
    version = (await rows(database, "jobs"))[-1]["schedule_version"]
    over = {"pause": {"until": DatetimeMS(clock.now), "reason": None, "version": version}}
    await database.api["jobs"].update_one({"_id": "j9"}, {"$set": over})
    await leader.step()
    assert len(reads) == 2


async def test_a_row_without_active_jobs_is_removed_and_made_again(database: Database) -> None:
    """Settling and the main pass hand over in both directions without losing an occurrence."""
    clock = Crank()
    await put_jobs(database, job_document("a"))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"state": "paused", "unsettled": "p"}})
    await crank(leader, clock, 8)
    assert await rows(database, "schedules") == []
    await put_jobs(database, job_document("b", active_from=clock.now + 1))
    await settle_all(leader, clock)
    await crank(leader, clock, 3)
    found = await due_of(database, "b")
    assert found == list(range(9, 9 + len(found)))
    assert len(found) >= 15
    await check_books(database)


async def test_many_jobs_on_one_schedule_are_paged(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row with more jobs than one step takes is done page by page, and a job created meanwhile is not missed."""
    monkeypatch.setattr("cluster.leader.materialise.JOBS", 10)
    clock = Crank()
    await put_jobs(database, *(job_document(f"j{i:03}", "*/2 * * * * *") for i in range(35)))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    for tick in range(40):
        clock.now += 500
        await leader.step()
        if tick == 5:
            # Its id lies behind the cursor of the pass that is under way.
            await put_jobs(database, job_document("j000a", "*/2 * * * * *", active_from=clock.now))
            joined = clock.now
    await settle_all(leader, clock)
    for i in range(35):
        found = await due_of(database, f"j{i:03}")
        assert found == list(range(0, 2 * len(found), 2))
        assert found[-1] >= 20 + 13
    late = await due_of(database, "j000a")
    first = -(-(joined - T0) // 2000) * 2
    assert late == list(range(first, first + 2 * len(late), 2))
    assert late[-1] >= 20 + 13
    await check_books(database)


async def test_a_pass_over_many_jobs_reads_each_of_them_once_for_several_occurrences(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six thousand jobs of every second were read twice for each second."""
    monkeypatch.setattr("cluster.leader.materialise.JOBS", 10)
    monkeypatch.setattr("cluster.leader.materialise.OCCURRENCES", 40)
    reads, of_schedules = list[int](), engine_jobs.of_schedules

    async def counted(*args: Any, **kwargs: Any) -> Any:
        page = await of_schedules(*args, **kwargs)
        reads.append(len(page.jobs))
        return page

    clock = Crank()
    await put_jobs(database, *(job_document(f"j{i:03}") for i in range(25)))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    await crank(leader, clock, 4)
    written = len(await rows(database, "executions"))
    monkeypatch.setattr(engine_jobs, "of_schedules", counted)
    await crank(leader, clock, 20)
    more = len(await rows(database, "executions")) - written
    assert more >= 20 * 25
    assert sum(reads) <= more / 3, "each for four occurrences, but for the last pass"
    await check_books(database)


@pytest.mark.parametrize(
    ("module", "name", "nth"),
    [
        ("executions", "insert", 1),
        ("batches", "insert", 1),
        ("schedules", "save_cursor", 1),
        ("schedules", "save_cursor", 2),
        ("executions", "insert", 2),
        ("batches", "insert", 2),
        ("schedules", "advance", 1),
    ],
)
@pytest.mark.parametrize("every", [1, 3])
async def test_a_leader_that_dies_between_two_pages_leaves_out_no_occurrence(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: str, name: str, nth: int, every: int
) -> None:
    """Of jobs that come before and after the cursor, and of those that join meanwhile, before it and behind it."""
    monkeypatch.setattr("cluster.leader.materialise.JOBS", 2)
    monkeypatch.setattr("cluster.leader.materialise.OCCURRENCES", 8)
    clock = Crank()
    schedule = f"*/{every} * * * * *"
    await put_jobs(database, *(job_document(f"j{i}", schedule) for i in range(5)))
    leader = await lead(database, clock, "a")
    await settle_all(leader, clock)
    with monkeypatch.context() as patch:
        calls = crash_after(patch, module, name, nth)
        with contextlib.suppress(Crashed):
            await crank(leader, clock, 8)
    assert calls[0] == nth, "the write this is about was never reached"
    joining = (job_document(j, schedule, active_from=clock.now) for j in ("j0a", "j9"))
    await put_jobs(database, *joining)
    joined = -(-(clock.now - T0) // (1000 * every)) * every
    clock.now += 3000
    leader = await lead(database, clock, "b")
    await settle_all(leader, clock)
    await crank(leader, clock, 6)
    for job, first in (*((f"j{i}", 0) for i in range(5)), ("j0a", joined), ("j9", joined)):
        found = await due_of(database, job)
        assert found == list(range(first, first + every * len(found), every)), job
        assert found[-1] >= (clock.now - T0) // 1000 + 15 - every
    await check_books(database)


@pytest.mark.parametrize(("module", "name", "nth"), WRITES)
async def test_a_crash_after_any_write_is_repaired_by_running_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: str, name: str, nth: int
) -> None:
    """The next leader completes the writes that the dead one left unfinished; nothing is lost or doubled."""
    clock = Crank()
    await put_jobs(database, job_document("a"), job_document("b", "*/3 * * * * *"))
    leader = await lead(database, clock, "a")
    with monkeypatch.context() as patch:
        calls = crash_after(patch, module, name, nth)
        try:
            await settle_all(leader, clock)
            await crank(leader, clock, 8)
        except Crashed:
            pass
    assert calls[0] == nth, "the write this is about was never reached"
    clock.now += 3000
    leader = await lead(database, clock, "b")
    await settle_all(leader, clock)
    await leader.sweeper.repair_orphans()
    await crank(leader, clock, 3)
    for job, step in (("a", 1), ("b", 3)):
        found = await due_of(database, job)
        assert found == list(range(0, step * len(found), step))
        assert found[-1] >= 15
    await check_books(database)


@pytest.mark.parametrize(("module", "name", "nth"), WRITES)
async def test_a_leader_frozen_at_any_write_and_thawed_after_its_replacement_harms_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: str, name: str, nth: int
) -> None:
    """It wakes before the write it was about to make, 20 s and a whole term later, and goes on as far as it can."""
    import asyncio
    import importlib

    clock = Crank()
    await put_jobs(database, job_document("a"), job_document("b", "*/3 * * * * *"))
    old = await lead(database, clock, "old")
    owner = importlib.import_module(f"cluster.store.{module}")
    real = getattr(owner, name)
    frozen, thaw = asyncio.Event(), asyncio.Event()
    calls = [0]

    async def freezing(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth:
            frozen.set()
            await thaw.wait()
        return await real(*args, **kwargs)

    monkeypatch.setattr(owner, name, freezing)

    async def reign() -> None:
        await settle_all(old, clock)
        own = Crank(clock.now)
        for _ in range(12):
            own.now += 500
            await old.settler.step(own.now, 1)
            await old.materialiser.step(own.now, 1)

    task = asyncio.create_task(reign())
    waiting = asyncio.create_task(frozen.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    waiting.cancel()
    assert frozen.is_set(), "the write this is about was never reached"
    monkeypatch.setattr(owner, name, real)
    new = await lead(database, clock, "new")
    await settle_all(new, clock)
    await crank(new, clock, 20)
    # What was due meanwhile has been sent and recorded.
    sent: list[str] = []
    w = worker(database, noting(sent))
    await deliver_until(database, w, T0 + 20_000)
    thaw.set()
    with contextlib.suppress(TermLost):
        await asyncio.wait_for(task, 20)
    await crank(new, clock, 2)
    await new.sweeper.repair_orphans()
    await check_owed_and_sent(database, sent)
    await deliver_until(database, w, T0 + 22_000)
    assert len(sent) == len(set(sent)), "an occurrence was sent twice"
    await check_books_against_history(database)


async def check_owed_and_sent(db: Database, sent: list[str]) -> None:
    known = {e["_id"] for e in await rows(db, "executions")} | {h["_id"] for h in await rows(db, "history")}
    for job, step in (("a", 1), ("b", 3)):
        for s in range(0, 30, step):
            assert f"{job}:{T0 + s * 1000}" in known, f"{job} at +{s} s is lost"
    assert len(sent) == len(set(sent))


async def check_books_against_history(db: Database) -> None:
    for h in await rows(db, "history"):
        assert h["state"] == "succeeded"
        assert len(h["attempts"]) == 1


async def test_a_stale_leader_cannot_move_a_row(database: Database) -> None:
    """A row stamped by a newer term ignores the older one, and the older one notices."""
    clock = Crank()
    await put_jobs(database, job_document("a"))
    old = await lead(database, clock, "old")
    await settle_all(old, clock)
    row = (await schedules.due(database, clock.now + 10**9, 10))[0][0]
    stale = old._context.trusted_term()
    new = await lead(database, clock, "new")
    clock.now += 6000
    await settle_all(new, clock)
    assert await schedules.advance(database, [(row, row.next_ms + 1)], stale) == 0
    clock.now += 1000
    with pytest.raises(TermLost):
        clock.now += 10_000
        await old.materialiser.step(clock.now, 1)
    await check_books(database)


async def test_a_repeated_insert_leaves_no_batch_without_executions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An insert that reported failure but was applied is found on the next pass."""
    clock = Crank()
    await put_jobs(database, job_document("a"))
    leader = await lead(database, clock)
    real = executions.insert
    failed: list[bool] = []

    async def applied_but_error(*args: Any) -> Any:
        result = await real(*args)
        if not failed:
            failed.append(True)
            raise OutcomeUnknown("no answer")
        return result

    monkeypatch.setattr(executions, "insert", applied_but_error)
    with pytest.raises(OutcomeUnknown):
        await settle_all(leader, clock)
        await crank(leader, clock, 6)
    await settle_all(leader, clock)
    await crank(leader, clock, 4)
    found = await due_of(database, "a")
    assert found == list(range(len(found)))
    await check_books(database)
    assert await batches.existing_ids(database, [e["batch"] for e in await rows(database, "executions")])
