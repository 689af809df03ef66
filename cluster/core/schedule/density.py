"""How many occurrences of schedules fall into each step of a time, counted and not listed one by one. Pure.

A cron line with fixed fields has the same times on every day it matches. So a day costs as many additions as it has
hours, minutes or seconds with an occurrence, whichever the step needs, and not a search for each occurrence. Times near a
change of the zone's offset are searched for, because there the rules of `schedule` decide.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.schedule.cron_syntax import DAY, HOUR, MINUTE, MONTH, SECOND, WEEKDAY, values_of
from cluster.core.schedule.schedule import schedule_from_key
from cluster.core.zones import next_change, offset

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY_S, HOUR_S, MINUTE_S = 86_400, 3600, 60
SEARCHED = 5000
"""Occurrences that are searched for one by one, at most, for one schedule and stretch."""
_PLAIN = frozenset("0123456789,-*/")


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time (s since 1970, the end excluded) with one offset. `near_change`: within two days of another offset."""

    start: int
    end: int
    offset: int
    near_change: bool


class OccurrenceCounter:
    """Counts occurrences per step between two instants (s since 1970, multiples of `step`). `work` grows with its cost."""

    def __init__(self, start: int, end: int, step: int) -> None:
        self.start, self.end, self.step = start, end, step
        self.work = 0
        self._stretches: dict[str, list[Stretch]] = {}

    def count(self, key: str) -> dict[int, int]:
        """By number of the step, how many occurrences a schedule has in it; steps without any are left out."""
        counts: defaultdict[int, int] = defaultdict(int)
        self.work += 1
        parts = key.split("|")
        if parts[0] == "every" and len(parts) == 3:
            self._every(int(parts[1]), int(parts[2]), counts)
        elif parts[0] == "cron" and len(parts) == 3:
            self._cron(key, parts[1], parts[2], counts)
        else:
            self._search(key, self.start, self.end, counts)
        return counts

    def _every(self, interval: int, phase: int, counts: dict[int, int]) -> None:
        if interval >= self.step:
            first = self.start + (phase - self.start) % interval
            for t in range(first, self.end, interval):
                counts[(t - self.start) // self.step] += 1
                self.work += 1
            return
        for i, begin in enumerate(range(self.start, self.end, self.step)):
            counts[i] = (begin + self.step - 1 - phase) // interval - (begin - 1 - phase) // interval
            self.work += 1

    def _cron(self, key: str, expression: str, zone: str, counts: dict[int, int]) -> None:
        times = _Times(expression)
        follows_real_time = any("*" in field for field in expression.split(" ")[1:3])
        for stretch in self._stretches_of(zone):
            if stretch.near_change and not follows_real_time:
                self._search(key, stretch.start, stretch.end, counts)
                continue
            unit = next(u for u in (HOUR_S, MINUTE_S, 1) if self.step % u == 0 and stretch.offset % u == 0)
            for day in times.days(key, stretch):
                self._day(times, day * DAY_S - stretch.offset, stretch, unit, counts)

    def _day(self, times: _Times, midnight: int, stretch: Stretch, unit: int, counts: dict[int, int]) -> None:
        """Add the times of one local day that begins at `midnight`."""
        low, high = stretch.start - midnight, stretch.end - midnight
        for second_of_day, n in times.units(unit, low, high):
            counts[(midnight + second_of_day - self.start) // self.step] += n
            self.work += 1

    def _search(self, key: str, start: int, end: int, counts: dict[int, int]) -> None:
        found = schedule_from_key(key).between(start * 1000, end * 1000, SEARCHED)
        self.work += 20 * len(found)
        for t in found:
            counts[(t // 1000 - self.start) // self.step] += 1

    def _stretches_of(self, zone: str) -> list[Stretch]:
        found = self._stretches.get(zone)
        if found is None:
            found = self._stretches[zone] = list(_stretches(zone, self.start, self.end, max(HOUR_S, self.step)))
        return found


def _stretches(zone: str, start: int, end: int, grid: int) -> Iterator[Stretch]:
    """The stretches between two instants. Edges near a change are on the grid of hours, so that no hour is cut."""
    at = start
    while at < end:
        change = next_change(zone, at - 2 * DAY_S, end + 2 * DAY_S)
        if change is None:
            yield Stretch(at, end, offset(zone, at), near_change=False)
            return
        near_from, near_until = change.at - 2 * DAY_S, change.at + 2 * DAY_S
        quiet_until = min(end, near_from - near_from % grid)
        if at < quiet_until:
            yield Stretch(at, quiet_until, offset(zone, at), near_change=False)
            at = quiet_until
        for limit in (change.at, near_until):
            until = min(end, limit)
            if at < until:
                yield Stretch(at, until, offset(zone, at), near_change=True)
                at = until


class _Times:
    """The fields of a cron expression in normal form."""

    def __init__(self, expression: str) -> None:
        second, minute, hour, day, month, weekday = expression.split(" ")
        self._seconds, self._minutes, self._hours = (
            sorted(values_of(f, text)) for f, text in ((SECOND, second), (MINUTE, minute), (HOUR, hour))
        )
        self._every_day = (day, month, weekday) == ("*", "*", "*")
        self._searched = not (_PLAIN.issuperset(day) and _PLAIN.issuperset(weekday))
        self._months = values_of(MONTH, month)
        self._days = values_of(DAY, day) if not self._searched and day != "*" else None
        self._weekdays = values_of(WEEKDAY, weekday) if not self._searched and weekday != "*" else None

    def days(self, key: str, stretch: Stretch) -> Iterator[int]:
        """The local days (since 1970) within a stretch on which the schedule is due."""
        first, last = (stretch.start + stretch.offset) // DAY_S, (stretch.end + stretch.offset - 1) // DAY_S
        if self._every_day:
            yield from range(first, last + 1)
        elif self._searched:
            yield from self._search_days(key, stretch)
        else:
            yield from (day for day in range(first, last + 1) if self._matches(day))

    def _search_days(self, key: str, stretch: Stretch) -> Iterator[int]:
        schedule = schedule_from_key(key)
        at: int | None = schedule.next_after(stretch.start * 1000 - 1)
        while at is not None and at < stretch.end * 1000:
            day = (at // 1000 + stretch.offset) // DAY_S
            yield day
            at = schedule.next_after(((day + 1) * DAY_S - stretch.offset) * 1000 - 1)

    def _matches(self, day: int) -> bool:
        _, month, of_month = civil(day)
        if month not in self._months:
            return False
        on_day = self._days is not None and of_month in self._days
        on_weekday = self._weekdays is not None and (day + 4) % 7 in self._weekdays
        return on_day or on_weekday or (self._days is None and self._weekdays is None)

    def units(self, unit: int, low: int, high: int) -> Iterator[tuple[int, int]]:
        """`(second of the day, occurrences)` of each hour, minute or second that has any, between two of the day."""
        hours = self._hours[bisect_left(self._hours, low // HOUR_S) : bisect_left(self._hours, -(-high // HOUR_S))]
        if unit == HOUR_S:
            n = len(self._minutes) * len(self._seconds)
            yield from ((h * HOUR_S, n) for h in hours if low <= h * HOUR_S < high)
            return
        for h in hours:
            for m in self._minutes:
                begin = h * HOUR_S + m * MINUTE_S
                if begin + MINUTE_S <= low or begin >= high:
                    continue
                if unit == MINUTE_S:
                    yield begin, len(self._seconds)
                else:
                    yield from ((begin + s, 1) for s in self._seconds if low <= begin + s < high)


def civil(day: int) -> tuple[int, int, int]:
    """Year, month and day of month of a day since 1970-01-01, in the Gregorian calendar.

    Counted in years that begin in March, so that the day of a leap year is the last one.
    """
    shifted = day + 719_468
    era, of_era = divmod(shifted, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * of_year + 2) // 153
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return year_of_era + era * 400 + (month <= 2), month, of_year - (153 * month_from_march + 2) // 5 + 1
