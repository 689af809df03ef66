"""`GET /stats` in `/openapi.json`: its parameters and its answer. A test executes the example."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.openapi.operation_parts import TIME, Operation, query_parameter, responses
from api.openapi.schemas import Time, View


class LatenessPartsView(View):
    """Where lateness came from, in ms."""

    written_ms: float = Field(description="Late work: written, or put back, after its time (catch-up, backlog).")
    claimed_ms: float = Field(description="Claimed after its time.")
    waited_ms: float = Field(description="Waited for a slot of its node.")
    held_back_ms: float = Field(description="Held back by its host's slots or breaker, or by a limit.")
    sent_ms: float = Field(description="From then until the request left.")


class StatsPoint(View):
    """What was counted in one step."""

    at: Time = Field(description="The beginning of the step.")
    name: str | None = Field(default=None, description="The host, queue, tag or job; absent for the cluster.")
    sent: int = Field(description="Requests sent, retries included.")
    succeeded: int = Field(description="Executions that ended as `succeeded`.")
    failed: int = Field(description="Executions that ended as `failed` or `dead`.")
    retried: int = Field(description="Attempts after which the execution is tried again.")
    missed: int | None = Field(description="Occurrences recorded as `missed`; null by host, queue and tag.")
    lateness_p50_ms: float | None = Field(
        alias="latenessP50Ms", description="How late first attempts were sent; null: none."
    )
    lateness_p99_ms: float | None = Field(alias="latenessP99Ms")
    duration_p50_ms: float | None = Field(alias="durationP50Ms", description="How long requests took; null: none.")
    duration_p99_ms: float | None = Field(alias="durationP99Ms")
    lateness_parts: LatenessPartsView | None = Field(
        description="Means over all first attempts, which add up to the mean lateness; lateness of up to 10 ms (of one job: 100 ms) is "
        "not split, and counts as none. null: no first attempt was sent."
    )


class StatsSeries(View):
    """Numbers over time."""

    step: int = Field(description="Seconds; larger than asked for where so fine a step is not kept.")
    by: Literal["cluster", "host", "queue", "tag", "job"]
    series: list[StatsPoint] = Field(description="In order of time, then of name.")


def stats_operation() -> Operation:
    """The operation."""
    step = {"type": "string", "pattern": "^([1-9][0-9]{0,3}m|[1-9][0-9]{0,2}h|[1-8]?[1-9]d)$"}
    return {
        "/stats": {
            "get": {
                "operationId": "getStats",
                "summary": "Get numbers over time: counts, lateness and durations per step",
                "parameters": [
                    query_parameter("from", TIME, "The beginning; without it an hour before the end."),
                    query_parameter("until", TIME, "The end; without it now."),
                    query_parameter(
                        "step", step, "Seconds (whole minutes), or a number with m, h or d. Chosen if absent.", "5m"
                    ),
                    query_parameter(
                        "by",
                        {"type": "string", "enum": ["cluster", "host", "queue", "tag", "job"]},
                        "One series of the cluster (the default), or one for each host, queue or tag (the 50 with most "
                        "requests). `job` needs the parameter `job`, which may stand alone.",
                        "job",
                    ),
                    query_parameter(
                        "job",
                        {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
                        "The id of a job: its own series, added up from its history, by when its executions were due. More "
                        "than 100,000 executions are refused.",
                        "nightly-invoices",
                    ),
                ],
                "responses": responses({200: ("The numbers.", "StatsSeries")}),
            }
        }
    }
