"""The values that flow through a node: job -> execution -> batch -> attempt -> outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.core.execution.lateness import ON_TIME, LatenessParts
from cluster.core.lifecycle import JobState, State
from cluster.core.limits.permits import UNLIMITED, Limits
from cluster.core.value import changed, value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cluster.core.alerts import ResultWatch

MESSAGE_VERSION = "message"
"""The schedule version of every message: it has no schedule that could change."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is retried: after `initial * multiplier^(n-1)`, at most `max_delay`, varied by `jitter`."""

    max_attempts: int = 5
    initial_delay_seconds: float = 1.0
    multiplier: float = 2.0
    max_delay_seconds: float = 300.0
    jitter: float = 0.2
    max_age_seconds: float | None = None
    """No attempt begins later than this after the planned send time. None: only `max_attempts` limits them."""


@dataclass(frozen=True, slots=True)
class Target:
    """The request of a job. `body` is sent as it is. `content_type` is None if a header sets it, or nothing does."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = b""
    content_type: str | None = None
    timeout_seconds: float = 30.0
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that must not appear in the stored excerpt of an answer."""
    templated: bool = False
    """Whether the body or a header contains names that are filled in for each attempt."""
    body_is_json: bool = False
    keeps_answer: bool = False
    """Whether a callback is to tell what the target answers."""
    unread_bytes: int = 0
    """The size of a large body, if it was not read along. It is read when there is room for it, just before it is sent."""


@dataclass(frozen=True, slots=True)
class EndedPeriod:
    """An earlier period of a job: the schedule version that held in it, and the instant (ms, included) at which it ended.

    `ended_by`: `change`, `pause` or `delete`; empty: by a release that did not store it.
    """

    schedule_version: str
    to_ms: int
    ended_by: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """The fields of a job that the engine needs, as the job is now."""

    id: str
    state: JobState
    schedule_version: str
    active_from_ms: int
    lane: int
    target: Target
    retry: RetryPolicy = RetryPolicy()
    overlap_skip: bool = False
    spread_seconds: int = 0
    signing_secret: str | None = field(default=None, repr=False)
    previous_signing_secret: str | None = field(default=None, repr=False)
    revision: int = 0
    retention_days: float | None = None
    success_codes: frozenset[int] | None = None
    """The statuses that count as success; None: 2xx."""
    host: str = ""
    """Host and port of the target. Slots and circuit breakers are kept per host."""
    limit_key: str | None = None
    """The limits it counts against: its queue's (`q:name`), its own (`j:id`), or none (None)."""
    limits: Limits = UNLIMITED
    """Its own limits."""
    watch: ResultWatch | None = None
    """Which of its results alerts need. None: those that the default rules need."""
    channel: str | None = None
    """The channel that an alert job notifies. None for all other jobs."""
    tags: tuple[str, ...] = ()
    past: tuple[EndedPeriod, ...] = ()
    """Its earlier periods, the oldest first. A paused job's last one ended with the pause."""
    created_ms: int = 0
    """Periods that ended before belong to a job of the same id that was deleted."""
    expires_ms: int | None = None
    """Of a message: no attempt begins later than this (ms)."""
    tells: tuple[str, ...] = ()
    """The kinds of its callbacks: `success`, `failure`."""
    followed: bool = False
    """Whether other jobs may run after it."""


@dataclass(frozen=True, slots=True)
class JobSchedule:
    """The schedule of a job as the leader sees it: which occurrences the job owes."""

    id: str
    schedule_key: str
    schedule_version: str
    active_from_ms: int
    start_ms: int | None
    end_ms: int | None
    lane: int
    spread_seconds: int
    catch_up: str = "all"
    catch_up_window_seconds: int = 3600
    state: JobState = JobState.ACTIVE
    change_id: str | None = None
    """The id of the change that the leader has not settled yet."""
    past_schedules: tuple[tuple[JobSchedule, int], ...] = ()
    """Its schedules before its latest changes, the oldest first, each with the instant (ms) at which it ended."""
    retention_days: float | None = None
    host: str = ""
    limit_key: str | None = None
    ended_by: str = ""
    """Of a past schedule: what ended it (see `EndedPeriod`)."""

    @property
    def unsettled_past(self) -> tuple[tuple[JobSchedule, int], ...]:
        """Those of its past schedules that no leader has looked at since they ended, the oldest first.

        A change that is settled was settled with all that was before it. So these are the latest ones, back to the first
        that began with a settled change.
        """
        first = len(self.past_schedules)
        while first > 0:
            first -= 1
            if self.past_schedules[first][0].change_id is None:
                break
        return self.past_schedules[first:]

    def owes(self, due_ms: int) -> bool:
        """Whether the job owes an occurrence of its schedule at this instant."""
        return (
            due_ms >= self.active_from_ms
            and (self.start_ms is None or due_ms >= self.start_ms)
            and (self.end_ms is None or due_ms <= self.end_ms)
        )


@value(frozen=True, slots=True)
class Attempt:
    """One POST. `status` is None if there was no answer, `error` is None if there was one."""

    number: int
    sent_ms: int
    node: str
    token: int
    duration_ms: float
    status: int | None = None
    error: str | None = None
    detail: str | None = None
    excerpt: str | None = None
    late: LatenessParts = ON_TIME
    """Of a first attempt that left late: where its lateness came from. It is stored if it is more than `KEPT_MS`."""
    claimed_ms: int | None = None
    """When its node had claimed its batch. None: a release that did not store it made the attempt."""


FIRST_CLAIM = "*"
"""The owner of an execution that carries the token of its batch's first claim already, when it is written: whoever claims
the batch first owns it, without a write to it. Every later claim has a greater token, and writes it."""
FIRST_TOKEN = 1


@value(frozen=True, slots=True)
class Execution:
    """An occurrence that is owed. Its state is pending, leased or retrying."""

    id: str
    job_id: str
    due_ms: int
    send_ms: int
    schedule_version: str
    batch: str
    lane: int
    state: State = State.PENDING
    attempts: tuple[Attempt, ...] = ()
    trigger: bool = False
    """Requested by hand: it runs although the job is paused, and whatever its schedule is."""
    owner: str | None = None
    token: int = 0
    replayed_ms: int | None = None
    """When its replay was requested, after it had failed. Its age and its drift count from then."""
    host: str = ""
    """The target's host and port when it was materialised. Empty if unknown."""
    limit_key: str | None = None
    request_id: str | None = None
    """Of a run by hand: the request that asked for it. Another request of the same millisecond has another one."""
    waits: bool = False
    """Of a run by hand under `overlap: skip`: it waits for the end of the run before it instead of being skipped."""
    message: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """Of a message: its request, as it is stored. None: its job says what is sent."""
    cancelled: bool = False
    """A message that a cancellation has taken. Whoever claims it records that, and does not send it."""

    @property
    def is_of_first_claim(self) -> bool:
        """Whether the first claim of its batch owns it as it was written, under `FIRST_TOKEN`, without a stamp."""
        return self.owner == FIRST_CLAIM

    def leased_by(self, owner: str) -> Execution:
        """As it is read once it was stamped."""
        return changed(self, state=State.LEASED, owner=owner)


@value(frozen=True, slots=True)
class Batch:
    """The unit of leasing. Only `batching.make_batch` makes one from executions.

    `token` grows with every claim and every move. `claims` counts the claims of this batch.
    """

    id: str
    ids: tuple[str, ...]
    lane: int
    attempt: int
    send_ms: int
    claimable_ms: int
    late: bool = False
    owner: str | None = None
    token: int = 0
    claims: int = 0
    host: str = ""
    """The host of all its executions. Empty if there are several."""
    limit_key: str | None = None
    """The limit of all its executions. None if there is none, or several."""
    unclaimed: bool | None = None
    """Whether it stood unclaimed, so that `catchUp` binds it. False: it was held back or judged. None: not known yet."""
    deferred: bool = False
    """Released because it may not be sent now. Until it is claimed again, it does not count as live late work, so that the
    backlog of one slow host does not stop the catch-up of other jobs.
    """


@dataclass(frozen=True, slots=True)
class Term:
    """The right to lead. Functions that only a leader may call take one. `trusted_until` is on the holder's monotonic
    clock (seconds).
    """

    number: int
    holder: str
    trusted_until: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a target said, without the secrets of the request: headers, and the beginning of the body. `size` is greater than
    that if there is more of it.
    """

    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    size: int = 0


@value(frozen=True, slots=True)
class Ending:
    """The final result of an execution, as history records it. `drift_ms` is how late its first attempt was sent; None
    if there was none.
    """

    execution: Execution
    state: State
    ended_ms: int
    attempts: tuple[Attempt, ...] = ()
    reason: str | None = None
    drift_ms: int | None = None
    retention_days: float | None = None
    """How long it is kept. None: as long as the operator's setting says."""
    alert_pending: bool = False
    """Whether the alert rules of its job need it."""
    followed: bool = False
    """Whether something may be owed after it: a callback, or runs of jobs that are chained to its own."""
    tells: bool = False
    """Whether a callback is owed."""
    answer: Answer | None = field(default=None, repr=False)
    """What the target said at the end, for a callback to tell."""


@value(frozen=True, slots=True)
class Rescheduled:
    """An execution that moves to another batch, with its attempts so far and its next send time."""

    execution: Execution
    attempts: tuple[Attempt, ...]
    send_ms: int
