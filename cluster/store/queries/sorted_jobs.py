"""Jobs that meet a condition, sorted by this process: the next run has a part in their order, which no document has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation
from cluster.store.queries import narrowed_jobs, next_run_pages
from cluster.store.queries.job_filter import PLACE_FIELDS
from cluster.store.queries.job_walks import ORDERS, in_time, matching, place_of, rank
from cluster.store.queries.next_runs import learn, next_of_schedule

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery
    from cluster.store.queries.narrowed_jobs import Narrowing


DUE_WITH = "due_with"
"""The key of a schedule, of a job that is due whenever that schedule is."""


async def sorted_here(db: Database, q: JobListQuery, narrowing: Narrowing) -> list[Document]:
    """The next jobs of those that meet a condition, in an order of which the next run is a part."""
    documents = await _read(db, q, narrowing)
    await learn(db, [_key(d) for d in documents], q.since_ms, q.lookahead_ms)
    if q.order == "nextRunAt":
        return _by_next_run(q, documents)
    ranked = [(rank(place_of(d, q), q), d) for d in documents if _in_time(d, q)]
    if q.after is not None:
        last = rank(q.after, q)
        ranked = [(own, d) for own, d in ranked if own > last]
    return [d for _, d in sorted(ranked, key=lambda r: r[0])[: q.limit + 1]]


async def _read(db: Database, q: JobListQuery, narrowing: Narrowing) -> list[Document]:
    """What sorting needs of the jobs that meet the condition.

    Of a job that is due whenever its schedule is, as nearly all are: the schedule's key as `due_with`, and what the order is
    by. A node has to decode no more of these. The others are read once more, by their ids, with `PLACE_FIELDS`.
    """
    wanted = {"$and": matching(q)}
    if JobState.ACTIVE.value not in q.filter.states:
        return await narrowed_jobs.read(db, narrowing, {"$match": wanted}, {"$project": PLACE_FIELDS})
    kinds: Document = {DUE_WITH: {"$cond": [_is_due_with_schedule(q.since_ms), "$schedule_key", "$$REMOVE"]}}
    if q.order in ORDERS:
        kinds[ORDERS[q.order].field] = 1
    found = await narrowed_jobs.read(db, narrowing, {"$match": wanted}, {"$project": kinds})
    alike = [d for d in found if DUE_WITH in d]
    if len(alike) == len(found):
        return alike
    ids = {"_id": {"$in": [d["_id"] for d in found if DUE_WITH not in d]}}
    with operation():
        # The whole condition again: a job that was changed meanwhile may not match any more.
        cursor = db.api["jobs"].find({"$and": [ids, wanted]}, PLACE_FIELDS, hint="_id_", batch_size=len(found) + 1)
        others = await cursor.to_list()
    return [*alike, *others]


def _is_due_with_schedule(since_ms: int) -> Document:
    since = DatetimeMS(since_ms)
    return {
        "$and": [
            {"$eq": ["$state", JobState.ACTIVE.value]},
            {"$eq": [{"$type": "$schedule_key"}, "string"]},
            # A date that is not there is smaller than every other.
            {"$lte": ["$active_from", since]},
            {"$lte": ["$start_at", since]},
            {"$lte": ["$end_at", None]},
            {"$lte": ["$last_at", None]},
        ]
    }


def _key(d: Document) -> str:
    return str(d[DUE_WITH] if DUE_WITH in d else d.get("schedule_key"))


def _in_time(d: Document, q: JobListQuery) -> bool:
    return in_time(d if DUE_WITH not in d else _due_with(d[DUE_WITH], d["_id"]), q)


def _by_next_run(q: JobListQuery, found: list[Document]) -> list[Document]:
    """In the order of `next_run_pages`. A thousand jobs are sorted here, so nothing is made for each of them but a tuple."""
    due: list[tuple[int, str, str]] = []
    documents = {d["_id"]: d for d in found if DUE_WITH not in d}
    next_runs = {key: next_of_schedule(key, q.since_ms) for key in {d[DUE_WITH] for d in found if DUE_WITH in d}}
    for d in found:
        if DUE_WITH in d:
            key, name = d[DUE_WITH], d["_id"]
            at = next_runs[key]
            if at is not None:
                due.append((at, key, name))
            else:  # it never runs again
                documents[name] = _due_with(key, name)
    ended: list[tuple[int, str]] = []
    rest: list[tuple[int, str]] = []
    for d in documents.values():
        at = next_run_pages.due_of(d, q)
        if at is not None:
            due.append((at, d["schedule_key"], d["_id"]))
        elif d["state"] == JobState.ACTIVE.value:
            ended.append((instant(d.get("last_at")) or 0, d["_id"]))
        else:
            rest.append((-(instant(d["created_at"]) or 0), d["_id"]))
    if q.before_ms is not None:
        due, ended, rest = [x for x in due if x[0] < q.before_ms], [], []
    if q.after is not None:
        after = q.after
        place = (int(after.value), after.key, after.id)
        due = [x for x in due if after.section == 0 and (x < place if q.descending else x > place)]
        ended = [x for x in ended if after.section == 0 or (after.section == 1 and x > (int(after.value), after.id))]
        rest = [x for x in rest if after.section < 2 or x > (-int(after.value), after.id)]
    due.sort(reverse=q.descending)
    wanted = due[: q.limit + 1]
    in_order = [documents.get(name) or _due_with(key, name) for _, key, name in wanted]
    others = [name for part in (ended, rest) for _, name in sorted(part)]
    return [*in_order, *(documents[name] for name in others[: q.limit + 1 - len(in_order)])]


def _due_with(key: str, name: str) -> Document:
    """A job that is due whenever its schedule is, as far as its place is concerned."""
    return {"_id": name, "state": JobState.ACTIVE.value, "schedule_key": key}
