"""What came of executions, per step of time and by tag, queue, host or job, added up by the database.

Records are found by an index: by id for a few jobs, else by when their retention ends, which follows from when they ended.
Before anything is added up it is asked, by the index alone, whether there are more than `MOST_RECORDS`. An execution counts
where it was planned: at its send time, or at its due time if it was tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store.history import DAY_MS, REOPENED
from cluster.store.meta import RETENTION_ID
from cluster.store.mongo.operation import operation
from cluster.store.queries.job_filter import conditions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobFilter

MOST_RECORDS = 100_000
MOST_MISSED = 2000
MOST_UNHAPPY = 20_000
"""Records of the index of what did not succeed that are looked at for missed ranges, those that ended last."""
UNHAPPY = frozenset({"cancelled", "dead", "failed", "missed", "skipped"})
MOST_OPEN = 50_000
FEW_JOBS = 200
NAMED_ROWS = 100
"""Of more names, those with most executions come by name; the others are added up (`REST`)."""
REST = "\0rest"
LATE_MS = 1000
"""A first attempt that left more than this after its planned time was late."""
LEAST_SLACK_MS = 120_000
MOST_SLACK_MS = 3_600_000
SPREAD_MS = DAY_MS
NAMES = {"tag": "$job.tags", "queue": "$job.queue", "host": "$job.host", "job": "$_id.job"}


@dataclass(frozen=True, slots=True)
class TimelineQuery:
    """Which time (ms, multiples of `step_s`), by what, of which jobs (None: all), as of `now_ms`."""

    from_ms: int
    until_ms: int
    step_s: int
    by: str | None
    filter: JobFilter | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class Cell:
    """`n` executions of one state in one step of a row; `late` of them were late, and `retried` of their attempts were tried
    again.
    """

    name: str | None
    step: int
    state: str
    n: float
    late: int = 0
    retried: int = 0


class TooManyRecords(Exception):
    """More than `MOST_RECORDS` ended in this time. `since_ms`: from when on there are few enough; None: not known."""

    def __init__(self, since_ms: int | None) -> None:
        self.since_ms = since_ms
        super().__init__("too many records")


async def retentions(db: Database, default_days: float) -> list[float]:
    """The retentions (days) under which results are kept. Reads all jobs: keep the answer for a while."""
    with operation():
        shortest = await db.api["meta"].find_one({"_id": RETENTION_ID})
        own = await db.api["jobs"].distinct("retention_days")
    found = {float(d) for d in own if d is not None} | {default_days}
    return sorted(found | ({float(shortest["days"])} if shortest else set()))


async def few_jobs(db: Database, wanted: JobFilter | None) -> list[str] | None:
    """The ids of the jobs that match, if they are few; None: they are many, or all."""
    if wanted is None:
        return None
    query: Document = {"$and": [{"state": {"$in": list(wanted.states)}}, *conditions(wanted)]}
    with operation():
        found = await db.api["jobs"].find(query, {"_id": 1}).limit(FEW_JOBS + 1).to_list()
    return [d["_id"] for d in found] if len(found) <= FEW_JOBS else None


async def ended(db: Database, q: TimelineQuery, kept_days: Sequence[float], ids: list[str] | None) -> list[Cell]:
    """What ended, but for what was missed. `ids`: of few jobs. Raises `TooManyRecords`."""
    if ids == []:
        return []
    records = _by_id(q, ids) if ids is not None else _by_end(q, kept_days)
    with operation():
        count = await db.api["history"].count_documents({"$or": records}, limit=MOST_RECORDS + 1)
    if count > MOST_RECORDS:
        raise TooManyRecords(None if ids is not None else await _enough_since(db, records, kept_days))
    attempts = {"$size": {"$ifNull": ["$attempts", []]}}
    retried = {"$gt": [attempts, 1]}
    bounds = {"$gte": DatetimeMS(q.from_ms), "$lt": DatetimeMS(q.until_ms)}
    pipeline: list[Document] = [
        {"$match": {"$or": records, "state": {"$nin": ["missed", REOPENED]}}},
        {
            "$project": {
                "job": "$job_id",
                "state": 1,
                "at": {"$cond": [retried, "$due_at", "$send_at"]},
                "late": {"$cond": [{"$gt": ["$drift_ms", LATE_MS]}, 1, 0]},
                "retried": {"$max": [0, {"$subtract": [attempts, 1]}]},
            }
        },
        {"$match": {"at": bounds}},
        {
            "$group": {
                "_id": {**({} if _needs_no_job(q) else {"job": "$job"}), "step": _step(q), "state": "$state"},
                "n": {"$sum": 1},
                "late": {"$sum": "$late"},
                "retried": {"$sum": "$retried"},
            }
        },
        *_by_name(q, filtered=ids is None),
    ]
    return await _cells(db, "history", pipeline)


async def unfinished(db: Database, q: TimelineQuery, ids: list[str] | None) -> list[Cell]:
    """What was due before now and has not ended. Scans what is owed, which is little, and never more than `MOST_OPEN`."""
    until = min(q.until_ms, q.now_ms)
    if ids == [] or until <= q.from_ms:
        return []
    bounds = {"$gte": DatetimeMS(q.from_ms), "$lt": DatetimeMS(until)}
    jobs: Document = {} if ids is None else {"job_id": {"$in": ids}}
    pipeline: list[Document] = [
        {"$match": {"due_at": bounds, "send_at": {"$lte": DatetimeMS(q.now_ms)}, **jobs}},
        {"$limit": MOST_OPEN},
        {"$project": {"job": "$job_id", "at": "$due_at"}},
        {
            "$group": {
                "_id": {
                    **({} if _needs_no_job(q) else {"job": "$job"}),
                    "step": _step(q),
                    "state": {"$literal": "unfinished"},
                },
                "n": {"$sum": 1},
                "late": {"$sum": 0},
                "retried": {"$sum": 0},
            }
        },
        *_by_name(q, filtered=ids is None),
    ]
    return await _cells(db, "executions", pipeline)


async def missed(db: Database, q: TimelineQuery, kept_days: Sequence[float], ids: list[str] | None) -> list[Cell]:
    """Occurrences that were missed, each range spread evenly over its time. Whenever they were recorded, they count where
    they were due; of more than `MOST_MISSED` ranges, those that were recorded last.
    """
    if ids == []:
        return []
    recorded_since = {"$gte": DatetimeMS(q.from_ms + int(min(kept_days) * DAY_MS))}
    query: Document = {
        "state": "missed",
        "due_at": {"$lt": DatetimeMS(q.until_ms)},
        "last_at": {"$gte": DatetimeMS(q.from_ms)},
    }
    if ids is not None:
        query["job_id"] = {"$in": ids}
    named = q.by is not None or (q.filter is not None and ids is None)
    pipeline: list[Document] = [
        {"$match": {"state": {"$in": sorted(UNHAPPY)}, "expire_at": recorded_since}},
        {"$sort": {"expire_at": -1}},
        {"$limit": MOST_UNHAPPY},
        {"$match": query},
        {"$limit": MOST_MISSED},
        {"$project": {"_id": {"job": "$job_id"}, "first": "$first_at", "last": "$last_at", "count": 1}},
        *(_lookup(q, filtered=ids is None) if named else []),
        {"$project": {"name": NAMES.get(q.by or "") or {"$literal": None}, "first": 1, "last": 1, "count": 1}},
    ]
    with operation():
        rows = await (await db.api["history"].aggregate(pipeline, hint="unhappy_by_end")).to_list()
    return [cell for d in rows for cell in _spread(q, d)]


def _spread(q: TimelineQuery, d: Document) -> list[Cell]:
    step_ms = q.step_s * 1000
    first, last, count = int(d["first"]), int(d["last"]), int(d.get("count", 1))
    name = d.get("name")
    if last == first:
        return [Cell(name, (first - q.from_ms) // step_ms, "missed", count)]
    per_ms = count / (last - first)
    low, high = max(first, q.from_ms), min(last, q.until_ms - 1)
    cells = []
    for step in range((low - q.from_ms) // step_ms, (high - q.from_ms) // step_ms + 1):
        begin = max(low, q.from_ms + step * step_ms)
        end = min(high, q.from_ms + (step + 1) * step_ms)
        cells.append(Cell(name, step, "missed", (end - begin) * per_ms))
    return cells


def _by_id(q: TimelineQuery, ids: list[str]) -> list[Document]:
    low = max(0, q.from_ms - SPREAD_MS)
    return [{"_id": {"$gte": f"{i}:{low:013d}", "$lt": f"{i}:{max(0, q.until_ms):013d}"}} for i in ids]


def _by_end(q: TimelineQuery, kept_days: Sequence[float]) -> list[Document]:
    """Ranges of `expire_at`, one a retention, without overlaps."""
    slack = min(MOST_SLACK_MS, max(LEAST_SLACK_MS, (q.until_ms - q.from_ms) // 4))
    ranges: list[list[int]] = []
    for days in sorted(kept_days):
        kept = int(days * DAY_MS)
        low, high = q.from_ms + kept, min(q.until_ms + slack, q.now_ms + LEAST_SLACK_MS) + kept
        if ranges and low <= ranges[-1][1]:
            ranges[-1][1] = max(ranges[-1][1], high)
        else:
            ranges.append([low, high])
    return [{"expire_at": {"$gte": DatetimeMS(low), "$lt": DatetimeMS(high)}} for low, high in ranges]


async def _enough_since(db: Database, records: list[Document], kept_days: Sequence[float]) -> int | None:
    with operation():
        edge = (
            await db.api["history"]
            .find({"$or": records}, {"expire_at": 1, "_id": 0})
            .sort("expire_at", -1)
            .skip(MOST_RECORDS)
            .limit(1)
            .to_list()
        )
    return int(edge[0]["expire_at"]) - int(max(kept_days) * DAY_MS) if edge and len(kept_days) == 1 else None


def _needs_no_job(q: TimelineQuery) -> bool:
    return q.by is None and q.filter is None


def _step(q: TimelineQuery) -> Document:
    return {"$toInt": {"$floor": {"$divide": [{"$subtract": ["$at", DatetimeMS(q.from_ms)]}, q.step_s * 1000]}}}


def _by_name(q: TimelineQuery, *, filtered: bool) -> list[Document]:
    """From counts by job to counts by name; jobs that do not match are left out."""
    stages: list[Document] = []
    name: object = NAMES.get(q.by or "")
    if not _needs_no_job(q) and (q.by not in (None, "job") or (filtered and q.filter is not None)):
        cell = {"step": "$_id.step", "state": "$_id.state", "n": "$n", "late": "$late", "retried": "$retried"}
        stages = [  # so that each job is read once
            {"$group": {"_id": {"job": "$_id.job"}, "cells": {"$push": cell}}},
            *_lookup(q, filtered=filtered),
            {"$unwind": "$cells"},
            {
                "$project": {
                    "_id": {"job": "$_id.job", "step": "$cells.step", "state": "$cells.state"},
                    "job": 1,
                    "n": "$cells.n",
                    "late": "$cells.late",
                    "retried": "$cells.retried",
                }
            },
        ]
    counts = ("n", "late", "retried")
    sums = {what: {"$sum": f"${what}"} for what in counts}
    of_rest = {"step": "$cells.step", "state": "$cells.state"}
    sums_of_rest = {what: {"$sum": f"$cells.{what}"} for what in counts}
    return [
        *stages,
        {"$group": {"_id": {"name": name, "step": "$_id.step", "state": "$_id.state"}, **sums}},
        {
            "$group": {
                "_id": "$_id.name",
                "total": {"$sum": "$n"},
                "cells": {
                    "$push": {"step": "$_id.step", "state": "$_id.state", **{what: f"${what}" for what in counts}}
                },
            }
        },
        {"$sort": {"total": -1, "_id": 1}},
        {
            "$facet": {
                "named": [{"$limit": NAMED_ROWS}],
                "rest": [
                    {"$skip": NAMED_ROWS},
                    {"$unwind": "$cells"},
                    {"$group": {"_id": of_rest, **sums_of_rest}},
                ],
            }
        },
    ]


def _lookup(q: TimelineQuery, *, filtered: bool) -> list[Document]:
    """Read the job of `_id.job`, once for each document, and leave out what does not match or has no name."""
    of_job: list[Document] = []
    if filtered and q.filter is not None:
        of_job.append({"$match": {"$and": [{"state": {"$in": list(q.filter.states)}}, *conditions(q.filter)]}})
    of_job.append({"$project": {"_id": 0, "tags": 1, "queue": 1, "host": 1}})
    joined: list[Document] = [
        {"$lookup": {"from": "jobs", "localField": "_id.job", "foreignField": "_id", "pipeline": of_job, "as": "job"}},
        {"$unwind": "$job"},
    ]
    if q.by == "tag":
        joined.append({"$unwind": "$job.tags"})
    elif q.by == "queue":
        joined.append({"$match": {"job.queue": {"$ne": None}}})
    return joined


async def _cells(db: Database, collection: str, pipeline: list[Document]) -> list[Cell]:
    with operation():
        found = (await (await db.api[collection].aggregate(pipeline)).to_list())[0]
    cells = [_cell(d["_id"], c, c) for d in found["named"] for c in d["cells"]]
    return cells + [_cell(REST, d["_id"], d) for d in found["rest"]]


def _cell(name: str | None, place: Document, counts: Document) -> Cell:
    return Cell(
        name=name,
        step=place["step"],
        state=place["state"],
        n=counts["n"],
        late=counts["late"],
        retried=counts["retried"],
    )
