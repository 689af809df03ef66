"""Completed jobs are removed when they were kept long enough and nothing of them is owed."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.instants import format_instant
from cluster.leader.leader import SWEEP_EVERY
from cluster.store.history import DAY_MS
from tests.support.cranked_cluster import EACH, Cluster
from tests.support.engine import T0, Crank, lead, noting, rows, settle_all
from tests.support.workers import answering

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


def once(second: int, **fields: Any) -> dict[str, Any]:
    return {**EACH, "schedule": f"@at {format_instant(T0 + second * 1000)}", **fields}


async def remove(c: Cluster) -> int:
    await settle_all(c.leader, c.clock)
    return await c.leader.completed_remover.step(c.clock.now_ms())


async def states(db: Database) -> dict[str, str]:
    return {d["_id"]: d["state"] for d in await rows(db, "jobs")}


async def complete(c: Cluster) -> None:
    await settle_all(c.leader, c.clock)
    await c.leader.completer.step(c.clock.now_ms())


async def test_a_job_that_runs_once_is_deleted_after_its_run_and_its_history_stays(database: Database) -> None:
    came: list[str] = []
    c = await Cluster.begin(database, noting(came))
    await c.put("a", once(3, deleteAfterRun=True))
    await c.put("b", once(3))
    await c.run(2)
    await complete(c)
    assert await remove(c) == 0
    await c.run(4)
    await complete(c)
    assert await states(database) == {"a": "completed", "b": "completed"}
    assert await remove(c) == 1
    await c.run(2)
    assert await states(database) == {"a": "deleted", "b": "completed"}
    assert sorted(came) == [f"a:{T0 + 3000}", f"b:{T0 + 3000}"]
    assert {h["_id"]: h["state"] for h in await rows(database, "history")} == dict.fromkeys(came, "succeeded")


async def test_a_job_whose_run_is_retried_is_not_deleted(database: Database) -> None:
    """It is over when the last attempt is."""
    c = await Cluster.begin(database, answering(500, 200))
    await c.put("a", once(1, deleteAfterRun=True, retry={"initialDelaySeconds": 8, "jitter": 0}))
    await c.run(4)
    await complete(c)
    assert await remove(c) == 0
    assert len(await rows(database, "executions")) == 1
    c.leader.completed_remover._left_until.clear()
    await c.run(8)
    await complete(c)
    assert await remove(c) == 1


async def test_what_was_not_caught_up_yet_keeps_its_job(database: Database) -> None:
    """The job ended while there was no leader; its run is still to come."""
    came: list[str] = []
    c = await Cluster.begin(database, noting(came))
    await c.put("a", once(60, deleteAfterRun=True))
    await settle_all(c.leader, c.clock)
    c.clock.now += 120_000
    for _ in range(6):
        await c.leader.settler.step(c.clock.now_ms(), 1)
        await c.leader.materialiser.step(c.clock.now_ms(), 1)
        await complete(c)
        await remove(c)
        await c.run(1)
    assert came == [f"a:{T0 + 60_000}"]
    c.leader.completed_remover._left_until.clear()
    await remove(c)
    assert (await states(database))["a"] == "deleted"


async def test_a_backfill_that_was_asked_for_keeps_its_job(database: Database) -> None:
    """It owes its occurrences page by page: between two pages there is no execution."""
    c = await Cluster.begin(database)
    await c.put("a", once(1, deleteAfterRun=True))
    await c.run(4)
    await complete(c)
    await database.api["requested_backfills"].insert_one({"_id": "x", "job_id": "a", "state": "running"})
    assert await c.leader.completed_remover.step(c.clock.now_ms()) == 0
    c.leader.completed_remover._left_until.clear()
    await database.api["requested_backfills"].update_one({"_id": "x"}, {"$set": {"state": "done"}})
    assert await c.leader.completed_remover.step(c.clock.now_ms()) == 1


@pytest.mark.parametrize(("fields", "days"), [({}, 30.0), ({"completedRetentionDays": 2}, 2.0)])
async def test_a_completed_job_is_kept_for_its_days_or_the_operators(
    database: Database, fields: dict[str, Any], days: float
) -> None:
    c = await Cluster.begin(database)
    await c.put("a", {**EACH, "endAt": format_instant(T0 + 3000), **fields})
    await c.run(6)
    await complete(c)
    assert await states(database) == {"a": "completed"}
    c.clock.now = T0 + 3000 + int(days * DAY_MS) - 1000
    assert await c.leader.completed_remover.step(c.clock.now_ms()) == 0
    c.clock.now += 2000
    assert await c.leader.completed_remover.step(c.clock.now_ms()) == 1


async def test_a_job_that_is_changed_meanwhile_stays(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    c = await Cluster.begin(database)
    await c.put("a", once(1, deleteAfterRun=True))
    await c.run(4)
    await complete(c)
    from cluster.store import completed_jobs

    real = completed_jobs.is_over

    async def late(*args: Any) -> bool:
        await c.put("a", once(1000))
        return await real(*args)

    monkeypatch.setattr(completed_jobs, "is_over", late)
    assert await c.leader.completed_remover.step(c.clock.now_ms()) == 0
    assert await states(database) == {"a": "active"}


async def test_jobs_that_end_at_one_instant_are_completed_a_portion_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their executions are being sent just then, and the leader's loop waits for the write. All of them are in the end."""
    monkeypatch.setattr("cluster.leader.complete.AT_ONCE", 2)
    c = await Cluster.begin(database, noting([]))
    for name in "abcde":
        await c.put(name, once(3))
    await c.put("later", once(3600))
    await settle_all(c.leader, c.clock)
    complete_some = c.leader.completer.step

    async def nothing(_: int) -> int:
        return 0

    monkeypatch.setattr(c.leader.completer, "step", nothing)
    await c.run(6)
    counts = [await complete_some(c.clock.now_ms()) for _ in range(4)]
    assert counts == [2, 2, 1, 0]
    assert await states(database) == {**dict.fromkeys("abcde", "completed"), "later": "active"}


async def test_a_leader_completes_the_next_portion_soon_and_rests_when_there_is_none(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other steps have their turns in between."""
    clock = Crank()
    monkeypatch.setattr(clock, "monotonic", lambda: clock.now / 1000)
    leader = await lead(database, clock)
    left = [500, 500, 0]
    asked: list[float] = []

    async def step(_: int) -> int:
        asked.append(clock.monotonic())
        return left.pop(0) if left else 0

    monkeypatch.setattr(leader.completer, "step", step)
    while len(asked) < 4:
        await leader.step()
        clock.now += 250
    assert [b - a for a, b in pairwise(asked)] == [0.5, 0.5, SWEEP_EVERY]
