"""How early a batch may be claimed when many executions are to be sent in its second.

To claim and prepare an execution takes longer than to send it. What a second holds beyond what the nodes prepare within the
usual prefetch is claimable earlier, so that at the send time there is only the sending left to do. Where one crowded second
follows another, the claims come between them: at the usual instant the second before is due, and they would delay it.
"""

from __future__ import annotations

from cluster.core.timings import LONGEST_PREFETCH_MS, PREFETCH_MS, SHORTEST_PREFETCH_MS

CROWD = 512
"""So many leave within some 0.1 s, and claims that begin at that instant delay few."""
PREPARED_IN_TIME = 2000
"""Two nodes on two cores, which MongoDB shares, claim and prepare so many executions within the usual prefetch, and have time
left for what is due meanwhile.
"""
PREPARED_PER_MS = 4
"""And so many more in each further ms."""
CLAIMED_TOGETHER = 1024
"""So many become claimable at one instant: each batch by itself would have the nodes ask in between, in vain."""
BETWEEN_CROWDS_MS = 1300
"""The prefetch of what is not prepared in time, where one crowd follows another: after what is claimed for the second before."""
FULL = 64
"""Batches of fewer executions are many for a second, and each is a claim: they have the usual time."""
KEPT = 4096
"""Seconds. What `spreadSeconds` spreads over an hour fits in beside what is past."""


class Crowds:
    """The executions that one leader has planned, by send second.

    A new leader begins with none, and what is planned twice counts twice: both cost punctuality only. Messages do not count, nor
    are they claimed earlier: a caller may cancel one until a node has claimed it, and they bring their requests with them.
    """

    def __init__(self) -> None:
        self._planned: dict[int, int] = {}

    def add(self, second: int, executions: int) -> int:
        """Count so many more executions of this second. Returns how many of it were planned before them."""
        before = self._planned.get(second, 0)
        self._planned[second] = before + executions
        if len(self._planned) > KEPT:
            for earlier in sorted(self._planned)[: KEPT // 2]:
                del self._planned[earlier]
        return before

    def prefetch_ms(self, second: int, place: int, executions: int, *, may_wait: bool) -> int:
        """How long before its send time a batch of so many executions may be claimed; `place`: that of its last one in its
        second, from 1 on.

        `may_wait`: it may be claimed later than usual. More nodes than two ask one after another, and a single one has all to claim.
        """
        beyond = place - PREPARED_IN_TIME
        between = may_wait and executions >= FULL and self._is_crowd(second) and self._is_crowd(second - 1)
        if beyond <= 0:
            return SHORTEST_PREFETCH_MS if between else PREFETCH_MS
        # Rounded up, and down where what is claimed for the second before would be in the way.
        together = beyond // CLAIMED_TOGETHER if between else -(-beyond // CLAIMED_TOGETHER)
        earlier_ms = together * CLAIMED_TOGETHER // PREPARED_PER_MS
        return min((BETWEEN_CROWDS_MS if between else PREFETCH_MS) + earlier_ms, LONGEST_PREFETCH_MS)

    def _is_crowd(self, second: int) -> bool:
        return self._planned.get(second, 0) > CROWD
