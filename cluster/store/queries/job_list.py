"""Pages of jobs for the API: filtered, searched, in one of four orders. Nothing is written here.

A page is found in two steps: first the ids, in order, then the documents. If few jobs (`FEW`) meet the conditions that
have an index, they are found by it and sorted. Otherwise the jobs are read in order, and those that do not match are
passed over. So no page reads all jobs.

A cursor names the last job's place in the order, not a number of jobs. So a job that is created, deleted or moved between
two pages neither repeats nor hides another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.store.jobs import WITHOUT_PERIODS, stored_job
from cluster.store.mongo.codec import instant
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.operation import operation
from cluster.store.queries import next_run_pages
from cluster.store.queries.job_filter import PLACE_FIELDS, Place, conditions, selective
from cluster.store.queries.next_runs import learn, next_of_job

if TYPE_CHECKING:
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery

FEW = 1000
"""So many jobs are read and sorted within some 15 ms."""
CHUNK = 500
PAGE_BYTES = 4 * 1024 * 1024
"""A page ends early when its documents come to this many bytes."""


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job with what is derived or rolled up for it (ms)."""

    job: StoredJob
    next_run_ms: int | None
    last_run_ms: int | None
    last_state: str | None
    failing: bool


@dataclass(frozen=True, slots=True)
class JobList:
    """A page of jobs; `unreadable`: by id, why others of the page cannot be read. `after`: None on the last page."""

    jobs: tuple[ListedJob, ...]
    unreadable: dict[str, str]
    after: Place | None


@dataclass(frozen=True, slots=True)
class _Order:
    """An order that an index of `jobs` has by itself: the states first, then this field, then the id."""

    field: str
    index: str
    kind: str
    id_sign: int = 1
    """In which direction the id runs in the index, relative to the field."""


ORDERS = {
    "createdAt": _Order("created_at", "by_state", "date", id_sign=-1),
    "name": _Order("name", "by_name", "string"),
    "lastRunAt": _Order("last_run_at", "by_last_run", "date"),
}


async def page(db: Database, q: JobListQuery) -> JobList:
    """A page of jobs. Raises `StoreError`."""
    few = await _few_ids(db, q)
    if few is not None:
        # Where the order is derived it is made here, of all of them; else MongoDB sorts, and sends no more than the page.
        is_derived = q.order == "nextRunAt" or q.before_ms is not None
        found = await (_sorted_here(db, q, few) if is_derived else _walk(db, q, few))
    elif q.order == "nextRunAt":
        found = await next_run_pages.walk(db, q, q.limit + 1)
    else:
        found = await _walk(db, q)
    ids, size = [], 0
    for d in found[: q.limit]:
        ids.append(d["_id"])
        size += d["size"]
        if size > PAGE_BYTES:
            break
    after = place_of(found[len(ids) - 1], q) if len(found) > len(ids) else None
    return await _documents(db, ids, q, after)


def place_of(d: Document, q: JobListQuery) -> Place:
    """The place of a job in the order of a query, from a document with `PLACE_FIELDS`."""
    if q.order == "nextRunAt":
        return next_run_pages.place_of(d, q.since_ms)
    value = d.get(ORDERS[q.order].field)
    if value is None:
        return Place(1, 0, d["_id"])
    return Place(0, value if isinstance(value, str) else int(value), d["_id"])


async def _few_ids(db: Database, q: JobListQuery) -> list[str] | None:
    """The ids of the jobs that meet the conditions with an index, if they are few: the others are checked on them."""
    narrowing = selective(q.filter)
    if narrowing:
        # One condition is answered by its index. Of several, MongoDB finds out which index promises fewest jobs.
        hint, query = narrowing[0] if len(narrowing) == 1 else (None, {"$and": [c for _, c in narrowing]})
        with operation():
            documents = await db.api["jobs"].find(query, {"_id": 1}, hint=hint).limit(FEW + 1).to_list()
        if len(documents) <= FEW:
            return [d["_id"] for d in documents]
    if q.before_ms is not None and q.order != "nextRunAt":
        documents = await next_run_pages.walk(db, next_run_pages.soonest(q), FEW + 1)
        if len(documents) <= FEW:
            return [d["_id"] for d in documents]
    return None


async def _sorted_here(db: Database, q: JobListQuery, ids: list[str]) -> list[Document]:
    if not ids:
        return []
    query: Document = {"$and": [{"_id": {"$in": ids}, "state": {"$in": list(q.filter.states)}}, *conditions(q.filter)]}
    with operation():
        documents = await db.api["jobs"].find(query, PLACE_FIELDS, hint="_id_").to_list()
    await _learn(db, q, documents)
    placed = [(place_of(d, q), d) for d in documents if _in_time(d, q)]
    rest = [(_rank(place, q), d) for place, d in placed]
    if q.after is not None:
        last = _rank(q.after, q)
        rest = [(rank, d) for rank, d in rest if rank > last]
    return [d for _, d in sorted(rest, key=lambda r: r[0])[: q.limit + 1]]


class _Reversed(str):
    """A text that sorts in the reverse order."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)

    def __gt__(self, other: str) -> bool:
        return str.__lt__(self, other)


def _rank(place: Place, q: JobListQuery) -> tuple[Any, ...]:
    """What sorts as the order does. Sections ascend whichever the direction."""
    if q.order == "nextRunAt" and place.section:
        return (place.section, -int(place.value), place.id)
    sign = -1 if q.descending else 1
    id_sign = sign if q.order == "nextRunAt" else sign * ORDERS[q.order].id_sign

    def directed(value: str | int, direction: int) -> str | int:
        return (direction * value) if isinstance(value, int) else value if direction > 0 else _Reversed(value)

    return (
        place.section,
        directed(place.value, sign),
        directed(place.key, sign),
        directed(place.id, id_sign),
    )


def _in_time(d: Document, q: JobListQuery) -> bool:
    if q.before_ms is None:
        return True
    due = next_of_job(d, q.since_ms)
    return due is not None and due < q.before_ms


async def _walk(db: Database, q: JobListQuery, few: list[str] | None = None) -> list[Document]:
    """The next jobs by the index of the order, or of these few ones: first those that have the field, then those without."""
    if few == []:
        return []
    found: list[Document] = []
    sections = (0,) if q.order == "createdAt" else (0, 1)
    for section in sections:
        if q.after is not None and section < q.after.section:
            continue
        after = q.after if q.after is not None and q.after.section == section else None
        while len(found) <= q.limit:
            wanted = q.limit + 1 - len(found) if q.before_ms is None else CHUNK
            rows = await _rows(db, q, (section, after), wanted, few)
            if q.before_ms is not None:
                await _learn(db, q, rows)
            found += [d for d in rows if _in_time(d, q)]
            if len(rows) < wanted:
                break
            after = place_of(rows[-1], q)
    return found[: q.limit + 1]


async def _rows(
    db: Database, q: JobListQuery, begin: tuple[int, Place | None], limit: int, few: list[str] | None
) -> list[Document]:
    """Of one section, those behind a place of it."""
    order = ORDERS[q.order]
    section, after = begin
    sign = -1 if q.descending else 1
    id_sign = sign * order.id_sign
    field, beyond, id_beyond = order.field, "$gt" if sign > 0 else "$lt", "$gt" if id_sign > 0 else "$lt"
    parts: list[Document] = [{"state": {"$in": list(q.filter.states)}}, *conditions(q.filter)]
    if section:
        parts.append({field: None})
        parts += [] if after is None else [{"_id": {id_beyond: after.id}}]
    elif after is None:
        parts.append({field: {"$type": order.kind}})
    else:
        # The first condition bounds the index; the second leaves out what is in the same place before the last job.
        value: Any = after.value if isinstance(after.value, str) else DatetimeMS(after.value)
        parts += [
            {field: {f"{beyond}e": value}},
            {"$or": [{field: {beyond: value}}, {field: value, "_id": {id_beyond: after.id}}]},
        ]
    # With another condition, its index may be the better one, if those that meet it all come late in the order.
    hint = None if selective(q.filter) else order.index
    if few is not None:
        parts.append({"_id": {"$in": few}})
        hint = "_id_"
    with operation():
        return (
            await db.api["jobs"]
            .find({"$and": parts}, PLACE_FIELDS, hint=hint)
            .sort([(field, sign), ("_id", id_sign)])
            .limit(limit)
            .to_list()
        )


async def _learn(db: Database, q: JobListQuery, documents: list[Document]) -> None:
    await learn(db, [str(d.get("schedule_key")) for d in documents], q.since_ms, q.lookahead_ms)


async def _documents(db: Database, ids: list[str], q: JobListQuery, after: Place | None) -> JobList:
    if not ids:
        return JobList((), {}, None)
    with operation():
        documents = await db.api["jobs"].find({"_id": {"$in": ids}}, WITHOUT_PERIODS).to_list()
    by_id = {d["_id"]: d for d in documents}
    await _learn(db, q, documents)

    def listed(d: Document) -> ListedJob:
        return ListedJob(
            job=stored_job(d, db.keyring),
            next_run_ms=next_of_job(d, q.since_ms),
            last_run_ms=instant(d.get("last_run_at")),
            last_state=d.get("last_state"),
            failing=d.get("failing") is True,
        )

    jobs, unreadable = decode_each("job", [by_id[i] for i in ids if i in by_id], listed)
    return JobList(tuple(jobs), unreadable, after)
