"""`/messages` in `/openapi.json`: methods, parameters, examples. A test executes every example."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.openapi.operation_parts import (
    Operation,
    cursor_parameter,
    idempotency_header,
    limit_parameter,
    request_body,
    responses,
    schema_ref,
)
from api.openapi.schemas import Attempt, ExecutionState, Fault, Time, View

MESSAGE = {"api": "https://api.example.com/webhook"}
LATER = {
    "api": "https://api.example.com/reminders",
    "body": {"order": 4711},
    "delay": "1h30m",
    "dedupId": "reminder-4711",
    "tags": ["billing"],
    "retry": {"maxAttempts": 3},
    "onFailure": {"api": "https://api.example.com/failures"},
}
LINES = (
    '{"api":"https://api.example.com/a","body":{"n":1}}\n'
    '{"api":"https://api.example.com/b","delay":"30s","dedupId":"b-1"}\n'
)


class MessageAccepted(View):
    """The ids of the message: it is durable, and will be sent."""

    message_id: str = Field(examples=["msg.01KB0G5T3V8Q2W4E6R8T0Y2V4X"])
    execution_id: str = Field(examples=["msg.01KB0G5T3V8Q2W4E6R8T0Y2V4X:1795651200000"])


class CallbackTarget(View):
    """Who is told of the end of a message."""

    api: str | None = None
    channel: str | None = None


class MessageView(View):
    """A message. Its request is shown while it may be sent again; of its secrets and its body nothing."""

    message_id: str
    execution_id: str
    state: ExecutionState
    due_at: Time
    waiting: bool = Field(description="It is due later than the look-ahead and is no execution yet.")
    timestamp: Time
    status: int | None
    duration: str | None
    attempt: int
    drift_ms: int | None
    error: str | None
    node: str | None
    reason: str | None
    send_at: Time
    ended_at: Time | None
    trace_id: str
    attempts: list[Attempt]
    attempts_left_out: int | None = None
    api: str | None = None
    tags: list[str] | None = None
    queue: str | None = None
    created_at: Time | None = None
    expires_at: Time | None = None
    on_success: CallbackTarget | None = None
    on_failure: CallbackTarget | None = None


class ListedMessage(View):
    """A message in a list. `api`, `tags`, `queue` and times of its request are null if it cannot be read any more."""

    message_id: str
    execution_id: str
    state: ExecutionState
    waiting: bool = Field(description="It is due later than the look-ahead and is no execution yet.")
    due_at: Time
    send_at: Time
    attempt: int
    status: int | None
    error: str | None
    api: str | None
    tags: list[str]
    queue: str | None
    created_at: Time | None
    expires_at: Time | None


class MessagePage(View):
    """A page of messages that have not ended."""

    items: list[ListedMessage]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` to get the next page; null: this is the last page."
    )


class InvalidMessage(View):
    """An invalid line of a batch."""

    line: int
    errors: list[Fault]


class BatchAccepted(View):
    """The result of a batch: how many lines had which outcome."""

    accepted: int
    duplicates: int = Field(description="Lines whose `dedupId` had been accepted before: they are sent once.")
    failed: int
    errors: list[InvalidMessage] = Field(description="At most 100.")
    errors_not_shown: int


def message_operations() -> dict[str, Any]:
    """All operations under `/messages`, by path and method."""
    message_id: Operation = {
        "name": "messageId",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^msg\\.[0-9A-HJKMNP-TV-Z]{26}$"},
        "example": "msg.01KB0G5T3V8Q2W4E6R8T0Y2V4X",
    }
    return {
        "/messages": {
            "get": {
                "operationId": "listMessages",
                "summary": "List the messages that have not ended: those that are being sent, then those that wait",
                "parameters": [limit_parameter(50), cursor_parameter()],
                "responses": responses({200: ("A page of messages.", "MessagePage")}),
            },
            "post": {
                "operationId": "postMessage",
                "summary": "Send one request once, now or later",
                "parameters": [idempotency_header()],
                "requestBody": request_body(
                    ["application/json"], schema_ref("MessageSpec"), {"at once": MESSAGE, "in a while, once": LATER}
                ),
                "responses": responses({202: ("The message will be sent.", "MessageAccepted")}, {202: ["Location"]}),
            },
        },
        "/messages/batch": {
            "post": {
                "operationId": "postMessages",
                "summary": "Accept messages, one per line: valid lines are accepted, invalid ones are reported",
                "requestBody": request_body(
                    ["application/x-ndjson"], {"description": "One MessageSpec per line."}, {"two messages": LINES}
                ),
                "responses": responses({200: ("The result of the batch.", "BatchAccepted")}),
            }
        },
        "/messages/{messageId}": {
            "get": {
                "operationId": "getMessage",
                "summary": "Get a message with all its attempts",
                "parameters": [message_id],
                "responses": responses({200: ("The message.", "MessageView")}),
            },
            "delete": {
                "operationId": "deleteMessage",
                "summary": "Cancel a message that was not sent; 409 if a node holds it or has sent it",
                "parameters": [message_id],
                "responses": responses({204: ("It was not sent and will not be.", None)}),
            },
        },
        "/messages/{messageId}/explain": {
            "get": {
                "operationId": "explainMessage",
                "summary": "Explain why a message has not been sent, where it is, or how it ended",
                "parameters": [message_id],
                "responses": responses({200: ("The explanation, as sentences with times.", "MessageExplanations")}),
            }
        },
    }
