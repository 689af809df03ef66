"""Occurrences per step are those that the schedule has."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.schedule.density import OccurrenceCounter, civil
from cluster.core.schedule.schedule import parse_schedule
from tests.support.examples import examples

ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns")
LINES = (
    "0 * * * * *", "*/10 * * * * *", "30 15 3 * * *", "0 30 2 * * *", "0 0 */6 * * *", "0 5,35 8-17 * * MON-FRI",
    "0 0 0 1 * *", "0 0 12 L * *", "0 0 9 * * FRI#2", "15 10 1 13 * FRI", "0 0 1 29 2 *", "0 0 9 15W * *", "@every 90s",
    "@every 7h", "@at 2026-03-29T00:30:00Z", "* 30 2 * * *", "0 0-59 1-3 * * *",
)  # fmt: skip


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def listed(key_of: tuple[str, str], start: int, end: int, step: int) -> dict[int, int]:
    found = parse_schedule(*key_of).between(start * 1000, end * 1000, 10**6)
    return dict(Counter((t // 1000 - start) // step for t in found))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("begin", "length", "step"),
    [
        ("2026-03-28T22:00", 7200, 10),
        ("2026-03-27T00:00", 3 * 86_400, 3600),
        ("2026-10-24T00:00", 86_400, 300),
        ("2026-11-10T06:00", 86_400, 900),
    ],
)
def test_counts_are_those_of_listing(zone: str, begin: str, length: int, step: int) -> None:
    """Also across changes of the clock, in zones with offsets of half an hour."""
    start = seconds(begin)
    counter = OccurrenceCounter(start, start + length, step)
    for line in LINES:
        if line.startswith("*/10") and length > 7200:  # listing takes long, not counting
            continue
        schedule = parse_schedule(line, zone)
        assert dict(counter.count(schedule.key)) == listed((line, zone), start, start + length, step), (line, zone)


@settings(max_examples=examples(25))
@given(
    second=st.sampled_from(["0", "*/20", "5,50"]),
    minute=st.sampled_from(["*", "0", "*/7", "10-12"]),
    hour=st.sampled_from(["*", "0", "2", "22-1", "*/5"]),
    days=st.sampled_from(["* * *", "13 * *", "* * SUN", "1,15 * MON", "31 * *", "* 2,3 *"]),
    zone=st.sampled_from(ZONES),
    day=st.integers(0, 400),
    step=st.sampled_from([60, 600, 3600, 86_400]),
)
def test_any_line_is_counted_as_it_is_listed(
    second: str, minute: str, hour: str, days: str, zone: str, day: int, step: int
) -> None:
    """Fields of all kinds."""
    start = seconds("2026-01-01") + day * 86_400
    end = start + 2 * max(step, 43_200)
    line = f"{second} {minute} {hour} {days}"
    key = parse_schedule(line, zone).key
    assert dict(OccurrenceCounter(start, end, step).count(key)) == listed((line, zone), start, end, step)


def test_a_year_of_a_line_that_is_due_each_second_is_counted_without_a_search() -> None:
    """The work follows the steps, not the occurrences."""
    start = seconds("2026-01-01")
    counter = OccurrenceCounter(start, start + 365 * 86_400, 86_400)
    counts = counter.count(parse_schedule("* * * * * *", "Europe/Berlin").key)
    assert sum(counts.values()) == 365 * 86_400
    assert counter.work < 20_000


@given(st.integers(-700_000, 2_000_000))
def test_days_of_the_calendar_are_known(day: int) -> None:
    """As Python's own calendar has them."""
    number = day + date(1970, 1, 1).toordinal()
    if 1 <= number <= date.max.toordinal():
        expected = date.fromordinal(number)
        assert civil(day) == (expected.year, expected.month, expected.day)
