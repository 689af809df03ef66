"""Keeping leases: every third of a lease all batches that this node holds are renewed, in one write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreUnavailable
from cluster.store import batches

if TYPE_CHECKING:
    from cluster.worker.context import WorkerContext
    from cluster.worker.held_batch import HeldBatch

log = structlog.get_logger()

RENEW_RETRY_SECONDS = 0.5
"""After a renewal that failed: a lease is too short to wait for the next third of it."""


class LeaseKeeper:
    """Renews for one node."""

    def __init__(self, context: WorkerContext) -> None:
        self._db = context.db
        self._clock = context.clock
        self._timings = context.timings
        self._node = context.node
        self._held = context.held
        self._unsent = context.unsent
        self._stats = context.stats
        self._reclaim_pause = context.reclaim_pause

    async def turn(self) -> float:
        """Renew, and wait for the next third of a lease."""
        try:
            await self.renew_once()
        except StoreUnavailable as exc:
            log.warning("renew_unavailable", error=str(exc))
            self._reclaim_pause.begin()
            return RENEW_RETRY_SECONDS
        return self._timings.batch_lease / 3

    async def renew_once(self) -> set[str]:
        """Extend every lease that this node holds. Returns the ids of the batches that were lost."""
        asked = {i: h for i, h in self._held.items() if not h.lost}
        if not asked:
            return set()
        started = self._clock.monotonic()
        pairs = [(i, h.batch.token) for i, h in asked.items()]
        lost = await batches.renew(self._db, self._node, pairs, self._timings.batch_lease)
        until = started + self._timings.batch_lease - self._timings.margin
        self._stats.counters["renewed"] += len(asked) - len(lost)
        for batch_id, held in asked.items():
            if batch_id not in lost:
                held.renewed(until)
            elif not held.done:  # a batch that was finished while the renewal was under way is not lost
                self._lose(held)
        return lost

    def _lose(self, held: HeldBatch) -> None:
        unsent = self._unsent.lose(held)
        log.warning("lease_lost", batch=held.batch.id, token=held.batch.token, unsent=len(unsent))
        self._stats.counters["leases_lost"] += 1
