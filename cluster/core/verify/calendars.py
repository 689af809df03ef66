"""Occurrences of schedules with a calendar, for `horae verify`, by a reading of its own.

It reads the text of a calendar in the key of a schedule, day by day, and moves each excluded occurrence by itself. It
shares nothing with `cluster.core.schedule`, whose work it checks.

The text is `mode~zone~calendar zone~spans~yearly~weekdays` (`cluster/core/schedule/calendar_days.py` says the same in more
words). An occurrence is moved day by day, 366 days at most, and keeps its time of day in `zone`; a time that is skipped
then is the end of the gap, and one that comes twice is its first.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from cluster.core.verify.oracle import DAY, occurrences, offset_at, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

FARTHEST = 366
_LANDS_WITHIN = 26 * 3600
"""What is moved lands so near to the beginning or end of the excluded days."""


@dataclass(frozen=True)
class _Days:
    mode: str
    zone: ZoneInfo
    day_zone: ZoneInfo
    days: frozenset[date]
    yearly: frozenset[str]
    weekdays: frozenset[int]
    all_excluded: tuple[tuple[date, date], ...]

    def excludes(self, day: date) -> bool:
        return (
            day.weekday() in self.weekdays
            or day in self.days
            or f"{day:%m%d}" in self.yearly
            or any(first <= day <= last for first, last in self.all_excluded)
        )


@lru_cache(maxsize=256)
def _read(text: str) -> _Days:
    mode, zone, day_zone, spans, yearly, weekdays = text.split("~")
    days, long_spans = set(), []
    at = date(1970, 1, 1)
    for part in filter(None, spans.split(",")):
        numbers = [int(n) for n in part.split("+")]
        first = at + timedelta(days=numbers[0])
        at = first + timedelta(days=sum(numbers[1:]))
        if (at - first).days < 31:
            days |= {first + timedelta(days=n) for n in range((at - first).days + 1)}
        else:
            long_spans.append((first, at))
    return _Days(
        mode=mode,
        zone=zone_of(zone),
        day_zone=zone_of(day_zone or zone),
        days=frozenset(days),
        yearly=frozenset(filter(None, yearly.split(","))),
        weekdays=frozenset(int(w) for w in weekdays),
        all_excluded=tuple(long_spans),
    )


def calendar_in(key: str | None) -> str | None:
    """The calendar's text in the key of a schedule. None: it has no calendar."""
    return key.split("|")[1] if key is not None and key.startswith("cal|") else None


def occurrences_with(
    calendar_text: str | None, text: str, timezone: str, anchor_ms: int, start_ms: int, end_ms: int
) -> Iterator[int]:
    """The occurrences t (ms) with `start_ms <= t < end_ms`, ascending, of a schedule with this calendar (None: with none)."""
    if calendar_text is None:
        yield from occurrences(text, timezone, anchor_ms, start_ms, end_ms)
        return
    if start_ms >= end_ms:
        return
    calendar = _read(calendar_text)
    low, high = start_ms, end_ms
    if calendar.mode == "next":
        low = _edge(calendar, start_ms - _LANDS_WITHIN * 1000, -1)
    elif calendar.mode == "previous":
        high = _edge(calendar, end_ms + _LANDS_WITHIN * 1000, 1)
    last = start_ms - 1
    for t in _moved(calendar, occurrences(text, timezone, anchor_ms, max(0, low), high)):
        if last < t < end_ms:
            last = t
            yield t


def _edge(calendar: _Days, at_ms: int, step: int) -> int:
    """The far side of the excluded days that this instant is within, in ms."""
    day = _day(calendar, at_ms // 1000)
    for n in range(FARTHEST + 2):
        if not calendar.excludes(day + timedelta(days=n * step)):
            return at_ms + (n + 1) * step * DAY * 1000
    return at_ms + (FARTHEST + 2) * step * DAY * 1000


def _day(calendar: _Days, at: int) -> date:
    return datetime.fromtimestamp(at, calendar.day_zone).date()


def _moved(calendar: _Days, regular: Iterator[int]) -> Iterator[int]:
    """The occurrences with the excluded ones moved, ascending; some may come twice."""
    waiting: list[int] = []
    for t_ms in regular:
        t = t_ms // 1000
        if calendar.excludes(_day(calendar, t)):
            if calendar.mode != "skip" and (target := _target(calendar, t)) is not None:
                heapq.heappush(waiting, target * 1000)
            continue
        # Nothing that comes later is moved to before this: for `previous`, days that are excluded begin after here.
        surely_ms = t_ms - (0 if calendar.mode != "previous" else _LANDS_WITHIN * 1000)
        heapq.heappush(waiting, t_ms)
        while waiting and waiting[0] <= surely_ms:
            yield heapq.heappop(waiting)
    while waiting:
        yield heapq.heappop(waiting)


def _target(calendar: _Days, t: int) -> int | None:
    local = t + offset_at(calendar.zone, t)
    step = 1 if calendar.mode == "next" else -1
    for n in range(1, FARTHEST + 1):
        moved = _instant(calendar.zone, local + n * step * DAY)
        if not calendar.excludes(_day(calendar, moved)):
            return moved
    return None


def _instant(zone: ZoneInfo, local: int) -> int:
    """The instant of a local time: its first one, or the end of the gap that it falls into."""
    offsets = {offset_at(zone, local - DAY), offset_at(zone, local + DAY)}
    candidates = [local - o for o in offsets if offset_at(zone, local - o) == o]
    if candidates:
        return min(candidates)
    low, high = local - max(offsets) - 1, local - min(offsets) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(zone, middle) == offset_at(zone, low):
            low = middle
        else:
            high = middle
    return high
