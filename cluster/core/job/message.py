"""A message as a value: one request, sent once. What it has of a job is the definition of the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.core.errors import Fault
    from cluster.core.job.definition import Definition

MOST_AHEAD_MS = 365 * 86_400_000
"""A message is due at most so far ahead."""
DEDUP_MS = 86_400_000
"""For so long after it was accepted a message with the same `dedupId` is the same message."""
DEDUP_RETENTION_DAYS = 25 / 24
"""History keeps a message with a `dedupId` for longer than that counts, so that a repeated request finds it there."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A checked message. `definition` has the request, with its secrets; nothing of it is about a schedule.

    Instants are ms. `size`: about how many bytes it takes.
    """

    definition: Definition
    due_ms: int
    created_ms: int
    expires_ms: int | None = None
    dedup_id: str | None = None
    digest: str = ""
    """Of the request that it was read from. Only with a `dedup_id`."""
    size: int = 0
    passed: tuple[Fault, ...] = ()
    """Why it would be refused now, although it may have been accepted when it was asked for first: its times have passed."""
    execution_id: str | None = None
    """The id that an earlier try of this request chose. None: a new one."""
