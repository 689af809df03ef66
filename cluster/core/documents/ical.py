"""Calendars from iCalendar files (RFC 5545): whole-day events become days, yearly and weekly ones where that says the same.

What is left out, or is right for a limited time only, is named in a remark: nothing is guessed in silence.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dateutil.rrule import rrule, rrulestr
from icalendar import Calendar

from cluster.core.documents.calendar import MAX_DATES, WEEKDAYS, CalendarSpec, read_calendar
from cluster.core.errors import Fault, InvalidInput
from cluster.core.zones import zone_names

if TYPE_CHECKING:
    from collections.abc import Iterable

_YEARS = 10
"""A rule that is neither yearly nor weekly is written out for so long."""
_EFFORT = {"YEARLY": 1, "MONTHLY": 4, "WEEKLY": 8, "DAILY": 40}
"""What a year of a rule takes, by how often it may repeat, in some 30 us."""
_MAX_EFFORT = 50_000
"""What all rules of a file that are written out may take: one and a half seconds, in which a node reads no other large
document. Some 300 rules that repeat yearly since 1900."""
_MAX_REMARKS = 50
_LONGEST = 31
_WEEKDAY_OF = {"MO": "MON", "TU": "TUE", "WE": "WED", "TH": "THU", "FR": "FRI", "SA": "SAT", "SU": "SUN"}
_EVENTS_ONLY = {"VEVENT", "VTIMEZONE", "STANDARD", "DAYLIGHT", "VALARM", "VCALENDAR"}


@dataclass
class _Reading:
    today: date
    dates: set[date] = field(default_factory=set)
    ranges: set[tuple[date, date]] = field(default_factory=set)
    yearly: set[str] = field(default_factory=set)
    weekdays: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)
    effort: int = 0

    def spend(self, effort: int) -> None:
        """A rule is about to be written out. Raises `InvalidInput` if the file has too many of them."""
        self.effort += effort
        if self.effort > _MAX_EFFORT:
            why = "has too many rules that begin long ago or repeat too often: leave some out, or write their days as dates"
            raise InvalidInput([Fault("", why)])

    def add(self, first: date, days: int) -> None:
        if days == 1:
            self.dates.add(first)
        else:
            self.ranges.add((first, first + timedelta(days=days - 1)))


def read_ical(raw: bytes, today: date) -> tuple[CalendarSpec, list[str]]:
    """The calendar in an iCalendar file, and remarks about it. Raises `InvalidInput`."""
    try:
        calendars = Calendar.from_ical(raw, multiple=True)
    except Exception as exc:  # the library raises errors of many kinds for what it cannot read
        raise InvalidInput([Fault("", f"cannot be read as iCalendar: {str(exc)[:200]}")]) from exc
    reading = _Reading(today)
    timezone = None
    events: list[Any] = []
    others: defaultdict[str, int] = defaultdict(int)
    for calendar in calendars:
        timezone = timezone or _zone(calendar)
        for component in calendar.walk():
            if component.name == "VEVENT":
                events.append(component)
            elif component.name not in _EVENTS_ONLY:
                others[str(component.name)] += 1
    reading.remarks.extend(f"{count} {name} left out: only events count" for name, count in sorted(others.items()))
    replaced = _replaced(events)
    for event in events:
        try:
            _read_event(event, reading, replaced)
        except InvalidInput:
            raise
        except Exception as exc:
            reading.remarks.append(f"{_title(event)} left out: it cannot be read ({str(exc)[:100]})")
    if not (reading.dates or reading.ranges or reading.yearly or reading.weekdays):
        why = f"; {reading.remarks[0]}" if reading.remarks else ""
        raise InvalidInput([Fault("", f"has no event of whole days (DTSTART;VALUE=DATE){why}")])
    spec = read_calendar(
        {
            "timezone": timezone,
            "dates": [d.isoformat() for d in reading.dates],
            "yearly": list(reading.yearly),
            "ranges": [{"from": a.isoformat(), "until": b.isoformat()} for a, b in reading.ranges],
            "weekdays": list(reading.weekdays),
        }
    )
    shown = reading.remarks[:_MAX_REMARKS]
    if len(reading.remarks) > len(shown):
        shown.append(f"and {len(reading.remarks) - len(shown)} more remarks")
    return spec, shown


def _zone(calendar: Any) -> str | None:
    name = str(calendar.get("X-WR-TIMEZONE", ""))
    return name if name in zone_names() else None


def _title(event: Any) -> str:
    return f"event '{str(event.get('SUMMARY', event.get('UID', 'without a name')))[:60]}'"


def _plain_date(value: Any) -> date | None:
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


def _replaced(events: Iterable[Any]) -> dict[str, set[date]]:
    """By UID the days of a rule that an event of their own replaces."""
    days: defaultdict[str, set[date]] = defaultdict(set)
    for event in events:
        if (recurrence := event.get("RECURRENCE-ID")) is not None and (day := _plain_date(recurrence.dt)) is not None:
            days[str(event.get("UID"))].add(day)
    return days


def _read_event(event: Any, reading: _Reading, replaced: dict[str, set[date]]) -> None:
    if str(event.get("STATUS", "")).upper() == "CANCELLED":
        reading.remarks.append(f"{_title(event)} left out: it is cancelled")
        return
    first = _plain_date(event["DTSTART"].dt)
    if first is None:
        reading.remarks.append(f"{_title(event)} left out: it has a time of day, and a calendar excludes whole days")
        return
    days = _length(event, first)
    rule = event.get("RRULE")
    if rule is None or event.get("RECURRENCE-ID") is not None:
        for day in {first, *_days_in(event, "RDATE")}:
            reading.add(day, days)
        return
    left_out = _days_in(event, "EXDATE") | replaced.get(str(event.get("UID")), set())
    if not left_out and _is_simple(rule, first, days, reading):
        return
    _write_out(event, first, days, left_out, reading)


def _length(event: Any, first: date) -> int:
    end, duration = event.get("DTEND"), event.get("DURATION")
    if end is not None and (last := _plain_date(end.dt)) is not None:
        return max(1, (last - first).days)
    return max(1, duration.dt.days) if duration is not None else 1


def _days_in(event: Any, name: str) -> set[date]:
    found = event.get(name)
    lists = found if isinstance(found, list) else [] if found is None else [found]
    return {day for each in lists for value in each.dts if (day := _plain_date(value.dt)) is not None}


def _is_simple(rule: Any, first: date, days: int, reading: _Reading) -> bool:
    """Whether the rule is one of days of every year or week that has begun; then they are added."""
    parts = {name.upper(): value for name, value in rule.items() if name.upper() != "WKST"}
    if parts.pop("INTERVAL", [1]) != [1] or first > reading.today:
        return False
    kind = str(parts.pop("FREQ", [""])[0]).upper()
    if kind == "YEARLY" and days <= _LONGEST:
        plain = {"BYMONTH": [first.month], "BYMONTHDAY": [first.day]}
        if all(name in plain and list(value) == plain[name] for name, value in parts.items()):
            # Days behind 28 February would be others in a leap year.
            spans_february = first.month == 2 and (first + timedelta(days=days - 1)).month != 2
            if not spans_february:
                reading.yearly.update(f"{first + timedelta(days=n):%m-%d}" for n in range(days))
                return True
    if kind == "WEEKLY" and days == 1 and set(parts) <= {"BYDAY"}:
        names = [str(d).upper() for d in parts.get("BYDAY", [])] or [""]
        found = {WEEKDAYS[first.weekday()] if not n else _WEEKDAY_OF.get(n, "") for n in names}
        if "" not in found:
            reading.weekdays.update(found)
            return True
    return False


def _write_out(event: Any, first: date, days: int, left_out: set[date], reading: _Reading) -> None:
    rule = {name.upper(): value for name, value in event["RRULE"].items()}
    often = str(rule.get("FREQ", [""])[0]).upper()
    if often not in _EFFORT:
        reading.remarks.append(f"{_title(event)} left out: its rule repeats within a day")
        return
    begin = datetime(first.year, first.month, first.day)  # noqa: DTZ001 - days have no zone
    text = event["RRULE"].to_ical().decode()
    parts = [part if not part.upper().startswith("UNTIL=") else part[:14] for part in text.split(";")]
    until = datetime(reading.today.year + _YEARS, reading.today.month, 1)  # noqa: DTZ001
    years = max(1, until.year - first.year + 1)
    reading.spend(years * _EFFORT[often])
    kept, ended = _occurrences(_BoundedRule.of(rrulestr(";".join(parts), dtstart=begin), years), reading.today, until)
    for day in {*kept, *_days_in(event, "RDATE")} - left_out:
        reading.add(day, days)
    if not ended:
        reading.remarks.append(
            f"{_title(event)}: its rule is written out until {kept[-1] if kept else until.date()} only"
        )


def _occurrences(rule: _BoundedRule, today: date, until: datetime) -> tuple[list[date], bool]:
    """Those of a rule from a year ago until an instant, at most as many as a calendar may have; and whether it has ended."""
    old = datetime(today.year - 1, today.month, 1)  # noqa: DTZ001 - days have no zone
    kept: list[date] = []
    try:
        for at in rule.xafter(old, inc=True):
            if at > until or len(kept) == MAX_DATES:
                return kept, False
            kept.append(at.date())
    except _GaveUpError:
        return kept, False
    return kept, True


class _GaveUpError(Exception):
    """A rule was followed for as many years as it may be."""


class _BoundedRule(rrule):  # type: ignore[misc]  # dateutil has no types
    """A rule that is followed for so many years and no longer. One that never comes, such as each 30 February, would be
    followed up to the year 9999, which takes up to ten seconds.
    """

    @classmethod
    def of(cls, rule: Any, years: int) -> _BoundedRule:
        """The same rule, bounded."""
        bounded = cls.__new__(cls)
        bounded.__dict__.update(vars(rule), years_left=years)
        return bounded

    @property
    def _byweekno(self) -> Any:
        """Dateutil asks for it whenever a year begins: up to six times, if it is part of the rule."""
        weeks = vars(self)["_byweekno"]
        self.years_left: float
        self.years_left -= 1 / 6 if weeks else 1
        if self.years_left < -1:
            raise _GaveUpError
        return weeks
