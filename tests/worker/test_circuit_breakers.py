"""Circuit breakers over several nodes: opened by failures, closed by one probe, their executions waiting in the database."""

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
from cluster.store import batches, breakers, deferred_batches
from cluster.store.enqueue import insert_owed
from cluster.store.mongo import operation
from cluster.worker.held_batch import HeldBatch
from cluster.worker.model import ReadyExecution
from tests.support.engine import Crank, check_books, job_document, lead, put_jobs, rows, worker
from tests.support.targets import BAD, GOOD, PATIENT, down
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, owed, record_all, run_dry

if TYPE_CHECKING:
    import pytest

    from cluster.core.limits.circuit_breaker import Breaker
    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker


async def trip(db: Database, w: Worker) -> None:
    """Send so many failing requests that the breaker of bad.example:81 opens, and share it."""
    await owed(db, *(f"t{i}" for i in range(MIN_ATTEMPTS)), batch="trip", url=BAD, retry=PATIENT)
    await run_dry(w)
    await w.context.breakers.synchronise()


async def shift(db: Database, **change: Any) -> None:
    await db.api["breakers"].update_many({}, {"$set": change, "$inc": {"rev": 1}})


async def test_an_open_breaker_costs_waiting_executions_no_attempt(database: Database) -> None:
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
    await insert_owed(
        database, mixed, [Batch("b3", tuple(e.id for e in mixed), 0, 0, DUE, DUE, unclaimed=False)], lambda: "new"
    )
    del seen[:]
    while await w.claiming.claim_once():
        pass
    await eventually(lambda: _done(w, 2), 5, "what goes to the other port")
    await record_all(w)
    await w.share_breakers()
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
    return len(w.context.records) >= results


async def test_a_node_at_rest_reads_the_breakers_before_its_next_claim(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it asks for them while it holds nothing, and it leaves a host alone that failed meanwhile."""
    calls, list_all = list[int](), breakers.list_all

    async def counted(db: Database) -> list[Breaker]:
        calls.append(1)
        return await list_all(db)

    monkeypatch.setattr(breakers, "list_all", counted)
    rested = worker(database, down([]), "rested")
    for _ in range(3):
        wakes = await rested._release_turn()
    assert calls == []
    assert isinstance(wakes, asyncio.Event)
    assert not wakes.is_set(), "no loop runs while there is nothing to release"
    await trip(database, worker(database, down([]), "busy"))
    await owed(database, "held", batch="b1", url=BAD)
    del calls[:]
    await rested.claiming.turns(rested._refresh_breakers)()
    assert calls == [1]
    assert rested.claiming.blocked_hosts() == ("bad.example:81",)
    assert wakes.is_set()
    assert isinstance(await rested._release_turn(), float)
    assert calls == [1, 1], "as long as a breaker is open, it is watched"


async def test_one_probe_of_one_node_closes_the_breaker_for_all(database: Database) -> None:
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
        await w.context.breakers.synchronise()
    await asyncio.gather(*(w.claiming.claim_once() for w in workers))
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
        await record_all(w)
        await w.share_breakers()
        await w.releaser.release_deferred()
        await w.share_breakers()
        await w.releaser.release_deferred()
    await eventually(lambda: _closed(database), 5, "the breaker to close")
    await database.api["batches"].update_many(
        {"send_at": DatetimeMS(DUE), "owner": None}, {"$set": {"claimable_at": DatetimeMS(DUE)}}
    )
    for w in workers:
        await w.context.breakers.synchronise()
        w.dispatcher.start_waiting()
        await run_dry(w)
    probes = {f"p{i}-{k}" for i in range(3) for k in range(4)}
    final = {h["job_id"]: (h["state"], len(h["attempts"])) for h in await rows(database, "history")}
    owed_now = {e["job_id"]: len(e["attempts"]) for e in await rows(database, "executions") if e["job_id"] in probes}
    assert all(final.get(j) == ("succeeded", 1) or owed_now.get(j) == 1 for j in probes)
    assert list(owed_now.values()) in ([1], []), "only the probe that failed has used an attempt"
    await check_books(database)


async def _answered(workers: list[Worker], results: int) -> bool:
    return sum(len(w.context.records) for w in workers) >= results


async def _reopened(db: Database) -> bool:
    return [b["opens"] for b in await rows(db, "breakers")] == [2]


async def _closed(db: Database) -> bool:
    return not await rows(db, "breakers")


async def test_a_breaker_whose_probing_node_died_is_probed_by_another_node(database: Database) -> None:
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
    await w.context.breakers.synchronise()
    assert w.claiming.blocked_hosts() == ("bad.example:81",)
    await owed(database, "a", url=BAD)
    assert not await w.claiming.claim_once()
    await shift(database, until=DatetimeMS(Clock().now_ms() - 1))
    await w.context.breakers.synchronise()
    await run_dry(w)
    await eventually(lambda: _closed(database), 5, "the breaker to close")
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"]


async def test_one_failing_job_does_not_keep_its_host_closed_for_others(database: Database) -> None:
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
    await w.context.breakers.synchronise()
    assert await w.claiming.claim_once()
    await eventually(lambda: _reopened(database), 5, "the probe of the job that fails")
    assert seen == ["/broken"]
    # What waits on the node when a probe was in vain stands behind what waits in the database.
    await shift(database, until=DatetimeMS(Clock().now_ms() + 60_000))
    document = {"host": "", "claimable_at": DatetimeMS(DUE)}
    await database.api["batches"].update_one({"_id": "b"}, {"$set": document})  # or it would not be claimed
    assert await w.claiming.claim_once()
    await eventually(lambda: _parked(w), 5, "what may not be sent now")
    await w.share_breakers()
    await w.releaser.release_deferred()
    (breaker,) = await rows(database, "breakers")
    released = [b for b in await rows(database, "batches") if b["host"] == "bad.example:81" and len(b["ids"]) == 9]
    assert [int(b["claimable_at"]) > int(breaker["until"]) for b in released] == [True]
    # Of ten that wait here nine are well. Whichever is drawn, it is not always the first.
    drawn: set[str] = set()
    for _ in range(100):
        host_queues = w.dispatcher.host_queues
        for place, job in enumerate("abcdefghij"):
            host_queues.add(_ready(job, place))
        drawn.add(host_queues.draw("h").execution.job_id)  # type: ignore[union-attr]
        host_queues._queues.clear()
    assert len(drawn) > 3


async def _parked(w: Worker) -> bool:
    return "bad.example:81" in w.dispatcher.host_queues.hosts()


def _ready(job: str, place: int) -> ReadyExecution:
    execution = Execution(execution_id(job, DUE + place), job, DUE, DUE, "v1", "b", 0)
    held = HeldBatch(Batch("b", (execution.id,), 0, 0, DUE, DUE), 0.0, [execution])
    to_host: Any = SimpleNamespace(host="h")
    return ReadyExecution(held, execution, to_host, None, 0.0)


async def test_batches_of_a_blocked_host_are_deferred_and_hinder_no_others(database: Database) -> None:
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


async def test_what_a_node_defers_by_a_breaker_that_was_closed_meanwhile_is_released_again(database: Database) -> None:
    """The node that closes a breaker releases the batches of its host once. Another node, which still takes the breaker for
    half-open, defers some after that, for as long as the probe could have taken: it undoes that with its next reading."""
    seen: list[str] = []
    target = down(seen)
    closing, late = worker(database, target, "closing"), worker(database, target, "late")
    await trip(database, closing)
    await shift(database, half_open=True, until=DatetimeMS(Clock().now_ms() + 35_000))
    await late.context.breakers.synchronise()
    await owed(database, "held", batch="b1", url=BAD)
    claimed = await late.claiming.claimer.step(batches.ClaimFilter())
    assert claimed is not None
    await late.claiming.take_on(claimed)
    await eventually(lambda: _waits_for_host(late), 5, "the execution to wait for its host")
    await database.api["breakers"].delete_many({})
    await deferred_batches.release_host(database, "bad.example:81")
    await late.releaser.release_deferred()
    (b1,) = [b for b in await rows(database, "batches") if any(i.startswith("held:") for i in b["ids"])]
    assert int(b1["claimable_at"]) > Clock().now_ms() + 30_000, "it was deferred by what that node knew"
    await late.share_breakers()
    (b1,) = [b for b in await rows(database, "batches") if any(i.startswith("held:") for i in b["ids"])]
    assert int(b1["claimable_at"]) <= Clock().now_ms() + 1000
    target.state["up"] = True
    await run_dry(late)
    assert seen[-1] == BAD
    assert "held" in {h["job_id"] for h in await rows(database, "history")}


async def _waits_for_host(w: Worker) -> bool:
    return "bad.example:81" in w.dispatcher.host_queues.hosts()


async def test_an_unused_breaker_expires(database: Database) -> None:
    """Its jobs were deleted, or have other targets: the breaker is removed long after its time."""
    clock = Crank(DUE)
    leader = await lead(database, clock)
    for host, ago in (("forgotten:81", 700_000), ("recent:81", 500_000), ("probed:81", -5000)):
        fields = {"half_open": host == "probed:81", "until": DatetimeMS(DUE - ago), "opens": 1, "rev": 1}
        await database.api["breakers"].insert_one(
            {"_id": host, **fields, "opened_at": DatetimeMS(DUE - 900_000), "why": "?", "node": "n"}
        )
    await leader.sweeper.step()
    assert [b["_id"] for b in await rows(database, "breakers")] == ["probed:81", "recent:81"]


async def test_ten_thousand_open_breakers_do_not_slow_the_leader_down(database: Database) -> None:
    """One read of waiting batches, one of breakers and one write; each host is deferred until its own time."""
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
