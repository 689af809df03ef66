"""Pruning: expired history is deleted in small portions, all the time, between the full seconds.

MongoDB's TTL index would delete it once a minute and all at once, which delays executions that are due at that moment.
The index stays, for the time when no node leads. Deleting expired history needs no term: it is the same on every node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.store import expired

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.store.mongo.client import Database

PORTION = 1000
"""Documents per delete: some 20 ms of MongoDB's time."""
PORTIONS = 10
RESTART_SECONDS = 60.0
"""So often it begins at the oldest document again: one may have been recorded that expires before the deleted ones."""
AT_MS = 400
"""When in each second to begin: executions that are due on the full second have been sent by then."""
IDLE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Pruned:
    """The result of one step. `more`: there was more than one step takes."""

    documents: int = 0
    more: bool = False


class Pruner:
    """Pruning by one leader."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._deleted_to_ms = 0
        self._restarted_at = float("-inf")

    async def step(self) -> Pruned:
        """Delete expired documents, the oldest first, at most `PORTIONS` portions."""
        total = 0
        now = self._clock.monotonic()
        if now - self._restarted_at > RESTART_SECONDS:
            self._deleted_to_ms, self._restarted_at = 0, now
        for _ in range(PORTIONS):
            deleted, self._deleted_to_ms = await expired.prune(
                self._db, self._deleted_to_ms, self._clock.now_ms(), PORTION
            )
            total += deleted
            if deleted < PORTION:
                return Pruned(total)
        return Pruned(total, more=True)

    def seconds_until_next(self, last: Pruned) -> float:
        """Seconds until the next step: in the middle of the next second, or of a later one if nothing had expired."""
        if last.more:
            return 0.05
        until = (AT_MS - self._clock.now_ms() % 1000) % 1000 / 1000
        return (until if until > 0.1 else until + 1.0) + (0 if last.documents else IDLE_SECONDS - 1)
