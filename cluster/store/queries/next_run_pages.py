"""Jobs in the order of their next run, by walking the schedules in the order of theirs (`next_runs`).

section 0  jobs that have a next run, by (next run, schedule, id)
section 1  active jobs that have none: by (last run, id)
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
ACTIVE, COMPLETED = JobState.ACTIVE.value, JobState.COMPLETED.value


async def walk(db: Database, q: JobListQuery, count: int) -> list[Document]:
    """The next `count` jobs behind `q.after` of section 0. Raises `StoreError`."""
    return await _with_next_run(db, q, count, None) or []


async def walk_some(db: Database, q: JobListQuery, count: int, most: int) -> list[Document] | None:
    """As `walk`; None if more than `most` jobs would be read, whatever else the filter says. Raises `StoreError`."""
    return await _with_next_run(db, q, count, most)


def behind(q: JobListQuery, section: int, found: int) -> JobListQuery | None:
    """The list of those of section 1 or 2 that are to follow `found` jobs, in an order that an index has; None if there is
    none.
    """
    states = tuple(s for s in q.filter.states if (s == ACTIVE) == (section == 1))
    after = None if q.after is None or q.after.section < section else Place(0, q.after.value, q.after.id)
    if not states or q.before_ms is not None or found > q.limit or (q.after is not None and q.after.section > section):
        return None
    return replace(
        q,
        filter=replace(q.filter, states=states),
        order="ended" if section == 1 else "notActive" if _keeps_places(q) else "createdAt",
        descending=section == 2,
        after=after,
        limit=q.limit - found,
    )


def soonest(q: JobListQuery) -> JobListQuery:
    """The same jobs as `q`, from the first one in the order of the next run."""
    return replace(q, order="nextRunAt", descending=False, after=None)


def place_of(d: Document, q: JobListQuery) -> Place:
    """The place of a job in the order of the next run."""
    due = due_of(d, q)
    if due is not None:
        return Place(0, due, d["_id"], str(d["schedule_key"]))
    if d["state"] == ACTIVE:
        return Place(1, instant(d.get("last_at")) or 0, d["_id"])
    return Place(2, instant(d["created_at"]) or 0, d["_id"])


def due_of(d: Document, q: JobListQuery) -> int | None:
    """When a job was due next at the instant that the order is as of.

    A one-off job that ran since is completed by now, and keeps its place: behind the active ones it would be listed twice.
    """
    if d["state"] != COMPLETED or not _keeps_places(q):
        return next_of_job(d, q.since_ms)
    first = instant(d.get("first_at"))
    return first if first is not None and first > q.since_ms else None


def _keeps_places(q: JobListQuery) -> bool:
    """Whether a list has both active and completed jobs."""
    return ACTIVE in q.filter.states and COMPLETED in q.filter.states and q.before_ms is None


async def _with_next_run(db: Database, q: JobListQuery, count: int, most: int | None) -> list[Document] | None:
    """Jobs of section 0: those that their schedule's row has come to, and those that are to begin later."""
    if ACTIVE not in q.filter.states or (q.after is not None and q.after.section > 0):
        return []
    order, begin = await asyncio.gather(
        schedule_order(db, q.since_ms, q.lookahead_ms, descending=q.descending), _to_begin(db, q, count, most)
    )
    if begin is None:
        return None
    later, later_than_all = begin
    begun = await _begun(db, q, count, order, (later_than_all, most))
    if begun is None:
        return None
    sign = -1 if q.descending else 1
    placed = [((p.value, p.key, p.id), d) for d in (*later, *begun) if (p := place_of(d, q)).section == 0]
    return [d for _, d in sorted(placed, key=lambda x: x[0], reverse=sign < 0)][:count]


async def _to_begin(
    db: Database, q: JobListQuery, count: int, most: int | None
) -> tuple[list[Document], int | None] | None:
    """Jobs whose first occurrence is still to come; and, if there may be more, the instant of the last of them.

    None if there may be more because only the first `most` were looked at.
    """
    sign = -1 if q.descending else 1
    # MongoDB takes bounds of an index that has some jobs only, if the type is named.
    first: Document = {"$type": "date", "$gt": DatetimeMS(q.since_ms)}
    if q.before_ms is not None:
        first["$lt"] = DatetimeMS(q.before_ms)
    parts: list[Document] = [{"first_at": first}]
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
    sort = [("first_at", sign), ("schedule_key", sign), ("_id", sign)]
    jobs = db.api["jobs"]
    last: list[Document] = []
    with operation():
        if most is not None:
            keys = jobs.find({"$and": parts}, {"_id": 0, "first_at": 1}, hint="to_begin").sort(sort)
            last = await keys.skip(most).limit(1).to_list()
            parts += [{"first_at": {"$gte" if sign < 0 else "$lte": d["first_at"]}} for d in last]
        states = [ACTIVE, COMPLETED] if _keeps_places(q) else [ACTIVE]
        wanted: Document = {"$and": [{"state": {"$in": states}}, *parts, *conditions(q.filter)]}
        cursor = jobs.find(wanted, PLACE_FIELDS, hint="to_begin", batch_size=count + 1)
        rows = await cursor.sort(sort).limit(count).to_list()
    if len(rows) < count:
        return None if last else (rows, None)
    return rows, int(rows[-1]["first_at"])


async def _begun(
    db: Database, q: JobListQuery, count: int, order: ScheduleOrder, bounds: tuple[int | None, int | None]
) -> list[Document] | None:
    """Jobs by the order of their schedules, up to an instant. None if that are more than so many jobs to read."""
    bound, most = bounds
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
            own = _of_schedules(q, chunk, behind_id if resumed else None)
            if most is not None and (most := most - await _count(db, own, most + 1)) < 0:
                return None
            at_most = count if len(chunk) == 1 else 2 * count
            rows = await _rows(db, q, own, at_most)
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


def _of_schedules(q: JobListQuery, chunk: list[tuple[int, str]], behind_id: str | None) -> Document:
    own: Document = {"schedule_key": {"$in": [key for _, key in chunk]}, "state": ACTIVE}
    if behind_id is not None:
        own["_id"] = {"$lt" if q.descending else "$gt": behind_id}
    return own


async def _count(db: Database, own: Document, most: int) -> int:
    """How many jobs these schedules have, up to `most`: by the keys of the index."""
    with operation():
        return int(await db.api["jobs"].count_documents(own, limit=most, hint="by_schedule"))


async def _rows(db: Database, q: JobListQuery, own: Document, limit: int) -> list[Document]:
    sign = -1 if q.descending else 1
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
