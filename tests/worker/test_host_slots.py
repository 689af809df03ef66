"""A slow or hanging host takes a part of the slots only, and its backlog hinders no other host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx

from cluster.clock import Clock
from cluster.store import deferred_batches, engine_jobs
from cluster.store.deferred_batches import Pace
from cluster.worker import dispatch, host_queues
from tests.support.engine import rows, worker
from tests.support.targets import BAD, GOOD
from tests.support.waiting import eventually
from tests.support.workers import owed

if TYPE_CHECKING:
    import pytest

    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker


async def test_a_hanging_host_leaves_slots_and_batches_to_the_others(database: Database) -> None:
    """Two hosts in one lane: one never answers. All of the other's executions go through while it hangs; what the
    hanging one could not take waits in the database, where another node may claim it."""
    forever = asyncio.Event()
    done: list[str] = []

    async def target(request: httpx.Request) -> httpx.Response:
        if request.url.port == 81:
            await forever.wait()
        else:
            done.append(request.headers["horae-job-id"])
        return httpx.Response(200)

    w = worker(database, target, slots=32)
    for n in range(4):
        await owed(database, *(f"h{n}-{i}" for i in range(20)), batch=f"h{n}", url=BAD, lane=5)
    names = [f"g{n}-{i}" for n in range(10) for i in range(20)]
    for n in range(10):
        await owed(database, *names[n * 20 : n * 20 + 20], batch=f"g{n}", url=GOOD, lane=5)
    w.start()
    await eventually(lambda: _true(set(done) == set(names)), 10, "all of the healthy host")
    await eventually(lambda: _true(w.context.slots.in_flight == 8), 5, "a quarter of the slots, and no more, to hang")
    await eventually(lambda: _released(database, 72), 10, "executions without a slot to be released")
    forever.set()
    await eventually(lambda: _recorded(database, 280), 20, "everything")
    await w.shutdown(5)
    assert {h["state"] for h in await rows(database, "history")} == {"succeeded"}


async def test_claims_do_not_walk_over_the_backlog_of_a_slow_host(database: Database) -> None:
    """Late batches of a slow host become claimable little by little."""
    for i in range(40):
        await owed(database, f"a{i}", batch=f"b{i}", url=BAD)
    await database.api["batches"].update_many({}, {"$set": {"late": True}})
    assert await deferred_batches.spread_late(database, "host", ["other:1"], Pace(500)) == 0
    assert await deferred_batches.spread_late(database, "host", ["bad.example:81"], Pace(500)) == 40
    now = Clock().now_ms()
    at = [int(b["claimable_at"]) - now for b in await rows(database, "batches")]
    assert -1000 < min(at) < max(at) <= 20_000
    assert len(set(at)) > 30


async def test_jobs_of_executions_that_wait_for_their_host_are_not_read_again_and_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 executions behind a slow host, their jobs read too long ago: each one that ends has a few read, not all."""
    await owed(database, *(f"a{i}" for i in range(300)), url=BAD)
    reads: list[int] = []
    real = engine_jobs.by_id

    async def counted(db: Database, ids: Any) -> Any:
        reads.append(1)
        return await real(db, ids)

    monkeypatch.setattr(engine_jobs, "by_id", counted)
    free = asyncio.Semaphore(0)

    async def target(_: httpx.Request) -> httpx.Response:
        await free.acquire()
        return httpx.Response(200)

    monkeypatch.setattr(dispatch, "STALE_SECONDS", 60.0)
    w = worker(database, target, slots=32)
    await w.claiming.claim_once()
    await eventually(lambda: _true(w.context.slots.in_flight == 8), 5, "a quarter of the slots")
    for waiting in w.dispatcher.host_queues._queues.values():
        for ready in waiting:
            ready.read_at = float("-inf")
    del reads[:]
    monkeypatch.setattr(host_queues, "LOOK_SECONDS", 60.0)
    w.dispatcher.host_queues._looked_at = w.context.clock.monotonic()
    free.release()
    await eventually(lambda: _true(len(w.context.records) == 1), 5, "one that ended")
    await eventually(lambda: _true(w.context.slots.in_flight == 8), 5, "the next one to go")
    assert 1 <= len(reads) <= host_queues.STARTS_PER_LOOK
    await w.dispatcher.close()


async def drain(w: Worker, seconds: float = 10) -> None:
    """Let the worker's own loops work until it holds nothing."""
    await eventually(lambda: _idle(w), seconds, "the worker to have nothing left")


async def _idle(w: Worker) -> bool:
    return not w.held and not w.context.records


async def _true(value: bool) -> bool:
    return value


async def _released(db: Database, count: int) -> bool:
    found = await db.api["batches"].find({"owner": None}).to_list()
    return sum(len(b["ids"]) for b in found) >= count


async def _recorded(db: Database, count: int) -> bool:
    return await db.api["history"].count_documents({}) == count
