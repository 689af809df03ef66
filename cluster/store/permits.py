"""`permits`: what was given out under each limit. Compare-and-set on `rev`; jobs without limits never come here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymongo.errors import DuplicateKeyError

from cluster.core.lifecycle import State
from cluster.core.permits import Permits
from cluster.store.door import translated

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cluster.store.client import Database


async def read(db: Database, gate: str) -> Permits:
    """What is given out under this limit."""
    with translated():
        d = await db.work["permits"].find_one({"_id": gate})
    return Permits() if d is None else Permits(d["next_ms"], frozenset(d["held"]), d["rev"])


async def write(db: Database, gate: str, seen: Permits, then: Permits) -> bool:
    """Compare-and-set. False if somebody else was faster."""
    fields = {"next_ms": then.next_ms, "held": sorted(then.held), "rev": seen.rev + 1}
    with translated():
        if seen.rev == 0:
            try:
                await db.work["permits"].insert_one({"_id": gate, **fields})
            except DuplicateKeyError:
                return False
            return True
        result = await db.work["permits"].update_one({"_id": gate, "rev": seen.rev}, {"$set": fields})
    return result.matched_count > 0


async def give_back(db: Database, held: Mapping[str, Collection[str]]) -> None:
    """These executions run no more: `{gate: ids}`. Safe to repeat."""
    with translated():
        for gate, ids in held.items():
            await db.work["permits"].update_one(
                {"_id": gate, "held": {"$in": list(ids)}}, {"$pull": {"held": {"$in": list(ids)}}, "$inc": {"rev": 1}}
            )


async def live(db: Database, ids: Collection[str]) -> set[str]:
    """Those of these executions that a node holds a lease for now. What no node holds, no node is sending."""
    with translated():
        found = (
            await db.work["executions"]
            .find({"_id": {"$in": list(ids)}, "state": State.LEASED.value}, {"batch": 1, "token": 1})
            .to_list()
        )
        leased = {
            (d["_id"], d["token"])
            for d in await db.work["batches"]
            .find(
                {
                    "_id": {"$in": list({d["batch"] for d in found})},
                    "owner": {"$ne": None},
                    "$expr": {"$gt": ["$claimable_at", "$$NOW"]},
                },
                {"token": 1},
            )
            .to_list()
        }
    return {d["_id"] for d in found if (d["batch"], d["token"]) in leased}


async def running(db: Database, gates: Collection[str]) -> dict[str, int]:
    """For operators: how many executions run under each of these limits."""
    with translated():
        found = await db.api["permits"].find({"_id": {"$in": list(gates)}}).to_list()
    return {d["_id"]: len(d["held"]) for d in found}


async def forget(db: Database, gate: str) -> None:
    """Nothing is limited here any more."""
    with translated():
        await db.api["permits"].delete_one({"_id": gate})
