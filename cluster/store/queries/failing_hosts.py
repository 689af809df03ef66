"""Which hosts fail now, for `horae top`: from what ended badly of late and what waits to be tried again. Bounded samples."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

SAMPLE = 500


async def failing_hosts(db: Database, since_ms: int) -> list[tuple[str, int, int]]:
    """Hosts with how many executions ended failed or dead since then and how many wait for another try, most first."""
    bad: Document = {"state": {"$in": ["failed", "dead"]}, "ended_at": {"$gte": DatetimeMS(since_ms)}}
    with operation():
        ended = (
            await db.api["history"]
            .find({**bad, "expire_at": {"$gte": DatetimeMS(since_ms)}}, {"job_id": 1})
            .sort("expire_at", -1)
            .limit(SAMPLE)
            .to_list()
        )
        again = await db.api["executions"].find({"state": "retrying"}, {"job_id": 1}).limit(SAMPLE).to_list()
        wanted = list({d["job_id"] for d in (*ended, *again)})
        host = {
            d["_id"]: d.get("host") or "?" async for d in db.api["jobs"].find({"_id": {"$in": wanted}}, {"host": 1})
        }
    lost = Counter(host.get(d["job_id"], "?") for d in ended)
    waits = Counter(host.get(d["job_id"], "?") for d in again)
    return sorted(((h, lost[h], waits[h]) for h in lost.keys() | waits.keys()), key=lambda x: (-x[1] - x[2], x[0]))
