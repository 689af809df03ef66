"""When the batches of one node are prepared: shortly before their send time all that are held for it, as far as they are
sent soon after it. The rest is prepared as it leaves, as what is due already is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster.worker.due_batches import MAX_READ
from cluster.worker.run_queue import LOOK_AGAIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from cluster.clock import Clock
    from cluster.worker.due_batches import DueBatches
    from cluster.worker.held_batch import HeldBatch
    from cluster.worker.pending import Unsent
    from cluster.worker.run_queue import RunQueue
    from cluster.worker.tasks import Tasks

LEAD_SECONDS = 0.05
LEAD_PER_EXECUTION = 0.0002
MAX_LEAD_SECONDS = 0.85
"""A lead that is too long costs more than one that is too short: what is not sent within a second of its reading is read again."""
MAX_READY = 2048
"""So many requests are made before their time, at most. A node sends no more within a second of their reading, and their
bodies take memory.
"""
GATHER_SECONDS = 0.1
"""How often the lead is computed anew: while more is claimed for the same instant, it grows."""


class PreparedAhead:
    """The batches of one node that are not due. `prepare` is given those whose jobs are to be read together."""

    def __init__(
        self,
        clock: Clock,
        tasks: Tasks,
        run_queue: RunQueue,
        unsent: Unsent,
        due: DueBatches,
        prepare: Callable[[list[HeldBatch]], Coroutine[Any, Any, None]],
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._run_queue = run_queue
        self._unsent = unsent
        self._due = due
        self._prepare = prepare
        self._waiting: dict[int, list[HeldBatch]] = {}
        """By send time (ms), the batches that are to be prepared together."""
        self._left: dict[int, list[HeldBatch]] = {}
        """By send time (ms), the batches that are prepared as they leave."""
        self._making = 0
        """Executions whose requests are being made."""

    def add(self, held: HeldBatch) -> None:
        """Prepare all of a batch when its time has come, together with the other batches of this time."""
        self._gather(self._waiting, held, self._prepare_in_time)

    def _gather(
        self,
        batches: dict[int, list[HeldBatch]],
        held: HeldBatch,
        wait: Callable[[int], Coroutine[Any, Any, None]],
    ) -> None:
        together = batches.get(held.batch.send_ms)
        if together is not None:
            together.append(held)
            return
        batches[held.batch.send_ms] = [held]
        self._tasks.spawn(wait(held.batch.send_ms))

    def _lead_seconds(self) -> float:
        return min(MAX_LEAD_SECONDS, LEAD_SECONDS + LEAD_PER_EXECUTION * min(self._unsent.count, MAX_READY))

    async def _prepare_in_time(self, send_ms: int) -> None:
        """Shortly before the send time, prepare the batches that are held for it by then."""
        # A millisecond is near enough: on a virtual clock the rest that a sum of floats leaves over would never pass.
        while (delay := self._clock.seconds_until(send_ms) - self._lead_seconds()) > 0.001:
            await asyncio.sleep(min(delay, GATHER_SECONDS if delay < LOOK_AGAIN_SECONDS else LOOK_AGAIN_SECONDS))
            if self._run_queue.stopped or not any(held.waiting for held in self._waiting[send_ms]):
                del self._waiting[send_ms]
                return
        batches = self._waiting.pop(send_ms)
        if self._clock.seconds_until(send_ms) <= 0:
            self._due.add(batches)
            return
        together: list[HeldBatch] = []
        size = 0
        for held in batches:
            count = len(held.waiting)
            if self._making + len(self._run_queue) + count > MAX_READY:
                self._gather(self._left, held, self._leave)
                continue
            if together and size + count > MAX_READ:
                self._tasks.spawn(self._prepare_counted(together, size))
                together, size = [], 0
            together.append(held)
            size += count
            self._making += count
        if together:
            await self._prepare_counted(together, size)

    async def _prepare_counted(self, together: list[HeldBatch], size: int) -> None:
        try:
            await self._prepare(together)
        finally:
            self._making -= size

    async def _leave(self, send_ms: int) -> None:
        """Enough is ready for this instant: these batches are prepared when they are due, in their turn."""
        while (delay := self._clock.seconds_until(send_ms)) > 0.001:
            await asyncio.sleep(min(delay, LOOK_AGAIN_SECONDS))
            if self._run_queue.stopped:
                break
        self._due.add(self._left.pop(send_ms))
