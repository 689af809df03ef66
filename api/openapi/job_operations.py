"""`/jobs` in `/openapi.json`: methods, parameters, examples. A test executes every example."""

from __future__ import annotations

from typing import Any

from api.openapi.job_list_operation import list_jobs
from api.openapi.operation_parts import (
    TIME,
    Operation,
    header_parameter,
    id_parameter,
    idempotency_header,
    if_match_header,
    limit_parameter,
    overlap_parameter,
    query_parameter,
    request_body,
    responses,
    schema_ref,
    state_parameter,
)
from cluster.core.execution.view import STATES

NEW_JOB = {"schedule": "31 10-15 1 * * MON-FRI", "api": "https://api.example.com/webhook", "type": "ATLEAST_ONCE"}
FULL_JOB = {
    "jobId": "nightly-invoices",
    "name": "Nightly invoices",
    "tags": ["billing"],
    "schedule": "0 30 2 * * *",
    "timezone": "Europe/Berlin",
    "api": "https://api.example.com/invoices",
    "headers": {"X-Tenant": "shop-01"},
    "body": {"kind": "invoice"},
    "timeoutSeconds": 10,
    "retry": {"maxAttempts": 8, "initialDelaySeconds": 2},
    "catchUp": "latest",
    "overlap": "skip",
}
PLAIN_JOB = {k: v for k, v in FULL_JOB.items() if k != "jobId"}
LINES = (
    '{"jobId":"a","schedule":"@hourly","api":"https://api.example.com/a"}\n'
    '{"jobId":"b","schedule":"@every 90s","api":"https://api.example.com/b"}\n'
)


def job_operations() -> dict[str, Any]:
    """All operations under `/jobs`, by path and method."""
    return {**_jobs(), **_job(), **_job_actions(), **_job_executions()}


def _jobs() -> dict[str, Any]:
    return {
        "/jobs": {
            "post": {
                "operationId": "createJob",
                "summary": "Create a job",
                "parameters": [idempotency_header()],
                "requestBody": request_body(
                    ["application/json"],
                    schema_ref("NewJob"),
                    {"smallest": NEW_JOB, "with an id and policies": FULL_JOB},
                ),
                "responses": responses({201: ("The job was created.", "Created")}, {201: ["Location", "ETag"]}),
            },
            "get": list_jobs(),
        },
        "/jobs/import": {
            "post": {
                "operationId": "importJobs",
                "summary": "Import jobs, one per line: valid lines are stored, invalid ones are reported",
                "requestBody": request_body(
                    ["application/x-ndjson"], {"description": "One NewJob per line."}, {"two jobs": LINES}
                ),
                "responses": responses({200: ("The result of the import.", "Imported")}),
            }
        },
    }


def _job() -> dict[str, Any]:
    job_id = id_parameter("jobId", "nightly-invoices")
    full = responses({200: ("The job as it is now.", "Job")}, {200: ["ETag"]})
    put = responses({200: ("Replaced.", "Job"), 201: ("Created.", "Job")}, {200: ["ETag"], 201: ["ETag", "Location"]})
    if_none_match = header_parameter(
        "If-None-Match",
        {"type": "string", "enum": ["*"]},
        "Only if the job does not exist yet; otherwise the response is 412.",
    )
    shown = {"type": "integer", "minimum": 1, "maximum": 20, "default": 5}
    next_runs = query_parameter("nextRuns", shown, "How many of its next occurrences.", 10)
    return {
        "/jobs/{jobId}": {
            "get": {
                "operationId": "getJob",
                "summary": "Get a job",
                "parameters": [job_id, next_runs],
                "responses": full,
            },
            "put": {
                "operationId": "putJob",
                "summary": "Create or replace the job with this id",
                "parameters": [job_id, if_match_header(), if_none_match],
                "requestBody": request_body(["application/json"], schema_ref("JobSpec"), {"a job": PLAIN_JOB}),
                "responses": put,
            },
            "patch": {
                "operationId": "patchJob",
                "summary": "Change some fields of a job",
                "parameters": [job_id, if_match_header()],
                "requestBody": request_body(
                    ["application/merge-patch+json"],
                    schema_ref("JobPatch"),
                    {"another time": {"schedule": "0 0 4 * * *"}, "fewer attempts": {"retry": {"maxAttempts": 3}}},
                ),
                "responses": full,
            },
            "delete": {
                "operationId": "deleteJob",
                "summary": "Delete a job and cancel its executions that have not ended, retries included",
                "parameters": [job_id, if_match_header()],
                "responses": responses({204: ("The job was deleted.", None)}),
            },
        },
    }


def _job_actions() -> dict[str, Any]:
    job_id = id_parameter("jobId", "nightly-invoices")

    def post(name: str, text: str, answers: Operation, more: list[Operation]) -> Operation:
        return {"post": {"operationId": name, "summary": text, "parameters": [job_id, *more], "responses": answers}}

    full = responses({200: ("The job as it is now.", "Job")}, {200: ["ETag"]})
    accepted = responses({202: ("The execution will be sent.", "Triggered")}, {202: ["Location"]})
    pause = post("pauseJob", "Pause a job, until it is resumed or until a time", full, [if_match_header()])
    examples = {"with a reason": {"reason": "the target is being moved"}, "until it is resumed": {}}
    terms = request_body(["application/json"], schema_ref("PauseSpec"), examples)
    pause["post"]["requestBody"] = {**terms, "required": False}
    return {
        "/jobs/{jobId}/pause": pause,
        "/jobs/{jobId}/resume": post("resumeJob", "Resume a paused job", full, [if_match_header()]),
        "/jobs/{jobId}/trigger": post(
            "triggerJob", "Run a job once, now", accepted, [idempotency_header(), overlap_parameter()]
        ),
    }


def _job_executions() -> dict[str, Any]:
    job_id = id_parameter("jobId", "nightly-invoices")
    return {
        "/jobs/{jobId}/executions": {
            "get": {
                "operationId": "listExecutionsOfJob",
                "summary": "List the executions of a job, latest first",
                "parameters": [
                    job_id,
                    limit_parameter(5),
                    query_parameter(
                        "before", TIME, "Only executions due before this time, or before the execution with this id."
                    ),
                    state_parameter(sorted(STATES), "succeeded"),
                ],
                "responses": responses({200: ("The executions.", "[Execution]")}, {200: ["Link"]}),
            }
        },
        "/jobs/{jobId}/explain": {
            "get": {
                "operationId": "explainJob",
                "summary": "Explain why a job did or did not run",
                "parameters": [
                    job_id,
                    query_parameter(
                        "at",
                        TIME,
                        "The second to explain. Without it, the last run and the next one are explained.",
                        "2026-12-01T10:00:00Z",
                    ),
                ],
                "responses": responses({200: ("The explanation, as sentences with times.", "Explanations")}),
            }
        },
    }
