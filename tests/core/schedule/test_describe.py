"""Schedules in words, and warnings about them."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given, settings

from cluster.core.schedule.describe import describe, warnings
from cluster.core.schedule.schedule import InvalidSchedule, parse_schedule
from tests.support.cron_texts import MONTH_DAYS, WEEK_DAYS, spelled
from tests.support.examples import examples

NOW = int(datetime.fromisoformat("2026-11-23T12:00:00Z").timestamp() * 1000)


def warned(text: str, timezone: str = "UTC") -> list[str]:
    schedule = parse_schedule(text, timezone)
    return warnings(schedule, schedule.between(NOW, NOW + 10**13, 5), NOW)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*/20 * * * * *", "every 20 seconds"),
        ("50/5 * * * * *", "at second 50, 55 of every minute"),
        ("5 */2 * * * *", "at second 5, every 2 minutes"),
        ("31 10-15 1 * * MON-FRI", "at second 31, at minute 10-15, at hour 1, on Mon-Fri"),
        ("0 0 9,13,17 * * *", "at 09:00:00, 13:00:00, 17:00:00"),
        ("0 */10 9-17 * * *", "every 10 minutes, at hour 9-17"),
        ("0 0 6 15,L * *", "at 06:00:00, on day 15 of the month or on the last day of the month"),
        ("0 0 7 25W * *", "at 07:00:00, on the weekday nearest to day 25"),
        ("0 0 7 */2 * *", "at 07:00:00, on day 1-31 in steps of 2 of the month"),
        ("0 0 10 * * TUE#1,THU#3", "at 10:00:00, on the first Tue, the third Thu of the month"),
        ("0 0 10 13 * FRI-SUN", "at 10:00:00, on day 13 of the month or on Fri-Sun"),
        ("0 0 8 LW * *", "at 08:00:00, on the last weekday of the month"),
        ("0 0 8 L-3 * *", "at 08:00:00, on 3 days before the last day of the month"),
        ("*/60 * * * *", "at minute 0, every hour"),
        ("0 0 8 10 */3 *", "at 08:00:00, on day 10 of the month, in Jan, Apr, Jul, Oct"),
    ],
)
def test_every_form_of_schedule_has_its_words(text: str, words: str) -> None:
    """In plain English, with the time zone."""
    assert describe(parse_schedule(text)) == f"{words} (UTC)"


@settings(max_examples=examples(150))
@given(spelled(0, 59, ()), spelled(0, 23, ()), MONTH_DAYS, WEEK_DAYS)
def test_every_accepted_schedule_has_a_description(minutes: str, hours: str, month_days: str, week_days: str) -> None:
    """No accepted schedule lacks a description."""
    try:
        schedule = parse_schedule(f"0 {minutes} {hours} {month_days} * {week_days}", "Europe/Berlin")
    except InvalidSchedule:
        return
    said = describe(schedule)
    assert said.endswith(" (Europe/Berlin)")
    assert "*" not in said
    assert "#" not in said
    warnings(schedule, schedule.between(NOW, NOW + 10**12, 3), NOW)


@pytest.mark.parametrize(
    ("text", "timezone", "words"),
    [
        (
            "0 30 2 * * *",
            "Europe/Berlin",
            ["the skipped time runs at that instant instead", "comes twice, the job runs once"],
        ),
        ("31 30 2 * * *", "America/New_York", ["runs 1 hour later instead"]),
        ("0 15 2 * * *", "Australia/Lord_Howe", ["runs at that instant instead"]),
        ("0 30 2 * * MON-FRI", "Europe/Berlin", []),  # clocks change on Sundays
        ("0 */5 2 * * *", "Europe/Berlin", []),  # follows real time
        ("0 0 12 * * *", "Europe/Berlin", []),
        ("0 0 0 31 1,3 *", "UTC", []),
        ("0 0 0 31 * *", "UTC", ["not every month has a day 31"]),
        ("0 0 0 * * FRI#5", "UTC", ["not every month has the fifth Fri; L5 is the last Fri of any month"]),
        ("0 0 0 13 * FRI", "UTC", ["either matches"]),
        ("0 0 0 */2 * FRI", "UTC", ["restricts; cron of Debian takes it as *"]),
        ("0 0 0 13 * */2", "UTC", ["restricts; cron of Debian takes it as *"]),
        ("0 0 0 31W * *", "UTC", ["not every month has a day 31, and then it does not run; LW"]),
        ("0 0 0 31W 1,3 *", "UTC", []),
        ("0 0 0 L-30 * *", "UTC", ["not every month"]),
        ("*/60 * * * *", "UTC", ["minute: the step in '*/60' is so wide that it fires once an hour, at 0"]),
        ("9 2-23/24 * * *", "UTC", ["hour: the step in '2-23/24' is so wide that it fires once a day, at 2"]),
        ("0 0 0 1/31 */12 *", "UTC", ["'1/31' is so wide", "'*/12' is so wide"]),
        ("0 15 10 ? * 6#3", "UTC", ["Sunday is 0 here, and 1 in Quartz and AWS"]),
        ("0 0 9 ? * 2-6", "UTC", ["names are the same"]),
        ("0 0 9 ? * MON-FRI", "UTC", []),
        ("0 0 9 * * 2-6", "UTC", []),
        ("@daily", "UTC", []),
        # Six fields without a sign of their dialect: they are read from second to weekday, and the warning says so.
        ("30 3 * * 1-5 *", "UTC", ["if the last one is meant as a year, write '30 3 * * 1-5'"]),
        ("0 9 * 1 1 *", "UTC", ["write '0 9 * 1 1'"]),
        ("0,30 8-18 * * 1,3,5 *", "UTC", ["write '0,30 8-18 * * 1,3,5'"]),
        ("0 2 * * * 0", "UTC", ["if the last one is meant as the second, write '0 0 2 * * *'"]),
        ("*/15 * * * * 0", "UTC", ["write '0 */15 * * * *'"]),
        ("0 0 * * 10 *", "UTC", []),
        ("0 0 9 * 1-5 *", "UTC", []),
        ("0 0 9 * * 0", "UTC", []),
        ("0 0 * * * MON", "UTC", []),
        ("0 0 0 29 2 *", "UTC", ["not every month", "more than a year ahead"]),
        ("* * 9 * * *", "UTC", ["3600 requests a day"]),
        ("@every 2s", "Europe/Berlin", ["43200 requests a day", "ignores the time zone"]),
        ("@at 2020-01-01T00:00:00Z", "UTC", ["is in the past"]),
        ("@at 2031-03-30T02:30:00", "Europe/Berlin", ["the skipped time runs at that instant instead"]),
        ("@at 2031-03-30T02:30:15", "Europe/Berlin", ["the skipped time runs 1 hour later instead"]),
        ("@at 2031-10-26T02:00", "Europe/Berlin", ["comes twice, the job runs once"]),
        ("@at 2031-10-26T03:00:00", "Europe/Berlin", []),
        ("@at 2031-03-30T02:30:00+01:00", "Europe/Berlin", []),
        ("@at 2031-03-30T03:00:00.5", "Europe/Berlin", []),
    ],
)
def test_each_surprise_has_one_warning(text: str, timezone: str, words: list[str]) -> None:
    """There is no other warning."""
    said = warned(text, timezone)
    assert len(said) == len(words), said
    for sentence, word in zip(said, words, strict=True):
        assert word in sentence
