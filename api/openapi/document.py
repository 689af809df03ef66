"""`/openapi.json` (OpenAPI 3.1), generated from the models that validate requests."""

from __future__ import annotations

import copy
import functools
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from api.openapi import action_operations, backfill_operations, failure_schemas, live_schemas, schemas
from api.openapi.audit_operations import AUDIT_MODELS, audit_operations
from api.openapi.calendar_operations import CalendarList, CalendarView, WindowList, WindowView, calendar_operations
from api.openapi.cluster_operations import cluster_operations
from api.openapi.execution_operations import execution_operations
from api.openapi.job_operations import job_operations
from api.openapi.live_operations import live_operations
from api.openapi.live_schemas import LIVE_MODELS
from api.openapi.message_operations import (
    BatchAccepted,
    MessageAccepted,
    MessagePage,
    MessageView,
    message_operations,
)
from api.openapi.session_operations import SessionView, session_operations
from api.openapi.stats_operation import StatsSeries, stats_operation
from api.openapi.work_operations import WORK_MODELS, work_operations
from api.resources.actions import ActionSpec
from api.resources.backfill import BackfillSpec
from api.resources.herd import CrowdSpec
from api.resources.keys import KeySpec
from api.resources.preview import PreviewSpec
from api.resources.queues import QueueSpec
from api.resources.replays import RetrySpecMany
from api.resources.verifications import VerificationSpec
from cluster.core.documents.alerts import AlertSpec, ChannelSpec
from cluster.core.documents.calendar import CalendarSpec
from cluster.core.documents.job import JobSpec
from cluster.core.documents.message import MessageSpec
from cluster.core.documents.pause import PauseSpec
from cluster.core.documents.window import WindowSpec

SIGNING = ("signingSecret", "previousSigningSecret")
"""Shown of a job only where they are stored."""
ID_PATTERN = "^(?!(?:actions|import)$)[A-Za-z0-9_-]{1,64}$"
API_DESCRIPTION = """Scheduled HTTP POST requests: on time, at least once.

Times are RFC 3339 in UTC with milliseconds. Errors are `application/problem+json` (RFC 9457) and list everything that is
wrong with a request. Send an API key as `Authorization: Bearer <key>`; a node without keys listens on loopback only and
needs none. A `503` carries `Retry-After`. The change may or may not have been made: read the resource to find out. It is
safe to repeat PUT, PATCH with `If-Match`, DELETE, and POST with an `Idempotency-Key`.
"""
_REQUEST_MODELS = (
    JobSpec,
    PauseSpec,
    MessageSpec,
    PreviewSpec,
    QueueSpec,
    RetrySpecMany,
    AlertSpec,
    ChannelSpec,
    ActionSpec,
    BackfillSpec,
    CalendarSpec,
    WindowSpec,
    CrowdSpec,
    KeySpec,
    VerificationSpec,
)
_RESPONSE_MODELS = (
    schemas.Problem,
    schemas.Created,
    schemas.Triggered,
    schemas.Execution,
    schemas.FollowUp,
    schemas.ExecutionInFull,
    schemas.ExecutionPage,
    schemas.Explanations,
    schemas.MessageExplanations,
    live_schemas.Imported,
    live_schemas.Previewed,
    StatsSeries,
    *action_operations.MODELS,
    *backfill_operations.MODELS,
    SessionView,
    MessageAccepted,
    MessageView,
    MessagePage,
    BatchAccepted,
    schemas.ClusterView,
    *WORK_MODELS,
    schemas.QueueView,
    schemas.Counted,
    schemas.Retried,
    schemas.RetriedList,
    failure_schemas.FailureGroups,
    schemas.QueueList,
    CalendarView,
    CalendarList,
    WindowView,
    WindowList,
    schemas.IncidentPage,
    schemas.DefaultAlerts,
    schemas.ChannelView,
    schemas.ChannelList,
    schemas.Status,
    *AUDIT_MODELS,
    *LIVE_MODELS,
)
Schema = dict[str, Any]


@functools.cache
def openapi_document() -> Schema:
    """The OpenAPI document. It is made once in a process, which takes a third of a second: it is not to be changed."""
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
        "paths": _tagged(
            {
                **job_operations(),
                **action_operations.action_operations(),
                **backfill_operations.backfill_operations(),
                **execution_operations(),
                **message_operations(),
                **cluster_operations(),
                **work_operations(),
                **stats_operation(),
                **audit_operations(),
                **calendar_operations(),
                **live_operations(),
                **session_operations(),
            }
        ),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Problem": {
                    "description": "An error: what is wrong, and what is allowed.",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
        },
    }


def _tagged(paths: Schema) -> Schema:
    """The paths, with the first segment of each as its tag: pages group the operations by it."""
    for path, operations in paths.items():
        for operation in operations.values():
            operation.setdefault("tags", [path.split("/")[1]])
    return paths


def _schemas() -> dict[str, Schema]:
    schemas_by_name: dict[str, Schema] = {}
    for models, mode in (
        (_REQUEST_MODELS, "validation"),
        (_RESPONSE_MODELS, "serialization"),
    ):
        _, generated = models_json_schema(
            [(m, mode) for m in models],  # type: ignore[misc] # the mode is one of two words
            ref_template="#/components/schemas/{model}",
        )
        schemas_by_name |= generated["$defs"]
    for schema in schemas_by_name.values():
        _remove_titles(schema)
    _remove_response_defaults(schemas_by_name)
    job = schemas_by_name["JobSpec"]
    job_id = {"type": "string", "pattern": ID_PATTERN, "description": "Your id for the job; generated if absent."}
    for name in ("JobSpec", "MessageSpec"):
        headers = schemas_by_name[name]["properties"]["headers"]
        headers["propertyNames"] = {"pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"}
    schemas_by_name["NewJob"] = {**copy.deepcopy(job), "description": "A job to create."}
    schemas_by_name["NewJob"]["properties"] = {"jobId": job_id, **schemas_by_name["NewJob"]["properties"]}
    schemas_by_name["JobPatch"] = _patch_schema(job, schemas_by_name["RetrySpec"])
    schemas_by_name["JobSummary"] = _summary_schema(job)
    schemas_by_name["Job"] = _full_schema(schemas_by_name["JobSummary"])
    schemas_by_name["ListedJob"] = _listed_schema(schemas_by_name["JobSummary"])
    schemas_by_name["JobPage"] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["items", "nextCursor"],
        "properties": {
            "items": {"type": "array", "items": {"$ref": "#/components/schemas/ListedJob"}},
            "nextCursor": {
                "type": ["string", "null"],
                "description": "Pass it as `cursor` to get the next page; null: this is the last page. A page that "
                "has passed over very many jobs ends early, perhaps without any item.",
            },
            "unreadable": {
                "type": "array",
                "description": "Jobs of this page whose stored documents cannot be read; absent if there are none.",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["jobId", "reason"],
                    "properties": {"jobId": {"type": "string"}, "reason": {"type": "string"}},
                },
            },
        },
    }
    return schemas_by_name


def _remove_titles(schema: Any) -> None:
    """Remove the titles that pydantic derives from names."""
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        for value in schema.values():
            _remove_titles(value)
    elif isinstance(schema, list):
        for value in schema:
            _remove_titles(value)


def _remove_response_defaults(schemas_by_name: dict[str, Schema]) -> None:
    """Remove defaults from response schemas: there a default only means that the field may be absent."""
    for model in (
        "Problem",
        "Execution",
        "ExecutionInFull",
        "ChannelView",
        "StatsPoint",
        "MessageView",
        "RevisionView",
        "ActionInList",
        "ActionInFull",
        "TimelineStep",
    ):
        schema = schemas_by_name[model]
        optional = {name for name, p in schema["properties"].items() if "default" in p}
        for name in optional:
            del schema["properties"][name]["default"]
        schema["required"] = [n for n in schema["required"] if n not in optional]


def _patch_schema(job: Schema, retry: Schema) -> Schema:
    """The schema of a merge patch (RFC 7396): all fields are optional, null removes a field."""

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


def _summary_schema(job: Schema) -> Schema:
    time = {"type": "string", "format": "date-time"}
    fields = {
        "jobId": {"type": "string"},
        **{
            name: {k: v for k, v in field.items() if k != "default"}
            for name, field in job["properties"].items()
            if name != "bodyType"
        },
        "state": {"type": "string", "enum": ["active", "paused", "completed"]},
        "stateReason": {
            "type": ["string", "null"],
            "description": "Why the job was paused automatically; null otherwise.",
        },
        "revision": {"type": "integer", "description": "Increases with every change; also the ETag."},
        "createdAt": time,
        "updatedAt": time,
    }
    return {
        "type": "object",
        "description": "A job. Signing secrets are members only where one is stored.",
        "additionalProperties": False,
        "required": _shown_always(fields),
        "properties": fields,
    }


def _shown_always(fields: Schema) -> list[str]:
    return [name for name in fields if name not in SIGNING]


def _listed_schema(summary: Schema) -> Schema:
    time = {"type": ["string", "null"], "format": "date-time"}
    fields = {
        **summary["properties"],
        "nextRunAt": {
            **time,
            "description": "The next occurrence; null if there is none, or unless the job is active.",
        },
        "lastRunAt": {**time, "description": "When a request of the job was sent last; some seconds behind."},
        "lastState": {
            "type": ["string", "null"],
            "description": "The state of its last final execution; some seconds behind. null: there was none.",
        },
        "failing": {"type": "boolean", "description": "Whether its last final execution is `failed` or `dead`."},
    }
    return {**summary, "description": "A job in a list.", "required": _shown_always(fields), "properties": fields}


def _full_schema(summary: Schema) -> Schema:
    time = {"type": "string", "format": "date-time"}
    last = {"anyOf": [{"$ref": "#/components/schemas/Execution"}, {"type": "null"}]}
    fields = {
        **summary["properties"],
        "activeFrom": {**time, "description": "Occurrences before this time are not sent."},
        "nextRuns": {
            "type": "array",
            "items": time,
            "description": "The next occurrences: five, or as many as `nextRuns` asks for.",
        },
        "lastExecution": last,
    }
    return {
        **summary,
        "description": "A job with its next and last executions.",
        "required": _shown_always(fields),
        "properties": fields,
    }
