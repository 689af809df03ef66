"""`leases`: the document of the leader's lease. Every write is a compare-and-set; none compares clocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymongo.read_concern import ReadConcern

from cluster.core.election import LeaderLease
from cluster.core.errors import InvariantBroken
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

LEADER = "leader"


def _lease(document: Document | None) -> LeaderLease:
    if document is None:
        raise InvariantBroken("the document of the leader's lease was deleted; a node creates it again when it starts")
    return LeaderLease(document["holder"], document["term"], document["rev"])


async def read(db: Database) -> LeaderLease:
    """The lease as a majority has it."""
    with operation():
        return _lease(await db.control["leases"].find_one({"_id": LEADER}))


async def read_linearizable(db: Database) -> LeaderLease:
    """The lease after every write that can still take effect: it settles an unknown outcome."""
    with operation():
        leases = db.control.get_collection("leases", read_concern=ReadConcern("linearizable"))
        return _lease(await leases.find_one({"_id": LEADER}))


async def take_over(db: Database, seen: LeaderLease, holder: str, node: str) -> bool:
    """Become the holder of the next term if the lease is unchanged since `seen`. False if it is not."""
    with operation():
        result = await db.control["leases"].update_one(
            {"_id": LEADER, "term": seen.term, "rev": seen.rev},
            [
                {
                    "$set": {
                        "holder": {"$literal": holder},
                        "node": {"$literal": node},
                        "term": seen.term + 1,
                        "rev": seen.rev + 1,
                        "at": "$$NOW",
                        "since": "$$NOW",
                    }
                }
            ],
        )
    return result.matched_count > 0


async def renew(db: Database, holder: str, term: int) -> bool:
    """Renew the lease of this holder and term. False if the lease was lost."""
    with operation():
        result = await db.control["leases"].update_one(
            {"_id": LEADER, "holder": holder, "term": term},
            [{"$set": {"rev": {"$add": ["$rev", 1]}, "at": "$$NOW"}}],
        )
    return result.matched_count > 0


async def resign(db: Database, holder: str, term: int) -> bool:
    """Release the lease, so that any node takes over at its next poll. False if the lease was lost before."""
    with operation():
        result = await db.control["leases"].update_one(
            {"_id": LEADER, "holder": holder, "term": term}, {"$set": {"holder": None}, "$inc": {"rev": 1}}
        )
    return result.matched_count > 0


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads, in which term, since when, and when the lease was last renewed (ms)."""

    holder: str | None
    node: str | None
    term: int
    since_ms: int | None
    renewed_ms: int | None


async def leadership(db: Database) -> Leadership:
    """The lease as operators see it."""
    with operation():
        d = await db.api["leases"].find_one({"_id": LEADER})
    if d is None:
        return Leadership(None, None, 0, None, None)
    return Leadership(d["holder"], d["node"] if d["holder"] else None, d["term"], instant(d["since"]), instant(d["at"]))
