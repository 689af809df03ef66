"""Excluded days: which days a calendar leaves out, and how they are written into the key of a schedule.

The days themselves are in the key, and not the name of a calendar: so a key says everything about its occurrences, in
every process, for ever. The text is

    <mode>~<zone>~<calendar zone>~<spans>~<yearly>~<weekdays>

where the mode is `skip`, `next` or `previous`; `zone` is the one of the job, in which a time of day is kept; spans are
days as the gap from the end of the span before (the first one: since 1970), and `+` how many days follow, separated by
commas; yearly days are `MMDD`; weekdays are digits, 0 is Monday.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from cluster.core.zones import offset, same_times

if TYPE_CHECKING:
    from collections.abc import Iterable

CALENDAR_PREFIX = "cal|"
"""So the keys of schedules with a calendar begin; the key of the schedule without it comes last."""
Mode = Literal["skip", "next", "previous"]
_EPOCH = date(1970, 1, 1)
LONGEST_DAYS = 366
"""An occurrence is moved by so many days at most. If there is no included day so near, it is left out."""
_STEPS = 4000
"""Excluded days or spans that follow each other, looked at for an included day: ten years of single days."""


@dataclass(frozen=True)
class ExcludedDays:
    """The days that a calendar excludes. A day is a number of days since 1970; spans include both ends."""

    timezone: str = ""
    """The zone that the days are days of; empty: that of the job."""
    spans: tuple[tuple[int, int], ...] = ()
    """Ascending, neither overlapping nor adjacent."""
    yearly: frozenset[tuple[int, int]] = frozenset()
    """Month and day."""
    weekdays: frozenset[int] = frozenset()
    """0 is Monday."""

    @cached_property
    def _starts(self) -> list[int]:
        return [first for first, _ in self.spans]

    def excludes(self, day: int) -> bool:
        """Whether this day is excluded."""
        if (day + 3) % 7 in self.weekdays:  # 1970-01-01 was a Thursday
            return True
        if self._span(day) is not None:
            return True
        if not self.yearly:
            return False
        on = _EPOCH + timedelta(days=day)
        return (on.month, on.day) in self.yearly

    def _span(self, day: int) -> tuple[int, int] | None:
        i = bisect_right(self._starts, day) - 1
        return self.spans[i] if i >= 0 and day <= self.spans[i][1] else None

    def included_from(self, day: int, step: Literal[1, -1] = 1) -> int | None:
        """The first day that is not excluded, from this one on, upwards or downwards. None: none is near."""
        for _ in range(_STEPS):
            if not 0 <= day < _LAST_DAY:
                return None
            span = self._span(day)
            if span is not None:
                day = span[1] + 1 if step == 1 else span[0] - 1
            elif self.excludes(day):
                day += step
            else:
                return day
        return None

    def excluded_from(self, day: int) -> int | None:
        """The first excluded day from this one on. None: there is none."""
        i = bisect_right(self._starts, day) - 1
        in_span = i >= 0 and day <= self.spans[i][1]
        candidates = [day] if in_span else self._starts[i + 1 : i + 2]
        candidates += [day + (w - (day + 3)) % 7 for w in self.weekdays]
        if self.yearly:
            candidates += [on for month, d in self.yearly if (on := _next_yearly(day, month, d)) is not None]
        return min((c for c in candidates if c < _LAST_DAY), default=None)

    @property
    def text(self) -> str:
        """As it is written into a key: calendar zone, spans, yearly days, weekdays."""
        spans, end = [], 0
        for first, last in self.spans:
            spans.append(f"{first - end}" + (f"+{last - first}" if last > first else ""))
            end = last
        yearly = ",".join(f"{month:02d}{day:02d}" for month, day in sorted(self.yearly))
        return f"{self.timezone}~{','.join(spans)}~{yearly}~{''.join(str(w) for w in sorted(self.weekdays))}"


def _next_yearly(day: int, month: int, of_month: int) -> int | None:
    year = (_EPOCH + timedelta(days=day)).year
    for candidate in range(year, min(year + 9, 9999)):  # 29 February: eight years apart around 2100
        try:
            on = (date(candidate, month, of_month) - _EPOCH).days
        except ValueError:
            continue
        if on >= day:
            return on
    return None


_LAST_DAY = (date(9998, 12, 31) - _EPOCH).days


def excluded_days(
    days: Iterable[tuple[int, int]],
    yearly: Iterable[tuple[int, int]] = (),
    weekdays: Iterable[int] = (),
    timezone: str = "",
) -> ExcludedDays:
    """The value of days as they were written: spans in any order, which may overlap."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(days):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return ExcludedDays(timezone, tuple(merged), frozenset(yearly), frozenset(weekdays))


@dataclass(frozen=True)
class Exclusion:
    """What becomes of the occurrences of a schedule that fall on excluded days."""

    mode: Mode
    zone: str
    """The zone of the job."""
    days: ExcludedDays

    @property
    def day_zone(self) -> str:
        """The zone that the days are days of."""
        return self.days.timezone or self.zone

    @property
    def text(self) -> str:
        """As it is written into a key."""
        return f"{self.mode}~{self.zone}~{self.days.text}"


def same_exclusion(first: Exclusion | None, second: Exclusion | None) -> bool:
    """Whether both leave out and move the same, however their zones are written."""
    if first is None or second is None:
        return first is second
    if first.mode != second.mode or first.days.text.partition("~")[2] != second.days.text.partition("~")[2]:
        return False
    return same_times(first.zone, second.zone) and same_times(first.day_zone, second.day_zone)


def excluded_day(exclusion: Exclusion, at_ms: int) -> str | None:
    """The date of an instant in the zone of the days, if it is an excluded one."""
    at = at_ms // 1000
    day = (at + offset(exclusion.day_zone, at)) // 86_400
    return (_EPOCH + timedelta(days=day)).isoformat() if exclusion.days.excludes(day) else None


def exclusion_of(text: str) -> Exclusion:
    """The inverse of `Exclusion.text`. Raises `ValueError`."""
    mode, zone, days = text.split("~", 2)
    if mode not in ("skip", "next", "previous"):
        raise ValueError(f"'{mode}' is no way to treat an excluded occurrence")
    return Exclusion(mode, zone, days_of_text(days))  # type: ignore[arg-type] # one of the three words


def days_of_text(text: str) -> ExcludedDays:
    """The inverse of `ExcludedDays.text`. Raises `ValueError`."""
    timezone, span_text, yearly, weekdays = text.split("~")
    spans, end = [], 0
    for part in span_text.split(",") if span_text else ():
        gap, _, more = part.partition("+")
        first = end + int(gap)
        end = first + int(more or 0)
        spans.append((first, end))
    return ExcludedDays(
        timezone,
        tuple(spans),
        frozenset((int(p[:2]), int(p[2:])) for p in yearly.split(",") if p),
        frozenset(int(w) for w in weekdays),
    )
