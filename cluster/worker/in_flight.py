"""Showing what is in flight for long: executions of a first claim are not written when they are claimed, so lists would call
them pending while their target takes its time.

Most requests end within milliseconds, and nothing is written for them. Those that were in flight half a second ago and
still are get the stamp that every later claim writes before it sends: state, owner and token. It is fenced as that one is,
so a node that has lost its lease writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreError
from cluster.core.execution.model import FIRST_TOKEN
from cluster.store import executions

if TYPE_CHECKING:
    from cluster.loops import Wait
    from cluster.worker.context import WorkerContext

log = structlog.get_logger()

LOOK_SECONDS = 0.5


class InFlightStamps:
    """Stamps for one node what its target takes long over."""

    def __init__(self, context: WorkerContext) -> None:
        self._db = context.db
        self._node = context.node
        self._held = context.held
        self._before: dict[str, set[str]] = {}
        """What was in flight at the last look, by batch, and is not stamped."""
        self._stamped: dict[str, set[str]] = {}

    async def turn(self) -> Wait:
        """Look twice a second, while the node holds anything."""
        try:
            await self.stamp_long()
        except StoreError as exc:
            log.warning("in_flight_unstamped", error=str(exc))
        return LOOK_SECONDS if self._held else self._held.until_held()

    async def stamp_long(self) -> int:
        """Stamp what was in flight at the last look and still is. Returns how many were stamped."""
        before, self._before = self._before, {}
        stamped, self._stamped = self._stamped, {}
        count = 0
        for batch_id, held in list(self._held.items()):
            if held.batch.token != FIRST_TOKEN or held.lost or not held.sending:
                continue
            done = self._stamped[batch_id] = stamped.get(batch_id, set())
            self._before[batch_id] = set(held.sending) - done
            long = self._before[batch_id] & before.get(batch_id, set())
            if long:
                count += await executions.stamp(self._db, sorted(long), batch_id, self._node, held.batch.token)
                done |= long
        return count
