"""Liveness: a node is alive while its heartbeat's `rev` keeps changing, judged on the observer's monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.store.nodes import NodeHeartbeat

OFFSET_LIMIT_MS = 2000
BLIND_SECONDS = 5.0
"""Between two readings further apart than this no node was watched: the observer may have been cut off itself."""
RARELY_READING_BLIND_SECONDS = 7.5
"""The same for a node that reads every four seconds."""


@dataclass(frozen=True, slots=True)
class HeartbeatChange:
    """The last change of one node's heartbeat."""

    rev: int
    at: float


class Liveness:
    """The heartbeats of all nodes, as one node sees them."""

    def __init__(self) -> None:
        self._changes: dict[str, HeartbeatChange] = {}
        self._offsets: dict[str, int] = {}
        self._owners_without_heartbeat: dict[str, HeartbeatChange] = {}
        self._observed_at = float("-inf")

    def observe(self, nodes: Iterable[NodeHeartbeat], now: float, blind_seconds: float = BLIND_SECONDS) -> None:
        """Take in a reading of all heartbeats at monotonic `now` (seconds).

        After a time without readings (the database did not answer, or this process was frozen) the silence of every
        node is counted from now: meanwhile the others may have been alive, or cut off as this node was.
        """
        blind = now - self._observed_at > blind_seconds
        present = {}
        for node in nodes:
            before = self._changes.get(node.id)
            if before is not None and before.rev == node.rev and not blind:
                present[node.id] = before
            else:
                present[node.id] = HeartbeatChange(node.rev, now)
            self._offsets[node.id] = node.clock_offset_ms
        self._changes = present
        without = {} if blind else self._owners_without_heartbeat
        self._owners_without_heartbeat = {i: change for i, change in without.items() if i not in present}
        self._offsets = {i: ms for i, ms in self._offsets.items() if i in present}
        self._observed_at = now

    def watch_owners(self, owners: Iterable[str], now: float) -> None:
        """Owners of batches. One without a heartbeat document counts as silent from the first call that names it."""
        present = set(owners)
        without = {i: change for i, change in self._owners_without_heartbeat.items() if i in present}
        for owner in present - self._changes.keys():
            without.setdefault(owner, HeartbeatChange(-1, now))
        self._owners_without_heartbeat = without

    def silent_nodes(self, now: float, seconds: float) -> set[str]:
        """Nodes whose heartbeat has not changed for `seconds`, as far as it was watched: up to the last reading."""
        until = min(now, self._observed_at)
        watched = (*self._changes.items(), *self._owners_without_heartbeat.items())
        return {i for i, change in watched if until - change.at > seconds}

    def live_nodes(self, now: float, seconds: float) -> set[str]:
        """The nodes that are alive."""
        return self._changes.keys() - self.silent_nodes(now, seconds)

    def live_count(self, now: float, seconds: float) -> int:
        """How many nodes are alive, at least one."""
        return max(1, len(self.live_nodes(now, seconds)))

    def clock_agrees(self, node_id: str, now: float, seconds: float) -> bool:
        """Whether a node's wall clock agrees with the others'. True with fewer than two others: then none can judge."""
        silent = self.silent_nodes(now, seconds)
        others = [self._offsets[n] for n in self._changes if n != node_id and n not in silent and n in self._offsets]
        if len(others) < 2 or node_id not in self._offsets:
            return True
        return abs(self._offsets[node_id] - median(others)) <= OFFSET_LIMIT_MS
