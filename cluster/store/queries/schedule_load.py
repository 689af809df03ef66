"""How many active jobs share a schedule, for `horae herd`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.schedule.forecast import JobGroup
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document


async def jobs_by_schedule(db: Database) -> list[JobGroup]:
    """Active jobs by schedule and spread."""
    pipeline: list[Document] = [
        {"$match": {"state": "active"}},
        {"$group": {"_id": {"key": "$schedule_key", "spread": "$spread_seconds"}, "jobs": {"$sum": 1}}},
    ]
    with operation():
        rows = await (await db.api["jobs"].aggregate(pipeline)).to_list()
    return [JobGroup(r["_id"]["key"], int(r["_id"].get("spread") or 0), r["jobs"]) for r in rows]
