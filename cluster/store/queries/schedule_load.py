"""How many active jobs share a schedule, for `horae herd`. One aggregation; nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.schedule.forecast import Herd
from cluster.store.mongo.operation import translated

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document


async def active(db: Database) -> list[Herd]:
    """Active jobs by schedule and spread."""
    pipeline: list[Document] = [
        {"$match": {"state": "active"}},
        {"$group": {"_id": {"key": "$schedule_key", "spread": "$spread_seconds"}, "jobs": {"$sum": 1}}},
    ]
    with translated():
        rows = await (await db.api["jobs"].aggregate(pipeline)).to_list()
    return [Herd(r["_id"]["key"], int(r["_id"].get("spread") or 0), r["jobs"]) for r in rows]
