"""Days, months and spellings: against an evaluator that asks each day in turn and knows nothing of croniter."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.schedule.schedule import InvalidSchedule, parse_schedule, schedule_from_key
from cluster.core.verify.oracle import occurrences
from tests.support.cron_texts import DAYS, MONTH_DAYS, MONTHS, WEEK_DAYS, spelled
from tests.support.examples import examples


def midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


@cache
def values(text: str, least: int, size: int, names: tuple[str, ...]) -> frozenset[int]:
    """Walk each part around the circle of the field's values."""
    found: set[int] = set()
    for part in text.split(","):
        base, _, step = part.partition("/")
        low, _, high = base.partition("-")
        first = least if base == "*" else names.index(low) if low in names else int(low)
        last = least + size - 1 if base == "*" or (step and not high) else first
        if high:
            last = names.index(high) if high in names else int(high)
        if last < first:
            first = (first - least) % size + least  # 7-2 is 0-2
            last += size if last < first else 0
        found |= {(v - least) % size + least for v in range(first, max(first, last) + 1, int(step or 1))}
    return frozenset(found)


def fits_month_day(text: str, day: date) -> bool | None:
    if text in ("*", "?"):
        return None
    last = calendar.monthrange(day.year, day.month)[1]
    if text.startswith("L-"):
        return day.day == last - int(text[2:])
    if text.endswith("W"):
        wanted = last if text == "LW" else int(text[:-1])
        if wanted > last:
            return False
        working = [d for d in range(1, last + 1) if day.replace(day=d).weekday() < 5]
        return day.day == min(working, key=lambda d: (abs(d - wanted), d))
    numbers = ",".join(part for part in text.split(",") if part != "L")
    return (numbers != text and day.day == last) or (numbers != "" and day.day in values(numbers, 1, 31, ()))


def fits_week_day(text: str, day: date) -> bool | None:
    if text in ("*", "?"):
        return None
    weekday = day.isoweekday() % 7
    if "#" in text:
        pairs = [part.split("#") for part in text.split(",")]
        known = {(DAYS.index(name) if name in DAYS else int(name) % 7, int(n)) for name, n in pairs}
        return (weekday, (day.day - 1) // 7 + 1) in known
    if text.startswith("L"):
        last = (day + timedelta(days=7)).month != day.month
        return last and weekday in {int(part[1:]) % 7 for part in text.split(",")}
    return weekday in values(text, 0, 7, DAYS)


def fits(month_days: str, months: str, week_days: str, day: date) -> bool:
    if months != "*" and day.month not in values(months, 1, 12, MONTHS):
        return False
    answers = [a for a in (fits_month_day(month_days, day), fits_week_day(week_days, day)) if a is not None]
    return any(answers) if answers else True


@settings(max_examples=examples(55))
@given(
    MONTH_DAYS, st.one_of(st.just("*"), spelled(1, 12, MONTHS)), WEEK_DAYS, st.dates(date(1990, 1, 1), date(2060, 1, 1))
)
def test_days_agree_with_asking_each_day(month_days: str, months: str, week_days: str, start: date) -> None:
    """Lists, names, wrapped ranges, steps, L, W, #, both kinds of day: as written, and from the row's key.

    As the key alone gives what the text asks for, schedules that share a key are due at the same instants.
    """
    text = f"0 0 0 {month_days} {months} {week_days}"
    try:
        schedule = schedule_from_key(parse_schedule(text).key)
    except InvalidSchedule as refused:
        assert "never fires" in refused.message  # noqa: PT017 - the only refusal that is right here
        assert not any(fits(month_days, months, week_days, date(2000, 1, 1) + timedelta(days=n)) for n in range(1462))
        return
    end = start + timedelta(days=800)
    expected = [d for n in range(800) if fits(month_days, months, week_days, d := start + timedelta(days=n))]
    assert schedule.between(midnight(start), midnight(end), 1000) == [midnight(d) for d in expected]
    assert parse_schedule(schedule.text).key == schedule.key, "the normal form is its own normal form"


@settings(max_examples=examples(90))
@given(spelled(0, 59, ()), spelled(0, 59, ()), spelled(0, 23, ()))
def test_times_agree_with_asking_each_second(seconds: str, minutes: str, hours: str) -> None:
    """Seconds, minutes and hours, however they are spelled."""
    parts = ((seconds, 60), (minutes, 60), (hours, 24))
    s, m, h = (sorted(values(text, 0, size, ())) for text, size in parts)
    expected = [((hour * 60 + minute) * 60 + second) * 1000 for hour in h for minute in m for second in s]
    schedule = schedule_from_key(parse_schedule(f"{seconds} {minutes} {hours} * * *").key)
    assert schedule.between(0, 86_400_000, 300) == expected[:300]


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "Pacific/Kiritimati"])
@pytest.mark.parametrize(
    "text", ["* * * * * *", "0 30 2 * * *", "0 0 0 29 2 *", "@every 7s", "@at 2030-01-01T00:00:00Z"]
)
def test_no_occurrence_is_outside_1970_to_9998(text: str, timezone: str) -> None:
    """Nothing is due before 1970 or from 9999 on, and no instant is too far away to ask about."""
    schedule = parse_schedule(text, timezone)
    # The oracle knows nothing of the engine's limits, so an instant before 1970 would be its first one too.
    first = next(occurrences(text, timezone, 0, -10 * 86_400_000, 10**14))
    if first < 0:
        first = next(occurrences(text, timezone, 0, 0, 10**14))
    for before in (-1, -(10**6), -(10**18)):
        assert schedule.next_after(before) == first
    assert schedule.between(-(10**12), 0, 5) == []
    for late in (253_370_764_799_000, 253_370_764_800_000, 10**18):
        assert schedule.next_after(late) is None
        assert schedule.between(late, late + 10**6, 5) in ([], [late])
