"""Which executions are under a live lease: `executions` name batch and token, `batches` tell whether that lease lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster.store.mongo.client import Database


async def leased_ids(db: Database, ids: Collection[str]) -> set[str]:
    """Those of these executions that a node holds a live lease for. No node is sending the others.

    Their own state does not say it: those of a first claim are not written when they are claimed.
    """
    with operation():
        claimed = await db.work["executions"].find({"_id": {"$in": list(ids)}}, {"batch": 1, "token": 1}).to_list()
        leased = {
            (d["_id"], d["token"])
            for d in await db.work["batches"]
            .find(
                {
                    "_id": {"$in": list({d["batch"] for d in claimed})},
                    "owner": {"$ne": None},
                    "$expr": {"$gt": ["$claimable_at", "$$NOW"]},
                },
                {"token": 1},
            )
            .to_list()
        }
    return {d["_id"] for d in claimed if (d["batch"], d["token"]) in leased}
