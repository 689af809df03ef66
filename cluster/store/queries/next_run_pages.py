"""Jobs in the order of their next run, by walking the schedules in the order of theirs (`next_runs`).

section 0  jobs that have a next run, by (next run, schedule, id)
section 1  active jobs that have none, because their end comes before it: by id
section 2  paused and completed jobs: the newest first
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation
from cluster.store.queries.job_filter import PLACE_FIELDS, Place, conditions
from cluster.store.queries.next_runs import next_of_job, schedule_order

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery
    from cluster.store.queries.next_runs import ScheduleOrder

FIRST_SCHEDULES = 4
MOST_SCHEDULES = 256
"""Schedules whose jobs are read at once."""
BEHIND_ALL_KEYS = "\U0010ffff"
ACTIVE = JobState.ACTIVE.value


async def walk(db: Database, q: JobListQuery, count: int) -> list[Document]:
    """The next `count` jobs behind `q.after`. Raises `StoreError`."""
    section = 0 if q.after is None else q.after.section
    found: list[Document] = []
    if ACTIVE in q.filter.states and section == 0:
        found = await _with_next_run(db, q, count)
    if q.before_ms is not None:
        return found
    if ACTIVE in q.filter.states and section <= 1 and len(found) < count:
        found += await _ending(db, q)
    if len(found) < count:
        found += await _not_active(db, q, count - len(found))
    return found[:count]


def soonest(q: JobListQuery) -> JobListQuery:
    """The same jobs as `q`, from the first one in the order of the next run."""
    return replace(q, order="nextRunAt", descending=False, after=None)


def place_of(d: Document, since_ms: int) -> Place:
    """The place of a job in the order of the next run."""
    due = next_of_job(d, since_ms)
    if due is not None:
        return Place(0, due, d["_id"], str(d["schedule_key"]))
    if d["state"] == ACTIVE:
        return Place(1, 0, d["_id"])
    return Place(2, instant(d["created_at"]) or 0, d["_id"])


async def _with_next_run(db: Database, q: JobListQuery, count: int) -> list[Document]:
    """Jobs of section 0: those that their schedule's row has come to, and those that are to begin later."""
    order, (later, later_than_all) = await asyncio.gather(
        schedule_order(db, q.since_ms, q.lookahead_ms, descending=q.descending), _to_begin(db, q, count)
    )
    begun = await _begun(db, q, count, order, later_than_all)
    sign = -1 if q.descending else 1
    placed = [((p.value, p.key, p.id), d) for d in (*later, *begun) if (p := place_of(d, q.since_ms)).section == 0]
    return [d for _, d in sorted(placed, key=lambda x: x[0], reverse=sign < 0)][:count]


async def _to_begin(db: Database, q: JobListQuery, count: int) -> tuple[list[Document], int | None]:
    """Jobs whose first occurrence is still to come; and, if there may be more, the instant of the last of them."""
    sign = -1 if q.descending else 1
    first: Document = {"$gt": DatetimeMS(q.since_ms)}
    if q.before_ms is not None:
        first["$lt"] = DatetimeMS(q.before_ms)
    parts: list[Document] = [{"state": ACTIVE, "first_at": first}, *conditions(q.filter)]
    if q.after is not None:
        beyond, at = "$gt" if sign > 0 else "$lt", DatetimeMS(int(q.after.value))
        parts += [
            {"first_at": {f"{beyond}e": at}},
            {
                "$or": [
                    {"first_at": {beyond: at}},
                    {"schedule_key": {beyond: q.after.key}},
                    {"schedule_key": q.after.key, "_id": {beyond: q.after.id}},
                ]
            },
        ]
    with operation():
        rows = (
            await db.api["jobs"]
            .find({"$and": parts}, {**PLACE_FIELDS, "first_at": 1}, hint="to_begin", batch_size=count + 1)
            .sort([("first_at", sign), ("schedule_key", sign), ("_id", sign)])
            .limit(count)
            .to_list()
        )
    return rows, int(rows[-1]["first_at"]) if len(rows) == count else None


async def _begun(db: Database, q: JobListQuery, count: int, order: ScheduleOrder, bound: int | None) -> list[Document]:
    """Jobs by the order of their schedules, up to the instant `bound`."""
    start = None if q.after is None else (int(q.after.value), q.after.key)
    if start is None and q.descending and q.before_ms is not None:
        start = (q.before_ms - 1, BEHIND_ALL_KEYS)
    behind_id = None if q.after is None else q.after.id
    found: list[Document] = []
    async with aclosing(_bounded(order.from_(db, start), q, bound)) as schedules:
        waiting: list[tuple[int, str]] = []
        take = FIRST_SCHEDULES
        while len(found) < count:
            while len(waiting) < take and (following := await anext(schedules, None)) is not None:
                waiting.append(following)
            if not waiting:
                break
            resumed = behind_id is not None and waiting[0] == start
            chunk = waiting[: 1 if resumed else take]
            at_most = count if len(chunk) == 1 else 2 * count
            rows = await _of_schedules(db, q, chunk, behind_id if resumed else None, at_most)
            if len(rows) < at_most:
                found += _due_as_scheduled(rows, chunk)
                del waiting[: len(chunk)]
                take = min(MOST_SCHEDULES, 2 * take)
            elif len(chunk) > 1:
                chunk = _complete(chunk, rows[-1]["schedule_key"], descending=q.descending)
                found += _due_as_scheduled(rows, chunk)
                del waiting[: len(chunk)]
                take = len(chunk) or 1
            else:  # one schedule with many jobs: go on behind the last of them
                found += _due_as_scheduled(rows, chunk)
                start, behind_id = chunk[0], rows[-1]["_id"]
                take = 1
    return found


async def _bounded(
    schedules: AsyncGenerator[tuple[int, str]], q: JobListQuery, bound: int | None
) -> AsyncGenerator[tuple[int, str]]:
    """The schedules up to an instant, and before the one that the query names."""
    sign = -1 if q.descending else 1
    async with aclosing(schedules):
        async for due, key in schedules:
            if bound is not None and sign * (due - bound) > 0:
                return
            if q.before_ms is not None and due >= q.before_ms:
                if q.descending:
                    continue
                return
            yield due, key


async def _of_schedules(
    db: Database, q: JobListQuery, chunk: list[tuple[int, str]], behind_id: str | None, limit: int
) -> list[Document]:
    sign = -1 if q.descending else 1
    own: Document = {"schedule_key": {"$in": [key for _, key in chunk]}, "state": ACTIVE}
    if behind_id is not None:
        own["_id"] = {"$gt" if sign > 0 else "$lt": behind_id}
    begun = {"first_at": {"$not": {"$gt": DatetimeMS(q.since_ms)}}}
    with operation():
        return (
            await db.api["jobs"]
            .find({"$and": [own, begun, *conditions(q.filter)]}, PLACE_FIELDS, hint="by_schedule", batch_size=limit + 1)
            .sort([("schedule_key", sign), ("state", sign), ("_id", sign)])
            .limit(limit)
            .to_list()
        )


def _complete(chunk: list[tuple[int, str]], last_key: str, *, descending: bool) -> list[tuple[int, str]]:
    """The first schedules of a chunk of which every job was read, up to a schedule of which more may follow."""
    return list(takewhile(lambda s: s[1] > last_key if descending else s[1] < last_key, chunk))


def _due_as_scheduled(rows: list[Document], chunk: list[tuple[int, str]]) -> list[Document]:
    """The jobs of these schedules whose end is not before their next occurrence."""
    due = {key: at for at, key in chunk}
    ours = [d for d in rows if d["schedule_key"] in due]
    return [d for d in ours if (end := instant(d.get("end_at"))) is None or due[d["schedule_key"]] <= end]


async def _ending(db: Database, q: JobListQuery) -> list[Document]:
    """Section 1, the rest of it: there are few, because such a job is completed soon, or ends before its next run."""
    past = DatetimeMS(q.since_ms)
    parts: list[Document] = [{"state": ACTIVE}, *conditions(q.filter)]
    if q.after is not None and q.after.section == 1:
        parts.append({"_id": {"$gt": q.after.id}})
    with operation():
        rows = [
            *await db.api["jobs"]
            .find({"$and": [*parts, {"ends_at": {"$type": "date", "$lte": past}}]}, PLACE_FIELDS, hint="ending")
            .to_list(),
            *await db.api["jobs"]
            .find({"$and": [*parts, {"end_at": {"$type": "date"}}]}, PLACE_FIELDS, hint="with_end")
            .to_list(),
        ]
    by_id = {d["_id"]: d for d in rows if next_of_job(d, q.since_ms) is None}
    return [by_id[i] for i in sorted(by_id)]


async def _not_active(db: Database, q: JobListQuery, count: int) -> list[Document]:
    """Section 2: the newest first."""
    states = [s for s in q.filter.states if s != ACTIVE]
    if not states:
        return []
    parts: list[Document] = [{"state": {"$in": states}}, *conditions(q.filter)]
    if q.after is not None and q.after.section == 2:
        at = DatetimeMS(int(q.after.value))
        parts += [
            {"created_at": {"$lte": at}},
            {"$or": [{"created_at": {"$lt": at}}, {"_id": {"$gt": q.after.id}}]},
        ]
    with operation():
        return (
            await db.api["jobs"]
            .find({"$and": parts}, PLACE_FIELDS, hint="by_state", batch_size=count + 1)
            .sort([("created_at", -1), ("_id", 1)])
            .limit(count)
            .to_list()
        )
