"""`GET /jobs` in `/openapi.json`: its parameters. A test executes every example."""

from __future__ import annotations

from typing import Any

from api.openapi.operation_parts import (
    TIME,
    Operation,
    limit_parameter,
    query_parameter,
    responses,
    state_parameter,
)

JOB_STATES = ["active", "paused", "completed"]
SORTS = [sign + name for name in ("createdAt", "lastRunAt", "name", "nextRunAt") for sign in ("", "-")]
CURSOR = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,2400}$"}
TAG = {"type": "string", "minLength": 1, "maxLength": 64}


def list_jobs() -> Operation:
    """The operation."""
    return {
        "operationId": "listJobs",
        "summary": "List and search jobs, newest first or in another order",
        "parameters": [
            state_parameter(JOB_STATES, "active"),
            _several("tag", 8, "Only jobs with all of these tags; give the parameter once for each."),
            _several("anyTag", 32, "Only jobs with at least one of these tags; give the parameter once for each."),
            query_parameter(
                "q",
                {"type": "string", "minLength": 1, "maxLength": 200},
                "Only jobs that have every one of these words, or words that begin with them, in their name, id, "
                "description, URL or tags, in any case. What is no letter or digit separates words.",
                "inv",
            ),
            query_parameter(
                "host",
                {"type": "string", "minLength": 1, "maxLength": 300},
                "Only jobs whose target has this host, with or without its port.",
                "api.example.com",
            ),
            query_parameter(
                "schedule",
                {"type": "string", "minLength": 1, "maxLength": 256},
                "Only jobs with this schedule, however it is written, in any time zone.",
                "0 30 2 * * *",
            ),
            query_parameter(
                "calendar",
                {"type": "string", "minLength": 1, "maxLength": 64},
                "Only jobs that name this calendar.",
                "holidays",
            ),
            query_parameter(
                "failing",
                {"type": "boolean"},
                "true: only jobs whose last final execution is `failed` or `dead`; false: only the others.",
            ),
            query_parameter(
                "nextRunBefore", TIME, "Only jobs that are due next before this time.", "2030-01-01T00:00:00Z"
            ),
            query_parameter(
                "sort",
                {"type": "string", "enum": SORTS, "default": "-createdAt"},
                "The order; a `-` reverses it. Jobs that have no value to sort by come last.",
                "nextRunAt",
            ),
            limit_parameter(50),
            query_parameter(
                "cursor",
                CURSOR,
                "The `nextCursor` of the previous page, with the same `sort`. In the order of `nextRunAt` it is good for "
                "ten minutes, and the order is as of the first page.",
            ),
        ],
        "responses": responses({200: ("A page of jobs.", "JobPage")}),
    }


def _several(name: str, most: int, text: str) -> Operation:
    schema: dict[str, Any] = {"type": "array", "items": TAG, "minItems": 1, "maxItems": most, "uniqueItems": True}
    return {**query_parameter(name, schema, text, ["billing"]), "style": "form", "explode": True}
