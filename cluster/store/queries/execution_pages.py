"""Pages of the executions of all jobs, for the API: first those owed, the latest due first, then those final, the latest
end first.

An execution that ends while a client reads the pages moves from the first part to the top of the second: it may be seen in
both, and is never left out. The second part is in the order of `expire_at`, which the retention needs an index on anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.core.execution.view import FINAL_STATES
from cluster.store.history import DAY_MS, REOPENED
from cluster.store.meta import RETENTION_ID
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation
from cluster.store.queries import narrowed_executions
from cluster.store.queries.jobs_and_executions import LIST_PROJECTION, final_view, merge_by_id, owed_condition
from cluster.store.queries.narrowed_executions import EVERY, INDEX, MOST, PORTION, UNHAPPY, Narrowed

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class PagePosition:
    """The execution behind which a page begins: `at_ms` is its due time (owed), or when its retention ends (final)."""

    owed: bool
    at_ms: int
    id: str


@dataclass(frozen=True, slots=True)
class ExecutionQuery:
    """Which executions: in these states (empty: all that are due or final), due (if owed) or ended (if final) in
    `since_ms <= t < until_ms`.
    """

    limit: int
    now_ms: int
    states: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    after: PagePosition | None = None
    narrowed: Narrowed = EVERY


async def page(db: Database, q: ExecutionQuery) -> tuple[list[ExecutionView], PagePosition | None]:
    """A page of executions, and the position behind it if there may be more."""
    views: list[ExecutionView] = []
    position: PagePosition | None = None
    owed: list[Document] = []
    if q.after is None or q.after.owed:
        owed = await _owed(db, q)
        ids = [d["_id"] for d in owed]
        with operation():
            reopened = (
                await db.api["history"].find({"_id": {"$in": ids}, "state": REOPENED}, LIST_PROJECTION).to_list()
                if ids
                else []
            )
        by_id = merge_by_id(owed, reopened, q.now_ms)
        views = [by_id[i] for i in ids if i in by_id]
        if owed:
            position = PagePosition(owed=True, at_ms=int(owed[-1]["due_at"]), id=ids[-1])
    left = q.limit - len(owed)
    if left > 0 and q.narrowed != EVERY:
        final, further = await _narrowed(db, q, left)
        return [*views, *decode_readable("history", final, final_view)], further
    if left > 0:
        final = await _final(db, q, left)
        left -= len(final)
        views += decode_readable("history", final, final_view)
        if final:
            position = PagePosition(owed=False, at_ms=int(final[-1]["expire_at"]), id=final[-1]["_id"])
    return views, position if left <= 0 else None


async def _owed(db: Database, q: ExecutionQuery) -> list[Document]:
    condition = owed_condition(q.states, q.now_ms)
    if condition is None:
        return []
    conditions = [condition, *_between("due_at", q), *await narrowed_executions.owed_conditions(db, q.narrowed)]
    if q.after is not None:
        at = DatetimeMS(q.after.at_ms)
        conditions.append({"$or": [{"due_at": {"$lt": at}}, {"due_at": at, "_id": {"$lt": q.after.id}}]})
    with operation():
        # A scan: few executions are owed, and the collection has no index but `_id`, so that claims stay cheap.
        cursor = (
            db.api["executions"]
            .find({"$and": conditions}, LIST_PROJECTION)
            .sort([("due_at", -1), ("_id", -1)])
            .limit(q.limit)
        )
        return await cursor.to_list()


async def _final(db: Database, q: ExecutionQuery, limit: int) -> list[Document]:
    states = q.states & FINAL_STATES
    if q.states and not states:
        return []
    conditions: list[Document] = [
        {"state": {"$in": sorted(states)} if states else {"$ne": REOPENED}},
        *_between("ended_at", q),
        *await expiry_bound(db, q.since_ms),
    ]
    documents: list[Document] = []
    position = None if q.after is None or q.after.owed else q.after
    if position is not None:
        # First the rest of those that expire at the same instant, because the index has no order among them.
        documents = await _expiring_at(db, conditions, position.at_ms, {"_id": {"$lt": position.id}}, limit)
        conditions.append({"expire_at": {"$lt": DatetimeMS(position.at_ms)}})
    if len(documents) < limit:
        left = limit - len(documents)
        with operation():
            rows = (
                await db.api["history"]
                .find({"$and": conditions}, LIST_PROJECTION)
                .sort("expire_at", -1)
                .limit(left)
                .to_list()
            )
        if len(rows) == left:
            last = int(rows[-1]["expire_at"])
            rows = [d for d in rows if int(d["expire_at"]) > last]
            rows += await _expiring_at(db, conditions, last, {}, left - len(rows))
        documents += sorted(rows, key=lambda d: (int(d["expire_at"]), d["_id"]), reverse=True)
    return documents


async def _narrowed(db: Database, q: ExecutionQuery, limit: int) -> tuple[list[Document], PagePosition | None]:
    """Results of one host or that ended in one way, and the position behind those that were looked at if there may be more."""
    states = sorted(q.states & set(UNHAPPY) if q.states else UNHAPPY)
    f = q.narrowed
    if not states or f.is_of_unfinished:
        return [], None
    conditions: list[Document] = [{"state": {"$in": states}}, *_between("ended_at", q)]
    conditions += [*await expiry_bound(db, q.since_ms), *narrowed_executions.last_attempt(f.error, f.status)]
    position = None if q.after is None or q.after.owed else q.after
    chosen: list[str] = []
    for _ in range(MOST // PORTION):
        candidates = await _behind(db, conditions, position)
        matching = candidates if f.host is None else await narrowed_executions.of_host(db, candidates, f.host)
        left = limit - len(chosen)
        chosen += [d["_id"] for d in matching[:left]]
        if len(matching) >= left:
            position = _position(matching[left - 1])
            return await _records(db, chosen), position
        if len(candidates) < PORTION:
            return await _records(db, chosen), None
        position = _position(candidates[-1])
    return await _records(db, chosen), position


async def _behind(db: Database, conditions: list[Document], position: PagePosition | None) -> list[Document]:
    """The next results behind a position, as far as is needed to choose among them."""
    found = list(conditions)
    if position is not None:
        at = DatetimeMS(position.at_ms)
        found.append({"$or": [{"expire_at": {"$lt": at}}, {"expire_at": at, "_id": {"$lt": position.id}}]})
    with operation():
        cursor = db.api["history"].find({"$and": found}, {"job_id": 1, "expire_at": 1}, hint=INDEX)
        return await cursor.sort([("expire_at", -1), ("_id", -1)]).limit(PORTION).to_list()


def _position(d: Any) -> PagePosition:
    return PagePosition(owed=False, at_ms=int(d["expire_at"]), id=d["_id"])


async def _records(db: Database, ids: list[str]) -> list[Document]:
    with operation():
        documents = await db.api["history"].find({"_id": {"$in": ids}}, LIST_PROJECTION).to_list() if ids else []
    by_id = {d["_id"]: d for d in documents}
    return [by_id[i] for i in ids if i in by_id]


async def _expiring_at(
    db: Database, conditions: list[Document], at_ms: int, condition: Document, limit: int
) -> list[Document]:
    query: Document = {"$and": [*conditions, {"expire_at": DatetimeMS(at_ms)}, condition]}
    with operation():
        return await db.api["history"].find(query, LIST_PROJECTION).sort("_id", -1).limit(limit).to_list()


def _between(field: str, q: ExecutionQuery) -> list[Document]:
    bounds: Document = {}
    if q.since_ms is not None:
        bounds["$gte"] = DatetimeMS(q.since_ms)
    if q.until_ms is not None:
        bounds["$lt"] = DatetimeMS(q.until_ms)
    return [{field: bounds}] if bounds else []


async def expiry_bound(db: Database, since_ms: int | None) -> list[Document]:
    """What ended after `since_ms` expires at least the shortest retention later: a bound for the index scan."""
    if since_ms is None:
        return []
    with operation():
        retention = await db.api["meta"].find_one({"_id": RETENTION_ID})
    shortest = 0.0 if retention is None else float(retention["days"])
    return [{"expire_at": {"$gte": DatetimeMS(since_ms + int(shortest * DAY_MS))}}]
