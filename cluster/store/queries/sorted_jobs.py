"""Jobs that meet a condition, sorted by this process: the next run has a part in their order, which no document has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.store.mongo.codec import instant
from cluster.store.queries import narrowed_jobs, next_run_pages
from cluster.store.queries.job_filter import PLACE_FIELDS
from cluster.store.queries.job_walks import in_time, learn_schedules, matching, place_of, rank
from cluster.store.queries.next_runs import learn, next_of_schedule

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery
    from cluster.store.queries.narrowed_jobs import Narrowing


async def sorted_here(db: Database, q: JobListQuery, narrowing: Narrowing) -> list[Document]:
    """The next jobs of those that meet a condition, in an order of which the next run is a part."""
    wanted: Document = {"$and": matching(q)}
    if q.order == "nextRunAt":
        groups = await narrowed_jobs.read(db, narrowing, {"$match": wanted}, {"$group": _by_schedule(q.since_ms)})
        await learn(db, [str(g["_id"]) for g in groups], q.since_ms, q.lookahead_ms)
        return _by_next_run(q, groups)
    documents = await narrowed_jobs.read(db, narrowing, {"$match": wanted}, {"$project": PLACE_FIELDS})
    await learn_schedules(db, q, documents)
    ranked = [(rank(place_of(d, q), q), d) for d in documents if in_time(d, q)]
    if q.after is not None:
        last = rank(q.after, q)
        ranked = [(own, d) for own, d in ranked if own > last]
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
            {"$lte": ["$last_at", None]},
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
