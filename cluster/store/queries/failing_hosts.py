"""Which hosts fail now, for `horae top`: from recent failures and pending retries. Bounded samples."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

SAMPLE = 500


async def failing_hosts(db: Database, since_ms: int) -> list[tuple[str, int, int]]:
    """`(host, executions failed or dead since an instant, executions waiting for a retry)`, the largest numbers first."""
    failed: Document = {"state": {"$in": ["failed", "dead"]}, "ended_at": {"$gte": DatetimeMS(since_ms)}}
    with operation():
        ended = (
            await db.api["history"]
            .find({**failed, "expire_at": {"$gte": DatetimeMS(since_ms)}}, {"job_id": 1})
            .sort("expire_at", -1)
            .limit(SAMPLE)
            .to_list()
        )
        retrying = await db.api["executions"].find({"state": "retrying"}, {"job_id": 1}).limit(SAMPLE).to_list()
        job_ids = list({d["job_id"] for d in (*ended, *retrying)})
        host = {
            d["_id"]: d.get("host") or "?" async for d in db.api["jobs"].find({"_id": {"$in": job_ids}}, {"host": 1})
        }
    failures = Counter(host.get(d["job_id"], "?") for d in ended)
    retries = Counter(host.get(d["job_id"], "?") for d in retrying)
    return sorted(
        ((h, failures[h], retries[h]) for h in failures.keys() | retries.keys()), key=lambda x: (-x[1] - x[2], x[0])
    )
