"""Cron syntax: what users may write, in one normal form that croniter reads the same way.

Seconds come first; five fields mean second 0. `?` is `*`, `N/step` means from N to the field's end (as Quartz; croniter
7 reads it as N alone), names become numbers. Whatever croniter would misread is refused here, with the field named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MONTHS = {
    n: i for i, n in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1)
}
DAYS = {n: i for i, n in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a cron expression: its name, its range, and the names it knows."""

    name: str
    least: int
    most: int
    names: dict[str, int]


FIELDS = (
    Field("second", 0, 59, {}),
    Field("minute", 0, 59, {}),
    Field("hour", 0, 23, {}),
    Field("day of month", 1, 31, {}),
    Field("month", 1, 12, MONTHS),
    Field("day of week", 0, 7, DAYS),
)
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
_NEAREST = re.compile(r"(?P<day>\d{1,2})W\Z", re.ASCII)


class BadCron(ValueError):
    """The expression cannot be read; the message names the field and the fix."""


def normalise(text: str) -> str:
    """Six space-separated fields, seconds first, in croniter's words. Raises `BadCron`."""
    words = text.upper().replace("?", "*").split()
    if len(words) == 5:
        words.insert(0, "0")
    if len(words) == 7:
        raise BadCron("seven fields were given; a year field is not known, use startAt and endAt instead")
    if len(words) != 6:
        raise BadCron(
            f"{len(words)} field(s) were given; write six (second minute hour day-of-month month day-of-week), "
            "or five without the second"
        )
    return " ".join(_field(FIELDS[i], word) for i, word in enumerate(words))


def _field(field: Field, word: str) -> str:
    parts = [_part(field, part) for part in word.split(",")]
    if len(parts) > 1 and any(p in ("L", "*") or "W" in p for p in parts):
        raise BadCron(f"{field.name}: '{word}' mixes '*', L or W with other values; write it alone")
    return ",".join(sorted(set(parts), key=_order))


def _order(part: str) -> tuple[int, str]:
    digits = re.match(r"\d+", part)
    return (int(digits[0]) if digits else -1, part)


def _part(field: Field, part: str) -> str:
    special = _special(field, part)
    if special is not None:
        return special
    match = _PART.match(part)
    if match is None:
        raise BadCron(f"{field.name}: '{part}' cannot be read; {_allowed(field)}")
    base, step = match["base"], match["step"]
    if step is not None and not 1 <= int(step) <= field.most:
        raise BadCron(f"{field.name}: the step in '{part}' must be 1 to {field.most}")
    if base == "*":
        return "*" if step in (None, "1") else f"*/{int(step)}"
    first, _, last = base.partition("-")
    low = _value(field, first, part)
    if not last:
        if step is None:
            return str(0 if field.names is DAYS and low == 7 else low)
        end = 6 if field.names is DAYS else field.most  # "N/step" runs to the field's end
        return f"{min(low, end)}-{end}/{int(step)}" if low < end else str(low)
    high = _value(field, last, part)
    if field.names is DAYS and low == 7:
        low = 0
    if low == high:
        return str(0 if field.names is DAYS and low == 7 else low)
    return f"{low}-{high}" + ("" if step in (None, "1") else f"/{int(step)}")


def _special(field: Field, part: str) -> str | None:
    """`L`, `15W`, `FRI#2`, `L5`: in croniter's words, or None if it is none of these."""
    if field.name == "day of month":
        if part == "L":
            return "L"
        if (match := _NEAREST.match(part)) and 1 <= int(match["day"]) <= 31:
            return f"{int(match['day'])}W"
        return None
    if field.name != "day of week":
        return None
    if match := _NTH.match(part):
        if not 1 <= int(match["n"]) <= 5:
            raise BadCron(f"{field.name}: in '{part}' the week must be 1 to 5")
        return f"{_value(field, match['day'], part) % 7}#{match['n']}"
    if match := _LAST_DAY.match(part):
        return f"L{int(match['day']) % 7}"
    if part.endswith("L") and len(part) > 1:
        raise BadCron(f"{field.name}: '{part}' cannot be read; for the last Friday of a month write L5")
    return None


def _value(field: Field, word: str, part: str) -> int:
    if word in field.names:
        return field.names[word]
    if not word.isdigit():
        raise BadCron(f"{field.name}: '{part}' cannot be read; {_allowed(field)}")
    value = int(word)
    if not field.least <= value <= field.most:
        raise BadCron(f"{field.name}: {value} is outside {field.least} to {field.most}")
    return value


def _allowed(field: Field) -> str:
    names = f" or {', '.join(field.names)}" if field.names else ""
    extra = {"day of month": ", L for the last day, 15W for the weekday nearest the 15th"}.get(field.name, "")
    if field.names is DAYS:
        extra = ", FRI#2 for the second Friday, L5 for the last one"
    return f"write *, numbers {field.least} to {field.most}{names}, ranges a-b, lists a,b, steps */n{extra}"
