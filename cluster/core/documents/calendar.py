"""The JSON document of a calendar: the days on which jobs that name it do not run."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema

from cluster.core.documents.base import Model
from cluster.core.documents.job import Zone
from cluster.core.documents.job_json import faults_of
from cluster.core.documents.request_fields import QUEUE_NAME
from cluster.core.documents.secret_fields import invalid
from cluster.core.errors import Fault, InvalidInput
from cluster.core.schedule.calendar_days import ExcludedDays, excluded_days

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DATES, MAX_YEARLY, MAX_RANGES = 3000, 366, 1000
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_EPOCH = date(1970, 1, 1)
_FIRST, _LAST = date(1970, 1, 1), date(9998, 12, 31)
_SHOWN = 40


def check_calendar_name(name: str) -> str:
    """Check the name of a calendar. Raises `InvalidInput`."""
    if not QUEUE_NAME.match(name):
        message = "must have 1 to 64 characters out of A-Z a-z 0-9 _ - . and not start with a dot"
        raise InvalidInput([Fault("name", message)])
    return name


def _date(value: Any) -> date:
    try:
        if not isinstance(value, str) or len(value) != 10:
            raise ValueError
        day = date.fromisoformat(value)
    except ValueError:
        raise invalid(f"'{str(value)[:_SHOWN]}' must be a date, such as 2026-12-24") from None
    if not _FIRST <= day <= _LAST:
        raise invalid(f"'{value}' must be from {_FIRST} to {_LAST}")
    return day


def _yearly(value: Any) -> str:
    try:
        if not isinstance(value, str) or len(value) != 5:
            raise ValueError
        date.fromisoformat(f"2000-{value}")  # a leap year: 02-29 is accepted
    except ValueError:
        raise invalid(f"'{str(value)[:_SHOWN]}' must be a month and a day, such as 12-25") from None
    return str(value)


def _weekday(value: Any) -> str:
    name = value.upper() if isinstance(value, str) else ""
    if name not in WEEKDAYS:
        raise invalid(f"'{str(value)[:_SHOWN]}' must be one of {', '.join(WEEKDAYS)}")
    return name


def _range(value: Any) -> tuple[date, date]:
    if not isinstance(value, dict) or set(value) != {"from", "until"}:
        raise invalid('each must be an object such as {"from": "2026-12-24", "until": "2027-01-02"}, both included')
    first, last = _date(value["from"]), _date(value["until"])
    if last < first:
        raise invalid(f"the range from {first} must not end before, at {last}")
    return first, last


def _each(check: Callable[[Any], Any], most: int) -> Callable[[Any], list[Any]]:
    """A validator of an array, whose faults name the entry. The entries are in order, each once."""

    def checked(values: Any) -> list[Any]:
        if not isinstance(values, list):
            raise invalid("must be an array")
        if len(values) > most:
            raise invalid(f"must have at most {most} entries")
        return sorted({check(v) for v in values})

    return checked


def _array(items: dict[str, Any], most: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "array", "maxItems": most, "items": items})


_DATE = {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
_RANGE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["from", "until"],
    "properties": {"from": _DATE, "until": _DATE},
}


class CalendarSpec(Model):
    """The days on which jobs that name this calendar do not run."""

    timezone: Zone | None = Field(
        default=None,
        max_length=64,
        description="IANA time zone of the days. null: that of each job.",
        examples=["Europe/Berlin"],
    )
    dates: Annotated[Any, BeforeValidator(_each(_date, MAX_DATES)), _array(_DATE, MAX_DATES)] = Field(
        default=[], description="Single days.", examples=[["2026-12-24"]]
    )
    yearly: Annotated[
        Any,
        BeforeValidator(_each(_yearly, MAX_YEARLY)),
        _array({"type": "string", "pattern": "^[0-9]{2}-[0-9]{2}$"}, MAX_YEARLY),
    ] = Field(default=[], description="Days of every year, as month and day.", examples=[["12-25"]])
    ranges: Annotated[Any, BeforeValidator(_each(_range, MAX_RANGES)), _array(_RANGE, MAX_RANGES)] = Field(
        default=[], description="Days from one to another, both included."
    )
    weekdays: Annotated[
        Any, BeforeValidator(_each(_weekday, 7)), _array({"type": "string", "enum": list(WEEKDAYS)}, 7)
    ] = Field(default=[], description="Days of every week.", examples=[["SAT", "SUN"]])

    def to_days(self) -> ExcludedDays:
        """The value."""
        spans = [(d, d) for d in self.dates] + list(self.ranges)
        return excluded_days(
            [((a - _EPOCH).days, (b - _EPOCH).days) for a, b in spans],
            [(int(d[:2]), int(d[3:])) for d in self.yearly],
            [WEEKDAYS.index(d) for d in self.weekdays],
            self.timezone or "",
        )

    def to_json(self) -> dict[str, Any]:
        """The document, in its normal form: what was given, in order, each once."""
        return {
            "timezone": self.timezone,
            "dates": [d.isoformat() for d in self.dates],
            "yearly": list(self.yearly),
            "ranges": [{"from": a.isoformat(), "until": b.isoformat()} for a, b in self.ranges],
            "weekdays": sorted(self.weekdays, key=WEEKDAYS.index),
        }


def read_calendar(value: Any) -> CalendarSpec:
    """The calendar in a JSON value. Raises `InvalidInput` with all faults."""
    try:
        return CalendarSpec.model_validate(value)
    except ValidationError as exc:
        raise InvalidInput(faults_of(exc)) from exc


def remarks(days: ExcludedDays, today_ms: int) -> list[str]:
    """Sentences about a calendar that leaves jobs little or no time."""
    today = today_ms // 86_400_000
    free = days.included_from(today)
    if free is None:
        return ["every day is excluded, for as long as can be foreseen: jobs that name this calendar do not run"]
    if free - today > 366:
        day = _EPOCH + timedelta(days=free)
        return [f"every day until {day} is excluded: jobs that name this calendar do not run before"]
    return []
