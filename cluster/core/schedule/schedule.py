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
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

from croniter import CroniterBadDateError, CroniterError, croniter

from cluster.core import instants
from cluster.core.errors import CallerError
from cluster.core.schedule.cron_syntax import ALIASES, InvalidCron, normalise
from cluster.core.zones import last_change, next_change, offset, zone_names

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SCHEDULE_LENGTH = 256
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - croniter is fed naive local times, on purpose
_SECOND = timedelta(seconds=1)
_LATEST = instants.LATEST_MS // 1000
_YEAR_2000 = 946_684_800
_NEAR = 4 * 86_400
"""More than any two offsets differ (26 h), and than any gap or repeated stretch lasts (24 h), together."""
_DURATION = re.compile(r"(\d+)([smhd])", re.ASCII)
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
    """A cron expression in normal form, in one zone. Local times are naive seconds since 1970-01-01 00:00 local.

    Not for several threads at once: croniter objects keep their place.
    """

    def __init__(self, expression: str, timezone: str) -> None:
        self._timezone = timezone
        second, minute, hour, day, month, weekday = expression.split(" ")
        self._fixed = "*" not in minute and "*" not in hour
        self._at_gap_end = second == "0"
        # Whichever fits: croniter takes both days to be needed when W or # is among them, and thirty days with L to be
        # every day, so it is asked for one at a time.
        month_days = [day] if day == "L" else [day.removesuffix(",L")] + ["L"] * day.endswith(",L")
        days = [(d, "*") for d in month_days if d != "*" or weekday == "*"]
        days += [("*", weekday)] if weekday != "*" else []
        alternatives = [
            croniter(
                f"{second} {minute} {hour} {d} {month} {w}", _NAIVE_EPOCH, ret_type=datetime, second_at_beginning=True
            )
            for d, w in days
        ]
        # The 30th of February is looked for once, not at every question. 2000 is a leap year: the 29th is there.
        self._alternatives = [a for a in alternatives if _next(a, _YEAR_2000) is not None]

    @property
    def never(self) -> bool:
        """Whether no date has such a day and month."""
        return not self._alternatives

    def match(self, local: int) -> int | None:
        """The first matching local time at or after `local`; None if there is none within 50 years or before 9999."""
        found = [m for alternative in self._alternatives if (m := _next(alternative, local)) is not None]
        return min(found, default=None)

    def next_after(self, after: int) -> int | None:
        # Between two changes of the offset, local and real time run side by side: one such stretch at a time.
        start = after + 1
        while start < _LATEST:
            found = self._in_stretch(start, offset(self._timezone, start))
            if found is None:
                return None
            # Far ahead only the changes just before the match can matter, and those just behind `start`: in between,
            # no local time that a change skips or repeats can match.
            far = found - start > 2 * _NEAR
            change = next_change(self._timezone, start, start + _NEAR if far else found)
            if change is not None:
                start = change.at
            elif far:
                start = found - _NEAR
            else:
                return found if found < _LATEST else None
        return None

    def _in_stretch(self, start: int, here: int) -> int | None:
        """The first instant from `start` on if the offset stayed what it is `here`; None if there is no match ever."""
        low = start + here
        moved = None
        if self._fixed and (change := last_change(self._timezone, start, _NEAR)) is not None:
            if change.after < change.before:
                low = max(low, change.at + change.before)  # the hour that comes twice has had its run
            else:
                moved = self._from_gap(start, change.at, change.before, change.after)
        local = self.match(low)
        regular = None if local is None else local - here
        return min((t for t in (moved, regular) if t is not None), default=None)

    def _from_gap(self, start: int, at: int, before: int, after: int) -> int | None:
        """Where the first local time of a gap that is still to come lies; None if there is none."""
        first = at + before
        if self._at_gap_end:
            local = self.match(first)
            return at if start <= at and local is not None and local < at + after else None
        local = self.match(max(first, start + before))
        return local - before if local is not None and local < at + after else None


def _next(matches: croniter[datetime], local: int) -> int | None:
    try:
        matches.set_current(_NAIVE_EPOCH + timedelta(seconds=local - 1), force=True)
        found = matches.get_next(datetime)
    except (CroniterBadDateError, OverflowError, ValueError):
        return None
    return (found - _NAIVE_EPOCH) // _SECOND


@dataclass(frozen=True)
class Schedule:
    """When a job is due. Equal schedules have equal keys; the key alone is enough to compute with."""

    text: str
    timezone: str
    kind: Literal["cron", "every", "at"]
    key: str
    _engine: _Engine = field(repr=False, compare=False)

    def next_after(self, after_ms: int) -> int | None:
        """The first occurrence strictly later than an instant, in ms; None if there is none. Time runs 1970-9998."""
        after = max(after_ms // 1000, -1)
        found = self._engine.next_after(after)
        return found * 1000 if found is not None and after < found < _LATEST else None

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
    if len(text) > MAX_SCHEDULE_LENGTH:
        raise InvalidSchedule(f"at most {MAX_SCHEDULE_LENGTH} characters")
    words = text.split()
    if not words:
        raise InvalidSchedule('must not be empty; write a cron expression such as "0 30 9 * * MON-FRI"')
    if timezone not in zone_names():
        message = f"'{timezone[:64]}' is not an IANA time zone; write one such as Europe/Berlin or UTC"
        raise InvalidSchedule(message, "timezone")
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


@lru_cache(maxsize=20_000)
def _cron(expression: str, timezone: str, text: str) -> Schedule:
    try:
        normal = normalise(expression)
    except InvalidCron as exc:
        raise InvalidSchedule(str(exc)) from exc
    try:
        engine = _engine(normal, timezone)
    except (CroniterError, ValueError, KeyError) as exc:
        raise InvalidSchedule(f"'{text}' cannot be read: {exc}") from exc
    if engine.never:
        raise InvalidSchedule(f"'{text}' never fires: no date has this day and month")
    return Schedule(text, timezone, "cron", f"cron|{normal}|{timezone}", engine)


@lru_cache(maxsize=10_000)
def _engine(normal: str, timezone: str) -> _Cron:
    return _Cron(normal, timezone)


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
        at = instants.parse_instant(" ".join(words))
    except ValueError as exc:
        raise InvalidSchedule(f"@at takes an instant: it {exc}") from exc
    if at % 1000:
        raise InvalidSchedule("@at takes whole seconds")
    return at // 1000
