"""Batches that are due already and wait to be prepared, in the order of their send times.

A backlog is prepared as it leaves, so that each job is read once, just before that. What keeps a batch back is only what
is ready for its own host, or what waits for a slot of the node: a busy host keeps out no other one.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from cluster.worker.held_batch import HeldBatch
    from cluster.worker.run_queue import RunQueue
    from cluster.worker.tasks import Tasks

READY_AHEAD = 512
"""While so many of a host are due and ready, nothing more of it that is due is prepared: its jobs would be read again."""
MANY_READY = 2048
"""While so many are ready and wait for hosts that have few of them each, no batch is prepared that such hosts share."""
MAX_READ = 512
"""Executions whose jobs are read together: a read costs both sides more than what it reads of a job that is known."""
LOOK_SECONDS = 0.02


def _send_ms(held: HeldBatch) -> int:
    return held.batch.send_ms


class DueBatches:
    """The batches of one node. `prepare` is given those whose turn it is."""

    def __init__(
        self,
        tasks: Tasks,
        run_queue: RunQueue,
        count_moving: Callable[[str], int],
        count_waiting: Callable[[str], int],
        prepare: Callable[[list[HeldBatch]], Coroutine[Any, Any, None]],
    ) -> None:
        """`count_moving`: how many are ready and wait for this host, if it answers quickly. `count_waiting`: the same whether it
        does or not; without a name, of all hosts, a few of each at most.
        """
        self._count_waiting = count_waiting
        self._tasks = tasks
        self._run_queue = run_queue
        self._count_moving = count_moving
        self._prepare = prepare
        self._waiting: list[HeldBatch] = []
        self._preparing: Counter[str] = Counter()
        """By host, how many executions are being prepared."""
        self._looking = False

    def add(self, batches: Iterable[HeldBatch]) -> None:
        """These are due."""
        for held in batches:
            insort(self._waiting, held, key=_send_ms)
        self._start()

    def unprepared(self) -> list[HeldBatch]:
        """Those that wait for their turn."""
        return [held for held in self._waiting if held.waiting]

    def _start(self) -> None:
        self._start_those_whose_turn_it_is()
        if self._waiting and not self._looking:
            self._looking = True
            self._tasks.spawn(self._look())

    def _start_those_whose_turn_it_is(self) -> None:
        while together := self._take():
            sizes = Counter[str]()
            for held in together:
                sizes[held.batch.host] += len(held.waiting)
            self._preparing += sizes
            self._tasks.spawn(self._prepare_counted(together, sizes))

    async def _look(self) -> None:
        """One task for all that wait, however many send times they have."""
        try:
            while self._waiting and not self._run_queue.stopped:
                await asyncio.sleep(LOOK_SECONDS)
                self._start_those_whose_turn_it_is()
        finally:
            self._looking = False

    async def _prepare_counted(self, together: list[HeldBatch], sizes: Counter[str]) -> None:
        try:
            await self._prepare(together)
        finally:
            self._preparing -= sizes  # keeps what is above zero

    def _take(self) -> list[HeldBatch]:
        """Take out the first batches whose turn it is, as many as are read together."""
        waiting, self._waiting = self._waiting, []
        ahead: Counter[str] = Counter()
        for_a_slot = self._run_queue.count_due()
        many_wait = self._count_waiting("") >= MANY_READY
        taken: list[HeldBatch] = []
        size = 0
        for place, held in enumerate(waiting):
            if not held.waiting:
                continue  # released, or its lease has ended
            host, count = held.batch.host, len(held.waiting)
            if host not in ahead:
                ahead[host] = for_a_slot + self._count_moving(host) + self._preparing[host]
            if taken and size + count > MAX_READ:
                self._waiting += waiting[place:]
                break
            if ahead[host] >= READY_AHEAD or (self._count_waiting(host) >= READY_AHEAD if host else many_wait):
                self._waiting.append(held)
                continue
            taken.append(held)
            size += count
            ahead[host] += count
        return taken
