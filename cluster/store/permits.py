"""`permits`: what was given out under each limit. Compare-and-set on `rev`; jobs without limits never come here.

`held` names executions, `marks` their permits as `execution#mark`. Nodes of the release before know `held` alone: a name
without a mark is theirs, a mark without its name is void. So both releases count the same, whoever wrote last.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pymongo.errors import DuplicateKeyError

from cluster.core.lifecycle import State
from cluster.core.limits.permits import Permits
from cluster.store.mongo.operation import translated

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cluster.core.limits.permits import Permit
    from cluster.store.mongo.client import Database, Document

BETWEEN = "#"
"""Between execution and mark; neither has one in it."""


async def read(db: Database, gate: str) -> Permits:
    """What is given out under this limit."""
    with translated():
        d = await db.work["permits"].find_one({"_id": gate})
    if d is None:
        return Permits()
    marks = dict(m.split(BETWEEN) for m in d.get("marks", ()))
    return Permits(d["next_ms"], {i: marks.get(i, "") for i in d["held"]}, d["rev"])


async def write(db: Database, gate: str, seen: Permits, then: Permits) -> bool:
    """Compare-and-set. False if somebody else was faster."""
    marks = sorted(_marked(i, mark) for i, mark in then.held.items() if mark)
    fields = {"next_ms": then.next_ms, "held": sorted(then.held), "marks": marks, "rev": seen.rev + 1}
    with translated():
        if seen.rev == 0:
            try:
                await db.work["permits"].insert_one({"_id": gate, **fields})
            except DuplicateKeyError:
                return False
            return True
        result = await db.work["permits"].update_one({"_id": gate, "rev": seen.rev}, {"$set": fields})
    return result.matched_count > 0


async def give_back(db: Database, back: Iterable[Permit]) -> None:
    """Nobody runs under these permits any more. Safe to repeat, and at any time: what is void by now stays void."""
    marks: defaultdict[str, list[str]] = defaultdict(list)
    for p in back:
        if p.mark is not None:
            marks[p.gate].append(_marked(p.execution, p.mark))
    with translated():
        for gate, mine in marks.items():
            names = {"$arrayElemAt": [{"$split": ["$$this", BETWEEN]}, 0]}
            theirs = {"$map": {"input": {"$setIntersection": ["$marks", mine]}, "in": names}}
            change: Document = {
                "held": {"$setDifference": ["$held", theirs]},
                "marks": {"$setDifference": ["$marks", mine]},
                "rev": {"$add": ["$rev", 1]},
            }
            await db.work["permits"].update_one({"_id": gate, "marks": {"$in": mine}}, [{"$set": change}])


def _marked(execution: str, mark: str) -> str:
    return f"{execution}{BETWEEN}{mark}"


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
