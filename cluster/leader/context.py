"""The values that the steps of one leader share: made once, before the steps, and never changed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.core.documents.job_json import DocumentLimits
from cluster.core.execution.crowds import Crowds
from cluster.core.execution.trace import materialise_spans
from cluster.leader.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.clock import Clock
    from cluster.core.execution.model import Execution, Term
    from cluster.core.execution.trace import SpanCollector
    from cluster.core.timings import Timings
    from cluster.store.mongo.client import Database


def new_batch_id() -> str:
    """A name that no other writer ever chooses."""
    return uuid.uuid4().hex


class MaterialiseTracer:
    """Makes the spans of the executions that a step wrote, if a collector wants them."""

    def __init__(self, collector: SpanCollector | None, clock: Clock) -> None:
        self._collector = collector
        self._clock = clock
        self._began_ms = 0

    def begin_step(self) -> None:
        """The leader's step begins: from now on the spans begin here."""
        self._began_ms = self._clock.now_ms()

    def written(self, executions: Sequence[Execution]) -> None:
        """These executions are in the database."""
        if self._collector is not None:
            spans = materialise_spans(executions, self._collector, self._began_ms, self._clock.now_ms())
            self._collector.take(spans)


@dataclass(frozen=True, slots=True)
class LeaderContext:
    """The database, the time and the right to lead."""

    db: Database
    clock: Clock
    timings: Timings
    trusted_term: Callable[[], Term]
    """The term held now; raises `TermLost`. A step asks before each write."""
    tracer: MaterialiseTracer
    retention_days: float = 7.0
    """How long history is kept, unless a job says otherwise."""
    audit_retention_days: float = 365.0
    """How long entries of the audit log are kept."""
    document_limits: DocumentLimits = field(default_factory=DocumentLimits)
    """What the operator allows in jobs that an action patches."""
    completed_retention_days: float = 30.0
    """How long completed jobs are kept, unless a job says otherwise."""
    new_batch_id: Callable[[], str] = new_batch_id
    crowds: Crowds = field(default_factory=Crowds)
    job_quarantine: Quarantine = field(default_factory=lambda: Quarantine("job"))
    """Jobs that cannot be settled. Settling fills it; the other steps do not wait for these jobs."""
