"""The auditor's own reading of schedules: right by the recorded vectors, and the same as the engine's on anything."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core import zones
from cluster.core.schedule.schedule import InvalidSchedule, parse_schedule
from cluster.core.verify.oracle import _times, occurrences
from tests.support.examples import examples
from tests.support.odd_zones import ODD_ZONES

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "cron_dst_debian.json").read_text())["vectors"]


HOUR, DAY = 3_600_000, 86_400_000


FROM, TO = 1_600_000_000, 1_950_000_000  # 2020 to 2031: rules are known, tables are not used up


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", *ODD_ZONES]


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_the_oracle_agrees_with_debians_cron(vector: dict[str, Any]) -> None:
    """Around clock changes it has the recorded runs of Debian's cron."""
    after = _ms(vector["after"])
    wanted = [_ms(t) for t in vector["next"]]
    found = occurrences(vector["schedule"], vector["timezone"], 0, after + 1, after + 400 * DAY)
    assert list(islice(found, len(wanted))) == wanted


def _field(least: int, most: int, names: list[str] | None = None) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    word = number.map(str) if names is None else st.one_of(number.map(str), st.sampled_from(names))
    step = st.integers(1, most - least + 1).map(str)
    part = st.one_of(
        word,
        st.tuples(word, word).map("-".join),
        st.tuples(word, step).map("/".join),
        st.tuples(word, word, step).map(lambda p: f"{p[0]}-{p[1]}/{p[2]}"),
        st.tuples(st.just("*"), step).map("/".join),
    )
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))


DAYS = st.one_of(
    _field(1, 31),
    st.just("L"),
    st.just("?"),
    st.integers(1, 31).map(lambda d: f"{d}W"),
    st.just("LW"),
    st.integers(1, 30).map(lambda d: f"L-{d}"),
    st.integers(1, 31).map(lambda d: f"{d},L"),
)


WEEKDAYS = st.one_of(
    _field(0, 7, ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]),
    st.tuples(st.integers(0, 7), st.integers(1, 5)).map(lambda p: f"{p[0]}#{p[1]}"),
    st.sampled_from(["FRIL", "L5", "L0", "L7", "MON#1,TUE#3", "?"]),
)


CRON = st.tuples(
    st.one_of(st.just("0"), _field(0, 59)),
    _field(0, 59),
    _field(0, 23),
    DAYS,
    st.one_of(st.just("*"), _field(1, 12, ["JAN", "FEB", "MAR", "JUL", "OCT", "DEC"])),
    WEEKDAYS,
).map(" ".join)


EVERY = st.tuples(st.integers(1, 5), st.sampled_from("smhd")).map(lambda p: f"@every {p[0]}{p[1]}")


ALIAS = st.sampled_from(["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@midnight", "@annually"])


def _disagreement(text: str, zone: str, anchor: int, start: int, width: int) -> str | None:
    try:
        schedule = parse_schedule(text, zone, anchor)
    except InvalidSchedule:
        return None
    engine = schedule.between(start, start + width, 300)
    end = engine[-1] + 1 if len(engine) == 300 else start + width
    oracle = list(islice(occurrences(text, zone, anchor, start, end), 301))
    return None if oracle == engine else f"{text} {zone} from {start}: {oracle[:5]} and not {engine[:5]}"


@settings(max_examples=examples(150))
@given(st.one_of(CRON, EVERY, ALIAS), st.sampled_from(ZONES), st.integers(FROM, TO), st.integers(0, 2**40))
def test_the_oracle_agrees_with_the_engine_at_any_time(text: str, zone: str, at: int, anchor: int) -> None:
    """For any accepted text and any zone."""
    assert _disagreement(text, zone, anchor, at * 1000 + 1, 3 * DAY) is None
    assert _disagreement(text, zone, anchor, at * 1000, HOUR) is None


@settings(max_examples=examples(75))
@given(CRON, st.sampled_from([*ODD_ZONES, "Europe/Berlin", "America/New_York"]), st.integers(FROM, TO))
def test_the_oracle_agrees_with_the_engine_around_clock_changes(text: str, zone: str, at: int) -> None:
    """On the days around a change of a zone's offset."""
    change = zones.next_change(zone, at, TO + 40_000_000)
    if change is not None:
        assert _disagreement(text, zone, 0, (change.at - 86_400) * 1000, 2 * DAY) is None


@settings(max_examples=examples(65))
@given(st.integers(0, 59), st.integers(0, 23), st.integers(1, 31), st.integers(0, 6), st.integers(FROM, TO))
def test_the_oracle_agrees_with_another_implementation(minute: int, hour: int, day: int, weekday: int, at: int) -> None:
    """With plain fields it agrees with cronsim, which shares no code with the engine or the oracle."""
    text = f"{minute} {hour} {day} * {weekday}"
    start = datetime.fromisoformat("1970-01-01") + timedelta(seconds=at)
    theirs = list(islice(CronSim(text, start), 5))
    found = islice(occurrences(text, "UTC", 0, at * 1000 + 1, at * 1000 + 400 * DAY), 5)
    epoch = datetime.fromisoformat("1970-01-01")
    assert [epoch + timedelta(milliseconds=t) for t in found] == theirs


def test_an_instant_is_due_once() -> None:
    """`@at` is one instant, whatever the zone, and nothing else."""
    at = _ms("2030-06-01T10:00:00+00:00")
    (due,) = parse_schedule("@at 2030-06-01T10:00:00.123Z").between(0, 2 * TO * 1000, 2)
    assert list(occurrences("@at 2030-06-01T10:00:00.123Z", "UTC", 0, due, due + 1)) == [due]
    assert list(occurrences("@at 2030-06-01T10:00:00.123Z", "UTC", 0, due - 5, due)) == []
    for text in ("@at 2030-06-01T10:00:00Z", "@at 2030-06-01T12:00:00+02:00"):
        assert list(occurrences(text, "Asia/Tokyo", 0, at - DAY, at + DAY)) == [at]
        assert list(occurrences(text, "UTC", 0, at + 1, at + DAY)) == []


LOCAL = st.datetimes(datetime.fromisoformat("2020-01-02"), datetime.fromisoformat("2030-12-30")).map(
    lambda t: t.isoformat(timespec="seconds")
)


@settings(max_examples=examples(50))
@given(LOCAL, st.sampled_from(ZONES))
def test_a_local_instant_is_the_same_for_both(text: str, zone: str) -> None:
    """`@at` without an offset, at any time."""
    (at,) = parse_schedule(f"@at {text}", zone).between(0, 2 * TO * 1000, 2)
    assert list(occurrences(f"@at {text}", zone, 0, at - 3 * DAY, at + 3 * DAY)) == [at]


@settings(max_examples=examples(40))
@given(st.sampled_from([*ODD_ZONES, "Europe/Berlin"]), st.integers(FROM, TO), st.integers(-90_000, 90_000))
def test_a_local_instant_near_a_clock_change_is_the_same_for_both(zone: str, at: int, away: int) -> None:
    """And the same as a cron expression for that second of that day."""
    change = zones.next_change(zone, at, TO + 40_000_000)
    if change is None:
        return
    local = datetime.fromisoformat("1970-01-01") + timedelta(seconds=change.at + change.before + away)
    text = local.isoformat(timespec="seconds")
    (due,) = parse_schedule(f"@at {text}", zone).between(0, 2 * TO * 1000, 2)
    assert list(occurrences(f"@at {text}", zone, 0, due - 3 * DAY, due + 3 * DAY)) == [due]
    cron = parse_schedule(f"{local:%-S %-M %-H %-d %-m} *", zone)
    assert cron.between(due - 3 * DAY, due + 3 * DAY, 3) == [due]


def test_the_times_of_a_day_take_little_memory() -> None:
    """Every second of a day takes 4 bytes, so that the cached schedules take 22 MB at most."""
    every = _times(tuple(range(24)), tuple(range(60)), tuple(range(60)))
    assert list(every) == list(range(86_400))
    most = _times.cache_info().maxsize
    assert most is not None
    assert memoryview(every).nbytes * most < 23_000_000
