"""What `explain` asks of the database. Reads alone, each bounded; on the API's client, so that the engine never waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.explain.explain import BatchFacts, BreakerFacts
from cluster.core.explain.timeline import ActivePeriod
from cluster.store.jobs import stored_job
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation
from cluster.store.queries.jobs_and_executions import final_view, merge_by_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.view import ExecutionView
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database, Document


def _span(d: Document) -> ActivePeriod:
    return ActivePeriod(
        d["schedule_version"],
        d["schedule"],
        d["timezone"],
        instant(d.get("anchor")),
        instant(d.get("start_at")),
        instant(d.get("end_at")),
        int(d["from"]),
        int(d["to"]),
    )


async def job_and_periods(db: Database, job_id: str) -> tuple[StoredJob, list[ActivePeriod], bool] | None:
    """The job (tombstones too), the periods of its earlier schedules, and whether a change of it is not settled."""
    with operation():
        d = await db.api["jobs"].find_one({"_id": job_id})
    if d is None:
        return None
    return stored_job(d, db.keyring), [_span(p) for p in d.get("past", ())], "unsettled" in d


async def executions_between(db: Database, job_id: str, from_ms: int, to_ms: int, now_ms: int) -> list[ExecutionView]:
    """What is owed or final and due in `from_ms <= due < to_ms`, the earliest first, at most 20; missed ranges too."""
    ids: Document = {"$gte": f"{job_id}:{from_ms:013d}", "$lt": f"{job_id}:{to_ms:013d}"}
    with operation():
        owed = await db.api["executions"].find({"_id": ids}).sort("_id", 1).limit(20).to_list()
        final = await db.api["history"].find({"_id": ids}).sort("_id", 1).limit(20).to_list()
    return sorted(merge_by_id(owed, final, now_ms).values(), key=lambda r: r.id)


async def missed_at(db: Database, job_id: str, due_ms: int) -> ExecutionView | None:
    """The range of missed occurrences that covers this one."""
    query: Document = {
        "_id": {"$gte": f"{job_id}:", "$lt": f"{job_id}:{due_ms + 1:013d}"},
        "state": "missed",
        "last_at": {"$gte": DatetimeMS(due_ms)},
    }
    with operation():
        d = await db.api["history"].find_one(query, sort=[("_id", -1)])
    return None if d is None else final_view(d)


async def running_when_skipped(db: Database, run: ExecutionView, now_ms: int) -> ExecutionView | None:
    """The earlier run of the same job that had been sent and had not ended when `run` was skipped; None if unknown."""
    at_ms = run.ended_ms if run.ended_ms is not None else run.due_ms
    ids: Document = {"$gte": f"{run.job_id}:", "$lt": run.id}
    sent: Document = {"attempts.sent_at": {"$lte": DatetimeMS(at_ms)}}
    with operation():
        owed = await db.api["executions"].find({"_id": ids}).sort("_id", -1).limit(20).to_list()
        final = await db.api["history"].find({"_id": ids, **sent}).sort("_id", -1).limit(1).to_list()
    for found in sorted(merge_by_id(owed, final, now_ms).values(), key=lambda r: r.id, reverse=True):
        if found.ended_ms is None or found.ended_ms >= at_ms:
            return found
    return None


async def batch_of(db: Database, run: ExecutionView) -> BatchFacts | None:
    """The batch that an owed execution names."""
    with operation():
        owed = await db.api["executions"].find_one({"_id": run.id}, {"batch": 1})
        d = None if owed is None else await db.api["batches"].find_one({"_id": owed["batch"]})
    if d is None:
        return None
    return BatchFacts(d["_id"], d["owner"], d["token"], d["claims"], int(d["claimable_at"]), d["late"])


async def catch_up_cursor(db: Database, key: str, job_id: str, due_ms: int) -> int | None:
    """How far (ms) catching up has come if this occurrence lies in an open range."""
    at = DatetimeMS(due_ms)
    query: Document = {"key": key, "job_id": {"$in": [None, job_id]}, "from": {"$lte": at}, "to": {"$gt": at}}
    with operation():
        d = await db.api["backfills"].find_one(query)
    return None if d is None else int(d["cursor_at"])


async def scheduled_until(db: Database, key: str) -> int | None:
    """Before which instant (ms) everything is written down for this schedule; None: it has no row."""
    with operation():
        d = await db.api["schedules"].find_one({"_id": key}, {"next_at": 1})
    return None if d is None else int(d["next_at"])


async def breaker_of(db: Database, hosts: Sequence[str]) -> BreakerFacts | None:
    """The breaker of one of these hosts, if it is not closed."""
    with operation():
        d = await db.api["breakers"].find_one({"_id": {"$in": list(hosts)}})
    return None if d is None else BreakerFacts(d["_id"], int(d["opened_at"]), int(d["until"]), d["why"])


async def latest_execution(db: Database, job_id: str, now_ms: int) -> ExecutionView | None:
    """The run of this job that is due last of those that are due."""
    ids: Document = {"$gte": f"{job_id}:", "$lt": f"{job_id}:{now_ms + 1:013d}"}
    with operation():
        owed = await db.api["executions"].find({"_id": ids}).sort("_id", -1).limit(1).to_list()
        final = await db.api["history"].find({"_id": ids}).sort("_id", -1).limit(1).to_list()
    return max(merge_by_id(owed, final, now_ms).values(), key=lambda r: r.id, default=None)
