"""The values that the parts of one worker hand to each other: executions ready, deferred, finished or dropped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cluster.core.alerts import ResultWatch
from cluster.core.lifecycle import Event
from cluster.core.value import value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.core.execution.model import Attempt, Execution, Job
    from cluster.core.limits.permits import Permit
    from cluster.outbound.sender import Reply
    from cluster.worker.held_batch import HeldBatch

NO_CONNECTION = frozenset({"connect", "dns", "tls"})
WATCH_FAILURES = ResultWatch(failures=True)
"""An execution that failed before its job could be read is marked for alerts; the leader reads the job again then."""


@lru_cache(maxsize=4096)
def endpoint_of(url: str) -> str:
    """A name for the URL without its query: hashed, because it is stored and logged, and a path may be a secret."""
    return f"endpoint.{hashlib.sha256(url.partition('?')[0].encode()).hexdigest()[:16]}"


@dataclass(slots=True)
class ReadyExecution:
    """An execution whose request is made: it waits for its send time, a slot, its host or its limit."""

    held: HeldBatch
    execution: Execution
    job: Job
    request: Any
    """None: its body is large, and is read when it has its slot."""
    read_at: float
    """When its job was read; this and `waiting_since` are monotonic seconds."""
    waiting_since: float = 0.0
    permit: Permit | None = None
    """None: it was not asked for yet, or not given."""
    read_again: bool = False
    """Its job was read more than once, because its execution waited."""

    @property
    def source(self) -> str:
        """Whose attempts on a host count together: those of a job. Messages have none: those to one endpoint count together,
        or one caller with a short time-out would open the breaker of the host for all others.
        """
        return self.execution.job_id if self.execution.message is None else endpoint_of(self.job.target.url)

    def source_of(self, error: str | None) -> str:
        """The same, of an attempt that ended in this way. That a host takes no connection is no endpoint's own fault, so
        each message counts by itself then: otherwise a host that only messages go to would never get a breaker.
        """
        return self.execution.job_id if error in NO_CONNECTION else self.source

    @property
    def unsent(self) -> bool:
        """Whether it still waits here, under a lease that is not known to be lost."""
        return self.execution.id in self.held.waiting and not self.held.lost

    def begin_waiting(self, now: float) -> None:
        """It waits for its host or its limit from now on."""
        self.waiting_since = now

    def held_back_ms(self, now: float) -> int:
        """How long it has waited for its host or its limit, since it began to wait last."""
        return int((now - self.waiting_since) * 1000) if self.waiting_since else 0

    def grant(self, permit: Permit) -> None:
        """Its limit lets it through at the instant of this permit."""
        self.permit = permit

    def load(self, job: Job, request: Any, read_at: float) -> None:
        """Its body was read, with its job as it is now; only the request keeps the body."""
        self.job, self.request, self.read_at = job, request, read_at

    def confirm(self, read_at: float) -> None:
        """Its job was looked at once more, and is as it was."""
        self.read_at = read_at
        self.read_again = True

    def forget_request(self) -> None:
        """It has ended: its body takes up no more memory."""
        self.request = None

    def take_permit(self) -> Permit | None:
        """Take its permit from it, if it has one."""
        permit, self.permit = self.permit, None
        return permit


@dataclass(frozen=True, slots=True)
class Deferral:
    """Executions of one batch that may not be sent now; `until_ms` if it is known until when."""

    held: HeldBatch
    executions: tuple[Execution, ...]
    until_ms: int | None
    host: str | None = None
    """The host they wait for; None: they wait for their limit, or for a resume."""
    paused: bool = False
    """They wait for their jobs to be resumed, or for the end of a window."""
    by_window: bool = False
    """They wait for the end of a window."""


def deferrals_by_batch(
    waiting: Iterable[ReadyExecution], since: float, until_ms: int | None, host: str | None = None
) -> list[Deferral]:
    """The executions that have waited since that instant (monotonic seconds) or longer, batch by batch."""
    groups: dict[HeldBatch, list[Execution]] = {}
    for r in waiting:
        if r.unsent and r.waiting_since <= since:
            groups.setdefault(r.held, []).append(r.execution)
    return [Deferral(held, tuple(members), until_ms, host) for held, members in groups.items()]


@value(frozen=True, slots=True)
class FinishedRequest:
    """A request that ended: the execution with the attempt appended, the job as it was sent, and the reply."""

    held: HeldBatch
    execution: Execution
    job: Job
    attempts: tuple[Attempt, ...]
    reply: Reply
    drift_ms: int
    permit: Permit | None = None


@dataclass(frozen=True, slots=True)
class DroppedExecution:
    """An execution that must not be sent: the reason, and the event that this is in its life. After `Event.RELEASE` it
    stays owed, and is claimed again.

    `watch`: which results alerts look at, as its job says; None: as the rules of all jobs say.
    """

    held: HeldBatch
    execution: Execution
    reason: str
    event: Event = Event.CANCEL
    retention_days: float | None = None
    watch: ResultWatch | None = WATCH_FAILURES
    again_ms: int | None = None
    """It has not ended: it is to be sent at this instant (cluster time) instead."""
    job: Job | None = None
    """Its job as it was read; None: it could not be read, or there is none."""


def job_stamp(job: Job | None) -> tuple[int, str, str, bool] | None:
    """What a job is compared by. Who chains a job to it changes no revision."""
    return None if job is None else (job.revision, job.schedule_version, job.state, job.followed)


def unreadable_reason(execution: Execution, why: str) -> str:
    """Why an execution is not sent whose job or message cannot be read."""
    what = "the job's document" if execution.message is None else "the message"
    return f"{what} could not be read: {why}"


def unsendable_reason(exc: Exception) -> str:
    """Why an execution is not sent whose request cannot be made."""
    return f"its request could not be made: {type(exc).__name__}: {str(exc)[:200]}"
