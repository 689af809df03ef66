"""`/executions` in `/openapi.json`: methods, parameters, examples. A test executes every example."""

from __future__ import annotations

from typing import Any

from api.openapi.operation_parts import (
    TIME,
    Operation,
    cursor_parameter,
    id_parameter,
    limit_parameter,
    overlap_parameter,
    query_parameter,
    request_body,
    responses,
    schema_ref,
    state_parameter,
)
from cluster.core.execution.view import STATES
from cluster.store.queries.narrowed_executions import ENDED_WITH


def execution_operations() -> dict[str, Any]:
    """All operations under `/executions`, by path and method."""
    return {**_executions(), **_failures(), **_replays()}


def _executions() -> dict[str, Any]:
    execution_id = id_parameter("executionId", "nightly-invoices:1795651200000")
    return {
        "/executions": {
            "get": {
                "operationId": "listExecutions",
                "summary": "List the executions of all jobs: unfinished ones first, then finished ones, latest first",
                "parameters": [
                    state_parameter(sorted(STATES), "failed"),
                    query_parameter(
                        "since",
                        TIME,
                        "Only executions that ended at or after this time; unfinished ones: that are due at or after it.",
                        "2026-11-01T00:00:00Z",
                    ),
                    query_parameter(
                        "until",
                        TIME,
                        "Only executions that ended before this time; unfinished ones: that are due before it.",
                        "2036-12-01T00:00:00Z",
                    ),
                    *_narrowed(),
                    limit_parameter(50),
                    cursor_parameter(),
                ],
                "responses": responses({200: ("A page of executions.", "ExecutionPage")}),
            }
        },
        "/executions/{executionId}": {
            "get": {
                "operationId": "getExecution",
                "summary": "Get an execution with all its attempts",
                "parameters": [execution_id],
                "responses": responses({200: ("The execution.", "ExecutionInFull")}),
            }
        },
        "/executions/{executionId}/retry": {
            "post": {
                "operationId": "retryExecution",
                "summary": "Replay a failed, dead or cancelled execution",
                "parameters": [execution_id, overlap_parameter()],
                "responses": responses({202: ("The execution will be sent again.", "Triggered")}, {202: ["Location"]}),
            }
        },
    }


def _narrowed() -> list[Operation]:
    """What narrows the list to a host, to how the last attempt ended, or to who holds the unfinished ones."""
    unsuccessful = "Of finished ones only those that did not succeed are looked at; a page may then be short."
    short: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 64}
    long: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 300}
    status: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 599}
    return [
        query_parameter(
            "host",
            long,
            f"Only executions whose target has this host; a port may follow. {unsuccessful}",
            "api.example.com",
        ),
        query_parameter(
            "error",
            {"type": "string", "enum": list(ENDED_WITH)},
            "Only executions whose last attempt ended with this kind of error; `not_sent`: that have no attempt. "
            f"{unsuccessful}",
            "timeout",
        ),
        query_parameter(
            "status", status, f"Only executions whose last attempt got this HTTP status. {unsuccessful}", 503
        ),
        query_parameter("node", long, "Only unfinished executions that this node holds.", "host-1-4711-a1b2c3"),
        query_parameter("batch", short, "Only unfinished executions of this batch.", "0192f0c1a2b3"),
        query_parameter("queue", short, "Only unfinished executions under the limits of this queue.", "mail"),
    ]


def _failures() -> dict[str, Any]:
    return {
        "/executions/failures": {
            "get": {
                "operationId": "listFailures",
                "summary": "Group what failed for good by host and error, the largest groups first",
                "parameters": [
                    state_parameter(["dead", "failed"], "failed,dead"),
                    query_parameter(
                        "since",
                        TIME,
                        "Only executions that ended at or after this time; the last 24 hours by default.",
                        "2026-11-01T00:00:00Z",
                    ),
                    query_parameter(
                        "until", TIME, "Only executions that ended before this time.", "2036-12-01T00:00:00Z"
                    ),
                    limit_parameter(50, 200),
                ],
                "responses": responses({200: ("The groups.", "FailureGroups")}),
            }
        },
    }


def _replays() -> dict[str, Any]:
    retry_id = {
        "name": "retryId",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "example": "4f9c3ef0a3e94f2bb0f8d9a8f2a1c7de",
    }
    return {
        "/executions/retry": {
            "get": {
                "operationId": "listRetries",
                "summary": "List the replays of the last seven days, latest first",
                "responses": responses({200: ("The replays.", "RetriedList")}),
            },
            "post": {
                "operationId": "retryExecutions",
                "summary": "Replay many failed, dead or cancelled executions, or only count them",
                "requestBody": request_body(
                    ["application/json"],
                    schema_ref("RetrySpecMany"),
                    {
                        "count first": {"filter": {"state": ["dead"], "error": "timeout"}, "dryRun": True},
                        "of one job": {"filter": {"jobId": "nightly-invoices"}, "maxPerSecond": 20},
                    },
                ),
                "responses": responses(
                    {
                        200: ("The number of matches (`dryRun`).", "Counted"),
                        202: ("The replay has started.", "Retried"),
                    },
                    {202: ["Location"]},
                ),
            },
        },
        "/executions/retry/{retryId}": {
            "get": {
                "operationId": "getRetry",
                "summary": "Get the progress of a replay of many executions",
                "parameters": [retry_id],
                "responses": responses({200: ("The progress so far.", "Retried")}),
            },
            "delete": {
                "operationId": "stopRetry",
                "summary": "Stop a replay: no further execution is sent again; 409 if it is done",
                "parameters": [retry_id],
                "responses": responses({204: ("It was stopped.", None)}),
            },
        },
    }
