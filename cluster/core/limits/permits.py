"""Limits that all nodes share: requests per second and requests at once, for one job or for a queue of jobs.

A rate is kept by instants: each permit is for an instant of its own, one interval after the instant before it. So no
second has more permits than the limit, whichever node asks. A node that dies loses its unused instants and nothing else.
Concurrency is kept by a list of executions. An execution on the list counts while its node holds the lease under which
it got its permit. Beside each execution stands the id of its permit, so that a late release of an earlier permit does
not release the permit of the next attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HORIZON_MS = 1000
"""No permit is for an instant further ahead than this. A later request, maybe of another node, gets that instant."""
STALE_MS = 100
"""A permit is void so long after its instant, so that a node that was frozen does not send a burst."""
QUEUE_PREFIX, JOB_PREFIX = "q:", "j:"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a job or queue: requests per second, and requests at once. None: no limit."""

    per_second: float | None = None
    concurrent: int | None = None

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.per_second is not None or self.concurrent is not None


UNLIMITED = Limits()


def limit_key_of(job_id: str, queue: str | None, limits: Limits) -> str | None:
    """The key of the limits that a job counts against: its queue's, its own, or None."""
    if queue is not None:
        return QUEUE_PREFIX + queue
    return JOB_PREFIX + job_id if limits.limited else None


def batch_limit_key(limit_key: str | None) -> str | None:
    """The limit key that a batch has for itself: only a queue's. A job with limits of its own shares batches with other such
    jobs until it has to wait.
    """
    return limit_key if limit_key is not None and limit_key.startswith(QUEUE_PREFIX) else None


def sharing_key(limit_key: str | None) -> str:
    """Executions share batches if this is the same: what no limit holds, what a queue's does, what a job's own does.

    What a limit may hold keeps the lease of its batch when its node ends (`siblings`); so what none holds is not with it.
    """
    return JOB_PREFIX if limit_key is not None and limit_key.startswith(JOB_PREFIX) else limit_key or ""


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to send one execution at an instant (cluster time, ms), under one limit."""

    limit_key: str
    execution: str
    at_ms: int
    permit_id: str | None
    """Distinguishes it from every other permit of this execution. None: it is on no list, and is not released."""


@dataclass(frozen=True, slots=True)
class Permits:
    """The permits granted under one limit. `next_ms` is the first free instant (cluster time, ms)."""

    next_ms: float = 0.0
    granted: Mapping[str, str] = field(default_factory=dict)
    """The executions that may run, each with the id of its permit. The id is empty if a node of the release before
    entered the execution.
    """
    rev: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a request for permits.

    `at_ms`: the executions with a permit, each with its instant (ms). `permits`: what is granted then. `ask_again_ms`:
    when the node should ask again; None: when an execution has ended.
    """

    at_ms: dict[str, int]
    permits: Permits
    ask_again_ms: int | None = None


def grant(permits: Permits, limits: Limits, wanted: Mapping[str, str], now_ms: int) -> Grant:
    """Grant permits to these executions, in order, as far as the limits allow. `wanted` holds the id of each new permit.

    An execution that is already on the list keeps its place. If it is there under another id, that earlier permit is
    void from now on: it was granted to an attempt that has ended, to a node that lost its lease, or its answer was lost.
    The permits of the answer may differ from `permits` although no execution got one, and must be stored all the same.
    """
    granted = dict(permits.granted)
    free_ms = _first_free_ms(permits.next_ms, limits, now_ms)
    at: dict[str, int] = {}
    ask_again_ms = None
    for name, permit_id in wanted.items():
        if limits.concurrent is not None and name not in granted and len(granted) >= limits.concurrent:
            continue  # an execution behind it may be on the list already
        instant = float(now_ms) if limits.per_second is None else max(free_ms, float(now_ms))
        if limits.per_second is not None:
            if instant > now_ms + HORIZON_MS:
                ask_again_ms = int(instant) - HORIZON_MS // 2
                break
            free_ms = instant + 1000 / limits.per_second
        at[name] = -int(-instant // 1)  # never before its instant
        if limits.concurrent is not None:
            granted[name] = permit_id
    return Grant(at, replace(permits, next_ms=free_ms, granted=granted), ask_again_ms)


def _first_free_ms(next_ms: float, limits: Limits, now_ms: int) -> float:
    """The first free instant. It is moved to an earlier one if only a slower rate in the past explains it.

    Each granted instant was within the horizon of the node that asked. That node's clock may differ a little, so the
    instant is moved only if it is more than a second horizon ahead.
    """
    if limits.per_second is None:
        return next_ms
    latest = now_ms + HORIZON_MS + 1000 / limits.per_second
    return latest if next_ms > latest + HORIZON_MS else next_ms
