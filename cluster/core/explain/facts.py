"""What is known of an occurrence, its job's host and the cluster when somebody asks why it did or did not run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.core.instants import format_instant

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.core.limits.permits import Limits


@dataclass(frozen=True, slots=True)
class LeaderFacts:
    """The leader as the lease document names it. Instants in ms."""

    node: str | None = None
    renewed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """The batch that an owed execution names. Instants in ms."""

    id: str
    owner: str | None
    token: int
    claims: int
    claimable_ms: int
    late: bool
    waits: bool = False
    """Its execution waits for the end of another run of the job instead of being skipped."""


@dataclass(frozen=True, slots=True)
class BreakerFacts:
    """The circuit breaker of the job's host, if it is not closed. Instants in ms."""

    host: str
    opened_ms: int
    until_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The state of the cluster now."""

    now_ms: int
    leader: LeaderFacts = field(default_factory=LeaderFacts)
    nodes: frozenset[str] = frozenset()
    """The nodes with a recent heartbeat."""
    retention_days: float = 7.0
    breaker: BreakerFacts | None = None


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """A maintenance window that holds an execution, and when it began and ends (ms)."""

    name: str
    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """The limits that an execution counts against. `running`: other executions that have a permit, which only counts for
    `concurrent`. `next_ms`: the next instant that is free under the rate.
    """

    whose: str
    limits: Limits
    running: int
    next_ms: float

    def is_used_up(self, now_ms: int) -> bool:
        """Whether one more execution has to wait now."""
        return self._is_full or self._is_too_fast(now_ms)

    @property
    def _is_full(self) -> bool:
        return self.limits.concurrent is not None and self.running >= self.limits.concurrent

    def _is_too_fast(self, now_ms: int) -> bool:
        return self.limits.per_second is not None and self.next_ms > now_ms

    def in_words(self) -> str:
        """What it allows."""
        parts = []
        if self.limits.per_second is not None:
            parts.append(f"{self.limits.per_second:g} requests per second")
        if self.limits.concurrent is not None:
            parts.append(f"{self.limits.concurrent} at the same time")
        return ", ".join(parts)

    def in_use(self, now_ms: int) -> str:
        """Why one more has to wait."""
        if self._is_full:
            return f"{self.running} run"
        return f"the next one may leave at {format_instant(max(now_ms, int(self.next_ms)))}"


@dataclass(frozen=True, slots=True)
class OccurrenceFacts:
    """One occurrence, and what the database holds about it."""

    due_ms: int
    execution: ExecutionView | None = None
    """Its execution, or a range of missed occurrences that covers it."""
    batch: BatchFacts | None = None
    window: WindowFacts | None = None
    """The window that holds it now, or held it before its first request."""
    limit: LimitFacts | None = None
    """The limits that it counts against."""
    overlapping: ExecutionView | None = None
    """The execution that was not finished when this one was skipped."""
    awaited: str | None = None
    """The execution of its job for whose end this one waits."""
    caught_up_to_ms: int | None = None
    """Catch-up of a range with this occurrence is in progress and has reached this instant."""
    written_to_ms: int | None = None
    """The occurrences of its schedule are materialised up to this instant. None: the schedule has no row."""
    unsettled: bool = False
    """The leader has not settled the job's last change yet."""
