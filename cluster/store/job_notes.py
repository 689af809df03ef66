"""Who changes a job and how: what the write of a change puts into the job's document beside the change itself.

The origin of the present revision always; an entry of the audit log, unless the change is a part of an import or an action.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.core.actor import current_actor
from cluster.core.audit_entry import new_entry
from cluster.core.documents.job_differences import job_differences
from cluster.core.lifecycle import JobState
from cluster.store.audit import to_document
from cluster.store.revisions import RevisionOrigin, origin_document

if TYPE_CHECKING:
    from cluster.core.job.definition import JobChange, StoredJob
    from cluster.store.mongo.client import Document


def origin_and_entry(change: JobChange) -> tuple[Document, Document | None]:
    """The origin of the job's revision, and the audit entry if this change has one."""
    actor, job = current_actor(), change.job
    action = change.verb or (_action(change.before, job) if change.is_whole else "change")
    origin = origin_document(RevisionOrigin(job.revision, job.updated_ms, actor.within or action, actor))
    if actor.within is not None or not change.is_whole:
        return origin, None
    entry = replace(
        # Two changes of one job in one ms stand in the order in which they were made.
        new_entry(f"job:{job.id}", action, job.updated_ms, f"{job.revision:09d}-{uuid.uuid4().hex}"),
        changes=tuple(job_differences(change.before, job)),
        revision=job.revision,
        detail=dict(change.detail),
    )
    return origin, to_document(entry)


def _action(before: StoredJob | None, after: StoredJob) -> str:
    if after.state is JobState.DELETED:
        return "delete"
    if before is None or before.state is JobState.DELETED:
        return "create"
    if before.definition != after.definition:
        return "change"
    if before.state is after.state is JobState.PAUSED:
        return "pause"
    if before.state is after.state:
        return "change"
    return "pause" if after.state is JobState.PAUSED else "resume"
