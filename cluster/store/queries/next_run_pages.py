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
from cluster.store.queries.job_filter import LISTED_FIELDS, Found, Place, conditions
from cluster.store.queries.next_runs import next_of_job, schedule_order

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery
    from cluster.store.queries.next_runs import ScheduleOrder

FIRST_SCHEDULES, FEW_SCHEDULES, MOST_SCHEDULES = 4, 2, 256
"""Schedules whose jobs are read at once."""
BEHIND_ALL_KEYS = "\U0010ffff"
ACTIVE, COMPLETED = JobState.ACTIVE.value, JobState.COMPLETED.value
COUNTED_MS = 10_000
"""How long a count is taken for true: it decides how a page is found, and not what is on it."""
KEPT = 1000
_few_to_begin: dict[str, tuple[int, bool]] = {}
"""When it was counted, and whether no more jobs are to begin, by the database and the bound."""
_needed: dict[str, int] = {}
"""The jobs of how many schedules have filled the last page, by the database, the filter and the direction: so many are read
at once for the next one.
"""


async def walk(db: Database, q: JobListQuery, count: int) -> list[Document]:
    """The next `count` jobs behind `q.after` of section 0. Raises `StoreError`."""
    return (await _with_next_run(db, q, count, None)).jobs


async def walk_some(db: Database, q: JobListQuery, count: int, most: int) -> Found:
    """As `walk`, but about `most` jobs are read, whatever else the filter says. Raises `StoreError`."""
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
    first, last = instant(d.get("first_at")), instant(d.get("last_at"))
    is_over = last is not None and last <= q.since_ms
    return first if first is not None and first > q.since_ms and not is_over else None


def to_run(since_ms: int) -> Document:
    """The condition that leaves out jobs whose last run is over, or that never run.

    A calendar may have moved the first occurrence of a job behind its end: such a job has no place by it.
    """
    return {"last_at": {"$not": {"$lte": DatetimeMS(since_ms)}}}


def _keeps_places(q: JobListQuery) -> bool:
    """Whether a list has both active and completed jobs."""
    return ACTIVE in q.filter.states and COMPLETED in q.filter.states and q.before_ms is None


async def _with_next_run(db: Database, q: JobListQuery, count: int, most: int | None) -> Found:
    """Jobs of section 0: those that their schedule's row has come to, and those that are to begin later."""
    if ACTIVE not in q.filter.states or (q.after is not None and q.after.section > 0):
        return Found([])
    start = None if q.after is None else (int(q.after.value), q.after.key)
    if start is None and q.descending and q.before_ms is not None:
        start = (q.before_ms - 1, BEHIND_ALL_KEYS)
    order, (later, last) = await asyncio.gather(
        schedule_order(db, q.since_ms, q.lookahead_ms, start, descending=q.descending), _to_begin(db, q, count, most)
    )
    bound = int(later[-1]["first_at"]) if len(later) >= count else last
    begun = await _Begun(db, q, count, most, start).read(order, bound)
    sign = -1 if q.descending else 1
    placed = [(_rank(p), d) for d in (*later, *begun.jobs) if (p := place_of(d, q)).section == 0]
    until = begun.until
    if last is not None and (until is None or sign * last < sign * int(until.value)):
        # All that are due at this instant were looked at, whatever their schedule.
        until = Place(0, last, "", "") if q.descending else Place(0, last, BEHIND_ALL_KEYS, BEHIND_ALL_KEYS)
    if until is not None:
        end = _rank(until)
        placed = [x for x in placed if (x[0] >= end if q.descending else x[0] <= end)]
    placed.sort(key=lambda x: x[0], reverse=q.descending)
    return Found([d for _, d in placed][:count], until if len(placed) < count else None)


def _rank(p: Place) -> tuple[int, str, str]:
    return int(p.value), p.key, p.id


async def _to_begin(db: Database, q: JobListQuery, count: int, most: int | None) -> tuple[list[Document], int | None]:
    """Jobs whose first occurrence is still to come; and up to which of their instants they were looked at, if not to the end
    because they are more than `most`.
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
        if most is not None and not await _are_few_to_begin(db, q.since_ms, most):
            keys = jobs.find({"$and": parts}, {"_id": 0, "first_at": 1}, hint="to_begin").sort(sort)
            last = await keys.skip(most).limit(1).to_list()
            parts += [{"first_at": {"$gte" if sign < 0 else "$lte": d["first_at"]}} for d in last]
        states = [ACTIVE, COMPLETED] if _keeps_places(q) else [ACTIVE]
        wanted: Document = {"$and": [{"state": {"$in": states}}, to_run(q.since_ms), *parts, *conditions(q.filter)]}
        cursor = jobs.find(wanted, LISTED_FIELDS, hint="to_begin", batch_size=count + 1)
        rows = await cursor.sort(sort).limit(count).to_list()
    return rows, int(last[0]["first_at"]) if last and len(rows) < count else None


async def _are_few_to_begin(db: Database, since_ms: int, most: int) -> bool:
    """Whether no more than so many jobs are to begin later, as of some seconds ago: then all of them may be read."""
    name = f"{db.api.name} {most}"
    known_at, are_few = _few_to_begin.get(name, (0, False))
    if abs(since_ms - known_at) > COUNTED_MS:
        later = {"first_at": {"$type": "date", "$gt": DatetimeMS(since_ms)}}
        are_few = await db.api["jobs"].count_documents(later, limit=most + 1, hint="to_begin") <= most
        if len(_few_to_begin) >= KEPT:
            _few_to_begin.clear()
        _few_to_begin[name] = since_ms, are_few
    return are_few


class _Begun:
    """Jobs by the order of their schedules, up to an instant. About `most` of them are read; None: as many as it takes."""

    def __init__(
        self, db: Database, q: JobListQuery, count: int, most: int | None, start: tuple[int, str] | None
    ) -> None:
        self._db = db
        self._q = q
        self._count = count
        self._most = self._left = most
        self._resumed = start
        self._behind_id = None if q.after is None else q.after.id
        self._take = FIRST_SCHEDULES
        self._last: tuple[int, str] | None = None
        self._found: list[Document] = []
        self._until: Place | None = None

    async def read(self, order: ScheduleOrder, bound: int | None) -> Found:
        """The next jobs, and up to where they were looked at."""
        key = f"{self._db.api.name} {self._q.filter} {self._q.descending}"
        self._take, needed = _needed.get(key, FIRST_SCHEDULES), 0
        async with aclosing(_bounded(order.each(self._db), self._q, bound)) as schedules:
            waiting: list[tuple[int, str]] = []
            while len(self._found) < self._count and self._until is None:
                while len(waiting) < self._take and (following := await anext(schedules, None)) is not None:
                    waiting.append(following)
                if not waiting:
                    break
                if waiting[0] != self._resumed:
                    self._behind_id = None
                # Many jobs of one schedule are read by their ids; of few, the keys before a place are passed over.
                chunk = waiting[: 1 if self._behind_id is not None and self._take <= FEW_SCHEDULES else self._take]
                read = await self._read(chunk)
                needed += len(read)
                del waiting[: len(read)]
                if read:
                    self._last = read[-1]
        if len(_needed) >= KEPT:
            _needed.clear()
        _needed[key] = max(1, min(MOST_SCHEDULES, needed))
        return Found(self._found, self._until)

    async def _read(self, chunk: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """Read the jobs of the first schedules of a chunk. Returns those of which all are read."""
        own = _of_schedules(self._q, chunk, self._behind_id)
        at_most = self._count if len(chunk) == 1 else 2 * self._count
        if self._left is not None:
            # By the keys of the index, and first: what need not be read costs more than the question.
            read = await _count(self._db, own, self._left + 1)
            if read > self._left:
                await self._end_within(chunk, own)
                return []
            self._left -= read
        rows = await _rows(self._db, self._q, own, at_most)
        if len(rows) < at_most:
            self._take = min(MOST_SCHEDULES, 2 * self._take)
            self._found += _due_as_scheduled(rows, chunk)
            return chunk
        if len(chunk) > 1:
            chunk = _complete(chunk, rows[-1]["schedule_key"], descending=self._q.descending)
            self._take = len(chunk) or 1
            self._found += _due_as_scheduled(rows, chunk)
            return chunk
        self._found += _due_as_scheduled(rows, chunk)
        self._resumed, self._behind_id = chunk[0], rows[-1]["_id"]
        return []

    async def _end_within(self, chunk: list[tuple[int, str]], own: Document) -> None:
        """More jobs of a chunk would have to be read than are left to read: end behind what is read, if there is anything.

        Otherwise take fewer schedules, and of one the first jobs.
        """
        if self._last is not None and self._left != self._most:
            self._until = Place(0, self._last[0], "" if self._q.descending else BEHIND_ALL_KEYS, self._last[1])
        elif len(chunk) > 1:
            self._take = len(chunk) // 2
        else:
            due, key = chunk[0]
            last_id = await _id_at(self._db, self._q, own, max(self._left or 0, self._count))
            self._until = Place(0, due, last_id, key)
            ids = {**own.get("_id", {}), "$gte" if self._q.descending else "$lte": last_id}
            self._found += _due_as_scheduled(await _rows(self._db, self._q, {**own, "_id": ids}, self._count), chunk)


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
    """The active jobs of these schedules; of the first one those behind an id, if there is one."""
    own: Document = {"schedule_key": {"$in": [key for _, key in chunk]}, "state": ACTIVE}
    if behind_id is None:
        return own
    if len(chunk) == 1:
        return {**own, "_id": {"$lt" if q.descending else "$gt": behind_id}}
    before = {"schedule_key": chunk[0][1], "_id": {"$gte" if q.descending else "$lte": behind_id}}
    return {**own, "$nor": [before]}


async def _count(db: Database, own: Document, most: int) -> int:
    """How many jobs these schedules have, up to `most`: by the keys of the index."""
    with operation():
        return int(await db.api["jobs"].count_documents(own, limit=most, hint="by_schedule"))


async def _id_at(db: Database, q: JobListQuery, own: Document, number: int) -> str:
    """The id of one of the jobs of a schedule that has more of them: by the keys of the index."""
    with operation():
        cursor = db.api["jobs"].find(own, {"_id": 1}, hint="by_schedule").sort("_id", -1 if q.descending else 1)
        found = await cursor.skip(number - 1).limit(1).to_list()
    # Fewer than a moment ago: then all of them are read.
    return str(found[0]["_id"]) if found else "" if q.descending else BEHIND_ALL_KEYS


async def _rows(db: Database, q: JobListQuery, own: Document, limit: int) -> list[Document]:
    """Jobs of these schedules by their keys, up to `limit` that match."""
    sign = -1 if q.descending else 1
    begun = {"first_at": {"$not": {"$gt": DatetimeMS(q.since_ms)}}}
    wanted = {"$and": [own, begun, *conditions(q.filter)]}
    with operation():
        cursor = db.api["jobs"].find(wanted, LISTED_FIELDS, hint="by_schedule", batch_size=limit + 1)
        return await cursor.sort([("schedule_key", sign), ("state", sign), ("_id", sign)]).limit(limit).to_list()


def _complete(chunk: list[tuple[int, str]], last_key: str, *, descending: bool) -> list[tuple[int, str]]:
    """The first schedules of a chunk of which every job was read, up to a schedule of which more may follow."""
    return list(takewhile(lambda s: s[1] > last_key if descending else s[1] < last_key, chunk))


def _due_as_scheduled(rows: list[Document], chunk: list[tuple[int, str]]) -> list[Document]:
    """The jobs of these schedules whose end is not before their next occurrence."""
    due = {key: at for at, key in chunk}
    # A key that is an array is found by what is in it.
    ours = [d for d in rows if isinstance(d["schedule_key"], str) and d["schedule_key"] in due]
    return [d for d in ours if (end := instant(d.get("end_at"))) is None or due[d["schedule_key"]] <= end]
