"""The run queue: executions leave at their instants, also when the clock is corrected, and on uvloop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvloop

from cluster.core.execution.model import Batch, Execution
from cluster.worker.held_batch import HeldBatch
from cluster.worker.model import ReadyExecution
from cluster.worker.run_queue import RunQueue
from cluster.worker.slots import Slots
from tests.support.engine import Crank, noting, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, owed

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_waiting_executions_are_sent_when_the_clock_is_corrected(database: Database) -> None:
    """A primary was five minutes behind, and what was claimed by its time waits for five minutes no longer once another
    one leads: neither for its jobs to be read, nor in the queue."""
    await owed(database, "a")
    clock, seen = Crank(DUE - 300_000), list[str]()
    w = worker(database, noting(seen), clock=clock)
    assert await w.claiming.claim_once()
    clock.now = DUE
    await eventually(lambda: _noted(seen, 1), 5, "the request")
    # Ahead: what waited for a slot was late by a time that never came.
    queue = RunQueue(clock, Slots(clock, 1), lambda r: seen.append(r.execution.id))
    (execution,) = await owed(database, "b", batch="later")
    clock.now = DUE + 300_000
    held = HeldBatch(Batch("later", (execution.id,), 0, 0, DUE, DUE), 0.0, [execution])
    queue.enqueue(ReadyExecution(held, execution, None, None, 0.0))  # type: ignore[arg-type]
    clock.now = DUE + 1000
    queue.start_due()
    assert seen[1:] == []
    queue.retime()
    assert seen[1:] == [execution.id]
    queue.close()


async def _noted(seen: list[str], count: int) -> bool:
    return len(seen) >= count


def test_the_run_queue_wakes_at_once_on_uvloop() -> None:
    """uvloop has another handle for what is called at once; a second look at the queue met it and failed."""

    async def look() -> list[str]:
        started: list[str] = []
        clock = Crank(DUE)
        queue = RunQueue(clock, Slots(clock, 1), lambda r: started.append(r.execution.id))
        execution = Execution("a:1", "a", DUE, DUE + 1, "v1", "b", 0)
        held = HeldBatch(Batch("b", ("a:1",), 0, 0, DUE, DUE), 0.0, [])
        queue.enqueue(ReadyExecution(held, execution, None, None, 0.0))  # type: ignore[arg-type]
        clock.seconds_until = lambda _: 0.0001  # type: ignore[assignment]
        queue.start_due()
        queue.start_due()
        clock.now += 1
        await eventually(lambda: _noted(started, 1), 5, "the alarm")
        queue.close()
        return started

    assert uvloop.run(look()) == ["a:1"]
