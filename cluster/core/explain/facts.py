"""What is known of an occurrence, its job's host and the cluster when somebody asks why it did or did not run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView


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
class OccurrenceFacts:
    """One occurrence, and what the database holds about it."""

    due_ms: int
    execution: ExecutionView | None = None
    """Its execution, or a range of missed occurrences that covers it."""
    batch: BatchFacts | None = None
    window: WindowFacts | None = None
    """The window that holds it now, or held it before its first request."""
    overlapping: ExecutionView | None = None
    """The execution that was not finished when this one was skipped."""
    awaited: str | None = None
    """The execution of its job for whose end this one waits."""
    limit: str | None = None
    """The limits that it is sent under, in words."""
    caught_up_to_ms: int | None = None
    """Catch-up of a range with this occurrence is in progress and has reached this instant."""
    written_to_ms: int | None = None
    """The occurrences of its schedule are materialised up to this instant. None: the schedule has no row."""
    unsettled: bool = False
    """The leader has not settled the job's last change yet."""
