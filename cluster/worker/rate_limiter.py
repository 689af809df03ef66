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

CACHE_SECONDS = 1.0
MAX_RACES = 20


class RateLimiter:
    """The limits of the cluster as one node asks for them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._cached: dict[str, tuple[Limits, float]] = {}

    async def limits_of(self, job: Job) -> Limits:
        """The limits of this job now; those of a queue may have been read up to a second ago."""
        if job.limit_key is None or not job.limit_key.startswith(QUEUE_PREFIX):
            return job.limits
        now = self._clock.monotonic()
        cached = self._cached.get(job.limit_key)
        if cached is None or now - cached[1] > CACHE_SECONDS:
            cached = (await queues.limits_of(self._db, job.limit_key.removeprefix(QUEUE_PREFIX)), now)
            self._cached[job.limit_key] = cached
        return cached[0]

    async def acquire(self, limit_key: str, limits: Limits, wanted: Mapping[str, str]) -> Grant:
        """Permits for these executions, as far as they go. `wanted`: the permit id that each of them asks with.

        Raises `StoreUnavailable`: some permits may count then that no execution has, until they are swept.
        """
        swept = False
        for _ in range(MAX_RACES):
            seen = await permits.read(self._db, limit_key)
            granted = grant(seen, limits, wanted, self._clock.now_ms())
            if limits.concurrent is not None and not granted.at_ms and granted.ask_again_ms is None and not swept:
                # All permits are taken. Some may be those of nodes that died.
                swept = True
                gone = seen.granted.keys() - await leased_executions.leased_ids(self._db, seen.granted)
                if not gone:
                    return granted
                log.info("permits_freed", gate=limit_key, executions=len(gone))
                left = {name: permit_id for name, permit_id in seen.granted.items() if name not in gone}
                await permits.write(self._db, limit_key, seen, replace(seen, granted=left))
                continue
            if granted.permits == seen or await permits.write(self._db, limit_key, seen, granted.permits):
                return granted
            await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311 - spreads the racers, guards nothing
        return Grant({}, seen, self._clock.now_ms() + 50)

    async def release(self, returned: Collection[Permit]) -> None:
        """No execution runs under these permits any more."""
        await permits.release(self._db, returned)
