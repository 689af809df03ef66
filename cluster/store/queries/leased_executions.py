"""Which executions a node may be sending: `executions` name batch and token, `batches` tell whether that lease lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster.core.execution.model import Execution
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


async def may_be_sent(db: Database, execution: Execution) -> bool:
    """Whether a node may be sending this execution without attempts, or may have sent it before it was lost.

    A release by a living node takes its claim back, so a batch without an owner that counts no claims has sent nothing.
    """
    with operation():
        d = await db.work["batches"].find_one({"_id": execution.batch}, {"owner": 1, "claims": 1})
    if d is None:
        return execution.token > 0
    return d["owner"] is not None or d["claims"] > 0
