"""EventBridge's schedule expressions: `cron(...)` with days of the week from 1 (Sunday) and a year, `rate(...)`, `at(...)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cluster.core.instants import format_instant
from cluster.core.schedule.cron_syntax import DAY, HOUR, MINUTE, MONTH, WEEKDAY, CronField
from cluster.core.zones import zone
from ops.migrate.cron_fields import EVENTBRIDGE, list_values, read_field, write_field
from ops.migrate.translation import Untranslatable

if TYPE_CHECKING:
    from collections.abc import Iterator

AWS_WEEKDAY = CronField("day of week", 1, 7, {name: number + 1 for name, number in WEEKDAY.names.items()})
AWS_YEAR = CronField("year", 1970, 2199, {})
MAX_PERIODS = 10
_EXPRESSION = re.compile(r"(?P<kind>cron|rate|at)\((?P<inner>.*)\)\Z", re.DOTALL)
_RATE = re.compile(r"(?P<value>\d+)\s+(?P<unit>minute|hour|day)s?\Z", re.ASCII)
_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\Z", re.ASCII)
_NTH = re.compile(r"(?P<day>\w+)#(?P<n>[1-5])\Z", re.ASCII)
_LAST = re.compile(r"(?P<day>[1-7]|SUN|MON|TUE|WED|THU|FRI|SAT)L\Z", re.ASCII)
_UNITS = {"minute": "m", "hour": "h", "day": "d"}


@dataclass(frozen=True, slots=True)
class Period:
    """A schedule, and the instants (ms) between which it holds; None: without a bound. `label` tells periods apart."""

    schedule: str
    start_ms: int | None = None
    end_ms: int | None = None
    label: str = ""


def periods_of(expression: str, timezone: str, now_ms: int) -> list[Period]:
    """The schedules that an expression means: one, or one for each unbroken run of years. Raises `Untranslatable`."""
    match = _EXPRESSION.match(expression.strip())
    if match is None:
        raise Untranslatable(f"'{expression[:100]}' is none of cron(...), rate(...) and at(...)")
    inner = match["inner"].strip()
    if match["kind"] == "rate":
        return [Period(_rate(inner))]
    if match["kind"] == "at":
        return [Period(_at(inner, timezone))]
    return list(_cron(inner, timezone, now_ms))


def _rate(text: str) -> str:
    match = _RATE.match(text)
    if match is None or int(match["value"]) == 0:
        raise Untranslatable(f"rate({text}): must be a number and minutes, hours or days")
    return f"@every {int(match['value'])}{_UNITS[match['unit']]}"


def _at(text: str, timezone: str) -> str:
    if not _AT.match(text):
        raise Untranslatable(f"at({text}): must be a local time such as at(2026-12-01T09:00:00)")
    try:
        local = datetime.fromisoformat(text)
    except ValueError as exc:
        raise Untranslatable(f"at({text}): {exc}") from exc
    instant = local.replace(tzinfo=zone(timezone)).astimezone(UTC)
    if instant.astimezone(zone(timezone)).replace(tzinfo=None) != local:
        raise Untranslatable(f"at({text}): this time does not exist in {timezone}; write another one")
    return "@at " + instant.isoformat().replace("+00:00", "Z")


def _cron(text: str, timezone: str, now_ms: int) -> Iterator[Period]:
    words = text.upper().split()
    if len(words) != 6:
        raise Untranslatable(f"cron({text}): has {len(words)} fields; EventBridge knows six, with the year at the end")
    minute, hour, day, month, weekday, year = words
    if (day == "?") == (weekday == "?"):
        raise Untranslatable(f"cron({text}): exactly one of day of month and day of week must be ?")
    schedule = " ".join(
        (
            *(_plain(f, word) for f, word in ((MINUTE, minute), (HOUR, hour))),
            "*" if day == "?" else _day(day),
            _plain(MONTH, month),
            "*" if weekday == "?" else _weekday(weekday),
        )
    )
    if year == "*":
        yield Period(schedule)
        return
    runs = [run for run in _runs(read_field(AWS_YEAR, year, EVENTBRIDGE)) if _begin(run[1] + 1, timezone) > now_ms]
    if not runs:
        raise Untranslatable(f"cron({text}): its years are over")
    if len(runs) > MAX_PERIODS:
        raise Untranslatable(f"cron({text}): its years would be {len(runs)} jobs; write fewer, or *")
    for first, last in runs:
        label = "" if len(runs) == 1 else f"{first}" if first == last else f"{first}-{last}"
        yield Period(schedule, _begin(first, timezone), _begin(last + 1, timezone) - 1, label)


def _plain(field: CronField, word: str) -> str:
    return write_field(field, word, read_field(field, word, EVENTBRIDGE), star="*" in word)


def _day(word: str) -> str:
    """Values, L and W. Horae judges L and W by itself: they mean the same there."""
    if "L" in word or "W" in word:
        return word
    return _plain(DAY, word)


def _weekday(word: str) -> str:
    """Days in Horae's numbering, where Sunday is 0."""
    parts = [_special_weekday(part) for part in word.split(",")]
    special = [part for part in parts if part is not None]
    if special and len(special) < len(parts):
        raise Untranslatable(f"day of week: '{word}' combines # or L with plain days; define two schedules")
    if special:
        return ",".join(special)
    values = frozenset(v - 1 for v in read_field(AWS_WEEKDAY, word, EVENTBRIDGE))
    return "*" if word == "*" else word if _names_alone(word) else list_values(values)


def _names_alone(word: str) -> bool:
    return "/" not in word and all(name in WEEKDAY.names for name in re.split(r"[,-]", word))


def _special_weekday(part: str) -> str | None:
    if part == "L":
        return "6#1,6#2,6#3,6#4,6#5"  # the last day of the week is Saturday
    if match := _NTH.match(part):
        (day,) = read_field(AWS_WEEKDAY, match["day"], EVENTBRIDGE)
        return f"{day - 1}#{match['n']}"
    if match := _LAST.match(part):
        (day,) = read_field(AWS_WEEKDAY, match["day"], EVENTBRIDGE)
        return f"L{day - 1}"
    return None


def _runs(years: frozenset[int]) -> list[tuple[int, int]]:
    """Unbroken runs of years, as first and last."""
    runs: list[tuple[int, int]] = []
    for year in sorted(years):
        if runs and year == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], year)
        else:
            runs.append((year, year))
    return runs


def _begin(year: int, timezone: str) -> int:
    """The instant (ms) at which a year begins in a zone."""
    return int(datetime(year, 1, 1, tzinfo=zone(timezone)).timestamp()) * 1000


def instant_of(value: object) -> int:
    """The instant (ms) of a date as the CLI prints it: ISO 8601 with an offset, or seconds. Raises `Untranslatable`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value * 1000)
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError as exc:
        raise Untranslatable(f"'{value}' is not a date: {exc}") from exc
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def bounded(period: Period, start_ms: int | None, end_ms: int | None) -> dict[str, str]:
    """`startAt` and `endAt` of a period within the schedule's own dates. Its end is exclusive there, inclusive here."""
    starts = [ms for ms in (period.start_ms, start_ms) if ms is not None]
    ends = [ms for ms in (period.end_ms, None if end_ms is None else end_ms - 1) if ms is not None]
    fields = {"startAt": format_instant(max(starts))} if starts else {}
    return fields | ({"endAt": format_instant(min(ends))} if ends else {})
