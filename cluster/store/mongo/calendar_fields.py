"""The calendar that a job names, as it is stored with the job.

The days themselves are in the key of the schedule. `version` says which days they are, and `key` is that of the schedule
without the calendar: lists of jobs search by it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from cluster.core.job.definition import JobCalendar
from cluster.core.schedule.calendar_days import CALENDAR_PREFIX
from cluster.core.schedule.schedule import schedule_from_key

if TYPE_CHECKING:
    from cluster.core.job.definition import Definition
    from cluster.core.schedule.calendar_days import ExcludedDays
    from cluster.store.mongo.client import Document


def version_of(days: ExcludedDays) -> str:
    """The version of a calendar that excludes these days: equal days have equal versions."""
    return sha256(days.text.encode()).hexdigest()[:16]


def regular_key(key: str) -> str:
    """The key of the same schedule without its calendar."""
    return key.split("|", 2)[2] if key.startswith(CALENDAR_PREFIX) else key


def calendar_fields(d: Definition, key: str) -> Document | None:
    """The calendar of a definition as it is stored; `key`: that of its schedule."""
    calendar = d.calendar
    if calendar is None:
        return None
    version = None if calendar.days is None else version_of(calendar.days)
    return {
        "name": calendar.name,
        "on_excluded": calendar.on_excluded,
        "version": version,
        "key": regular_key(key),
    }


def job_calendar(stored: Document | None, key: str) -> JobCalendar | None:
    """The inverse of `calendar_fields`."""
    if stored is None:
        return None
    exclusion = schedule_from_key(key).exclusion
    return JobCalendar(stored["name"], stored["on_excluded"], None if exclusion is None else exclusion.days)
