"""One step of the election: observe, take over, renew, resign. The rules are in `core.election`.

It guarantees that a term has at most one holder, and that this node trusts its term only until `start of the last
successful attempt + lease - margin` on its own monotonic clock. It does not guarantee that a frozen holder knows that it
lost its lease: so every write of a leader carries the term.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.election import LeaderLease, LeaseObservation, may_take_over, observe, read_failed
from cluster.core.errors import OutcomeUnknown, StoreUnavailable, TermLost
from cluster.core.execution.model import Term
from cluster.store import leases

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.core.timings import Timings
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

ENDED_KEPT = 64


class Elector:
    """One candidate. `step()` is called every one to three seconds and returns the term that this node holds, if any."""

    def __init__(self, db: Database, clock: Clock, timings: Timings, holder: str, node: str) -> None:
        self._db = db
        self._clock = clock
        self._timings = timings
        self._holder = holder
        self._node = node
        self._observed = LeaseObservation()
        self._term: Term | None = None
        self.latest_term = 0
        """The latest term that this node knows, of any holder."""
        self.leader_changes = 0
        """How often this node met a newer term since it began."""
        self._ended: deque[str] = deque(maxlen=ENDED_KEPT)
        """Holders whose process has ended."""
        self._eligible = True
        self._in_reserve = False
        self._aside_until = 0.0
        self._holds = asyncio.Event()
        self._hurry = asyncio.Event()
        """The next step is to come at once."""

    @property
    def term(self) -> Term | None:
        """The term held and still trusted, else None."""
        term = self._term
        return term if term is not None and self._clock.monotonic() < term.trusted_until else None

    def until_held(self, seconds: float) -> float | asyncio.Event:
        """For loops that work for the leader and have found no trusted term: what to wait for, the next term.

        A term that is held and not trusted may be trusted again: then it is the seconds after which to look.
        """
        if self._term is not None:
            return seconds
        self._holds.clear()
        return self._holds

    def trusted_term(self) -> Term:
        """The term held now; raises `TermLost`. Leader steps ask before every write."""
        term = self.term
        if term is None:
            raise TermLost("the leader lease is not trusted any more")
        return term

    def set_eligible(self, *, eligible: bool) -> None:
        """Whether this node may take over: not while its clock disagrees with the others'. A leader is not deposed."""
        self._eligible = eligible

    def set_reserve(self, *, in_reserve: bool) -> None:
        """Whether enough other nodes watch the lease: then this one looks half as often (`election.first_candidates`)."""
        self._in_reserve = in_reserve

    def holder_ended(self, holder: str) -> None:
        """The process of this holder has ended: if it leads, nobody needs to wait for its lease."""
        self._ended.append(holder)
        self._hurry.set()

    async def step(self) -> Term | None:
        """Renew if this node leads, else observe and take over when it is time. An unavailable database is logged."""
        try:
            if self._term is None:
                await self._follow()
            else:
                await self._lead(self._term)
        except StoreUnavailable as exc:
            self._observed = read_failed(self._observed)
            log.warning("election_unavailable", error=str(exc), leading=self._term is not None)
        return self.term

    async def until_next_step(self) -> None:
        """Wait for the next step: a leader renews more often than the others look."""
        follow = self._timings.follow_seconds * (2 if self._in_reserve else 1)
        seconds = follow if self._term is None else self._timings.renew_retry
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()

    async def _follow(self) -> None:
        lease = await leases.read(self._db)
        now = self._clock.monotonic()
        self._observed = observe(self._observed, lease, now)
        self._observe_term(lease.term)
        if not self._eligible or now < self._aside_until:
            return
        if not may_take_over(self._observed, now, self._timings.leader_lease, self._ended):
            return
        started = self._clock.monotonic()
        wanted = LeaderLease(self._holder, lease.term + 1, lease.rev + 1)
        try:
            won = await leases.take_over(self._db, lease, self._holder, self._node)
        except OutcomeUnknown:
            won = await leases.read_linearizable(self._db) == wanted
        if won:
            self._term = Term(wanted.term, self._holder, self._trusted_until(started))
            self._holds.set()
            self._observe_term(wanted.term)
            log.info("leader_elected", term=wanted.term, node=self._node)

    async def _lead(self, term: Term) -> None:
        started = self._clock.monotonic()
        try:
            ours = await leases.renew(self._db, term.holder, term.number)
        except OutcomeUnknown:
            # The document may still name us although this renewal was not applied, and the other nodes count from the
            # last change that they saw. So only a renewal that is known to be applied is trusted, from its own start.
            started = self._clock.monotonic()
            ours = await leases.renew(self._db, term.holder, term.number)
        if self._term is not term:
            return  # this node resigned meanwhile
        if ours:
            self._term = replace(term, trusted_until=self._trusted_until(started))
            return
        self._term = None
        self._observed = LeaseObservation()
        log.warning("leader_deposed", term=term.number, node=self._node)

    def _observe_term(self, term: int) -> None:
        if self.latest_term and term > self.latest_term:
            self.leader_changes += 1
        self.latest_term = max(term, self.latest_term)

    def _trusted_until(self, started: float) -> float:
        return started + self._timings.leader_lease - self._timings.margin

    async def step_aside(self, seconds: float) -> None:
        """Give the lease up and do not stand for election for so many seconds."""
        self._aside_until = self._clock.monotonic() + seconds
        await self.resign()

    async def retire(self) -> None:
        """Give the lease up for good: this process shuts down, and the next leader should not wait for that."""
        await self.step_aside(math.inf)

    async def resign(self) -> None:
        """Give the lease up; the work must have stopped. If that fails, the lease expires."""
        term, self._term = self._term, None
        if term is None:
            return
        try:
            await leases.resign(self._db, term.holder, term.number)
            log.info("leader_resigned", term=term.number, node=self._node)
        except StoreUnavailable as exc:
            log.warning("resign_failed", term=term.number, error=str(exc))
