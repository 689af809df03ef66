"""`replays`: requests to send many failed or dead executions again, and how far the leader has come with each.

A page is written down here before anything is reopened, so whoever leads next after a crash finishes exactly that page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import State
from cluster.store.history import DAY_MS
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

RETENTION_MS = 7 * DAY_MS
REPLAYABLE = (State.FAILED.value, State.DEAD.value)


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """Which ones: all that is given must fit. Instants (ms) are about when they ended; `error` and `status` about the
    last attempt.
    """

    states: tuple[str, ...] = REPLAYABLE
    job_id: str | None = None
    tag: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    error: str | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """One request. `page` are the ids that are being reopened; `after` is behind the last one looked at."""

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


def _replay(d: Document) -> Replay:
    w = d["which"]
    return Replay(
        d["_id"],
        ReplayFilter(
            tuple(w["states"]), w["job_id"], w["tag"], instant(w["since"]), instant(w["until"]), w["error"], w["status"]
        ),
        d["per_second"],
        int(d["created_at"]),
        d["matched"],
        d["sent"],
        int(d["next_at"]),
        None if d["after"] is None else (int(d["after"]["expire_at"]), d["after"]["id"]),
        tuple(d["page"]),
        d["done"],
        d["rev"],
    )


def _fields(r: Replay) -> Document:
    w = r.criteria
    return {
        "which": {
            "states": list(w.states),
            "job_id": w.job_id,
            "tag": w.tag,
            "since": None if w.since_ms is None else DatetimeMS(w.since_ms),
            "until": None if w.until_ms is None else DatetimeMS(w.until_ms),
            "error": w.error,
            "status": w.status,
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
    """Ask for it."""
    with operation():
        await db.api["replays"].insert_one({"_id": replay.id, **_fields(replay)})


async def get(db: Database, replay_id: str) -> Replay | None:
    """How far it is."""
    with operation():
        d = await db.api["replays"].find_one({"_id": replay_id})
    return None if d is None else _replay(d)


async def next_due(db: Database) -> Replay | None:
    """The one the leader works on: one that a dead leader left in the middle of a page, else the one whose time comes
    first, so that a slow one keeps no other waiting.
    """
    order: list[Document] = [
        {"$match": {"done": False}},
        {"$set": {"begun": {"$gt": [{"$size": "$page"}, 0]}}},
        {"$sort": {"begun": -1, "next_at": 1, "created_at": 1}},
        {"$limit": 1},
    ]
    with operation():
        found = await (await db.work["replays"].aggregate(order)).to_list()
    return _replay(found[0]) if found else None


async def save(db: Database, replay: Replay) -> Replay | None:
    """Remember how far it is, by compare-and-set. None if another leader was faster."""
    then = replace(replay, rev=replay.rev + 1)
    with operation():
        result = await db.work["replays"].update_one({"_id": replay.id, "rev": replay.rev}, {"$set": _fields(then)})
    return then if result.matched_count else None
