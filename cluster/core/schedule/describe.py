"""A schedule in words, and warnings about it. Pure: instants in, sentences out."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.core.instants import format_instant, parse_local
from cluster.core.schedule.cron_syntax import (
    DAY,
    DAYS,
    FIELDS,
    HOUR,
    MINUTE,
    MONTH,
    MONTHS,
    SECOND,
    WEEKDAY,
    CronField,
    values_of,
    wide_steps,
)
from cluster.core.schedule.other_dialects import has_numbered_weekdays, other_reading
from cluster.core.schedule.schedule import schedule_from_key
from cluster.core.zones import OffsetChange, next_change

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.core.schedule.schedule import Schedule

_NAMES = {
    WEEKDAY.name: {v: k.capitalize() for k, v in DAYS.items()} | {7: "Sun"},
    MONTH.name: {v: k.capitalize() for k, v in MONTHS.items()},
}
_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
_ORDINALS = {"1": "first", "2": "second", "3": "third", "4": "fourth", "5": "fifth"}
_SHORTEST = {m: 28 if m == 2 else 30 if m in (4, 6, 9, 11) else 31 for m in range(1, 13)}
_YEAR, _DAY = 366 * 86_400, 86_400
_LISTED = 6
_TIMES = 4
FREQUENT_SECONDS = 10


def describe(schedule: Schedule) -> str:
    """One sentence that says when the schedule is due."""
    kind, first, second = (*schedule.key.split("|"), "")[:3]
    if kind == "at":
        seconds, _, ms = first.partition(".")
        return f"once, at {format_instant(int(seconds) * 1000 + int(ms or 0))}"
    if kind == "every":
        return f"every {_duration(int(first))}, on a fixed grid"
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
        words.append(f"in {_list(MONTH, values_of(MONTH, months))}")
    return f"{', '.join(words)} ({second})"


def _time(seconds: str, minutes: str, hours: str) -> str:
    every = [sorted(values_of(f, text)) for f, text in zip(FIELDS, (seconds, minutes, hours), strict=False)]
    if len(every[0]) * len(every[1]) * len(every[2]) <= _TIMES:
        times = [f"{h:02}:{m:02}:{s:02}" for h in every[2] for m in every[1] for s in every[0]]
        return f"at {', '.join(times)}"
    parts = []
    if seconds != "0":
        parts.append(_part(SECOND, seconds))
    if minutes != "*":
        parts.append(_part(MINUTE, minutes))
    elif seconds == "0":
        parts.append("every minute")
    elif "*" not in seconds:
        parts.append("of every minute")
    if hours != "*":
        parts.append(_part(HOUR, hours))
    elif len(every[1]) == 1:
        parts.append("every hour")
    return ", ".join(parts).replace(", of every", " of every")


def _part(field: CronField, text: str) -> str:
    if text == "*":
        return f"every {field.name}"
    values = values_of(field, text)
    if len(values) > 1 and text.startswith("*/") and text[2:].isdigit() and field.size % int(text[2:]) == 0:
        return f"every {text[2:]} {field.name}s"
    return f"at {field.name} {_list(field, values)}"


def _list(field: CronField, values: Collection[int]) -> str:
    """Values in words: `3, 7`, `Mon-Fri`, `1-31 in steps of 2`. A week that wraps around ends on Sunday."""
    names = _NAMES.get(field.name, {})
    if field is WEEKDAY and 0 in values and 6 in values:
        values = [v or 7 for v in values]
    ordered = sorted(values)
    steps = {b - a for a, b in pairwise(ordered)}
    if len(ordered) > _LISTED and len(steps) == 1 and steps != {1}:
        return f"{ordered[0]}-{ordered[-1]} in steps of {steps.pop()}"
    runs: list[list[int]] = []
    for v in ordered:
        if runs and v == runs[-1][-1] + 1:
            runs[-1].append(v)
        else:
            runs.append([v])
    parts: list[str] = []
    for run in runs:
        words = [names.get(v, str(v)) for v in run]
        parts += [f"{words[0]}-{words[-1]}"] if len(run) > 2 else words
    return ", ".join(parts)


def _month_days(text: str) -> str:
    if text == "LW":
        return "the last weekday of the month"
    if text.startswith("L-"):
        return f"{text[2:]} day{'' if text == 'L-1' else 's'} before the last day of the month"
    if text.endswith("W"):
        return f"the weekday nearest to day {text[:-1]}"
    parts = []
    if values := values_of(DAY, text):
        parts.append(f"day {_list(DAY, values)} of the month")
    if text == "L" or text.endswith(",L"):
        parts.append("the last day of the month")
    return " or on ".join(parts)


def _week_days(text: str) -> str:
    if values := values_of(WEEKDAY, text):
        return _list(WEEKDAY, values)
    names = _NAMES[WEEKDAY.name]
    parts = []
    for part in text.split(","):
        if part.startswith("L"):
            parts.append(f"the last {names[int(part[1:])]}")
        else:
            day, _, n = part.partition("#")
            parts.append(f"the {_ORDINALS[n]} {names[int(day)]}")
    return f"{', '.join(parts)} of the month"


def _duration(seconds: int) -> str:
    parts = []
    for name, size in _UNITS:
        n, seconds = divmod(seconds, size)
        if n:
            parts.append(f"{n} {name}{'s' if n > 1 else ''}")
    return " ".join(parts)


def warnings(schedule: Schedule, occurrences: Sequence[int], after_ms: int) -> list[str]:
    """Sentences about what may surprise the user. `occurrences`: the next ones (ms), ascending."""
    kind, first, *_ = schedule.key.split("|")
    if kind == "at":
        return _moved_once(schedule) if occurrences else ["is in the past: it would never run"]
    sentences = []
    gaps = [b - a for a, b in pairwise(occurrences)]
    if gaps and min(gaps) < FREQUENT_SECONDS * 1000:
        sentences.append(f"runs every {min(gaps) // 1000} s at times: {_per_day(kind, first)} requests a day")
    if kind == "every":
        if schedule.timezone != "UTC":
            sentences.append("an interval ignores the time zone")
        return sentences
    *_, month_days, months, week_days = first.split(" ")
    if month_days != "*" and week_days != "*":
        sentence = "day of month and day of week are both restricted: it runs when either matches"
        if month_days.startswith("*/") or week_days.startswith("*/"):
            sentence += " (a step such as */2 restricts; cron of Debian takes it as * and wants both)"
        sentences.append(sentence)
    if has_numbered_weekdays(schedule.text.split()):
        sentences.append(
            "day of week: Sunday is 0 here, and 1 in Quartz and AWS, where ? comes from; names are the same"
        )
    if other := other_reading(schedule.text):
        sentences.append(other)
    sentences += _wide(schedule.text)
    sentences += _rare(month_days, months, week_days)
    if occurrences and occurrences[0] - after_ms > _YEAR * 1000:
        sentences.append(f"its next run is more than a year ahead: {format_instant(occurrences[0])}")
    return sentences + _moved(schedule, after_ms)


def _per_day(kind: str, first: str) -> int:
    if kind == "every":
        return 86_400 // int(first)
    seconds, minutes, hours, *_ = first.split(" ")
    return len(values_of(SECOND, seconds)) * len(values_of(MINUTE, minutes)) * len(values_of(HOUR, hours))


_CYCLES = {
    "second": "a minute",
    "minute": "an hour",
    "hour": "a day",
    "day of month": "a month",
    "month": "a year",
    "day of week": "a week",
}


def _wide(text: str) -> list[str]:
    """Sentences about steps that leave one value. An alias has none."""
    if text.lstrip().startswith("@"):
        return []
    return [
        f"{field}: the step in '{part}' is so wide that it fires once {_CYCLES[field]}, at {value}"
        for field, part, value in wide_steps(text)
    ]


def _rare(month_days: str, months: str, week_days: str) -> list[str]:
    """Sentences about days that some months of the schedule do not have."""
    sentences = []
    days = values_of(DAY, month_days)
    if month_days[:-1].isdigit() and any(_SHORTEST[m] < int(month_days[:-1]) for m in values_of(MONTH, months)):
        sentences.append(
            f"not every month has a day {month_days[:-1]}, and then it does not run; LW is the last weekday of any month"
        )
    if month_days.startswith("L-") and any(_SHORTEST[m] <= int(month_days[2:]) for m in values_of(MONTH, months)):
        sentences.append(f"not every month has a day {month_days[2:]} days before its last one")
    if days and "L" not in month_days and any(_SHORTEST[m] < min(days) for m in values_of(MONTH, months)):
        sentences.append(f"not every month has a day {_list(DAY, days)}; L is the last day of any month")
    if "#5" in week_days and all(part.endswith("#5") for part in week_days.split(",")):
        fifth, last = _week_days(week_days).removesuffix(" of the month"), week_days.split("#", maxsplit=1)[0]
        sentences.append(
            f"not every month has {fifth}; L{last} is the last {_NAMES[WEEKDAY.name][int(last)]} of any month"
        )
    return sentences


def _moved(schedule: Schedule, after_ms: int) -> list[str]:
    """Sentences about clock changes within a year that move or repeat a fixed time."""
    _, expression, name = schedule.key.split("|")
    second, minute, hour, *_ = expression.split(" ")
    if "*" in minute or "*" in hour:
        return []
    local = schedule_from_key(f"cron|{expression}|UTC")  # the local times of the schedule
    sentences = []
    at = after_ms // 1000
    end = at + _YEAR
    while (change := next_change(name, at, end)) is not None:
        at = change.at
        first, last = sorted((change.at + change.before, change.at + change.after))
        if local.between(first * 1000, last * 1000, 1):
            sentences.append(_change(name, change, moved_by=0 if second == "0" else change.after - change.before))
    return sentences


def _moved_once(schedule: Schedule) -> list[str]:
    """A sentence about a local time that clock changes skip or repeat."""
    local = parse_local(" ".join(schedule.text.split()[1:]))
    if local is None:
        return []
    change = next_change(schedule.timezone, local[0] - _DAY, local[0] + _DAY)
    if change is None:
        return []
    first, behind = sorted((change.at + change.before, change.at + change.after))
    if not first <= local[0] < behind:
        return []
    moved_by = 0 if local[0] % 60 == 0 else change.after - change.before
    return [_change(schedule.timezone, change, moved_by=moved_by)]


def _change(name: str, change: OffsetChange, moved_by: int) -> str:
    when = format_instant(change.at * 1000, name)
    if change.after < change.before:
        return f"clocks go back at {when}: the time comes twice, the job runs once"
    how = f"{_duration(moved_by)} later" if moved_by else "at that instant"
    return f"clocks go forward at {when}: the skipped time runs {how} instead"
