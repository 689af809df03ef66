"""Who lives: a node is alive while its heartbeat's `rev` keeps changing, judged on the observer's monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.store.nodes import Node

OFFSET_LIMIT_MS = 2000


@dataclass(frozen=True, slots=True)
class Seen:
    """The last change of one node's heartbeat."""

    rev: int
    at: float


class Census:
    """What one node knows of all nodes."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._offsets: dict[str, int] = {}

    def take(self, nodes: Iterable[Node], now: float) -> None:
        """Take in a reading of all heartbeats at monotonic `now` (seconds)."""
        present = {}
        for node in nodes:
            before = self._seen.get(node.id)
            present[node.id] = before if before is not None and before.rev == node.rev else Seen(node.rev, now)
            self._offsets[node.id] = node.clock_offset_ms
        self._seen = present

    def suspect(self, owners: Iterable[str], now: float) -> None:
        """Holders of batches without a heartbeat document: counted as silent from now on."""
        for owner in owners:
            self._seen.setdefault(owner, Seen(-1, now))

    def silent(self, now: float, seconds: float) -> set[str]:
        """Nodes whose heartbeat has not changed for `seconds`."""
        return {node for node, seen in self._seen.items() if now - seen.at > seconds}

    def alive(self, now: float, seconds: float) -> int:
        """How many nodes live, at least one."""
        return max(1, len(self._seen) - len(self.silent(now, seconds)))

    def offset_fits(self, me: str, now: float, seconds: float) -> bool:
        """Whether this node's wall clock agrees with the others'. With fewer than two others nobody can tell."""
        silent = self.silent(now, seconds)
        others = [self._offsets[n] for n in self._seen if n != me and n not in silent and n in self._offsets]
        if len(others) < 2 or me not in self._offsets:
            return True
        return abs(self._offsets[me] - median(others)) <= OFFSET_LIMIT_MS
