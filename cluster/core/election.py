"""The election as values: what was observed on the local monotonic clock -> what may be done.

No clocks are compared between machines. A candidate only asks: has the lease document *changed* since I
last looked, and for how long has it not? What this gives: at most one holder per term. What it does not give: that
the holder of an old term knows it yet; therefore every write of a leader carries its term.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class LeaderLease:
    """The lease document."""

    holder: str | None
    term: int
    rev: int


@dataclass(frozen=True, slots=True)
class LeaseObservation:
    """What a candidate remembers: the last change, when it saw it first, and how often unchanged since an error."""

    lease: LeaderLease | None = None
    unchanged_since: float = 0.0
    confirmations_due: int = 0


def observe(before: LeaseObservation, lease: LeaderLease, now: float) -> LeaseObservation:
    """Take in one successful read at monotonic `now` (seconds)."""
    if before.lease is None or (lease.term, lease.rev) != (before.lease.term, before.lease.rev):
        return LeaseObservation(lease, now, 0)
    return replace(before, lease=lease, confirmations_due=max(0, before.confirmations_due - 1))


def read_failed(before: LeaseObservation) -> LeaseObservation:
    """A read failed: the silence may be ours, so two more unchanged reads are needed before a take-over."""
    return replace(before, confirmations_due=2)


def may_take_over(observed: LeaseObservation, now: float, lease_seconds: float) -> bool:
    """Whether a compare-and-set on the observed `(term, rev)` is due."""
    if observed.lease is None or observed.confirmations_due:
        return False
    return observed.lease.holder is None or now - observed.unchanged_since > lease_seconds
