"""Schedules: syntax, daylight saving, and properties against independent engines."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.core.schedule.schedule import InvalidSchedule, Schedule, parse_schedule, schedule_from_key
from cluster.core.zones import zone
from tests.support.examples import examples

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "cron_dst_debian.json").read_text())["vectors"]


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def following(schedule: Schedule, after_ms: int, count: int) -> list[str]:
    found: list[str] = []
    for _ in range(count):
        then = schedule.next_after(after_ms)
        if then is None:
            break
        after_ms = then
        found.append(datetime.fromtimestamp(then / 1000, zone(schedule.timezone)).isoformat())
    return found


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_schedules_run_as_in_debians_cron_at_clock_changes(vector: dict[str, Any]) -> None:
    """The runs of Debian's cron at changes of daylight saving time, as recorded."""
    schedule = parse_schedule(vector["schedule"], vector["timezone"])
    assert following(schedule, ms(vector["after"]), len(vector["next"])) == vector["next"]


@pytest.mark.parametrize(
    ("text", "timezone", "after", "expected"),
    [
        # in the gap: once, at its end; all that fall into it together
        (
            "0 30 2 * * *",
            "America/New_York",
            "2021-03-13T12:00:00-05:00",
            ["2021-03-14T03:00:00-04:00", "2021-03-15T02:30:00-04:00"],
        ),
        (
            "0 0,15,30 2 * * *",
            "America/New_York",
            "2021-03-14T01:00:00-05:00",
            ["2021-03-14T03:00:00-04:00", "2021-03-15T02:00:00-04:00"],
        ),
        (
            "0 30 1,2,3 * * *",
            "America/New_York",
            "2021-03-14T01:00:00-05:00",
            ["2021-03-14T01:30:00-05:00", "2021-03-14T03:00:00-04:00", "2021-03-14T03:30:00-04:00"],
        ),
        # with seconds: moved by the length of the gap, so nothing is lost
        (
            "31 30 2 * * *",
            "America/New_York",
            "2021-03-13T12:00:00-05:00",
            ["2021-03-14T03:30:31-04:00", "2021-03-15T02:30:31-04:00"],
        ),
        (
            "31 10,50 2,3 * * *",
            "America/New_York",
            "2021-03-14T01:00:00-05:00",
            ["2021-03-14T03:10:31-04:00", "2021-03-14T03:50:31-04:00", "2021-03-15T02:10:31-04:00"],
        ),
        # twice: the first time only
        (
            "0 30 1 * * *",
            "America/New_York",
            "2021-11-06T12:00:00-04:00",
            ["2021-11-07T01:30:00-04:00", "2021-11-08T01:30:00-05:00"],
        ),
        (
            "31 30 1 * * *",
            "America/New_York",
            "2021-11-06T12:00:00-04:00",
            ["2021-11-07T01:30:31-04:00", "2021-11-08T01:30:31-05:00"],
        ),
        ("0 30 1 * * *", "America/New_York", "2021-11-07T01:30:00-05:00", ["2021-11-08T01:30:00-05:00"]),
        ("0 30 1 * * *", "America/New_York", "2021-11-07T01:10:00-05:00", ["2021-11-08T01:30:00-05:00"]),
        # half an hour, midnight, and a whole day
        ("0 15 2 * * *", "Australia/Lord_Howe", "2021-10-02T12:00:00+10:30", ["2021-10-03T02:30:00+11:00"]),
        (
            "0 0 0 * * *",
            "Asia/Beirut",
            "2022-03-26T12:00:00+02:00",
            ["2022-03-27T01:00:00+03:00", "2022-03-28T00:00:00+03:00"],
        ),
        (
            "0 0 12 * * *",
            "Pacific/Apia",
            "2011-12-29T13:00:00-10:00",
            ["2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"],
        ),
        (
            "0 0 * * * *",
            "Pacific/Apia",
            "2011-12-29T22:00:00-10:00",
            ["2011-12-29T23:00:00-10:00", "2011-12-31T00:00:00+14:00"],
        ),
        # a zone that changes twice around Ramadan
        (
            "0 30 2 * * *",
            "Africa/Casablanca",
            "2023-04-22T12:00:00+00:00",
            ["2023-04-23T03:00:00+01:00", "2023-04-24T02:30:00+01:00"],
        ),
    ],
)
def test_daylight_saving_moves_or_repeats_times_as_documented(
    text: str, timezone: str, after: str, expected: list[str]
) -> None:
    """A fixed time in a gap runs once at its end, a fixed time that comes twice runs once."""
    assert following(parse_schedule(text, timezone), ms(after), len(expected)) == expected


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("31 10-15 1 * * MON-FRI", "2026-11-20T01:14:31Z", ["2026-11-20T01:15:31+00:00", "2026-11-23T01:10:31+00:00"]),
        ("*/20 * * * * *", "2026-01-01T00:00:00Z", ["2026-01-01T00:00:20+00:00", "2026-01-01T00:00:40+00:00"]),
        ("30 9 * * *", "2026-01-01T00:00:00Z", ["2026-01-01T09:30:00+00:00"]),
        (
            "50/5 * * * * *",
            "2026-01-01T00:00:00Z",
            ["2026-01-01T00:00:50+00:00", "2026-01-01T00:00:55+00:00", "2026-01-01T00:01:50+00:00"],
        ),
        ("0 0 22-2 ? * *", "2026-01-01T01:00:00Z", ["2026-01-01T02:00:00+00:00", "2026-01-01T22:00:00+00:00"]),
        ("0 0 0 L * *", "2026-02-01T00:00:00Z", ["2026-02-28T00:00:00+00:00", "2026-03-31T00:00:00+00:00"]),
        ("0 0 0 * * FRI#2", "2026-01-01T00:00:00Z", ["2026-01-09T00:00:00+00:00", "2026-02-13T00:00:00+00:00"]),
        ("0 0 0 * * L5", "2026-01-01T00:00:00Z", ["2026-01-30T00:00:00+00:00", "2026-02-27T00:00:00+00:00"]),
        ("0 0 0 15W * *", "2026-02-01T00:00:00Z", ["2026-02-16T00:00:00+00:00", "2026-03-16T00:00:00+00:00"]),
        ("0 0 0 13 * FRI", "2026-11-07T00:00:00Z", ["2026-11-13T00:00:00+00:00", "2026-11-20T00:00:00+00:00"]),
        ("0 0 0 29 2 *", "2026-01-01T00:00:00Z", ["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]),
        ("@hourly", "2026-01-01T00:00:00Z", ["2026-01-01T01:00:00+00:00"]),
        ("@Weekly", "2026-01-01T00:00:00Z", ["2026-01-04T00:00:00+00:00"]),
        ("@at 2026-12-01T10:00:00Z", "2026-01-01T00:00:00Z", ["2026-12-01T10:00:00+00:00"]),
        ("@at 2026-12-01T10:00:00+02:00", "2026-01-01T00:00:00Z", ["2026-12-01T08:00:00+00:00"]),
        ("@at 2026-12-01T10:00:00Z", "2026-12-01T10:00:00Z", []),
        ("@at 2026-12-01T10:00:00.5Z", "2026-12-01T10:00:00Z", ["2026-12-01T10:00:00.500000+00:00"]),
        ("@at 2026-12-01T10:00:00.123", "2026-12-01T10:00:00.122Z", ["2026-12-01T10:00:00.123000+00:00"]),
        ("@at 2026-12-01T10:00:00.123Z", "2026-12-01T10:00:00.123Z", []),
        ("@every 90s", "1970-01-01T00:00:00Z", ["1970-01-01T00:01:30+00:00", "1970-01-01T00:03:00+00:00"]),
        ("@every 1h30m", "1970-01-01T00:00:00Z", ["1970-01-01T01:30:00+00:00"]),
    ],
)
def test_the_next_occurrences_are_those_of_the_expression(text: str, after: str, expected: list[str]) -> None:
    """Seconds first, five fields mean second 0, Quartz steps, names, wrapped ranges, L, #, W, aliases."""
    assert following(parse_schedule(text), ms(after), max(1, len(expected))) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@at 2030-02-30T00:00:00Z", "the time after @at is not a valid time: day is out of range for month"),
        ("@at 2030-01-01T24:00:00", "the time after @at is not a valid time: hour must be in 0..23"),
        ("@at 2030-01-01T10:00:00+25:00", "the time after @at is not a valid time: the offset must be less than a day"),
    ],
)
def test_a_time_that_does_not_exist_is_refused_in_one_sentence(text: str, message: str) -> None:
    """Without the forms that could be written instead: the form is right."""
    with pytest.raises(InvalidSchedule) as caught:
        parse_schedule(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("* * * *", "4 field"),
        ("0 0 0 1 1 * 2027", "year"),
        ("60 * * * * *", "second: 60"),
        ("0 60 * * * *", "minute: 60"),
        ("0 0 24 * * *", "hour: 24"),
        ("0 0 0 0 * *", "day of month: 0"),
        ("0 0 0 * 13 *", "month: 13"),
        ("0 0 0 * * 8", "day of week: 8"),
        ("0 0 0 * FOO *", "month: 'FOO'"),
        ("0 */0 * * * *", "step"),
        ("0 */70 * * * *", "step"),
        ("0 0 0 * * MON#6", "week in 'MON#6' must be 1 to 5"),
        ("0 0 0 * * 5L", "L5"),
        ("0 0 0 30 2 *", "never fires"),
        ("0 0 0 31 2,4,6,9,11 *", "never fires"),
        ("0 0 0 15W,1 * *", "combines"),
        ("0 *,5 * * * *", "combines"),
        ("0 0 0 * * MON,FRI#2", "two jobs"),
        ("0 0 0 L-31 * *", "day of month"),
        ("@fortnightly", "unknown"),
        ("@every", "whole second"),
        ("@every 0s", "1s to 366d"),
        ("@every 1.5s", "whole second"),
        ("@every -5s", "whole second"),
        ("@at tomorrow", "the time after @at"),
        ("@at 2026-12-01T10", "offset"),
        ("* " * 200, "characters"),
        ("0 0 0 ١ * *", "day of month"),
        ("a" * 100, "1 field"),
        ("0 0 0 1-2-3 * *", "day of month"),
        ("0 H * * * *", "minute"),
        ("0 0 0 * * *;", "day of week"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused_with_a_sentence(text: str, words: str) -> None:
    """The message names the field and the correction."""
    with pytest.raises(InvalidSchedule) as caught:
        parse_schedule(text)
    assert words in caught.value.message
    assert caught.value.field == "schedule"


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "Europe/Berlin\0", "europe"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    """The field is named as `timezone`."""
    with pytest.raises(InvalidSchedule) as caught:
        parse_schedule("* * * * * *", name)
    assert caught.value.field == "timezone"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 0 9 ? * mon-fri", "0  0 9 * * 1-5"),
        ("@daily", "0 0 * * *"),
        ("0 0 0 * * 7", "0 0 0 * * SUN"),
        ("0 5,3 * * * *", "0 3,5 * * * *"),
        ("*/1 * * * * *", "* * * * * *"),
    ],
)
def test_equal_schedules_share_a_key(one: str, other: str) -> None:
    """A hundred thousand jobs on one schedule are one row."""
    assert parse_schedule(one).key == parse_schedule(other).key


def test_every_is_keyed_by_its_phase() -> None:
    """Jobs created at other times have other rows, those of the same phase share one."""
    assert parse_schedule("@every 60s", anchor_ms=5_000).key == parse_schedule("@every 1m", anchor_ms=64_100).key
    assert parse_schedule("@every 60s", anchor_ms=5_000).key != parse_schedule("@every 60s", anchor_ms=6_000).key
    assert parse_schedule("@every 60s", anchor_ms=4_001).next_after(0) == 5_000


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/St_Johns",
    "Asia/Beirut",
]


def numbers(least: int, most: int) -> st.SearchStrategy[str]:
    one = st.integers(least, most)
    return st.one_of(
        st.just("*"),
        one.map(str),
        st.lists(one, min_size=1, max_size=4, unique=True).map(lambda v: ",".join(map(str, v))),
        st.tuples(one, one).map(lambda p: f"{min(p)}-{max(p)}"),
        st.integers(2, max(2, most // 2)).map(lambda n: f"*/{n}"),
    )


EXPRESSIONS = st.tuples(
    numbers(0, 59), numbers(0, 59), numbers(0, 23), numbers(1, 28), numbers(1, 12), numbers(0, 6)
).map(" ".join)


INSTANTS = st.integers(ms("2024-01-01T00:00:00Z"), ms("2030-01-01T00:00:00Z"))


@settings(max_examples=examples(180))
@given(EXPRESSIONS, st.sampled_from(ZONES), INSTANTS)
def test_occurrences_only_grow_and_do_not_depend_on_the_path(text: str, timezone: str, start: int) -> None:
    """Strictly increasing; the same from any starting point; `between`, `is_occurrence` and the key agree."""
    schedule = parse_schedule(text, timezone)
    again = schedule_from_key(schedule.key)
    found: list[int] = []
    t = schedule.next_after(start)
    while t is not None and len(found) < 8:
        assert t > (found[-1] if found else start)
        assert t % 1000 == 0
        found.append(t)
        t = schedule.next_after(t)
    assert found
    for a, b in itertools.pairwise(found):
        assert again.next_after((a + b) // 2) == b
        assert again.next_after(b - 1) == b
    assert all(schedule.is_occurrence(t) for t in found)
    assert schedule.between(start + 1, found[-1], 100) == found[:-1]
    assert schedule.between(start + 1, found[-1] + 1, 3) == found[:3]


@settings(max_examples=examples(120))
@given(EXPRESSIONS, INSTANTS)
def test_utc_agrees_with_an_independent_engine(text: str, start: int) -> None:
    """In UTC there is nothing to interpret: cronsim finds the same instants."""
    *_, day, _month, weekday = text.split()
    assume(
        not (day.startswith("*/") or weekday.startswith("*/"))
    )  # Debian reads these as not restricted, croniter does
    schedule = parse_schedule(text)
    oracle = CronSim(text, datetime.fromtimestamp(start // 1000, UTC))
    t: int | None = start
    for _ in range(6):
        assert t is not None
        t = schedule.next_after(t)
        assert t == int(next(oracle).timestamp() * 1000)


TRANSITIONS = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
]


@settings(max_examples=examples(50))
@given(
    st.tuples(st.sampled_from(["0", "30", "*/20", "7,9"]), numbers(0, 59), numbers(0, 23)),
    st.sampled_from(TRANSITIONS),
)
def test_clock_changes_agree_with_brute_force(fields: tuple[str, str, str], change: tuple[str, str]) -> None:
    """Around a change of offset, against a walk over every second that knows nothing of croniter or of segments."""
    text = " ".join(fields) + " * * *"
    timezone, at = change
    start = ms(at) // 1000 - 3 * 3600
    end = start + 6 * 3600
    expected = brute_force(fields, timezone, start, end)
    assert [t // 1000 for t in parse_schedule(text, timezone).between(start * 1000, end * 1000, 100_000)] == expected


def values(field: str, most: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        base, _, step = part.partition("/")
        first, _, last = base.partition("-")
        low, high = (0, most) if base == "*" else (int(first), int(last or first))
        found |= set(range(low, high + 1, int(step or 1)))
    return found


@cache
def walked(timezone: str, start: int, end: int) -> list[tuple[int, datetime, bool, list[datetime]]]:
    """Every second with its local time, whether that was there before, and the local times that it has skipped.

    A margin before the window, so that what was seen before a repeated hour is known.
    """
    rules, second = zone(timezone), timedelta(seconds=1)
    seconds: list[tuple[int, datetime, bool, list[datetime]]] = []
    seen: set[datetime] = set()
    previous: datetime | None = None
    for t in range(start - 4 * 3600, end):
        local = datetime.fromtimestamp(t, rules).replace(tzinfo=None)
        skipped = []
        while previous is not None and (previous := previous + second) < local:
            skipped.append(previous)
        seconds.append((t, local, local in seen, skipped))
        seen.add(local)
        previous = local
    return seconds


def brute_force(fields: tuple[str, str, str], timezone: str, start: int, end: int) -> list[int]:
    seconds, minutes, hours = values(fields[0], 59), values(fields[1], 59), values(fields[2], 23)
    fixed = "*" not in fields[1] and "*" not in fields[2]

    def matches(local: datetime) -> bool:
        return local.second in seconds and local.minute in minutes and local.hour in hours

    found: set[int] = set()
    for t, local, again, skipped in walked(timezone, start, end):
        if fixed:
            into = (0 if fields[0] == "0" else n for n in range(len(skipped)))
            found |= {t + n for n, gone in zip(into, skipped, strict=True) if matches(gone)}
        if matches(local) and not (fixed and again):
            found.add(t)
    return sorted(t for t in found if start <= t < end)
