"""Live events, the timeline, the herd, tests of targets, keys and nodes in `/openapi.json`. A test executes the examples."""

from __future__ import annotations

from typing import Any

from api.openapi.operation_parts import (
    TIME,
    Operation,
    header_parameter,
    query_parameter,
    request_body,
    responses,
    schema_ref,
)
from cluster.core.events import EXECUTION_STATES, KINDS

EVENT_ID = {"type": "string", "pattern": "^82[0-9A-F]{18,2000}$"}
NAMES = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 64}, "minItems": 1, "maxItems": 32}


def live_operations() -> dict[str, Any]:
    """The operations."""
    return {
        "/events": {"get": _events()},
        "/timeline": {"get": _timeline()},
        "/herd": {"get": _herd()},
        "/schedules/crowd": {"post": _crowd()},
        "/targets/test": {"post": _target_test()},
        **_verifications(),
        **_keys(),
        **_nodes(),
    }


def _several(name: str, text: str, known: list[str] | None = None) -> Operation:
    schema = NAMES if known is None else {"type": "array", "items": {"type": "string", "enum": known}, "minItems": 1}
    return {**query_parameter(name, schema, text), "style": "form", "explode": False}


def _events() -> Operation:
    stream = responses({200: ("Events, each with `id`, `event` and `data` (JSON); comments as heartbeats.", None)})
    stream["200"]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    return {
        "operationId": "streamEvents",
        "summary": "Watch what happens, as server-sent events",
        "description": "`execution`: it ended, or is tried again; `job`: created, changed, paused, resumed, completed, "
        "deleted; `leader`, `breaker`, `alert`. `dropped` says what a viewer does not get and why, `closing` why the "
        "stream ends. Connect again with the last id: every node goes on behind it. 429 or 503: too many viewers.",
        "parameters": [
            _several("tag", "Only events of jobs with one of these tags."),
            _several("job", "Only events of these jobs."),
            _several("state", "Only executions that come into one of these states.", sorted(EXECUTION_STATES)),
            _several("kind", "Only events of these kinds.", list(KINDS)),
            query_parameter(
                "seconds", {"type": "integer", "minimum": 1, "maximum": 86_400}, "End after so many seconds.", 1
            ),
            query_parameter("lastEventId", EVENT_ID, "As the header, for clients that cannot set it."),
            header_parameter("Last-Event-ID", EVENT_ID, "Begin behind the event with this id; without it, now."),
        ],
        "responses": stream,
    }


def _timeline() -> Operation:
    job_filter = "as in GET /jobs"
    text = {"type": "string", "minLength": 1, "maxLength": 64}
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": 8}
    states = {"type": "array", "items": {"type": "string", "enum": ["active", "paused", "completed"]}, "minItems": 1}
    return {
        "operationId": "getTimeline",
        "summary": "Get what was and what will be: counts by outcome per step and row",
        "parameters": [
            query_parameter("from", TIME, "The beginning; without it, half an hour before now or `until`."),
            query_parameter("until", TIME, "The end; without it, an hour after `from`."),
            query_parameter(
                "step",
                {"type": "string", "pattern": "^(1|2|5|10|15|30)s|[1-9][0-9]{0,2}(m|h|d)$"},
                "1, 2, 5, 10, 15 or 30 seconds, or whole minutes, such as 30s, 5m, 1h or 1d. Chosen if absent.",
                "1m",
            ),
            query_parameter("by", {"type": "string", "enum": ["tag", "queue", "host", "job"]}, "One row for each."),
            query_parameter(
                "rows", {"type": "integer", "minimum": 1, "maximum": 50, "default": 20}, "So many rows by name."
            ),
            {**query_parameter("state", states, f"Which jobs, {job_filter}."), "style": "form", "explode": False},
            query_parameter("tag", texts, f"Which jobs, {job_filter}: all of these tags."),
            query_parameter("anyTag", texts, f"Which jobs, {job_filter}: any of these tags."),
            query_parameter("q", {**text, "maxLength": 200}, f"Which jobs, {job_filter}."),
            query_parameter("host", {**text, "maxLength": 300}, f"Which jobs, {job_filter}."),
            query_parameter("schedule", {**text, "maxLength": 256}, f"Which jobs, {job_filter}."),
            query_parameter("failing", {"type": "string", "enum": ["true", "false"]}, f"Which jobs, {job_filter}."),
        ],
        "responses": responses({200: ("The timeline.", "TimelineView")}),
    }


def _herd() -> Operation:
    return {
        "operationId": "getHerd",
        "summary": "Get how many requests are due per second and minute",
        "parameters": [
            query_parameter("from", TIME, "The beginning; without it, the next second."),
            query_parameter(
                "seconds", {"type": "integer", "minimum": 1, "maximum": 3600, "default": 3600}, "How long."
            ),
        ],
        "responses": responses({200: ("The load.", "HerdView")}),
    }


def _crowd() -> Operation:
    example = {"a busy second": {"schedule": "0 0 9 * * MON-FRI", "timezone": "Europe/Berlin"}}
    return {
        "operationId": "crowdOfSchedule",
        "summary": "Look how crowded the seconds of a schedule are, and what a spread would make of it",
        "requestBody": request_body(["application/json"], schema_ref("CrowdSpec"), example),
        "responses": responses({200: ("What else is due.", "CrowdView")}),
    }


def _target_test() -> Operation:
    body = {
        "type": "object",
        "description": "A job; `schedule` may be absent. `jobId`: secrets may be kept from this job.",
        "required": ["api"],
    }
    return {
        "operationId": "testTarget",
        "summary": "Send one request as a job would, marked `Horae-Test: true`; it is not a run",
        "requestBody": request_body(
            ["application/json"], body, {"a webhook": {"api": "https://api.example.com/hook", "body": {"n": 1}}}
        ),
        "responses": responses({200: ("What the target answered, or the error.", "TargetAnswerView")}),
    }


def _verifications() -> dict[str, Any]:
    run_id = {
        "name": "verificationId",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^v-[0-9]{13}-[0-9a-f]{6}$"},
        "example": "v-1795651200000-a1b2c3",
    }
    limit = query_parameter("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "How many.")
    return {
        "/verifications": {
            "get": {
                "operationId": "listVerifications",
                "summary": "List the latest runs of verify (scope admin)",
                "parameters": [limit],
                "responses": responses({200: ("The runs, without their findings.", "VerificationList")}),
            },
            "post": {
                "operationId": "beginVerification",
                "summary": "Recompute what was owed and compare it with all records, in the background (scope admin)",
                "requestBody": request_body(
                    ["application/json"], schema_ref("VerificationSpec"), {"the last hour": {}}
                ),
                "responses": responses({202: ("It runs.", "VerificationBegun")}, {202: ["Location"]}),
            },
        },
        "/verifications/{verificationId}": {
            "get": {
                "operationId": "getVerification",
                "summary": "Get a run of verify with its findings (scope admin)",
                "parameters": [run_id],
                "responses": responses({200: ("The run.", "VerificationView")}),
            }
        },
    }


def _keys() -> dict[str, Any]:
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
        "example": "ci",
    }
    return {
        "/keys": {
            "get": {
                "operationId": "listKeys",
                "summary": "List the API keys in the database (scope admin)",
                "responses": responses({200: ("The keys.", "KeyList")}),
            },
            "post": {
                "operationId": "createKey",
                "summary": "Create an API key (scope admin)",
                "requestBody": request_body(
                    ["application/json"], schema_ref("KeySpec"), {"for CI": {"name": "ci", "expires": "90d"}}
                ),
                "responses": responses({201: ("The key, shown once.", "NewKey")}, {201: ["Location"]}),
            },
        },
        "/keys/{name}": {
            "delete": {
                "operationId": "revokeKey",
                "summary": "Revoke an API key (scope admin); every node refuses it within two seconds",
                "parameters": [name],
                "responses": responses({204: ("It is revoked.", None)}),
            }
        },
    }


def _nodes() -> dict[str, Any]:
    node = {
        "name": "nodeId",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,100}$"},
        "example": "host-1-4711-a1b2c3",
    }

    def ask(name: str, text: str) -> Operation:
        return {
            "post": {
                "operationId": name,
                "summary": text,
                "parameters": [node],
                "responses": responses({202: ("The node was asked.", "DrainAsked")}),
            }
        }

    return {
        "/nodes/{nodeId}/drain": ask("drainNode", "Ask a node to give its work away; it keeps running (scope admin)"),
        "/nodes/{nodeId}/undrain": ask("undrainNode", "Take the request to drain back (scope admin)"),
    }
