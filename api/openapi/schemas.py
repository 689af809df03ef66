"""The schemas of responses in `/openapi.json`. The resources render the responses; tests compare both.

The class names are the names of the components in `/openapi.json`, which generated clients use: do not rename them.
"""

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
    """A JSON object with camelCase names and no further properties."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Fault(View):
    """One error in a request."""

    path: str = Field(description="The field, such as `retry.maxAttempts`; empty: the whole request.")
    message: str = Field(description="What is wrong, and what is allowed.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:horae:problem:invalid-input"])
    title: str
    status: int
    detail: str | None = None
    instance: str | None = Field(
        default=None, description="For an internal error: the id to search for in the node's log."
    )
    errors: list[Fault] | None = Field(default=None, description="All errors of the request.")


class Created(View):
    """The id of the new job."""

    job_id: str


class Triggered(View):
    """The id of the execution that will be sent, and what may keep it from being sent."""

    execution_id: ExecutionId
    running: ExecutionId | None = Field(
        default=None, description="Under `overlap: skip`: the execution of the job that has not ended."
    )
    note: str | None = Field(default=None, description="What follows from that, in words.")


class Execution(View):
    """An execution in a list. Values of an attempt are those of the last one."""

    timestamp: Time = Field(description="When it was last sent; if it was never sent, when it ended or is due.")
    status: int | None = Field(description="The HTTP status of the target's response.")
    duration: str | None = Field(examples=["120ms"])
    execution_id: ExecutionId
    scheduled_at: Time
    state: ExecutionState
    attempt: int
    drift_ms: int | None = Field(description="How long after the planned time the first attempt was sent, in ms.")
    error: str | None
    node: str | None
    job_id: str = Field(default="", description="Absent in the list of one job's executions.")
    reason: str | None = Field(default=None, description="Why it ended this way, or was not sent.")
    missed_count: int = Field(default=1, description="For `missed`: how many occurrences this entry stands for.")
    missed_until: Time = Field(
        default="", description="For `missed`: the last of these occurrences; `scheduledAt` is the first."
    )


class Attempt(View):
    """One request to the target."""

    attempt: int
    claimed_at: Time | None = Field(description="When the node had claimed it; null: an earlier release sent it.")
    sent_at: Time
    duration_ms: float
    status: int | None = Field(
        description="The status of the response. Beside an `error`: the response broke off after its status line, so that the "
        "status is no verdict."
    )
    error: str | None = Field(
        description="`dns`, `connect`, `tls`, `timeout`, `stalled` (the node was suspended), `reset`, `denied`, `too_large`, "
        "`protocol`, `other`, or an error that a node of a later release reports."
    )
    detail: str | None
    response_excerpt: str | None
    node: str
    token: int = Field(description="The fencing token that was sent with the request.")
    lateness_parts: dict[str, float] | None = Field(
        default=None,
        description="Of a first attempt that left more than 100 ms late; they add up to `driftMs`. As in `/stats`.",
    )


class FollowUp(View):
    """What follows an execution: a callback, or the run of a job that is chained to its job."""

    execution_id: ExecutionId
    kind: Literal["callback", "run"]
    job_id: str = Field(description="The chained job; of a callback an id of its own, that no job has.")
    state: ExecutionState
    attempt: int


class ExecutionInFull(Execution):
    """An execution with all its attempts."""

    send_at: Time
    ended_at: Time | None
    trigger: bool = Field(description="Whether the run was triggered by a request rather than by the schedule.")
    schedule_version: str
    trace_id: str = Field(
        description="The trace that targets see in `traceparent`, and that spans are collected under."
    )
    follows: ExecutionId | None = Field(
        description="Of a callback, or of a run of a job with `after`: the execution that it follows."
    )
    attempts: list[Attempt]
    follow_ups: list[FollowUp] = Field(
        default=[], description="What follows it, as far as it is owed or kept. Absent in lists and within a job."
    )
    attempts_left_out: int | None = Field(
        default=None,
        description="How many attempts between the first 20 and the last 180 are not kept, if any are not.",
    )


class Counted(View):
    """The number of executions that a replay would send."""

    dry_run: bool
    matched: int


class RetriedFilter(View):
    """The filter with its defaults."""

    job_id: str | None
    tag: str | None
    host: str | None
    state: list[str]
    since: Time | None
    until: Time | None
    error: str | None
    status: int | None


class Retried(View):
    """A replay of many executions, and its progress."""

    retry_id: str
    state: Literal["running", "done", "stopped"]
    matched: int = Field(description="How many executions matched the filter at the start.")
    sent: int = Field(description="How many executions have been scheduled again so far.")
    max_per_second: float
    created_at: Time
    filter: RetriedFilter


class RetriedList(View):
    """Replays of the last seven days, latest first, at most 50."""

    items: list[Retried]


class ExecutionPage(View):
    """A page of executions of all jobs."""

    items: list[Execution]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` to get the next page; null: this is the last page."
    )


class FactView(View):
    """An event, or (without a time) the current state."""

    at: Time | None
    text: str


class Explanation(View):
    """Why there is or is no execution, and what happened to it."""

    state: str = Field(
        description="The state of the execution; or notDue, paused, deleted, absent, ahead, waiting, expired, unknown."
    )
    summary: str
    scheduled_at: Time | None
    execution_id: ExecutionId | None
    facts: list[FactView] = Field(description="In the order of time.")


class Explanations(View):
    """Explanations of the occurrences of one second, or of the last run and the next."""

    job_id: str
    job_state: str
    at: Time | None
    explanations: list[Explanation]


class MessageExplanations(View):
    """The explanation of a message: one."""

    message_id: str
    explanations: list[Explanation]


class QueueView(View):
    """A queue: limits that jobs share."""

    name: str
    max_per_second: float | None
    max_concurrent: int | None
    running: int | None = Field(description="How many requests are in flight now; null if `maxConcurrent` is not set.")
    updated_at: Time


class QueueList(View):
    """All queues, by name."""

    items: list[QueueView]


class IncidentView(View):
    """A problem of one job, from its beginning to its end."""

    job_id: str
    kind: Literal["failing", "missed", "drift", "noRun"]
    state: Literal["open", "closed"]
    detail: str
    execution_id: str | None = Field(description="The last execution that showed the problem.")
    opened_at: Time
    last_seen_at: Time
    closed_at: Time | None


class IncidentPage(View):
    """Incidents, latest first."""

    items: list[IncidentView]
    next_cursor: str | None


class DefaultAlerts(View):
    """The alert rules of all jobs without rules of their own; null: none."""

    alerts: dict[str, Any] | None


class ChannelView(View):
    """A destination of alerts. Secrets are shown as `{"secret": true}`."""

    name: str
    type: Literal["webhook", "slack", "email"]
    url: str | dict[str, bool] = Field(default="", description="For `webhook` and `slack`.")
    to: list[str] = Field(default=[], description="For `email`.")
    signing_secret: dict[str, bool] | None = Field(
        default=None, description="For `webhook`: null if the channel has no signing secret."
    )
    updated_at: Time


class ChannelList(View):
    """All channels, by name."""

    items: list[ChannelView]


class Leader(View):
    """The leader; null: there is none."""

    node_id: str | None
    term: int
    since: Time | None
    renewed_at: Time | None


class NodeView(View):
    """A node, as of its last heartbeat."""

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
    silent: bool = Field(description="Without a heartbeat for 5 s: it has ended, or cannot reach the database.")


class Backlog(View):
    """Waiting work, in executions."""

    ready: int = Field(description="Due and not claimed by a node.")
    held_back: int = Field(description="Of these, held back by a breaker, a slow host, a limit, a pause or a window.")
    leased: int
    late: int
    oldest_due_at: Time | None


class BreakerView(View):
    """A host whose circuit breaker is open: no requests are sent to it for a while, because too many failed."""

    host: str
    state: Literal["open", "half-open"] = Field(description="`half-open`: one probe request is in flight.")
    opened_at: Time
    tried_again_at: Time = Field(description="When the next probe request may be sent.")
    opens: int = Field(description="How many times in a row the breaker opened.")
    reason: str


class ClusterView(View):
    """The state of the cluster."""

    leader: Leader
    nodes: list[NodeView]
    backlog: Backlog
    breakers: list[BreakerView]
    breakers_in_all: int = Field(description="The number of open breakers; `breakers` lists the 100 that opened first.")
    active_jobs: int = Field(description="As of some seconds ago; with 100,000 jobs half a minute at most.")
    rates: dict[str, Any]


class Status(View):
    """The status of the node."""

    status: str
