"""The terms of a pause as a job's document has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.job.definition import UNTIL_RESUMED, PauseTerms
from cluster.core.lifecycle import JobState
from cluster.store.mongo.codec import date, instant

if TYPE_CHECKING:
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Document


def pause_fields(job: StoredJob) -> Document | None:
    """The terms of the pause, and the schedule version of the paused job.

    A node of the release before knows no terms: it resumes the job, and may pause it again, and leaves them as they are.
    A resume makes a new version, so they count for the version that they name, and for no other pause.
    """
    if job.state is not JobState.PAUSED or job.pause == UNTIL_RESUMED:
        return None
    return {"until": date(job.pause.until_ms), "reason": job.pause.reason, "version": job.schedule_version}


def pause_terms(d: Document) -> PauseTerms:
    """The terms that count for the job in this document."""
    terms = d.get("pause")
    if terms is None or d["state"] != JobState.PAUSED or terms["version"] != d["schedule_version"]:
        return UNTIL_RESUMED
    return PauseTerms(instant(terms["until"]), terms["reason"])
