"""The reads of `explain`, each bounded, on the client of the API, so that they never delay the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.explain.facts import BatchFacts, BreakerFacts, LimitFacts
from cluster.core.explain.timeline import ActivePeriod
from cluster.core.limits.permits import UNLIMITED, limit_key_of
from cluster.core.schedule.schedule import schedule_from_key
from cluster.store import queues
from cluster.store.jobs import stored_job
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation
from cluster.store.permits import read as read_permits
from cluster.store.queries.jobs_and_executions import final_view, merge_by_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.view import ExecutionView
    from cluster.core.job.definition import StoredJob
    from cluster.core.limits.permits import Limits
    from cluster.store.mongo.client import Database, Document


def _span(d: Document) -> ActivePeriod:
    return ActivePeriod(
        version=d["schedule_version"],
        schedule=d["schedule"],
        timezone=d["timezone"],
        anchor_ms=instant(d.get("anchor")),
        start_ms=instant(d.get("start_at")),
        end_ms=instant(d.get("end_at")),
        from_ms=int(d["from"]),
        to_ms=int(d["to"]),
        ended_by=d.get("ended_by", ""),
        calendar=(d.get("calendar") or {}).get("name", ""),
        exclusion=schedule_from_key(d["key"]).exclusion if d.get("calendar") else None,
    )


async def job_and_periods(db: Database, job_id: str) -> tuple[StoredJob, list[ActivePeriod], bool] | None:
    """The job (a tombstone too), the periods of its earlier schedules, and whether it has an unsettled change."""
    with operation():
        d = await db.api["jobs"].find_one({"_id": job_id})
    if d is None:
        return None
    return stored_job(d, db.keyring), [_span(p) for p in d.get("past", ())], "unsettled" in d


async def executions_between(db: Database, job_id: str, from_ms: int, to_ms: int, now_ms: int) -> list[ExecutionView]:
    """Executions due in `from_ms <= due < to_ms` and missed ranges that begin there, the earliest first, at most 40."""
    ids: Document = {"$gte": f"{job_id}:{from_ms:013d}", "$lt": f"{job_id}:{to_ms:013d}"}
    with operation():
        owed = await db.api["executions"].find({"_id": ids}).sort("_id", 1).limit(20).to_list()
        final = await db.api["history"].find({"_id": ids}).sort("_id", 1).limit(20).to_list()
    return sorted(merge_by_id(owed, final, now_ms).values(), key=lambda r: r.id)


async def missed_at(db: Database, job_id: str, due_ms: int) -> ExecutionView | None:
    """The missed range that covers this occurrence; None if there is none."""
    query: Document = {
        "_id": {"$gte": f"{job_id}:", "$lt": f"{job_id}:{due_ms + 1:013d}"},
        "state": "missed",
        "last_at": {"$gte": DatetimeMS(due_ms)},
    }
    with operation():
        d = await db.api["history"].find_one(query, sort=[("_id", -1)])
    return None if d is None else final_view(d)


async def running_when_skipped(db: Database, run: ExecutionView, now_ms: int) -> ExecutionView | None:
    """The earlier execution of the same job that was sent and had not ended when `run` was skipped; None if unknown."""
    at_ms = run.ended_ms if run.ended_ms is not None else run.due_ms
    ids: Document = {"$gte": f"{run.job_id}:", "$lt": run.id}
    sent: Document = {"attempts.sent_at": {"$lte": DatetimeMS(at_ms)}}
    with operation():
        owed = await db.api["executions"].find({"_id": ids}).sort("_id", -1).limit(20).to_list()
        final = await db.api["history"].find({"_id": ids, **sent}).sort("_id", -1).limit(1).to_list()
    waiting = {d["_id"] for d in owed if d.get("waits")}  # runs by hand that wait for an end themselves, or have waited
    found = sorted(merge_by_id(owed, final, now_ms).values(), key=lambda r: (r.id not in waiting, r.id), reverse=True)
    for earlier in found:
        if earlier.ended_ms is None or earlier.ended_ms >= at_ms:
            return earlier
    return None


async def batch_of(db: Database, run: ExecutionView) -> BatchFacts | None:
    """The batch that an owed execution names; None if it does not exist."""
    with operation():
        owed = await db.api["executions"].find_one({"_id": run.id}, {"batch": 1, "waits": 1})
        d = None if owed is None else await db.api["batches"].find_one({"_id": owed["batch"]})
    if owed is None or d is None:
        return None
    return BatchFacts(
        id=d["_id"],
        owner=d["owner"],
        token=d["token"],
        claims=d["claims"],
        claimable_ms=int(d["claimable_at"]),
        late=d["late"],
        waits=owed.get("waits", False),
    )


async def limit_of(db: Database, execution_id: str, queue: str | None, own: Limits, job_id: str) -> LimitFacts | None:
    """The limits that an execution counts against, and how they are used: those of its queue, or its job's. None: none."""
    key = limit_key_of(job_id, queue, own)
    if key is None:
        return None
    limits, whose = own, "the job"
    if queue is not None:
        found = await queues.get(db, queue)
        limits, whose = UNLIMITED if found is None else found.limits, f"the queue '{queue}'"
    if not limits.limited:
        return None
    permits = await read_permits(replace(db, work=db.api), key)
    return LimitFacts(whose, limits, len(permits.granted.keys() - {execution_id}), permits.next_ms)


async def catch_up_cursor(db: Database, key: str, job_id: str, due_ms: int) -> int | None:
    """How far (ms) catching up has come in the open range that this occurrence lies in; None if it lies in none."""
    at = DatetimeMS(due_ms)
    query: Document = {"key": key, "job_id": {"$in": [None, job_id]}, "from": {"$lte": at}, "to": {"$gt": at}}
    with operation():
        d = await db.api["backfills"].find_one(query)
    return None if d is None else int(d["cursor_at"])


async def scheduled_until(db: Database, key: str) -> int | None:
    """The instant (ms) before which this schedule is materialised; None if it has no row."""
    with operation():
        d = await db.api["schedules"].find_one({"_id": key}, {"next_at": 1})
    return None if d is None else int(d["next_at"])


async def breaker_of(db: Database, hosts: Sequence[str]) -> BreakerFacts | None:
    """A breaker of one of these hosts that is not closed; None if all are closed."""
    with operation():
        d = await db.api["breakers"].find_one({"_id": {"$in": list(hosts)}})
    return None if d is None else BreakerFacts(d["_id"], int(d["opened_at"]), int(d["until"]), d["why"])


async def latest_execution(db: Database, job_id: str, now_ms: int) -> ExecutionView | None:
    """The latest execution of this job that is due; None if none is."""
    ids: Document = {"$gte": f"{job_id}:", "$lt": f"{job_id}:{now_ms + 1:013d}"}
    with operation():
        owed = await db.api["executions"].find({"_id": ids}).sort("_id", -1).limit(1).to_list()
        final = await db.api["history"].find({"_id": ids}).sort("_id", -1).limit(1).to_list()
    return max(merge_by_id(owed, final, now_ms).values(), key=lambda r: r.id, default=None)
