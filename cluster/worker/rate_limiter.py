"""Permits for executions under a limit: asked for shortly before they are sent, by compare-and-set, many in one write."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.limits.permits import QUEUE_PREFIX, Grant, Limits, grant
from cluster.store import permits, queues
from cluster.store.queries import leased_executions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cluster.clock import Clock
    from cluster.core.execution.model import Job
    from cluster.core.limits.permits import Permit
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

KNOWN_SECONDS = 1.0
MAX_RACES = 20


class RateLimiter:
    """The limits of the cluster as one node asks for them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._known: dict[str, tuple[Limits, float]] = {}

    async def limits_of(self, job: Job) -> Limits:
        """What limits this job now; that of a queue may have been read up to a second ago."""
        if job.limit_key is None or not job.limit_key.startswith(QUEUE_PREFIX):
            return job.limits
        now = self._clock.monotonic()
        known = self._known.get(job.limit_key)
        if known is None or now - known[1] > KNOWN_SECONDS:
            known = (await queues.limits_of(self._db, job.limit_key.removeprefix(QUEUE_PREFIX)), now)
            self._known[job.limit_key] = known
        return known[0]

    async def acquire(self, limit_key: str, limits: Limits, wanted: Mapping[str, str]) -> Grant:
        """Permits for these executions under these marks, as far as they go.

        Raises `StoreUnavailable`: some may be lost then, no more.
        """
        swept = False
        for _ in range(MAX_RACES):
            seen = await permits.read(self._db, limit_key)
            found = grant(seen, limits, wanted, self._clock.now_ms())
            if limits.concurrent is not None and not found.at_ms and found.ask_again_ms is None and not swept:
                # All are taken. Some may be those of nodes that died.
                swept = True
                gone = seen.granted.keys() - await leased_executions.leased_ids(self._db, seen.granted)
                if not gone:
                    return found
                log.info("permits_freed", gate=limit_key, executions=len(gone))
                left = {name: mark for name, mark in seen.granted.items() if name not in gone}
                await permits.write(self._db, limit_key, seen, replace(seen, granted=left))
                continue
            if found.permits == seen or await permits.write(self._db, limit_key, seen, found.permits):
                return found
            await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311 - spreads the racers, guards nothing
        return Grant({}, seen, self._clock.now_ms() + 50)

    async def release(self, back: Collection[Permit]) -> None:
        """Nobody runs under these any more."""
        await permits.release(self._db, back)
