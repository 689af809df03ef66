"""What the API reads of executions, wherever they are (owed or final). Nothing is written here.

A result is in `history` before it leaves `executions`. So a query that reads executions first and history second cannot
miss it in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import FIRST_CLAIM
from cluster.core.execution.view import FINAL_STATES, OWED_STATES, ExecutionView
from cluster.core.ids import is_message
from cluster.store.history import LEFT_OUT, REOPENED
from cluster.store.mongo.codec import LARGE_BODY, attempt_from_document, instant
from cluster.store.mongo.decoding import decode_one, decode_readable
from cluster.store.mongo.operation import operation
from cluster.store.stats import MINUTE_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Attempt
    from cluster.store.mongo.client import Database, Document

LIST_PROJECTION: Document = {"attempts.excerpt": 0, "message": 0, LARGE_BODY: 0, "answer": 0}
"""Lists leave out the excerpts of answers, because an execution may have a hundred attempts; and what messages say."""


WITHOUT_MESSAGE: Document = {"message": 0, LARGE_BODY: 0, "answer": 0}


@dataclass(frozen=True, slots=True)
class JobExecutionQuery:
    """Which executions of one job: before this id, in one of these states (empty: all that are due or final)."""

    job_id: str
    limit: int
    now_ms: int
    before: str | None = None
    states: frozenset[str] = frozenset()


async def executions_of(db: Database, q: JobExecutionQuery) -> list[ExecutionView]:
    """Executions of one job, the latest due first."""
    ids: Document = {"$gte": f"{q.job_id}:", "$lt": q.before or f"{q.job_id};"}
    owed = await _owed(db, ids, q)
    final: list[Document] = []
    states = q.states & FINAL_STATES
    if states or not q.states:
        query: Document = {"_id": ids}
        if states:
            query["state"] = {"$in": list(states)}
        with operation():
            final = await db.api["history"].find(query, LIST_PROJECTION).sort("_id", -1).limit(q.limit).to_list()
    by_id = merge_by_id(owed, final, q.now_ms)
    return sorted(by_id.values(), key=lambda r: r.id, reverse=True)[: q.limit]


async def has_executions(db: Database, job_id: str) -> bool:
    """Whether there is any execution of this job, owed or final."""
    ids = {"_id": {"$gte": f"{job_id}:", "$lt": f"{job_id};"}}
    with operation():
        found = await db.api["executions"].find_one(ids, {"_id": 1}) or await db.api["history"].find_one(
            ids, {"_id": 1}
        )
    return found is not None


def merge_by_id(owed: Sequence[Document], final: Sequence[Document], now_ms: int) -> dict[str, ExecutionView]:
    """Views by id. A record counts, unless it was reopened: then the owed execution does, with the earlier attempts."""
    views = {r.id: r for r in decode_readable("execution", owed, lambda d: owed_view(d, now_ms))}
    reopened = {d["_id"] for d in final if d.get("state") == REOPENED}
    for record in decode_readable("history", final, final_view):
        replay = views.get(record.id) if record.id in reopened else None
        views[record.id] = (
            record
            if replay is None
            else replace(
                replay,
                attempts=(*record.attempts, *replay.attempts),
                attempts_left_out=record.attempts_left_out,
                reason=None,
            )
        )
    return views


def owed_condition(states: frozenset[str], now_ms: int) -> Document | None:
    """The condition on `executions` for these states of the API (empty: all that are due); None if none of them is owed."""
    now = DatetimeMS(now_ms)
    if not states:
        return {"due_at": {"$lte": now}}  # executions ahead of their due time are listed only if a state is asked for
    conditions: list[Document] = []
    if "pending" in states:
        conditions += [{"state": "pending"}, {"state": "leased", "send_at": {"$gt": now}}]
    if "running" in states:
        conditions.append({"state": "leased", "send_at": {"$lte": now}})
    if "retrying" in states:
        conditions.append({"state": "retrying"})
    return {"$or": conditions} if conditions else None


async def _owed(db: Database, ids: Document, q: JobExecutionQuery) -> list[Document]:
    condition = owed_condition(q.states, q.now_ms)
    if condition is None:
        return []
    query: Document = {"_id": ids, **condition}
    with operation():
        return await db.api["executions"].find(query, LIST_PROJECTION).sort("_id", -1).limit(q.limit).to_list()


async def get_execution(db: Database, execution_id: str, now_ms: int) -> ExecutionView | None:
    """One execution, owed or final; None if there is neither. Raises `UnreadableDocument`."""
    with operation():
        owed = await db.api["executions"].find_one({"_id": execution_id}, WITHOUT_MESSAGE)
        if owed is None and is_message(execution_id):
            owed = await db.api["messages"].find_one({"_id": execution_id}, WITHOUT_MESSAGE)
        final = await db.api["history"].find_one({"_id": execution_id}, WITHOUT_MESSAGE)
    view = merge_by_id([owed] if owed else [], [final] if final else [], now_ms).get(execution_id)
    if view is None and final is not None:
        return decode_one("history", final, final_view)
    if view is None and owed is not None:
        return decode_one("execution", owed, lambda d: owed_view(d, now_ms))
    return view


async def with_breaker_reasons(db: Database, views: Sequence[ExecutionView]) -> list[ExecutionView]:
    """The same views, with a reason for owed executions that wait because the breaker of their host is open."""
    owed = {v.job_id for v in views if v.state in OWED_STATES}
    if not owed:
        return list(views)
    with operation():
        breakers = {d["_id"]: d async for d in db.api["breakers"].find({}, {"until": 1, "why": 1})}
        if not breakers:
            return list(views)
        query = {"_id": {"$in": list(owed)}, "host": {"$in": list(breakers)}}
        hosts = {d["_id"]: d["host"] async for d in db.api["jobs"].find(query, {"host": 1})}

    def explained(view: ExecutionView) -> ExecutionView:
        host = hosts.get(view.job_id)
        if host is None or view.state not in OWED_STATES or view.reason is not None:
            return view
        why = breakers[host]["why"]
        return replace(view, reason=f"held back: the circuit breaker of {host} is open ({why})")

    return [explained(v) for v in views]


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """The request (its id) for whose run history has a record; None: the run was not requested by hand."""

    request_id: str | None


async def recorded_request(db: Database, execution_id: str) -> RecordedRequest | None:
    """For whom history has a record of this execution, a reopened one too. None: it has none."""
    with operation():
        d = await db.api["history"].find_one({"_id": execution_id}, {"request": 1})
    return None if d is None else RecordedRequest(d.get("request"))


async def recorded_requests(db: Database, execution_ids: Sequence[str]) -> dict[str, str | None]:
    """By id, for whom history has a record of these executions."""
    with operation():
        documents = await db.api["history"].find({"_id": {"$in": list(execution_ids)}}, {"request": 1}).to_list()
    return {d["_id"]: d.get("request") for d in documents}


async def exclusive_run(db: Database, job_id: str) -> str | None:
    """The execution that other executions of this job are skipped for. None: none runs, or `overlap` is not `skip`."""
    with operation():
        job = await db.api["jobs"].find_one({"_id": job_id, "overlap": "skip"}, {"running": 1})
        running = None if job is None else job.get("running")
        if running is None or await db.api["executions"].find_one({"_id": running}, {"_id": 1}) is None:
            return None
    return str(running)


async def recent_counts(db: Database, now_ms: int) -> tuple[int, dict[str, int]]:
    """The counts of this minute and the one before: since when (ms), and the sums by name."""
    first = now_ms - now_ms % MINUTE_MS - MINUTE_MS
    with operation():
        documents = await db.api["stats"].find({"_id": {"$gte": DatetimeMS(first)}}).sort("_id", 1).to_list()
    counts: dict[str, int] = {}
    for d in documents:
        for name, n in d.items():
            if isinstance(n, int):
                counts[name] = counts.get(name, 0) + n
    return (int(documents[0]["_id"]) if documents else first), counts


def owed_view(d: Document, now_ms: int) -> ExecutionView:
    """An owed execution as the API shows it."""
    state = d["state"]
    send_ms = int(d["send_at"])
    if state == "leased":
        state = "running" if send_ms <= now_ms else "retrying" if d["attempts"] else "pending"
    return ExecutionView(
        id=d["_id"],
        job_id=d["job_id"],
        state=state,
        due_ms=int(d["due_at"]),
        send_ms=send_ms,
        attempts=_attempts(d["attempts"]),
        trigger=d["trigger"],
        schedule_version=d["schedule_version"],
        node=None if d["owner"] == FIRST_CLAIM else d["owner"],
        request_id=d.get("request"),
        asked_ms=instant(d.get("asked_at")),
    )


def final_view(d: Document) -> ExecutionView:
    """A record as the API shows it. A reopened one that is not owed yet is `retrying`: its request failed half way."""
    return ExecutionView(
        id=d["_id"],
        job_id=d["job_id"],
        state="retrying" if d["state"] == REOPENED else d["state"],
        due_ms=int(d["due_at"]),
        send_ms=int(d["send_at"]),
        attempts=_attempts(d["attempts"]),
        trigger=d["trigger"],
        schedule_version=d["schedule_version"],
        reason=d["reason"],
        drift_ms=d["drift_ms"],
        ended_ms=int(d["ended_at"]),
        last_ms=instant(d.get("last_at")),
        count=d.get("count", 1),
        attempts_left_out=d.get(LEFT_OUT, 0),
        request_id=d.get("request"),
        asked_ms=instant(d.get("asked_at")),
    )


def _attempts(documents: Sequence[Document]) -> tuple[Attempt, ...]:
    return tuple(attempt_from_document(d) for d in documents)
