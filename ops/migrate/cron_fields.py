"""Fields of other schedulers' cron lines: read by their rules, written by Horae's.

A field is kept as it was written where Horae reads it in the same way; else its values are listed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cluster.core.schedule.cron_syntax import DAY, HOUR, MINUTE, MONTH, WEEKDAY, CronField, InvalidCron, values_of
from ops.migrate.translation import Untranslatable

_PART = re.compile(r"(?P<low>\*|\?|\w+)(?:-(?P<high>\w+))?(?:/(?P<step>\d+))?\Z", re.ASCII)
_WEEKS = [frozenset(range(1, 8)), frozenset(range(8, 15)), frozenset(range(15, 22)), frozenset(range(22, 29))]
_WEEKS.append(frozenset(range(29, 32)))
CRON_WEEKDAY = CronField("day of week", 0, 7, WEEKDAY.names)
EVERY_DAY = frozenset(range(1, 32))
EVERY_WEEKDAY = frozenset(range(7))


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a scheduler reads a field: the signs for all values, what `5/10` means, and whether 22-2 wraps around."""

    name: str
    open_signs: str = "*"
    single_step: bool = False
    """Whether `5/10` is 5-59/10. Where it is not, programs differ in what it means."""
    wraps: bool = False


CRON = Dialect("cron")
KUBERNETES = Dialect("Kubernetes", open_signs="*?", single_step=True)
EVENTBRIDGE = Dialect("EventBridge", single_step=True, wraps=True)


def read_field(field: CronField, text: str, dialect: Dialect) -> frozenset[int]:
    """The values of a field. Raises `Untranslatable`."""
    values: set[int] = set()
    for part in text.upper().split(","):
        values |= _read_part(field, part, dialect)
    return frozenset(values)


def _read_part(field: CronField, part: str, dialect: Dialect) -> set[int]:
    if "~" in part:
        raise Untranslatable(
            f"{field.name}: '{part}' is a random value that cron draws at each start; write a fixed one, and set "
            "spreadSeconds to spread the load"
        )
    match = _PART.match(part)
    is_open = match is not None and match["low"] in dialect.open_signs
    if match is None or (is_open and match["high"]) or (not is_open and match["low"] in "*?"):
        raise Untranslatable(f"{field.name}: {dialect.name} does not know '{part}'")
    step = int(match["step"] or 1)
    if step == 0:
        raise Untranslatable(f"{field.name}: the step in '{part}' must be 1 or more")
    if is_open:
        return set(range(field.least, field.most + 1, step))
    first = _value(field, match["low"], dialect)
    if match["high"]:
        last = _value(field, match["high"], dialect)
    elif match["step"] and not dialect.single_step:
        raise Untranslatable(
            f"{field.name}: programs differ in what '{part}' means; write '{match['low']}' or "
            f"'{match['low']}-{field.most}/{step}'"
        )
    else:
        last = field.most if match["step"] else first
    if first > last and not dialect.wraps:
        raise Untranslatable(f"{field.name}: {dialect.name} does not know '{part}', which ends before it begins")
    size = field.most - field.least + 1
    end = last if first <= last else last + size
    return {(v - field.least) % size + field.least for v in range(first, end + 1, step)}


def _value(field: CronField, word: str, dialect: Dialect) -> int:
    if word in field.names:
        return field.names[word]
    if not word.isdigit() or not field.least <= int(word) <= field.most:
        raise Untranslatable(f"{field.name}: {dialect.name} does not know '{word}'")
    return int(word)


def write_field(field: CronField, text: str, values: frozenset[int], *, star: bool) -> str:
    """The field in Horae's syntax. `star`: the schedule may follow real time by this field (minute and hour)."""
    kept = text.upper()
    try:
        if star == ("*" in kept) and "?" not in kept and values_of(field, kept) == values:
            return kept
    except InvalidCron:
        pass
    if star and len(values) == field.size:
        return "*"
    return list_values(values)


def list_values(values: frozenset[int]) -> str:
    """Values as `1,5-9`."""
    runs: list[list[int]] = []
    for v in sorted(values):
        if runs and v == runs[-1][-1] + 1:
            runs[-1].append(v)
        else:
            runs.append([v])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def cron_schedule(words: list[str]) -> str:
    """The schedule of the five fields of a crontab line. Raises `Untranslatable`.

    A field counts as open if it begins with `*`, `*/2` included: it says which clock the line follows, and whether one
    of the two day fields is enough or both must match.
    """
    minute, hour, day, month, weekday = words
    times = [
        write_field(f, word, read_field(f, word, CRON), star=word.startswith("*"))
        for f, word in ((MINUTE, minute), (HOUR, hour))
    ]
    months = write_field(MONTH, month, read_field(MONTH, month, CRON), star="*" in month)
    days = read_field(DAY, day, CRON)
    weekdays = frozenset(v % 7 for v in read_field(CRON_WEEKDAY, weekday, CRON))
    for name, word in (("day of month", day), ("day of week", weekday)):
        if "*" in word and not word.startswith("*"):
            raise Untranslatable(
                f"{name}: cron's manual and cron's programs differ in what '{word}' means; begin it with *, or leave "
                "the * away"
            )
    both = day.startswith("*") or weekday.startswith("*")
    if both and days != EVERY_DAY and weekdays != EVERY_WEEKDAY:
        return " ".join((*times, "*", months, _weeks(days, weekdays, day, weekday)))
    if both and days == EVERY_DAY:
        return " ".join((*times, "*", months, write_field(WEEKDAY, weekday, weekdays, star="*" in weekday)))
    if both:
        return " ".join((*times, write_field(DAY, day, days, star="*" in day), months, "*"))
    written = (write_field(DAY, day, days, star=False), months, write_field(WEEKDAY, weekday, weekdays, star=False))
    return " ".join((*times, *written))


def _weeks(days: frozenset[int], weekdays: frozenset[int], day: str, weekday: str) -> str:
    """Days that match both fields, as `MON#1` and the like: the first seven days hold the first Monday."""
    weeks = [number for number, week in enumerate(_WEEKS, 1) if week <= days]
    if frozenset().union(*(_WEEKS[number - 1] for number in weeks)) != days:
        raise Untranslatable(
            f"cron wants both day fields to match here, because one begins with *: day of month '{day}' and day of week "
            f"'{weekday}'. In Horae one of them is enough: choose one, or check the other in the program"
        )
    return ",".join(f"{w}#{number}" for number in weeks for w in sorted(weekdays))


def kubernetes_schedule(words: list[str]) -> str:
    """The schedule of the five fields of a CronJob. Raises `Untranslatable`."""
    written = []
    for field, word in zip((MINUTE, HOUR, DAY, MONTH, WEEKDAY), words, strict=True):
        values = read_field(field, word, KUBERNETES)
        # `*` or `?` among others opens the whole field; a step closes it again.
        parts = {part.removesuffix("/1") for part in word.replace("?", "*").split(",")}
        written.append("*" if "*" in parts else write_field(field, word.replace("?", "*"), values, star="*" in word))
    return " ".join(written)
