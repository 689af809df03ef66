"""Limits that all nodes keep together, against real workers and a real database."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.clock import Clock
from cluster.core.errors import OutcomeUnknown
from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.core.limits.permits import Limits, Permit, grant
from cluster.core.timings import Timings
from cluster.store import permits, queues
from cluster.store.enqueue import insert_owed
from cluster.store.queues import Queue
from cluster.worker.held_batch import HeldBatch
from cluster.worker.model import ReadyExecution
from tests.support.engine import Crank, check_books, job_document, put_jobs, rows, worker
from tests.support.targets import Target, shutdown_all
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, owed, record_all, recorded, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


SHORT = Timings(batch_lease=1.5, margin=0.3)


async def _true(value: bool) -> bool:
    return value


async def test_a_queue_keeps_its_rate_over_three_nodes(database: Database) -> None:
    """40 a second for 60 executions of many jobs, all due at once, three nodes: no 250 ms has more of them than that and
    what a node may be late by, and every one is delivered, once."""
    await queues.put(database, Queue("mail", Limits(40.0), 0))
    for n in range(6):
        await owed(database, *(f"j{n}-{i}" for i in range(10)), batch=f"b{n}", queue="mail", gate="q:mail")
    target = Target()
    workers = [worker(database, target, f"w{i}") for i in range(3)]
    for w in workers:
        w.start()
    await eventually(lambda: recorded(database, 60), 20, "all of them")
    await shutdown_all(workers)
    came = sorted(target.came)
    assert len(came) == 60
    assert max(sum(t <= other < t + 0.25 for other in came) for t in came) <= 15
    assert came[-1] - came[0] >= 59 / 40 - 0.1
    assert {h["state"] for h in await rows(database, "history")} == {"succeeded"}


@pytest.mark.parametrize(
    "limits", [{"queue": "few", "gate": "q:few"}, {"max_concurrent": 2, "gate": "j:same"}], ids=["queue", "job"]
)
async def test_no_more_at_once_than_allowed_over_three_nodes(database: Database, limits: dict[str, Any]) -> None:
    """Two at once, three nodes, 24 executions, for a queue or a job of its own: never three, and all of them run."""
    await queues.put(database, Queue("few", Limits(None, 2), 0))
    await put_jobs(database, document := job_document("same", active_from=0, schedule_version="v1", **limits))
    for n in range(6):
        found = [
            Execution(
                execution_id("same", t), "same", t, t, "v1", f"b{n}", 0, host=document["host"], limit_key=limits["gate"]
            )
            for t in range(DUE + n * 10_000, DUE + n * 10_000 + 4000, 1000)
        ]
        await insert_owed(
            database,
            found,
            [Batch(f"b{n}", tuple(e.id for e in found), 0, 0, DUE, DUE, unclaimed=False)],
            lambda: "new",
        )
    target = Target(0.05)
    workers = [worker(database, target, f"w{i}") for i in range(3)]
    for w in workers:
        w.start()
    await eventually(lambda: recorded(database, 24), 25, "all of them")
    await shutdown_all(workers)
    assert target.most["all"] == 2
    assert len(target.came) == 24
    assert (await permits.read(database, limits["gate"])).granted == {}
    assert await rows(database, "executions") == []


async def test_permits_of_a_dead_node_are_freed(database: Database) -> None:
    """A node dies with the only permit in its hand: when its lease is over the next one runs, and no sooner."""
    await queues.put(database, Queue("one", Limits(None, 1), 0))
    await owed(database, "first", batch="b1", queue="one", gate="q:one")
    forever = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        await forever.wait()
        return httpx.Response(200)

    mortal = worker(database, hang, "mortal", timings=SHORT)
    await mortal.claiming.claim_once()
    await eventually(lambda: _true(mortal.context.slots.in_flight == 1), 5, "it is under way")
    died = Clock().now_ms()
    await owed(database, "second", batch="b2", queue="one", gate="q:one")
    heir = worker(database, target := Target(), "heir", timings=SHORT)
    heir.start()
    await eventually(lambda: recorded(database, 2), 20, "both")
    await heir.shutdown(3)
    assert target.most["all"] == 1
    sent = [int(h["attempts"][0]["sent_at"]) for h in await rows(database, "history")]
    assert min(sent) - died > 1000
    await mortal.dispatcher.close()
    await check_books(database)


async def test_a_node_that_froze_returns_no_permit_that_another_node_has_by_now(database: Database) -> None:
    """Its lease ran out, another node sends the same execution under the same permit: the late answer frees nothing."""
    await queues.put(database, Queue("one", Limits(None, 1), 0))
    await owed(database, "first", batch="b1", queue="one", gate="q:one")
    late, forever = asyncio.Event(), asyncio.Event()
    heir_has_it = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await late.wait()
        return httpx.Response(200)

    async def hang(_: httpx.Request) -> httpx.Response:
        heir_has_it.set()
        await forever.wait()
        return httpx.Response(200)

    stalled = worker(database, slow, "stalled", timings=SHORT)
    await stalled.claiming.claim_once()
    await eventually(lambda: _true(stalled.context.slots.in_flight == 1), 5, "it is under way")
    heir = worker(database, hang, "heir", timings=SHORT)
    heir.start()
    await asyncio.wait_for(heir_has_it.wait(), 15)
    late.set()
    await eventually(lambda: _true(bool(stalled.context.records)), 5, "the late answer")
    results = stalled.context.records.take()
    await stalled.results.record(results)
    assert (await permits.read(database, "q:one")).granted.keys() == {results[0].execution.id}
    forever.set()
    await heir.shutdown(3)
    await stalled.dispatcher.close()


async def test_a_permit_returned_late_is_not_that_of_the_next_attempt(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB applies a give-back after its answer was given up and the same execution is sent again: it takes back its
    own permit alone, and no other execution runs meanwhile."""
    await queues.put(database, Queue("one", Limits(None, 1), 0))
    await owed(database, "first", batch="b1", queue="one", gate="q:one")
    under_way: list[Any] = []
    give_back = permits.release

    async def given_up(_: Database, back: Any) -> None:
        under_way.append(back)
        raise OutcomeUnknown("no answer in time")

    again, forever = asyncio.Event(), asyncio.Event()
    target = Target()

    async def fails_and_hangs(request: httpx.Request) -> httpx.Response:
        await target(request)
        if len(target.came) == 1:
            return httpx.Response(503)
        again.set()
        await forever.wait()
        return httpx.Response(200)

    monkeypatch.setattr(permits, "release", given_up)
    w = worker(database, fails_and_hangs)
    w.start()
    await asyncio.wait_for(again.wait(), 15)
    await owed(database, "second", batch="b2", queue="one", gate="q:one")
    (late,) = under_way
    await give_back(database, late)
    other = worker(database, target, "other")
    other.start()
    either = (w.dispatcher, other.dispatcher)  # whichever claimed it
    await eventually(
        lambda: _true(any(d.limit_queues.saturated() for d in either) or len(target.came) > 2), 5, "the second"
    )
    await asyncio.sleep(0.3)  # time enough to be let through
    assert len(target.came) == 2, "the second runs beside the first"
    monkeypatch.setattr(permits, "release", give_back)
    forever.set()
    await eventually(lambda: recorded(database, 2), 15, "both")
    await shutdown_all([w, other])
    assert len(target.came) == 3


async def test_nodes_of_the_previous_release_share_the_permit_list(database: Database) -> None:
    """They know names alone. What they enter counts, what they take off is off, and no mark brings it back."""
    one = database.api["permits"]
    await one.insert_one({"_id": "q:two", "next_ms": 0.0, "held": ["a", "b"], "rev": 1})
    seen = await permits.read(database, "q:two")
    assert seen.granted == {"a": "", "b": ""}
    granted = grant(seen, Limits(None, 2), {"a": "x", "c": "y"}, 1000)
    assert granted.at_ms == {"a": 1000}
    assert await permits.write(database, "q:two", seen, granted.permits)
    assert (await permits.read(database, "q:two")).granted == {"a": "x", "b": ""}
    assert (await permits.running_counts(database, ["q:two"])) == {"q:two": 2}
    await one.update_one({"_id": "q:two", "rev": 2}, {"$set": {"next_ms": 0.0, "held": ["b", "c"], "rev": 3}})
    assert (await permits.read(database, "q:two")).granted == {"b": "", "c": ""}
    await permits.release(database, [Permit("q:two", "a", 1000, "x")])
    assert (await permits.read(database, "q:two")).granted == {"b": "", "c": ""}


async def test_a_job_that_is_moved_to_another_queue_asks_there(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it has a permit of the one that it left, for an instant that has not come yet."""
    await queues.put(database, Queue("one", Limits(1.0, 5), 0))
    await queues.put(database, Queue("other", Limits(None, 1), 0))
    await owed(database, "a", "b", queue="one", gate="q:one")
    monkeypatch.setattr("cluster.worker.dispatch.REREAD_SECONDS", 0.1)
    w = worker(database, target := Target())
    w.start()
    await eventually(lambda: _true(bool(target.came)), 5, "the first of them")

    async def both_permitted() -> bool:
        return (await permits.read(database, "q:one")).next_ms > target_ms + 1000

    target_ms = Clock().now_ms()
    await eventually(both_permitted, 5, "the second to have its permit")
    await database.api["jobs"].update_many({}, {"$set": {"queue": "other", "gate": "q:other"}, "$inc": {"revision": 1}})
    await eventually(lambda: recorded(database, 2), 5, "both")
    await w.shutdown(3)
    assert (await permits.read(database, "q:other")).rev > 0
    assert (await permits.read(database, "q:one")).granted == {}


async def test_a_queue_that_does_not_exist_limits_nothing(database: Database) -> None:
    """Neither before it is made nor after it was deleted; and a change is in force within seconds."""
    await owed(database, *(f"j{i}" for i in range(20)), queue="free", gate="q:free")
    target = Target(0.05)
    w = worker(database, target)
    await run_dry(w)
    assert target.most["all"] == 20
    assert await rows(database, "permits") == []


async def test_a_rate_that_is_raised_is_in_force_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in 1,000 s, then many a second: what waits on a node goes within seconds, and what was put back is not put
    back for as long as the old rate would have had it wait."""
    await queues.put(database, Queue("slow", Limits(0.001), 0))
    await owed(database, *(f"j{i}" for i in range(6)), queue="slow", gate="q:slow")
    w = worker(database, target := Target())
    await w.claiming.claim_once()
    await eventually(lambda: _true(bool(w.context.records)), 5, "the first one")
    (queue,) = w.dispatcher.limit_queues._queues.values()
    await eventually(
        lambda: _true(queue._next_ask_ms is not None and len(queue._waiting) == 5), 5, "the others to be told when"
    )
    await record_all(w)

    async def released() -> dict[str, Any] | None:
        for ready in queue._waiting:  # empty while permits are asked for
            ready.begin_waiting(float("-inf"))
        await w.releaser.release_deferred()
        return await database.api["batches"].find_one({"owner": None})

    batch = await eventually(released, 5, "waiting executions to be released")
    assert len(batch["ids"]) == 5
    assert int(batch["claimable_at"]) < Clock().now_ms() + 60_000
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    monkeypatch.setattr("cluster.worker.rate_limiter.CACHE_SECONDS", 0.0)
    await queues.put(database, Queue("slow", Limits(100.0), 0))
    w.start()
    await eventually(lambda: recorded(database, 6), 15, "all of them")
    await w.shutdown(3)
    assert len(target.came) == 6


async def test_limited_executions_take_no_room_from_others(database: Database) -> None:
    """One a minute, 300 waiting: others go out at once, and what waits is put back into the database untouched."""
    await queues.put(database, Queue("slow", Limits(1 / 60), 0))
    for n in range(3):
        await owed(database, *(f"s{n}-{i}" for i in range(100)), batch=f"s{n}", queue="slow", gate="q:slow")
    w = worker(database, answering(200), waiting=256)
    w.start()
    await eventually(lambda: recorded(database, 1), 5, "the first of them")
    await owed(database, *(f"f{i}" for i in range(50)), batch="f")
    await eventually(lambda: recorded(database, 51), 5, "those that are free")
    await eventually(lambda: _true(w.context.unsent.count == 0), 10, "what waits to be put back")
    await w.shutdown(3)
    left = await rows(database, "executions")
    assert len(left) == 299
    assert all(e["attempts"] == [] for e in left)
    assert not [b for b in await rows(database, "batches") if b["owner"] is not None]
    await check_books(database)


async def test_the_probe_of_a_host_keeps_to_its_limit(database: Database) -> None:
    """Whose request probes a host that was away is drawn, and has to have a permit like any other."""
    await queues.put(database, Queue("mail", Limits(None, 1), 0))
    target = Target(0.6)
    running, w = worker(database, target, "running"), worker(database, target)
    await owed(database, "r", batch="r", url="http://good.example:82/x", queue="mail", gate="q:mail")
    assert await running.claiming.claim_once()
    await eventually(lambda: _true(target.now["all"] == 1), 5, "the one that may run")
    opened = {"_id": "bad.example:81", "half_open": False, "until": DatetimeMS(DUE), "opens": 1, "rev": 1}
    await database.api["breakers"].insert_one({**opened, "opened_at": DatetimeMS(DUE), "why": "?", "node": "n"})
    await w.context.breakers.synchronise()
    await owed(database, "p", batch="p", url="http://bad.example:81/x", queue="mail", gate="q:mail")
    assert await w.claiming.claim_once()
    await eventually(lambda: _true(target.now["r"] == 0 and bool(target.came)), 5, "the end of the one that may run")
    await record_all(running)
    await eventually(lambda: _true(len(target.came) == 2), 5, "the probe")
    assert target.most["all"] == 1
    await run_dry(w)


async def test_a_permit_for_an_instant_that_is_too_far_off_is_asked_for_again(database: Database) -> None:
    """The clock was five minutes ahead when it was given out, and is right again."""
    clock, target = Crank(DUE + 300_000), Target()
    w = worker(database, target, clock=clock)
    limit_queues = w.dispatcher.limit_queues
    far = Permit("j:a", "a", DUE + 300_400, "mark")
    ready = _limited("j:a", far)
    clock.now = DUE
    assert not limit_queues.admit(ready)
    assert list(limit_queues._queues["j:a"]._waiting) == [ready], "it asks again, and keeps its permit id"
    near = _limited("j:b", Permit("j:b", "b", DUE + 400, "mark"))
    assert not limit_queues.admit(near)
    assert "j:b" not in limit_queues._queues, "it waits for its instant"
    await w.dispatcher.close()


def _limited(limit_key: str, permit: Permit) -> ReadyExecution:
    execution = Execution(permit.execution, "a", DUE, DUE, "v1", "b", 0)
    job: Any = SimpleNamespace(limit_key=limit_key)
    return ReadyExecution(HeldBatch(Batch("b", (), 0, 0, DUE, DUE), 0.0, []), execution, job, None, 0.0, permit=permit)
