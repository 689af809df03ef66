"""What a node will not send soon goes back into the database, and is claimable in time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.store import batches, executions
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed
from cluster.worker import due_batches, release, slots
from tests.support.engine import Crank, check_books, job_document, put_jobs, rows, worker
from tests.support.targets import down
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, owed, run_dry

if TYPE_CHECKING:
    import pytest

    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker


async def test_shutdown_releases_unsent_executions_and_records_those_in_flight(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a drain nothing carries the node's name, and what was in flight is recorded."""
    monkeypatch.setattr(release, "FAR_MS", 120_000)  # else it is released as claimed too early, and not by the shutdown
    await owed(database, "now")
    future = int((await database.api.client.admin.command("hello"))["localTime"].timestamp() * 1000) + 60_000
    await put_jobs(database, job_document("later", active_from=0, schedule_version="v1"))
    later = Execution(execution_id("later", future), "later", future, future, "v1", "b9", 0)
    await insert_owed(database, [later], [Batch("b9", (later.id,), 0, 0, future, DUE)], lambda: "new")
    started, answered = asyncio.Event(), asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        started.set()
        await answered.wait()
        return httpx.Response(200)

    w = worker(database, slow)
    w.start()
    await asyncio.wait_for(started.wait(), 15)
    await eventually(lambda: _true(len(w.held) == 2))
    shutdown = asyncio.create_task(w.shutdown(5))
    await eventually(lambda: _true(w.claiming.stopped))
    answered.set()
    await shutdown
    assert [h["job_id"] for h in await rows(database, "history")] == ["now"]
    (batch,) = await rows(database, "batches")
    assert (batch["owner"], batch["ids"]) == (None, [later.id])
    await check_books(database)


async def test_a_batch_that_grew_while_it_was_held_is_released(database: Database) -> None:
    """A repair adds an execution to a batch that is being worked on: deleting it would leave that one orphaned."""
    (first,) = await owed(database, "a")
    w = worker(database, answering(200))
    claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    await put_jobs(database, job_document("b", active_from=0, schedule_version="v1"))
    added = replace(first, id=execution_id("b", DUE), job_id="b")
    await executions.insert(database, [added])
    await batches.insert(database, [Batch("b", (added.id,), first.lane, 0, DUE, DUE)])
    await w.claiming.take_on(claimed)
    await run_dry(w)
    await run_dry(w)
    assert {h["job_id"] for h in await rows(database, "history")} == {"a", "b"}
    assert await rows(database, "batches") == []


async def test_a_node_whose_slots_all_hang_releases_its_due_executions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due and waits for a slot there goes back, unsent and at once claimable; it claims nothing more."""
    monkeypatch.setattr(slots, "STUCK_SECONDS", 0.05)
    let_go = asyncio.Event()
    hung: list[str] = []

    async def hangs(request: httpx.Request) -> httpx.Response:
        hung.append(str(request.url))
        await let_go.wait()
        return httpx.Response(200)

    full = worker(database, hangs, "full", slots=1)
    await owed(database, "first", "second", batch="b0", url="http://hangs.example/")
    assert await full.claiming.claim_once()
    await eventually(lambda: _stuck(full), 5, "its only slot to hang while something is due")
    assert len(hung) == 1
    await full.releaser.release_deferred()
    (left,) = (b for b in await rows(database, "batches") if b["owner"] is None)
    assert not await full.claiming.claim_once(), "it has no room"
    seen: list[str] = []
    await run_dry(worker(database, down(seen), "free"))
    assert (len(left["ids"]), len(seen)) == (1, 1)
    let_go.set()
    await run_dry(full)
    assert {h["state"] for h in await rows(database, "history")} == {"succeeded"}
    assert len(hung) + len(seen) == 2
    await check_books(database)


async def test_a_node_whose_slots_all_hang_releases_what_is_not_prepared_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for its turn to be prepared goes back with what is ready: another node may send it sooner."""
    monkeypatch.setattr(due_batches, "READY_AHEAD", 1)
    monkeypatch.setattr(slots, "STUCK_SECONDS", 1e9)
    let_go = asyncio.Event()

    async def hangs(_: httpx.Request) -> httpx.Response:
        await let_go.wait()
        return httpx.Response(200)

    full = worker(database, hangs, "full", slots=1)
    for n in range(4):
        await owed(database, f"a{n}", batch=f"b{n}", url=f"http://hangs{n}.example/")
        assert await full.claiming.claim_once()
        await eventually(partial(_held_up, full, min(n, 1)), 5, "one to be sent, and one to wait for a slot")
    await eventually(lambda: _true(len(full.dispatcher.overdue_batches()) == 3), 5, "two that are not prepared")
    monkeypatch.setattr(slots, "STUCK_SECONDS", 0.05)
    await eventually(lambda: _stuck(full), 5, "its only slot to hang while something is due")
    await full.releaser.release_deferred()
    assert full.context.unsent.count == 0
    assert sum(b["owner"] is None for b in await rows(database, "batches")) == 3
    let_go.set()
    await full.dispatcher.close()


async def _held_up(w: Worker, due: int) -> bool:
    return w.context.slots.in_flight == 1 and w.dispatcher.run_queue.count_due() == due


async def _stuck(w: Worker) -> bool:
    return w.context.slots.stuck() and bool(w.dispatcher.run_queue.overdue_batches())


async def test_a_batch_that_is_due_only_in_minutes_is_released(database: Database) -> None:
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


async def _true(value: Any) -> Any:
    return value
