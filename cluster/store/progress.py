"""What the requests have in common that the leader works on page by page: `actions`, `requested_backfills`, `replays`.

Their progress is one document each. It is saved by compare-and-set on `rev`, so that of two leaders one goes on, and a
request that was stopped meanwhile stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

RETENTION_MS = 7 * 86_400_000
"""So long a request can be read after its end."""
RUNNING, DONE, STOPPED = "running", "done", "stopped"
IS_RUNNING: Document = {"state": RUNNING}
PAGE_BEGUN: Document = {"$gt": ["$page_at", DatetimeMS(0)]}


async def next_due(
    db: Database, collection: str, running: Document = IS_RUNNING, begun: Document = PAGE_BEGUN
) -> Document | None:
    """The request that the leader works on next: one whose page was begun, else the one that is due first, so that a slow
    request does not delay the others. None: all have ended. `running` and `begun`: how both are seen.
    """
    pipeline: list[Document] = [
        {"$match": running},
        {"$set": {"begun": begun}},
        {"$sort": {"begun": -1, "next_at": 1, "created_at": 1}},
        {"$limit": 1},
    ]
    with operation():
        documents = await (await db.work[collection].aggregate(pipeline)).to_list()
    return documents[0] if documents else None


async def save(
    db: Database, collection: str, name: str, rev: int, progress: Document, unset: Document | None = None
) -> bool:
    """Store the progress of a request as it was read at `rev`. False if it was stopped, or another leader was faster."""
    update = {"$set": progress, **({"$unset": unset} if unset else {})}
    with operation():
        result = await db.work[collection].update_one({"_id": name, "rev": rev}, update)
    return result.matched_count > 0


async def stop(db: Database, collection: str, name: str, now_ms: int, unset: Document | None = None) -> None:
    """Stop a request if it is running."""
    end = {"ended_at": DatetimeMS(now_ms), "expire_at": DatetimeMS(now_ms + RETENTION_MS)}
    update = {"$set": {"state": STOPPED, **end}, "$inc": {"rev": 1}, **({"$unset": unset} if unset else {})}
    with operation():
        await db.api[collection].update_one({"_id": name, **IS_RUNNING}, update)
