"""`overlap: skip`: one execution of a job runs at a time, on however many nodes, whichever of them dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx

from cluster.clock import Clock
from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.core.timings import Timings
from cluster.store.enqueue import insert_owed
from tests.support.engine import job_document, put_jobs, rows, worker
from tests.support.targets import Target, shutdown_all
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, owed, recorded, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


SHORT = Timings(batch_lease=1.5, margin=0.3)


async def test_overlap_skip_never_runs_two_at_once(database: Database) -> None:
    """While one runs, the next is recorded as skipped; when it has ended, the one after runs."""
    document = job_document("a", active_from=0, schedule_version="v1", overlap="skip")
    await put_jobs(database, document)
    running, most = 0, 0
    gate = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return httpx.Response(200)

    workers = [worker(database, slow, f"w{i}") for i in range(3)]
    for i, w in enumerate(workers):
        due = DUE + i * 1000
        e = Execution(execution_id("a", due), "a", due, due, "v1", f"b{i}", document["lane"])
        await insert_owed(database, [e], [Batch(f"b{i}", (e.id,), e.lane, 0, due, due, unclaimed=False)], lambda: "new")
        await w.claiming.claim_once()
    await eventually(lambda: _true(sum(len(w.context.records) for w in workers) == 2), 5)
    gate.set()
    for w in workers:
        await run_dry(w)
    states = sorted(h["state"] for h in await rows(database, "history"))
    assert states == ["skipped", "skipped", "succeeded"]
    assert most == 1
    due = DUE + 9000
    e = Execution(execution_id("a", due), "a", due, due, "v1", "b9", document["lane"])
    await insert_owed(database, [e], [Batch("b9", (e.id,), e.lane, 0, due, due, unclaimed=False)], lambda: "new")
    await run_dry(workers[0])
    assert [h["state"] for h in await rows(database, "history")][-1] == "succeeded"


async def test_a_run_whose_node_died_after_recording_it_gives_way(database: Database) -> None:
    """The job still names an execution as running that has ended: the next one runs all the same."""
    await owed(database, "a", overlap="skip", running="a:0000000000001")
    await run_dry(worker(database, answering(200)))
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"]


async def test_three_nodes_never_overlap_a_job_that_skips(database: Database) -> None:
    """A slow target, an occurrence every 50 ms, three nodes: never two at once, and every occurrence is either
    delivered or recorded as skipped with the reason."""
    await put_jobs(database, job_document("a", active_from=0, schedule_version="v1", overlap="skip"))
    target = Target(0.2)
    workers = [worker(database, target, f"w{i}") for i in range(3)]
    for w in workers:  # before there is anything to claim: the first to start on a busy machine would claim all of it
        w.start()
    start = Clock().now_ms() + 300
    dues = [start + 50 * i for i in range(80)]
    for i, due in enumerate(dues):
        e = Execution(execution_id("a", due), "a", due, due, "v1", f"b{i}", 0)
        await insert_owed(database, [e], [Batch(f"b{i}", (e.id,), 0, 0, due, due - 1000)], lambda: "new")
    await eventually(lambda: recorded(database, 80), 30, "all of them")
    await shutdown_all(workers)
    found = await rows(database, "history")
    states = Counter(h["state"] for h in found)
    assert target.most["a"] == 1
    assert states["succeeded"] >= 2
    assert states["skipped"] == 80 - states["succeeded"]
    assert {h["reason"] for h in found if h["state"] == "skipped"} == {"the run before it had not ended"}
    assert len({h["attempts"][0]["node"] for h in found if h["attempts"]}) > 1, "more than one node took part"


async def test_the_next_occurrence_runs_after_the_running_node_died(database: Database) -> None:
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
    await eventually(lambda: recorded(database, 2), 15, "the second skipped, the first taken over")
    await due_now("b3")
    await eventually(lambda: recorded(database, 3), 5, "the third")
    await heir.shutdown(3)
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded", "skipped", "succeeded"]
    assert len(target.came) == 2
    await mortal.dispatcher.close()


async def _true(value: Any) -> Any:
    return value
