"""`permits`: the permits granted under each limit. Compare-and-set on `rev`; jobs without limits have no document here.

`held` lists executions, `marks` their permits as `execution#permit id`. Nodes of the release before know only `held`: an
execution without a mark was entered by one of them, a mark without its execution is void. So both releases count the
same, no matter which of them wrote last.
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
"""Between execution id and permit id; neither contains it."""


async def read(db: Database, limit_key: str) -> Permits:
    """The permits granted under this limit."""
    with operation():
        d = await db.work["permits"].find_one({"_id": limit_key})
    if d is None:
        return Permits()
    permit_ids = dict(m.split(SEPARATOR) for m in d.get("marks", ()))
    return Permits(d["next_ms"], {i: permit_ids.get(i, "") for i in d["held"]}, d["rev"])


async def write(db: Database, limit_key: str, seen: Permits, then: Permits) -> bool:
    """Replace `seen` by `then` by compare-and-set. False if another node was faster."""
    marks = sorted(_mark(i, permit_id) for i, permit_id in then.granted.items() if permit_id)
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
    """Release permits that are not used any more. Safe to repeat, at any time: a permit that is void by now stays void."""
    marks: defaultdict[str, list[str]] = defaultdict(list)
    for p in permits:
        if p.permit_id is not None:
            marks[p.limit_key].append(_mark(p.execution, p.permit_id))
    with operation():
        for limit_key, released in marks.items():
            names = {"$arrayElemAt": [{"$split": ["$$this", SEPARATOR]}, 0]}
            ended = {"$map": {"input": {"$setIntersection": ["$marks", released]}, "in": names}}
            change: Document = {
                "held": {"$setDifference": ["$held", ended]},
                "marks": {"$setDifference": ["$marks", released]},
                "rev": {"$add": ["$rev", 1]},
            }
            await db.work["permits"].update_one({"_id": limit_key, "marks": {"$in": released}}, [{"$set": change}])


def _mark(execution: str, permit_id: str) -> str:
    return f"{execution}{SEPARATOR}{permit_id}"


async def running_counts(db: Database, limit_keys: Collection[str]) -> dict[str, int]:
    """For operators: how many executions run under each of these limits."""
    with operation():
        documents = await db.api["permits"].find({"_id": {"$in": list(limit_keys)}}).to_list()
    return {d["_id"]: len(d["held"]) for d in documents}


async def delete(db: Database, limit_key: str) -> None:
    """Delete the document of a limit that no longer exists."""
    with operation():
        await db.api["permits"].delete_one({"_id": limit_key})
