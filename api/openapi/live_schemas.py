"""The schemas of imports, previews, the timeline, the herd, tests of targets, keys, nodes and verifications in `/openapi.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.openapi.schemas import Fault, Time, View


class TimelineStep(View):
    """The counts of one step; those that are absent are zero."""

    at: Time
    succeeded: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0
    skipped: int = 0
    missed: float = Field(default=0, description="A range of missed occurrences is shared out evenly over its time.")
    retried: int = Field(
        default=0, description="Attempts that were tried again; counted besides. Of history: those of what has ended."
    )
    late: int = Field(default=0, description="First attempts that were sent more than a second late; counted besides.")
    unfinished: int = Field(default=0, description="Due already, and not final; from history only.")
    due: float = Field(default=0, description="What will be due. A spread occurrence is shared out over the steps.")


class TimelineRow(View):
    """A row. Steps without anything are left out."""

    name: str | None = Field(description="The tag, queue, host or job; null: everything.")
    steps: list[TimelineStep]


class TimelineRest(View):
    """All other rows together."""

    rows: int
    steps: list[TimelineStep]


class TimelineView(View):
    """What was and what will be."""

    from_: Time = Field(alias="from", description="The beginning of the first step.")
    until: Time
    now: Time
    step: int = Field(description="Seconds.")
    by: Literal["tag", "queue", "host", "job"] | None
    source: Literal["rollup", "history"] = Field(
        description="Where the past is from: counted by when it ended (`rollup`), or by when it was planned (`history`)."
    )
    rows: list[TimelineRow] = Field(description="Those with most first.")
    rest: TimelineRest
    jobs_left_out: int = Field(description="Active jobs that there was no time to count ahead.")


class BusySecond(View):
    """A second with many requests."""

    at: Time
    sends: float


class HerdView(View):
    """How many requests are due at the same time."""

    from_: Time = Field(alias="from")
    seconds: int
    sends: float
    per_second: list[float]
    per_minute: list[float]
    worst: list[BusySecond]
    worst_second_if_spread: dict[str, float] = Field(description="By `spreadSeconds`, if every job had it.")
    jobs_left_out: int


class Spread(View):
    """What a spread would make of it."""

    spread_seconds: int
    worst_second: float
    mean_second: float


class Crowded(View):
    """One occurrence of the schedule, and what else is due then."""

    at: Time
    others: float = Field(description="Requests of active jobs in this second.")
    if_spread: list[Spread] = Field(description="The same within the seconds that a spread would use.")


class CrowdView(View):
    """How crowded the next occurrences are."""

    occurrences: list[Crowded]
    jobs_left_out: int


class TargetAnswerView(View):
    """What the target answered."""

    execution_id: str = Field(description="The id that the request carried; no execution has it.")
    verdict: Literal["success", "retry", "gone", "refused"] = Field(description="What a run would make of it.")
    status: int | None
    duration_ms: float
    error: str | None
    detail: str | None
    response_excerpt: str | None


class KeyView(View):
    """An API key, without its value."""

    name: str
    scope: Literal["read", "write", "admin"]
    state: Literal["live", "revoked", "expired"]
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None


class NewKey(KeyView):
    """A new API key. Its value is shown here once."""

    key: str


class KeyList(View):
    """The keys in the database."""

    items: list[KeyView]


class DrainAsked(View):
    """The request was left for the node, which acts on it within seconds."""

    node_id: str
    draining: bool
    other_nodes: int = Field(description="Other nodes that work; 0: nothing is sent while this one is drained.")


class VerificationBegun(View):
    """The id of the run."""

    verification_id: str


class VerificationView(View):
    """A run of verify."""

    verification_id: str
    state: Literal["running", "done", "failed"]
    node_id: str
    asked_at: Time
    ended_at: Time | None
    since: Time
    until: Time | None
    job_id: str | None
    late_seconds: float
    error: str | None
    report: dict[str, Any] | None = Field(
        description="As `horae verify --json` prints it, with 200 findings at most; in a list without findings."
    )


class VerificationList(View):
    """The runs that were asked for last."""

    items: list[VerificationView]


LIVE_MODELS = (
    VerificationBegun,
    VerificationView,
    VerificationList,
    TimelineView,
    HerdView,
    CrowdView,
    TargetAnswerView,
    NewKey,
    KeyList,
    DrainAsked,
)


class BadLine(View):
    """An invalid line of an import."""

    line: int
    job_id: str | None
    errors: list[Fault]


class Imported(View):
    """The result of an import: how many lines had which outcome."""

    created: int
    updated: int
    unchanged: int
    failed: int
    errors: list[BadLine]
    errors_not_shown: int


class Previewed(View):
    """The next occurrences of a schedule."""

    next: list[Time] = Field(description="With the offset of the time zone.")
    description: str
    warnings: list[str]
