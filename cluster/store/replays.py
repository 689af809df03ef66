"""`replays`: requests to replay many executions, and the progress of each.

The leader stores the ids of a page here before it reopens any of them, so the next leader after a crash finishes exactly
that page. Which results a filter matches is in `replayable`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.audit_entry import new_entry
from cluster.core.instants import format_optional_instant
from cluster.core.lifecycle import State
from cluster.store import audited, progress
from cluster.store.audit import to_document
from cluster.store.mongo.codec import date, instant
from cluster.store.mongo.operation import operation
from cluster.store.outbox import OUTBOX
from cluster.store.progress import RETENTION_MS

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

REPLAYED_BY_DEFAULT = (State.FAILED.value, State.DEAD.value)


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """Which executions to replay: those that match all given criteria. They ended in `since_ms <= t < until_ms`; `error`
    and `status` are those of the last attempt; `host` is that of the target, with or without a port.
    """

    states: tuple[str, ...] = REPLAYED_BY_DEFAULT
    job_id: str | None = None
    tag: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    error: str | None = None
    status: int | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """One request. `page`: ids that are being reopened; `after`: `(end of retention, id)` of the last result looked at;
    `next_ms`: when the next page is due; `per_second`: replays a second.
    """

    id: str
    criteria: ReplayFilter
    per_second: float
    created_ms: int
    matched: int
    sent: int = 0
    next_ms: int = 0
    after: tuple[int, str] | None = None
    page: tuple[str, ...] = ()
    done: bool = False
    rev: int = 0
    stopped: bool = False
    """It was stopped before its end: then it is done too, as nodes of the release before understand it."""


def _replay(d: Document) -> Replay:
    w = d["which"]
    criteria = ReplayFilter(
        states=tuple(w["states"]),
        job_id=w["job_id"],
        tag=w["tag"],
        since_ms=instant(w["since"]),
        until_ms=instant(w["until"]),
        error=w["error"],
        status=w["status"],
        host=w.get("host"),  # absent: written before replays could be narrowed to a host
    )
    return Replay(
        id=d["_id"],
        criteria=criteria,
        per_second=d["per_second"],
        created_ms=int(d["created_at"]),
        matched=d["matched"],
        sent=d["sent"],
        next_ms=int(d["next_at"]),
        after=None if d["after"] is None else (int(d["after"]["expire_at"]), d["after"]["id"]),
        page=tuple(d["page"]),
        done=d["done"],
        rev=d["rev"],
        stopped=d.get("stopped", False),
    )


def _fields(r: Replay) -> Document:
    w = r.criteria
    return {
        "which": {
            "states": list(w.states),
            "job_id": w.job_id,
            "tag": w.tag,
            "since": date(w.since_ms),
            "until": date(w.until_ms),
            "error": w.error,
            "status": w.status,
            "host": w.host,
        },
        "per_second": r.per_second,
        "created_at": DatetimeMS(r.created_ms),
        "matched": r.matched,
        "sent": r.sent,
        "next_at": DatetimeMS(r.next_ms),
        "after": None if r.after is None else {"expire_at": DatetimeMS(r.after[0]), "id": r.after[1]},
        "page": list(r.page),
        "done": r.done,
        "rev": r.rev,
        "expire_at": DatetimeMS(r.created_ms + RETENTION_MS),
    }


async def insert(db: Database, replay: Replay) -> None:
    """Store a new request, with its entry for the audit log."""
    w = replay.criteria
    detail = {"states": list(w.states), "jobId": w.job_id, "tag": w.tag, "error": w.error, "status": w.status}
    detail |= {
        "host": w.host,
        "since": format_optional_instant(w.since_ms),
        "until": format_optional_instant(w.until_ms),
    }
    entry = replace(
        new_entry(f"replay:{replay.id}", "replay", replay.created_ms), counts={"matched": replay.matched}, detail=detail
    )
    with operation():
        await db.api["replays"].insert_one({"_id": replay.id, **_fields(replay), OUTBOX: [to_document(entry)]})
    await audited.flush(db, "replays", replay.id)


async def get(db: Database, replay_id: str) -> Replay | None:
    """The request with its progress; None if there is none, or its retention has ended."""
    with operation():
        d = await db.api["replays"].find_one({"_id": replay_id})
    return None if d is None else _replay(d)


async def next_due(db: Database) -> Replay | None:
    """The request that the leader works on next: one that was left in the middle of a page comes first; None: all are done."""
    d = await progress.next_due(db, "replays", {"done": False}, {"$gt": [{"$size": "$page"}, 0]})
    return None if d is None else _replay(d)


async def save(db: Database, replay: Replay) -> Replay | None:
    """Store the progress by compare-and-set on `rev`. Returns the request as stored, None if another leader was faster."""
    saved = replace(replay, rev=replay.rev + 1)
    return saved if await progress.save(db, "replays", replay.id, replay.rev, _fields(saved)) else None


async def latest(db: Database, limit: int) -> list[Replay]:
    """The requests of the last seven days, latest first."""
    with operation():
        documents = await db.api["replays"].find({}).sort([("created_at", -1), ("_id", 1)]).limit(limit).to_list()
    return [_replay(d) for d in documents]


async def stop(db: Database, replay_id: str, now_ms: int) -> Replay | None:
    """Stop a request that is not done: no further page is begun. Returns it as it is now; None if there is none.

    A page that was begun is ended: its leader goes on with it, whose next write here then fails on `rev`. If that leader
    dies in between, what it had reopened is owed by the next repair, and the rest stays as it was.
    """
    entry = new_entry(f"replay:{replay_id}", "stop", now_ms)
    change = {"$set": {"done": True, "stopped": True}, "$inc": {"rev": 1}, "$push": {OUTBOX: to_document(entry)}}
    with operation():
        result = await db.api["replays"].update_one({"_id": replay_id, "done": False}, change)
    if result.matched_count:
        await audited.flush(db, "replays", replay_id)
    return await get(db, replay_id)
