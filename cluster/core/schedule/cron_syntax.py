"""Cron syntax: from the text of a user to one normal form that croniter reads in the same way.

Seconds come first; five fields mean second 0. `?` is `*` in the two day fields and stands nowhere else. `N/step` means
from N to the field's end (as in Quartz; croniter 7 reads it as N only). A step may be as wide as its field. Names become numbers, and ranges that wrap around become lists. Each field is parsed into
the set of its values and written from that set, so that equal schedules have equal texts. An expression that croniter
would misread is refused here; the message names the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

MONTHS = {
    n: i for i, n in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1)
}
DAYS = {n: i for i, n in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}


@dataclass(frozen=True, slots=True)
class CronField:
    """One field of a cron expression: its name, its range, and the names of its values. Sunday may be written 7."""

    name: str
    least: int
    most: int
    names: dict[str, int]

    @property
    def size(self) -> int:
        """The number of values."""
        return self.most - self.least + 1


SECOND = CronField("second", 0, 59, {})
MINUTE = CronField("minute", 0, 59, {})
HOUR = CronField("hour", 0, 23, {})
DAY = CronField("day of month", 1, 31, {})
MONTH = CronField("month", 1, 12, MONTHS)
WEEKDAY = CronField("day of week", 0, 6, DAYS)
FIELDS = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)
ALIASES = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}

_PART = re.compile(r"(?P<base>\*|\w+(?:-\w+)?)(?:/(?P<step>\d+))?\Z", re.ASCII)
_NTH = re.compile(r"(?P<day>\w+)#(?P<n>\d)\Z", re.ASCII)
_LAST_DAY = re.compile(r"L(?P<day>[0-7])\Z")
_BEFORE_LAST = re.compile(r"L-(?P<days>\d{1,2})\Z", re.ASCII)
_NEAREST = re.compile(r"(?P<day>\d{1,2})W\Z", re.ASCII)


class InvalidCron(ValueError):
    """The expression is not valid. The message names the field and the correction."""


@dataclass(frozen=True, slots=True)
class _Read:
    """One parsed field: its values, the steps of its stars (1 for `*` itself), and its L, W and # parts, which no set
    of values can express.
    """

    values: frozenset[int]
    stars: tuple[int, ...] = ()
    special: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        return 1 in self.stars


def normalise(text: str) -> str:
    """The normal form: six space-separated fields, seconds first, in croniter's syntax. Raises `InvalidCron`."""
    words = _six(text)
    if len(words) == 7:
        raise InvalidCron("has seven fields; a year field is not supported, use startAt and endAt instead")
    if len(words) != 6:
        raise InvalidCron(
            f"has {len(words)} field(s); write six (second minute hour day-of-month month day-of-week), "
            "or five without the second"
        )
    words = [_open(f, word) for f, word in zip(FIELDS, words, strict=True)]
    second, minute, hour, day, month, weekday = (_read(f, word) for f, word in zip(FIELDS, words, strict=True))
    # With a star in either field the schedule follows real time; therefore 0-59 and * differ (see schedule.py).
    real_time = bool(minute.stars or hour.stars)
    if any(not d.open and len(d.values) == f.size for f, d in ((DAY, day), (WEEKDAY, weekday))):
        day = weekday = _Read(frozenset(), (1,))  # one field fits every day, and either field is enough
    return " ".join(
        (
            _write(SECOND, second, stars=True),
            _write(MINUTE, minute, stars=real_time),
            _write(HOUR, hour, stars=real_time),
            _write(DAY, day, stars=True),
            _write(MONTH, month, stars=True),
            _write(WEEKDAY, weekday, stars=True),
        )
    )


def wide_steps(text: str) -> list[tuple[str, str, int]]:
    """The parts of an expression whose step leaves one value, as `(field, part, value)`: `*/60`, `2-23/24`."""
    steps: list[tuple[str, str, int]] = []
    for field, word in zip(FIELDS, _six(text), strict=False):
        for part in word.split(","):
            if "/" in part and _special(field, part) is None:
                _, first, last, step = _split(field, part)
                values = _span(field, first, last, step)
                if len(values) == 1:
                    steps.append((field.name, part, next(iter(values))))
    return steps


def _six(text: str) -> list[str]:
    words = text.upper().split()
    return ["0", *words] if len(words) == 5 else words


def _open(field: CronField, word: str) -> str:
    """The word of a field; `?` reads as `*` where it may stand."""
    if "?" not in word:
        return word
    if word == "?" and field in (DAY, WEEKDAY):
        return "*"
    raise InvalidCron(
        f"{field.name}: '{word}' is not valid; ? stands alone, and only in day of month or day of week. Write *"
    )


def values_of(field: CronField, text: str) -> frozenset[int]:
    """The values of one field of a normal form. L, W and # have none."""
    return _read(field, text).values


def _read(field: CronField, word: str) -> _Read:
    parts = word.split(",")
    special = tuple(sorted({s for part in parts if (s := _special(field, part)) is not None}))
    plain = [part for part in parts if _special(field, part) is None]
    exclusive = [s for s in special if s.endswith("W") or s.startswith("L-")] + [p for p in plain if p in ("*", "*/1")]
    if len(parts) > 1 and exclusive:
        raise InvalidCron(
            f"{field.name}: '{word}' combines '*', W or L- with other values; each of these must be the only value"
        )
    if special and plain and field is WEEKDAY:
        raise InvalidCron(f"{field.name}: '{word}' combines # or L with plain days; define two jobs instead")
    values: set[int] = set()
    stars = set()
    for part in plain:
        base, first, last, step = _split(field, part)
        # A star that leaves one value is that value, except where a star makes the schedule follow real time.
        if base == "*" and (step < field.size or field in (MINUTE, HOUR)):
            stars.add(step)
        values |= _span(field, first, last, step)
    return _Read(frozenset(values), tuple(sorted(stars)), special)


def _split(field: CronField, part: str) -> tuple[str, int, int, int]:
    """The base, the first value, the last value and the step of `*`, `*/n`, `a`, `a/n`, `a-b` or `a-b/n`."""
    match = _PART.match(part)
    if match is None:
        raise InvalidCron(f"{field.name}: '{part}' is not valid; {_allowed(field)}")
    base, step = match["base"], match["step"]
    if step is not None and not 1 <= int(step) <= field.size:
        raise InvalidCron(f"{field.name}: the step in '{part}' must be 1 to {field.size}{_instead_of_step(field)}")
    if base == "*":
        return base, field.least, field.most, int(step or 1)
    low, _, high = base.partition("-")
    first = _value(field, low, part)
    if high:
        return base, first, _value(field, high, part), int(step or 1)
    # "N/step" continues to the field's end. _span reads a first Sunday that is written 7 as 0.
    return base, first, field.most if step else first, int(step or 1)


def _span(field: CronField, first: int, last: int, step: int) -> set[int]:
    """The values from `first` to `last`. They wrap around the field's end if `last` is less than `first`."""
    if field is WEEKDAY and first == 7:
        first = 0 if last < 7 else 7
    end = last if first <= last else last + field.size
    return {(v - field.least) % field.size + field.least for v in range(first, end + 1, step)}


def _write(field: CronField, read: _Read, *, stars: bool) -> str:
    """The field in its normal form. `stars`: values that `*/n` names may be written as `*/n`."""
    if read.open:
        return "*"
    if read.stars:
        covered = {v for n in read.stars for v in range(field.least, field.most + 1, n)}
        parts = [f"*/{n}" for n in read.stars]
        return ",".join((*parts, *_list(sorted(read.values - covered)), *read.special))
    values = sorted(read.values)
    if stars and len(values) == field.size:
        return "*"
    if stars and len(values) > 1 and values[0] == field.least:
        step = values[1] - values[0]
        if field.size % step == 0 and values == list(range(field.least, field.most + 1, step)):
            return f"*/{step}"
    return ",".join((*_list(values), *read.special))


def _list(values: list[int]) -> list[str]:
    """Sorted values as `7`, `1` and `5`, `10-15` or `10-50/20`, whichever is shortest."""
    steps = {b - a for a, b in pairwise(values)}
    if len(values) > 2 and len(steps) == 1:
        step = steps.pop()
        return [f"{values[0]}-{values[-1]}" + (f"/{step}" if step > 1 else "")]
    runs: list[list[int]] = []
    for v in values:
        if runs and v == runs[-1][-1] + 1:
            runs[-1].append(v)
        else:
            runs.append([v])
    return [f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]


def _special(field: CronField, part: str) -> str | None:
    """`L`, `L-3`, `LW`, `15W`, `FRI#2` or `L5` in their normal form. None for any other part."""
    if field is DAY:
        if part in ("L", "LW"):
            return part
        if (match := _BEFORE_LAST.match(part)) and 1 <= int(match["days"]) <= 30:
            return f"L-{int(match['days'])}"
        if part.startswith("L") or part == "WL":
            raise InvalidCron(f"{field.name}: '{part}' is not valid; write L, LW, or L-1 to L-30")
        if (match := _NEAREST.match(part)) and 1 <= int(match["day"]) <= 31:
            return f"{int(match['day'])}W"
        return None
    if field is not WEEKDAY:
        return None
    if match := _NTH.match(part):
        if not 1 <= int(match["n"]) <= 5:
            raise InvalidCron(f"{field.name}: the week in '{part}' must be 1 to 5")
        return f"{_value(field, match['day'], part) % 7}#{match['n']}"
    if match := _LAST_DAY.match(part):
        return f"L{int(match['day']) % 7}"
    if part.endswith("L") and part[:-1] in DAYS:
        return f"L{DAYS[part[:-1]]}"
    if part.endswith("L") and len(part) > 1:
        raise InvalidCron(f"{field.name}: '{part}' is not valid; write L5 or FRIL for the last Friday of a month")
    return None


def _value(field: CronField, word: str, part: str) -> int:
    if word in field.names:
        return field.names[word]
    if not word.isdigit():
        raise InvalidCron(f"{field.name}: '{part}' is not valid; {_allowed(field)}")
    value = int(word)
    most = 7 if field is WEEKDAY else field.most
    if not field.least <= value <= most:
        raise InvalidCron(f"{field.name}: {value} must be {field.least} to {most}")
    return value


def _allowed(field: CronField) -> str:
    most = "6 (Sunday is 0)" if field is WEEKDAY else str(field.most)
    named = f" or {', '.join(field.names)}" if field.names else ""
    extra = ""
    if field is DAY:
        extra = ", L for the last day, L-3 for three days before it, LW for the last weekday, 15W for the weekday nearest 15"
    if field is WEEKDAY:
        extra = ", FRI#2 for the second Friday, L5 for the last one"
    return f"write *, numbers {field.least} to {most}{named}, ranges a-b, lists a,b, steps */n{extra}"


def _instead_of_step(field: CronField) -> str:
    """What people want who write a longer step."""
    if field is DAY:
        return (
            "; a step that never comes (`*/100,1-7 * MON`) stands for the first Monday elsewhere: "
            "write * in day of month, and MON#1 in day of week"
        )
    return "; for a longer interval write @every, such as @every 90m" if field in (SECOND, MINUTE, HOUR) else ""
