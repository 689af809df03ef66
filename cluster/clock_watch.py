"""Holding cluster time against a primary whose clock was changed, as long as most hosts contradict it.

A jump of the database's clock is not followed at once: cluster time goes on by the monotonic clock, as if nothing had
happened. Within some seconds the hosts have voted (`core.clock_vote`). If most of them contradict the primary, cluster time
is held until its clock is right again, a minute at most: the database's clock is the law in the end. Else it is followed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from cluster.clock import JUMP_MS
from cluster.core.clock_vote import AGREE_MS, ClockVote, elected, own_vote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.clock import Clock

log = structlog.get_logger()

VOTE_SECONDS = 5.0
"""So long cluster time is held for the votes of other hosts: two heartbeats, and two looks at those of others. (In
doubt a node of a large cluster beats and looks as often as one of a small cluster.)"""
HOLD_SECONDS = 60.0


class ClockWatch:
    """The doubts of one node about the primary's clock. `settle_seconds`: nothing is judged for so long after a doubt."""

    def __init__(self, clock: Clock, host: str, settle_seconds: float) -> None:
        self._clock = clock
        self._host = host
        self._settle_seconds = settle_seconds
        self._since = 0.0
        self._since_ms = 0
        self._elected = False

    @property
    def vote(self) -> int | None:
        """This node's vote, for its heartbeat. A node that has seen no jump votes for the primary: the jump that another
        one sees may be its own, as after the suspension of a virtual machine.
        """
        return own_vote(self._clock.wall_ms(), self._clock.now_ms(), self._clock.held_ms)

    @property
    def holds_since_ms(self) -> int | None:
        """Since when (cluster time) the primary's clock is in doubt; None: it is not, or no vote has confirmed it."""
        return self._since_ms if self._clock.held_ms and self._elected else None

    def jumped(self, by_ms: float) -> None:
        """The database's clock jumped. Cluster time is held against it, unless the jump takes an earlier one back."""
        was_held = bool(self._clock.held_ms)
        held_ms = self._clock.held_ms + round(by_ms)
        if abs(held_ms) <= JUMP_MS:
            self._end(trusted=False)
            return
        if not was_held:
            self._since = self._clock.monotonic()
            self._since_ms = self._clock.now_ms() - round(by_ms)
            self._elected = False
        self._clock.hold(held_ms)

    def count(self, others: Sequence[ClockVote]) -> bool:
        """Count the votes of the other live nodes. Returns whether cluster time has changed: the jump is followed now."""
        if not self._clock.held_ms:
            self._join(others)
            return False
        now = self._clock.monotonic()
        mine = ClockVote(self._host, self.vote)
        alone = all(v.host == self._host for v in others)  # the nodes beside it see the same a moment later
        jump_ms = elected([mine] if alone else [*others, mine])
        confirmed = bool(jump_ms) and abs(jump_ms - self._clock.held_ms) <= AGREE_MS
        if confirmed and not self._elected:
            self._elected = True
            log.error("clock_in_doubt", by_ms=self._clock.held_ms)
        waited = VOTE_SECONDS if not alone and not self._elected else 0.0
        if now - self._since >= HOLD_SECONDS or (not confirmed and now - self._since >= waited):
            self._end(trusted=True)
            return True
        return False

    def _join(self, others: Sequence[ClockVote]) -> None:
        """A node that began during a doubt took the primary's clock for the truth. It knows better by its own clock."""
        jump_ms = elected(others)
        if jump_ms and own_vote(self._clock.wall_ms(), self._clock.now_ms() - jump_ms, jump_ms) and self._never_held:
            self._since, self._elected = self._clock.monotonic(), True
            self._since_ms = self._clock.now_ms() - jump_ms
            self._clock.hold(jump_ms)
            log.error("clock_in_doubt", by_ms=jump_ms)

    @property
    def _never_held(self) -> bool:
        return not self._since

    def _end(self, *, trusted: bool) -> None:
        """`trusted`: the primary's clock is followed from now on. Else it is right again."""
        if self._clock.held_ms:
            seconds = round(self._clock.monotonic() - self._since, 1)
            log.warning("clock_doubt_ended", by_ms=self._clock.held_ms, seconds=seconds, followed=trusted)
        self._clock.release_hold(self._settle_seconds)
