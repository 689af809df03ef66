"""Whose clock is wrong, the primary's or the nodes'? One vote a host, the majority decides. Values in, values out.

A node votes by its own machine's clock, which agrees either with cluster time as it was carried on, so that the primary's
clock has jumped, or with the primary, so that it is the truth; or with neither, and then the node cannot tell.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median, median_low
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

AGREE_MS = 2000
"""Clocks that differ by no more agree."""


@dataclass(frozen=True, slots=True)
class ClockVote:
    """The vote of one node. `jump_ms`: by how much the primary's clock is wrong; 0: it is right; None: it cannot tell."""

    host: str
    jump_ms: int | None


def own_vote(wall_ms: int, cluster_ms: int, held_ms: int) -> int | None:
    """The vote of a node whose cluster time holds against a jump of the primary's clock by `held_ms` (0: against none)."""
    if abs(wall_ms - cluster_ms) <= AGREE_MS:
        return held_ms
    return 0 if abs(wall_ms - cluster_ms - held_ms) <= AGREE_MS else None


def elected(votes: Iterable[ClockVote]) -> int:
    """The jump (ms) of the primary's clock that most hosts contradict, and agree about; 0 if they do not.

    Hosts and not nodes, because the nodes of one host share its clock. Hosts that cannot tell are not counted.
    """
    by_host: defaultdict[str, list[int]] = defaultdict(list)
    for v in votes:
        if v.jump_ms is not None:
            by_host[v.host].append(v.jump_ms)
    hosts = [median_low(jumps) for jumps in by_host.values()]
    against = [jump for jump in hosts if jump]
    if not against:
        return 0
    middle = int(median(against))
    agreed = sum(abs(jump - middle) <= AGREE_MS for jump in against)
    return middle if 2 * agreed > len(hosts) else 0
