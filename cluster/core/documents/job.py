"""The JSON document of a job: one model that checks it, describes it (OpenAPI) and finds all faults at once.

A fault has the dotted path of a field and a sentence that says how to correct it. Whether a schedule still has an
occurrence in the future is not decided here, because that needs the time (`job/changes.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from cluster.core import instants
from cluster.core.catch_up_policy import CatchUpPolicy
from cluster.core.documents.alerts import AlertSpec
from cluster.core.documents.base import Model, empty
from cluster.core.documents.calendar_use import CalendarUse
from cluster.core.documents.follow_ups import AfterSpec, CallbackSpec, not_chained, wanted_callback
from cluster.core.documents.request_fields import (
    NO_CONTEXT,
    AuthField,
    BodyField,
    CodesField,
    QueueField,
    TagsField,
    TargetField,
    encode_body,
)
from cluster.core.documents.retry import RetrySpec
from cluster.core.documents.secret_fields import MAX_HEADERS, Headers, SigningSecret, invalid
from cluster.core.ids import JOB_ID, lane_of
from cluster.core.job.definition import Definition, JobCalendar, WantedPause
from cluster.core.job.wanted import KEEP_IF_STORED, WantedJob, WantedSecret
from cluster.core.lifecycle import JobState
from cluster.core.limits.permits import Limits
from cluster.core.schedule.schedule import MAX_SCHEDULE_LENGTH, InvalidSchedule, parse_schedule
from cluster.core.targets import MAX_URL_LENGTH, parse_target

BODY_LIMIT = 1024 * 1024
WINDOW_LIMIT = 30 * 86_400
MAX_PAUSE_REASON = 500


def check_job_id(job_id: str) -> str:
    """Check the id of a job. Raises a fault."""
    if not JOB_ID.match(job_id):
        raise invalid("must have 1 to 64 characters out of A-Z a-z 0-9 _ -")
    if job_id in ("actions", "import"):
        raise invalid(f"must not be '{job_id}', which is a path of its own")
    return job_id


def _instant(value: Any) -> int:
    if not isinstance(value, str):
        raise invalid("must be a time in a string, such as 2026-12-01T10:00:00Z")
    try:
        return instants.parse_instant(value)
    except ValueError as exc:
        raise invalid(str(exc)) from exc


def check_zone(name: str) -> str:
    """Check the name of a time zone. Raises a fault."""
    try:
        parse_schedule("* * * * * *", name)
    except InvalidSchedule as exc:
        raise invalid(exc.message) from exc
    return name


Zone = Annotated[str, AfterValidator(check_zone)]


def check_schedule(text: str | None, info: ValidationInfo) -> str | None:
    """Check a schedule, in the `timezone` that was checked before it. Raises a fault."""
    if text is None:
        if "after" in info.data and info.data["after"] is None:
            raise invalid("is required, unless the job runs after another one (`after`)")
        return None
    if info.data.get("after") is not None:
        raise invalid("must not be combined with after: use one of them (null removes it)")
    try:
        parse_schedule(text, info.data.get("timezone", "UTC"))
    except InvalidSchedule as exc:
        raise invalid(exc.message) from exc
    return text


def _window(seconds: int, info: ValidationInfo) -> int:
    most = (info.context or NO_CONTEXT).get("longest_window", WINDOW_LIMIT)
    if seconds > most:
        raise invalid(f"must be at most {most}: older executions may have expired from history")
    return seconds


def _after_start(end: int, info: ValidationInfo) -> int:
    start = info.data.get("start_at")
    if start is not None and end <= start:
        raise invalid("must be later than startAt")
    return end


def _outlasts_window(days: float | None, info: ValidationInfo) -> float | None:
    least = 2 * info.data.get("catch_up_window_seconds", 0) / 86_400
    if days is not None and days < least:
        raise invalid(f"must be at least {least:.3g}, twice catchUpWindowSeconds: history must outlast the window")
    return days


def _of_one_off(delete: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's signature
    if delete and info.data.get("after") is not None:
        raise invalid("is for jobs that run once, with @at")
    schedule = info.data.get("schedule")
    if delete and schedule is not None and not schedule.lstrip().lower().startswith("@at"):
        raise invalid("is for jobs that run once, with @at; use completedRetentionDays for others")
    return delete


Instant = Annotated[int, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]


_DEFAULT_RETRY = RetrySpec()
Overlap = Literal["allow", "skip"]


class JobSpec(Model):
    """A job: when it runs, which URL it calls, and how."""

    timezone: Zone = Field(
        default="UTC",
        max_length=64,
        description="IANA time zone in which a cron expression, or an `@at` without an offset, is read.",
        examples=["Europe/Berlin"],
    )
    after: AfterSpec | None = Field(
        default=None, description="The job whose executions it runs after, instead of a schedule."
    )
    schedule: Annotated[
        Annotated[str, Field(max_length=MAX_SCHEDULE_LENGTH)] | None, AfterValidator(check_schedule)
    ] = Field(
        default=None,
        validate_default=True,
        description="Cron with seconds first (five fields: second 0), an alias such as `@hourly`, `@every 90s`, "
        "`@at 2026-12-01T10:00:00Z`, or `@at 2026-12-01T10:00:00` in `timezone`.",
        examples=["31 10-15 1 * * MON-FRI", "0 30 9 * * *", "@every 90s"],
    )
    api: TargetField = Field(
        max_length=MAX_URL_LENGTH,
        description="The URL that receives the POST.",
        examples=["https://api.example.com/webhook"],
    )
    type: Literal["ATLEAST_ONCE"] = Field(default="ATLEAST_ONCE", description="The delivery guarantee.")
    name: str | None = Field(default=None, max_length=200)
    description: str | None = Field(default=None, max_length=4000)
    tags: TagsField = empty(list, max_length=32)
    templates: bool = Field(
        default=True,
        description="Whether `{{scheduledAt}}`, `{{executionId}}`, `{{jobId}}` and `{{attempt}}` are filled in, in the "
        "headers and in the body. `{{{{name}}}}` is sent as `{{name}}`. false: everything is sent as it is.",
    )
    headers: Headers = empty(
        dict,
        max_length=MAX_HEADERS,
        description='A value is a string, or `{"secret": "..."}`, which is shown as `{"secret": true}`; send that back '
        "to keep the stored value.",
    )
    auth: AuthField = None
    body_type: Literal["json"] | None = Field(
        default=None,
        description="`json`: a `body` that is a string holds JSON, which is sent as JSON, byte for byte. Never shown: such "
        "a body reads as JSON.",
    )
    body: BodyField = Field(
        default=None,
        description="Any JSON value, sent as JSON with the bytes that were given, or a string, sent as it is. null: no "
        "body.",
    )
    timeout_seconds: float = Field(default=30.0, ge=0.1, le=900, allow_inf_nan=False)
    retry: RetrySpec = _DEFAULT_RETRY
    success_codes: CodesField | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="The statuses that count as success, instead of 2xx: numbers, or classes such as `2xx`.",
        examples=[[200, 202, 404]],
    )
    catch_up: CatchUpPolicy = Field(
        default="all", description="Which occurrences still run after a time in which they could not be scheduled."
    )
    catch_up_window_seconds: Annotated[int, AfterValidator(_window)] = Field(default=3600, ge=0, le=WINDOW_LIMIT)
    overlap: Overlap = Field(
        default="allow", description="`skip`: an occurrence is skipped while the one before it is not finished."
    )
    spread_seconds: Annotated[int, AfterValidator(not_chained)] = Field(
        default=0, ge=0, le=86_400, description="Requests are sent up to this much later, constant for one job."
    )
    calendar: Annotated[CalendarUse | None, AfterValidator(not_chained)] = Field(
        default=None, description="null: it runs on every day of its schedule."
    )
    start_at: Annotated[Instant | None, AfterValidator(not_chained)] = None
    end_at: Annotated[Annotated[Instant, AfterValidator(_after_start)] | None, AfterValidator(not_chained)] = None
    retention_days: Annotated[float | None, AfterValidator(_outlasts_window)] = Field(
        default=None,
        ge=0.1,
        le=3650,
        allow_inf_nan=False,
        description="How long its executions are kept after they ended. null: as long as the operator's setting says.",
    )
    completed_retention_days: float | None = Field(
        default=None,
        ge=0,
        le=3650,
        allow_inf_nan=False,
        description="How long the job is kept after it was completed. null: as long as the operator's setting says.",
    )
    delete_after_run: Annotated[bool, AfterValidator(_of_one_off)] = Field(
        default=False, description="Of a job with `@at`: it is deleted once its run has ended, however it did."
    )
    max_per_second: float | None = Field(
        default=None,
        ge=0.001,
        le=100_000,
        allow_inf_nan=False,
        description="Requests per second of all nodes together.",
    )
    max_concurrent: int | None = Field(
        default=None, ge=1, le=10_000, description="Requests at once of all nodes together."
    )
    queue: QueueField | None = Field(
        default=None,
        max_length=64,
        description="The queue whose limits it shares (`PUT /queues/{name}`), instead of limits of its own.",
    )
    state: Literal["active", "paused"] | None = Field(
        default=None,
        description="`paused`: nothing is sent until it is resumed. Omitted: as it is; a new job is active.",
    )
    paused_until: Instant | None = Field(
        default=None,
        description="Of a paused job: it is resumed then by itself, within a year from now. null: only by a resume.",
    )
    pause_reason: str | None = Field(
        default=None, min_length=1, max_length=MAX_PAUSE_REASON, description="Of a paused job: why, for people to read."
    )
    on_success: CallbackSpec | None = Field(default=None, description="Told of each execution that succeeded.")
    on_failure: CallbackSpec | None = Field(
        default=None, description="Told of each execution that failed, after its last attempt."
    )
    alerts: AlertSpec | None = Field(
        default=None, description="When which channels are notified. null: the rules of `PUT /alerts/default`."
    )
    signing_secret: SigningSecret = Field(
        default=None,
        description='Never shown: a stored one reads as `{"secret": true}`; send that back, or omit it, to keep it. null '
        "removes it.",
    )
    previous_signing_secret: SigningSecret = Field(
        default=None,
        description="As `signingSecret`. Requests are signed with both while receivers switch to the new one.",
    )

    def to_wanted(self, *, complete: bool = False) -> WantedJob:
        """The value. `complete`: the document is the whole job, so that an omitted signing secret is removed."""
        body, kind = encode_body(self.body)
        host = parse_target(self.api).host_port
        definition = Definition(
            schedule=self.schedule or "",
            after=None if self.after is None else self.after.to_after(),
            url=self.api,
            lane=lane_of(host),
            host=host,
            timezone=self.timezone,
            name=self.name,
            description=self.description,
            tags=tuple(self.tags),
            headers=tuple((name, value) for name, value in self.headers.items() if isinstance(value, str)),
            body=body,
            body_kind=kind,
            templates=self.templates,
            timeout_seconds=self.timeout_seconds,
            retry=self.retry.to_retry_policy(),
            success_codes=None if self.success_codes is None else tuple(self.success_codes),
            catch_up=self.catch_up,
            catch_up_window_seconds=self.catch_up_window_seconds,
            overlap=self.overlap,
            spread_seconds=self.spread_seconds,
            calendar=None if self.calendar is None else JobCalendar(self.calendar.name, self.calendar.on_excluded),
            start_ms=self.start_at,
            end_ms=self.end_at,
            retention_days=self.retention_days,
            completed_retention_days=self.completed_retention_days,
            delete_after_run=self.delete_after_run,
            alerts=None if self.alerts is None else self.alerts.to_json(),
            queue=self.queue,
            limits=Limits(self.max_per_second, self.max_concurrent),
        )
        return WantedJob(
            definition=definition,
            secret_headers=tuple((name, value) for name, value in self.headers.items() if not isinstance(value, str)),
            auth=None if self.auth is None else self.auth.to_wanted(),
            signing_secret=self._signing_secret("signing_secret", complete=complete),
            previous_signing_secret=self._signing_secret("previous_signing_secret", complete=complete),
            alert_channels=() if self.alerts is None else tuple(self.alerts.channels),
            state=None if self.state is None else JobState(self.state),
            pause=WantedPause(self.paused_until, self.pause_reason, of_definition=True),
            on_success=wanted_callback(self.on_success, complete=complete),
            on_failure=wanted_callback(self.on_failure, complete=complete),
        )

    def _signing_secret(self, field: str, *, complete: bool) -> WantedSecret | None:
        if not complete and field not in self.model_fields_set:
            return KEEP_IF_STORED
        secret: WantedSecret | None = getattr(self, field)
        return secret
