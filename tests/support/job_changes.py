"""Changes of jobs as the API makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.core.documents.job_json import apply_patch, channels_in_patch
from cluster.usecases import jobs

if TYPE_CHECKING:
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database


async def patch_job(
    db: Database, job_id: str, change: dict[str, Any], context: dict[str, Any], now_ms: int
) -> StoredJob:
    """A merge patch of a job."""
    named = channels_in_patch(change)
    return await jobs.patch(db, job_id, lambda definition: apply_patch(definition, change, context), named, now_ms)
