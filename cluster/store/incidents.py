"""`incidents`: one document per job and kind of incident, with the notices that are still to be sent for it.

Every change is a compare-and-set on `rev`. The write that opens or closes an incident adds its notice, so neither exists
without the other.
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


def _incident(d: Document) -> Incident:
    return Incident(
        job_id=d["job_id"],
        kind=IncidentKind(d["kind"]),
        open=d["open"],
        opened_ms=int(d["opened_at"]),
        last_symptom_ms=int(d["bad_at"]),
        detail=d["detail"],
        execution=d["execution"],
        notified_ms=int(d["told_at"]),
        checked_ms=int(d["checked_at"]),
        closed_ms=instant(d["closed_at"]),
        number=d["number"],
        pending_notices=tuple(_notice(n) for n in d.get("unsent", ())),
        notified=_notified(d),
        rev=d["rev"],
    )


def _notified(d: Document) -> tuple[str, ...] | None:
    """A node of an earlier release leaves the field as it is, whatever it notifies of: then the `rev` is another one."""
    noted = d.get("notified") or {}
    return tuple(noted["channels"]) if noted.get("rev") == d["rev"] else None


def _notice(d: Document) -> Notice:
    return Notice(
        kind=NoticeKind(d["said"]),
        number=d["number"],
        at_ms=int(d["at"]),
        channels=tuple(d["channels"]),
        since_ms=int(d["since"]),
        detail=d["detail"],
        execution=d["execution"],
        committed=d.get("committed", False),
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
    removed: Document = {}
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
                "committed": n.committed,
            }
            for n in i.pending_notices
        ]
    else:
        removed["unsent"] = ""
    if i.notified is None:
        removed["notified"] = ""
    else:
        fields["notified"] = {"rev": i.rev + 1, "channels": list(i.notified)}
    if i.closed_ms is not None and not i.pending_notices:
        fields["expire_at"] = DatetimeMS(i.closed_ms + RETENTION_MS)
    else:
        removed["expire_at"] = ""
    return {"$set": fields, "$unset": removed} if removed else {"$set": fields}


async def write(db: Database, incident: Incident) -> bool:
    """Compare-and-set on the `rev` that was read (0: no document existed). False if another writer was faster."""
    with operation():
        try:
            result = await db.work["incidents"].update_one(
                {"_id": incident.id, "rev": incident.rev}, _update(incident), upsert=incident.rev == 0
            )
        except DuplicateKeyError:
            return False
    return result.matched_count > 0 or result.upserted_id is not None


async def get(db: Database, job_id: str, kind: IncidentKind) -> Incident | None:
    """The latest incident of this kind; None if the job never had one, or its retention has ended."""
    with operation():
        d = await db.work["incidents"].find_one({"_id": f"{job_id}:{kind.value}"})
    return None if d is None else _incident(d)


async def due_for_check(db: Database, before_ms: int, limit: int) -> list[Incident]:
    """Open incidents last checked before an instant, the longest unchecked first."""
    with operation():
        documents = (
            await db.work["incidents"]
            .find({"open": True, "checked_at": {"$lt": DatetimeMS(before_ms)}})
            .sort("checked_at", 1)
            .limit(limit)
            .to_list()
        )
    return decode_readable("incident", documents, _incident)


async def with_unsent_notices(db: Database, after: str, limit: int) -> list[Incident]:
    """Incidents with notices that are still to be sent, in order of id, from behind `after`."""
    query: Document = {"unsent": {"$exists": True}, "_id": {"$gt": after}}
    with operation():
        documents = await db.work["incidents"].find(query).sort("_id", 1).limit(limit).to_list()
    return decode_readable("incident", documents, _incident)


async def page(
    db: Database, states: Sequence[bool], limit: int, job_id: str | None = None, after: tuple[int, str] | None = None
) -> list[Incident]:
    """For the API: incidents that are open or closed as `states` names, the latest opened first.

    `after` is `(opened, id)` of the last incident of the page before.
    """
    query: Document = {"open": {"$in": list(states)}}
    if job_id is not None:
        query["job_id"] = {"$eq": job_id}
    if after is not None:
        at = DatetimeMS(after[0])
        query["$or"] = [{"opened_at": {"$lt": at}}, {"opened_at": at, "_id": {"$gt": after[1]}}]
    with operation():
        documents = await db.api["incidents"].find(query).sort([("opened_at", -1), ("_id", 1)]).limit(limit).to_list()
    return decode_readable("incident", documents, _incident)
