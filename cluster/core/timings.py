"""The durations that safety depends on, and the inequalities they must satisfy.

All durations are in seconds. A node with unsafe timings does not start.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFETCH_MS = 1000
"""How long before its send time a batch may be claimed."""
SHORTEST_PREFETCH_MS = 600
"""The same where hundreds of executions follow hundreds of the second before (see `crowds`)."""
LONGEST_PREFETCH_MS = 4000
"""The same of a batch that shares its second with thousands of executions."""
ASKED_BY_ALL_MS = 300
"""So long before its send time a batch may be claimed by any node that asks: there is time to prepare it, and none to lose."""

LONGEST_REST = 2.0
UNCLAIMED_GRACE = 2.0
"""So much longer than a batch lease (s) an execution waits for its first claim before `catchUp` is applied to it."""


@dataclass(frozen=True, slots=True)
class Timings:
    """The durations of one cluster. All nodes should use the same."""

    leader_lease: float = 6.0
    renew_retry: float = 1.0
    """Between two steps of the election: a leader renews, another node looks whether it may take over."""
    margin: float = 1.0
    """The holder of a lease stops so long before its end, so that it has stopped when another node may start."""
    operation: float = 2.0
    """The longest time that one database operation of an election or renewal may take."""
    lookahead: float = 15.0
    first_turn: float = 1.0
    """Allowed for the first turn of a new leader. It steers nothing; the look-ahead must cover it."""
    batch_lease: float = 10.0
    stride: float = 5.0
    """A schedule is advanced so far beyond the look-ahead at once, so that its jobs are read once per stride."""

    @property
    def unclaimed_ms(self) -> int:
        """A batch that was claimable for longer than this before its first claim stood unclaimed: `catchUp` binds it."""
        return int((self.batch_lease + UNCLAIMED_GRACE) * 1000)

    @property
    def takeover(self) -> float:
        """The longest time from the last turn of a leader to the end of the first turn of the next one."""
        return self.leader_lease + self.renew_retry + self.operation + self.first_turn

    @property
    def follow_seconds(self) -> float:
        """Between two looks of a node that does not lead: half as long again as `renew_retry`, if the look-ahead has the time."""
        return self.renew_retry + max(0.0, min(self.renew_retry / 2, (self.lookahead - self.takeover) / 8))

    @property
    def rest_seconds(self) -> float:
        """So long a leader may rest that has written everything down: what was written last covers a change of leader.

        With the longer looks of those that follow, of which a change of leader may take two, three quarters of the time that
        is left are used at most (with those of the first candidates; see `election.first_candidates`).
        """
        return max(0.0, min(LONGEST_REST, (self.lookahead - self.takeover) / 2))

    @classmethod
    def from_settings(cls, *, leader_lease: float, lookahead: float, batch_lease: float) -> Timings:
        """The timings that follow from the three settings that operators may change."""
        return cls(
            leader_lease=leader_lease,
            margin=min(1.0, leader_lease / 6),
            operation=min(2.0, leader_lease / 3),
            lookahead=lookahead,
            batch_lease=batch_lease,
        )


def timing_problems(t: Timings) -> list[str]:
    """The inequalities that these timings violate: one sentence each, with its numbers."""
    problems = []
    trusted = t.leader_lease - t.margin
    if not trusted >= t.renew_retry + t.operation:
        problems.append(
            f"HORAE_LEADER_LEASE_SECONDS ({t.leader_lease:g}) is too short: without its margin ({trusted:g}) it must be "
            f"at least renew retry + operation time ({t.renew_retry + t.operation:g}), or a term ends before it can be "
            f"renewed; use 2 or more"
        )
    if not t.lookahead > t.takeover:
        problems.append(
            f"HORAE_LOOKAHEAD_SECONDS ({t.lookahead:g}) must be greater than leader lease + renew retry + "
            f"operation time + first turn ({t.takeover:g}), or a change of leader makes executions late"
        )
    shortest = 3 * (t.margin + PREFETCH_MS / 2000)
    if not t.batch_lease >= shortest:
        problems.append(
            f"HORAE_BATCH_LEASE_SECONDS ({t.batch_lease:g}) must be at least 3 x (margin + half the prefetch) "
            f"({shortest:g}), or leases end before they can be renewed"
        )
    return problems
