"""`windows`: maintenance windows. What a window was before its last change stays beside it, for `explain` and `horae verify`.

A deleted window stays as a tombstone for a while, for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS
from pymongo import ReturnDocument

from cluster.core.audit_entry import new_entry
from cluster.core.windows import Subject, Window, WindowPeriod
from cluster.store import audited
from cluster.store.audit import to_document
from cluster.store.mongo.codec import date, instant
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation
from cluster.store.outbox import OUTBOX

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster.store.mongo.client import Database, Document

MAX_PAST = 100
KEPT_DAYS = 90
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """A window and when it was changed last."""

    window: Window
    updated_ms: int


def _fields(w: Window) -> Document:
    return {
        "mode": w.mode,
        "tags": list(w.tags),
        "hosts": list(w.hosts),
        "queues": list(w.queues),
        "schedule": w.schedule,
        "timezone": w.timezone,
        "lasts_ms": w.lasts_ms,
        "from": date(w.from_ms),
        "until": date(w.until_ms),
        "spread_ms": w.spread_ms,
    }


def _window(name: str, d: Document) -> Window:
    return Window(
        name=name,
        mode=d["mode"],
        tags=tuple(d["tags"]),
        hosts=tuple(d["hosts"]),
        queues=tuple(d["queues"]),
        schedule=d["schedule"],
        timezone=d["timezone"],
        lasts_ms=d["lasts_ms"],
        from_ms=instant(d["from"]),
        until_ms=instant(d["until"]),
        spread_ms=d["spread_ms"],
    )


def _stored(d: Document) -> StoredWindow:
    return StoredWindow(_window(d["_id"], d["now"]), int(d["updated_at"]))


_PAST: Document = {
    "$cond": [
        {"$eq": [{"$type": "$now"}, "object"]},
        {
            "$slice": [
                {
                    "$concatArrays": [
                        {"$ifNull": ["$past", []]},
                        [{"$mergeObjects": ["$now", {"since": "$updated_at", "to": "$$NOW"}]}],
                    ]
                },
                -MAX_PAST,
            ]
        },
        {"$ifNull": ["$past", []]},
    ]
}
"""What the window was so far, with what it is now as the last one."""


def _with_entry(*, name: str, now_ms: int, fields: Document | None) -> Document:
    """The outbox with one more entry: the audit log learns of a change by the write that makes it. None: a deletion."""
    entry = to_document(new_entry(f"window:{name}", "put" if fields else "delete", now_ms))
    noted = {"was": {"$ifNull": ["$now", None]}, "now": {"$literal": fields}}
    return {"$concatArrays": [{"$ifNull": [f"${OUTBOX}", []]}, [{"$mergeObjects": [{"$literal": entry}, noted]}]]}


async def put(db: Database, window: Window, now_ms: int) -> bool:
    """Create or replace a window. True if it was created. A window that is put as it is stays as it is."""
    fields = _fields(window)
    same: Document = {"$eq": ["$now", {"$literal": fields}]}
    change: Document = {
        "past": {"$cond": [same, "$past", _PAST]},
        "updated_at": {"$cond": [same, "$updated_at", {"$literal": DatetimeMS(now_ms)}]},
        "now": {"$literal": fields},
        "expire_at": "$$REMOVE",
        OUTBOX: {"$cond": [same, f"${OUTBOX}", _with_entry(name=window.name, now_ms=now_ms, fields=fields)]},
    }
    with operation():
        before = await db.api["windows"].find_one_and_update(
            {"_id": window.name}, [{"$set": change}], upsert=True, return_document=ReturnDocument.BEFORE
        )
    await audited.flush(db, "windows", window.name)
    return before is None or before.get("now") is None


async def delete(db: Database, name: str, now_ms: int) -> bool:
    """Delete a window; what it was is kept for `KEPT_DAYS`. False if there was none."""
    change: Document = {
        "past": _PAST,
        "now": None,
        "updated_at": {"$literal": DatetimeMS(now_ms)},
        "expire_at": {"$literal": DatetimeMS(now_ms + KEPT_DAYS * DAY_MS)},
        OUTBOX: _with_entry(name=name, now_ms=now_ms, fields=None),
    }
    with operation():
        result = await db.api["windows"].update_one({"_id": name, "now": {"$type": "object"}}, [{"$set": change}])
    await audited.flush(db, "windows", name)
    return result.matched_count > 0


async def get(db: Database, name: str) -> StoredWindow | None:
    """The window; None if there is none."""
    with operation():
        d = await db.api["windows"].find_one({"_id": name, "now": {"$type": "object"}}, {"past": 0})
    return None if d is None else _stored(d)


async def list_all(db: Database) -> list[StoredWindow]:
    """Every window, by name."""
    with operation():
        documents = await db.api["windows"].find({"now": {"$type": "object"}}, {"past": 0}).sort("_id", 1).to_list()
    return decode_readable("window", documents, _stored)


async def present(db: Database) -> list[Window]:
    """For the engine: every window."""
    with operation():
        documents = await db.work["windows"].find({"now": {"$type": "object"}}, {"past": 0}).to_list()
    return [w.window for w in decode_readable("window", documents, _stored)]


async def periods(db: Database, since_ms: int) -> list[WindowPeriod]:
    """What every window was since an instant, deleted ones too."""
    with operation():
        documents = await db.work["windows"].find().to_list()
    return [p for d in documents for p in _periods(d) if p.to_ms is None or p.to_ms >= since_ms]


def _periods(d: Document) -> list[WindowPeriod]:
    found = [WindowPeriod(_window(d["_id"], p), int(p["since"]), int(p["to"])) for p in d.get("past") or ()]
    if d.get("now") is not None:
        found.append(WindowPeriod(_window(d["_id"], d["now"]), int(d["updated_at"]), None))
    return found


async def subjects(db: Database, job_ids: Collection[str]) -> dict[str, Subject]:
    """What windows look at of these jobs, by id."""
    fields: Any = {"tags": 1, "host": 1, "queue": 1}
    with operation():
        documents = await db.work["jobs"].find({"_id": {"$in": list(job_ids)}}, fields).to_list()
    return {d["_id"]: Subject(tuple(d.get("tags") or ()), d.get("host") or "", d.get("queue")) for d in documents}
