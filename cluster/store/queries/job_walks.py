"""Jobs in the order of a list, behind a place of it: by the index of the order, or those that meet one condition, sorted.

A walk reads jobs by an index that has the order, and passes over those that do not match. It may be bounded; then it may
find fewer jobs than there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.store.mongo.operation import operation
from cluster.store.queries import narrowed_jobs, next_run_pages
from cluster.store.queries.job_filter import LISTED_FIELDS, PLACE_FIELDS, Found, Place, conditions
from cluster.store.queries.next_runs import learn, next_of_job

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery
    from cluster.store.queries.narrowed_jobs import Narrowing

PASSED_OVER = 800
"""A bounded walk reads so many jobs: MongoDB finds its end, and reads them, within some 12 ms."""
FIRST_CHUNK, CHUNK = 300, 500
"""Jobs whose next run this process looks at, at once."""
MOST_READ = 3000
"""A page ends when about so many jobs were read for it, and says where the next one begins."""
VISIBLE = {s.value for s in JobState if s is not JobState.DELETED}
_BEFORE_ALL = DatetimeMS(-(2**62))


@dataclass(frozen=True, slots=True)
class _Order:
    """An order that an index of `jobs` has by itself: the states first, then this field, then the id."""

    field: str
    index: str
    least: Any
    """It bounds the values from below: unlike the question for their type, the keys of any index answer it."""
    id_sign: int = 1
    """In which direction the id runs in the index, relative to the field."""


ORDERS = {
    "createdAt": _Order("created_at", "by_state", _BEFORE_ALL, id_sign=-1),
    "name": _Order("name", "by_name", ""),
    "lastRunAt": _Order("last_run_at", "by_last_run", _BEFORE_ALL),
    "ended": _Order("last_at", "ended", _BEFORE_ALL),
    "notActive": _Order("created_at", "by_state", _BEFORE_ALL, id_sign=-1),
}
_WITHOUT_OTHERS = ("createdAt", "ended", "notActive")
"""In these orders every job of the list has a value."""


class _Reversed(str):
    """A text that sorts in the reverse order."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)

    def __gt__(self, other: str) -> bool:
        return str.__lt__(self, other)


def place_of(d: Document, q: JobListQuery) -> Place:
    """The place of a job in the order of a query, from a document with what that order is by."""
    if q.order == "nextRunAt":
        return next_run_pages.place_of(d, q)
    value = d.get(ORDERS[q.order].field)
    if value is None:
        return Place(1, 0, d["_id"])
    return Place(0, value if isinstance(value, str) else int(value), d["_id"])


def rank(place: Place, q: JobListQuery) -> tuple[Any, ...]:
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


async def learn_schedules(db: Database, q: JobListQuery, documents: list[Document]) -> None:
    """Learn when the schedules of these jobs are due next."""
    await learn(db, [str(d.get("schedule_key")) for d in documents], q.since_ms, q.lookahead_ms)


def in_time(d: Document, q: JobListQuery) -> bool:
    """Whether the next run is before the instant that the query names, if it names one."""
    if q.before_ms is None:
        return True
    due = next_of_job(d, q.since_ms)
    return due is not None and due < q.before_ms


async def of_narrowed(db: Database, q: JobListQuery, narrowing: Narrowing) -> list[Document]:
    """The next jobs of those that meet a condition: first those that have a value to sort by, then those without."""
    found: list[Document] = []
    for section, after in _sections(q):
        if len(found) <= q.limit:
            ranges, sort = _between(q, section, after)
            wanted = q.limit + 1 - len(found)
            found += await narrowed_jobs.read(
                db,
                narrowing,
                {"$match": {"$and": [*matching(q), {"$or": ranges}]}},
                # Before they are sorted: a job may have a megabyte, and more than a hundred of those do not fit in memory.
                {"$project": {ORDERS[q.order].field: 1, "state": 1}},
                {"$sort": sort},
                {"$limit": wanted},
            )
    return found


async def walk(db: Database, q: JobListQuery, way: Narrowing | None = None, most: int | None = None) -> Found:
    """The next jobs by an index that has the order: that of all jobs, or of those that meet a condition (`way`).

    First those that have a value to sort by, then those without. With `most` about so many jobs of the way are read, and
    perhaps none of them matches.
    """
    found: list[Document] = []
    size, read = FIRST_CHUNK, 0
    for section, start in _sections(q):
        # Those without a value are read to find the last one of them, so that they count twice.
        last = None if most is None else await _last_to_read(db, q, way, (section, start), most // (section + 1))
        after = start
        while len(found) <= q.limit:
            wanted = q.limit + 1 - len(found) if q.before_ms is None else size
            rows = await _rows(db, q, way, (section, after), wanted, last)
            if q.before_ms is not None:
                await learn_schedules(db, q, rows)
                size, read = CHUNK, read + len(rows)
            found += [d for d in rows if in_time(d, q)]
            if len(rows) < wanted:
                break
            after = place_of(rows[-1], q)
            if most is not None and read >= most and len(found) <= q.limit:
                return Found(found, after)
        if last and len(found) <= q.limit:
            return Found(found, last)
    return Found(found[: q.limit + 1])


def passes_over(q: JobListQuery, way: Narrowing | None = None) -> bool:
    """Whether some jobs of a way do not match, because of what the filter says besides."""
    own = [{"channel": None}] if way is None else [{"channel": None}, way.of or way.condition]
    all_states = way is None or set(q.filter.states) >= VISIBLE
    return not all_states or any(c not in own for c in conditions(q.filter))


def behind(q: JobListQuery, part: Found) -> JobListQuery:
    """The list of those that follow what was found."""
    return replace(q, after=part.until, limit=q.limit - len(part.jobs))


def _sections(q: JobListQuery) -> list[tuple[int, Place | None]]:
    """The sections that are still to be read, and the place of each behind which that begins."""
    sections = (0,) if q.order in _WITHOUT_OTHERS else (0, 1)
    if q.after is None:
        return [(section, None) for section in sections]
    first = q.after.section
    return [(section, q.after if section == first else None) for section in sections if section >= first]


def matching(q: JobListQuery) -> list[Document]:
    """Every condition on the jobs of a list."""
    return [{"state": {"$in": list(q.filter.states)}}, *conditions(q.filter), *_in_order(q), *_elsewhere(q)]


def _in_order(q: JobListQuery) -> list[Document]:
    """Which jobs have a place in the order. (MongoDB takes an index that has some jobs only if their type is named.)"""
    return [{"last_at": {"$type": "date", "$lte": DatetimeMS(q.since_ms)}}] if q.order == "ended" else []


def _elsewhere(q: JobListQuery) -> list[Document]:
    """The condition that leaves out jobs whose place `next_run_pages.place_of` has left where they were."""
    since = DatetimeMS(q.since_ms)
    ran_since = {"state": JobState.COMPLETED.value, "first_at": {"$gt": since}, **next_run_pages.to_run(q.since_ms)}
    return [{"$nor": [ran_since]}] if q.order == "notActive" else []


def _between(
    q: JobListQuery, section: int, after: Place | None, last: Place | None = None
) -> tuple[list[Document], dict[str, int]]:
    """The ranges of a section behind a place of it, up to `last`, in order, and how they are sorted.

    Each is one range of the keys of an index. So no job outside of them is read, however many are in one place.
    """
    order = ORDERS[q.order]
    sign = -1 if q.descending else 1
    id_sign = sign * order.id_sign
    field, beyond, until = order.field, *_directed(sign)
    id_beyond, id_until = _directed(id_sign)
    after_id: Document = {} if after is None else {id_beyond: after.id}
    last_id: Document = {} if last is None else {f"{id_until}e": last.id}
    if section:
        # All are in the same place: sorted by the field too, MongoDB would read and sort all of them.
        ids: Document = {**after_id, **last_id}
        return [{field: None, "_id": ids} if ids else {field: None}], {"_id": id_sign}
    sort = {field: sign, "_id": id_sign}
    start, end = (None if p is None else _stored(p.value) for p in (after, last))
    if after is not None and last is not None and after.value == last.value:
        return [{field: start, "_id": {**after_id, **last_id}}], sort
    ranges: list[Document] = [] if start is None else [{field: start, "_id": after_id}]
    between: Document = {"$gte": order.least} if start is None else {beyond: start}
    ranges.append({field: between if end is None else {**between, until: end}})
    if end is not None:
        ranges.append({field: end, "_id": last_id})
    return ranges, sort


def _directed(sign: int) -> tuple[str, str]:
    """Behind a value, and before it."""
    return ("$gt", "$lt") if sign > 0 else ("$lt", "$gt")


def _stored(value: str | int) -> Any:
    return value if isinstance(value, str) else DatetimeMS(value)


def _along(q: JobListQuery, way: Narrowing | None, ranges: list[Document], rest: list[Document]) -> Document:
    """The jobs of these ranges along a way: those with each state, or each of the tags or words, apart.

    Then each part is in order in the index, and MongoDB merges them. Otherwise it reads and sorts all of them.
    """
    field, condition = ("state", {"$in": list(q.filter.states)}) if way is None else next(iter(way.condition.items()))
    points = [{field: value} for value in condition["$in"]] if "$in" in condition else [{field: condition}]
    rest = [*_in_order(q), *rest]
    parts: list[Document] = [{"$and": [point, within, *rest]} for point in points for within in ranges]
    return parts[0] if len(parts) == 1 else {"$or": parts}


async def _last_to_read(
    db: Database, q: JobListQuery, way: Narrowing | None, begin: tuple[int, Place | None], most: int
) -> Place | None:
    """The place of the last one of the first `most` jobs of a way, whatever else the filter says; None if there are fewer.

    The keys of the index tell it: only jobs without a value are read, and those of the order `ended`, whose index is one of
    active jobs.
    """
    if not passes_over(q, way):
        return None  # as many are read as are found
    ranges, sort = _between(q, *begin)
    order = ORDERS[q.order]
    index = order.index if way is None else way.index
    with operation():
        cursor = db.api["jobs"].find(_along(q, way, ranges, []), {order.field: 1}, hint=index)
        found = await cursor.sort(list(sort.items())).skip(most - 1).limit(1).to_list()
    return place_of(found[0], q) if found else None


async def _rows(
    db: Database,
    q: JobListQuery,
    way: Narrowing | None,
    begin: tuple[int, Place | None],
    limit: int,
    last: Place | None,
) -> list[Document]:
    """Of one section, those behind a place of it."""
    ranges, sort = _between(q, *begin, last)
    fields = PLACE_FIELDS if q.before_ms is not None else LISTED_FIELDS
    rest = [] if way is None else [{"state": {"$in": list(q.filter.states)}}]
    rest += [*_other_conditions(q, way), *_elsewhere(q)]
    index = ORDERS[q.order].index if way is None else way.index
    with operation():
        cursor = db.api["jobs"].find(_along(q, way, ranges, rest), fields, hint=index, batch_size=limit + 1)
        found: list[Document] = await cursor.sort(list(sort.items())).limit(limit).to_list()
    return found


def _other_conditions(q: JobListQuery, way: Narrowing | None) -> list[Document]:
    """What the filter says besides the condition of the way.

    What it says about the same field, other tags or words, is turned round twice. Else MongoDB would think of these as
    bounds of the index too, and read jobs by each of them to see which is best, in each range of the walk.
    """
    if way is None:
        return conditions(q.filter)
    field = next(iter(way.condition))
    others = [c for c in conditions(q.filter) if c != (way.of or way.condition)]
    of_field: list[Document] = [{field: {"$not": c[field]}} for c in others if field in c]
    # One condition alone would be turned back; no job is without an id.
    rest = [{"$nor": [*of_field, {"_id": None}]}] if of_field else []
    return [*(c for c in others if field not in c), *rest]
