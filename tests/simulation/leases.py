"""The promises of batch leases: the second halves of invariants 2 and 4, with and without faults.

An attempt is sent again only if the lease that it was sent under ended before its batch was given up, or its node died.
A dead node's executions can be claimed one lease after its death at the latest. Nothing here waits for the sweep.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.world import Broken

if TYPE_CHECKING:
    from cluster.core.execution.model import Batch, Execution
    from tests.simulation.model import Store

PREFETCH_MS = 1000


@dataclass
class Leases:
    """Informed of each death, each request and each step. Instants are the database's (ms)."""

    store: Store
    lease_ms: int
    _seen: dict[str, Batch] = field(default_factory=dict)
    _ended: set[tuple[str, int]] = field(default_factory=set)
    """Batch and token of each lease that ended while it was held."""
    deaths: dict[str, int] = field(default_factory=dict)
    """When each owner died that has."""
    _touched: dict[str, int] = field(default_factory=dict)
    """When a write that was under way at its holder's death prolonged a batch."""
    _sent: dict[tuple[str, int], list[tuple[str, str, int]]] = field(default_factory=dict)
    """By execution and number: owner, batch and token of each request."""
    _holders: dict[str, str] = field(default_factory=dict)
    """By execution: who held it last."""
    _writes: int = -1

    def died(self, owner: str) -> None:
        self.deaths.setdefault(owner, self.store.now_ms())
        self._writes = -1

    def sent(self, owner: str, batch: str, e: tuple[str, int, int]) -> None:
        """A request leaves. `e` is its execution, number and token."""
        execution, number, token = e
        self.after(late=False)
        before = self._sent.setdefault((execution, number), [])
        for other, theirs, old in before:
            if not self._over(theirs, old) and other not in self.deaths:
                raise Broken(f"attempt {number} of {execution} is sent again by {owner}: {other} lives, held its lease")
        before.append((owner, batch, token))

    def _over(self, batch: str, token: int) -> bool:
        there = self.store.batches.get(batch)
        held = there is not None and there.owner is not None and there.token == token
        return (batch, token) in self._ended or (
            held and there is not None and there.claimable_ms <= self.store.now_ms()
        )

    def after(self, *, late: bool) -> None:
        """Compare the documents after a step. `late`: the step was a postponed write."""
        if self.store.writes == self._writes:
            return
        self._writes = self.store.writes
        now, batches = self.store.now_ms(), self.store.batches
        for name, was in self._seen.items():
            if was is not batches.get(name) and was.owner is not None and was.claimable_ms <= now:
                self._ended.add((name, was.token))
        for name, b in batches.items():
            if b is not self._seen.get(name):
                self._changed(b, self._seen.get(name), now, late=late)
        self._seen = dict(batches)
        for i in [i for i in self._holders if i not in self.store.executions]:
            del self._holders[i]  # a frozen writer may insert it once more: no node has held that one
        if self.deaths:
            for b in batches.values():
                self._freed_in_time(b)
            for e in self.store.executions.values():
                self._claimable(e, now)

    def _changed(self, b: Batch, was: Batch | None, now: int, *, late: bool) -> None:
        if b.owner is None:
            return
        if b.claimable_ms > now:  # renewed after its end, before any other claim: it is held again
            self._ended.discard((b.id, b.token))
        if late and b.owner in self.deaths and (was is None or was.claimable_ms != b.claimable_ms):
            self._touched[b.id] = now
        for i in b.ids:
            e = self.store.executions.get(i)
            if e is not None and e.batch == b.id:
                self._holders[i] = b.owner

    def _freed_in_time(self, b: Batch) -> None:
        if b.owner is None or b.owner not in self.deaths:
            return
        since = max(self.deaths[b.owner], self._touched.get(b.id, 0))
        if b.claimable_ms > since + self.lease_ms:
            raise Broken(f"{b.id} is not claimable within a lease of the death of {b.owner}")

    def _claimable(self, e: Execution, now: int) -> None:
        """A dead node's execution is listed by a batch that is held, or claimable in time or when it is retried."""
        died = self.deaths.get(self._holders.get(e.id, ""))
        if died is None or e.cancelled:  # a cancellation took it first: the sweep gives it a batch
            return
        latest = max(died + self.lease_ms, now)
        listing = [b for b in self.store.batches.values() if e.id in b.ids]
        if not listing:
            raise Broken(f"{e.id} was held by a node that died and is owed by no batch")
        for b in listing:
            if b.owner is not None or b.claimable_ms <= latest:
                return
            if b.id == e.batch and b.claimable_ms <= e.send_ms - PREFETCH_MS:
                return
        raise Broken(f"{e.id} is not claimable within a lease of the death of its node")
