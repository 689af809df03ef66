"""Schedules: text and time zone -> the instants at which a job is due. The only place that names croniter.

croniter sees naive local times alone; where those lie on the time line is decided here, as Debian's cron does it:

* `*` in the minute or hour field (steps included) follows real time: nothing in a gap, both passes of a repeated hour;
* any other time that falls into a gap runs when the gap ends, and one that comes twice runs the first time only;
* with seconds other than 0 a time in a gap is moved by the gap's length instead (the recorded behaviour asks for it).

Every instant is a whole second, in ms since 1970. Each function is pure: what follows an instant does not depend on
how it was reached.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol
from zoneinfo import ZoneInfoNotFoundError

from croniter import CroniterBadDateError, CroniterError, croniter

from cluster.core.cron_fields import ALIASES, BadCron, normalise
from cluster.core.errors import CallerError
from cluster.core.zones import last_change, next_change, offset, zone

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_TEXT = 256
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - croniter is fed naive local times, on purpose
_LAST_INSTANT = 253_370_764_800  # 9999-01-01, in s
_LONGEST_GAP = 2 * 86_400
_DURATION = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class InvalidSchedule(CallerError):
    """The schedule or its time zone is wrong: `field` names which, `message` says what would be right."""

    def __init__(self, message: str, field_name: Literal["schedule", "timezone"] = "schedule") -> None:
        self.field = field_name
        self.message = message
        super().__init__(f"{field_name}: {message}")


class _Engine(Protocol):
    def next_after(self, after: int) -> int | None:
        """The first instant later than `after`, both in s since 1970."""


@dataclass(frozen=True, slots=True)
class _At:
    instant: int

    def next_after(self, after: int) -> int | None:
        return self.instant if after < self.instant else None


@dataclass(frozen=True, slots=True)
class _Every:
    interval: int
    phase: int

    def next_after(self, after: int) -> int | None:
        return after + 1 + (self.phase - after - 1) % self.interval


class _Cron:
    """A cron expression in one zone. Local times are naive seconds since 1970-01-01 00:00 local."""

    def __init__(self, expression: str, timezone: str) -> None:
        self._matches = croniter(expression, _NAIVE_EPOCH, ret_type=datetime, second_at_beginning=True)
        self._timezone = timezone
        second, minute, hour, *_ = expression.split(" ")
        self._fixed = not minute.startswith("*") and not hour.startswith("*")
        self._at_gap_end = second == "0"

    def _match(self, local: int) -> int | None:
        """The first matching local time at or after `local`."""
        try:
            self._matches.set_current(_NAIVE_EPOCH.fromtimestamp(local - 1, UTC).replace(tzinfo=None), force=True)
            found: datetime = self._matches.get_next(datetime)
        except (CroniterBadDateError, OverflowError, ValueError):
            return None
        return int(found.replace(tzinfo=UTC).timestamp())

    def next_after(self, after: int) -> int | None:
        # Between two changes of the offset, local and real time run side by side: one such stretch at a time.
        start = after + 1
        while start < _LAST_INSTANT:
            here = offset(self._timezone, start)
            found, until = self._in_stretch(start, here)
            change = next_change(self._timezone, start, _LAST_INSTANT if until is None else until)
            if found is not None and (change is None or found < change.at):
                return found
            if until is None or change is None:
                return None
            start = change.at
        return None

    def _in_stretch(self, start: int, here: int) -> tuple[int | None, int | None]:
        """The first instant from `start` on if the offset never changed again, and how far one must look for a change.

        The second is None when the expression never matches any more.
        """
        low = start + here
        moved = None
        if self._fixed and (change := last_change(self._timezone, start, _LONGEST_GAP)) is not None:
            if change.after < change.before:
                low = max(low, change.at + change.before)  # the hour that comes twice has had its run
            else:
                moved = self._from_gap(start, change.at, change.before, change.after)
        local = self._match(low)
        regular = None if local is None else local - here
        if moved is None or (regular is not None and regular <= moved):
            return regular, regular
        return moved, moved

    def _from_gap(self, start: int, at: int, before: int, after: int) -> int | None:
        """Where the first local time of a gap that is still to come lies; None if there is none."""
        first = at + before
        if self._at_gap_end:
            local = self._match(first)
            return at if start <= at and local is not None and local < at + after else None
        local = self._match(max(first, start + before))
        return local - before if local is not None and local < at + after else None


@dataclass(frozen=True)
class Schedule:
    """When a job is due. Equal schedules have equal keys; the key alone is enough to compute with."""

    text: str
    timezone: str
    kind: Literal["cron", "every", "at"]
    key: str
    _engine: _Engine = field(repr=False, compare=False)

    def next_after(self, after_ms: int) -> int | None:
        """The first occurrence strictly later than an instant, in ms; None if there is none."""
        after = after_ms // 1000
        found = self._engine.next_after(after)
        return None if found is None or found <= after else found * 1000

    def between(self, start_ms: int, end_ms: int, limit: int) -> list[int]:
        """The occurrences t with `start_ms <= t < end_ms`, ascending, at most `limit`."""
        found: list[int] = []
        for t in self._from(start_ms):
            if t >= end_ms or len(found) >= limit:
                break
            found.append(t)
        return found

    def _from(self, start_ms: int) -> Iterator[int]:
        t = self.next_after(start_ms - 1)
        while t is not None:
            yield t
            t = self.next_after(t)

    def is_occurrence(self, due_ms: int) -> bool:
        """Whether it is due at exactly this instant."""
        return due_ms % 1000 == 0 and self.next_after(due_ms - 1) == due_ms


def parse_schedule(text: str, timezone: str = "UTC", anchor_ms: int = 0) -> Schedule:
    """The schedule a user wrote. `anchor_ms` is what `@every` counts from. Raises `InvalidSchedule`."""
    if len(text) > LONGEST_TEXT:
        raise InvalidSchedule(f"at most {LONGEST_TEXT} characters")
    words = text.split()
    if not words:
        raise InvalidSchedule('must not be empty; write a cron expression such as "0 30 9 * * MON-FRI"')
    _check_zone(timezone)
    kind = words[0].lower()
    if kind == "@every":
        interval = _interval(words[1:])
        return _every(text, timezone, interval, -(-anchor_ms // 1000) % interval)
    if kind == "@at":
        return _at(text, timezone, _instant(words[1:]))
    if kind.startswith("@"):
        if kind not in ALIASES or len(words) > 1:
            raise InvalidSchedule(f"'{text}' is not known; use {', '.join(ALIASES)}, @every 90s or @at <RFC 3339 time>")
        return _cron(ALIASES[kind], timezone, text)
    return _cron(" ".join(words), timezone, text)


@lru_cache(maxsize=20_000)
def schedule_from_key(key: str) -> Schedule:
    """The schedule behind a row's key. Its `text` is the normal form."""
    kind, first, second = (*key.split("|"), "")[:3]
    if kind == "every":
        return _every(f"@every {first}s", "UTC", int(first), int(second))
    if kind == "at":
        return _at(f"@at {first}", "UTC", int(first))
    return _cron(first, second, first)


def _check_zone(name: str) -> None:
    try:
        zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        message = f"'{name[:64]}' is not an IANA time zone; write one such as Europe/Berlin or UTC"
        raise InvalidSchedule(message, "timezone") from exc


@lru_cache(maxsize=20_000)
def _cron(expression: str, timezone: str, text: str) -> Schedule:
    try:
        normal = normalise(expression)
        engine = _Cron(normal, timezone)
    except BadCron as exc:
        raise InvalidSchedule(str(exc)) from exc
    except (CroniterError, ValueError, KeyError) as exc:
        raise InvalidSchedule(f"'{text}' cannot be read: {exc}") from exc
    # 2000 is a leap year, so that the 29th of February is found at once.
    if engine.next_after(946_684_800) is None:
        raise InvalidSchedule(f"'{text}' never fires: no date has this day and month")
    return Schedule(text, timezone, "cron", f"cron|{normal}|{timezone}", engine)


def _every(text: str, timezone: str, interval: int, phase: int) -> Schedule:
    return Schedule(text, timezone, "every", f"every|{interval}|{phase}", _Every(interval, phase))


def _at(text: str, timezone: str, instant: int) -> Schedule:
    return Schedule(text, timezone, "at", f"at|{instant}", _At(instant))


def _interval(words: list[str]) -> int:
    text = "".join(words).lower()
    parts = _DURATION.findall(text)
    if not parts or "".join(n + unit for n, unit in parts) != text:
        raise InvalidSchedule("@every takes whole seconds, minutes, hours and days, such as 90s or 1h30m")
    seconds = sum(int(n) * _UNITS[unit] for n, unit in parts)
    if not 1 <= seconds <= 366 * 86_400:
        raise InvalidSchedule("@every must be from 1s to 366d")
    return seconds


def _instant(words: list[str]) -> int:
    try:
        parsed = datetime.fromisoformat(" ".join(words).upper())
    except ValueError as exc:
        raise InvalidSchedule("@at takes a time such as 2026-12-01T10:00:00Z") from exc
    if parsed.tzinfo is None:
        raise InvalidSchedule("@at needs its offset: end the time with Z or +01:00")
    if parsed.microsecond:
        raise InvalidSchedule("@at takes whole seconds")
    try:
        seconds = int(parsed.timestamp())
    except (OverflowError, ValueError) as exc:
        raise InvalidSchedule("@at is outside the years that can be computed with") from exc
    if not 0 < seconds < _LAST_INSTANT:
        raise InvalidSchedule("@at must lie between 1970 and 9999")
    return seconds
