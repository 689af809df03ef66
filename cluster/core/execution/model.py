"""The values that flow through a node: job -> execution -> batch -> attempt -> outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.core.lifecycle import JobState, State
from cluster.core.limits.permits import UNLIMITED, Limits

if TYPE_CHECKING:
    from cluster.core.alerts import ResultWatch


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is repeated: `initial * multiplier^(n-1)`, at most `max_delay`, give or take `jitter`."""

    max_attempts: int = 5
    initial_delay_seconds: float = 1.0
    multiplier: float = 2.0
    max_delay_seconds: float = 300.0
    jitter: float = 0.2
    max_age_seconds: float | None = None
    """No attempt begins later than this after the execution was to be sent. None: attempts alone are counted."""


@dataclass(frozen=True, slots=True)
class Target:
    """The request a job makes. `body` is sent as it is; `content_type` is None when a header or nothing says it."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = b""
    content_type: str | None = None
    timeout_seconds: float = 30.0
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What must not show in anything that is kept of the answer."""
    templated: bool = False
    """Whether the body or a header holds names to be filled in for each attempt."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the engine needs of a job, as it is now."""

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
    """Host and port of the target: what slots and breakers go by."""
    limit_key: str | None = None
    """Whose limits it passes: its queue's (`q:name`), its own (`j:id`), none (None)."""
    limits: Limits = UNLIMITED
    """Its own."""
    watch: ResultWatch | None = None
    """Which of its results alerts are decided on; None: those that the rules of all jobs say."""
    channel: str | None = None
    """The channel it carries an alert to, if it does."""


@dataclass(frozen=True, slots=True)
class JobSchedule:
    """A job as the materialiser sees it: what it owes and from when."""

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
    """The id of the change that is not settled yet."""
    past_schedules: tuple[tuple[JobSchedule, int], ...] = ()
    """What it owed before its latest changes, the oldest first, each with the instant (ms) until which it did."""
    retention_days: float | None = None
    host: str = ""
    limit_key: str | None = None

    def owes(self, due_ms: int) -> bool:
        """Whether an occurrence of its schedule at this instant is the job's to run."""
        return (
            due_ms >= self.active_from_ms
            and (self.start_ms is None or due_ms >= self.start_ms)
            and (self.end_ms is None or due_ms <= self.end_ms)
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST. `status` is None when no response came; `error` is None when one did."""

    number: int
    sent_ms: int
    node: str
    token: int
    duration_ms: float
    status: int | None = None
    error: str | None = None
    detail: str | None = None
    excerpt: str | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """An occurrence that is owed: pending, leased or retrying."""

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
    """Asked for by hand: runs although the job is paused, whatever its schedule says."""
    owner: str | None = None
    token: int = 0
    replayed_ms: int | None = None
    """When somebody asked to send it again after it had failed; its age and drift count from then."""
    host: str = ""
    """The target's host and port when it was written down; empty if that is not known."""
    limit_key: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The unit of leasing. `token` grows with every claim and every move; `claims` counts claims of this batch."""

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
    """The one host that all of it goes to; empty if there are several."""
    limit_key: str | None = None
    """The one limit that all of it passes."""
    deferred: bool = False
    """Put back because it may not be sent now; until it is claimed again it takes nobody's place."""


@dataclass(frozen=True, slots=True)
class Term:
    """The right to lead. Leader-only functions take one; `trusted_until` is on the holder's monotonic clock."""

    number: int
    holder: str
    trusted_until: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How an execution ended, ready for history. `drift_ms` is how late its first attempt left, None if none did."""

    execution: Execution
    state: State
    ended_ms: int
    attempts: tuple[Attempt, ...] = ()
    reason: str | None = None
    drift_ms: int | None = None
    retention_days: float | None = None
    """How long it is kept; None: as long as all others."""
    alert_pending: bool = False
    """Whether alerts are to be decided on it."""


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """An execution that is to be sent at another time, under another batch."""

    execution: Execution
    attempts: tuple[Attempt, ...]
    send_ms: int
