"""`batches` in which executions of paused jobs wait: woken when their jobs are resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.timings import PREFETCH_MS
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document

WAKE_AFTER_MS, WAKE_SPREAD_MS = 2000, 3000
"""When a window has changed, every node knows it after so long; what it held is woken in the time after that."""
JOBS = 100
"""Jobs in one query."""


async def wake_held(db: Database) -> int:
    """A window was changed or deleted: look at everything soon that waits in the database. Returns how many batches.

    What waits for another reason is released again, nothing more.
    """
    at = {"$add": ["$$NOW", WAKE_AFTER_MS, {"$toLong": {"$multiply": [{"$rand": {}}, WAKE_SPREAD_MS]}}]}
    query: Document = {
        "late": {"$in": [False, True]},
        "owner": None,
        "held": True,
        "$expr": {
            "$and": [
                {"$gt": ["$claimable_at", {"$add": ["$$NOW", WAKE_AFTER_MS + WAKE_SPREAD_MS]}]},
                {"$lte": ["$send_at", "$$NOW"]},
            ]
        },
    }
    with operation():
        return (await db.work["batches"].update_many(query, [{"$set": {"claimable_at": at}}])).modified_count


async def wake(db: Database, job_ids: Sequence[str]) -> int:
    """Make the released batches of these jobs claimable now, if their send time has come. Returns how many.

    It changes only when they are claimed. So a batch that waits for another reason is released again, nothing more.
    """
    woken = 0
    for start in range(0, len(job_ids), JOBS):
        ids = [{"_id": {"$gte": f"{job}:", "$lt": f"{job};"}} for job in job_ids[start : start + JOBS]]
        with operation():
            names = await db.work["executions"].distinct("batch", {"$or": ids})
            result = await db.work["batches"].update_many(
                {
                    "_id": {"$in": names},
                    "owner": None,
                    "held": True,
                    "$expr": {
                        "$and": [
                            {"$gt": ["$claimable_at", "$$NOW"]},
                            {"$lte": ["$send_at", {"$add": ["$$NOW", PREFETCH_MS]}]},
                        ]
                    },
                },
                [{"$set": {"claimable_at": "$$NOW", "held": "$$REMOVE"}}],
            )
        woken += result.modified_count
    return woken
