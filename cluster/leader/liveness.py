"""Who lives: a node is alive while its heartbeat's `rev` keeps changing, judged on the observer's monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.store.nodes import NodeHeartbeat

OFFSET_LIMIT_MS = 2000
BLIND_SECONDS = 5.0
"""Between two readings further apart than this nobody was watched: the silence may have been ours."""


@dataclass(frozen=True, slots=True)
class HeartbeatChange:
    """The last change of one node's heartbeat."""

    rev: int
    at: float


class Liveness:
    """What one node knows of all nodes."""

    def __init__(self) -> None:
        self._seen: dict[str, HeartbeatChange] = {}
        self._offsets: dict[str, int] = {}
        self._suspects: dict[str, HeartbeatChange] = {}
        self._taken_at = float("-inf")

    def observe(self, nodes: Iterable[NodeHeartbeat], now: float) -> None:
        """Take in a reading of all heartbeats at monotonic `now` (seconds).

        After a time without readings (the database was away, or this process stood still) everybody's silence is
        counted anew: while we did not look, the others may have been alive or as blind as we were.
        """
        blind = now - self._taken_at > BLIND_SECONDS
        present = {}
        for node in nodes:
            before = self._seen.get(node.id)
            same = before is not None and before.rev == node.rev and not blind
            present[node.id] = before if same and before is not None else HeartbeatChange(node.rev, now)
            self._offsets[node.id] = node.clock_offset_ms
        self._seen = present
        self._suspects = {} if blind else {i: seen for i, seen in self._suspects.items() if i not in present}
        self._offsets = {i: ms for i, ms in self._offsets.items() if i in present}
        self._taken_at = now

    def watch_owners(self, owners: Iterable[str], now: float) -> None:
        """Holders of batches without a heartbeat document: counted as silent from when they were met first."""
        held = set(owners)
        self._suspects = {i: seen for i, seen in self._suspects.items() if i in held}
        for owner in held - self._seen.keys():
            self._suspects.setdefault(owner, HeartbeatChange(-1, now))

    def silent_nodes(self, now: float, seconds: float) -> set[str]:
        """Nodes whose heartbeat has not changed for `seconds`, as far as it was watched: up to the last reading."""
        until = min(now, self._taken_at)
        return {i for found in (self._seen, self._suspects) for i, seen in found.items() if until - seen.at > seconds}

    def live_count(self, now: float, seconds: float) -> int:
        """How many nodes live, at least one."""
        return max(1, len(self._seen.keys() - self.silent_nodes(now, seconds)))

    def clock_agrees(self, me: str, now: float, seconds: float) -> bool:
        """Whether this node's wall clock agrees with the others'. With fewer than two others nobody can tell."""
        silent = self.silent_nodes(now, seconds)
        others = [self._offsets[n] for n in self._seen if n != me and n not in silent and n in self._offsets]
        if len(others) < 2 or me not in self._offsets:
            return True
        return abs(self._offsets[me] - median(others)) <= OFFSET_LIMIT_MS
