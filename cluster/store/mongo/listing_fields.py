"""The fields of a job that only lists of jobs need. They follow from the others, and are written with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.job.changes import schedule_of
from cluster.core.job.search import job_words
from cluster.core.lifecycle import JobState
from cluster.core.schedule.fixed_times import AFTER_KEY
from cluster.core.schedule.last_occurrence import last_occurrence
from cluster.core.schedule.schedule import schedule_from_key
from cluster.store.mongo.calendar_fields import regular_key
from cluster.store.mongo.codec import date

if TYPE_CHECKING:
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Document

NEVER_MS = 0
"""The last occurrence of a job that has none: it runs after another one, or its calendar excludes all there would be."""


def listing_fields(job: StoredJob) -> Document:
    """`words` for searches; `first_at` and `last_at` for the order of the next run."""
    return {
        "words": [] if job.state is JobState.DELETED else job_words(job.id, job.definition),
        "first_at": date(_first_occurrence_ms(job)),
        "last_at": date(_last_occurrence_ms(job)),
    }


def _first_occurrence_ms(job: StoredJob) -> int | None:
    """When the job is due first, if that differs from when its schedule is due next: a one-off job, a startAt to come, an
    interval that counts from its creation. None for all others, and if there is no occurrence.
    """
    starts_ms = _starts_ms(job)
    if not regular_key(job.schedule_key).startswith("at|") and starts_ms <= job.updated_ms + 1:
        return None
    return schedule_of(job.definition, job.anchor_ms).next_after(starts_ms - 1)


def _last_occurrence_ms(job: StoredJob) -> int | None:
    """When the job is due for the last time. None for a job that is due for ever."""
    d, key = job.definition, regular_key(job.schedule_key)
    if d.end_ms is None and d.calendar is None and not key.startswith(("at|", AFTER_KEY)):
        return None
    first_ms = schedule_from_key(job.schedule_key).next_after(_starts_ms(job) - 1)
    if first_ms is None or (d.end_ms is not None and first_ms > d.end_ms):
        return NEVER_MS
    if key.startswith("at|"):
        return first_ms
    return None if d.end_ms is None else last_occurrence(job.schedule_key, first_ms, d.end_ms)


def _starts_ms(job: StoredJob) -> int:
    return max(job.active_from_ms, job.definition.start_ms or 0)
