"""Nodes of the same parent process that have ended: the parent knows at once, so nobody has to wait for their leases.

A process that the operating system reports as ended claims, renews and sends nothing more. That word is no clock and no
heartbeat: it does not turn out to be wrong later. Still no write goes without its fence. A batch is released by a
compare-and-set on the owner and the token that were read; the leader's lease is taken over by the same compare-and-set
on term and revision as ever, only without the wait.

Writes that the ended process had sent may still take effect. A claim that does puts its name on one more batch, so the
batches are looked for again until a lease has passed. A renewal or a stamp does no harm: the release goes by owner and
token, and the next claim has a greater token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreUnavailable
from cluster.store import batches, executions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.clock import Clock
    from cluster.core.timings import Timings
    from cluster.leader.elector import Elector
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

POLL_SECONDS = 0.4
"""How often the parent's word is looked at: memory, no system call."""
LOOK_AGAIN_SECONDS = 0.5


class Siblings:
    """Releases for one node what ended siblings held. Several nodes may do it at once: each release takes effect once.

    `ended` returns the ids of the nodes that have ended since it was called last.
    """

    def __init__(
        self, db: Database, clock: Clock, timings: Timings, elector: Elector, ended: Callable[[], Sequence[str]]
    ) -> None:
        self._db = db
        self._clock = clock
        self._lease = timings.batch_lease
        self._elector = elector
        self._ended = ended
        self._watched: dict[str, float] = {}
        """Until when (monotonic, s) batches of an ended node are looked for."""
        self._next_look = 0.0

    async def turn(self) -> float:
        """Take in who has ended, and release what they held."""
        now = self._clock.monotonic()
        for node in self._ended():
            log.warning("sibling_ended", node=node)
            self._elector.holder_ended(node)
            self._watched[node] = now + self._lease
            self._next_look = now
        if self._watched and now >= self._next_look:
            try:
                await self.release_batches()
            except StoreUnavailable as exc:
                log.warning("sibling_release_unavailable", error=str(exc))
            self._next_look = self._clock.monotonic() + LOOK_AGAIN_SECONDS
            self._watched = {node: until for node, until in self._watched.items() if now < until}
        return POLL_SECONDS

    async def release_batches(self) -> int:
        """Release the batches of ended siblings. Returns how many were released."""
        released = 0
        for node in self._watched:
            for batch in await batches.owned_by(self._db, node):
                # A batch names only the limit of a queue; a job with limits of its own shares batches with such.
                if batch.limit_key is not None or await executions.any_limited(self._db, batch.ids):
                    # The target may still be at work on what was in flight, which counts against `maxConcurrent`. Its
                    # permit counts until the lease ends, and so long the next request has to wait.
                    continue
                # Its claim counts, as that of any node that died with it: its request may have been the reason.
                released += await batches.release(self._db, batch, None)
        if released:
            log.info("sibling_batches_released", batches=released)
        return released
