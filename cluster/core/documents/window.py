"""The JSON document of a maintenance window."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, model_validator

from cluster.core import instants
from cluster.core.documents.base import Model
from cluster.core.documents.job import Instant, Zone
from cluster.core.documents.job_json import faults_of
from cluster.core.documents.request_fields import Tag, check_queue
from cluster.core.documents.secret_fields import invalid
from cluster.core.errors import Fault, InvalidInput
from cluster.core.schedule.schedule import MAX_SCHEDULE_LENGTH, InvalidSchedule, parse_schedule
from cluster.core.windows import Window

MAX_NAMES = 100
MAX_SECONDS = 31 * 86_400


def _recurring(text: str, info: ValidationInfo) -> str:
    try:
        schedule = parse_schedule(text, info.data.get("timezone") or "UTC")
    except InvalidSchedule as exc:
        raise invalid(exc.message) from exc
    if schedule.kind != "cron":
        raise invalid("must be a cron expression or an alias; for a window that comes once use from and until")
    return text


def _host(host: str) -> str:
    if not host or any(c in host for c in "/ @?#") or host != host.strip():
        raise invalid("must be a host, such as api.example.com or api.example.com:8443")
    return host.lower()


class WindowSpec(Model):
    """A time in which executions of some jobs are held or skipped, or in which their alerts are muted."""

    mode: Literal["hold", "skip", "mute"] = Field(
        description="`hold`: what is due waits for the end. `skip`: it is recorded as skipped. `mute`: requests are sent, "
        "and no alerts."
    )
    tags: list[Tag] = Field(default=[], max_length=MAX_NAMES, description="Jobs with one of these tags.")
    hosts: list[Annotated[str, AfterValidator(_host)]] = Field(
        default=[],
        max_length=MAX_NAMES,
        description="Jobs whose target has one of these hosts, with or without a port.",
    )
    queues: list[Annotated[str, AfterValidator(check_queue)]] = Field(
        default=[], max_length=MAX_NAMES, description="Jobs in one of these queues."
    )
    timezone: Zone = Field(default="UTC", max_length=64, description="IANA time zone of `schedule`.")
    schedule: Annotated[str, AfterValidator(_recurring)] | None = Field(
        default=None,
        max_length=MAX_SCHEDULE_LENGTH,
        description="When it begins: a cron expression. It needs `durationSeconds`.",
        examples=["0 0 2 * * SUN"],
    )
    duration_seconds: int | None = Field(default=None, ge=1, le=MAX_SECONDS)
    from_: Instant | None = Field(default=None, alias="from", description="Of a window that comes once.")
    until: Instant | None = Field(default=None, description="The end of a window that comes once.")
    spread_seconds: int = Field(
        default=30, ge=0, le=3600, description="What was held leaves within so long after the end."
    )

    @model_validator(mode="after")
    def _when_and_for_whom(self) -> WindowSpec:
        if not (self.tags or self.hosts or self.queues):
            raise invalid("must name at least one of tags, hosts and queues")
        if (self.schedule is None) != (self.duration_seconds is None):
            raise invalid("schedule and durationSeconds must be given together")
        if (self.from_ is None) != (self.until is None):
            raise invalid("from and until must be given together")
        if (self.schedule is None) == (self.from_ is None):
            raise invalid("must have either schedule and durationSeconds, or from and until")
        if self.from_ is not None and self.until is not None and self.until <= self.from_:
            raise invalid("until must be later than from")
        return self

    def to_window(self, name: str) -> Window:
        """The value."""
        return Window(
            name=name,
            mode=self.mode,
            tags=tuple(self.tags),
            hosts=tuple(self.hosts),
            queues=tuple(self.queues),
            schedule=self.schedule,
            timezone=self.timezone,
            lasts_ms=(self.duration_seconds or 0) * 1000,
            from_ms=self.from_,
            until_ms=self.until,
            spread_ms=self.spread_seconds * 1000,
        )


def read_window(value: Any, name: str) -> Window:
    """The window in a JSON value. Raises `InvalidInput` with all faults."""
    try:
        return WindowSpec.model_validate(value).to_window(name)
    except ValidationError as exc:
        # A rule about several fields names the one to begin with.
        faults = [Fault(_FIELD_OF.get(f.message, f.path), f.message) if not f.path else f for f in faults_of(exc)]
        raise InvalidInput(faults) from exc


_FIELD_OF = {
    "must name at least one of tags, hosts and queues": "tags",
    "schedule and durationSeconds must be given together": "durationSeconds",
    "from and until must be given together": "until",
    "must have either schedule and durationSeconds, or from and until": "schedule",
    "until must be later than from": "until",
}


def window_json(w: Window) -> dict[str, Any]:
    """The document of a window, with all defaults."""
    return {
        "mode": w.mode,
        "tags": list(w.tags),
        "hosts": list(w.hosts),
        "queues": list(w.queues),
        "timezone": w.timezone,
        "schedule": w.schedule,
        "durationSeconds": w.lasts_ms // 1000 if w.schedule is not None else None,
        "from": instants.format_optional_instant(w.from_ms),
        "until": instants.format_optional_instant(w.until_ms),
        "spreadSeconds": w.spread_ms // 1000,
    }
