"""Limits shared by all nodes: so many requests a second, so many at once, for one job or for a queue of jobs.

A rate is kept by instants: each permit is for an instant of its own, one interval after the one before, so that no
second has more of them than the limit, whoever asks. A node that dies takes its unused instants along, and no more.
What runs at once is a list of executions; a name on it counts while its node holds the lease it was entered under.
Beside each name stands the mark of its permit: whoever gives one back late takes nothing from the next attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HORIZON_MS = 1000
"""Instants further ahead than this are left to whoever asks later, maybe another node."""
STALE_MS = 100
"""A permit that was not used so long after its instant is void: a node that stood still must not send a burst."""
QUEUE_PREFIX, JOB_PREFIX = "q:", "j:"


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed: requests a second, and requests at once. None: any number."""

    per_second: float | None = None
    concurrent: int | None = None

    @property
    def limited(self) -> bool:
        """Whether anything is limited."""
        return self.per_second is not None or self.concurrent is not None


UNLIMITED = Limits()


def limit_key_of(job_id: str, queue: str | None, limits: Limits) -> str | None:
    """Whose limits a job passes: its queue's, its own, or none."""
    if queue is not None:
        return QUEUE_PREFIX + queue
    return JOB_PREFIX + job_id if limits.limited else None


def batch_limit_key(limit_key: str | None) -> str | None:
    """What a batch is put apart for. A job with limits of its own shares batches with others until it has to wait."""
    return limit_key if limit_key is not None and limit_key.startswith(QUEUE_PREFIX) else None


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one execution at an instant (cluster time, ms), under one gate."""

    limit_key: str
    execution: str
    at_ms: int
    permit_id: str | None
    """Tells it from every other permit of this execution; None: it stands on no list, and is not given back."""


@dataclass(frozen=True, slots=True)
class Permits:
    """What was given out for one gate. `next_ms` is the first instant (cluster time, ms) that is still free."""

    next_ms: float = 0.0
    granted: Mapping[str, str] = field(default_factory=dict)
    """Who may run, each with the mark of its permit; empty where a node of the release before entered the name."""
    rev: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """Who may leave, and when (ms); what is given out then; when to ask again (None: when something has ended)."""

    at_ms: dict[str, int]
    permits: Permits
    ask_again_ms: int | None = None


def grant(seen: Permits, limits: Limits, wanted: Mapping[str, str], now_ms: int) -> Grant:
    """Permits for these executions, in order, as far as they go; each under the mark that is wanted for it.

    Whoever is on the list already keeps its place. If it is there under another mark, that permit is void from now on:
    it was that of an attempt that has ended, or of a node that has lost its lease, or was never answered.
    `then` may differ from `seen` although nobody got one, and is to be kept all the same.
    """
    held = dict(seen.granted)
    free_ms = _explained(seen.next_ms, limits, now_ms)
    at: dict[str, int] = {}
    again = None
    for name, mark in wanted.items():
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
            held[name] = mark
    return Grant(at, replace(seen, next_ms=free_ms, granted=held), again)


def _explained(next_ms: float, limits: Limits, now_ms: int) -> float:
    """The first free instant, sooner if it is so late that only a slower rate of before explains it.

    What was given out before lies within the horizon of whoever asked, whose clock may differ a little: that is why
    there is room for a second horizon before anything is moved.
    """
    if limits.per_second is None:
        return next_ms
    latest = now_ms + HORIZON_MS + 1000 / limits.per_second
    return latest if next_ms > latest + HORIZON_MS else next_ms
