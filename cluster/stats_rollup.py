"""Adds the counts of a node to the documents of the minute and the hour in `stats`, and logs its failing hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from cluster.core.histogram import HistogramDelta
from cluster.store import stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.clock import Clock
    from cluster.store.mongo.client import Database
    from cluster.worker.metrics import WorkerStats

log = structlog.get_logger()

ADD_EVERY_TURNS = 5
ADD_NAMED_EVERY_TURNS = 15
DIGEST_EVERY_TURNS = 30
DIGEST_HOSTS = 10
"""Failing hosts that get a line of their own."""


class StatsRollup:
    """The rollup of one node; `turn()` is called once in `seconds`. `missed`: occurrences that its leader recorded so."""

    def __init__(
        self, db: Database, clock: Clock, worker_stats: WorkerStats, seconds: float, missed: Callable[[], int]
    ) -> None:
        self._db = db
        self._clock = clock
        self._stats = worker_stats
        self._seconds = seconds
        self._missed = missed
        self._turns = 0
        self._added: dict[str, int] = {}
        self._drift = HistogramDelta(worker_stats.drift)
        self._duration = HistogramDelta(worker_stats.duration)

    async def turn(self) -> None:
        """Add the counts with each fifth call, those by name with each fifteenth, and log the failing hosts with each
        thirtieth. Raises `StoreUnavailable`.
        """
        if self._turns % ADD_EVERY_TURNS == 0:
            await self._add()
        if self._turns % ADD_NAMED_EVERY_TURNS == ADD_NAMED_EVERY_TURNS - 1:
            await stats.add_named(self._db, self._clock.now_ms(), self._stats.named.take())
        if self._turns % DIGEST_EVERY_TURNS == 0:
            self.log_failing_hosts()
        self._turns += 1

    async def _add(self) -> None:
        """Add what was counted since the last call."""
        now = {**self._stats.counters, "missed": self._stats.counters["missed"] + self._missed()}
        counts = {name: n - self._added.get(name, 0) for name, n in now.items()}
        self._added = now
        histograms = {"drift": self._drift.take(), "duration": self._duration.take()}
        await stats.add(self._db, self._clock.now_ms(), counts, histograms)

    def log_failing_hosts(self) -> None:
        """Log the failed attempts of the last interval: a line for each of the worst hosts, and one for the others."""
        failing = self._stats.failures.take()
        for host in failing[:DIGEST_HOSTS]:
            log.warning(
                "target_failing",
                host=host.host,
                attempts=host.attempts,
                results=dict(host.results),
                seconds=DIGEST_EVERY_TURNS * self._seconds,
                execution=host.execution,
            )
        others = failing[DIGEST_HOSTS:]
        if others:
            log.warning("more_targets_failing", hosts=len(others), attempts=sum(f.attempts for f in others))
