"""Comparing the last results that are saved with the jobs with history, job by job, again and again.

Nodes save them by themselves within seconds. The leader finds what they could not: results of a node that died, of a node
of the release before, missed occurrences. It needs no trust in the term: a save only moves a job forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store import last_results

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.store.mongo.client import Database

JOBS = 100
"""Jobs compared in one step: some 10 ms of MongoDB's time."""
STEP_SECONDS = 1.0
ROUND_SECONDS = 60.0
"""A round over all jobs takes at least so long."""
RECENT_MS = 120_000
"""A job whose saved result was due within so long is left out of a round: nodes are saving its results."""


class ResultComparer:
    """The comparing of one leader."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._after = ""
        self._round_began = float("-inf")

    async def step(self) -> int:
        """Compare the next jobs. Returns how many had to be corrected. Raises `StoreError`."""
        if not self._after:
            self._round_began = self._clock.monotonic()
        before_ms = self._clock.now_ms() - RECENT_MS
        differing, after = await last_results.compare_page(self._db, self._after, JOBS, before_ms)
        await last_results.save(self._db, differing)
        self._after = after or ""
        return len(differing)

    def seconds_until_next(self) -> float:
        """Seconds until the next step."""
        if self._after:
            return STEP_SECONDS
        return max(STEP_SECONDS, self._round_began + ROUND_SECONDS - self._clock.monotonic())
