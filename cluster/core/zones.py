"""Time zones, and the instants at which their offsets change.

`zoneinfo` does not list these instants, so they are searched for, one stretch of time after another, and cached. The
rules come from the locked `tzdata` package and never from the machine: all nodes must agree on what is due.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DATA = files("tzdata")
_GRID = 2 * 86_400
"""No zone has changed twice within six days since 1970 (a test reads the zones' data), so steps of two days miss no
change.
"""
_STRETCH = 32 * _GRID
_HEADER = struct.Struct(">4s1s15x6l")
_NAME = re.compile(r"<[^>]*>|[A-Za-z]{3,}")
"""An abbreviation such as `CEST` in the rule at the end of a zone's file."""


@dataclass(frozen=True, slots=True)
class OffsetChange:
    """At instant `at` (s since 1970) the offset from UTC changes from `before` to `after` seconds."""

    at: int
    before: int
    after: int


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """All IANA names, including aliases such as `US/Eastern`."""
    return frozenset((_DATA / "zones").read_text().split()) - {"Factory"}


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The zone of this IANA name. Raises `ZoneInfoNotFoundError`."""
    if name not in zone_names():
        raise ZoneInfoNotFoundError(name)
    with (_DATA / "zoneinfo" / name).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def same_times(first: str, second: str) -> bool:
    """Whether two zones have had the same offset at every instant since 1970, and will: one may be a link to the other."""
    return first == second or _offsets(first) == _offsets(second)


@lru_cache(maxsize=1024)
def _offsets(name: str) -> tuple[tuple[tuple[int, int], ...], str]:
    """The offsets of a zone since 1970 as `(from instant, seconds)`, and the rule for the time after (RFC 8536).

    The second data block of the file has 64-bit instants; the first one is skipped.
    """
    data = (_DATA / "zoneinfo" / name).read_bytes()
    _, _, indicators, standard, leaps, count, types, characters = _HEADER.unpack_from(data)
    start = _HEADER.size + count * 5 + types * 6 + characters + leaps * 8 + standard + indicators
    _, _, indicators, standard, leaps, count, types, characters = _HEADER.unpack_from(data, start)
    start += _HEADER.size
    instants = struct.unpack_from(f">{count}q", data, start)
    kinds = data[start + count * 8 : start + count * 9]
    start += count * 9
    seconds = [struct.unpack_from(">l", data, start + 6 * i)[0] for i in range(types)]
    end = start + types * 6 + characters + leaps * 12 + standard + indicators
    now = seconds[0]
    changes: list[tuple[int, int]] = []
    for instant, kind in zip(instants, kinds, strict=True):
        if instant <= 0:
            now = seconds[kind]
        elif seconds[kind] != (changes[-1][1] if changes else now):
            changes.append((instant, seconds[kind]))
    return ((0, now), *changes), _NAME.sub("X", data[end:].decode().strip())


def offset(name: str, at: int) -> int:
    """The offset from UTC in seconds at an instant (s since 1970)."""
    if name == "UTC":
        return 0
    difference = datetime.fromtimestamp(at, zone(name)).utcoffset()
    return 0 if difference is None else int(difference.total_seconds())


def instant_of(name: str, local: int) -> int:
    """The instant (s since 1970) of a local time (s since 1970-01-01 00:00 local), as a fixed time of a cron schedule.

    A time that comes twice is its first one. A time that is skipped is the instant of the change or, with a second
    other than 0, later by the length of the gap.
    """
    if name == "UTC":
        return local
    at = local - offset(name, local - 86_400)
    change = next_change(name, local - 86_400, local + 86_400)
    if change is None or at < change.at:
        return at
    if local >= change.at + change.after:
        return local - change.after
    return change.at if local % 60 == 0 else local - change.before


@lru_cache(maxsize=16_384)
def _changes(name: str, stretch: int) -> tuple[OffsetChange, ...]:
    """Every change of offset within `[stretch, stretch + 1) * _STRETCH`, in order."""
    start = stretch * _STRETCH
    changes = []
    low = start - 1
    before = offset(name, low)
    for high in range(low + _GRID, start + _STRETCH, _GRID):
        after = offset(name, high)
        if after != before:
            changes.append(_locate(name, low, high))
        low, before = high, after
    return tuple(changes)


def _locate(name: str, low: int, high: int) -> OffsetChange:
    before, after = offset(name, low), offset(name, high)
    while high - low > 1:
        middle = (low + high) // 2
        if offset(name, middle) == before:
            low = middle
        else:
            high = middle
    return OffsetChange(high, before, after)


def next_change(name: str, after: int, until: int) -> OffsetChange | None:
    """The first change in `(after, until]`."""
    if name == "UTC":
        return None
    for stretch in range(after // _STRETCH, until // _STRETCH + 1):
        for change in _changes(name, stretch):
            if after < change.at <= until:
                return change
    return None


def last_change(name: str, at: int, within: int) -> OffsetChange | None:
    """The last change in `(at - within, at]`."""
    if name == "UTC":
        return None
    for stretch in range(at // _STRETCH, (at - within) // _STRETCH - 1, -1):
        for change in reversed(_changes(name, stretch)):
            if at - within < change.at <= at:
                return change
    return None
