"""Schedules: from a text and a time zone to the instants at which a job is due. The only module that names croniter.

croniter only sees naive local times. This module maps them to instants, as Debian's cron does:

* A schedule with `*` in the minute or hour field (including `*/n`) follows real time: it has no occurrence in a gap, and
  it runs in both passes of a repeated hour.
* Any other time that falls into a gap runs when the gap ends. A time that comes twice runs the first time only.
* A time in a gap with a second other than 0 is moved by the length of the gap instead: the recorded behaviour excludes
  the end of the gap, and the run must not be lost.

Every instant is a whole second, in ms since 1970, but for that of an `@at` with milliseconds. All functions are pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

from croniter import CroniterBadDateError, CroniterError, croniter

from cluster.core import instants
from cluster.core.errors import CallerError
from cluster.core.schedule.calendar_days import CALENDAR_PREFIX, exclusion_of, same_exclusion
from cluster.core.schedule.cron_syntax import ALIASES, HOUR, MINUTE, MONTH, InvalidCron, normalise, values_of
from cluster.core.schedule.excluding import Excluding
from cluster.core.schedule.fixed_times import AFTER_KEY, ConstantInterval, NoInstant, OneInstant
from cluster.core.schedule.month_days import MonthDay
from cluster.core.schedule.other_dialects import hint, with_a_zone, without_command
from cluster.core.zones import instant_of, last_change, next_change, offset, same_times, zone_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.core.schedule.calendar_days import Exclusion
    from cluster.core.schedule.cron_syntax import CronField
    from cluster.core.schedule.excluding import Engine

MAX_SCHEDULE_LENGTH = 256
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - croniter is fed naive local times, on purpose
_SECOND = timedelta(seconds=1)
_LATEST = instants.LATEST_MS // 1000
_YEAR_2000 = 946_684_800
_DAY_SECONDS = 86_400
_NEAR = 4 * 86_400
"""More than the largest difference of two offsets (26 h) and the longest gap or repeated stretch (24 h) together."""
_DURATION = re.compile(r"(\d+)([smhd])", re.ASCII)
_PROPOSED = re.compile(r"write '([^']*)'")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class InvalidSchedule(CallerError):
    """The schedule or its time zone is not valid. `field` names which, `message` says how to correct it."""

    def __init__(self, message: str, field_name: Literal["schedule", "timezone"] = "schedule") -> None:
        self.field = field_name
        self.message = message
        super().__init__(f"{field_name}: {message}")


class _Cron:
    """A cron expression in normal form, in one zone. Local times are naive seconds since 1970-01-01 00:00 local.

    Not safe for several threads: croniter objects keep a position.
    """

    def __init__(self, expression: str, timezone: str) -> None:
        self._timezone = timezone
        second, minute, hour, day, month, weekday = expression.split(" ")
        self._fixed = "*" not in minute and "*" not in hour
        self._at_gap_end = second == "0"
        time = f"{second} {_stepless(MINUTE, minute)} {_stepless(HOUR, hour)}"
        # Either day field is enough. croniter requires both if one of them has W or #, and reads thirty days with L as
        # every day. So it gets one day field at a time.
        month_days = [day] if day == "L" else [day.removesuffix(",L")] + ["L"] * day.endswith(",L")
        days = [(d, "*") for d in month_days if d != "*" or weekday == "*"]
        days += [("*", weekday)] if weekday != "*" else []
        alternatives: list[_Matcher] = []
        for d, w in days:
            if d.endswith("W") or d.startswith("L-"):
                alternatives.append(_OnMonthDay(time, MonthDay(d, values_of(MONTH, month))))
            else:
                alternatives.append(_Croniter(f"{time} {d} {month} {w}"))
        # A date that does not exist (30 February) is searched for once, here. 2000 is a leap year: it has the 29th.
        self._alternatives = [a for a in alternatives if a.match(_YEAR_2000) is not None]

    @property
    def never(self) -> bool:
        """Whether no date has this day and month."""
        return not self._alternatives

    def match(self, local: int) -> int | None:
        """The first matching local time at or after `local`. None if there is none within 50 years or before 9999."""
        matches = [m for alternative in self._alternatives if (m := alternative.match(local)) is not None]
        return min(matches, default=None)

    def next_after(self, after: int) -> int | None:
        # Between two changes of the offset, local time and real time advance together: one such stretch at a time.
        start = after + 1
        while start < _LATEST:
            match = self._in_stretch(start, offset(self._timezone, start))
            if match is None:
                return None
            # If the match is far ahead, only the changes just after `start` and just before the match can matter: in
            # between, no local time matches, so none that a change skips or repeats.
            far = match - start > 2 * _NEAR
            change = next_change(self._timezone, start, start + _NEAR if far else match)
            if change is not None:
                start = change.at
            elif far:
                start = match - _NEAR
            else:
                return match if match < _LATEST else None
        return None

    def _in_stretch(self, start: int, offset_seconds: int) -> int | None:
        """The first instant from `start` on if the offset never changed again. None if there is no match."""
        low = start + offset_seconds
        moved = None
        if self._fixed and (change := last_change(self._timezone, start, _NEAR)) is not None:
            if change.after < change.before:
                low = max(low, change.at + change.before)  # the times of the repeated hour ran in its first pass
            else:
                moved = self._from_gap(start, change.at, change.before, change.after)
        local = self.match(low)
        regular = None if local is None else local - offset_seconds
        return min((t for t in (moved, regular) if t is not None), default=None)

    def _from_gap(self, start: int, at: int, before: int, after: int) -> int | None:
        """The instant of the first local time in a gap whose run is at or after `start`. None if there is none."""
        first = at + before
        if self._at_gap_end:
            local = self.match(first)
            return at if start <= at and local is not None and local < at + after else None
        local = self.match(max(first, start + before))
        return local - before if local is not None and local < at + after else None


def _stepless(field: CronField, text: str) -> str:
    """A star with a step as wide as its field as the number it stands for: croniter refuses the step."""
    return str(field.least) if text == f"*/{field.size}" else text.replace(f",*/{field.size}", "")


class _Matcher(Protocol):
    def match(self, local: int) -> int | None:
        """The first matching local time at or after `local`. None if there is none within 50 years or before 9999."""


class _Croniter:
    """What croniter reads as it should be read."""

    def __init__(self, expression: str) -> None:
        self._matches = croniter(expression, _NAIVE_EPOCH, ret_type=datetime, second_at_beginning=True)

    def match(self, local: int) -> int | None:
        try:
            self._matches.set_current(_NAIVE_EPOCH + timedelta(seconds=local - 1), force=True)
            match = self._matches.get_next(datetime)
        except (CroniterBadDateError, OverflowError, ValueError):
            return None
        return (match - _NAIVE_EPOCH) // _SECOND


class _OnMonthDay:
    """Times on the day of each month that a rule names. croniter moves 31W to the end of a short month."""

    def __init__(self, time: str, day: MonthDay) -> None:
        self._day = day
        self._times = _Croniter(f"{time} * * *")

    def match(self, local: int) -> int | None:
        for midnight in self._day.days_from(local // _DAY_SECONDS):
            start = midnight * _DAY_SECONDS
            found = self._times.match(max(local, start))
            if found is None or found < start + _DAY_SECONDS:
                return found
        return None


@dataclass(frozen=True)
class Schedule:
    """When a job is due. Equal schedules have equal keys, and `schedule_from_key` restores a schedule from its key."""

    text: str
    timezone: str
    kind: Literal["cron", "every", "at", "after"]
    key: str
    _engine: Engine = field(repr=False, compare=False)
    exclusion: Exclusion | None = None
    """What its calendar leaves out or moves. None: it has none."""
    _ms: int = 0
    """So much later than a whole second its occurrence is: of an `@at` only."""

    def means_the_same_as(self, other: Schedule) -> bool:
        """Whether both have the same occurrences, however they are written: `24h` for `1d`, `Etc/UTC` for `UTC`."""
        if self.key == other.key:
            return True
        if self.exclusion is not None or other.exclusion is not None:
            return same_exclusion(self.exclusion, other.exclusion) and self.regular.means_the_same_as(other.regular)
        mine, others = self.key.split("|"), other.key.split("|")
        return self.kind == other.kind == "cron" and mine[1] == others[1] and same_times(mine[2], others[2])

    @property
    def regular(self) -> Schedule:
        """The same schedule without its calendar."""
        return self if self.exclusion is None else schedule_from_key(self.key.split("|", 2)[2])

    def excluding(self, exclusion: Exclusion | None) -> Schedule:
        """The same schedule with a calendar. A release that knows no calendars cannot read its key, and leaves it alone."""
        if exclusion is None:
            return self
        key = f"{CALENDAR_PREFIX}{exclusion.text}|{self.key}"
        return replace(self, key=key, _engine=Excluding(self._engine, exclusion), exclusion=exclusion)

    def next_after(self, after_ms: int) -> int | None:
        """The first occurrence (ms) after an instant. None if there is none between 1970 and 9998."""
        after = max((after_ms - self._ms) // 1000, -1)
        following = self._engine.next_after(after)
        return following * 1000 + self._ms if following is not None and after < following < _LATEST else None

    def between(self, start_ms: int, end_ms: int, limit: int) -> list[int]:
        """The occurrences t with `start_ms <= t < end_ms`, ascending, at most `limit`."""
        occurrences: list[int] = []
        for t in self._from(start_ms):
            if t >= end_ms or len(occurrences) >= limit:
                break
            occurrences.append(t)
        return occurrences

    def _from(self, start_ms: int) -> Iterator[int]:
        t = self.next_after(start_ms - 1)
        while t is not None:
            yield t
            t = self.next_after(t)

    def is_occurrence(self, due_ms: int) -> bool:
        """Whether it is due at exactly this instant."""
        return due_ms % 1000 == self._ms and self.next_after(due_ms - 1) == due_ms


def parse_schedule(text: str, timezone: str = "UTC", anchor_ms: int = 0) -> Schedule:
    """The schedule in a user's text. `@every` counts from `anchor_ms`. Raises `InvalidSchedule`."""
    if len(text) > MAX_SCHEDULE_LENGTH:
        raise InvalidSchedule(f"must have at most {MAX_SCHEDULE_LENGTH} characters")
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
        return _at(text, timezone, _instant(words[1:], timezone))
    if kind.startswith("@"):
        if kind in ALIASES and words[1:]:
            raise InvalidSchedule(with_a_zone(words) or without_command(words[0]))
        if kind not in ALIASES:
            raise InvalidSchedule(f"'{text}' is unknown; use {', '.join(ALIASES)}, @every 90s or @at <RFC 3339 time>")
        return _cron(ALIASES[kind], timezone, text)
    return _cron(" ".join(words), timezone, text)


@lru_cache(maxsize=20_000)
def schedule_from_key(key: str) -> Schedule:
    """The schedule of a key. Its `text` is the normal form."""
    if key.startswith(CALENDAR_PREFIX):
        _, exclusion, regular = key.split("|", 2)
        return schedule_from_key(regular).excluding(exclusion_of(exclusion))
    kind, first, second = (*key.split("|"), "")[:3]
    if kind == "after":
        return Schedule("", "UTC", "after", AFTER_KEY, NoInstant())
    if kind == "every":
        return _every(f"@every {first}s", "UTC", int(first), int(second))
    if kind == "at":
        seconds, _, ms = first.partition(".")
        return _at(f"@at {first}", "UTC", int(seconds) * 1000 + int(ms or 0))
    return _cron(first, second, first)


@lru_cache(maxsize=20_000)
def _cron(expression: str, timezone: str, text: str) -> Schedule:
    try:
        if (instead := hint(expression)) is not None:
            raise InvalidSchedule(instead + _fault_of_proposal(instead))
        normal = normalise(expression)
    except InvalidCron as exc:
        raise InvalidSchedule(str(exc)) from exc
    try:
        engine = _engine(normal, timezone)
    except (CroniterError, ValueError, KeyError) as exc:
        raise InvalidSchedule(f"'{text}' is not valid: {exc}") from exc
    if engine.never:
        raise InvalidSchedule(f"'{text}' never fires: no date has this day and month")
    return Schedule(text, timezone, "cron", f"cron|{normal}|{timezone}", engine)


def _fault_of_proposal(sentence: str) -> str:
    """What is wrong with the schedule that a sentence says to write; empty if it is accepted."""
    proposed = _PROPOSED.search(sentence)
    try:
        if proposed is not None:
            parse_schedule(proposed[1])
    except InvalidSchedule as exc:
        return f". There: {exc.message}"
    return ""


@lru_cache(maxsize=10_000)
def _engine(normal: str, timezone: str) -> _Cron:
    return _Cron(normal, timezone)


def _every(text: str, timezone: str, interval: int, phase: int) -> Schedule:
    return Schedule(text, timezone, "every", f"every|{interval}|{phase}", ConstantInterval(interval, phase))


def _at(text: str, timezone: str, instant_ms: int) -> Schedule:
    instant, ms = divmod(instant_ms, 1000)
    # A whole second keeps the key that releases before this one gave it.
    key = f"at|{instant}.{ms:03d}" if ms else f"at|{instant}"
    return Schedule(text=text, timezone=timezone, kind="at", key=key, _engine=OneInstant(instant), _ms=ms)


def _interval(words: list[str]) -> int:
    text = "".join(words).lower()
    parts = _DURATION.findall(text)
    if not parts or "".join(n + unit for n, unit in parts) != text:
        raise InvalidSchedule("@every must be whole seconds, minutes, hours and days, such as 90s or 1h30m")
    seconds = sum(int(n) * _UNITS[unit] for n, unit in parts)
    if not 1 <= seconds <= 366 * 86_400:
        raise InvalidSchedule("@every must be from 1s to 366d")
    return seconds


def _instant(words: list[str], timezone: str) -> int:
    """The instant after `@at`, ms."""
    text = " ".join(words)
    try:
        local = instants.parse_local(text)
        return instants.parse_instant(text) if local is None else instant_of(timezone, local[0]) * 1000 + local[1]
    except ValueError as exc:
        message = f"the time after @at {exc}"
        if message.endswith(instants.EXAMPLES):
            message += ", or without an offset as a local time of timezone, such as 2026-12-01T10:00:00"
        raise InvalidSchedule(message) from exc
