"""`calendars`: days on which the jobs that name one do not run. Jobs carry the days; `job_calendars` brings them up to date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS
from pymongo import ReturnDocument

from cluster.core.schedule.calendar_days import ExcludedDays, days_of_text
from cluster.store.mongo.calendar_fields import version_of
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class Calendar:
    """A calendar: the document as its user wrote it, in normal form, and the days that it excludes."""

    name: str
    document: dict[str, Any]
    days: ExcludedDays
    updated_ms: int

    @property
    def version(self) -> str:
        """Equal for equal days."""
        return version_of(self.days)


def _calendar(d: Document) -> Calendar:
    return Calendar(d["_id"], d["document"], days_of_text(d["days"]), int(d["updated_at"]))


async def put(db: Database, calendar: Calendar) -> bool:
    """Create or replace a calendar. True if it was created."""
    fields = {
        "document": calendar.document,
        "days": calendar.days.text,
        "version": calendar.version,
        "updated_at": DatetimeMS(calendar.updated_ms),
    }
    with operation():
        before = await db.api["calendars"].find_one_and_update(
            {"_id": calendar.name}, {"$set": fields}, upsert=True, return_document=ReturnDocument.BEFORE
        )
    return before is None


async def get(db: Database, name: str) -> Calendar | None:
    """The calendar; None if there is none."""
    with operation():
        d = await db.api["calendars"].find_one({"_id": name})
    return None if d is None else _calendar(d)


async def list_all(db: Database) -> list[Calendar]:
    """Every calendar, by name."""
    with operation():
        return [_calendar(d) for d in await db.api["calendars"].find().sort("_id", 1).to_list()]


async def versions(db: Database) -> dict[str, str]:
    """For the leader: the version of each calendar, by name."""
    with operation():
        return {d["_id"]: d["version"] async for d in db.work["calendars"].find({}, {"version": 1})}


async def days_of(db: Database, names: Iterable[str]) -> dict[str, ExcludedDays]:
    """The days of those of these calendars that exist, by name."""
    wanted = list(names)
    if not wanted:
        return {}
    with operation():
        documents = await db.api["calendars"].find({"_id": {"$in": wanted}}, {"days": 1}).to_list()
    return {d["_id"]: days_of_text(d["days"]) for d in documents}


async def delete(db: Database, name: str) -> bool:
    """Delete a calendar. False if there was none."""
    with operation():
        return (await db.api["calendars"].delete_one({"_id": name})).deleted_count > 0
