"""A schedule in words, and what may surprise its user. Pure: instants in, sentences out."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.core.cron_fields import DAYS, MONTHS
from cluster.core.instants import render
from cluster.core.zones import next_change, offset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.schedule import Schedule

_DAY_NAMES = {v: k.capitalize() for k, v in DAYS.items()}
_MONTH_NAMES = {v: k.capitalize() for k, v in MONTHS.items()}
_UNITS = (("d", 86_400, "day"), ("h", 3600, "hour"), ("m", 60, "minute"), ("s", 1, "second"))
_YEAR = 366 * 86_400
OFTEN_SECONDS = 10


def describe(schedule: Schedule) -> str:
    """One sentence that says when it is due."""
    kind, first, second = (*schedule.key.split("|"), "")[:3]
    if kind == "at":
        return f"once, at {render(int(first) * 1000)}"
    if kind == "every":
        return f"every {_duration(int(first))}, on a grid that does not creep"
    seconds, minutes, hours, month_days, months, week_days = first.split(" ")
    words = [_time(seconds, minutes, hours)]
    days = []
    if month_days != "*":
        days.append(f"on {_month_days(month_days)}")
    if week_days != "*":
        days.append(f"on {_week_days(week_days)}")
    if days:
        words.append(" or ".join(days))
    if months != "*":
        words.append(f"in {_list(months, _MONTH_NAMES, 'month')}")
    return f"{', '.join(words)} ({second})"


def _time(seconds: str, minutes: str, hours: str) -> str:
    if all(f.isdigit() for f in (seconds, minutes, hours)):
        return f"at {int(hours):02}:{int(minutes):02}:{int(seconds):02}"
    parts = []
    if seconds != "0" or minutes == "*":
        parts.append(_part(seconds, "second") if seconds != "0" else "")
    if minutes != "*":
        parts.append(_part(minutes, "minute"))
    elif seconds == "0":
        parts.append("every minute")
    if hours != "*":
        parts.append(_part(hours, "hour"))
    elif minutes.isdigit():
        parts.append("every hour")
    return ", ".join(p for p in parts if p)


def _part(field: str, unit: str) -> str:
    if field == "*":
        return f"every {unit}"
    if field.startswith("*/"):
        return f"every {field[2:]} {unit}s"
    return f"at {unit} {_list(field, {}, unit)}"


def _list(field: str, names: dict[int, str], unit: str) -> str:
    if field.startswith("*/"):
        return f"every {field[2:]}th {unit}"
    said = []
    for part in field.split(","):
        span, _, step = part.partition("/")
        words = [names.get(int(n), n) if n.isdigit() else n for n in span.split("-")]
        said.append("-".join(words) + (f" in steps of {step}" if step else ""))
    return ", ".join(said)


def _month_days(field: str) -> str:
    if field == "L":
        return "the last day of the month"
    if field.endswith("W"):
        return f"the weekday nearest to day {field[:-1]}"
    return f"day {_list(field, {}, 'day')} of the month"


def _week_days(field: str) -> str:
    said = []
    for part in field.split(","):
        if part.startswith("L"):
            said.append(f"the last {_DAY_NAMES[int(part[1:])]} of the month")
        elif "#" in part:
            day, _, n = part.partition("#")
            said.append(f"{_DAY_NAMES[int(day)]} number {n} of the month")
        else:
            said.append(_list(part, _DAY_NAMES, "day"))
    return ", ".join(said)


def _duration(seconds: int) -> str:
    said = []
    for _, size, name in _UNITS:
        n, seconds = divmod(seconds, size)
        if n:
            said.append(f"{n} {name}{'s' if n > 1 else ''}")
    return " ".join(said)


def warnings(schedule: Schedule, occurrences: Sequence[int], after_ms: int) -> list[str]:
    """What may surprise: `occurrences` are the next ones in ms, ascending."""
    said = []
    gaps = [b - a for a, b in pairwise(occurrences)]
    if gaps and min(gaps) < OFTEN_SECONDS * 1000:
        said.append(f"runs every {min(gaps) // 1000} s: {86_400_000 // min(gaps)} requests a day")
    if schedule.kind == "at" and not occurrences:
        said.append("lies in the past: it would never run")
    if schedule.kind != "cron":
        if schedule.kind == "every" and schedule.timezone != "UTC":
            said.append("an interval does not depend on the time zone")
        return said
    words = schedule.key.split("|")[1].split(" ")
    if words[3] != "*" and words[5] != "*":
        said.append("day of month and day of week are both restricted: it runs when either fits")
    if words[3].split("-")[0] in ("29", "30", "31"):
        said.append(f"not every month has a day {words[3]}; L is the last day of any month")
    if occurrences and occurrences[0] - after_ms > 366 * 86_400_000:
        said.append(f"its next run is more than a year away: {render(occurrences[0])}")
    return said + _moved(schedule, after_ms)


def _moved(schedule: Schedule, after_ms: int) -> list[str]:
    """The next two changes of the clocks, where they move or drop a fixed time."""
    _, expression, name = schedule.key.split("|")
    _, minute, hour, *_ = expression.split(" ")
    if minute.startswith("*") or hour.startswith("*"):
        return []
    said = []
    at = after_ms // 1000
    for _ in range(2):
        change = next_change(name, at, at + _YEAR)
        if change is None:
            break
        at = change.at + 1
        length = abs(change.after - change.before)
        for t in schedule.between((change.at - 2 * length) * 1000, (change.at + 2 * length) * 1000, 10):
            second = t // 1000
            if (
                change.after > change.before
                and change.at <= second < change.at + length
                and not _fits(expression, name, second)
            ):
                said.append(
                    f"clocks go forward at {render(change.at * 1000, name)}: the time in the gap runs then instead"
                )
                break
            if change.after < change.before and change.at - length <= second < change.at:
                said.append(f"clocks go back at {render(change.at * 1000, name)}: the time comes twice and runs once")
                break
    return said


def _fits(expression: str, name: str, second: int) -> bool:
    """Whether the local hour at an instant is one that the expression names; ranges and lists are read loosely."""
    hour = (second + offset(name, second)) // 3600 % 24
    for part in expression.split(" ")[2].split(","):
        span = part.partition("/")[0].split("-")
        if int(span[0]) <= hour <= int(span[-1]):
            return True
    return False
