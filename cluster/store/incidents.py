"""`incidents`: one document per job and kind of trouble, with what is still to be said of it; and what decides on them.

Every change is a compare-and-set on `rev`. What is to be said is part of the same write that opens or closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from cluster.core.alerts import SENT_STATES, AlertRules, Incident, IncidentKind, Notice, NoticeKind, RecordedResult
from cluster.core.documents.alerts import AlertSpec, parse_alert_rules
from cluster.core.lifecycle import JobState, State
from cluster.store.history import DAY_MS
from cluster.store.mongo.codec import instant
from cluster.store.mongo.decoding import decode_one, decode_readable
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.store.mongo.client import Database, Document

RETENTION_MS = 30 * DAY_MS
DEFAULT_RULES_ID = "alerts"
"""The document of `meta` that holds the rules of all jobs without rules of their own."""


def _incident(d: Document) -> Incident:
    return Incident(
        d["job_id"],
        IncidentKind(d["kind"]),
        d["open"],
        int(d["opened_at"]),
        int(d["bad_at"]),
        d["detail"],
        d["execution"],
        int(d["told_at"]),
        int(d["checked_at"]),
        instant(d["closed_at"]),
        d["number"],
        tuple(
            Notice(
                NoticeKind(n["said"]),
                n["number"],
                int(n["at"]),
                tuple(n["channels"]),
                int(n["since"]),
                n["detail"],
                n["execution"],
            )
            for n in d.get("unsent", ())
        ),
        d["rev"],
    )


def _update(i: Incident) -> Document:
    fields: Document = {
        "job_id": i.job_id,
        "kind": i.kind.value,
        "open": i.open,
        "opened_at": DatetimeMS(i.opened_ms),
        "bad_at": DatetimeMS(i.last_symptom_ms),
        "detail": i.detail,
        "execution": i.execution,
        "told_at": DatetimeMS(i.notified_ms),
        "checked_at": DatetimeMS(i.checked_ms),
        "closed_at": None if i.closed_ms is None else DatetimeMS(i.closed_ms),
        "number": i.number,
        "rev": i.rev + 1,
    }
    gone: Document = {}
    if i.pending_notices:
        fields["unsent"] = [
            {
                "said": n.kind.value,
                "number": n.number,
                "at": DatetimeMS(n.at_ms),
                "channels": list(n.channels),
                "since": DatetimeMS(n.since_ms),
                "detail": n.detail,
                "execution": n.execution,
            }
            for n in i.pending_notices
        ]
    else:
        gone["unsent"] = ""
    if i.closed_ms is not None and not i.pending_notices:
        fields["expire_at"] = DatetimeMS(i.closed_ms + RETENTION_MS)
    else:
        gone["expire_at"] = ""
    return {"$set": fields, "$unset": gone} if gone else {"$set": fields}


async def write(db: Database, incident: Incident) -> bool:
    """Compare-and-set on the `rev` it was read with (0: there was none). False if somebody was faster."""
    with operation():
        try:
            result = await db.work["incidents"].update_one(
                {"_id": incident.id, "rev": incident.rev}, _update(incident), upsert=incident.rev == 0
            )
        except DuplicateKeyError:
            return False
    return result.matched_count > 0 or result.upserted_id is not None


async def get(db: Database, job_id: str, kind: IncidentKind) -> Incident | None:
    """The latest one of this kind."""
    with operation():
        d = await db.work["incidents"].find_one({"_id": f"{job_id}:{kind.value}"})
    return None if d is None else _incident(d)


async def due_for_check(db: Database, before_ms: int, limit: int) -> list[Incident]:
    """Open ones that were not looked at since then."""
    with operation():
        found = (
            await db.work["incidents"]
            .find({"open": True, "checked_at": {"$lt": DatetimeMS(before_ms)}})
            .sort("checked_at", 1)
            .limit(limit)
            .to_list()
        )
    return decode_readable("incident", found, _incident)


async def with_unsent_notices(db: Database, after: str, limit: int) -> list[Incident]:
    """Those of which something is to be said, in order of id."""
    query: Document = {"unsent": {"$exists": True}, "_id": {"$gt": after}}
    with operation():
        found = await db.work["incidents"].find(query).sort("_id", 1).limit(limit).to_list()
    return decode_readable("incident", found, _incident)


async def page(
    db: Database, states: Sequence[bool], limit: int, job_id: str | None = None, after: tuple[int, str] | None = None
) -> list[Incident]:
    """For the API: the latest opened first."""
    query: Document = {"open": {"$in": list(states)}}
    if job_id is not None:
        query["job_id"] = {"$eq": job_id}
    if after is not None:
        at = DatetimeMS(after[0])
        query["$or"] = [{"opened_at": {"$lt": at}}, {"opened_at": at, "_id": {"$gt": after[1]}}]
    with operation():
        found = await db.api["incidents"].find(query).sort([("opened_at", -1), ("_id", 1)]).limit(limit).to_list()
    return decode_readable("incident", found, _incident)


# -- what they are decided on --------------------------------------------------------------------------------------

RESULT_FIELDS = {
    "job_id": 1,
    "state": 1,
    "ended_at": 1,
    "drift_ms": 1,
    "reason": 1,
    "attempts": {"$slice": -1},
    "count": 1,
}


def _result(d: Document) -> RecordedResult:
    why = d["reason"]
    if why is None and d["attempts"]:
        last = d["attempts"][-1]
        why = f"HTTP {last['status']}" if last.get("error") is None else last["error"]
        if last.get("detail"):
            why += f" ({last['detail'][:200]})"
    return RecordedResult(d["_id"], d["job_id"], d["state"], int(d["ended_at"]), d["drift_ms"], why, d.get("count", 1))


async def alert_pending_results(db: Database, limit: int) -> tuple[list[RecordedResult], list[str]]:
    """Results that alerts are to be decided on, the oldest first; and the ids of all that were looked at."""
    with operation():
        found = await db.work["history"].find({"mark": True}, RESULT_FIELDS).sort("ended_at", 1).limit(limit).to_list()
    return decode_readable("history", found, _result), [d["_id"] for d in found]


async def clear_alert_pending(db: Database, ids: Iterable[str]) -> None:
    """They have been looked at."""
    with operation():
        await db.work["history"].update_many({"_id": {"$in": list(ids)}}, {"$unset": {"mark": ""}})


async def latest_results(db: Database, job_id: str, count: int) -> list[RecordedResult]:
    """The job's latest sent executions that are final, the latest due first."""
    query = {"_id": {"$gte": f"{job_id}:", "$lt": f"{job_id};"}, "state": {"$in": sorted(SENT_STATES)}}
    with operation():
        found = await db.work["history"].find(query, RESULT_FIELDS).sort("_id", -1).limit(count).to_list()
    return decode_readable("history", found, _result)


async def latest_success_since(db: Database, job_id: str, since_ms: int) -> RecordedResult | None:
    """The latest due of the executions that were due since then and have succeeded."""
    query = {"_id": {"$gte": f"{job_id}:{since_ms:013d}", "$lt": f"{job_id};"}, "state": State.SUCCEEDED.value}
    with operation():
        d = await db.work["history"].find_one(query, RESULT_FIELDS, sort=[("_id", -1)])
    return None if d is None else _result(d)


async def has_history(db: Database, job_id: str) -> bool:
    """Whether anything of the job is kept, what is being sent again included."""
    query = {"_id": {"$gte": f"{job_id}:", "$lt": f"{job_id};"}}
    with operation():
        return await db.work["history"].find_one(query, {"_id": 1}) is not None


class JobAlertRules:
    """A job with its rules, as alerts need it. `rules` is None if the job is gone or nobody is to be told."""

    __slots__ = ("active", "active_from_ms", "ended", "id", "name", "rules")

    def __init__(self, d: Document, default: AlertRules | None) -> None:
        self.id: str = d["_id"]
        self.name: str | None = d.get("name")
        self.active = d["state"] == JobState.ACTIVE.value
        self.ended = d["state"] == JobState.COMPLETED.value
        self.active_from_ms = int(d["active_from"])
        own = parse_alert_rules(d.get("alerts"))
        rules = default if d.get("alerts") is None else own
        carries_alert = d.get("channel") is not None
        gone = d["state"] == JobState.DELETED.value
        self.rules = None if gone or carries_alert or rules is None or not rules.channels else rules


RULED_FIELDS = {"name": 1, "state": 1, "active_from": 1, "alerts": 1, "channel": 1}


async def alert_rules_of(db: Database, job_ids: Iterable[str], default: AlertRules | None) -> dict[str, JobAlertRules]:
    """These jobs with their rules."""
    with operation():
        found = await db.work["jobs"].find({"_id": {"$in": list(job_ids)}}, RULED_FIELDS).to_list()
    return {r.id: r for r in decode_readable("job", found, lambda d: JobAlertRules(d, default))}


async def silence_candidates(db: Database, after: str, limit: int) -> list[JobAlertRules]:
    """Active jobs with a `noRunForSeconds` rule, in order of id."""
    query = {"watch.no_run_ms": {"$gt": 0}, "state": JobState.ACTIVE.value, "_id": {"$gt": after}}
    with operation():
        found = await db.work["jobs"].find(query, RULED_FIELDS).sort("_id", 1).limit(limit).to_list()
    return decode_readable("job", found, lambda d: JobAlertRules(d, None))


async def default_rules(db: Database) -> AlertRules | None:
    """For the engine: the rules of all jobs without rules of their own; none if what is stored cannot be read."""
    with operation():
        d = await db.work["meta"].find_one({"_id": DEFAULT_RULES_ID})
    return None if d is None else parse_alert_rules(d.get("rules"))


async def default_rules_spec(db: Database) -> AlertSpec | None:
    """For users: the same as it was written."""
    with operation():
        d = await db.api["meta"].find_one({"_id": DEFAULT_RULES_ID})
    return None if d is None else decode_one("meta", d, lambda d: AlertSpec.model_validate(orjson.loads(d["rules"])))


async def set_default_rules(db: Database, spec: AlertSpec | None) -> bool:
    """Replace or end them. Whether there were any."""
    with operation():
        if spec is None:
            return (await db.api["meta"].delete_one({"_id": DEFAULT_RULES_ID})).deleted_count > 0
        update: Any = {"$set": {"rules": spec.to_json()}}
        return (await db.api["meta"].update_one({"_id": DEFAULT_RULES_ID}, update, upsert=True)).matched_count > 0


async def delete_ended_alert_jobs(db: Database, before_ms: int, limit: int) -> int:
    """Remove jobs that carried an alert and ended before then."""
    query: Document = {
        "channel": {"$exists": True},
        "state": {"$in": [JobState.COMPLETED.value, JobState.DELETED.value]},
        "updated_at": {"$lt": DatetimeMS(before_ms)},
        "unsettled": {"$exists": False},
    }
    with operation():
        found = [d["_id"] async for d in db.work["jobs"].find(query, {"_id": 1}).limit(limit)]
        if found:
            await db.work["jobs"].delete_many({**query, "_id": {"$in": found}})
    return len(found)
