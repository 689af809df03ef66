"""A second implementation of schedules, for `horae verify`. It shares no code with the engine's.

It must not import `cluster.core.schedule`, `zones` or croniter (import-linter proves it). The engine computes the next
occurrence after an instant. This module computes the times of each local day, and where a zone's offset changes it walks
through the day second by second. A mistake would have to be made twice, in two ways, to go unnoticed.

The rules: seconds come first; if both day fields are restricted, either is enough; a star in the minute or hour follows
real time; a fixed time that comes twice runs once; a fixed time in a gap runs when the gap ends or, with a second other
than 0, later by the length of the gap.
"""

from __future__ import annotations

import calendar
import re
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DAY = 86_400
_EPOCH = date(1970, 1, 1)
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ["", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": DAY}


def occurrences(text: str, timezone: str, anchor_ms: int, start_ms: int, end_ms: int) -> Iterator[int]:
    """The occurrences t (ms) of a schedule with `start_ms <= t < end_ms`, ascending.

    For schedules that were accepted when their job was defined. Any other text may raise `ValueError`.
    """
    words = text.split()
    kind = words[0].lower()
    start, end = -(-start_ms // 1000), -(-end_ms // 1000)
    if start >= end and kind != "@at":
        return
    if kind == "@every":
        interval = sum(int(n) * _UNIT[u] for n, u in re.findall(r"(\d+)([smhd])", "".join(words[1:]).lower()))
        anchor = -(-anchor_ms // 1000)
        first = anchor + -(-(start - anchor) // interval) * interval
        yield from range(first * 1000, end * 1000, interval * 1000)
    elif kind == "@at":
        time = datetime.fromisoformat(" ".join(words[1:]).upper())
        at_ms = _instant_of(time.replace(microsecond=0), timezone) * 1000 + time.microsecond // 1000
        if start_ms <= at_ms < end_ms:
            yield at_ms
    else:
        yield from _of_cron(_read(_ALIASES.get(kind, text)), zone_of(timezone), start, end)


@dataclass(frozen=True)
class _CronFields:
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    day: str
    month: frozenset[int]
    weekday: str
    real_time: bool


@lru_cache(maxsize=5000)
def _read(text: str) -> _CronFields:
    words = text.upper().replace("?", "*").split()
    if len(words) == 5:
        words = ["0", *words]
    second, minute, hour, day, month, weekday = words
    return _CronFields(
        seconds=tuple(sorted(_values(second, 0, 59))),
        minutes=tuple(sorted(_values(minute, 0, 59))),
        hours=tuple(sorted(_values(hour, 0, 23))),
        day=day,
        month=frozenset(_values(month, 1, 12, _MONTHS)),
        weekday=weekday,
        real_time="*" in minute or "*" in hour,
    )


@lru_cache(maxsize=64)
def _times(hours: tuple[int, ...], minutes: tuple[int, ...], seconds: tuple[int, ...]) -> array[int]:
    """Seconds of the day, ascending. At most 86,400 of 4 bytes each, so that the cache holds 22 MB at most."""
    return array("i", (h * 3600 + m * 60 + s for h in hours for m in minutes for s in seconds))


def _number(word: str, names: list[str] | None) -> int:
    return names.index(word) if names and word in names else int(word)


def _values(text: str, least: int, most: int, names: list[str] | None = None) -> set[int]:
    values: set[int] = set()
    for part in text.split(","):
        base, _, step = part.partition("/")
        if base == "*":
            low, high = least, most
        elif "-" in base:
            low, high = (_number(w, names) for w in base.split("-"))
        else:
            low = _number(base, names)
            high = most if step else low
        size = most - least + 1
        if high < low:
            high += size
        values |= {(v - least) % size + least for v in range(low, high + 1, int(step or 1))}
    return values


@lru_cache(maxsize=100_000)
def _fits(cron: _CronFields, day: date) -> bool:
    if day.month not in cron.month:
        return False
    any_day, any_weekday = _any(cron.day), _any(cron.weekday)
    if any_day and any_weekday:
        return True
    return (not any_day and _day_fits(cron.day, day)) or (not any_weekday and _weekday_fits(cron.weekday, day))


def _any(field: str) -> bool:
    return field in ("*", "*/1")


def _day_fits(field: str, day: date) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    for part in field.split(","):
        if part == "L":
            if day.day == last:
                return True
        elif part.startswith("L-"):
            if day.day == last - int(part[2:]):
                return True
        elif part.endswith("W"):
            wanted = last if part == "LW" else int(part[:-1])
            if wanted <= last and day.day == _nearest_weekday(wanted, day, last):
                return True
        elif day.day in _values(part, 1, 31):
            return True
    return False


def _nearest_weekday(wanted: int, day: date, last: int) -> int:
    weekday = day.replace(day=wanted).weekday()
    if weekday == 5:
        return wanted - 1 if wanted > 1 else wanted + 2
    if weekday == 6:
        return wanted + 1 if wanted < last else wanted - 2
    return wanted


def _weekday_fits(field: str, day: date) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    today = day.isoweekday() % 7
    for part in field.split(","):
        if "#" in part:
            name, nth = part.split("#")
            if _number(name, _DAYS) % 7 == today and (day.day - 1) // 7 + 1 == int(nth):
                return True
        elif re.fullmatch(r"L\d|[A-Z]{3}L", part):
            if _number(part.strip("L") or "L", _DAYS) % 7 == today and day.day + 7 > last:
                return True
        elif today in _weekdays(part):
            return True
    return False


def _weekdays(part: str) -> set[int]:
    base, _, step = part.partition("/")
    low, _, high = base.partition("-")
    if base == "*":
        return set(range(0, 7, int(step or 1)))
    first = _number(low, _DAYS)
    last = _number(high, _DAYS) if high else (6 if step else first)
    if first == 7 and last < 7:
        first = 0
    if last < first:
        last += 7
    return {v % 7 for v in range(first, last + 1, int(step or 1))}


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """A zone of the locked `tzdata` package: the machine's own rules may be older or newer."""
    with (files("tzdata") / "zoneinfo" / name).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def offset_at(zone: ZoneInfo, instant: int) -> int:
    """The offset of a zone at an instant, both in s."""
    offset = datetime.fromtimestamp(instant, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _instant_of(time: datetime, timezone: str) -> int:
    """The instant (s) of a time with an offset, or of a local one: where it comes first, or after the gap it falls into."""
    if time.tzinfo is not None:
        return int(time.timestamp())
    zone = zone_of(timezone)
    local = int(time.replace(tzinfo=UTC).timestamp())
    for instant in range(local - 16 * 3600, local + 16 * 3600, 60):
        if instant + offset_at(zone, instant) == local - local % 60:
            return instant + local % 60
    return _after_gap(local, zone, at_its_end=local % 60 == 0)


@lru_cache(maxsize=20_000)
def _even(zone: ZoneInfo, day: date) -> int | None:
    """The zone's offset on a day, if it is the same from two days before to two days after. Otherwise None."""
    noon = (day - _EPOCH).days * DAY
    offsets = {offset_at(zone, noon + hours * 3600) for hours in range(-48, 73)}
    return offsets.pop() if len(offsets) == 1 else None


def _of_cron(cron: _CronFields, zone: ZoneInfo, start: int, end: int) -> Iterator[int]:
    day = datetime.fromtimestamp(start, zone).date() - timedelta(days=1)
    last = datetime.fromtimestamp(end, zone).date()
    done = start - 1
    while day <= last:
        for t in _of_day(cron, zone, day, start, end):
            if done < t < end:
                done = t
                yield t * 1000
        day += timedelta(days=1)


def _of_day(cron: _CronFields, zone: ZoneInfo, day: date, start: int, end: int) -> Sequence[int]:
    """The instants (s) of a local day, ascending. Those outside `start <= t < end` may be missing."""
    if not _fits(cron, day):
        return ()
    midnight = (day - _EPOCH).days * DAY
    times = _times(cron.hours, cron.minutes, cron.seconds)
    offset = _even(zone, day)
    if offset is not None:
        zero = midnight - offset
        return [zero + t for t in times[bisect_left(times, start - zero) : bisect_left(times, end - zero)]]
    real = _walk(zone, day)
    if cron.real_time:
        wanted = set(times)
        return [instant for instant, local in real if local in wanted]
    first: dict[int, int] = {}
    for instant, local in real:
        first.setdefault(local, instant)
    at_end = cron.seconds == (0,)
    return sorted({first[t] if t in first else _after_gap(midnight + t, zone, at_its_end=at_end) for t in times})


@lru_cache(maxsize=4)
def _walk(zone: ZoneInfo, day: date) -> list[tuple[int, int]]:
    """Every instant of a local date, with the second of the day that local clocks show then."""
    midnight = (day - _EPOCH).days * DAY
    instants = []
    offset = 0
    for instant in range(midnight - 16 * 3600, midnight + 40 * 3600):
        if instant % 60 == 0:  # offsets change on whole minutes, in every zone since 1972
            offset = offset_at(zone, instant)
        if 0 <= instant + offset - midnight < DAY:
            instants.append((instant, instant + offset - midnight))
    return instants


def _after_gap(local: int, zone: ZoneInfo, *, at_its_end: bool) -> int:
    """The instant at which a fixed local time in a gap runs."""
    naive = datetime.fromtimestamp(local, UTC).replace(tzinfo=None)
    before = naive.replace(tzinfo=zone, fold=0).utcoffset()
    moved = local - (0 if before is None else int(before.total_seconds()))
    if not at_its_end:
        return moved
    instant = moved
    while offset_at(zone, instant - 1) == offset_at(zone, moved):
        instant -= 1
    return instant
