"""One step: history that has expired leaves in small portions, all the time, between the full seconds.

MongoDB's TTL would do the same once a minute and all at once, which is felt by what is due just then. It stays as the
safety net for when nobody leads. Deleting what has expired needs no term: whoever does it, it is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.store import history

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.store.mongo.client import Database

PORTION = 1000
"""Documents per delete: some 20 ms of MongoDB's time."""
PORTIONS = 10
AFRESH_SECONDS = 60.0
"""So often it looks from the very beginning again, for what came to expire before what is gone already."""
AT_MS = 400
"""When in each second to begin: what is due on the full second has left by then."""
IDLE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one step deleted. `more`: there was more than one step takes."""

    documents: int = 0
    more: bool = False


class Pruner:
    """Prunes for one leader."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._gone_ms = 0
        self._afresh_at = float("-inf")

    async def step(self) -> Pruned:
        """Delete what has expired, the oldest first, at most `PORTIONS` portions."""
        found = 0
        now = self._clock.monotonic()
        if now - self._afresh_at > AFRESH_SECONDS:
            self._gone_ms, self._afresh_at = 0, now
        for _ in range(PORTIONS):
            gone, self._gone_ms = await history.prune(self._db, self._gone_ms, self._clock.now_ms(), PORTION)
            found += gone
            if gone < PORTION:
                return Pruned(found)
        return Pruned(found, more=True)

    def seconds_until_next(self, last: Pruned) -> float:
        """Seconds until the next step: in the middle of the next second, or of a later one if there was nothing."""
        if last.more:
            return 0.05
        until = (AT_MS - self._clock.now_ms() % 1000) % 1000 / 1000
        return (until if until > 0.1 else until + 1.0) + (0 if last.documents else IDLE_SECONDS - 1)
