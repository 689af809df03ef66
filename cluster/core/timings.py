"""The timings that safety rests on, and the inequalities they must keep.

All durations are seconds. Nothing here may be relaxed silently: a node with unsafe timings does not start.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFETCH_MS = 1000
"""How long before its send time a batch may be claimed."""


@dataclass(frozen=True, slots=True)
class Timings:
    """The durations of one cluster; every node should run with the same."""

    leader_lease: float = 6.0
    renew_deadline: float = 4.0
    renew_retry: float = 1.0
    margin: float = 1.0
    """Taken off every lease on the holder's side: it stops before anybody else may start."""
    operation: float = 2.0
    """The longest one election or renewal operation may take."""
    lookahead: float = 15.0
    tick: float = 1.0
    batch_lease: float = 10.0
    prefetch: float = PREFETCH_MS / 1000
    """How long before its send time a batch may be claimed."""
    stride: float = 5.0
    """How far beyond the look-ahead a schedule is advanced at once, so that its jobs are read once per stride."""

    @classmethod
    def from_settings(cls, *, leader_lease: float, lookahead: float, batch_lease: float) -> Timings:
        """The timings that follow from the three settings users may change."""
        return cls(
            leader_lease=leader_lease,
            renew_deadline=leader_lease * 4 / 6,
            margin=min(1.0, leader_lease / 6),
            operation=min(2.0, leader_lease / 3),
            lookahead=lookahead,
            batch_lease=batch_lease,
        )


def timing_problems(t: Timings) -> list[str]:
    """What is unsafe about these timings: one sentence per broken inequality, with its numbers. Empty if none is."""
    found = []
    if not t.leader_lease > t.renew_deadline:
        found.append(
            f"HORAE_LEADER_LEASE_SECONDS ({t.leader_lease:g}) must be greater than "
            f"the renew deadline ({t.renew_deadline:g})"
        )
    if not t.renew_deadline > 1.2 * t.renew_retry:
        found.append(
            f"HORAE_LEADER_LEASE_SECONDS ({t.leader_lease:g}) is too short: its renew deadline "
            f"({t.renew_deadline:g}) must be greater than 1.2 x the renew retry ({t.renew_retry:g}); use 2 or more"
        )
    takeover = t.leader_lease + t.renew_retry + t.tick + t.operation
    if not t.lookahead > takeover:
        found.append(
            f"HORAE_LOOKAHEAD_SECONDS ({t.lookahead:g}) must be greater than leader lease + retry + tick + "
            f"operation time ({takeover:g}), or a change of leader makes executions late"
        )
    if not t.batch_lease >= 3 * (t.margin + t.prefetch / 2):
        found.append(
            f"HORAE_BATCH_LEASE_SECONDS ({t.batch_lease:g}) must be at least 3 x (margin + half the prefetch) "
            f"({3 * (t.margin + t.prefetch / 2):g}), or leases end before they can be renewed"
        )
    return found
