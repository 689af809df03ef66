"""Limits shared by all nodes: so many requests a second, so many at once, for one job or for a queue of jobs.

A rate is kept by instants: each permit is for an instant of its own, one interval after the one before, so that no
second has more of them than the limit, whoever asks. A node that dies takes its unused instants along, and no more.
What runs at once is a list of executions; a name on it counts while its node holds the lease it was entered under.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HORIZON_MS = 1000
"""Instants further ahead than this are left to whoever asks later, maybe another node."""
STALE_MS = 100
"""A permit that was not used so long after its instant is void: a node that stood still must not send a burst."""
QUEUE, JOB = "q:", "j:"


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed: requests a second, and requests at once. None: any number."""

    per_second: float | None = None
    concurrent: int | None = None

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return self.per_second is not None or self.concurrent is not None


FREE = Limits()


def gate_of(job_id: str, queue: str | None, limits: Limits) -> str | None:
    """Whose limits a job passes: its queue's, its own, or none."""
    if queue is not None:
        return QUEUE + queue
    return JOB + job_id if limits.any else None


def batch_gate(gate: str | None) -> str | None:
    """What a batch is put apart for. A job with limits of its own shares batches with others until it has to wait."""
    return gate if gate is not None and gate.startswith(QUEUE) else None


@dataclass(frozen=True, slots=True)
class Permits:
    """What was given out for one gate. `next_ms` is the first instant (cluster time, ms) that is still free."""

    next_ms: float = 0.0
    held: frozenset[str] = frozenset()
    rev: int = 0


@dataclass(frozen=True, slots=True)
class Granted:
    """Who may leave, and when (ms); what is given out then; when to ask again (None: when something has ended)."""

    at_ms: dict[str, int]
    then: Permits
    again_ms: int | None = None


def grant(seen: Permits, limits: Limits, wanted: Sequence[str], now_ms: int) -> Granted:
    """Permits for these executions, in order, as far as they go. Whoever holds one already keeps it.

    `then` may differ from `seen` although nobody got one, and is to be kept all the same.
    """
    held = set(seen.held)
    free_ms = _explained(seen.next_ms, limits, now_ms)
    at: dict[str, int] = {}
    again = None
    for name in wanted:
        if limits.concurrent is not None and name not in held and len(held) >= limits.concurrent:
            continue  # one behind it may have a permit from before
        instant = float(now_ms) if limits.per_second is None else max(free_ms, float(now_ms))
        if limits.per_second is not None:
            if instant > now_ms + HORIZON_MS:
                again = int(instant) - HORIZON_MS // 2
                break
            free_ms = instant + 1000 / limits.per_second
        at[name] = -int(-instant // 1)  # never before its instant
        if limits.concurrent is not None:
            held.add(name)
    return Granted(at, replace(seen, next_ms=free_ms, held=frozenset(held)), again)


def _explained(next_ms: float, limits: Limits, now_ms: int) -> float:
    """The first free instant, sooner if it is so late that only a slower rate of before explains it.

    What was given out before lies within the horizon of whoever asked, whose clock may differ a little: that is why
    there is room for a second horizon before anything is moved.
    """
    if limits.per_second is None:
        return next_ms
    latest = now_ms + HORIZON_MS + 1000 / limits.per_second
    return latest if next_ms > latest + HORIZON_MS else next_ms
