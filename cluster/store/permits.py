"""`permits`: what was given out under each limit. Compare-and-set on `rev`; jobs without limits never come here.

`held` names executions, `marks` their permits as `execution#mark`. Nodes of the release before know `held` alone: a name
without a mark is theirs, a mark without its name is void. So both releases count the same, whoever wrote last.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pymongo.errors import DuplicateKeyError

from cluster.core.limits.permits import Permits
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cluster.core.limits.permits import Permit
    from cluster.store.mongo.client import Database, Document

SEPARATOR = "#"
"""Between execution and mark; neither has one in it."""


async def read(db: Database, limit_key: str) -> Permits:
    """What is given out under this limit."""
    with operation():
        d = await db.work["permits"].find_one({"_id": limit_key})
    if d is None:
        return Permits()
    marks = dict(m.split(SEPARATOR) for m in d.get("marks", ()))
    return Permits(d["next_ms"], {i: marks.get(i, "") for i in d["held"]}, d["rev"])


async def write(db: Database, limit_key: str, seen: Permits, then: Permits) -> bool:
    """Compare-and-set. False if somebody else was faster."""
    marks = sorted(_marked(i, mark) for i, mark in then.granted.items() if mark)
    fields = {"next_ms": then.next_ms, "held": sorted(then.granted), "marks": marks, "rev": seen.rev + 1}
    with operation():
        if seen.rev == 0:
            try:
                await db.work["permits"].insert_one({"_id": limit_key, **fields})
            except DuplicateKeyError:
                return False
            return True
        result = await db.work["permits"].update_one({"_id": limit_key, "rev": seen.rev}, {"$set": fields})
    return result.matched_count > 0


async def release(db: Database, permits: Iterable[Permit]) -> None:
    """Nobody runs under these permits any more. Safe to repeat, and at any time: what is void by now stays void."""
    marks: defaultdict[str, list[str]] = defaultdict(list)
    for p in permits:
        if p.permit_id is not None:
            marks[p.limit_key].append(_marked(p.execution, p.permit_id))
    with operation():
        for gate, mine in marks.items():
            names = {"$arrayElemAt": [{"$split": ["$$this", SEPARATOR]}, 0]}
            theirs = {"$map": {"input": {"$setIntersection": ["$marks", mine]}, "in": names}}
            change: Document = {
                "held": {"$setDifference": ["$held", theirs]},
                "marks": {"$setDifference": ["$marks", mine]},
                "rev": {"$add": ["$rev", 1]},
            }
            await db.work["permits"].update_one({"_id": gate, "marks": {"$in": mine}}, [{"$set": change}])


def _marked(execution: str, mark: str) -> str:
    return f"{execution}{SEPARATOR}{mark}"


async def running_counts(db: Database, limit_keys: Collection[str]) -> dict[str, int]:
    """For operators: how many executions run under each of these limits."""
    with operation():
        found = await db.api["permits"].find({"_id": {"$in": list(limit_keys)}}).to_list()
    return {d["_id"]: len(d["held"]) for d in found}


async def delete(db: Database, limit_key: str) -> None:
    """Nothing is limited here any more."""
    with operation():
        await db.api["permits"].delete_one({"_id": limit_key})
