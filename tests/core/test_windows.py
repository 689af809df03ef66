"""Maintenance windows: when they are in force, for which jobs, and what they do to an execution."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.core.instants import parse_instant
from cluster.core.windows import (
    HoldingWindow,
    Planned,
    SkippingWindow,
    Subject,
    Window,
    WindowPeriod,
    WindowSpan,
    decide,
    held_ms,
    muted_by,
)

T = parse_instant("2030-01-06T02:30:00Z")  # a Sunday
HOUR = 3_600_000
NIGHT = Window("night", "hold", tags=("billing",), schedule="0 0 2 * * SUN", lasts_ms=2 * HOUR, spread_ms=30_000)
ONCE = Window("once", "skip", hosts=("api.example.com",), from_ms=T, until_ms=T + HOUR)
BILLING = Subject(("billing",), "api.example.com:443", "mail")
DUE = Planned(T, T, attempted=False, asked_ms=None)


def test_a_window_is_in_force_from_its_beginning_to_before_its_end() -> None:
    """One that recurs, and one that comes once."""
    begin = T - HOUR // 2
    assert NIGHT.span_at(T) == WindowSpan(begin, begin + 2 * HOUR)
    assert NIGHT.span_at(begin) is not None
    assert NIGHT.span_at(begin - 1) is None
    assert NIGHT.span_at(begin + 2 * HOUR) is None
    assert (ONCE.span_at(T - 1), ONCE.span_at(T + HOUR)) == (None, None)
    assert ONCE.span_at(T) == WindowSpan(T, T + HOUR)


@pytest.mark.parametrize(
    ("window", "concerned"),
    [
        (NIGHT, True),
        (replace(NIGHT, tags=("other",)), False),
        (replace(NIGHT, tags=(), hosts=("api.example.com",)), True),
        (replace(NIGHT, tags=(), hosts=("api.example.com:443",)), True),
        (replace(NIGHT, tags=(), hosts=("example.com",)), False),
        (replace(NIGHT, tags=(), queues=("mail",)), True),
        (replace(NIGHT, tags=("other",), queues=("mail",)), True),
    ],
)
def test_a_window_concerns_jobs_with_one_of_its_tags_hosts_or_queues(window: Window, concerned: bool) -> None:
    """A host without a port means every port."""
    assert window.concerns(BILLING) is concerned


def test_what_is_due_in_a_window_is_held_or_skipped() -> None:
    """What was under way before a window that skips waits for its end; what a person asks for within one is sent."""
    assert decide([NIGHT], BILLING, DUE, T) == HoldingWindow(NIGHT, WindowSpan(T - HOUR // 2, T + 3 * HOUR // 2))
    assert decide([ONCE], BILLING, DUE, T) == SkippingWindow(ONCE)
    assert decide([ONCE], BILLING, DUE, T + 2 * HOUR) == SkippingWindow(ONCE), "caught up late"
    retry = Planned(T + 60_000, T - 60_000, attempted=True, asked_ms=None)
    assert decide([ONCE], BILLING, retry, T) == HoldingWindow(ONCE, WindowSpan(T, T + HOUR))
    before = Planned(T - 5000, T - 5000, attempted=False, asked_ms=None)
    assert decide([ONCE], BILLING, before, T) == HoldingWindow(ONCE, WindowSpan(T, T + HOUR))
    assert decide([ONCE, NIGHT], BILLING, replace(DUE, asked_ms=T), T) is None
    asked_before = replace(DUE, asked_ms=T - HOUR)
    assert decide([ONCE, NIGHT], BILLING, asked_before, T) == decide([NIGHT], BILLING, DUE, T)
    assert decide([NIGHT], BILLING, Planned(T + 2 * HOUR, T + 2 * HOUR, attempted=False, asked_ms=None), T) is None
    ahead = Planned(NIGHT.span_at(T).from_ms, T, attempted=False, asked_ms=None)  # type: ignore[union-attr]
    assert isinstance(decide([NIGHT], BILLING, ahead, ahead.send_ms - 500), HoldingWindow), (
        "prepared shortly before it begins"
    )


def test_what_was_held_leaves_spread_over_the_time_after_the_end() -> None:
    """The same name leaves at the same time."""
    span = WindowSpan(T, T + HOUR)
    times = [NIGHT.leaves_ms(span, f"batch-{n}") - span.to_ms for n in range(200)]
    assert 0 <= min(times) < 3000
    assert 27_000 < max(times) < 30_000
    assert times[0] == NIGHT.leaves_ms(span, "batch-0") - span.to_ms


def test_a_window_that_mutes_holds_nothing() -> None:
    """It only says that alerts are muted, while it is in force."""
    mute = replace(NIGHT, mode="mute")
    assert decide([mute], BILLING, DUE, T) is None
    assert muted_by([mute, NIGHT], BILLING, T) == mute
    assert muted_by([mute], BILLING, T + 3 * HOUR) is None
    assert muted_by([mute], Subject(), T) is None


@pytest.mark.parametrize(
    ("schedule", "zone", "hours", "begins", "ends"),
    [
        ("0 30 2 * * *", "Europe/Berlin", 1, "2027-03-28T01:00:00.000Z", "2027-03-28T02:00:00.000Z"),
        ("0 30 2 * * *", "Europe/Berlin", 1, "2026-10-25T00:30:00.000Z", "2026-10-25T01:30:00.000Z"),
        ("0 0 22 * * SAT", "Europe/Berlin", 8, "2027-03-27T21:00:00.000Z", "2027-03-28T05:00:00.000Z"),
        ("0 0 22 * * SAT", "Europe/Berlin", 8, "2026-10-24T20:00:00.000Z", "2026-10-25T04:00:00.000Z"),
        ("0 0 2 * * *", "Australia/Lord_Howe", 0.5, "2026-10-03T15:30:00.000Z", "2026-10-03T16:00:00.000Z"),
    ],
)
def test_a_window_begins_as_its_schedule_does_and_lasts_its_time(
    schedule: str, zone: str, hours: float, begins: str, ends: str
) -> None:
    """When clocks change too: one that begins in a gap begins at its end, one that comes twice is in force once, and its
    length is real time.
    """
    window = Window("w", "hold", tags=("a",), schedule=schedule, timezone=zone, lasts_ms=int(hours * HOUR))
    first, last = parse_instant(begins), parse_instant(ends)
    assert window.span_at(first - 1) is None
    assert window.span_at(first) == window.span_at(last - 1) == WindowSpan(first, last)
    assert window.span_at(last) is None


@pytest.mark.parametrize(
    ("windows", "held"),
    [
        ([], 0),
        ([replace(NIGHT, spread_ms=0)], 3 * HOUR // 2),
        ([replace(NIGHT, spread_ms=0, tags=("other",))], 0),
        ([replace(NIGHT, spread_ms=0, mode="mute")], 0),
        ([ONCE], None),
        ([replace(ONCE, mode="hold")], HOUR),
        ([replace(ONCE, mode="hold", until_ms=T + 9 * HOUR)], 5 * HOUR),
        # What was due before one that skips waits for its end.
        ([replace(ONCE, from_ms=T + 1)], HOUR - 1),
        ([replace(ONCE, mode="hold", from_ms=T + 4 * HOUR, until_ms=T + 9 * HOUR)], HOUR),
        ([replace(ONCE, mode="hold", from_ms=T + 6 * HOUR, until_ms=T + 9 * HOUR)], 0),
        ([replace(ONCE, mode="hold", from_ms=T - HOUR, until_ms=T)], 0),
        ([replace(ONCE, mode="hold"), replace(ONCE, from_ms=T + HOUR, until_ms=T + 2 * HOUR)], 2 * HOUR),
        ([replace(ONCE, mode="hold"), replace(ONCE, mode="hold", until_ms=T + 2 * HOUR)], 2 * HOUR),
        (
            [replace(ONCE, mode="hold"), replace(ONCE, mode="hold", from_ms=T + 3 * HOUR, until_ms=T + 4 * HOUR)],
            2 * HOUR,
        ),
        ([replace(NIGHT, spread_ms=0, schedule="0 0 * * * *", lasts_ms=HOUR // 4)], 5 * HOUR // 4),
    ],
)
def test_the_time_in_which_windows_hold_a_first_attempt_is_counted(windows: list[Window], held: int | None) -> None:
    """From its send time until now, whenever the windows began."""
    assert held_ms([WindowPeriod(w, 0, None) for w in windows], BILLING, T, "b", T + 5 * HOUR) == held


@pytest.mark.parametrize(
    ("periods", "held"),
    [
        # As it was until it was deleted, and not at all behind that.
        ([(replace(ONCE, mode="hold", until_ms=T + 9 * HOUR), T + 2 * HOUR)], 2 * HOUR),
        ([(replace(ONCE, mode="hold", until_ms=T + 9 * HOUR), T)], 0),
        ([(replace(ONCE, mode="hold", until_ms=T + 9 * HOUR), T - HOUR)], 0),
        ([(replace(ONCE, mode="hold", from_ms=T + 3 * HOUR, until_ms=T + 9 * HOUR), T + 2 * HOUR)], 0),
        # It was moved: as it was until then, and as it is.
        (
            [
                (replace(ONCE, mode="hold"), T + HOUR // 2),
                (replace(ONCE, mode="hold", from_ms=T + 4 * HOUR, until_ms=T + 9 * HOUR), None),
            ],
            3 * HOUR // 2,
        ),
        # It was made longer.
        (
            [(replace(ONCE, mode="hold"), T + HOUR // 2), (replace(ONCE, mode="hold", until_ms=T + 9 * HOUR), None)],
            5 * HOUR,
        ),
        # One that skipped skips nothing any more; nothing could leave until it was deleted.
        ([(ONCE, T + HOUR // 2)], HOUR // 2),
        (
            [(replace(NIGHT, spread_ms=0, schedule="0 0 * * * *", lasts_ms=HOUR // 4), T + 3 * HOUR // 2 + HOUR // 8)],
            3 * HOUR // 8,
        ),
        # It was deleted while what it had held was leaving.
        ([(replace(ONCE, mode="hold", spread_ms=3 * HOUR), T + HOUR)], HOUR),
    ],
)
def test_a_window_that_has_gone_counts_until_it_went(periods: list[tuple[Window, int | None]], held: int) -> None:
    """Whether it was changed or deleted, and whatever it was about."""
    assert held_ms([WindowPeriod(w, 0, to) for w, to in periods], BILLING, T, "b", T + 5 * HOUR) == held


def test_windows_without_end_hold_up_to_now() -> None:
    """Each hour of each day is in one."""
    always = replace(NIGHT, schedule="0 0 * * * *", lasts_ms=HOUR, spread_ms=0)
    assert held_ms([WindowPeriod(always, 0, None)], BILLING, T, "b", T + 24 * HOUR) == 24 * HOUR
    assert (
        held_ms([WindowPeriod(replace(always, lasts_ms=HOUR + 1), 0, None)], BILLING, T, "b", T + 9000 * HOUR)
        == 9000 * HOUR
    )
