"""The election as values: from what a candidate observed on its own monotonic clock to what it may do.

No clocks of two machines are compared. A candidate only observes whether the lease document has *changed* since its last
read, and for how long it has not. This guarantees at most one holder per term. It does not guarantee that the holder of
an old term already knows that it lost it; therefore every write of a leader names its term.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

CANDIDATES = 8
"""Of so many nodes at most the looks decide how soon a term is taken over; the others look half as often."""


@dataclass(frozen=True, slots=True)
class LeaderLease:
    """The lease document."""

    holder: str | None
    term: int
    rev: int


@dataclass(frozen=True, slots=True)
class LeaseObservation:
    """The lease as a candidate last saw it change.

    `unchanged_since`: when this candidate first saw it so (monotonic seconds). `confirmations_due`: how many more
    unchanged reads are needed after a failed read.
    """

    lease: LeaderLease | None = None
    unchanged_since: float = 0.0
    confirmations_due: int = 0


def observe(before: LeaseObservation, lease: LeaderLease, now: float) -> LeaseObservation:
    """The observation after a successful read at monotonic `now` (seconds)."""
    if before.lease is None or (lease.term, lease.rev) != (before.lease.term, before.lease.rev):
        return LeaseObservation(lease, now, 0)
    return replace(before, lease=lease, confirmations_due=max(0, before.confirmations_due - 1))


def read_failed(before: LeaseObservation) -> LeaseObservation:
    """The observation after a failed read. This node may be the one that is cut off, so that two more unchanged reads
    are needed before a take-over.
    """
    return replace(before, confirmations_due=2)


def first_candidates(nodes: Iterable[str]) -> set[str]:
    """The nodes that look as often as a take-over in time needs: all of a small cluster, some of a large one.

    By a hash of the id, so that they are not those of one host. Nodes that see different nodes alive may differ about it:
    that makes looks rarer or more frequent. What makes a take-over safe is its compare-and-set, whoever looks how often.
    """
    return set(sorted(nodes, key=lambda n: hashlib.blake2b(n.encode(), digest_size=8).digest())[:CANDIDATES])


def may_take_over(
    observed: LeaseObservation, now: float, lease_seconds: float, ended: Container[str] = frozenset()
) -> bool:
    """Whether this candidate may try a compare-and-set on the observed `(term, rev)`.

    `ended`: holders whose process has ended, by the word of the operating system. They renew no more.
    """
    if observed.lease is None or observed.confirmations_due:
        return False
    if observed.lease.holder is None or observed.lease.holder in ended:
        return True
    return now - observed.unchanged_since > lease_seconds
