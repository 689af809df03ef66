"""`verifications`: runs of verify that were asked for through the API, each with its report, for a month.

A run belongs to one node. It notes every few seconds that it goes on; a run that stopped doing so ended with its node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.codec import date, instant
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

RETENTION_MS = 30 * 86_400_000
RUNNING, DONE, FAILED = "running", "done", "failed"
SILENT_MS = 60_000
"""A run that has not noted for so long that it goes on is lost."""


@dataclass(frozen=True, slots=True)
class Verification:
    """One run: what it looks at (ms; `until_ms` None: up to when it began), and its report as JSON text once it is done."""

    id: str
    node: str
    asked_ms: int
    seen_ms: int
    since_ms: int
    until_ms: int | None = None
    job_id: str | None = None
    late_seconds: float = 60.0
    state: str = RUNNING
    ended_ms: int | None = None
    report: dict[str, Any] | None = None
    error: str | None = None

    def is_lost(self, now_ms: int) -> bool:
        """Whether its node ended before it did."""
        return self.state == RUNNING and now_ms - self.seen_ms > SILENT_MS


async def begin(db: Database, v: Verification) -> None:
    """Store a run that begins now."""
    document = {
        "_id": v.id,
        "state": v.state,
        "node": v.node,
        "asked_at": DatetimeMS(v.asked_ms),
        "seen_at": DatetimeMS(v.seen_ms),
        "since": DatetimeMS(v.since_ms),
        "until": date(v.until_ms),
        "job_id": v.job_id,
        "late_seconds": v.late_seconds,
        "expire_at": DatetimeMS(v.asked_ms + RETENTION_MS),
    }
    with operation():
        await db.api["verifications"].insert_one(document)


async def note(db: Database, verification_id: str, now_ms: int) -> None:
    """The run goes on."""
    with operation():
        await db.api["verifications"].update_one(
            {"_id": verification_id, "state": RUNNING}, {"$max": {"seen_at": DatetimeMS(now_ms)}}
        )


async def end(
    db: Database, verification_id: str, now_ms: int, report: dict[str, Any] | None, error: str | None = None
) -> None:
    """Store how a run ended: with its report, or with an error. It ends once."""
    ended = {
        "state": FAILED if report is None else DONE,
        "ended_at": DatetimeMS(now_ms),
        "report": None if report is None else orjson.dumps(report).decode(),
        "error": error,
    }
    with operation():
        await db.api["verifications"].update_one({"_id": verification_id, "state": RUNNING}, {"$set": ended})


async def latest(db: Database, limit: int) -> list[Verification]:
    """The runs that were asked for last, without the findings of their reports."""
    with operation():
        documents = await db.api["verifications"].find().sort("asked_at", -1).limit(limit).to_list()
    return decode_readable("verification", documents, _verification)


async def get(db: Database, verification_id: str) -> Verification | None:
    """One run; None if there is none."""
    with operation():
        documents = await db.api["verifications"].find({"_id": verification_id}).to_list()
    found = decode_readable("verification", documents, _verification)
    return found[0] if found else None


def _verification(d: Document) -> Verification:
    return Verification(
        id=d["_id"],
        node=d["node"],
        asked_ms=int(d["asked_at"]),
        seen_ms=int(d["seen_at"]),
        since_ms=int(d["since"]),
        until_ms=instant(d.get("until")),
        job_id=d.get("job_id"),
        late_seconds=d["late_seconds"],
        state=d["state"],
        ended_ms=instant(d.get("ended_at")),
        report=None if d.get("report") is None else orjson.loads(d["report"]),
        error=d.get("error"),
    )
