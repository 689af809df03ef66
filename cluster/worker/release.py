"""Releasing: executions that this node will not send soon go back into the database, for a better moment or node.

So they wait in the database and not in memory, and take no room from others.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import HoraeError, StoreUnavailable
from cluster.core.execution.model import Rescheduled
from cluster.core.execution.verdict import round_up_to_grain
from cluster.core.timings import LONGEST_PREFETCH_MS
from cluster.store import batches, deferred_batches, engine_jobs, paused_batches
from cluster.store.deferred_batches import Pace
from cluster.worker.record import MoveOptions

if TYPE_CHECKING:
    from cluster.core.execution.model import Execution
    from cluster.worker.context import WorkerContext
    from cluster.worker.dispatch import Dispatcher
    from cluster.worker.held_batch import HeldBatch
    from cluster.worker.model import Deferral
    from cluster.worker.record import Recorder

log = structlog.get_logger()

RELEASE_SECONDS = 1.0
RELEASES_AT_ONCE = 16
PATIENCE_SECONDS = 1.0
"""An execution that waits for its slow host for so long is released."""
LIMIT_PATIENCE_SECONDS = 10.0
"""An execution that waits for its limit is released after so long, or after `PATIENCE_SECONDS` on a crowded node."""
SLOW_HOST_MS = 2000
"""An execution that waits for a slow host may be claimed again after so long."""
LATE_SPREAD_MS = 500
AFTER_PROBE_MS = 500
FAR_MS = LONGEST_PREFETCH_MS + 4000
"""Only a clock that was wrong claims a batch so long before it is due: it takes no room until then."""
EARLIER_MS = 1000
HELD_BACK_MS = 2000
"""A batch that has been claimable for so long, and that this node leaves alone, is held back."""
MAX_LIMITED_MS = 30_000
"""An execution that waits for its limit is released for so long at most, however slow the limit is."""


class Releaser:
    """Releases unsent executions of one node. `crowd`: with more executions waiting they may wait for less long."""

    def __init__(self, context: WorkerContext, recorder: Recorder, dispatcher: Dispatcher, crowd: int) -> None:
        self._context = context
        self._clock = context.clock
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._crowd = crowd

    async def turn(self) -> float:
        """Once a second."""
        try:
            await self.release_deferred()
        except StoreUnavailable as exc:
            log.warning("release_unavailable", error=str(exc))
        return RELEASE_SECONDS

    async def release_deferred(self) -> None:
        """Release executions that wait for their host or their limit, for a better moment or a node with room."""
        context, db = self._context, self._context.db
        now = self._clock.now_ms()
        await self._note_held_back()
        hosts: dict[str, int] = {}
        for deferral in self._deferrals():
            at_ms = self._claimable_ms(deferral, now)
            if deferral.host is not None:
                hosts[deferral.host] = at_ms
            await self.release(deferral.held, at_ms, deferral)
        for held in self._dispatcher.unprepared_batches():
            if held.batch.host in hosts:  # it would be prepared only to be deferred as well
                await self.release(held, hosts[held.batch.host])
        await self.release_paused()
        for held in self._dispatcher.overdue_batches() if context.slots.stuck() else ():
            await self.release(held, None)
        # A primary whose clock is ahead, and in doubt, would have them claimed again at once.
        far = [] if self._clock.held_ms > 0 else [h for h in context.held.values() if h.batch.send_ms > now + FAR_MS]
        for held in [h for h in far if not h.batch.late]:
            await self.release(held, held.batch.send_ms - EARLIER_MS)
        slow = context.slots.slow_hosts()
        if slow:
            pace = Pace(LATE_SPREAD_MS, sum(context.slots.per_second(host) for host in slow))
            await deferred_batches.spread_late(db, "host", slow, pace, self._unclaimed_ms)
        saturated = self._dispatcher.limit_queues.saturated()
        if saturated:
            await deferred_batches.spread_late(db, "gate", saturated, Pace(LATE_SPREAD_MS // 5), self._unclaimed_ms)

    @property
    def _unclaimed_ms(self) -> int | None:
        """None: the clock is in doubt, so that no batch stands unclaimed."""
        return None if self._clock.in_doubt else self._context.timings.unclaimed_ms

    async def _note_held_back(self) -> None:
        """Batches that this node leaves alone, because it may not send them now, do not stand unclaimed."""
        hosts, limits = self._dispatcher.held_back_hosts(), self._dispatcher.limit_queues.saturated()
        unclaimed_ms = self._unclaimed_ms
        if unclaimed_ms is not None and (hosts or limits):
            await deferred_batches.note_held_back(self._context.db, hosts, limits, unclaimed_ms, HELD_BACK_MS)

    async def release_paused(self) -> None:
        """Release executions whose jobs are paused.

        A job that was resumed since it was read here may have been settled before its executions were released, and then
        nothing would wake them. So the jobs are read once more afterwards.
        """
        paused = self._dispatcher.paused.deferrals()
        for deferral in paused:
            await self.release(deferral.held, deferral.until_ms, deferral)
        if any(not deferral.by_window for deferral in paused):
            job_ids = {e.job_id for deferral in paused if not deferral.by_window for e in deferral.executions}
            resumed = await engine_jobs.not_paused(self._context.db, job_ids)
            await paused_batches.wake(self._context.db, sorted(resumed))

    def _deferrals(self) -> list[Deferral]:
        """Executions that wait because a breaker is open, or for too long already for their slow host or their limit."""
        now, dispatcher = self._clock.monotonic(), self._dispatcher
        crowded = self._context.due_soon() > self._crowd
        by_host = dispatcher.host_queues.deferrals(now - PATIENCE_SECONDS)
        by_limit = dispatcher.limit_queues.deferrals(now - (PATIENCE_SECONDS if crowded else LIMIT_PATIENCE_SECONDS))
        return [d for d in by_host if not dispatcher.lottery.is_drawing(str(d.host))] + by_limit

    @staticmethod
    def _claimable_ms(deferral: Deferral, now: int) -> int:
        # An execution that was here when its host was probed in vain stands behind those that were not, so that others
        # are drawn next time. (Not if the breaker stays open for longer than was known here; then chance decides.)
        at = now + SLOW_HOST_MS if deferral.until_ms is None else max(deferral.until_ms + AFTER_PROBE_MS, now + 1000)
        if deferral.host is None:  # a limit may be raised, and nothing wakes what waits for it in the database
            at = min(at, now + MAX_LIMITED_MS)
        return round_up_to_grain(at)

    async def release(self, held: HeldBatch, claimable_ms: int | None, only: Deferral | None = None) -> int:
        """Release the unsent executions of a batch (`only`: these of them): the whole batch on its token, or by a move.

        Returns how many executions. They may be claimed from `claimable_ms` (cluster time); None: as before, or at once.
        """
        if held.untouched and _covers(only, held):
            return await self._release_whole(held, claimable_ms)
        unsent = self._context.unsent.move(held, None if only is None else only.executions)
        if unsent:
            await self._move(held, unsent, claimable_ms, only)
        return len(unsent)

    async def release_all(self) -> None:
        """Release every unsent execution. A batch that cannot be released now is left to its lease."""
        everything = list(self._context.held.values())
        for i in range(0, len(everything), RELEASES_AT_ONCE):
            await asyncio.gather(*(self._release_quietly(h) for h in everything[i : i + RELEASES_AT_ONCE]))

    async def _release_quietly(self, held: HeldBatch) -> None:
        try:
            await self.release(held, None)
        except HoraeError as exc:
            log.warning("release_unavailable", batch=held.batch.id, error=str(exc))

    async def _release_whole(self, held: HeldBatch, claimable_ms: int | None) -> int:
        unsent = self._context.unsent.withdraw(held)
        self._context.held.forget(held)
        await batches.release(self._context.db, held.batch, claimable_ms, nothing_sent=True)
        return len(unsent)

    async def _move(
        self, held: HeldBatch, unsent: list[Execution], claimable_ms: int | None, only: Deferral | None
    ) -> None:
        """To other batches. The old batch outlives the move: these executions count as unrecorded meanwhile."""
        overdue = held.batch.send_ms < self._clock.now_ms() - batches.OVERDUE_MS
        options = MoveOptions(
            late=held.batch.late or overdue,
            claims=max(0, held.batch.claims - 1),  # as if this claim had not been, as when a whole batch is released
            claimable_ms=claimable_ms,
            released_ms=self._clock.now_ms(),
            by_limit=only is not None and only.host is None and not only.paused,
        )
        # The host is where the job sends now, whatever it was when the execution was written.
        host = None if only is None else only.host
        moving = unsent if host is None else [replace(e, host=host) for e in unsent]
        try:
            await self._recorder.reschedule([Rescheduled(e, e.attempts, e.send_ms) for e in moving], options)
        except BaseException:
            # The old batch still lists them: its lease ends, and the next owner goes on with the move.
            for e in unsent:
                self._context.unsent.abandon(held, e.id)
            raise
        for e in unsent:
            held.recorded(e.id)
        self._context.records.close_if_done(held)


def _covers(only: Deferral | None, held: HeldBatch) -> bool:
    """Whether this is all of the batch, and of one kind with it.

    A batch of several hosts is taken apart, so that executions deferred for one of them do not come along again.
    """
    if only is None:
        return True
    if len(only.executions) != len(held.batch.ids):
        return False
    if only.paused:
        return True
    if only.host is not None:
        return held.batch.host == only.host
    return held.batch.limit_key == only.executions[0].limit_key
