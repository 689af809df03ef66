"""The jobs of an action: those that its filter matches when it is asked for, and what they are at their turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.store.jobs import ACTED_BY, WITHOUT_PERIODS, stored_job
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.operation import operation
from cluster.store.queries import next_run_pages
from cluster.store.queries.job_filter import JobFilter, conditions, name_contains, selective

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cluster.core.job.definition import StoredJob
    from cluster.store.actions import Action
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery

READ_BYTES = 8 * 1024 * 1024
"""Jobs that are read at once come to about this many bytes."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Some jobs of an action at their turn.

    `jobs`: those that still match; `acted`: ids of those that this action has changed already; `left_out`: ids of those
    that do not match any more; `unreadable`: `{id: why}`; `unread`: ids of those that were left for the next time.
    """

    jobs: list[StoredJob]
    acted: set[str]
    left_out: set[str]
    unreadable: dict[str, str]
    unread: list[str]


def filter_document(f: JobFilter, asked: Document) -> Document:
    """How an action stores its filter; `asked`: as the caller wrote it, its search as `q`."""
    return {
        "asked": asked,
        "states": list(f.states),
        "tags": list(f.tags),
        "any_tags": list(f.any_tags),
        "host": f.host,
        "schedule": f.schedule,
        "calendar": f.calendar,
        "words": list(f.words),
    }


def _standing_filter(d: Document) -> JobFilter:
    """The conditions that a job must still meet at its turn: all but its last result and its next run, which change while
    an action runs, without anybody changing the job.
    """
    return JobFilter(
        states=tuple(d["states"]),
        tags=tuple(d["tags"]),
        any_tags=tuple(d["any_tags"]),
        host=d["host"],
        schedule=d["schedule"],
        calendar=d.get("calendar"),  # absent: written before actions could be narrowed to a calendar
        words=tuple(d["words"]),
        name_part=name_contains(d["asked"]["q"]) if d["asked"].get("q") and not d["words"] else None,
    )


def _query(f: JobFilter) -> Document:
    return {"$and": [{"state": {"$in": list(f.states)}}, *conditions(f)]}


async def count(db: Database, q: JobListQuery, most: int) -> int:
    """How many jobs match, `most` + 1 if they are more."""
    if q.before_ms is not None:
        return len(await next_run_pages.walk(db, next_run_pages.soonest(q), most + 1))
    with operation():
        return int(await db.api["jobs"].count_documents(_query(q.filter), limit=most + 1, **_hint(q.filter)))


async def matching_ids(db: Database, q: JobListQuery, most: int) -> AsyncIterator[str]:
    """The ids of the jobs that match, at most `most` + 1 of them."""
    if q.before_ms is not None:
        for d in await next_run_pages.walk(db, next_run_pages.soonest(q), most + 1):
            yield d["_id"]
        return
    with operation():
        cursor = db.api["jobs"].find(_query(q.filter), {"_id": 1}, **_hint(q.filter)).limit(most + 1)
        async for d in cursor:
            yield d["_id"]


def _hint(f: JobFilter) -> dict[str, Any]:
    narrowing = selective(f)
    if len(narrowing) == 1:
        return {} if narrowing[0][0] is None else {"hint": narrowing[0][0]}
    return {} if narrowing else {"hint": "by_state"}


async def read(db: Database, action: Action, job_ids: Sequence[str]) -> Targets:
    """These jobs as they are now, of large ones only the first. A job that was created after the request is left out."""
    standing = _standing_filter(action.filter)
    query: Document = {
        "$and": [
            {"_id": {"$in": list(job_ids)}, "created_at": {"$lte": DatetimeMS(action.created_ms)}},
            _query(standing),
        ]
    }
    with operation():
        sizes = await db.work["jobs"].find(query, {ACTED_BY: 1, "size": {"$bsonSize": "$$ROOT"}}, hint="_id_").to_list()
        matched = {d["_id"] for d in sizes}
        rest = [i for i in job_ids if i not in matched]
        others = await db.work["jobs"].find({"_id": {"$in": rest}}, {ACTED_BY: 1}).to_list() if rest else []
        acted = {d["_id"] for d in (*sizes, *others) if d.get(ACTED_BY) == action.id}
        chosen: list[str] = []
        size = 0
        for d in sizes:
            if d["_id"] not in acted and (not chosen or size + d["size"] <= READ_BYTES):
                chosen.append(d["_id"])
                size += d["size"]
        documents = await db.work["jobs"].find({"_id": {"$in": chosen}}, WITHOUT_PERIODS).to_list() if chosen else []
    jobs, unreadable = decode_each("job", documents, lambda d: stored_job(d, db.keyring))
    # A job may have been deleted since the first of these reads; it is then decided on as what it is.
    unread = [i for i in matched if i not in acted and i not in chosen]
    return Targets(
        [j for j in jobs if j.state is not JobState.DELETED],
        acted,
        set(rest) - acted | {j.id for j in jobs if j.state is JobState.DELETED},
        unreadable,
        unread,
    )
