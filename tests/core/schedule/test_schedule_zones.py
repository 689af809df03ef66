"""What schedules do around changes of offset, in every zone."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.core import zones
from cluster.core.schedule.schedule import parse_schedule
from tests.support.examples import examples
from tests.support.odd_zones import ODD_ZONES

if TYPE_CHECKING:
    from cluster.core.zones import OffsetChange

NAMES = sorted(zones.zone_names())


EARLY, LATE = 126_230_400, 3_000_000_000  # 1974, when the last odd seconds had gone, to 2065


DAY = 86_400


def changes(name: str) -> list[OffsetChange]:
    found = []
    at = EARLY
    while (change := zones.next_change(name, at, LATE)) is not None:
        found.append(change)
        at = change.at
    return found


def field(most: int) -> st.SearchStrategy[str]:
    one = st.integers(0, most)
    return st.one_of(
        one.map(str),
        st.just("*"),
        st.tuples(one, one).map(lambda p: f"{min(p)}-{max(p)}"),
        st.lists(one, min_size=2, max_size=4, unique=True).map(lambda v: ",".join(map(str, v))),
        st.integers(2, most // 2).map("*/{}".format),
    )


def values(text: str, most: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        base, _, step = part.partition("/")
        low, _, high = base.partition("-")
        first, last = (0, most) if base == "*" else (int(low), int(high or low))
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def walk(fields: list[str], change: OffsetChange, start: int, end: int) -> list[int]:
    """What is due in `[start, end)`, found by walking every minute of it and every minute that the change skips."""
    second, minute, hour, weekday = fields
    seconds = values(second, 59)
    minutes, hours, weekdays = values(minute, 59), values(hour, 23), values(weekday, 6)
    fixed = "*" not in minute + hour

    def matches(local: int) -> bool:
        at = datetime.fromtimestamp(local, UTC)
        return at.minute in minutes and at.hour in hours and at.isoweekday() % 7 in weekdays

    repeated = range(change.at, change.at + change.before - change.after)
    found = set()
    for t in range(start, end, 60):
        local = t + (change.before if t < change.at else change.after)
        if matches(local) and not (fixed and t in repeated):
            found |= {t + s for s in seconds}
    for local in range(change.at + change.before, change.at + change.after, 60):
        if fixed and matches(local):
            found |= {change.at} if second == "0" else {local - change.before + s for s in seconds}
    return sorted(t for t in found if start <= t < end)


@settings(max_examples=examples(150))
@given(st.data())
def test_around_any_change_of_any_zone_a_walk_finds_the_same(data: st.DataObject) -> None:
    """Star and fixed times, with and without seconds, are due as a walk over each minute says; the path is no matter."""
    name = data.draw(st.one_of(st.sampled_from(NAMES), st.sampled_from(ODD_ZONES)))
    known = changes(name)
    assume(known)
    change = data.draw(st.sampled_from(known))
    fields = [
        data.draw(st.sampled_from(["0", "0", "33", "5,40"])),
        data.draw(st.one_of(st.sampled_from(["0", "30"]), field(59))),
        data.draw(st.one_of(st.sampled_from(["0", "2", "1-3", "23"]), field(23))),
        data.draw(st.sampled_from(["*", "*", "0", "1-5"])),
    ]
    reach = max(2 * abs(change.after - change.before), 4 * 3600)
    start, end = change.at - reach, change.at + reach
    assume(zones.next_change(name, start - 2 * DAY, change.at - 1) is None)
    expected = walk(fields, change, start, end)
    second, minute, hour, weekday = fields
    schedule = parse_schedule(f"{second} {minute} {hour} * * {weekday}", name)
    assert [t // 1000 for t in schedule.between(start * 1000, end * 1000, 10**6)] == expected
    for after in data.draw(st.lists(st.integers(start, end - 1), max_size=5)):
        place = bisect_right(expected, after)
        found = schedule.next_after(after * 1000 + 7)
        if place < len(expected):
            assert found == expected[place] * 1000
        else:
            assert found is None or found >= end * 1000
        assert schedule.is_occurrence(after * 1000) == (after in expected)


@settings(max_examples=examples(75))
@given(
    st.tuples(field(59), field(59), field(23), st.just("*"), st.just("*"), field(6)).map(" ".join),
    st.sampled_from([*ODD_ZONES, "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
    st.integers(1_700_000_000, 1_900_000_000),
)
def test_away_from_changes_an_independent_engine_agrees(text: str, name: str, start: int) -> None:
    """Where clocks do not change, cronsim finds the same instants."""
    assume(not text.rpartition(" ")[2].startswith("*/"))
    assume(zones.next_change(name, start - 3 * DAY, start + 50 * DAY) is None)
    schedule = parse_schedule(text, name)
    oracle = CronSim(text, datetime.fromtimestamp(start, zones.zone(name)))
    t: int | None = start * 1000
    for _ in range(6):
        assert t is not None
        t = schedule.next_after(t)
        assert t == int(next(oracle).timestamp()) * 1000


@pytest.mark.parametrize("name", ["Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"])
def test_far_matches_do_not_depend_on_the_path(name: str) -> None:
    """Years without a match are leapt over; what lies behind them is the same from anywhere before it."""
    for text in ("0 30 2 29 2 *", "0 0 12 * 2 FRI#5", "33 30 2 28 3 *", "0 30 2 3 10 *"):
        schedule = parse_schedule(text, name)
        found = schedule.between(0, 4_000_000_000_000, 20)
        assert len(found) >= 3
        for last, t in zip([-1, *found], found, strict=False):
            for days in (0, 1, 3, 5, 9, 100, 363):
                after = max(last, t - timedelta(days=days) // timedelta(milliseconds=1) - 1)
                assert schedule.next_after(after) == t
