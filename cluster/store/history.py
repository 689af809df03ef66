"""`history`: executions that are final; `missed_ranges` are there too. Alerts read it in `alert_results`, replays in
`replayable`, what follows in `followed`; `expired` deletes from it.

Which of two results is kept says `lifecycle.replaces`. The attempts of the result that loses are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo.errors import BulkWriteError

from cluster.core.execution.attempts_kept import KEEP_FIRST, keep
from cluster.core.ids import parse_execution_id
from cluster.core.lifecycle import REPLAYABLE, SENT_FINAL, STATE_TEXT, FinalResult, State, replaces
from cluster.store.mongo.callback_fields import told_fields
from cluster.store.mongo.codec import LARGE_BODY, attempt_to_document, shared_date
from cluster.store.mongo.message_codec import request_in_history
from cluster.store.mongo.operation import ONE_REPLY, duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.core.execution.model import Ending
    from cluster.store.mongo.client import Database, Document

DAY_MS = 86_400_000
_OF_MISSED = ("first_at", "last_at", "count")
LEFT_OUT = "attempts_left_out"
"""How many attempts between the first and the last ones are not stored."""
_OF_RESULT_ALONE = ("callback", "answer", *_OF_MISSED)
"""What a result that replaces it takes away, if it has none of its own."""
UNFOLLOWED = "unfollowed"
"""Marks a record that replaced another one, until what follows it is written."""
REOPENED = "reopened"
"""State of a history document whose execution is owed again because a replay was asked for."""
REPLAYABLE_NOW: Document = {"state": {"$in": [s.value for s in REPLAYABLE]}, UNFOLLOWED: {"$ne": True}}
"""The condition on a record that a replay may reopen: what follows its result is written."""


def _document(e: Ending, retention_days: float) -> Document:
    x = e.execution
    ended_ms = e.ended_ms
    for a in e.attempts:
        # A new primary with a slower clock sets cluster time back; an execution still must not end before its requests.
        ended_ms = max(ended_ms, a.sent_ms + int(a.duration_ms))
    attempts, left_out = keep(e.attempts)
    document: Document = {
        "_id": x.id,
        "job_id": x.job_id,
        "due_at": shared_date(x.due_ms),
        "send_at": shared_date(x.send_ms),
        "schedule_version": x.schedule_version,
        "state": STATE_TEXT[e.state],
        "reason": e.reason,
        "attempts": [attempt_to_document(a) for a in attempts],
        "drift_ms": e.drift_ms,
        "ended_at": shared_date(ended_ms),
        "expire_at": shared_date(ended_ms + int((e.retention_days or retention_days) * DAY_MS)),
        "trigger": x.trigger,
        # Null: never replayed. Absent: written by a release that did not store it.
        "asked_at": None if x.replayed_ms is None else DatetimeMS(x.replayed_ms),
    }
    if e.alert_pending:
        document["mark"] = True
    if e.state is State.MISSED:  # as a range of one occurrence, which whoever looks for missed ranges finds
        document |= dict(zip(_OF_MISSED, (DatetimeMS(x.due_ms), DatetimeMS(x.due_ms), 1), strict=True))
    if x.request_id is not None:
        document["request"] = x.request_id
    if left_out:
        document[LEFT_OUT] = left_out
    if x.message is not None:
        document |= request_in_history(x.message, e.state)
    if e.tells:
        document |= told_fields(e)
    return document


async def insert_new(db: Database, documents: list[Document]) -> None:
    """Insert documents whose ids follow from their content; existing ones stay as they are, so a step may be repeated."""
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
    """What `record` met: `duplicates` counts executions that had been delivered and recorded before. `improved`: executions
    whose record was another one, and that may be followed; they are marked as `UNFOLLOWED`.
    """

    duplicates: int = 0
    improved: tuple[str, ...] = ()


async def record(db: Database, endings: Sequence[Ending], retention_days: float) -> Recorded:
    """Write final results. Safe to repeat: an attempt that is recorded already is not added again."""
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
            merged = {i: await _merge(db, documents[i], followed=endings[i].followed) for i in existed}
            improved = tuple(documents[i]["_id"] for i, (_, better) in merged.items() if better and endings[i].followed)
            return Recorded(sum(again for again, _ in merged.values()), improved)
    return Recorded()


def _same_attempt(a: Document, b: Document) -> bool:
    return (a["n"], a["node"], a["token"], int(a["sent_at"])) == (b["n"], b["node"], b["token"], int(b["sent_at"]))


def _sent_ms(attempt: Document) -> int:
    return int(attempt["sent_at"])


def _new_attempts(old: Document, new: Document) -> list[Document]:
    """The attempts of a result that the record does not have; one that it may have left out is not new."""
    stored = old["attempts"]
    extra = [a for a in new["attempts"] if not any(_same_attempt(a, b) for b in stored)]
    if not old.get(LEFT_OUT):
        return extra
    gap = range(_sent_ms(stored[KEEP_FIRST - 1]), _sent_ms(stored[KEEP_FIRST]) + 1)
    return [a for a in extra if _sent_ms(a) not in gap]


def _result(document: Document) -> FinalResult:
    return FinalResult(State(document["state"]), document["schedule_version"], int(document["ended_at"]))


async def _merge(db: Database, new: Document, *, followed: bool) -> tuple[int, bool]:
    """Merge a second final result into the stored one. Returns 1 if it is a second delivery, else 0; and whether it counts.

    `followed`: if it counts, it is marked until what follows it is written. The execution may be owed no more.
    """
    history = db.work["history"]
    while True:
        old = await history.find_one({"_id": new["_id"]}, {LARGE_BODY: 0})
        if old is None:  # its retention ended after the insert had met it
            await history.update_one(
                {"_id": new["_id"]}, {"$setOnInsert": {k: v for k, v in new.items() if k != "_id"}}, upsert=True
            )
            return 0, False
        before = old.get(LEFT_OUT, 0)
        extra = _new_attempts(old, new)
        state = State(new["state"])
        # A write of unknown outcome is repeated: it does not end the replay that was asked for since.
        repeated = not extra and new["ended_at"] == old["ended_at"]
        better = not repeated and (old["state"] == REOPENED or replaces(_result(new), _result(old)))
        if not extra and not better:
            return 0, False
        merged, left_out = keep(sorted([*old["attempts"], *extra], key=_sent_ms), before + new.get(LEFT_OUT, 0))
        change: Document = {"attempts": merged}
        if left_out:
            change[LEFT_OUT] = left_out
        if better:
            change |= {k: new[k] for k in ("state", "reason", "ended_at", "expire_at", "schedule_version", "send_at")}
            change["drift_ms"] = old["drift_ms"] if old["drift_ms"] is not None else new["drift_ms"]
            of_result = ("message", LARGE_BODY, "success_codes", "mark", *_OF_RESULT_ALONE)
            change |= {k: new[k] for k in of_result if k in new}
        update: Document = {"$set": change}
        outdated: list[str] = [k for k in _OF_RESULT_ALONE if k in old and k not in new] if better else []
        if better and followed:
            change[UNFOLLOWED] = True
        elif better and state is State.SUCCEEDED and "message" in old:
            outdated += ["message", LARGE_BODY]
        if outdated:
            update["$unset"] = dict.fromkeys(outdated, "")
        if new.get("asked_at") is not None:  # the stored request for a replay may be a later one
            update["$max"] = {"asked_at": new["asked_at"]}
        result = await history.update_one(
            {
                "_id": new["_id"],
                "state": old["state"],
                "ended_at": old["ended_at"],  # another result of the same state and as many attempts changes this
                "attempts": {"$size": len(old["attempts"])},
                LEFT_OUT: before or None,  # what is added to a full list changes this and not its size
            },
            update,
        )
        if result.matched_count:
            was_sent = old["state"] in SENT_FINAL
            return int(bool(extra) and was_sent), better


async def insert_unreadable(db: Database, unreadable: dict[str, str], now_ms: int, retention_days: float) -> None:
    """Record unreadable executions (`{id: why}`) as `dead` with the reason. Records that exist stay.

    The caller deletes the executions next. They can be replayed: the id and the job say all that is needed for it.
    """
    documents = []
    for name, why in unreadable.items():
        occurrence = parse_execution_id(name)
        job = name.partition(":")[0] if occurrence is None else occurrence.job_id
        at = DatetimeMS(now_ms if occurrence is None else occurrence.due_ms)
        documents.append(
            {
                "_id": name,
                "job_id": job,
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
    await insert_new(db, documents)


def reopen_update(now_ms: int, retention_days: float) -> Document:
    """The update that reopens a record for a replay that was asked for at `now_ms`."""
    return {
        "$set": {"state": REOPENED, "expire_at": DatetimeMS(now_ms + int(retention_days * DAY_MS))},
        "$max": {"asked_at": DatetimeMS(now_ms)},
    }


async def reopen(db: Database, execution: str, now_ms: int, retention_days: float) -> bool:
    """Reopen an execution for a replay, in a state that a replay leaves. True if it is open now, by this call or an
    earlier one. False too while its record is marked: what follows that result comes first.

    Its attempts stay, and `record` merges the new ones with them. The time of the request is stored here and with the owed
    execution, because a late success may end the execution before it is sent again.
    """
    with operation():
        result = await db.api["history"].update_one(
            {"_id": execution, "$or": [REPLAYABLE_NOW, {"state": REOPENED}]}, reopen_update(now_ms, retention_days)
        )
    return result.matched_count > 0


async def final_ids(db: Database, versions: dict[str, str]) -> set[str]:
    """Those of `{execution id: schedule version}` that are final and must not be sent.

    A cancelled or skipped occurrence is final only for the schedule version it was cancelled under. If the job was changed
    or resumed since and owes the occurrence again, it is sent.
    """
    with operation():
        documents = (
            await db.work["history"]
            .find({"_id": {"$in": list(versions)}}, {"state": 1, "schedule_version": 1}, batch_size=ONE_REPLY)
            .to_list()
        )
    return {
        d["_id"]
        for d in documents
        if d["state"] in SENT_FINAL or (d["state"] != REOPENED and d["schedule_version"] == versions[d["_id"]])
    }


async def recorded_ids(db: Database, versions: Mapping[str, str]) -> set[str]:
    """Those of `{execution id: schedule version}` of which history tells how they ended for that schedule version.

    As `final_ids`, and those that were reopened: their replay leaves a result.
    """
    with operation():
        documents = (
            await db.work["history"]
            .find({"_id": {"$in": list(versions)}}, {"state": 1, "schedule_version": 1})
            .to_list()
        )
    return {
        d["_id"]
        for d in documents
        if d["state"] in SENT_FINAL or d["state"] == REOPENED or d["schedule_version"] == versions[d["_id"]]
    }
