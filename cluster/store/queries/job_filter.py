"""What a list of jobs is asked for: which jobs, in which order, behind which place; and the conditions on `jobs` for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.job.search import after_prefix

if TYPE_CHECKING:
    from cluster.store.mongo.client import Document

PLACE_FIELDS: Document = dict.fromkeys(
    (
        *("state", "schedule_key", "active_from", "start_at", "end_at", "name", "created_at"),
        *("last_run_at", "first_at", "last_at"),
    ),
    1,
)
"""What says where a job stands in each order, and when it is due."""
SIZE: Document = {"$bsonSize": "$$ROOT"}
LISTED_FIELDS: Document = {
    **PLACE_FIELDS,
    **dict.fromkeys(("last_state", "failing", "revision", "schedule_version", "updated_at"), 1),
    "size": SIZE,
}
"""The same with what a list says of a job besides its definition, and what shows whether that has changed."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Jobs in one of `states` that carry all of `tags` and one of `any_tags`, if there are any.

    `host`: with a port, or without for every port. `schedule`: the beginning of their schedule keys. `words`: each begins
    a word of the job. `name_part`: a part of the name in any case, for databases whose jobs have no words yet. `calendar`:
    its name.
    """

    states: tuple[str, ...]
    tags: tuple[str, ...] = ()
    any_tags: tuple[str, ...] = ()
    host: str | None = None
    schedule: str | None = None
    failing: bool | None = None
    words: tuple[str, ...] = ()
    name_part: Document | None = None
    calendar: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a job in an order. `section`: 0 for jobs with a value to sort by, more for those without, which follow.

    `value` is the name, or an instant in ms; `key` the schedule, in the order of the next run.
    """

    section: int
    value: str | int
    id: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The next jobs in an order. `until`: the place up to which jobs were looked at, if there may be more behind it that are
    not among them; None if these are all, or as many as were asked for.
    """

    jobs: list[Document]
    until: Place | None = None


@dataclass(frozen=True, slots=True)
class JobListQuery:
    """Which jobs, in which order (`createdAt`, `name`, `lastRunAt`, `nextRunAt`), behind which place.

    The orders `ended` and `notActive` are parts of `nextRunAt`: active jobs that have no next run, by their last one; and
    the others, by their age.
    `since_ms`: the instant after which the next run is looked for. `before_ms`: only jobs whose next run is before it.
    `lookahead_ms`: how far the engine writes ahead at most.
    """

    filter: JobFilter
    limit: int
    since_ms: int
    lookahead_ms: int
    order: str = "createdAt"
    descending: bool = True
    after: Place | None = None
    before_ms: int | None = None


def selective(f: JobFilter) -> list[tuple[str | None, Document]]:
    """Conditions that few jobs may meet, each with the index that answers it; those that promise fewer jobs come first.

    None: two indexes answer it, one for each side of its `$or`. To name one of them would make MongoDB read all of it.
    """
    found: list[tuple[str | None, Document]] = []
    if f.failing:
        found.append(("failing", {"failing": True}))
    if f.calendar is not None:
        found.append(("by_calendar", {"calendar.name": {"$eq": f.calendar}}))
    found += [("by_word_and_age", {"words": {"$elemMatch": _prefix(word)}}) for word in f.words]
    if f.schedule is not None:
        key = {"$eq": f.schedule} if f.schedule.startswith("at|") else _prefix(f.schedule)
        # The key of a job with a calendar begins with that; the one without it is beside its name.
        found.append((None, {"$or": [{"schedule_key": key}, {"calendar.key": key}]}))
    found += [("by_tag_and_age", {"tags": {"$eq": tag}}) for tag in f.tags]
    if f.any_tags:
        found.append(("by_tag_and_age", {"tags": {"$in": list(f.any_tags)}}))
    if f.host is not None:
        found.append(("by_host", {"host": _host(f.host)}))
    if f.failing is False:
        found.append(("by_failing", {"failing": {"$in": [None, False]}}))
    return found


def conditions(f: JobFilter) -> list[Document]:
    """Every condition but the one on the state."""
    # Alert jobs are left out: they belong to the engine, and show as executions.
    found: list[Document] = [{"channel": None}, *(condition for _, condition in selective(f))]
    if f.name_part is not None:
        found.append(f.name_part)
    return found


def name_contains(text: str) -> Document:
    """The condition that the name contains a text, in any case."""
    return {"name": {"$regex": re.escape(text), "$options": "i"}}


def _prefix(text: str) -> Document:
    return {"$gte": text, "$lt": after_prefix(text)}


def _host(host: str) -> Document:
    has_port = ":" in host.rpartition("]")[2]
    return {"$eq": host} if has_port else _prefix(f"{host}:")
