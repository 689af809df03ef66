"""The description of this API (OpenAPI 3.1), made from the models that validate: nothing here is said twice."""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from api.openapi import schemas
from api.openapi.operations import operations
from api.resources.preview import PreviewSpec
from api.resources.queues import QueueSpec
from api.resources.replays import RetrySpecMany
from cluster.core.documents.alerts import AlertSpec, ChannelSpec
from cluster.core.documents.job import JobSpec

ID_PATTERN = "^(?!import$)[A-Za-z0-9_-]{1,64}$"
API_DESCRIPTION = """Scheduled HTTP POST requests: on time, at least once.

Times are RFC 3339 in UTC with milliseconds. Every error is `application/problem+json` (RFC 9457); bad input is told
with every fault at once. A key is sent as `Authorization: Bearer <key>`; a node without keys listens on this machine
alone and needs none. A `503` is answered with `Retry-After`: the write was done or was not, as reading it again shows;
repeating the request is safe for PUT, PATCH with `If-Match`, DELETE, and for POST with an `Idempotency-Key`.
"""
_ANSWERS = (
    schemas.Problem,
    schemas.Created,
    schemas.Triggered,
    schemas.Execution,
    schemas.ExecutionInFull,
    schemas.ExecutionPage,
    schemas.Explanations,
    schemas.Imported,
    schemas.Previewed,
    schemas.ClusterView,
    schemas.QueueView,
    schemas.Counted,
    schemas.Retried,
    schemas.QueueList,
    schemas.IncidentPage,
    schemas.DefaultAlerts,
    schemas.ChannelView,
    schemas.ChannelList,
    schemas.Status,
)
Schema = dict[str, Any]


def openapi_document() -> Schema:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Horae",
            "version": version("horae"),
            "description": API_DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": operations(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Problem": {
                    "description": "An error: what was wrong and what would be right.",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
        },
    }


def _schemas() -> dict[str, Schema]:
    made: dict[str, Schema] = {}
    for models, mode in (
        ((JobSpec, PreviewSpec, QueueSpec, RetrySpecMany, AlertSpec, ChannelSpec), "validation"),
        (_ANSWERS, "serialization"),
    ):
        _, found = models_json_schema(
            [(m, mode) for m in models],  # type: ignore[misc] # the mode is one of two words
            ref_template="#/components/schemas/{model}",
        )
        made |= found["$defs"]
    for schema in made.values():
        _untitle(schema)
    _no_made_up_defaults(made)
    job = made["JobSpec"]
    job_id = {"type": "string", "pattern": ID_PATTERN, "description": "Chosen, or generated if left out."}
    job["properties"]["headers"]["propertyNames"] = {"pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"}
    made["NewJob"] = {**copy.deepcopy(job), "description": "A job to be made."}
    made["NewJob"]["properties"] = {"jobId": job_id, **made["NewJob"]["properties"]}
    made["JobPatch"] = _patch(job, made["RetrySpec"])
    made["JobSummary"] = _summary(job)
    made["Job"] = _full(made["JobSummary"])
    made["JobPage"] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["items", "nextCursor"],
        "properties": {
            "items": {"type": "array", "items": {"$ref": "#/components/schemas/JobSummary"}},
            "nextCursor": {"type": ["string", "null"], "description": "Pass it as `cursor`; null: the last page."},
            "unreadable": {
                "type": "array",
                "description": "There only if jobs of this page are stored in a form that cannot be read.",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["jobId", "reason"],
                    "properties": {"jobId": {"type": "string"}, "reason": {"type": "string"}},
                },
            },
        },
    }
    return made


def _untitle(schema: Any) -> None:
    """Titles that pydantic makes of names say nothing."""
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        for value in schema.values():
            _untitle(value)
    elif isinstance(schema, list):
        for value in schema:
            _untitle(value)


def _no_made_up_defaults(made: dict[str, Schema]) -> None:
    """In answers a default only says that a field may be absent."""
    for model in ("Problem", "Execution", "ExecutionInFull", "ChannelView"):
        schema = made[model]
        optional = {name for name, p in schema["properties"].items() if "default" in p}
        for name in optional:
            del schema["properties"][name]["default"]
        schema["required"] = [n for n in schema["required"] if n not in optional]


def _patch(job: Schema, retry: Schema) -> Schema:
    """RFC 7396: any field, null removes."""

    def optional(schema: Schema) -> Schema:
        fields = {}
        for name, field in schema["properties"].items():
            plain = {k: v for k, v in field.items() if k != "default"}
            if "$ref" in plain:
                plain = optional(retry)
            nullable = "type" not in plain or any(o.get("type") == "null" for o in plain.get("anyOf", []))
            fields[name] = plain if nullable and "properties" not in plain else {"anyOf": [plain, {"type": "null"}]}
        return {"type": "object", "additionalProperties": False, "properties": fields}

    return {**optional(copy.deepcopy(job)), "description": "A JSON merge patch (RFC 7396): null removes a field."}


def _summary(job: Schema) -> Schema:
    time = {"type": "string", "format": "date-time"}
    fields = {
        "jobId": {"type": "string"},
        **{
            name: {k: v for k, v in field.items() if k != "default"}
            for name, field in job["properties"].items()
            if name not in ("signingSecret", "previousSigningSecret")
        },
        "state": {"type": "string", "enum": ["active", "paused", "completed"]},
        "stateReason": {"type": ["string", "null"], "description": "Why it was paused, unless somebody asked for it."},
        "revision": {"type": "integer", "description": "Grows with every change; the ETag."},
        "createdAt": time,
        "updatedAt": time,
    }
    return {
        "type": "object",
        "description": "A job as lists show it.",
        "additionalProperties": False,
        "required": list(fields),
        "properties": fields,
    }


def _full(summary: Schema) -> Schema:
    time = {"type": "string", "format": "date-time"}
    last = {"anyOf": [{"$ref": "#/components/schemas/Execution"}, {"type": "null"}]}
    fields = {
        **summary["properties"],
        "activeFrom": {**time, "description": "What it owes begins here."},
        "nextRuns": {"type": "array", "items": time, "description": "The next five occurrences."},
        "lastExecution": last,
    }
    return {**summary, "description": "A job in full.", "required": list(fields), "properties": fields}
