"""`incidents`: one document per job and kind of trouble, with what is still to be said of it; and what decides on them.

Every change is a compare-and-set on `rev`. What is to be said is part of the same write that opens or closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from cluster.core.alerts import Incident, IncidentKind, Notice, NoticeKind
from cluster.store.history import DAY_MS
from cluster.store.mongo.codec import instant
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

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
