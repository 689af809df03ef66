"""Where a time zone's offset changes. `zoneinfo` does not tell, so each year is scanned once and remembered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

_GRID = 6 * 3600
"""No zone has ever changed twice within six hours."""


@dataclass(frozen=True, slots=True)
class Change:
    """At instant `at` (s since 1970) the offset from UTC goes from `before` to `after` seconds."""

    at: int
    before: int
    after: int


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The zone of that IANA name; raises `ZoneInfoNotFoundError` or `ValueError`."""
    return ZoneInfo(name)


def offset(name: str, at: int) -> int:
    """Seconds to add to UTC at an instant (s since 1970), rounded down to whole seconds."""
    if name == "UTC":
        return 0
    difference = datetime.fromtimestamp(at, zone(name)).utcoffset()
    return 0 if difference is None else int(difference.total_seconds())


@lru_cache(maxsize=4096)
def changes(name: str, year: int) -> tuple[Change, ...]:
    """Every change of offset within a UTC year, in order."""
    if name == "UTC":
        return ()
    start = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    end = int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp())
    found = []
    before = offset(name, start - 1)
    low = start - 1
    for high in (*range(start + _GRID, end, _GRID), end - 1):
        then = offset(name, high)
        if then != before:
            found.append(_locate(name, low, high, before, then))
        low, before = high, then
    return tuple(found)


def _locate(name: str, low: int, high: int, before: int, after: int) -> Change:
    while high - low > 1:
        middle = (low + high) // 2
        if offset(name, middle) == before:
            low = middle
        else:
            high = middle
    return Change(high, before, after)


def _year(at: int) -> int:
    return datetime.fromtimestamp(at, UTC).year


def next_change(name: str, after: int, until: int) -> Change | None:
    """The first change in `(after, until]`."""
    if name == "UTC":
        return None
    for year in range(_year(after), min(_year(until), 9998) + 1):
        for change in changes(name, year):
            if after < change.at <= until:
                return change
    return None


def last_change(name: str, at: int, within: int) -> Change | None:
    """The last change in `(at - within, at]`."""
    if name == "UTC":
        return None
    for year in range(_year(at), _year(at - within) - 1, -1):
        for change in reversed(changes(name, year)):
            if at - within < change.at <= at:
                return change
    return None
