"""`history` as alerting reads it: results that alerts are still to be decided on, and how a job's latest runs ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.alerts import SENT_STATES, RecordedResult
from cluster.core.lifecycle import State
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.store.mongo.client import Database, Document

_FIELDS = {
    "job_id": 1,
    "state": 1,
    "ended_at": 1,
    "drift_ms": 1,
    "reason": 1,
    "attempts": {"$slice": -1},
    "count": 1,
}


def _result(d: Document) -> RecordedResult:
    why = d["reason"]
    if why is None and d["attempts"]:
        last = d["attempts"][-1]
        why = f"HTTP {last['status']}" if last.get("error") is None else last["error"]
        if last.get("detail"):
            why += f" ({last['detail'][:200]})"
    return RecordedResult(
        id=d["_id"],
        job_id=d["job_id"],
        state=d["state"],
        ended_ms=int(d["ended_at"]),
        drift_ms=d["drift_ms"],
        why=why,
        count=d.get("count", 1),
    )


async def pending(db: Database, limit: int) -> tuple[list[RecordedResult], list[str]]:
    """Results that alerts are to be decided on, the oldest first; and the ids of all documents that were read."""
    with operation():
        documents = await db.work["history"].find({"mark": True}, _FIELDS).sort("ended_at", 1).limit(limit).to_list()
    return decode_readable("history", documents, _result), [d["_id"] for d in documents]


async def clear_pending(db: Database, ids: Iterable[str]) -> None:
    """Note that alerts have been decided on these results."""
    with operation():
        await db.work["history"].update_many({"_id": {"$in": list(ids)}}, {"$unset": {"mark": ""}})


async def latest(db: Database, job_id: str, count: int) -> list[RecordedResult]:
    """Up to `count` final results of the job whose requests were sent, the latest due first."""
    query = {"_id": {"$gte": f"{job_id}:", "$lt": f"{job_id};"}, "state": {"$in": sorted(SENT_STATES)}}
    with operation():
        documents = await db.work["history"].find(query, _FIELDS).sort("_id", -1).limit(count).to_list()
    return decode_readable("history", documents, _result)


async def latest_success_since(db: Database, job_id: str, since_ms: int) -> RecordedResult | None:
    """The latest due success of the job among executions that were due at or after an instant; None without one."""
    query = {"_id": {"$gte": f"{job_id}:{since_ms:013d}", "$lt": f"{job_id};"}, "state": State.SUCCEEDED.value}
    with operation():
        d = await db.work["history"].find_one(query, _FIELDS, sort=[("_id", -1)])
    return None if d is None else _result(d)


async def has_history(db: Database, job_id: str) -> bool:
    """Whether history holds anything of the job, executions that were reopened for a replay included."""
    query = {"_id": {"$gte": f"{job_id}:", "$lt": f"{job_id};"}}
    with operation():
        return await db.work["history"].find_one(query, {"_id": 1}) is not None
