"""A job as a value: the definition of its user, and the fields that Horae keeps beside it. No syntax here: documents/job
parses that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cluster.core.execution.model import RetryPolicy
from cluster.core.limits.permits import UNLIMITED, Limits
from cluster.core.schedule.calendar_days import Exclusion

if TYPE_CHECKING:
    from cluster.core.lifecycle import JobState
    from cluster.core.schedule.calendar_days import ExcludedDays, Mode

DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Auth:
    """The `Authorization` header. `kind` is `basic` or `bearer`; `user` is empty for `bearer`."""

    kind: str
    user: str
    secret: str = field(repr=False)


_MODES: dict[str, Mode] = {"skip": "skip", "nextIncluded": "next", "previousIncluded": "previous"}


@dataclass(frozen=True, slots=True)
class JobCalendar:
    """The calendar that a job names. `on_excluded` is `skip`, `nextIncluded` or `previousIncluded`."""

    name: str
    on_excluded: str = "skip"
    days: ExcludedDays | None = None
    """The days that it excluded when the job was written. None: they were not looked up yet."""

    def exclusion(self, timezone: str) -> Exclusion | None:
        """What it leaves out or moves of a schedule in this zone."""
        return None if self.days is None else Exclusion(_MODES[self.on_excluded], timezone, self.days)


@dataclass(frozen=True, slots=True)
class Callback:
    """Who is told how an execution ended: a URL, or a channel by its name."""

    url: str = ""
    channel: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    secret_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    signing_secret: str | None = field(default=None, repr=False)

    @property
    def has_secrets(self) -> bool:
        """Whether anything of it is never shown."""
        return bool(self.secret_headers) or self.signing_secret is not None


@dataclass(frozen=True, slots=True)
class After:
    """The job that a chained job runs after, and the results that it runs after: `succeeded`, `failed` or `any`."""

    job_id: str
    on: str = "succeeded"


@dataclass(frozen=True, slots=True)
class Definition:
    """A checked definition. Instants are ms since 1970. Equal definitions compare equal."""

    schedule: str
    url: str
    lane: int
    host: str = ""
    """Host and port of the URL."""
    timezone: str = "UTC"
    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    secret_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Headers whose values are never shown."""
    auth: Auth | None = None
    body: bytes = b""
    body_kind: str = "none"
    """`none`, `json` (the bytes are JSON) or `text` (the bytes are UTF-8 and sent as they are)."""
    templates: bool = True
    """Whether names such as `{{jobId}}` are filled in, in the headers and in the body."""
    timeout_seconds: float = 30.0
    retry: RetryPolicy = DEFAULT_RETRY
    success_codes: tuple[int | str, ...] | None = None
    """As written: statuses, and classes such as `2xx`; None: 2xx."""
    catch_up: str = "all"
    catch_up_window_seconds: int = 3600
    overlap: str = "allow"
    spread_seconds: int = 0
    calendar: JobCalendar | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    alerts: str | None = None
    """Any JSON, as text."""
    signing_secret: str | None = field(default=None, repr=False)
    previous_signing_secret: str | None = field(default=None, repr=False)
    """Requests are also signed with this one while receivers switch to the new secret."""
    retention_days: float | None = None
    """How long its executions are kept. None: as long as the operator's setting says."""
    completed_retention_days: float | None = None
    """How long the job is kept after it was completed. None: as long as the operator's setting says."""
    delete_after_run: bool = False
    """Whether a one-off job is deleted once its run is final."""
    queue: str | None = None
    """The queue whose limits it shares."""
    limits: Limits = UNLIMITED
    """Its own limits, if it is in no queue."""
    on_success: Callback | None = None
    on_failure: Callback | None = None
    after: After | None = None
    """What it runs after, instead of a schedule: then `schedule` is empty."""

    def without_secrets(self) -> Definition:
        """The same definition without any secret. Callbacks go as a whole."""
        return replace(
            self,
            secret_headers=(),
            auth=None,
            signing_secret=None,
            previous_signing_secret=None,
            on_success=None,
            on_failure=None,
        )

    @property
    def callbacks(self) -> dict[str, Callback]:
        """Its callbacks by the name of their field."""
        both = (("onSuccess", self.on_success), ("onFailure", self.on_failure))
        return {name: callback for name, callback in both if callback is not None}

    @property
    def exclusion(self) -> Exclusion | None:
        """What its calendar leaves out or moves. None: it has none."""
        return None if self.calendar is None else self.calendar.exclusion(self.timezone)

    @property
    def timing(self) -> tuple[str, str, int | None, int | None, Exclusion | None, After | None]:
        """A change of what one of these fields means makes a new schedule version."""
        return (self.schedule, self.timezone, self.start_ms, self.end_ms, self.exclusion, self.after)


@dataclass(frozen=True, slots=True)
class PauseTerms:
    """When a pause ends by itself (ms; None: only with a resume), and why the job is paused, in the words of its user."""

    until_ms: int | None = None
    reason: str | None = None


UNTIL_RESUMED = PauseTerms()


@dataclass(frozen=True, slots=True)
class WantedPause:
    """When a pause ends, and why the job is paused, as a request says it. What it leaves out may be kept.

    Faults name the fields as the request has them: `until` and `reason`, or as a definition has them (`of_definition`).
    """

    until_ms: int | None = None
    reason: str | None = None
    keeps_until: bool = False
    keeps_reason: bool = False
    of_definition: bool = False

    @property
    def until_field(self) -> str:
        """The field that faults of the end name."""
        return "pausedUntil" if self.of_definition else "until"

    @property
    def reason_field(self) -> str:
        """The field that faults of the reason name."""
        return "pauseReason" if self.of_definition else "reason"

    def resolve(self, stored: PauseTerms) -> PauseTerms:
        """The terms of the pause; what is kept comes from `stored`."""
        return PauseTerms(
            stored.until_ms if self.keeps_until else self.until_ms, stored.reason if self.keeps_reason else self.reason
        )


PAUSE_AS_IT_IS = WantedPause(keeps_until=True, keeps_reason=True)


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as it is stored."""

    id: str
    definition: Definition
    state: JobState
    revision: int
    anchor_ms: int | None
    """The instant that `@every` counts from."""
    schedule_key: str
    schedule_version: str
    active_from_ms: int
    ends_ms: int | None
    created_ms: int
    updated_ms: int
    state_reason: str | None = None
    pause: PauseTerms = UNTIL_RESUMED
    """Of a paused job."""
    change_id: str | None = None
    """The id of the change that the leader has not settled yet."""
    success_codes_since_ms: int | None = None
    """When its `successCodes` last changed. None: unknown, by a release that did not store it."""


@dataclass(frozen=True, slots=True)
class PastSchedule:
    """An earlier schedule and its period (ms): `verify` needs the occurrences that were owed in the past."""

    schedule_version: str
    schedule_key: str
    definition: Definition
    anchor_ms: int | None
    from_ms: int
    to_ms: int
    ended_by: str
    """What ended it: `change`, `pause` or `delete`."""
    change_id: str | None = None
    """The id of the change that began the period, if the leader had not settled it when the period ended. Then none of
    its occurrences may have been materialised.
    """


@dataclass(frozen=True, slots=True)
class JobChange:
    """One write of one job document: the new job, the schedule that ends with the change, and the id of the change if
    the leader must settle it.
    """

    job: StoredJob
    past: PastSchedule | None = None
    change_id: str | None = None
    before: StoredJob | None = None
    """The job before the change; None: there was none, or `is_whole` is false."""
    is_whole: bool = False
    """`before` is set, so that what has changed can be said."""
    verb: str | None = None
    """What was asked for, if that does not follow from what has changed, such as `revert`."""
    detail: tuple[tuple[str, Any], ...] = ()
    """What else the audit log should say."""
