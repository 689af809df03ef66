"""The shapes of answers, for the description (`/openapi.json`). What renders them is in `render`; tests hold the two together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.core.documents.base import to_camel

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-12-01T10:00:00.000Z"])]
ExecutionId = Annotated[str, Field(examples=["nightly-invoices:1795651200000"])]
ExecutionState = Literal[
    "pending", "running", "retrying", "succeeded", "failed", "dead", "cancelled", "skipped", "missed"
]


class View(BaseModel):
    """camelCase outside, nothing but what is named."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Fault(View):
    """One thing wrong with a request."""

    path: str = Field(description="Where, such as retry.maxAttempts; empty for the whole.")
    message: str = Field(description="What would be right.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:horae:problem:invalid-input"])
    title: str
    status: int
    detail: str | None = None
    instance: str | None = Field(default=None, description="For a fault of ours: what to look for in the node's log.")
    errors: list[Fault] | None = Field(default=None, description="Every fault of the input at once.")


class Created(View):
    """A job was made."""

    job_id: str


class Triggered(View):
    """An execution is owed."""

    execution_id: ExecutionId


class Execution(View):
    """An execution as lists show it; what concerns an attempt is of the last one."""

    timestamp: Time = Field(description="When it was sent last; else when it ended or is due.")
    status: int | None = Field(description="The target's HTTP status.")
    duration: str | None = Field(examples=["120ms"])
    execution_id: ExecutionId
    scheduled_at: Time
    state: ExecutionState
    attempt: int
    drift_ms: int | None = Field(description="How late its first attempt was sent.")
    error: str | None
    node: str | None
    job_id: str = Field(default="", description="In lists of all jobs and for a single one.")
    reason: str | None = Field(default=None, description="Why it ended as it did, or did not run.")
    missed_count: int = Field(default=1, description="A `missed` one stands for so many occurrences ...")
    missed_until: Time = Field(default="", description="... from scheduledAt until then.")


class Attempt(View):
    """One POST to the target."""

    attempt: int
    sent_at: Time
    duration_ms: float
    status: int | None
    error: str | None = Field(
        description="`dns`, `connect`, `tls`, `timeout`, `stalled` (this node stood still), `reset`, `denied`, `too_large`, "
        "`protocol`, `other`, or what a node of a later release says."
    )
    detail: str | None
    response_excerpt: str | None
    node: str
    token: int = Field(description="The fencing token it was sent with.")


class ExecutionInFull(Execution):
    """An execution with every attempt."""

    send_at: Time
    ended_at: Time | None
    trigger: bool = Field(description="Whether somebody asked for it.")
    schedule_version: str
    attempts: list[Attempt]


class Counted(View):
    """What would be sent again."""

    dry_run: bool
    matched: int


class RetriedFilter(View):
    """The filter as it was understood."""

    job_id: str | None
    tag: str | None
    state: list[str]
    since: Time | None
    until: Time | None
    error: str | None
    status: int | None


class Retried(View):
    """A request to send many again, and how far it is."""

    retry_id: str
    state: Literal["running", "done"]
    matched: int = Field(description="How many fitted when it was asked for.")
    sent: int = Field(description="How many have been handed to the nodes so far.")
    max_per_second: float
    created_at: Time
    filter: RetriedFilter


class ExecutionPage(View):
    """A page of executions of all jobs."""

    items: list[Execution]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null: this was the last.")


class FactView(View):
    """Something that happened, or (without a time) is so now."""

    at: Time | None
    text: str


class Explanation(View):
    """Why there is or is not an execution, and what became of it."""

    state: str = Field(
        description="That of the execution; or notDue, paused, deleted, absent, ahead, waiting, expired, unknown."
    )
    summary: str
    scheduled_at: Time | None
    execution_id: ExecutionId | None
    facts: list[FactView] = Field(description="By time.")


class Explanations(View):
    """Of the occurrences of a second, or of the last run and the next."""

    job_id: str
    job_state: str
    at: Time | None
    explanations: list[Explanation]


class BadLine(View):
    """A line of an import that did not land."""

    line: int
    job_id: str | None
    errors: list[Fault]


class Imported(View):
    """What became of the lines."""

    created: int
    updated: int
    unchanged: int
    failed: int
    errors: list[BadLine]
    errors_not_shown: int


class Previewed(View):
    """When a schedule would run."""

    next: list[Time] = Field(description="With the zone's offset.")
    description: str
    warnings: list[str]


class QueueView(View):
    """A queue: limits that jobs share."""

    name: str
    max_per_second: float | None
    max_concurrent: int | None
    running: int | None = Field(description="How many run now, if that is limited.")
    updated_at: Time


class QueueList(View):
    """Every queue, by name."""

    items: list[QueueView]


class IncidentView(View):
    """One trouble of one job, from its beginning to its end."""

    job_id: str
    kind: Literal["failing", "missed", "drift", "noRun"]
    state: Literal["open", "closed"]
    detail: str
    execution_id: str | None = Field(description="The execution that showed it last.")
    opened_at: Time
    last_seen_at: Time
    closed_at: Time | None


class IncidentPage(View):
    """Incidents, the latest opened first."""

    items: list[IncidentView]
    next_cursor: str | None


class DefaultAlerts(View):
    """The rules of all jobs without rules of their own; null: none."""

    alerts: dict[str, Any] | None


class ChannelView(View):
    """Where alerts go; what is secret shows as `{"secret": true}`."""

    name: str
    type: Literal["webhook", "slack", "email"]
    url: str | dict[str, bool] = Field(default="", description="Of a webhook or of Slack.")
    to: list[str] = Field(default=[], description="Of email.")
    signing_secret: dict[str, bool] | None = Field(default=None, description="Of a webhook: whether there is one.")
    updated_at: Time


class ChannelList(View):
    """Every channel, by name."""

    items: list[ChannelView]


class Leader(View):
    """Who leads."""

    node_id: str | None
    term: int
    since: Time | None
    renewed_at: Time | None


class NodeView(View):
    """One node."""

    node_id: str
    host: str
    pid: int
    version: str
    started_at: Time
    seen_at: Time
    clock_offset_ms: int
    in_flight: int
    waiting: int
    leading: bool
    draining: bool


class Backlog(View):
    """What waits, in executions."""

    ready: int
    leased: int
    late: int
    oldest_due_at: Time | None


class BreakerView(View):
    """A host to which nothing is sent for a while, because too many attempts failed."""

    host: str
    state: Literal["open", "half-open"] = Field(description="half-open: one request is finding out.")
    opened_at: Time
    tried_again_at: Time = Field(description="When the next request may find out whether it is back.")
    opens: int = Field(description="How often it opened in a row.")
    reason: str


class ClusterView(View):
    """The cluster as the database knows it."""

    leader: Leader
    nodes: list[NodeView]
    backlog: Backlog
    breakers: list[BreakerView]
    breakers_in_all: int = Field(description="At most 100 are listed, those that opened first.")
    rates: dict[str, Any]


class Status(View):
    """Yes."""

    status: str
