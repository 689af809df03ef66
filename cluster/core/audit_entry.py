"""An entry of the audit log as a value."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.core.actor import Actor, current_actor

KINDS = (
    "action",
    "backfill",
    "batch",
    "breaker",
    "calendar",
    "channel",
    "import",
    "job",
    "key",
    "message",
    "node",
    "queue",
    "replay",
    "rules",
    "window",
)
"""The kinds of objects that entries are about: an object is `KIND:NAME`."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which object, and when (cluster time, ms).

    `changes` are as `differences` makes them. `counts`: of an import or an action. `detail`: what else there is to say,
    such as the id of an execution.
    """

    id: str
    at_ms: int
    object: str
    action: str
    by: Actor
    changes: tuple[dict[str, Any], ...] = ()
    revision: int | None = None
    counts: dict[str, Any] | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def entry_id(at_ms: int, name: str | None = None) -> str:
    """Entries are sorted by their ids: by time. `name`: what makes the entry the same whenever it is made again."""
    return f"{at_ms:013d}-{name or uuid.uuid4().hex}"


def new_entry(object_: str, action: str, at_ms: int, name: str | None = None) -> AuditEntry:
    """An entry about what the current actor does."""
    return AuditEntry(entry_id(at_ms, name), at_ms, object_, action, current_actor())


def with_counts(entry: AuditEntry, **counts: Any) -> AuditEntry:
    """The entry of an import or an action with its counts so far."""
    return replace(entry, counts=counts)
