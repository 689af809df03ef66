"""How long the claimers of one node wait after a claim that found nothing: until the next batch may be claimed.

That is in the database: the earliest `claimable_at` of all batches. So a node sleeps until then, and no longer than its
share of the polls. A poll is a look at that instant, by the primary's clock, and no claim: an idle node claims nothing.
New work is found in time, by these rules:

- What a schedule owes is written `look-ahead - prefetch` (14 s) before it is claimable: three times the longest sleep,
  with a short look-ahead too. So every node has seen it by then, and wakes for it. What a crowded second brings forward is
  written 11 s before, or less with a short look-ahead; a node that sees it later claims less of it early.
- What this process writes itself (runs by hand, messages, retries, releases, what its leader settles) it tells its
  claimers at once.
- Retries that another node wrote and leases that end are in the database with their instants, as everything else.
- What another node makes claimable at once, and does not claim itself, is found by a poll. The polls of all nodes together
  come as often as those of two nodes, twice a second, until there are seven of them; then each polls every 3.5 seconds.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING

from cluster.store import claimable_batches

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.store.mongo.client import Database

SHORTEST_SLEEP = 1.0
LONGEST_SLEEP = 3.5
POLLS_AHEAD = 4
"""Of so many sleeps, all together, before it is claimable what a schedule owes is seen; each may be a fifth longer."""
SPREAD_SECONDS = 0.05
"""The claimers of all nodes wake for one batch. A twentieth of the prefetch lets the first ones claim, and the others see it."""


class ClaimPauses:
    """The pauses of one node: one of its claimers looks when there will be something to claim, the others wait for it."""

    def __init__(self, db: Database, clock: Clock, ahead_seconds: float = math.inf) -> None:
        """`ahead_seconds`: so long before it is claimable what a schedule owes is written."""
        self._db = db
        self._clock = clock
        self._longest = min(LONGEST_SLEEP, ahead_seconds / POLLS_AHEAD)
        self._nodes = 1
        self._looking = False
        self._claimed = asyncio.Event()

    def share_with(self, nodes: int) -> None:
        """So many nodes share the polls."""
        self._nodes = nodes

    def claimed(self) -> None:
        """A claimer has claimed one after another: there may be more."""
        self._claimed.set()

    def end(self) -> None:
        """End the pauses: the claimers stop."""
        self._claimed.set()
        self._db.upcoming.note(0)

    def longest(self) -> float:
        """Seconds until the next poll, whatever there is to claim."""
        return min(self._longest, SHORTEST_SLEEP * max(1.0, self._nodes / 2))

    async def pause(self, backoff: float, patience_ms: int = 0) -> bool:
        """Wait until a batch may be claimable; `backoff` seconds if there is one that this node could not claim.

        `patience_ms`: so much longer for one that is not due soon, and until it is at most; then it looks again, because others
        may have claimed it. What is due before that ends the pause.
        False: there was none until the next look was due, which is the next call. Raises `StoreError`.
        """
        self._claimed.clear()
        longest = self.longest() * random.uniform(0.8, 1.2)  # noqa: S311 - spreads polls, guards nothing
        if self._looking:
            return await _within(longest, self._claimed)
        self._looking = True
        try:
            return await self._look(backoff, longest, patience_ms)
        finally:
            self._looking = False

    async def _look(self, backoff: float, longest: float, patience_ms: int) -> bool:
        # Noted from before the look: what is written in between is in one of the two.
        noted = asyncio.Event()
        earliest: int | None = None

        def note(at_ms: int) -> None:
            nonlocal earliest
            earliest = at_ms if earliest is None else min(at_ms, earliest)
            noted.set()

        self._db.upcoming.listen(note)
        try:
            found = await claimable_batches.next_claimable(self._db, patience_ms=patience_ms)
            ends = poll = self._clock.monotonic() + longest
            if found is not None:
                # A claim goes by the primary's clock, or by cluster time while that is ahead of it (`Claiming`).
                now_ms = max(found.now_ms, self._clock.now_ms())
                wait = (found.at_ms - now_ms) / 1000
                if found.left_to_others:  # they may have claimed it by then: a look costs less
                    poll = min(poll, self._clock.monotonic() + wait)
                if wait <= 0:
                    await _within(backoff, noted)
                    return True
                spread = random.uniform(0, SPREAD_SECONDS)  # noqa: S311 - the same
                ends = min(poll, self._clock.monotonic() + wait + spread)
            while (left := ends - self._clock.monotonic()) > 0:
                if not await _within(left, noted):
                    break
                noted.clear()
                if earliest is not None:  # written by this process, so this node may be the first
                    ends = min(ends, self._clock.monotonic() + self._clock.seconds_until(earliest))
            return ends < poll
        finally:
            self._db.upcoming.forget(note)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for the event, at most so long. Returns whether it happened."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
