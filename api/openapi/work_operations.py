"""`/cluster/work` and `/cluster/database` in `/openapi.json`. A test executes every example."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.openapi.operation_parts import responses
from api.openapi.schemas import ExecutionId, Time, View


class LeaseView(View):
    """The lease of a batch: its node sends the executions of it, and nobody else does."""

    batch: str
    node_id: str
    token: int = Field(description="The fencing token that the requests carry.")
    claims: int = Field(description="How many times the batch was claimed.")
    claimed_at: Time | None
    expires_at: Time
    executions: int
    attempt: int
    late: bool = Field(description="Late work: it is sent behind what is due now.")
    host: str | None = Field(description="The host of all its executions; null: there are several.")


class LimitView(View):
    """A limit of a queue or a job under which executions run or wait."""

    queue: str | None
    job_id: str | None
    max_per_second: float | None
    max_concurrent: int | None
    running: int = Field(description="Executions with a permit; only `maxConcurrent` counts them.")
    running_executions: list[ExecutionId] = Field(description="Some of them.")
    waiting: int = Field(description="Executions that are due and wait for a permit.")
    next_executions: list[ExecutionId] = Field(description="Some of them, those that were due first.")


class CatchUpView(View):
    """A range of time whose occurrences nobody had written down, and that is being caught up."""

    schedule: str = Field(description="The schedule, as it is compared.")
    job_id: str | None = Field(description="Null: all jobs with this schedule.")
    from_: Time = Field(alias="from")
    until: Time
    noticed_at: Time
    reached: Time


class WorkView(View):
    """What the cluster has in hand: of each kind 50 are listed."""

    leases: list[LeaseView]
    leases_in_all: int
    limits: list[LimitView]
    limits_in_all: int
    catch_up: list[CatchUpView]
    catch_up_in_all: int


class MemberView(View):
    """A member of the replica set, as the node that answers sees it."""

    name: str
    state: str
    healthy: bool
    lag_ms: int | None = Field(description="How far its last write is behind the primary's; null: not known.")


class DatabaseView(View):
    """MongoDB. What the user of the database may not read is null."""

    server: str
    replica_set: str | None
    schema_version: int | None
    round_trip_ms: float
    oplog_window_seconds: int | None
    members: list[MemberView] | None


WORK_MODELS = (WorkView, DatabaseView)


def work_operations() -> dict[str, Any]:
    """Both operations, by path and method."""
    return {
        "/cluster/work": {
            "get": {
                "operationId": "getWork",
                "summary": "Get what the cluster has in hand: leases, limits with who waits, ranges to catch up",
                "responses": responses({200: ("The work.", "WorkView")}),
            }
        },
        "/cluster/database": {
            "get": {
                "operationId": "getDatabase",
                "summary": "Get the state of the replica set",
                "responses": responses({200: ("The state.", "DatabaseView")}),
            }
        },
    }
