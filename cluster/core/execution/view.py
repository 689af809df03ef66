"""An execution as users see it, owed or final."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.core.execution.model import Attempt

OWED_STATES = frozenset({"pending", "running", "retrying"})
FINAL_STATES = frozenset({"succeeded", "failed", "dead", "cancelled", "skipped", "missed"})
STATES = OWED_STATES | FINAL_STATES


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """One execution, or one range of `count` missed occurrences from `due_ms` to `last_ms`."""

    id: str
    job_id: str
    state: str
    due_ms: int
    send_ms: int
    attempts: tuple[Attempt, ...]
    trigger: bool
    schedule_version: str
    reason: str | None = None
    drift_ms: int | None = None
    ended_ms: int | None = None
    last_ms: int | None = None
    count: int = 1
    attempts_left_out: int = 0
    """How many attempts between the first and the last ones are not stored."""
    node: str | None = None
    """The node that holds it now, if it is owed."""
    request_id: str | None = None
    """The request, action or backfill that asked for it."""
    asked_ms: int | None = None
    """When it was last asked for by a replay or a backfill."""
