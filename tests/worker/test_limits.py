"""Limits that all nodes keep together, against real workers and a real database; and runs that must not overlap."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.clock import Clock
from cluster.core.errors import OutcomeUnknown
from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.core.limits.permits import Limits, Permit
from cluster.core.timings import Timings
from cluster.store import permits, queues
from cluster.store.enqueue import insert_owed
from cluster.store.queues import Queue
from cluster.worker.held_batch import HeldBatch
from cluster.worker.model import ReadyExecution
from tests.support.engine import Crank, check_books, job_document, put_jobs, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, owed, record_all, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker

SHORT = Timings(batch_lease=1.5, margin=0.3)


async def _true(value: bool) -> bool:
    return value


async def _recorded(db: Database, count: int) -> bool:
    return await db.api["history"].count_documents({}) >= count


class Target:
    """Counts what is under way at once, for each job and in all, and when it came (monotonic seconds)."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.came: list[float] = []
        self._seconds = seconds

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.came.append(asyncio.get_running_loop().time())
        names = (request.headers["horae-job-id"], "all")
        for name in names:
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        await asyncio.sleep(self._seconds)
        for name in names:
            self.now[name] -= 1
        return httpx.Response(200)


async def drain_all(workers: list[Worker]) -> None:
    for w in workers:
        await w.shutdown(3)


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
    await eventually(lambda: _recorded(database, 60), 20, "all of them")
    await drain_all(workers)
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
        await insert_owed(database, found, [Batch(f"b{n}", tuple(e.id for e in found), 0, 0, DUE, DUE)], lambda: "new")
    target = Target(0.05)
    workers = [worker(database, target, f"w{i}") for i in range(3)]
    for w in workers:
        w.start()
    await eventually(lambda: _recorded(database, 24), 25, "all of them")
    await drain_all(workers)
    assert target.most["all"] == 2
    assert len(target.came) == 24
    assert (await permits.read(database, limits["gate"])).granted == {}
    assert await rows(database, "executions") == []


async def test_the_death_of_a_node_gives_its_permits_back(database: Database) -> None:
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
    await eventually(lambda: _recorded(database, 2), 20, "both")
    await heir.shutdown(3)
    assert target.most["all"] == 1
    sent = [int(h["attempts"][0]["sent_at"]) for h in await rows(database, "history")]
    assert min(sent) - died > 1000
    await mortal.dispatcher.close()
    await check_books(database)


async def test_a_node_that_stood_still_gives_no_permit_back_that_is_anothers_by_now(database: Database) -> None:
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


async def test_a_permit_that_is_given_back_late_is_not_that_of_the_next_attempt(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB applies a give-back after its answer was given up and the same execution is sent again: it takes back its
    own permit alone, and nobody else runs meanwhile."""
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
    await eventually(lambda: _recorded(database, 2), 15, "both")
    await drain_all([w, other])
    assert len(target.came) == 3


async def test_a_job_that_is_moved_to_another_queue_asks_there(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it has a permit of the one that it left, for an instant that has not come yet."""
    await queues.put(database, Queue("one", Limits(1.0, 5), 0))
    await queues.put(database, Queue("other", Limits(None, 1), 0))
    await owed(database, "a", "b", queue="one", gate="q:one")
    monkeypatch.setattr("cluster.worker.dispatch.STALE_SECONDS", 0.1)
    w = worker(database, target := Target())
    w.start()
    await eventually(lambda: _true(bool(target.came)), 5, "the first of them")

    async def both_permitted() -> bool:
        return (await permits.read(database, "q:one")).next_ms > target_ms + 1000

    target_ms = Clock().now_ms()
    await eventually(both_permitted, 5, "the second to have its permit")
    await database.api["jobs"].update_many({}, {"$set": {"queue": "other", "gate": "q:other"}})
    await eventually(lambda: _recorded(database, 2), 5, "both")
    await w.shutdown(3)
    assert (await permits.read(database, "q:other")).rev > 0
    assert (await permits.read(database, "q:one")).granted == {}


async def test_a_queue_that_is_not_there_limits_nothing(database: Database) -> None:
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

    async def put_back() -> dict[str, Any] | None:
        for ready in queue._waiting:  # empty while permits are asked for
            ready.begin_waiting(float("-inf"))
        await w.releaser.release_deferred()
        return await database.api["batches"].find_one({"owner": None})

    batch = await eventually(put_back, 5, "what waits to be put back")
    assert len(batch["ids"]) == 5
    assert int(batch["claimable_at"]) < Clock().now_ms() + 60_000
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    monkeypatch.setattr("cluster.worker.rate_limiter.CACHE_SECONDS", 0.0)
    await queues.put(database, Queue("slow", Limits(100.0), 0))
    w.start()
    await eventually(lambda: _recorded(database, 6), 15, "all of them")
    await w.shutdown(3)
    assert len(target.came) == 6


async def test_what_is_limited_takes_no_room_from_others(database: Database) -> None:
    """One a minute, 300 waiting: others go out at once, and what waits is put back into the database untouched."""
    await queues.put(database, Queue("slow", Limits(1 / 60), 0))
    for n in range(3):
        await owed(database, *(f"s{n}-{i}" for i in range(100)), batch=f"s{n}", queue="slow", gate="q:slow")
    w = worker(database, answering(200), waiting=256)
    w.start()
    await eventually(lambda: _recorded(database, 1), 5, "the first of them")
    await owed(database, *(f"f{i}" for i in range(50)), batch="f")
    await eventually(lambda: _recorded(database, 51), 5, "those that are free")
    await eventually(lambda: _true(w.context.unsent.count == 0), 10, "what waits to be put back")
    await w.shutdown(3)
    left = await rows(database, "executions")
    assert len(left) == 299
    assert all(e["attempts"] == [] for e in left)
    assert not [b for b in await rows(database, "batches") if b["owner"] is not None]
    await check_books(database)


async def test_three_nodes_never_overlap_a_job_that_skips(database: Database) -> None:
    """A slow target, an occurrence every 50 ms, three nodes: never two at once, and every occurrence is either
    delivered or recorded as skipped with the reason."""
    await put_jobs(database, job_document("a", active_from=0, schedule_version="v1", overlap="skip"))
    target = Target(0.2)
    workers = [worker(database, target, f"w{i}") for i in range(3)]
    start = Clock().now_ms() + 300
    dues = [start + 50 * i for i in range(80)]
    for i, due in enumerate(dues):
        e = Execution(execution_id("a", due), "a", due, due, "v1", f"b{i}", 0)
        await insert_owed(database, [e], [Batch(f"b{i}", (e.id,), 0, 0, due, due - 1000)], lambda: "new")
    for w in workers:
        w.start()
    await eventually(lambda: _recorded(database, 80), 30, "all of them")
    await drain_all(workers)
    found = await rows(database, "history")
    states = Counter(h["state"] for h in found)
    assert target.most["a"] == 1
    assert states["succeeded"] >= 4
    assert states["skipped"] == 80 - states["succeeded"]
    assert {h["reason"] for h in found if h["state"] == "skipped"} == {"the run before it had not ended"}
    assert len({h["attempts"][0]["node"] for h in found if h["attempts"]}) > 1, "more than one node took part"


async def test_the_death_of_the_node_that_runs_lets_the_next_one_run(database: Database) -> None:
    """Its run is taken over when the lease ends and delivered; what is due before that is skipped; nothing is stuck."""
    await put_jobs(database, job_document("a", active_from=0, schedule_version="v1", overlap="skip"))

    async def due_now(name: str) -> None:
        due = Clock().now_ms()
        e = Execution(execution_id("a", due), "a", due, due, "v1", name, 0)
        await insert_owed(database, [e], [Batch(name, (e.id,), 0, 0, due, due)], lambda: "new")

    forever = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        await forever.wait()
        return httpx.Response(200)

    await due_now("b1")
    mortal = worker(database, hang, "mortal", timings=SHORT)
    await mortal.claiming.claim_once()
    await eventually(lambda: _true(mortal.context.slots.in_flight == 1), 5, "it is under way")
    heir = worker(database, target := Target(), "heir", timings=SHORT)
    heir.start()
    await due_now("b2")
    await eventually(lambda: _recorded(database, 2), 15, "the second skipped, the first taken over")
    await due_now("b3")
    await eventually(lambda: _recorded(database, 3), 5, "the third")
    await heir.shutdown(3)
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded", "skipped", "succeeded"]
    assert len(target.came) == 2
    await mortal.dispatcher.close()


async def test_edges_of_start_and_end(database: Database) -> None:
    """An occurrence on the very ms of startAt or endAt is owed; a ms outside it is not. What has been settled agrees
    with what the main pass wrote."""
    from tests.support.engine import T0, Crank, lead, settle_all

    start, end = T0 + 5000, T0 + 8000
    edges = {
        "on": (start, end),
        "inside": (start + 1, end - 1),
        "outside": (start - 1, end + 1),
    }
    for name, (first, last) in edges.items():
        await put_jobs(
            database,
            job_document(name, start_at=DatetimeMS(first), end_at=DatetimeMS(last), ends_at=DatetimeMS(last)),
        )
    clock = Crank()
    await settle_all(await lead(database, clock), clock)
    found: dict[str, list[int]] = {name: [] for name in edges}
    for e in await rows(database, "executions"):
        found[e["job_id"]].append((int(e["due_at"]) - T0) // 1000)
    assert found == {"on": [5, 6, 7, 8], "inside": [6, 7], "outside": [5, 6, 7, 8]}


async def test_a_herd_is_spread_by_a_stable_hash(database: Database) -> None:
    """1,000 jobs of one second with `spreadSeconds` 10: each second of ten gets about its share, a job always the same
    one, and the due time in the id stays what it is."""
    from tests.support.engine import T0, Crank, lead, settle_all

    due = T0 + 10_000
    jobs = [job_document(f"j{i}", "@at " + _at(due), spread_seconds=10, ends_at=DatetimeMS(due)) for i in range(1000)]
    await put_jobs(database, *jobs)
    clock = Crank()
    await settle_all(await lead(database, clock), clock)
    found = await rows(database, "executions")
    late = Counter((int(e["send_at"]) - int(e["due_at"])) // 1000 for e in found)
    assert sorted(late) == list(range(10))
    assert all(60 <= n <= 140 for n in late.values()), late
    assert {e["_id"] for e in found} == {f"j{i}:{due}" for i in range(1000)}
    from cluster.core.ids import spread_ms

    assert all(int(e["send_at"]) - int(e["due_at"]) == spread_ms(e["job_id"], 10) for e in found)


def _at(ms: int) -> str:
    from cluster.core.instants import format_instant

    return format_instant(ms)


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


async def test_a_permit_of_a_time_that_never_came_is_asked_for_anew(database: Database) -> None:
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


async def test_what_is_due_only_in_minutes_takes_no_room(database: Database) -> None:
    """It was claimed by a clock that was ahead, which is right again: it waits in the database, claimable in time."""
    clock = Crank(DUE - 300_000)
    w = worker(database, answering(200), clock=clock)
    await owed(database, "a")
    assert await w.claiming.claim_once()
    assert w.held
    await w.releaser.release_deferred()
    assert not w.held
    (batch,) = await rows(database, "batches")
    assert (batch["owner"], int(batch["claimable_at"])) == (None, DUE - 1000)
    await check_books(database)
