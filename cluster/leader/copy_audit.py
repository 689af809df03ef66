"""The audit log: the leader copies the entries that documents carry, and deletes those whose retention has ended.

It needs no trust in the term: a copy is inserted once, whoever makes it. `GET /audit` copies too, so the log is complete
without a leader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store import audit, audited
from cluster.store.history import DAY_MS

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.store.mongo.client import Database

STEP_SECONDS = 10.0
"""Between two steps while no document carries an entry."""
BUSY_SECONDS = 1.0
"""The same while some do: a change of a job leaves its entry to this step, which copies those of `DOCUMENTS` jobs."""
PRUNE_SECONDS = 600.0
PRUNED_AT_ONCE = 1000


class AuditCopier:
    """The copying of one leader."""

    def __init__(self, db: Database, clock: Clock, retention_days: float) -> None:
        self._db = db
        self._clock = clock
        self._retention_ms = int(retention_days * DAY_MS)
        self._pruned_at = float("-inf")

    async def step(self) -> int:
        """Copy what is there, and now and then delete what has expired. Returns how many entries were copied."""
        copied = await audited.flush_all(self._db)
        now = self._clock.monotonic()
        if now - self._pruned_at > PRUNE_SECONDS and not self._clock.in_doubt:
            deleted = await audit.prune(self._db, self._clock.now_ms() - self._retention_ms, PRUNED_AT_ONCE)
            if deleted < PRUNED_AT_ONCE:  # else there are more, for the next step
                self._pruned_at = now
        return copied
