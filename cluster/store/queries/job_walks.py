"""Jobs in the order of a list, behind a place of it: by the index of the order, or those that meet one condition, sorted.

A walk reads jobs by an index that has the order, and passes over those that do not match. It may be bounded; then it may
find fewer jobs than there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation
from cluster.store.queries import narrowed_jobs, next_run_pages
from cluster.store.queries.job_filter import PLACE_FIELDS, Place, conditions, selective
from cluster.store.queries.next_runs import learn, next_of_job, next_of_schedule

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery
    from cluster.store.queries.narrowed_jobs import Narrowing

PASSED_OVER = 800
"""A bounded walk reads so many jobs: MongoDB finds its end, and reads them, within some 12 ms."""
FIRST_CHUNK, CHUNK = 300, 500
"""Jobs whose next run this process looks at, at once."""
SIZE: Document = {"$bsonSize": "$$ROOT"}


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


def place_of(d: Document, q: JobListQuery) -> Place:
    """The place of a job in the order of a query, from a document with `PLACE_FIELDS`."""
    if q.order == "nextRunAt":
        return next_run_pages.place_of(d, q.since_ms)
    value = d.get(ORDERS[q.order].field)
    if value is None:
        return Place(1, 0, d["_id"])
    return Place(0, value if isinstance(value, str) else int(value), d["_id"])


async def learn_schedules(db: Database, q: JobListQuery, documents: list[Document]) -> None:
    """Learn when the schedules of these jobs are due next."""
    await learn(db, [str(d.get("schedule_key")) for d in documents], q.since_ms, q.lookahead_ms)


# -- sorted by this process ----------------------------------------------------------------------------------------


async def sorted_here(db: Database, q: JobListQuery, narrowing: Narrowing) -> list[Document]:
    """The next jobs of those that meet a condition, in an order of which the next run is a part."""
    wanted: Document = {"$and": _matching(q)}
    if q.order == "nextRunAt":
        groups = await narrowed_jobs.read(db, narrowing, {"$match": wanted}, {"$group": _by_schedule(q.since_ms)})
        await learn(db, [str(g["_id"]) for g in groups], q.since_ms, q.lookahead_ms)
        return _by_next_run(q, groups)
    documents = await narrowed_jobs.read(db, narrowing, {"$match": wanted}, {"$project": PLACE_FIELDS})
    await learn_schedules(db, q, documents)
    ranked = [(_rank(place_of(d, q), q), d) for d in documents if _in_time(d, q)]
    if q.after is not None:
        last = _rank(q.after, q)
        ranked = [(rank, d) for rank, d in ranked if rank > last]
    return [d for _, d in sorted(ranked, key=lambda r: r[0])[: q.limit + 1]]


def _by_schedule(since_ms: int) -> Document:
    """A group of jobs for each schedule: the ids of those that are due whenever it is, and the others as documents.

    Nearly all jobs are of the first kind, and of these a node has to decode nothing but an id.
    """
    since = DatetimeMS(since_ms)
    is_due_with_it: Document = {
        "$and": [
            {"$eq": ["$state", JobState.ACTIVE.value]},
            # A date that is not there is smaller than every other.
            {"$lte": ["$active_from", since]},
            {"$lte": ["$start_at", since]},
            {"$lte": ["$end_at", None]},
        ]
    }
    others = {"_id": "$_id", **{name: f"${name}" for name in PLACE_FIELDS}}
    return {
        "_id": "$schedule_key",
        "ids": {"$push": {"$cond": [is_due_with_it, "$_id", "$$REMOVE"]}},
        "others": {"$push": {"$cond": [is_due_with_it, "$$REMOVE", others]}},
    }


def _by_next_run(q: JobListQuery, groups: list[Document]) -> list[Document]:
    """In the order of `next_run_pages`. A thousand jobs are sorted here, so nothing is made for each of them but a tuple."""
    due: list[tuple[int, str, str]] = []
    documents = {d["_id"]: d for g in groups for d in g["others"]}
    for g in groups:
        key, at = str(g["_id"]), next_of_schedule(str(g["_id"]), q.since_ms)
        if at is not None:
            due += [(at, key, name) for name in g["ids"]]
        else:  # it never runs again
            documents |= {name: _due_with(key, name) for name in g["ids"]}
    ending: list[str] = []
    rest: list[tuple[int, str]] = []
    for d in documents.values():
        at = next_of_job(d, q.since_ms)
        if at is not None:
            due.append((at, d["schedule_key"], d["_id"]))
        elif d["state"] == JobState.ACTIVE.value:
            ending.append(d["_id"])
        else:
            rest.append((-(instant(d["created_at"]) or 0), d["_id"]))
    if q.before_ms is not None:
        due, ending, rest = [x for x in due if x[0] < q.before_ms], [], []
    if q.after is not None:
        after = q.after
        place = (int(after.value), after.key, after.id)
        due = [x for x in due if after.section == 0 and (x < place if q.descending else x > place)]
        ending = [x for x in ending if after.section == 0 or (after.section == 1 and x > after.id)]
        rest = [x for x in rest if after.section < 2 or x > (-int(after.value), after.id)]
    due.sort(reverse=q.descending)
    wanted = due[: q.limit + 1]
    in_order = [documents.get(name) or _due_with(key, name) for _, key, name in wanted]
    others = [*sorted(ending), *(name for _, name in sorted(rest))]
    return [*in_order, *(documents[name] for name in others[: q.limit + 1 - len(in_order)])]


def _due_with(key: str, name: str) -> Document:
    """A job that is due whenever its schedule is, as far as its place is concerned."""
    return {"_id": name, "state": JobState.ACTIVE.value, "schedule_key": key}


class _Reversed(str):
    """A text that sorts in the reverse order."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)

    def __gt__(self, other: str) -> bool:
        return str.__lt__(self, other)


def _rank(place: Place, q: JobListQuery) -> tuple[Any, ...]:
    """What sorts as the order does. Sections ascend whichever the direction."""
    sign = -1 if q.descending else 1
    id_sign = sign * ORDERS[q.order].id_sign

    def directed(value: str | int, direction: int) -> str | int:
        return (direction * value) if isinstance(value, int) else value if direction > 0 else _Reversed(value)

    return (
        place.section,
        directed(place.value, sign),
        directed(place.id, id_sign),
    )


def _in_time(d: Document, q: JobListQuery) -> bool:
    if q.before_ms is None:
        return True
    due = next_of_job(d, q.since_ms)
    return due is not None and due < q.before_ms


# -- sorted by MongoDB ---------------------------------------------------------------------------------------------


async def of_narrowed(db: Database, q: JobListQuery, narrowing: Narrowing) -> list[Document]:
    """The next jobs of those that meet a condition: first those that have a value to sort by, then those without."""
    found: list[Document] = []
    for section, after in _sections(q):
        if len(found) <= q.limit:
            parts, sort = _behind(q, section, after)
            wanted = q.limit + 1 - len(found)
            found += await narrowed_jobs.read(
                db,
                narrowing,
                {"$match": {"$and": [*_matching(q), *parts]}},
                # Before they are sorted: a job may have a megabyte, and more than a hundred of those do not fit in memory.
                {"$project": {ORDERS[q.order].field: 1, "size": SIZE}},
                {"$sort": sort},
                {"$limit": wanted},
            )
    return found


async def walk(db: Database, q: JobListQuery, way: Narrowing | None = None, most: int | None = None) -> list[Document]:
    """The next jobs by an index that has the order: that of all jobs, or of those that meet a condition (`way`).

    First those that have a value to sort by, then those without. With `most` no more than so many jobs behind the place are
    read, so there may be others.
    """
    found: list[Document] = []
    size, read = FIRST_CHUNK, 0
    sections = _sections(q)
    for section, start in sections if most is None else sections[:1]:  # a bounded one may not reach its end
        is_bounded = most is not None and bool(selective(q.filter))  # else as many are read as are found
        last = await _last_to_read(db, q, (section, start), most) if is_bounded and most is not None else None
        after = start
        while len(found) <= q.limit and (most is None or read < most):
            wanted = q.limit + 1 - len(found) if q.before_ms is None else size
            rows = await _rows(db, q, way, (section, after), wanted, last)
            if q.before_ms is not None:
                await learn_schedules(db, q, rows)
                size, read = CHUNK, read + len(rows)
            found += [d for d in rows if _in_time(d, q)]
            if len(rows) < wanted:
                break
            after = place_of(rows[-1], q)
    return found[: q.limit + 1]


def _sections(q: JobListQuery) -> list[tuple[int, Place | None]]:
    """The sections that are still to be read, and the place of each behind which that begins."""
    sections = (0,) if q.order == "createdAt" else (0, 1)
    if q.after is None:
        return [(section, None) for section in sections]
    first = q.after.section
    return [(section, q.after if section == first else None) for section in sections if section >= first]


def _matching(q: JobListQuery) -> list[Document]:
    return [{"state": {"$in": list(q.filter.states)}}, *conditions(q.filter)]


def _behind(q: JobListQuery, section: int, after: Place | None) -> tuple[list[Document], dict[str, int]]:
    """The conditions for the jobs of a section behind a place of it, and how they are sorted."""
    order = ORDERS[q.order]
    sign = -1 if q.descending else 1
    id_sign = sign * order.id_sign
    field, beyond, id_beyond = order.field, "$gt" if sign > 0 else "$lt", "$gt" if id_sign > 0 else "$lt"
    parts: list[Document]
    if section:
        parts = [{field: None}] if after is None else [{field: None}, {"_id": {id_beyond: after.id}}]
    elif after is None:
        parts = [{field: {"$type": order.kind}}]
    else:
        # The first condition bounds the index; the second leaves out what is in the same place before the last job.
        value: Any = after.value if isinstance(after.value, str) else DatetimeMS(after.value)
        parts = [
            {field: {f"{beyond}e": value}},
            {"$or": [{field: {beyond: value}}, {field: value, "_id": {id_beyond: after.id}}]},
        ]
    return parts, {field: sign, "_id": id_sign}


async def _last_to_read(db: Database, q: JobListQuery, begin: tuple[int, Place | None], most: int) -> list[Document]:
    """The condition that bounds a walk of all jobs in order to the first `most`: by the index alone, without the jobs."""
    parts, sort = _behind(q, *begin)
    order = ORDERS[q.order]
    query: Document = {"$and": [{"state": {"$in": list(q.filter.states)}}, *parts]}
    with operation():
        cursor = db.api["jobs"].find(query, {order.field: 1}, hint=order.index)
        found = await cursor.sort(list(sort.items())).skip(most - 1).limit(1).to_list()
    # Those without a value are bounded by their ids.
    by = [(order.field if d.get(order.field) is not None else "_id", d) for d in found]
    return [{name: {"$gte" if sort[name] < 0 else "$lte": d[name]}} for name, d in by]


async def _rows(
    db: Database,
    q: JobListQuery,
    way: Narrowing | None,
    begin: tuple[int, Place | None],
    limit: int,
    last: list[Document] | None,
) -> list[Document]:
    """Of one section, those behind a place of it."""
    parts, sort = _behind(q, *begin)
    fields = PLACE_FIELDS if q.before_ms is not None else {**PLACE_FIELDS, "size": SIZE}
    by = [] if way is None else [way.condition]
    query: Document = {"$and": [*by, *_matching(q), *parts, *(last or ())]}
    index = ORDERS[q.order].index if way is None else way.index
    with operation():
        cursor = db.api["jobs"].find(query, fields, hint=index, batch_size=limit + 1)
        found: list[Document] = await cursor.sort(list(sort.items())).limit(limit).to_list()
    return found
