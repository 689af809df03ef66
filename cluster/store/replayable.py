"""`history` as replays read and change it: which results a filter matches, and reopening them a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.core.ids import CALLBACK_PREFIX, MESSAGE_PREFIX, is_message
from cluster.core.lifecycle import REPLAYABLE, JobState, State
from cluster.core.targets import host_of, is_host
from cluster.store import executions
from cluster.store.history import REOPENED, REPLAYABLE_NOW, reopen_update
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.store.mongo.client import Database, Document
    from cluster.store.replays import Replay, ReplayFilter

NOT_SENT = "not_sent"
"""In place of an error: no request was ever sent. A node of the release before finds no attempt with this error, and so
replays nothing instead of too much.
"""
INDEX = "unhappy_by_end"
"""Of the results that a replay may name."""
JOBS = 10_000
"""Ids of jobs in one query."""


def _query(criteria: ReplayFilter, before_ms: int) -> Document:
    # Results that ended after the request do not match: an execution that fails again must not be replayed for ever.
    ended: Document = {"$lt": DatetimeMS(min(before_ms, criteria.until_ms or before_ms))}
    if criteria.since_ms is not None:
        ended["$gte"] = DatetimeMS(criteria.since_ms)
    query: Document = {"state": {"$in": list(criteria.states)}, "ended_at": ended}
    if criteria.job_id is not None:
        query["_id"] = {"$gte": f"{criteria.job_id}:", "$lt": f"{criteria.job_id};"}
    if criteria.error == NOT_SENT:
        query["attempts"] = {"$size": 0}
    last = [(n, v) for n, v in (("error", criteria.error), ("status", criteria.status)) if v not in (None, NOT_SENT)]
    if last:
        of_last = [
            {"$eq": [{"$let": {"vars": {"last": {"$last": "$attempts"}}, "in": f"$$last.{name}"}}, value]}
            for name, value in last
        ]
        query["$expr"] = {"$and": of_last}
    return query


async def count(db: Database, criteria: ReplayFilter, before_ms: int) -> int:
    """How many results that ended before an instant these criteria match, without those of deleted jobs."""
    pipeline: list[Document] = [
        {"$match": _query(criteria, before_ms)},
        {"$group": {"_id": "$job_id", "n": {"$sum": 1}}},
    ]
    # Of one job its own executions are read.
    index: dict[str, Any] = {} if criteria.job_id is not None else {"hint": INDEX}
    with operation():
        counted = await (await db.api["history"].aggregate(pipeline, batchSize=JOBS, **index)).to_list()
    by_job = {d["_id"]: d["n"] for d in counted}
    names = [name for name in by_job if not is_message(name)]
    total = 0 if len(names) == len(by_job) else await _count_messages(db, criteria, before_ms)
    for start in range(0, len(names), JOBS):
        matching = await _not_deleted(db, names[start : start + JOBS], criteria.tag, criteria.host)
        total += sum(by_job[job_id] for job_id in matching)
    return total


async def _not_deleted(db: Database, job_ids: Sequence[str], tag: str | None, host: str | None) -> set[str]:
    """Those of these jobs that are not deleted, and have the tag and the host (with or without a port) if they are named."""
    query: Document = {"_id": {"$in": list(job_ids)}, "state": {"$ne": JobState.DELETED.value}}
    if tag is not None:
        query["tags"] = tag
    by_host: list[Document] = [{"$match": query}, {"$group": {"_id": "$host", "jobs": {"$push": "$_id"}}}]
    with operation():
        found = await (await db.api["jobs"].aggregate(by_host)).to_list()
    return {job for d in found if host is None or is_host(d["_id"] or "", host) for job in d["jobs"]}


async def _count_messages(db: Database, criteria: ReplayFilter, before_ms: int) -> int:
    """How many messages and callbacks these criteria match, of those that can be sent again."""
    of_both = [{"_id": {"$gte": prefix, "$lt": prefix + "a"}} for prefix in (MESSAGE_PREFIX, CALLBACK_PREFIX)]
    conditions: list[Document] = [_query(criteria, before_ms), {"$or": of_both, "message": {"$exists": True}}]
    if criteria.tag is not None:
        conditions.append({"message.tags": criteria.tag})
    if criteria.host is None:
        with operation():
            return await db.api["history"].count_documents({"$and": conditions})
    pipeline: list[Document] = [
        {"$match": {"$and": conditions}},
        {"$group": {"_id": "$message.url", "n": {"$sum": 1}}},
    ]
    with operation():
        by_url = await (await db.api["history"].aggregate(pipeline)).to_list()
    return sum(d["n"] for d in by_url if is_host(host_of(d["_id"]), criteria.host))


async def next_page(db: Database, replay: Replay, limit: int) -> list[tuple[int, str, str]]:
    """The next matches behind `replay.after` as `(end of retention in ms, id, job id)`, the latest first."""
    query: Document = {"$and": [_query(replay.criteria, replay.created_ms)]}
    if replay.after is not None:
        at = DatetimeMS(replay.after[0])
        query["$and"].append({"$or": [{"expire_at": {"$lt": at}}, {"expire_at": at, "_id": {"$lt": replay.after[1]}}]})
    with operation():
        documents = (
            await db.work["history"]
            .find(query, {"expire_at": 1, "job_id": 1})
            .sort([("expire_at", -1), ("_id", -1)])
            .limit(limit)
            .to_list()
        )
    return [(int(d["expire_at"]), d["_id"], d["job_id"]) for d in documents]


def _of_page(replay: Replay) -> Document:
    """An execution that was replayed since and has failed again ended after the request, so it does not match and stays."""
    return {"_id": {"$in": list(replay.page)}, "ended_at": {"$lt": DatetimeMS(replay.created_ms)}}


async def ended_in_page(db: Database, replay: Replay) -> dict[str, tuple[int, str | None]]:
    """Those of this page that a replay leaves: when each ended (ms) and, of a cancelled one, its schedule version."""
    with operation():
        final = {**_of_page(replay), "state": {"$in": [s.value for s in REPLAYABLE]}}
        fields = {"ended_at": 1, "state": 1, "schedule_version": 1}
        ended = await db.work["history"].find(final, fields).to_list()
    versions = {d["_id"]: d["schedule_version"] for d in ended if d["state"] == State.CANCELLED.value}
    return {d["_id"]: (int(d["ended_at"]), versions.get(d["_id"])) for d in ended}


async def reopen_page(db: Database, replay: Replay, now_ms: int, retention_days: float) -> list[tuple[str, str, int]]:
    """Reopen the executions of this page, but for those whose record is marked: what follows that result comes first.

    Returns `(id, job id, due in ms)` of those that are open now; safe to repeat.
    """
    await executions.delete_ended(db, await ended_in_page(db, replay))
    await reopen_records(db, replay, now_ms, retention_days)
    return await reopened_in_page(db, replay)


async def reopen_records(db: Database, replay: Replay, now_ms: int, retention_days: float) -> None:
    """The write of `reopen_page`."""
    with operation():
        await db.work["history"].update_many(
            {**_of_page(replay), **REPLAYABLE_NOW}, reopen_update(now_ms, retention_days)
        )


async def reopened_in_page(db: Database, replay: Replay) -> list[tuple[str, str, int]]:
    """`(id, job id, due in ms)` of those of this page that are open now."""
    with operation():
        query = {**_of_page(replay), "state": REOPENED}
        reopened = await db.work["history"].find(query, {"job_id": 1, "due_at": 1}).to_list()
    return [(d["_id"], d["job_id"], int(d["due_at"])) for d in reopened]


async def unfinished(db: Database, before_ms: int, limit: int) -> list[tuple[str, str, int, int]]:
    """`(id, job id, due, asked)` of up to `limit` executions that were reopened before an instant and are not owed; `due`
    and when the replay was asked for in ms.

    The request that reopened them died before it inserted the execution.
    """
    query = {"state": REOPENED, "asked_at": {"$lt": DatetimeMS(before_ms)}}
    with operation():
        fields = {"job_id": 1, "due_at": 1, "asked_at": 1}
        reopened = await db.work["history"].find(query, fields).sort("asked_at", 1).limit(limit).to_list()
    owed = await executions.existing_ids(db, [d["_id"] for d in reopened])
    return [(d["_id"], d["job_id"], int(d["due_at"]), int(d["asked_at"])) for d in reopened if d["_id"] not in owed]


async def end_without_job(db: Database, ids: Collection[str]) -> int:
    """End reopened executions whose job does not exist any more. Returns how many."""
    change = {"$set": {"state": State.DEAD.value, "reason": "its job was deleted before it was sent again"}}
    with operation():
        result = await db.work["history"].update_many({"_id": {"$in": list(ids)}, "state": REOPENED}, change)
    return result.modified_count
