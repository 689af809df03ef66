"""What one node holds: leased batches, what of them waits to be sent, and what came of it. Values that the steps pass on.

A `Held` changes while its executions wait, are sent and are recorded; whoever checks it and acts on what he saw does both
without an await between. Nothing here reads a clock or the database.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.core.alerts import ResultWatch
from cluster.core.lifecycle import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cluster.core.execution.model import Attempt, Batch, Execution, Job
    from cluster.core.limits.permits import Permit
    from cluster.outbound.sender import Reply

WATCH_FAILURES = ResultWatch(failures=True)
"""What failed before its job could be read is marked for alerts; whoever decides on them reads the job again."""


@dataclass(eq=False, slots=True)
class HeldBatch:
    """A batch this node holds: what is still open of it. `valid_until` is monotonic seconds, moved by renewals."""

    batch: Batch
    valid_until: float
    waiting: dict[str, Execution] = field(default_factory=dict)
    sending: set[str] = field(default_factory=set)
    unrecorded: int = 0
    lost: bool = False
    claimed_ms: int = 0
    """When it was claimed, in cluster time."""

    @property
    def done(self) -> bool:
        """Whether nothing of it is open."""
        return not self.waiting and not self.sending and not self.unrecorded


class HeldBatches(dict[str, HeldBatch]):
    """The batches that one node holds, by id."""

    def forget(self, held: HeldBatch) -> None:
        """It is not held any more. One that was claimed again meanwhile under the same id stays."""
        if self.get(held.batch.id) is held:
            del self[held.batch.id]


class SuspectSlot:
    """The one execution on this node, at most, that nodes were lost with before: if this one is lost, it is to blame."""

    def __init__(self) -> None:
        self._held: HeldBatch | None = None
        self._asking = False

    @contextmanager
    def claiming(self) -> Iterator[bool]:
        """Whether what is claimed meanwhile may be one: not while one is held, nor while another claim may bring one."""
        may = not self._asking and (self._held is None or self._held.done)
        self._asking |= may
        try:
            yield may
        finally:
            self._asking &= not may

    def hold(self, held: HeldBatch) -> None:
        """It is held from now on, until nothing of it is open."""
        self._held = held


@dataclass(slots=True)
class ReadyExecution:
    """An execution whose request is made: it waits for its send time, a slot, its host or its limit."""

    held: HeldBatch
    execution: Execution
    job: Job
    request: Any
    read_at: float
    """When its job was read; this and `parked_at` are monotonic seconds."""
    waiting_since: float = 0.0
    permit: Permit | None = None
    """None: not asked for yet, or in vain."""

    @property
    def unsent(self) -> bool:
        """Whether it still waits here, under a lease that is not known to be lost."""
        return self.execution.id in self.held.waiting and not self.held.lost


@dataclass(frozen=True, slots=True)
class Deferral:
    """Executions of one batch that may not be sent now; `until_ms` if it is known until when."""

    held: HeldBatch
    executions: tuple[Execution, ...]
    until_ms: int | None
    host: str | None = None
    """The host they wait for; None: they wait for their limit."""


def deferrals_by_batch(
    waiting: Iterable[ReadyExecution], since: float, until_ms: int | None, host: str | None = None
) -> list[Deferral]:
    """What of this has waited since that instant (monotonic seconds) or longer, batch by batch."""
    groups: dict[HeldBatch, list[Execution]] = {}
    for r in waiting:
        if r.unsent and r.waiting_since <= since:
            groups.setdefault(r.held, []).append(r.execution)
    return [Deferral(held, tuple(members), until_ms, host) for held, members in groups.items()]


@dataclass(frozen=True, slots=True)
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
    """An execution that must not be sent: the reason, and the event that this is in its life."""

    held: HeldBatch
    execution: Execution
    reason: str
    event: Event = Event.CANCEL
    retention_days: float | None = None
    watch: ResultWatch | None = WATCH_FAILURES
