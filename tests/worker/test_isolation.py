"""One slow or broken target harms nobody else: slots by host, breakers shared through MongoDB, waiting in the database."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
from bson.datetime_ms import DatetimeMS

from cluster.clock import Clock
from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.core.limits.circuit_breaker import MIN_ATTEMPTS
from cluster.leader.sweep import Sweeper
from cluster.store import batches, deferred_batches, engine_jobs
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed
from cluster.store.mongo import operation
from cluster.worker import dispatch, host_queues
from tests.support.engine import Crank, check_books, job_document, lead, put_jobs, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, owed, run_dry

if TYPE_CHECKING:
    import pytest

    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker

BAD, GOOD = "http://bad.example:81/x", "http://bad.example:82/x"
PATIENT = {
    "max_attempts": 9,
    "initial_delay_seconds": 60.0,
    "multiplier": 1.0,
    "max_delay_seconds": 60.0,
    "jitter": 0.0,
}


def down(seen: list[str], *, up: bool = False) -> Any:
    """bad.example:81 cannot be connected to until `state["up"]`; everything else answers 200."""
    state = {"up": up}

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        if request.url.port == 81 and not state["up"]:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    handler.state = state  # type: ignore[attr-defined]
    return handler


async def drain(w: Worker, seconds: float = 10) -> None:
    """Let the worker's own loops work until it holds nothing."""
    await eventually(lambda: _idle(w), seconds, "the worker to have nothing left")


async def _idle(w: Worker) -> bool:
    return not w.held and not w.results.unrecorded


async def trip(db: Database, w: Worker) -> None:
    """Send so many failing requests that the breaker of bad.example:81 opens, and share it."""
    await owed(db, *(f"t{i}" for i in range(MIN_ATTEMPTS)), batch="trip", url=BAD, retry=PATIENT)
    await run_dry(w)
    await w.breakers.synchronise()


async def shift(db: Database, **change: Any) -> None:
    await db.api["breakers"].update_many({}, {"$set": change, "$inc": {"rev": 1}})


async def test_a_breaker_opens_and_what_waits_uses_up_no_attempt(database: Database) -> None:
    """After 20 failures nothing more is sent; what is held back waits in the database with its attempts untouched,
    is not demoted to failure, and the same host on another port is served."""
    seen: list[str] = []
    w = worker(database, down(seen))
    await trip(database, w)
    (breaker,) = await rows(database, "breakers")
    assert (breaker["_id"], breaker["half_open"], breaker["opens"]) == ("bad.example:81", False, 1)
    assert "20 of 20 attempts failed, the last one: connect" in breaker["why"]
    await owed(database, "held", batch="b1", url=BAD)
    await owed(database, "fine", batch="b2", url=GOOD)
    # One batch of both hosts, as many hosts with little share one.
    await put_jobs(database, *(job_document(j, active_from=0, schedule_version="v1", url=u) for j, u in MIXED))
    mixed = [Execution(execution_id(j, DUE), j, DUE, DUE, "v1", "b3", 0) for j, _ in MIXED]
    await insert_owed(database, mixed, [Batch("b3", tuple(e.id for e in mixed), 0, 0, DUE, DUE)], lambda: "new")
    del seen[:]
    while await w.claim_once():
        pass
    await eventually(lambda: _done(w, 2), 5, "what goes to the other port")
    results, w.results.unrecorded = w.results.unrecorded, []
    await w.results.record(results)
    await w.releaser.release_deferred()
    await run_dry(w)
    assert seen == [GOOD, GOOD]
    assert {h["job_id"] for h in await rows(database, "history")} == {"fine", "mixed-good"}
    waiting = {e["job_id"]: e for e in await rows(database, "executions") if not e["job_id"].startswith("t")}
    assert {j: (e["state"], e["attempts"]) for j, e in waiting.items()} == {
        "held": ("leased" if waiting["held"]["owner"] else "pending", []),
        "mixed-bad": ("pending", []),
    }
    assert waiting["mixed-bad"]["send_at"] == waiting["mixed-bad"]["due_at"], "it is late, and says so"
    apart = next(b for b in await rows(database, "batches") if waiting["mixed-bad"]["batch"] == b["_id"])
    assert apart["owner"] is None
    assert apart["claimable_at"] >= breaker["until"]
    await check_books(database)


MIXED = (("mixed-bad", BAD), ("mixed-good", GOOD))


async def _done(w: Worker, results: int) -> bool:
    return len(w.results.unrecorded) >= results


async def test_one_probe_in_the_cluster_then_everything(database: Database) -> None:
    """When the time is over one request of one node goes out; its success closes the breaker for all nodes."""
    seen: list[str] = []
    target = down(seen)
    workers = [worker(database, target, f"w{i}") for i in range(3)]
    await trip(database, workers[0])
    del seen[:]
    for i in range(3):
        await owed(database, *(f"p{i}-{k}" for k in range(4)), batch=f"p{i}", url=BAD, retry=PATIENT)
    await shift(database, until=DatetimeMS(Clock().now_ms() - 1))
    for w in workers:
        await w.breakers.synchronise()
    await asyncio.gather(*(w.claim_once() for w in workers))
    assert sum(len(w.held) for w in workers) == 3
    await eventually(lambda: _answered(workers, 1), 5, "the probe")
    await eventually(lambda: _reopened(database), 5, "the verdict on the probe")
    assert len(seen) == 1, "half-open means one probe in the whole cluster"
    (breaker,) = await rows(database, "breakers")
    assert (breaker["half_open"], breaker["opens"]) == (False, 2)
    assert 9.0 <= (int(breaker["until"]) - Clock().now_ms()) / 1000 <= 10.1, "twice as long"
    # It is back. Again one probe, and then all of it.
    target.state["up"] = True
    await shift(database, until=DatetimeMS(Clock().now_ms() - 1))
    for w in workers:
        results, w.results.unrecorded = w.results.unrecorded, []
        await w.results.record(results)
        await w.releaser.release_deferred()
        await w.releaser.release_deferred()
    await eventually(lambda: _closed(database), 5, "the breaker to close")
    await database.api["batches"].update_many(
        {"send_at": DatetimeMS(DUE), "owner": None}, {"$set": {"claimable_at": DatetimeMS(DUE)}}
    )
    for w in workers:
        await w.breakers.synchronise()
        w.dispatcher.start_waiting()
        await run_dry(w)
    probes = {f"p{i}-{k}" for i in range(3) for k in range(4)}
    final = {h["job_id"]: (h["state"], len(h["attempts"])) for h in await rows(database, "history")}
    owed_now = {e["job_id"]: len(e["attempts"]) for e in await rows(database, "executions") if e["job_id"] in probes}
    assert all(final.get(j) == ("succeeded", 1) or owed_now.get(j) == 1 for j in probes)
    assert list(owed_now.values()) in ([1], []), "only the probe that failed has used an attempt"
    await check_books(database)


async def _answered(workers: list[Worker], results: int) -> bool:
    return sum(len(w.results.unrecorded) for w in workers) >= results


async def _reopened(db: Database) -> bool:
    return [b["opens"] for b in await rows(db, "breakers")] == [2]


async def _closed(db: Database) -> bool:
    return not await rows(db, "breakers")


async def test_the_death_of_the_probing_node_keeps_nothing_shut(database: Database) -> None:
    """A half-open breaker whose node was never heard of again lets another node probe when its time is over."""
    w = worker(database, answering(200))
    await database.api["breakers"].insert_one(
        {
            "_id": "bad.example:81",
            "half_open": True,
            "until": DatetimeMS(Clock().now_ms() + 60_000),
            "opens": 3,
            "rev": 7,
            "opened_at": DatetimeMS(DUE),
            "why": "?",
            "node": "dead",
        }
    )
    await w.breakers.synchronise()
    assert w.dispatcher.hosts_blocked() == ("bad.example:81",)
    await owed(database, "a", url=BAD)
    assert not await w.claim_once()
    await shift(database, until=DatetimeMS(Clock().now_ms() - 1))
    await w.breakers.synchronise()
    await run_dry(w)
    await eventually(lambda: _closed(database), 5, "the breaker to close")
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"]


async def test_one_job_that_fails_does_not_keep_its_host_from_the_others(database: Database) -> None:
    """The host is back, but one endpoint of it fails always: it is not the probe each time, neither of those that wait on
    a node, nor because its batch is claimed first again."""
    seen: list[str] = []

    def target(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(503 if request.url.path == "/broken" else 200)

    w = worker(database, target)
    await owed(database, "a", batch="a", url=BAD.replace("/x", "/broken"), retry=PATIENT)
    await owed(database, *(f"b{i}" for i in range(9)), batch="b", url=BAD, retry=PATIENT)
    opened = {"_id": "bad.example:81", "half_open": False, "until": DatetimeMS(Clock().now_ms() - 1), "opens": 1}
    more = {"rev": 1, "opened_at": DatetimeMS(DUE), "why": "?", "node": "n"}
    await database.api["breakers"].insert_one({**opened, **more})
    await w.breakers.synchronise()
    assert await w.claim_once()
    await eventually(lambda: _reopened(database), 5, "the probe of the job that fails")
    assert seen == ["/broken"]
    # What waits on the node when a probe was in vain stands behind what waits in the database.
    await shift(database, until=DatetimeMS(Clock().now_ms() + 60_000))
    document = {"host": "", "claimable_at": DatetimeMS(DUE)}
    await database.api["batches"].update_one({"_id": "b"}, {"$set": document})  # or it would not be claimed
    assert await w.claim_once()
    await eventually(lambda: _parked(w), 5, "what may not be sent now")
    await w.releaser.release_deferred()
    (breaker,) = await rows(database, "breakers")
    put_back = [b for b in await rows(database, "batches") if b["host"] == "bad.example:81" and len(b["ids"]) == 9]
    assert [int(b["claimable_at"]) > int(breaker["until"]) for b in put_back] == [True]
    # Of ten that wait here nine are well. Whichever is drawn, it is not always the first.
    drawn: set[str] = set()
    for _ in range(100):
        host_queues = w.dispatcher._parking
        for place, job in enumerate("abcdefghij"):
            host_queues.add(_ready(job, place))
        drawn.add(host_queues.draw("h").execution.job_id)  # type: ignore[union-attr]
        host_queues._parked.clear()
    assert len(drawn) > 3


async def _parked(w: Worker) -> bool:
    return "bad.example:81" in w.dispatcher._parking.hosts()


def _ready(job: str, place: int) -> Any:
    execution = Execution(execution_id(job, DUE + place), job, DUE, DUE, "v1", "b", 0)
    held = SimpleNamespace(waiting={execution.id: execution})
    return SimpleNamespace(execution=execution, held=held, job=SimpleNamespace(host="h"), parked_at=0.0)


async def test_what_is_held_back_is_put_off_and_no_hindrance(database: Database) -> None:
    """Batches of a held host are not walked over, become late work, do not count against catching up, and are claimable
    at once when the breaker closes."""
    leader = await lead(database, Crank(DUE))
    until = Clock().now_ms() + 60_000
    await database.api["breakers"].insert_one(
        {
            "_id": "bad.example:81",
            "half_open": False,
            "until": DatetimeMS(until),
            "opens": 1,
            "rev": 1,
            "opened_at": DatetimeMS(DUE),
            "why": "?",
            "node": "n",
        }
    )
    for i in range(3):
        await owed(database, f"a{i}", batch=f"b{i}", url=BAD)
    await owed(database, "fine", batch="good", url=GOOD)
    assert isinstance(leader.sweeper, Sweeper)
    await leader.sweeper.step()
    held = [b for b in await rows(database, "batches") if b["host"] == "bad.example:81"]
    assert [(int(b["claimable_at"]), b["late"]) for b in held] == [(until, True)] * 3
    assert await batches.count_late(database, 64) == 1, "the other one is overdue"
    assert await deferred_batches.release_host(database, "bad.example:81") == 3
    assert await batches.count_late(database, 64) == 4


async def test_a_breaker_that_nobody_wants_to_pass_is_forgotten(database: Database) -> None:
    """Its jobs were deleted, or sent elsewhere: long after its time it is closed, and says so to nobody any more."""
    clock = Crank(DUE)
    leader = await lead(database, clock)
    for host, ago in (("forgotten:81", 700_000), ("recent:81", 500_000), ("probed:81", -5000)):
        fields = {"half_open": host == "probed:81", "until": DatetimeMS(DUE - ago), "opens": 1, "rev": 1}
        await database.api["breakers"].insert_one(
            {"_id": host, **fields, "opened_at": DatetimeMS(DUE - 900_000), "why": "?", "node": "n"}
        )
    await leader.sweeper.step()
    assert [b["_id"] for b in await rows(database, "breakers")] == ["probed:81", "recent:81"]


async def test_ten_thousand_open_breakers_do_not_hold_the_leader_up(database: Database) -> None:
    """One reading of what waits, one of breakers, one write, whoever is away; each host waits for its own time."""
    leader = await lead(database, Crank(DUE))
    first = Clock().now_ms() + 60_000
    common = {"half_open": False, "opens": 1, "rev": 1, "opened_at": DatetimeMS(DUE), "why": "?", "node": "n"}
    await database.api["breakers"].insert_many(
        [{"_id": f"h{i}.example:81", "until": DatetimeMS(first + i), **common} for i in range(10_000)]
    )
    for i in (3, 7, 9_999):
        await owed(database, f"a{i}", batch=f"b{i}", url=f"http://h{i}.example:81/x")
    await owed(database, "fine", batch="good", url=GOOD)
    assert isinstance(leader.sweeper, Sweeper)
    before = operations()
    await leader.sweeper.step()
    assert operations() - before < 20
    found = {b["host"]: int(b["claimable_at"]) for b in await rows(database, "batches") if b.get("held")}
    assert found == {f"h{i}.example:81": first + i for i in (3, 7, 9_999)}


def operations() -> int:
    """How often this process has asked the database."""
    return sum(sum(t.times.counts) for t in operation.timings().values())


async def test_being_handed_back_does_not_count_as_killing_nodes(database: Database) -> None:
    """However often a batch comes back untouched, it is neither split nor given up as `node_lost`."""
    await owed(database, "a", "b", url=BAD)
    w = worker(database, answering(200))
    for i in range(15):
        claimed = await w._claimer.step(ClaimFilter(late=i > 0))  # overdue: it comes back as late work
        assert claimed is not None
        assert claimed.batch.claims == 1
        await w._take_on(claimed)
        await w.releaser.release(w.held["b"], None)
    await run_dry(w)
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"] * 2


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
    await eventually(lambda: _true(w.dispatcher.in_flight == 8), 5, "a quarter of the slots, and no more, to hang")
    await eventually(lambda: _put_back(database, 72), 10, "what could not go to be put back")
    forever.set()
    await eventually(lambda: _recorded(database, 280), 20, "everything")
    await w.shutdown(5)
    assert {h["state"] for h in await rows(database, "history")} == {"succeeded"}


async def _true(value: bool) -> bool:
    return value


async def _put_back(db: Database, count: int) -> bool:
    found = await db.api["batches"].find({"owner": None}).to_list()
    return sum(len(b["ids"]) for b in found) >= count


async def _recorded(db: Database, count: int) -> bool:
    return await db.api["history"].count_documents({}) == count


async def test_a_long_backlog_of_a_slow_host_is_not_walked_over(database: Database) -> None:
    """Late batches that nobody may take now come back little by little."""
    for i in range(40):
        await owed(database, f"a{i}", batch=f"b{i}", url=BAD)
    await database.api["batches"].update_many({}, {"$set": {"late": True}})
    assert await deferred_batches.spread_late(database, "host", ["other:1"], 500) == 0
    assert await deferred_batches.spread_late(database, "host", ["bad.example:81"], 500) == 40
    now = Clock().now_ms()
    at = [int(b["claimable_at"]) - now for b in await rows(database, "batches")]
    assert -1000 < min(at) < max(at) <= 20_000
    assert len(set(at)) > 30


async def test_what_waits_for_its_host_is_not_read_again_and_again(
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
    await w.claim_once()
    await eventually(lambda: _true(w.dispatcher.in_flight == 8), 5, "a quarter of the slots")
    for waiting in w.dispatcher._parking._parked.values():
        for ready in waiting:
            ready.read_at = float("-inf")
    del reads[:]
    monkeypatch.setattr(host_queues, "LOOK_SECONDS", 60.0)
    w.dispatcher._parking._looked_at = w._clock.monotonic()
    free.release()
    await eventually(lambda: _true(len(w.results.unrecorded) == 1), 5, "one that ended")
    await eventually(lambda: _true(w.dispatcher.in_flight == 8), 5, "the next one to go")
    assert 1 <= len(reads) <= host_queues.STARTS_PER_LOOK
    await w.dispatcher.close()


async def test_a_node_whose_slots_all_hang_leaves_its_work_to_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due and waits for a slot there goes back, unsent and at once claimable; it claims nothing more."""
    monkeypatch.setattr(dispatch, "STUCK_SECONDS", 0.05)
    release = asyncio.Event()
    hung: list[str] = []

    async def hangs(request: httpx.Request) -> httpx.Response:
        hung.append(str(request.url))
        await release.wait()
        return httpx.Response(200)

    full = worker(database, hangs, "full", slots=1)
    await owed(database, "first", "second", batch="b0", url="http://hangs.example/")
    assert await full.claim_once()
    await eventually(lambda: _stuck(full), 5, "its only slot to hang while something is due")
    assert len(hung) == 1
    await full.releaser.release_deferred()
    (left,) = (b for b in await rows(database, "batches") if b["owner"] is None)
    assert not await full.claim_once(), "it has no room"
    seen: list[str] = []
    await run_dry(worker(database, down(seen), "free"))
    assert (len(left["ids"]), len(seen)) == (1, 1)
    release.set()
    await run_dry(full)
    assert {h["state"] for h in await rows(database, "history")} == {"succeeded"}
    assert len(hung) + len(seen) == 2
    await check_books(database)


async def _stuck(w: Worker) -> bool:
    return w.dispatcher.stuck() and bool(w.dispatcher.overdue_batches())
