"""`/jobs/{jobId}/backfill` in `/openapi.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.openapi.operation_parts import (
    cursor_parameter,
    id_parameter,
    idempotency_header,
    limit_parameter,
    request_body,
    responses,
    schema_ref,
)
from api.openapi.schemas import Time, View


class BackfillPreview(View):
    """What a backfill would send."""

    dry_run: bool
    count: int = Field(description="How many occurrences there are in the range.")
    first: Time | None
    last: Time | None
    already_run: int = Field(description="How many of them are in history as final, other than `missed`.")
    to_send: int
    remarks: list[str] = Field(description="What to know before: clocks that changed, earlier schedules, policies.")


class BackfillStarted(View):
    """The backfill goes on in the background."""

    backfill_id: str
    count: int


class BackfillView(View):
    """A backfill and how far it is."""

    backfill_id: str
    job_id: str
    state: Literal["running", "done", "stopped"]
    reason: str | None = Field(description="Why it was stopped, unless a request did it.")
    from_: Time = Field(alias="from")
    until: Time
    again: bool
    count: int
    sent: int
    already_run: int = Field(description="How many were left out because they had run, ended otherwise, or were owed.")
    unknown: int = Field(description="How many were left out because their results may have expired meanwhile.")
    reached: Time = Field(description="Occurrences before this time have had their turn.")
    max_per_second: float
    created_at: Time
    ended_at: Time | None


class BackfillList(View):
    """A page of the backfills of a job, the latest first."""

    items: list[BackfillView]
    next_cursor: str | None


MODELS = (BackfillPreview, BackfillStarted, BackfillView, BackfillList)


def backfill_operations() -> dict[str, Any]:
    """The operations on backfills, by path and method."""
    job_id = id_parameter("jobId", "nightly-invoices")
    backfill_id = {
        "name": "backfillId",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "example": "4f9c3ef0a3e94f2bb0f8d9a8f2a1c7de",
    }
    past = {"from": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00Z", "again": True}
    return {
        "/jobs/{jobId}/backfill": {
            "post": {
                "operationId": "startBackfill",
                "summary": "Run a job for a time that has passed, or only say what would be sent",
                "parameters": [job_id, idempotency_header()],
                "requestBody": request_body(
                    ["application/json"],
                    schema_ref("BackfillSpec"),
                    {"look first": {**past, "dryRun": True}, "once more": {**past, "maxPerSecond": 20}},
                ),
                "responses": responses(
                    {
                        200: ("What would be sent (`dryRun`).", "BackfillPreview"),
                        202: ("The backfill has started.", "BackfillStarted"),
                    },
                    {202: ["Location"]},
                ),
            },
            "get": {
                "operationId": "listBackfills",
                "summary": "List the backfills of a job, the latest first",
                "parameters": [job_id, limit_parameter(50), cursor_parameter()],
                "responses": responses({200: ("The backfills.", "BackfillList")}),
            },
        },
        "/jobs/{jobId}/backfill/{backfillId}": {
            "get": {
                "operationId": "getBackfill",
                "summary": "Get the progress of a backfill",
                "parameters": [job_id, backfill_id],
                "responses": responses({200: ("The progress so far.", "BackfillView")}),
            },
            "delete": {
                "operationId": "stopBackfill",
                "summary": "Stop a backfill; what it has begun is sent",
                "parameters": [job_id, backfill_id],
                "responses": responses({204: ("The backfill is stopped.", None)}),
            },
        },
    }
