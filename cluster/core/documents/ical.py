"""Calendars from iCalendar files (RFC 5545): whole-day events become days, yearly and weekly ones where that says the same.

What is left out, or is right for a limited time only, is named in a remark: nothing is guessed in silence.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
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
_MAX_REMARKS = 50
_LONGEST = 31
MAX_BYTES = 512 * 1024
MAX_LINE_BYTES = 16 * 1024
"""Of a line with its folds: the library takes much longer for one of 500 KiB than for a file of that size."""
MAX_YEARS = 2000
"""So many years of rules are written out for one file. Each may take a ms."""
_OLDEST = 1900
"""A rule that is written out begins in this year or later."""
_LOOKS_PER_YEAR = 6
_WEEKDAY_OF = {"MO": "MON", "TU": "TUE", "WE": "WED", "TH": "THU", "FR": "FRI", "SA": "SAT", "SU": "SUN"}
_EVENTS_ONLY = {"VEVENT", "VTIMEZONE", "STANDARD", "DAYLIGHT", "VALARM", "VCALENDAR"}


class _NoMoreDays(Exception):
    """The rule has no day in the years that count."""


class _BoundedRule(rrule):  # type: ignore[misc] # dateutil is not typed
    """A rule that ends after some years. dateutil itself looks for a day that never comes until the year 9999, for seconds."""

    def __init__(self, rule: rrule, years: int) -> None:
        # Not that of dateutil: `rule` is what it would make.
        self.__dict__.update(rule.__dict__)
        self._weeks = self.__dict__.pop("_byweekno")
        self._most = (years + 2) * (_LOOKS_PER_YEAR if self._weeks else 1)
        self.looks = 0

    @property
    def _byweekno(self) -> Any:
        """What dateutil asks for once for every year that it looks at; if the rule has weeks, up to six times."""
        self.looks += 1
        if self.looks > self._most:
            raise _NoMoreDays
        return self._weeks


@dataclass
class _Reading:
    today: date
    years_left: int = MAX_YEARS
    dates: set[date] = field(default_factory=set)
    ranges: set[tuple[date, date]] = field(default_factory=set)
    yearly: set[str] = field(default_factory=set)
    weekdays: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)

    def spend(self, years: int) -> None:
        """So many years of a rule were written out."""
        self.years_left -= years

    def add(self, first: date, days: int) -> None:
        if days == 1:
            self.dates.add(first)
        else:
            self.ranges.add((first, first + timedelta(days=days - 1)))


def read_ical(raw: bytes, today: date) -> tuple[CalendarSpec, list[str]]:
    """The calendar in an iCalendar file, and remarks about it. Raises `InvalidInput`."""
    _check_file(raw)
    try:
        calendars = Calendar.from_ical(raw, multiple=True)
        components = [component for calendar in calendars for component in calendar.walk()]
    except Exception as exc:  # the library raises errors of many kinds for what it cannot read
        raise InvalidInput([Fault("", f"cannot be read as iCalendar: {str(exc)[:200]}")]) from exc
    reading = _Reading(today)
    timezone = None
    events: list[Any] = []
    others: defaultdict[str, int] = defaultdict(int)
    for calendar in calendars:
        timezone = timezone or _zone(calendar)
    for component in components:
        if component.name == "VEVENT":
            events.append(component)
        elif component.name not in _EVENTS_ONLY:
            others[str(component.name)] += 1
    reading.remarks.extend(f"{count} {name} left out: only events count" for name, count in sorted(others.items()))
    replaced = _replaced(events)
    largest = (0, "")
    for event in events:
        before = len(reading.dates)
        try:
            _read_event(event, reading, replaced)
        except Exception as exc:
            reading.remarks.append(f"{_title(event)} left out: it cannot be read ({str(exc)[:100]})")
        largest = max(largest, (len(reading.dates) - before, _title(event)))
        if len(reading.dates) > MAX_DATES:  # whatever else there is
            text = f"has more than {MAX_DATES} single days, {largest[0]} of them of {largest[1]}: leave events out"
            raise InvalidInput([Fault("", text)])
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


def _check_file(raw: bytes) -> None:
    if len(raw) > MAX_BYTES:
        raise InvalidInput([Fault("", f"must have at most {MAX_BYTES} bytes of iCalendar; write JSON for more")])
    unfolded = raw.replace(b"\r\n", b"\n").replace(b"\n ", b"").replace(b"\n\t", b"")
    lines = unfolded.splitlines()
    if max(map(len, lines), default=0) > MAX_LINE_BYTES:
        raise InvalidInput([Fault("", f"must have lines of at most {MAX_LINE_BYTES} bytes, folds included")])
    # The library leaves out what has no end. Of a file that was cut off these are its last events.
    begun, ended = (sum(line.upper().startswith(word) for line in lines) for word in (b"BEGIN:", b"END:"))
    if ended < begun:
        text = f"is not complete: it has {begun} lines BEGIN: and {ended} lines END:; was it cut off?"
        raise InvalidInput([Fault("", text)])


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
    if kind in ("WEEKLY", "DAILY") and days == 1 and set(parts) <= {"BYDAY"}:
        names = [str(d).upper() for d in parts.get("BYDAY", _WEEKDAY_OF if kind == "DAILY" else [])] or [""]
        found = {WEEKDAYS[first.weekday()] if not n else _WEEKDAY_OF.get(n, "") for n in names}
        if "" not in found:
            reading.weekdays.update(found)
            return True
    return False


def _write_out(event: Any, first: date, days: int, left_out: set[date], reading: _Reading) -> None:
    rule = {name.upper(): value for name, value in event["RRULE"].items()}
    if str(rule.get("FREQ", [""])[0]).upper() in ("SECONDLY", "MINUTELY", "HOURLY"):
        reading.remarks.append(f"{_title(event)} left out: its rule repeats within a day")
        return
    begin = datetime(first.year, first.month, first.day)  # noqa: DTZ001 - days have no zone
    text = event["RRULE"].to_ical().decode()
    parts = [part if not part.upper().startswith("UNTIL=") else part[:14] for part in text.split(";")]
    until = datetime(reading.today.year + _YEARS, reading.today.month, 1)  # noqa: DTZ001
    old = datetime(reading.today.year - 1, reading.today.month, 1)  # noqa: DTZ001
    if first.year < _OLDEST or reading.years_left <= 0:
        why = f"it begins before {_OLDEST}" if first.year < _OLDEST else "there are too many rules"
        reading.remarks.append(f"{_title(event)} left out: its rule is not written out, because {why}")
        return
    rule_of_days = _BoundedRule(rrulestr(";".join(parts), dtstart=begin), max(0, until.year - first.year))
    found: list[datetime] = []
    with suppress(_NoMoreDays):
        for at in rule_of_days.xafter(old, inc=True):
            found.append(at)
            if at > until or len(found) > MAX_DATES:
                break
    reading.spend(rule_of_days.looks)
    kept = [at.date() for at in found if at <= until][:MAX_DATES]
    for day in {*kept, *_days_in(event, "RDATE")} - left_out:
        reading.add(day, days)
    if len(kept) < len(found):
        reading.remarks.append(
            f"{_title(event)}: its rule is written out until {kept[-1] if kept else until.date()} only"
        )
