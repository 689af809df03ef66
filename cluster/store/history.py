"""`history`: what is final. Appended to, and only ever improved: a success replaces a failure, what was sent replaces
what was not, and what loses is kept as extra attempts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from cluster.core.lifecycle import SENT_FINAL, State, replaces
from cluster.store.mongo.codec import attempt_to_document
from cluster.store.mongo.operation import duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cluster.core.execution.model import Ending
    from cluster.store.mongo.client import Database, Document

DAY_MS = 86_400_000
REOPENED = "reopened"
"""State of a history document whose execution is owed again because somebody asked to retry it."""


def _document(e: Ending, retention_days: float) -> Document:
    x = e.execution
    marked: Document = {"mark": True} if e.alert_pending else {}
    # A primary whose clock is behind the last one's takes cluster time back: no run ends before its requests did.
    ended_ms = max([e.ended_ms, *(a.sent_ms + int(a.duration_ms) for a in e.attempts)])
    return {
        "_id": x.id,
        "job_id": x.job_id,
        "due_at": DatetimeMS(x.due_ms),
        "send_at": DatetimeMS(x.send_ms),
        "schedule_version": x.schedule_version,
        "state": e.state.value,
        "reason": e.reason,
        "attempts": [attempt_to_document(a) for a in e.attempts],
        "drift_ms": e.drift_ms,
        "ended_at": DatetimeMS(ended_ms),
        "expire_at": DatetimeMS(ended_ms + int((e.retention_days or retention_days) * DAY_MS)),
        "trigger": x.trigger,
        # Null: nobody did. Absent: written by a release that did not keep it.
        "asked_at": None if x.replayed_ms is None else DatetimeMS(x.replayed_ms),
        **marked,
    }


async def _add(db: Database, documents: list[Document]) -> None:
    """Insert documents of deterministic ids; those that exist are left alone, so that a step may be repeated."""
    if not documents:
        return
    with operation():
        try:
            await db.work["history"].insert_many(documents, ordered=False)
        except BulkWriteError as exc:
            if duplicates(exc) is None:
                raise


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `record` met: results for what was final already, by others' deliveries."""

    duplicates: int = 0


async def record(db: Database, endings: Sequence[Ending], retention_days: float) -> Recorded:
    """Write final results. Safe to repeat: an attempt that is there already is not added twice."""
    if not endings:
        return Recorded()
    documents = [_document(e, retention_days) for e in endings]
    with operation():
        try:
            await db.work["history"].insert_many(documents, ordered=False)
        except BulkWriteError as exc:
            existed = duplicates(exc)
            if existed is None:
                raise
            met = 0
            for i in existed:
                met += await _merge(db, documents[i])
            return Recorded(met)
    return Recorded()


def _same(a: Document, b: Document) -> bool:
    return (a["n"], a["node"], a["token"], int(a["sent_at"])) == (b["n"], b["node"], b["token"], int(b["sent_at"]))


async def _merge(db: Database, new: Document) -> int:
    """Bring a second final result together with the first. Returns 1 if it is a second delivery, else 0."""
    history = db.work["history"]
    while True:
        old = await history.find_one({"_id": new["_id"]})
        if old is None:  # its retention ended between the two
            await history.update_one(
                {"_id": new["_id"]}, {"$setOnInsert": {k: v for k, v in new.items() if k != "_id"}}, upsert=True
            )
            return 0
        asked = new.get("asked_at")
        extra = [a for a in new["attempts"] if not any(_same(a, b) for b in old["attempts"])]
        state = State(new["state"])
        better = old["state"] == REOPENED or replaces(state, State(old["state"]))
        if not extra and not better:
            return 0
        merged = sorted([*old["attempts"], *extra], key=lambda a: int(a["sent_at"]))
        change: Document = {"attempts": merged}
        if better:
            change |= {k: new[k] for k in ("state", "reason", "ended_at", "expire_at", "schedule_version", "send_at")}
            change["drift_ms"] = old["drift_ms"] if old["drift_ms"] is not None else new["drift_ms"]
            if "mark" in new:
                change["mark"] = True
        update: Document = {"$set": change}
        if asked is not None:  # a request that is kept already may be a later one
            update["$max"] = {"asked_at": asked}
        result = await history.update_one(
            {"_id": new["_id"], "state": old["state"], "attempts": {"$size": len(old["attempts"])}}, update
        )
        if result.matched_count:
            was_sent = old["state"] in SENT_FINAL
            return 1 if extra and was_sent else 0


async def prune(db: Database, after_ms: int, now_ms: int, limit: int) -> tuple[int, int]:
    """Delete what expired between `after_ms` and `now_ms`, the oldest first: about `most`, more only if they expired
    in the same ms. Returns how many, and up to which instant everything is gone.

    `after_ms` is there for speed: without it each call would walk again over the index entries of what is deleted.
    """
    since = DatetimeMS(after_ms)
    with operation():
        edge = (
            await db.work["history"]
            .find({"expire_at": {"$gte": since, "$lte": DatetimeMS(now_ms)}}, {"expire_at": 1, "_id": 0})
            .sort("expire_at", 1)
            .skip(limit - 1)
            .limit(1)
            .to_list()
        )
        until = int(edge[0]["expire_at"]) if edge else now_ms
        result = await db.work["history"].delete_many({"expire_at": {"$gte": since, "$lte": DatetimeMS(until)}})
    return result.deleted_count, until


async def insert_unreadable(db: Database, unreadable: dict[str, str], now_ms: int, retention_days: float) -> None:
    """Executions whose documents cannot be read end as `dead`, with the reason; what is final already stays.

    The caller deletes them next. They can be sent again on request: all that is needed for it is in the id and the job.
    """
    documents = []
    for name, why in unreadable.items():
        job, _, due = name.rpartition(":")
        at = DatetimeMS(int(due) if due.isdigit() else now_ms)
        documents.append(
            {
                "_id": name,
                "job_id": job or name,
                "due_at": at,
                "send_at": at,
                "schedule_version": "",
                "state": State.DEAD.value,
                "reason": f"its document could not be read: {why}",
                "attempts": [],
                "drift_ms": None,
                "ended_at": DatetimeMS(now_ms),
                "expire_at": DatetimeMS(now_ms + int(retention_days * DAY_MS)),
                "trigger": False,
                "mark": True,
            }
        )
    await _add(db, documents)


def reopen_update(now_ms: int, retention_days: float) -> Document:
    """The update that reopens a final record because somebody asked at that instant."""
    return {
        "$set": {"state": REOPENED, "expire_at": DatetimeMS(now_ms + int(retention_days * DAY_MS))},
        "$max": {"asked_at": DatetimeMS(now_ms)},
    }


async def reopen(db: Database, execution: str, now_ms: int, retention_days: float) -> bool:
    """Let a failed or dead execution be sent again. True if it is reopened now, by us or before; False if it cannot be.

    Its attempts stay; what comes of the new ones is merged with them by `record`. That somebody asked is kept here as well
    as with what is owed: a success that comes late may take the place of that.
    """
    with operation():
        result = await db.api["history"].update_one(
            {"_id": execution, "state": {"$in": [State.FAILED.value, State.DEAD.value, REOPENED]}},
            reopen_update(now_ms, retention_days),
        )
    return result.matched_count > 0


async def final_ids(db: Database, versions: dict[str, str]) -> set[str]:
    """Those of `{execution id: schedule version}` that must not be sent: they are final already.

    A cancelled or skipped occurrence is final for the version of the schedule it was cancelled under; if the job was
    changed or resumed since and owes it again, it is sent.
    """
    with operation():
        found = (
            await db.work["history"]
            .find({"_id": {"$in": list(versions)}}, {"state": 1, "schedule_version": 1})
            .to_list()
        )
    return {
        d["_id"]
        for d in found
        if d["state"] in SENT_FINAL or (d["state"] != REOPENED and d["schedule_version"] == versions[d["_id"]])
    }


async def existing_ids(db: Database, ids: Collection[str]) -> set[str]:
    """Those of these executions that history has something to say about."""
    with operation():
        found = await db.work["history"].find({"_id": {"$in": list(ids)}}, {"_id": 1}).to_list()
    return {d["_id"] for d in found}


@dataclass(frozen=True, slots=True)
class MissedRange:
    """Occurrences of one job that were owed and will not be sent."""

    job_id: str
    schedule_version: str
    first_ms: int
    last_ms: int
    count: int
    reason: str
    retention_days: float | None = None


async def missed_ranges(
    db: Database, job_ids: Collection[str], start_ms: int, end_ms: int
) -> dict[str, list[tuple[int, int]]]:
    """By job, the first and the last instant of each missed range that begins between two instants."""
    query: Document = {
        "job_id": {"$in": list(job_ids)},
        "due_at": {"$gte": DatetimeMS(start_ms), "$lte": DatetimeMS(end_ms)},
        "state": State.MISSED.value,
    }
    found: dict[str, list[tuple[int, int]]] = {}
    with operation():
        async for d in db.work["history"].find(query, {"job_id": 1, "first_at": 1, "last_at": 1}):
            found.setdefault(d["job_id"], []).append((int(d["first_at"]), int(d["last_at"])))
    return found


async def record_missed(db: Database, ranges: Iterable[MissedRange], now_ms: int, retention_days: float) -> None:
    """One document per range under an id of its job and first instant, so that a repeated pass writes it once.

    What begins where a known range of the job begins and reaches further extends it: the rest of what was being caught
    up when the job was changed, say.
    """
    documents: list[Document] = [
        {
            "_id": f"{r.job_id}:{r.first_ms:013d}:missed",
            "job_id": r.job_id,
            "due_at": DatetimeMS(r.first_ms),
            "send_at": DatetimeMS(r.first_ms),
            "schedule_version": r.schedule_version,
            "state": State.MISSED.value,
            "reason": r.reason,
            "attempts": [],
            "drift_ms": None,
            "ended_at": DatetimeMS(now_ms),
            "expire_at": DatetimeMS(now_ms + int((r.retention_days or retention_days) * DAY_MS)),
            "trigger": False,
            "first_at": DatetimeMS(r.first_ms),
            "last_at": DatetimeMS(r.last_ms),
            "count": r.count,
            "mark": True,  # few, and whoever writes them does not know the rules of the job
        }
        for r in ranges
    ]
    await _add(db, documents)
    longer = [
        UpdateOne(
            {"_id": d["_id"], "last_at": {"$lt": d["last_at"]}},
            {
                "$set": {"last_at": d["last_at"], "extended_at": DatetimeMS(now_ms), "mark": True},
                "$max": {"count": d["count"], "expire_at": d["expire_at"]},
            },
        )
        for d in documents
    ]
    if longer:
        with operation():
            await db.work["history"].bulk_write(longer, ordered=False)
