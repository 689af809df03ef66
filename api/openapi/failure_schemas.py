"""What failed for good, by host and error, in `/openapi.json`."""

from __future__ import annotations

from pydantic import Field

from api.openapi.schemas import Execution, Time, View


class FailureGroup(View):
    """Failures of one host with one error. Both `error` and `status` are null if nothing was sent."""

    host: str | None = Field(description="Host and port of the target; null: the job was deleted.")
    error: str | None = Field(description="How the last attempt ended without an answer, such as `timeout`.")
    status: int | None = Field(description="The HTTP status of the last attempt.")
    executions: int
    jobs: int = Field(description="How many jobs they are of; messages and callbacks have none.")
    job_ids: list[str] = Field(description="Their ids, at most 20.")
    latest_at: Time = Field(description="When the latest of them ended.")
    latest: list[Execution] = Field(description="The latest five.")


class FailureGroups(View):
    """What failed for good since a time, by host and error."""

    since: Time
    executions: int = Field(description="How many failed in all, or as many as were counted.")
    complete: bool = Field(description="Whether all were counted: it stops at the latest 3,000.")
    counted_since: Time | None = Field(description="The earliest end among those that were counted; null: all were.")
    groups_in_all: int
    groups: list[FailureGroup] = Field(description="The largest first.")
