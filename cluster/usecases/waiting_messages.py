"""`horae verify` for messages that wait: none of them may be due. What became of the others is in history."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster.core.instants import format_instant
from cluster.core.verify.findings import Finding
from cluster.store.queries import verify_records

if TYPE_CHECKING:
    from cluster.core.verify.subjects import Bounds
    from cluster.store.mongo.client import Database


async def overdue(db: Database, bounds: Bounds, message: str | None, recheck_seconds: float) -> list[Finding]:
    """Messages (or this one) that should have been executions long ago. Only those of two readings count, as everywhere."""
    before_ms = bounds.now_ms - bounds.late_ms
    first = await verify_records.overdue_messages(db, bounds.since_ms, before_ms, message)
    if not first:
        return []
    await asyncio.sleep(recheck_seconds)
    again = await verify_records.overdue_messages(db, bounds.since_ms, before_ms, message)
    return [
        Finding(
            "late",
            name.partition(":")[0],
            name,
            f"a message that still waits, due at {format_instant(first[name])}: the leader has not moved it",
        )
        for name in sorted(first.keys() & again.keys())
    ]
