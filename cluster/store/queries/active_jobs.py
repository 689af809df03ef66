"""How many jobs are active: counted in an index, and kept for a while, however many viewers ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster.core.lifecycle import JobState
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.store.mongo.client import Database, Document

KEPT_SECONDS = 5.0
SHARE = 1000
"""A count is kept for this many times as long as it took: of a core of MongoDB it takes a thousandth at most."""


class ActiveJobs:
    """The number for one process. `monotonic`: seconds."""

    def __init__(self, db: Database, monotonic: Callable[[], float]) -> None:
        self._db = db
        self._monotonic = monotonic
        self._counting = asyncio.Lock()
        self._found = 0
        self._until = float("-inf")

    async def number(self) -> int:
        """The number as of some seconds ago at most. Raises `StoreError`."""
        if self._monotonic() < self._until:
            return self._found
        async with self._counting:  # those who wait for it find it counted
            began = self._monotonic()
            if began >= self._until:
                self._found = await count(self._db)
                took = self._monotonic() - began
                self._until = began + max(KEPT_SECONDS, took * SHARE)
        return self._found


async def count(db: Database) -> int:
    """The active jobs, without those of the engine. Reads no document but those of the few jobs of the engine."""
    active = JobState.ACTIVE.value
    of_engine: Document = {"channel": {"$exists": True}, "state": active}
    with operation():
        every = await db.api.command("count", "jobs", query={"state": active}, hint="by_state")
        alerts = await db.api["jobs"].count_documents(of_engine, hint="alerts_told")
    return int(every["n"]) - alerts
