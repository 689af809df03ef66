"""A slow or hanging host takes a part of the slots only, and its backlog hinders no other host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.clock import Clock
from cluster.core.limits.circuit_breaker import Admission
from cluster.store import deferred_batches, engine_jobs
from cluster.store.deferred_batches import Pace
from cluster.worker import dispatch, due_batches, host_queues
from tests.support.engine import rows, worker
from tests.support.targets import BAD, GOOD
from tests.support.waiting import eventually
from tests.support.workers import answering, owed, record_all

if TYPE_CHECKING:
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


@pytest.mark.parametrize(
    ("quick", "behind", "released"),
    [(True, 4.0, 0), (True, 0.0, 3), (False, 4.0, 3)],
    ids=["quick", "far behind", "slow"],
)
async def test_a_node_that_is_behind_releases_nothing_that_waits_for_a_quick_host(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, quick: bool, behind: float, released: int
) -> None:
    """What is released comes back seconds later. A node that stalled for a second, or that has a thousand executions for one
    host at once, sends them sooner itself."""
    w = worker(database, answering(200), slots=32)
    slots, host = w.context.slots, "bad.example:81"
    for n in range(16 if quick else 0):
        slots.take(host, f"before{n}")
        slots.free(host, f"before{n}")
    monkeypatch.setattr("cluster.worker.release.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(host_queues, "BEHIND_SECONDS", behind)
    await owed(database, "a", "b", "c", url=BAD)
    assert await w.claiming.claim_once()
    for n in range(24):
        slots.take(host, f"now{n}")
    await eventually(lambda: _true(bool(w.dispatcher.host_queues.hosts())), 5, "executions that wait for their host")
    await w.releaser.release_deferred()
    batches = await database.api["batches"].find({"owner": None}).to_list()
    assert sum(len(b["ids"]) for b in batches) == released
    await w.dispatcher.close()


@pytest.mark.parametrize(
    ("quick", "ahead", "admission", "claims"),
    [
        (True, 512, Admission.ALLOW, True),
        (True, 0, Admission.ALLOW, False),
        (False, 512, Admission.ALLOW, False),
        (True, 512, Admission.PROBE, False),
    ],
)
async def test_a_node_claims_for_a_busy_host_before_it_runs_out_of_work(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, quick: bool, ahead: int, admission: Admission, claims: bool
) -> None:
    """A host that takes all the slots that it may have is left to other nodes, unless it answers quickly, not only with
    failures, and this node has little left to send."""
    monkeypatch.setattr(dispatch, "CLAIM_AHEAD", ahead)
    w = worker(database, answering(200), slots=32)
    monkeypatch.setattr(w.context.breakers, "admission", lambda _: admission)
    slots, host = w.context.slots, "bad.example:81"
    for n in range(16 if quick else 0):
        slots.take(host, f"before{n}")
        slots.free(host, f"before{n}")
    for n in range(24):
        slots.take(host, f"now{n}")
    await owed(database, "a", url=BAD)
    assert await w.claiming.claim_once() is claims
    await w.dispatcher.close()


async def test_a_backlog_is_prepared_as_it_leaves(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """More is due for one host than can be sent at once: the jobs of each execution are read once, shortly before it leaves."""
    monkeypatch.setattr(due_batches, "READY_AHEAD", 4)
    monkeypatch.setattr(due_batches, "MAX_READ", 4)
    reads, real = list[str](), engine_jobs.by_id
    looks, take = list[int](), due_batches.DueBatches._take

    async def counted(db: Database, ids: Any) -> Any:
        reads.extend(ids)
        return await real(db, ids)

    def looked(due: due_batches.DueBatches) -> Any:
        looks.append(1)
        return take(due)

    monkeypatch.setattr(engine_jobs, "by_id", counted)
    monkeypatch.setattr(due_batches.DueBatches, "_take", looked)
    w = worker(database, answering(200), slots=32)
    slots, host = w.context.slots, "bad.example:81"
    for n in range(40):
        slots.take(host, f"before{n}")
        if n < 16:
            slots.free(host, f"before{n}")
    for n in range(4):
        await owed(database, *(f"a{n}-{i}" for i in range(4)), batch=f"b{n}", url=BAD)
    for _ in range(4):
        assert await w.claiming.claim_once()
    await eventually(lambda: _true(len(looks) > 10), 5, "batches that wait for their turn")
    assert 4 <= len(reads) <= 8
    for n in range(16, 40):
        slots.free(host, f"before{n}")
    w.dispatcher.start_waiting()
    await eventually(lambda: _true(len(w.context.records) == 16), 5, "all of them")
    assert len(reads) == len(set(reads)) == 16
    await record_all(w)
    await w.dispatcher.close()


@pytest.mark.parametrize(
    ("of_quick", "first"), [(False, True), (False, False), (True, False)], ids=["before", "behind", "same host"]
)
async def test_a_backlog_of_a_quick_host_keeps_back_its_own_only(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, of_quick: bool, first: bool
) -> None:
    """As much is ready for a quick host as may be, and more is due. What is due for another host leaves at once, whether it
    was claimed before the rest of the backlog or behind it."""
    monkeypatch.setattr(due_batches, "READY_AHEAD", 4)
    sent = list[str]()

    def target(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["horae-job-id"])
        return httpx.Response(200)

    w = worker(database, target, slots=32)
    slots, host = w.context.slots, "bad.example:81"
    for n in range(40):
        slots.take(host, f"before{n}")
        if n < 16:
            slots.free(host, f"before{n}")
    await owed(database, *(f"a-{i}" for i in range(4)), batch="a", url=BAD)
    assert await w.claiming.claim_once()
    await eventually(lambda: _true(bool(w.dispatcher.host_queues.hosts())), 5, "as much as may be to be ready")
    rest = [("b", ["b-0"], BAD), ("c", ["c-0", "c-1"], BAD if of_quick else GOOD)]
    for batch, jobs, url in reversed(rest) if first else rest:
        await owed(database, *jobs, batch=batch, url=url)
        assert await w.claiming.claim_once()
    if of_quick:
        await eventually(
            lambda: _true(len(w.dispatcher.overdue_batches()) == 2), 5, "two batches that wait for their turn"
        )
    else:
        await eventually(lambda: _true(sorted(sent) == ["c-0", "c-1"]), 5, "what is due for the other host")
        await eventually(lambda: _true(len(w.dispatcher.overdue_batches()) == 1), 5, "the backlog to wait for its turn")
    await w.dispatcher.close()


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

    monkeypatch.setattr(dispatch, "REREAD_SECONDS", 60.0)
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


@pytest.mark.parametrize("hanging", [0, 3], ids=["all answer", "three hang"])
async def test_many_hosts_wait_for_each_others_slots_and_for_no_look(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, hanging: int
) -> None:
    """More hosts than slots, with an execution each: each request that ends starts the next one. What waits for a host that
    hangs stands in nobody's way."""
    monkeypatch.setattr(host_queues, "LOOK_SECONDS", float("inf"))
    forever, claimed = asyncio.Event(), asyncio.Event()

    async def target(request: httpx.Request) -> httpx.Response:
        await (forever if request.url.host.startswith("hangs") else claimed).wait()
        return httpx.Response(200)

    w = worker(database, target, slots=32)
    for n in range(hanging):
        await owed(database, *(f"s{n}-{i}" for i in range(12)), batch=f"s{n}", url=f"http://hangs{n}.example/")
        assert await w.claiming.claim_once()
    if hanging:
        await eventually(lambda: _true(w.context.slots.in_flight == 16), 5, "half of the slots to hang")
    for n in range(60):
        await owed(database, f"q{n}", batch=f"q{n}", url=f"http://quick{n}.example/")
        assert await w.claiming.claim_once()
    await eventually(lambda: _true(w.context.slots.in_flight == 28), 5, "all slots but those of hosts that are trusted")
    claimed.set()
    await eventually(lambda: _true(len(w.context.records) == 60), 5, "all that can be sent")
    forever.set()
    await eventually(lambda: _true(len(w.context.records) == 60 + 12 * hanging), 5, "the others when they may")
    await record_all(w)
    await w.dispatcher.close()
