"""Schedules with a calendar: the engine beside the oracle of `horae verify`, which reads calendars by itself."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.instants import format_instant, parse_instant
from cluster.core.schedule.calendar_days import (
    ExcludedDays,
    Exclusion,
    days_of_text,
    excluded_days,
    exclusion_of,
)
from cluster.core.schedule.schedule import InvalidSchedule, parse_schedule, schedule_from_key
from cluster.core.verify.calendars import calendar_in, occurrences_with
from tests.support.examples import examples

DAY_MS = 86_400_000
START = (date(2027, 1, 1) - date(1970, 1, 1)).days
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe", "Africa/Cairo"]
SCHEDULES = [
    "0 30 9 * * *",
    "0 0 */6 * * *",
    "0 30 2 * * *",
    "15 30 2 * * *",
    "0 30 0 * * SUN",
    "0 15 0,23 1,15 * *",
    "0 0 9 * * MON-FRI",
    "@every 7h30m",
    "@at 2027-03-28T02:30:00",
    "0 0 12 L * *",
]
spans = st.lists(st.tuples(st.integers(0, 330), st.integers(0, 40)), max_size=6).map(
    lambda pairs: [(START + a, START + a + n) for a, n in pairs]
)
calendars = st.builds(
    excluded_days,
    spans,
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 28)), max_size=3),
    st.sets(st.integers(0, 6), max_size=4),
    st.sampled_from(["", *ZONES]),
)


@settings(max_examples=examples(120))
@given(
    st.sampled_from(SCHEDULES),
    st.sampled_from(ZONES),
    calendars,
    st.sampled_from(["skip", "next", "previous"]),
    st.integers(0, 340 * DAY_MS),
)
def test_the_engine_and_the_oracle_agree(text: str, zone: str, days: ExcludedDays, mode: str, start: int) -> None:
    """For any days, in any zones, across changes of the clocks; and a key keeps everything."""
    exclusion = Exclusion(mode, zone, days)  # type: ignore[arg-type] # one of the three
    schedule = parse_schedule(text, zone, 123_456_789).excluding(exclusion)
    assert exclusion_of(exclusion.text) == exclusion
    assert schedule_from_key(schedule.key).key == schedule.key
    from_ms = START * DAY_MS + start
    until_ms = from_ms + 9 * DAY_MS
    expected = list(occurrences_with(calendar_in(schedule.key), text, zone, 123_456_789, from_ms, until_ms))
    assert schedule.between(from_ms, until_ms, 10_000) == expected


@settings(max_examples=examples(200))
@given(calendars, st.integers(START - 10, START + 400))
def test_the_next_days_are_those_found_one_by_one(days: ExcludedDays, day: int) -> None:
    """The next included and the next excluded day; and the text of the days keeps them."""
    assert days_of_text(days.text) == days
    free = next((d for d in range(day, day + 2000) if not days.excludes(d)), None)
    assert days.included_from(day) == free
    taken = next((d for d in range(day, day + 2000) if days.excludes(d)), None)
    assert days.excluded_from(day) == taken


def _between(
    mode: str, text: str, days: ExcludedDays, after: str, count: int, zone: str = "Europe/Berlin"
) -> list[str]:
    schedule = parse_schedule(text, zone).excluding(Exclusion(mode, zone, days))  # type: ignore[arg-type]
    found = schedule.between(parse_instant(after), 2**52, count)
    return [format_instant(t, zone)[:19] for t in found]


def _day(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def test_what_is_moved_keeps_its_local_time_over_a_change_of_the_clocks() -> None:
    """The weekend of the change is excluded; Monday's and Saturday's 07:30 are one."""
    weekend = excluded_days([], weekdays=[5, 6])
    moved = _between("next", "0 30 7 * * *", weekend, "2027-03-26T12:00:00Z", 2)
    assert moved == ["2027-03-29T07:30:00", "2027-03-30T07:30:00"]
    back = _between("previous", "0 45 7 * * SAT", weekend, "2027-10-28T00:00:00Z", 2)
    assert back == ["2027-10-29T07:45:00", "2027-11-05T07:45:00"]


def test_the_days_may_be_those_of_another_zone_than_the_jobs() -> None:
    """An excluded day in Auckland is not one in Berlin."""
    days = excluded_days([(_day("2027-06-10"), _day("2027-06-10"))], timezone="Pacific/Auckland")
    kept = _between("skip", "0 0 */6 * * *", days, "2027-06-09T12:00:00Z", 3)
    assert kept == ["2027-06-10T18:00:00", "2027-06-11T00:00:00", "2027-06-11T06:00:00"]


@pytest.mark.parametrize("mode", ["skip", "next", "previous"])
def test_a_search_is_bounded_if_everything_is_excluded(mode: str) -> None:
    """For ever, or on all days of the schedule."""
    everything = excluded_days([], weekdays=range(7))
    assert _between(mode, "* * * * * *", everything, "2027-01-01T00:00:00Z", 1) == []
    only_saturdays = excluded_days([], weekdays=[5])
    assert (_between(mode, "0 0 9 * * SAT", only_saturdays, "2027-01-01T00:00:00Z", 1) == []) == (mode == "skip")
    for_years = excluded_days([(_day("2027-01-01"), _day("2029-12-31"))])
    found = _between(mode, "0 0 9 5 1 *", for_years, "2027-01-01T00:00:00Z", 1)
    day = "2030-01-01" if mode == "next" else "2030-01-05"
    assert found == [f"{day}T09:00:00"], "moved by a year at most, and left out else"


def test_a_release_that_knows_no_calendars_cannot_read_the_key() -> None:
    """It leaves the row alone, instead of sending on excluded days: the first part is no cron expression."""
    key = parse_schedule("0 0 9 * * *").excluding(Exclusion("skip", "UTC", excluded_days([], weekdays=[5]))).key
    kind, first, second = key.split("|")[:3]
    assert (kind, second) == ("cal", "cron")
    with pytest.raises(InvalidSchedule):
        parse_schedule(first, second)
