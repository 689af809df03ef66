"""Revisions of jobs and the audit log in `/openapi.json`. A test executes every example."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.openapi.operation_parts import (
    TIME,
    Operation,
    cursor_parameter,
    id_parameter,
    idempotency_header,
    if_match_header,
    limit_parameter,
    query_parameter,
    responses,
)
from api.openapi.schemas import Time, View
from cluster.core.audit_entry import KINDS
from cluster.store.revisions import KEPT

NUMBER = {"type": "integer", "minimum": 1, "maximum": 999_999_999}


class Difference(View):
    """One field that differs. A value of more than 1,000 bytes is shown as its size and SHA-256."""

    path: str = Field(description="A JSON Pointer (RFC 6901), such as `/retry/maxAttempts`.", examples=["/schedule"])
    before: Any = Field(description="null: the field was absent. A secret is shown as its placeholder.")
    after: Any


class ActorView(View):
    """Who acted. What is not known is null."""

    key: str | None = Field(description="The name of the API key.")
    address: str | None = Field(description="The address of the client; of a command on the database, user@machine.")
    via: Literal["api", "page", "command", "horae"] = Field(description="`horae`: what Horae did by itself.")
    command: str | None = Field(description="The command, if it was one.")


class RevisionView(View):
    """A revision of a job."""

    revision: int
    at: Time
    action: str | None = Field(description="As in the audit log; `import:ID` or `action:ID` of a part of one.")
    by: ActorView | None
    state: str = Field(description="The state of the job as of the revision.")
    body_bytes: int = Field(description="The size of the body. A list shows no body of more than 8 KiB.")
    definition: dict[str, Any] = Field(description="The job as `GET /jobs/{jobId}` shows it: secrets are placeholders.")
    against: int | None = Field(default=None, description="The revision that it was compared with, if one was named.")
    changes: list[Difference] | None = Field(default=None, description="What differs: from `against` to this revision.")


class RevisionPage(View):
    """Revisions of a job, the latest first."""

    items: list[RevisionView]
    next_cursor: str | None


class AuditEntryView(View):
    """Who did what to which object."""

    id: str
    at: Time
    object: str = Field(examples=["job:nightly-invoices"])
    action: str = Field(examples=["change"])
    by: ActorView
    revision: int | None = Field(description="Of a job: the revision that was made.")
    changes: list[Difference]
    counts: dict[str, Any] | None = Field(description="Of an import or a replay of many: how many.")
    detail: dict[str, Any]


class AuditPage(View):
    """Entries of the audit log, the latest first."""

    items: list[AuditEntryView]
    next_cursor: str | None


AUDIT_MODELS = (RevisionView, RevisionPage, AuditPage)


def audit_operations() -> dict[str, Any]:
    """The operations, by path and method."""
    job_id = id_parameter("jobId", "nightly-invoices")
    number = {"name": "revision", "in": "path", "required": True, "schema": NUMBER, "example": 1}
    limit = limit_parameter(20)
    limit["schema"] = {**limit["schema"], "maximum": KEPT}
    one = responses({200: ("The revision.", "RevisionView")})
    reverted = responses({200: ("The job as it is now.", "Job")}, {200: ["ETag"]})
    return {
        "/jobs/{jobId}/revisions": {
            "get": {
                "operationId": "listRevisions",
                "summary": f"List the last {KEPT} revisions of a job",
                "parameters": [job_id, limit, cursor_parameter()],
                "responses": responses({200: ("The revisions, the latest first.", "RevisionPage")}),
            }
        },
        "/jobs/{jobId}/revisions/{revision}": {
            "get": {
                "operationId": "getRevision",
                "summary": "Get a revision of a job, and how it differs from another one",
                "parameters": [job_id, number, query_parameter("against", NUMBER, "The revision to compare it with.")],
                "responses": one,
            }
        },
        "/jobs/{jobId}/revisions/{revision}/revert": {
            "post": {
                "operationId": "revertJob",
                "summary": "Give a job the definition of an earlier revision; its state and its secrets stay",
                "parameters": [job_id, number, if_match_header(), idempotency_header()],
                "responses": reverted,
            }
        },
        "/audit": {"get": _list()},
    }


def _list() -> Operation:
    about = {"type": "string", "pattern": f"^({'|'.join(KINDS)}):[!-~]{{1,100}}$"}
    return {
        "operationId": "listAudit",
        "summary": "List who did what (scope admin)",
        "parameters": [
            query_parameter("object", about, "Only entries about this object.", "job:nightly-invoices"),
            query_parameter("key", {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}, "Only by this API key."),
            query_parameter("since", TIME, "Only entries at or after this time."),
            query_parameter("until", TIME, "Only entries before this time."),
            limit_parameter(50),
            cursor_parameter(),
        ],
        "responses": responses({200: ("The entries, the latest first.", "AuditPage")}),
    }
