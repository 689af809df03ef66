"""What a node does with more executions of one instant than it prepares at once."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx

from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.core.lifecycle import State
from cluster.store import batches, deferred_batches, engine_jobs
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed
from cluster.worker import claiming, prepare
from cluster.worker.claiming import MAX_BODY_BYTES
from cluster.worker.early_requests import EarlyRequests
from cluster.worker.held_batch import HeldBatch
from cluster.worker.model import Deferral
from tests.support.engine import job_document, noting, put_jobs, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, ended, owed, record_all

if TYPE_CHECKING:
    import pytest

    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker

SOON = 0.8
"""Seconds from now to the send time: time to make a few requests early, and long before the lead."""


async def held_for_soon(db: Database, w: Worker, *jobs: str, **fields: Any) -> int:
    """One batch for each of these jobs, held by the worker and due soon. Returns the send time (ms)."""
    due = int(time.time() * 1000 + SOON * 1000)
    for job in jobs:
        await put_jobs(db, job_document(job, active_from=0, schedule_version="v1", **fields))
        e = Execution(execution_id(job, due), job, due, due, "v1", job, 0, owner="w", token=1, host="localhost:1")
        batch = Batch(job, (e.id,), 0, 0, due, due, owner="w", token=1, host="localhost:1")
        await insert_owed(db, [e], [batch], lambda: "new")
        held = HeldBatch(batch, w.context.clock.monotonic() + 60, [replace(e, state=State.LEASED)])
        w.context.held.add(held)
        w.dispatcher.add(held)
    return due


async def test_requests_of_a_crowd_are_made_early_and_sent_for_the_job_as_it_is_now(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is sent as it was made; one whose job has changed since is made again; one that was paused since does not leave."""
    monkeypatch.setattr(prepare, "READY_AT_ONCE", 2)
    arrived: dict[str, bytes] = {}

    def target(request: httpx.Request) -> httpx.Response:
        arrived[request.headers["horae-job-id"]] = request.content
        return httpx.Response(200)

    w = worker(database, target)
    made: list[str] = []
    real = w.context.sender.prepare

    def counted(target: Any, headers: Any) -> Any:
        made.append(dict(headers)["Horae-Job-Id"])
        return real(target, headers)

    monkeypatch.setattr(w.context.sender, "prepare", counted)
    due = await held_for_soon(database, w, "same", "changed", "paused", body=b"old", body_kind="text")
    await eventually(lambda: _true(len(made) == 3), 5, "three requests long before they are due")
    assert w.context.clock.now_ms() < due - 200
    assert arrived == {}
    jobs = database.api["jobs"]
    await jobs.update_one({"_id": "changed"}, {"$set": {"body": b"new"}, "$inc": {"revision": 1}})
    past = {"state": "paused", "past": ended(due - 1, "pause")}
    await jobs.update_one({"_id": "paused"}, {"$set": past, "$inc": {"revision": 1}})
    await eventually(lambda: _true(len(w.context.records) == 3), 5, "all three to end")
    await record_all(w)
    assert arrived == {"same": b"old", "changed": b"new"}
    assert sorted(made) == ["changed", "changed", "paused", "same"]
    states = {h["job_id"]: h["state"] for h in await rows(database, "history")}
    assert states == {"same": "succeeded", "changed": "succeeded", "paused": "cancelled"}


async def test_a_signed_request_is_made_when_it_is_sent(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature names the time, and is refused by a target that gets it minutes later."""
    monkeypatch.setattr(prepare, "READY_AT_ONCE", 1)
    made_at: list[float] = []
    w = worker(database, answering(200))
    real = w.context.sender.prepare

    def counted(*args: Any) -> Any:
        made_at.append(w.context.clock.now_ms())
        return real(*args)

    monkeypatch.setattr(w.context.sender, "prepare", counted)
    secret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="
    due = await held_for_soon(database, w, "a", "b", signing_secret=secret)
    await eventually(lambda: _true(len(w.context.records) == 2), 5, "both to be sent")
    assert len(made_at) == 2
    assert min(made_at) > due - 200
    await record_all(w)


async def test_early_requests_need_no_database_and_go_with_their_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading that fails is made up for in time. What is released or lost leaves nothing behind."""
    w = worker(database, answering(200))
    early = w.dispatcher._preparer._early
    fail_once(monkeypatch)
    (execution,) = await owed(database, "a")
    held = HeldBatch(Batch("b", (execution.id,), 0, 0, DUE, DUE), w.context.clock.monotonic() + 60, [execution])
    await early.prepare(held)
    assert len(early._made) == 0
    await early.prepare(held)
    assert len(early._made) == 1
    held.withdraw()
    del held
    gc.collect()
    assert len(early._made) == 0


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first reading of jobs meets a document that nobody foresaw."""
    real = engine_jobs.by_id
    failures = [KeyError("secret_url")]

    async def flaky(db: Database, ids: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(db, ids)

    monkeypatch.setattr(engine_jobs, "by_id", flaky)


async def all_leave(database: Database) -> None:
    """Three executions of one instant that a node holds a while before it."""
    sent: list[str] = []
    w = worker(database, noting(sent))
    await held_for_soon(database, w, "a", "b", "c")
    await eventually(lambda: _true(len(w.context.records) == 3), 5, "all to be sent")
    await record_all(w)
    assert len(sent) == 3


async def test_a_reading_that_fails_early_strands_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the error: all of the instant are sent, and what is claimed for it later is too."""
    monkeypatch.setattr(prepare, "READY_AT_ONCE", 1)
    fail_once(monkeypatch)
    await all_leave(database)


def claims_noted(w: Worker) -> tuple[list[str], list[bool]]:
    """The batches that this worker claims and holds from now on, which it does not send; and of each claim whether it asked only
    for what is due soon.
    """
    order: list[str] = []
    asked: list[bool] = []
    claim = w.claiming.claimer.step

    async def noted(which: Any) -> Any:
        asked.append(which.soon_only)
        claimed = await claim(which)
        if claimed is not None:
            order.append(claimed.batch.id)
            later = claimed.batch.send_ms
            e = Execution(claimed.batch.ids[0], "x", later, later, "v1", claimed.batch.id, 0, state=State.LEASED)
            held = HeldBatch(claimed.batch, w.context.clock.monotonic() + 60, [e])
            w.context.held.add(held)
            w.context.unsent.add(held)
        return claimed

    async def nothing(_: Any) -> None:
        pass

    w.claiming.claimer.step = noted  # type: ignore[method-assign]
    w.claiming.take_on = nothing  # type: ignore[method-assign, assignment]
    return order, asked


async def test_what_is_due_before_a_crowd_is_claimed_before_it(database: Database) -> None:
    """The crowd has been claimable for longer. A node that is full of it claims what is due soon nevertheless."""
    now = int(time.time() * 1000)
    w = worker(database, answering(200), waiting=2, ahead=4)
    for n in range(8):
        due = now + 3000
        await batches.insert(database, [Batch(f"crowd{n}", (f"c{n}:{due}",), 0, 0, due, due - 3900)])
    await batches.insert(database, [Batch("steady", (f"s:{now + 900}",), 0, 0, now + 900, now - 100)])
    order, _ = claims_noted(w)
    while await w.claiming.claim_once():
        pass
    assert [name[:5] for name in order] == ["crowd", "crowd", "stead", "crowd"]
    await batches.insert(database, [Batch("soon", (f"t:{now + 950}",), 0, 0, now + 950, now - 50)])
    assert await w.claiming.claim_once()
    assert order[-1] == "soon"
    assert not await w.claiming.claim_once()


async def test_a_node_that_is_full_of_a_crowd_asks_for_what_is_due_soon_now_and_then(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these questions is a claim that finds nothing. One that finds something is followed by the next one."""
    monkeypatch.setattr(claiming, "NONE_SOON_SECONDS", 3600.0)
    now = int(time.time() * 1000)
    w = worker(database, answering(200), waiting=2, ahead=40)
    for n in range(12):
        await batches.insert(database, [Batch(f"crowd{n}", (f"c{n}:{now}",), 0, 0, now + 3000, now - 900)])
    order, asked = claims_noted(w)
    for _ in range(8):
        assert await w.claiming.claim_once()
    assert (len(order), sum(asked)) == (8, 1)
    for n in range(2):
        await batches.insert(database, [Batch(f"soon{n}", (f"s{n}:{now}",), 0, 0, now + 900 + n, now - 100)])
    w.claiming._none_soon_until = 0.0  # the time has passed
    assert await w.claiming.claim_once()
    assert await w.claiming.claim_once()
    assert order[-2:] == ["soon0", "soon1"]
    while await w.claiming.claim_once():
        pass
    assert len(order) == 14
    assert sum(asked) == 4


async def test_a_batch_of_a_crowd_is_judged_by_its_send_time(database: Database) -> None:
    """It could be claimed three seconds earlier than others, and need not be: who leaves it alone holds nothing back, and
    it stands unclaimed, or becomes late work, no sooner than they do.
    """
    now = int(time.time() * 1000)
    for name, due in (("ahead", now + 1500), ("nine", now - 9000), ("twelve", now - 12_000), ("fifteen", now - 15_000)):
        for prefetch in (1000, 4000):
            batch = Batch(f"{name}{prefetch}", (f"{name}:{due}",), 0, 0, due, due - prefetch, host=name)
            await batches.insert(database, [batch])
    await deferred_batches.note_held_back(database, ["ahead"], [], 12_000, 2000)
    await deferred_batches.demote_overdue(database)
    await deferred_batches.defer_hosts(database, {"nine": now + 5000, "twelve": now + 5000}, 12_000)
    found = {b["_id"]: (b["late"], b.get("unclaimed")) for b in await rows(database, "batches")}
    for name in ("ahead", "nine", "twelve", "fifteen"):
        assert found[f"{name}4000"] == found[f"{name}1000"], name
    assert (found["nine4000"], found["twelve4000"]) == ((False, False), (False, True))
    assert found["fifteen4000"][0]


async def test_a_reading_that_takes_long_is_not_made_for_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is slow, and not so slow that nothing may leave by what it says."""
    await owed(database, "a")
    sent: list[str] = []
    w = worker(database, noting(sent))
    real = engine_jobs.by_id

    async def slow(db: Database, ids: Any) -> Any:
        await asyncio.sleep(0.8)  # the reading grows old: that is what this is about
        return await real(db, ids)

    monkeypatch.setattr(engine_jobs, "by_id", slow)
    assert await w.claiming.claim_once()
    await eventually(lambda: _true(len(w.context.records) == 1), 8, "it to be sent")
    await record_all(w)
    assert len(sent) == 1


async def test_an_early_reading_that_hangs_delays_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection to the database that hangs, until long after the send time."""
    monkeypatch.setattr(prepare, "READY_AT_ONCE", 1)
    real, never = engine_jobs.by_id, [asyncio.Event()]

    async def hanging(db: Database, ids: Any) -> Any:
        if never:
            await never.pop().wait()
        return await real(db, ids)

    monkeypatch.setattr(engine_jobs, "by_id", hanging)
    await all_leave(database)


async def test_a_request_that_cannot_be_made_early_keeps_no_other_one_from_it(database: Database) -> None:
    """What is wrong with it is found out when it is to be sent."""
    w = worker(database, answering(200))
    executions = await owed(database, "a", "b", "c")

    def make(_: HeldBatch, execution: Execution, job: Any) -> str:
        if execution.job_id == "b":
            raise ValueError("no such header")
        return f"request of {job.id}"

    early = EarlyRequests(database, make)
    batch = Batch("b", tuple(e.id for e in executions), 0, 0, DUE, DUE)
    held = HeldBatch(batch, w.context.clock.monotonic() + 60, executions)
    await early.prepare(held)
    jobs = (await engine_jobs.by_id(database, ["a", "b", "c"])).jobs
    made = [early.take(held, e.id, jobs[e.job_id]) for e in executions]
    assert made == ["request of a", None, "request of c"]
    assert early.take(held, executions[0].id, jobs["a"]) is None, "it is taken once"


async def test_what_is_not_prepared_is_released_with_what_waits_for_its_host(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands are held for a host that hangs: to prepare each of them only to release it would take seconds."""
    w = worker(database, answering(200))
    held: dict[str, HeldBatch] = {}
    for name in ("ready", "unprepared", "elsewhere"):
        (execution,) = await owed(database, name, batch=name)
        claimed = await w.claiming.claimer.step(ClaimFilter())
        assert claimed is not None
        host = "other:80" if name == "elsewhere" else "slow:80"
        batch = replace(claimed.batch, host=host)
        held[name] = HeldBatch(batch, w.context.clock.monotonic() + 60, claimed.executions)
        w.context.held.add(held[name])
        w.context.unsent.add(held[name])
        assert execution.id in held[name].waiting
    waits = Deferral(held["ready"], tuple(held["ready"].waiting.values()), None, "slow:80")
    monkeypatch.setattr(w.releaser, "_deferrals", lambda: [waits])
    monkeypatch.setattr(w.dispatcher, "unprepared_batches", lambda: [held["unprepared"], held["elsewhere"]])
    await w.releaser.release_deferred()
    owners = {b["_id"]: b["owner"] for b in await rows(database, "batches")}
    assert owners == {"ready": None, "unprepared": None, "elsewhere": "w"}


async def test_what_is_more_than_prepared_at_once_leaves_after_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of one instant, of which three are prepared before it: all are sent, none of them twice."""
    monkeypatch.setattr(prepare, "READY_AT_ONCE", 3)
    sent: list[str] = []
    w = worker(database, noting(sent))
    due = await held_for_soon(database, w, *"abcdefghij")
    await eventually(lambda: _true(len(w.context.records) == 10), 5, "all to be sent")
    assert w.context.clock.now_ms() >= due
    assert sorted(sent) == sorted(execution_id(job, due) for job in "abcdefghij")
    await record_all(w)
    assert await rows(database, "batches") == []


async def test_a_node_claims_ahead_of_time_but_not_while_enough_is_due(database: Database) -> None:
    """What is not due yet takes no room from what is; claims end with so many due."""
    w = worker(database, answering(200), waiting=2, ahead=4)
    later = int(time.time() * 1000) + 60_000

    def hold(name: str, due: int, **message: bytes) -> None:
        e = Execution(f"{name}:{due}", name, due, due, "v1", name, 0, message=message or None)
        held = HeldBatch(Batch(name, (e.id,), 0, 0, due, due), w.context.clock.monotonic() + 60, [e])
        w.context.held.add(held)
        w.context.unsent.add(held)

    def drop(name: str) -> None:
        held = w.context.held[name]
        w.context.unsent.withdraw(held)
        w.context.held.forget(held)

    for n in range(6):
        assert w.claiming._has_room(), n
        hold(f"x{n}", later)
    assert not w.claiming._has_room()
    drop("x0")
    drop("x1")
    hold("large", later, body=bytes(MAX_BODY_BYTES))
    assert not w.claiming._has_room()
    drop("large")
    hold("d0", DUE)
    assert w.claiming._has_room()
    drop("x2")
    hold("d1", DUE)
    assert not w.claiming._has_room()


async def test_what_grew_old_while_it_waited_is_read_again_and_not_given_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To give it back takes five writes and a claim, for each of hundreds."""
    await owed(database, "a")
    sent: list[str] = []
    w = worker(database, noting(sent))
    real, aged, reads = engine_jobs.by_id, [0.8], []

    async def slow(db: Database, ids: Any) -> Any:
        reads.append(1)
        if aged:
            await asyncio.sleep(aged.pop())  # the reading grows old: that is what this is about
        return await real(db, ids)

    monkeypatch.setattr(engine_jobs, "by_id", slow)
    assert await w.claiming.claim_once()
    await eventually(lambda: _true(len(w.context.records) == 1), 5, "it to be sent")
    await record_all(w)
    assert (len(sent), len(reads)) == (1, 2)


async def _true(value: bool) -> bool:
    return value
