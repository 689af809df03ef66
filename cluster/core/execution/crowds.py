"""How early a batch may be claimed when thousands of executions are to be sent in its second.

To claim and prepare an execution takes longer than to send it. What a second holds beyond what the nodes prepare within the
usual prefetch is claimable earlier, so that at the send time there is only the sending left to do.
"""

from __future__ import annotations

from cluster.core.timings import LONGEST_PREFETCH_MS, PREFETCH_MS

PREPARED_IN_TIME = 2000
"""Two nodes on two cores, which MongoDB shares, claim and prepare so many executions within the usual prefetch, and have time
left for what is due meanwhile.
"""
PREPARED_PER_MS = 4
"""And so many more in each further ms."""
KEPT = 4096
"""Seconds. What `spreadSeconds` spreads over an hour fits in beside what is past."""


class Crowds:
    """The executions that one leader has planned, by send second.

    A new leader begins with none, and what is planned twice counts twice: both cost punctuality only. Messages do not count, nor
    are they claimed earlier: a caller may cancel one until a node has claimed it, and they bring their requests with them.
    """

    def __init__(self) -> None:
        self._planned: dict[int, int] = {}

    def prefetch_ms(self, second: int, executions: int) -> int:
        """How long before its send time a batch of so many more executions of this second may be claimed. It counts them."""
        planned = self._planned[second] = self._planned.get(second, 0) + executions
        if len(self._planned) > KEPT:
            for earlier in sorted(self._planned)[: KEPT // 2]:
                del self._planned[earlier]
        more = max(0, planned - PREPARED_IN_TIME) // PREPARED_PER_MS
        return min(PREFETCH_MS + more, LONGEST_PREFETCH_MS)
