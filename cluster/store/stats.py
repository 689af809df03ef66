"""`stats`: counts per minute of all nodes, added up with `$inc`. The last seconds of a node that dies are not counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.store.mongo.client import Database

MINUTE_MS = 60_000
RETENTION_MS = 30 * 86_400_000


async def add(db: Database, now_ms: int, counts: Mapping[str, int], histograms: Mapping[str, Sequence[int]]) -> None:
    """Add counts (`succeeded`, `retried`, ...) and bucket counts to the minute of `now_ms`."""
    minute = now_ms - now_ms % MINUTE_MS
    increments = {name: n for name, n in counts.items() if n}
    for name, buckets in histograms.items():
        increments |= {f"{name}.{i}": n for i, n in enumerate(buckets) if n}
    if not increments:
        return
    with operation():
        await db.work["stats"].update_one(
            {"_id": DatetimeMS(minute)},
            {"$inc": increments, "$setOnInsert": {"expire_at": DatetimeMS(minute + RETENTION_MS)}},
            upsert=True,
        )
