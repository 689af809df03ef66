"""`/jobs/actions` in `/openapi.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.openapi.operation_parts import (
    cursor_parameter,
    idempotency_header,
    limit_parameter,
    request_body,
    responses,
    schema_ref,
)
from api.openapi.schemas import Time, View

ACTION = Literal["pause", "resume", "trigger", "delete", "patch"]


class SampleJob(View):
    """A job that an action would change."""

    job_id: str
    name: str | None
    state: Literal["active", "paused", "completed"]


class ActionPreview(View):
    """What an action would change."""

    dry_run: bool
    matched: int
    sample: list[SampleJob] = Field(description="The first ten jobs, by name.")


class ActionStarted(View):
    """The action goes on in the background."""

    action_id: str
    matched: int


class FailedJob(View):
    """A job that an action could not change."""

    job_id: str
    reason: str


class ActionInList(View):
    """An action and how far it is."""

    action_id: str
    action: ACTION
    state: Literal["running", "done", "stopped"]
    matched: int = Field(description="How many jobs matched the filter at the request.")
    done: int = Field(description="How many jobs are as the action wants them.")
    left_out: int = Field(description="How many jobs did not match the filter any more at their turn.")
    failed: int
    filter: dict[str, Any] = Field(description="The filter of the request.")
    fields: list[str] = Field(default=[], description="Of `patch`: the fields that it changes.")
    max_per_second: float
    created_at: Time
    ended_at: Time | None


class ActionInFull(ActionInList):
    """An action, how far it is, and what failed."""

    failures: list[FailedJob] = Field(description="The first 1,000 jobs that failed, with the reasons.")
    failures_not_shown: int


class ActionPage(View):
    """A page of actions, the latest first."""

    items: list[ActionInList]
    next_cursor: str | None


MODELS = (ActionPreview, ActionStarted, ActionInFull, ActionPage)


def action_operations() -> dict[str, Any]:
    """The operations on many jobs, by path and method."""
    action_id = {
        "name": "actionId",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "example": "4f9c3ef0a3e94f2bb0f8d9a8f2a1c7de",
    }
    return {
        "/jobs/actions": {
            "post": {
                "operationId": "startAction",
                "summary": "Pause, resume, trigger, delete or patch the jobs that match a filter, or only count them",
                "parameters": [idempotency_header()],
                "requestBody": request_body(
                    ["application/json"],
                    schema_ref("ActionSpec"),
                    {
                        "count first": {"action": "pause", "filter": {"tag": "billing"}, "dryRun": True},
                        "pause": {"action": "pause", "filter": {"tag": "billing", "state": "active"}},
                        "patch": {"action": "patch", "filter": {"all": True}, "patch": {"retry": {"maxAttempts": 3}}},
                    },
                ),
                "responses": responses(
                    {
                        200: ("The number of jobs and the first ten (`dryRun`).", "ActionPreview"),
                        202: ("The action has started.", "ActionStarted"),
                    },
                    {202: ["Location"]},
                ),
            },
            "get": {
                "operationId": "listActions",
                "summary": "List actions on many jobs, the latest first",
                "parameters": [limit_parameter(50), cursor_parameter()],
                "responses": responses({200: ("A page of actions.", "ActionPage")}),
            },
        },
        "/jobs/actions/{actionId}": {
            "get": {
                "operationId": "getAction",
                "summary": "Get the progress of an action",
                "parameters": [action_id],
                "responses": responses({200: ("The progress so far.", "ActionInFull")}),
            },
            "delete": {
                "operationId": "stopAction",
                "summary": "Stop an action; what it has changed stays so",
                "parameters": [action_id],
                "responses": responses({204: ("The action is stopped.", None)}),
            },
        },
    }
