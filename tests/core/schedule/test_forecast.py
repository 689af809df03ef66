"""The load forecast: requests per second, the busiest second, and what a spread does."""

from __future__ import annotations

from cluster.core.schedule.forecast import JobGroup, bars, forecast

T0 = 1_900_000_020_000 - 1_900_000_020_000 % 60_000


MINUTELY = "cron|0 * * * * *|UTC"


ALWAYS = "cron|* * * * * *|UTC"


def test_requests_are_counted_per_second_and_the_busiest_come_first() -> None:
    """Each job counts in each second it is due; ties go to the earlier second."""
    seen = forecast([JobGroup(MINUTELY, 0, 100), JobGroup(ALWAYS, 0, 3)], T0, 120, lambda: True)
    assert seen.per_second[:3] == [103, 3, 3]
    assert seen.busiest(2) == [(T0, 103), (T0 + 60_000, 103)]
    assert seen.buckets(60) == [280, 280]
    assert seen.jobs_not_counted == 0


def test_a_spread_is_even_and_counts_requests_due_before_the_start() -> None:
    """100 jobs over 60 s are 100/60 in every second, also in those before the first occurrence of the stretch."""
    seen = forecast([JobGroup(MINUTELY, 60, 120)], T0 + 30_000, 120, lambda: True)
    assert set(seen.per_second) == {2.0}


def test_a_spread_lowers_the_busiest_second() -> None:
    """100 at once over 10 s are 10 a second, over 50 s two."""
    seen = forecast([JobGroup(MINUTELY, 0, 100)], T0, 180, lambda: True)
    assert seen.busiest_if_spread(10) == 10
    assert seen.busiest_if_spread(50) == 2


def test_jobs_that_there_is_no_time_to_count_are_reported() -> None:
    """The largest groups are counted first."""
    turns = iter([True, False])
    seen = forecast([JobGroup(ALWAYS, 0, 1), JobGroup(MINUTELY, 0, 100)], T0, 60, lambda: next(turns))
    assert (seen.per_second[0], seen.jobs_not_counted) == (100, 1)


def test_bars_are_as_high_as_their_values() -> None:
    """The highest bar is full; a value of 0 is a space."""
    assert bars([0, 1, 8]) == " ▂█"
    assert bars([0, 0]) == "  "
