"""The run queue of one node: ready executions by the instant from which they may go, with one timer for the first."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.clock import Clock
    from cluster.worker.held_batch import HeldBatch
    from cluster.worker.model import ReadyExecution
    from cluster.worker.slots import Slots

LOOK_AGAIN_SECONDS = 1.0
"""Cluster time may jump while an execution waits for an instant of it: no wait is longer without a look at the clock."""


class RunQueue:
    """`start` is given each execution that is due, while there are slots. Instants are cluster time (ms)."""

    def __init__(self, clock: Clock, slots: Slots, start: Callable[[ReadyExecution], None]) -> None:
        self._clock = clock
        self._slots = slots
        self._start = start
        self._heap: list[tuple[int, int, ReadyExecution]] = []
        self._order = count()
        self._timer: asyncio.Handle | None = None
        self._wakes_at = 0.0
        """When the timer goes off, on the loop's clock. uvloop's handle does not say it if that is at once."""
        self.stopped = False
        """Nothing more is started."""

    def enqueue(self, ready: ReadyExecution) -> None:
        """It may go at its send time."""
        # A late execution stands behind those that became due before it got here, not in front of everything.
        self.put(max(ready.execution.send_ms, self._clock.now_ms()), ready)

    def put(self, at_ms: int, ready: ReadyExecution) -> None:
        """It may go from this instant; `start_due` or `wake_at` see to it."""
        heapq.heappush(self._heap, (at_ms, next(self._order), ready))

    def start_due(self) -> None:
        """Start everything that is due, while there are slots."""
        if self.stopped:
            return
        now_ms = self._clock.now_ms()
        heap = self._heap
        while heap and heap[0][0] <= now_ms and self._slots.available():
            self._start(heapq.heappop(heap)[2])
        if heap and heap[0][0] > now_ms:
            self.wake_at(heap[0][0])

    def wake_at(self, instant_ms: int) -> None:
        """Look again at this instant at the latest."""
        loop = asyncio.get_running_loop()
        at = loop.time() + min(max(0.0, self._clock.seconds_until(instant_ms)), LOOK_AGAIN_SECONDS)
        if self._timer is not None:
            if self._wakes_at <= at:
                return
            self._timer.cancel()
        self._wakes_at = at
        self._timer = loop.call_at(at, self._alarm)

    def retime(self) -> None:
        """Cluster time has jumped: an execution that was put off by the old time may be late by the new one."""
        if self.stopped:
            return
        now_ms = self._clock.now_ms()
        self._heap = [(min(at, max(now_ms, r.execution.send_ms)), place, r) for at, place, r in self._heap]
        heapq.heapify(self._heap)
        self.start_due()

    def overdue_batches(self) -> list[HeldBatch]:
        """Batches of which something is due and waits for a slot."""
        now_ms = self._clock.now_ms()
        return list({r.held: None for at, _, r in self._heap if at <= now_ms and r.execution.id in r.held.waiting})

    def waits_for_slot(self) -> bool:
        """Whether something is due, and all slots are taken by requests that end."""
        due = bool(self._heap) and self._heap[0][0] <= self._clock.now_ms()
        return due and not self._slots.available() and not self._slots.stuck()

    def count_due(self) -> int:
        """How many are due and wait for a slot."""
        if self._slots.available():
            return 0  # `start_due` has started them
        now_ms = self._clock.now_ms()
        return sum(at <= now_ms and r.execution.id in r.held.waiting for at, _, r in self._heap)

    def stop(self) -> None:
        """Start nothing more."""
        self.stopped = True

    def close(self) -> None:
        """Start nothing more, and end the timer."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _alarm(self) -> None:
        self._timer = None
        self.start_due()
