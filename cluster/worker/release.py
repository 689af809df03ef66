"""Handing back: what this node holds and will not send soon goes back into the database, for a better moment or node.

So executions wait in the database and not in memory, and take no room from others.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import HoraeError, StoreUnavailable
from cluster.core.execution.model import Rescheduled
from cluster.core.execution.verdict import round_up_to_grain
from cluster.store import batches, deferred_batches
from cluster.worker.record import MoveOptions

if TYPE_CHECKING:
    from cluster.worker.context import WorkerContext
    from cluster.worker.dispatch import Dispatcher
    from cluster.worker.leases import Deferral, HeldBatch, HeldBatches
    from cluster.worker.record import Recorder
    from cluster.worker.results import Results

log = structlog.get_logger()

RELEASES_AT_ONCE = 16
LATE_SPREAD_MS = 500
AFTER_PROBE_MS = 500
FAR_MS = 5000
"""Nothing is claimed so long before it is due, unless by a clock that was wrong: it takes no room until it is."""
EARLIER_MS = 1000
MAX_LIMITED_MS = 30_000
"""What waits for its limit is put back for so long at most, however slow the limit is."""


class Releaser:
    """Puts back what one node has not sent. `crowd`: with more executions waiting they may wait for less long."""

    def __init__(
        self,
        doors: WorkerContext,
        recorder: Recorder,
        dispatcher: Dispatcher,
        results: Results,
        held: HeldBatches,
        crowd: int,
    ) -> None:
        self._db = doors.db
        self._clock = doors.clock
        self._breakers = doors.breakers
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._results = results
        self._held = held
        self._crowd = crowd

    async def turn(self) -> float:
        """Once a second. A database that is away is no reason to stop."""
        try:
            await self.release_deferred()
        except StoreUnavailable as exc:
            log.warning("release_unavailable", error=str(exc))
        return 1.0

    async def release_deferred(self) -> None:
        """Share breakers; put back what waits for its host, for a better moment or a node with room."""
        await self._breakers.synchronise()
        self._dispatcher.start_waiting()
        now = self._clock.now_ms()
        crowded = self._dispatcher.waiting > self._crowd
        for parked in self._dispatcher.deferrals(1.0, 1.0 if crowded else 10.0):
            # What was here when the host was probed in vain stands behind what was not, so that others are drawn next
            # time. (Not if the breaker stays open for longer than was known here; then it is chance alone.)
            at = now + 2000 if parked.until_ms is None else max(parked.until_ms + AFTER_PROBE_MS, now + 1000)
            if parked.host is None:  # a limit may be raised, which wakes nobody
                at = min(at, now + MAX_LIMITED_MS)
            await self.release(parked.held, round_up_to_grain(at), parked)
        for held in self._dispatcher.overdue_batches() if self._dispatcher.stuck() else ():
            await self.release(held, None)
        for held in [h for h in self._held.values() if h.batch.send_ms > now + FAR_MS and not h.batch.late]:
            await self.release(held, held.batch.send_ms - EARLIER_MS)
        slow = self._dispatcher.slow_hosts()
        if slow:
            await deferred_batches.spread_late(self._db, "host", slow, LATE_SPREAD_MS)
        shut = self._dispatcher.saturated_limits()
        if shut:
            await deferred_batches.spread_late(self._db, "gate", shut, LATE_SPREAD_MS // 5)

    async def release(self, held: HeldBatch, claimable_ms: int | None, only: Deferral | None = None) -> int:
        """Give up what is unsent of a batch (`only`: these of it): the whole batch on its token, or by a move.

        Returns how many executions. They may be claimed from `claimable_ms` (cluster time); None: as before, or at once.
        """
        open_ = len(held.waiting) if only is None else len(only.executions)
        untouched = not held.sending and not held.unrecorded and open_ == len(held.batch.ids)
        # A batch of several hosts is taken apart, so that what is held back for one of them does not come along again.
        alike = only is None or (
            held.batch.host == only.host
            if only.host is not None
            else held.batch.limit_key == only.executions[0].limit_key
        )
        whole = untouched and alike
        unsent = self._dispatcher.withdraw(held, None if only is None else only.executions)
        if not unsent:
            return 0
        if whole:
            self._held.forget(held)
            await batches.release(self._db, held.batch, claimable_ms, nothing_sent=True)
            return len(unsent)
        overdue = held.batch.send_ms < self._clock.now_ms() - batches.OVERDUE_MS
        way = MoveOptions(
            held.batch.late or overdue,
            claims=max(0, held.batch.claims - 1),  # as if this claim had not been, as when a whole batch is released
            claimable_ms=claimable_ms,
            by_limit=only is not None and only.host is None,
        )
        held.unrecorded += 1  # the old batch must outlive the move
        try:
            # The host is where the job sends now, whatever it was when this was written down.
            now = unsent if only is None or only.host is None else [replace(e, host=only.host) for e in unsent]
            await self._recorder.reschedule([Rescheduled(e, e.attempts, e.send_ms) for e in now], way)
        except BaseException:
            held.lost = True  # it still lists them: let its lease end, and whoever claims it next will see to them
            raise
        finally:
            held.unrecorded -= 1
            self._results.close_if_done(held)
        return len(unsent)

    async def release_all(self) -> None:
        """Give up all that is unsent. What cannot be put back now is left to its lease."""
        everything = list(self._held.values())
        for i in range(0, len(everything), RELEASES_AT_ONCE):
            await asyncio.gather(*(self._put_back_quietly(h) for h in everything[i : i + RELEASES_AT_ONCE]))

    async def _put_back_quietly(self, held: HeldBatch) -> None:
        try:
            await self.release(held, None)
        except HoraeError as exc:
            log.warning("release_unavailable", batch=held.batch.id, error=str(exc))
