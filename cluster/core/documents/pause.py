"""The body of a request to pause a job."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from cluster.core.documents.base import Model
from cluster.core.documents.job import MAX_PAUSE_REASON, Instant
from cluster.core.documents.job_json import faults_of
from cluster.core.errors import InvalidInput
from cluster.core.job.definition import WantedPause


class PauseSpec(Model):
    """When the pause ends, and why the job is paused."""

    until: Instant | None = Field(
        default=None, description="The job is resumed then by itself, within a year from now. null: only by a resume."
    )
    reason: str | None = Field(
        default=None, min_length=1, max_length=MAX_PAUSE_REASON, description="Why, for people to read."
    )


def read_pause(body: Any) -> WantedPause:
    """The terms in a request's body. What it leaves out stays as it is. Raises `InvalidInput` with all faults."""
    try:
        spec = PauseSpec.model_validate(body)
    except ValidationError as exc:
        raise InvalidInput(faults_of(exc)) from exc
    given = spec.model_fields_set
    return WantedPause(spec.until, spec.reason, keeps_until="until" not in given, keeps_reason="reason" not in given)
