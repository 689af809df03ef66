"""Cluster time as one node observes it: a reading was made at an unknown moment between question and answer."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.clock import JUMP_MS, MOST_EARLY_MS, SKEW_MS_PER_SECOND, Clock
from cluster.clock_watch import ClockWatch

SERVER = 1_795_000_000_000


@dataclass
class Bench:
    """A clock whose monotonic time is turned by hand, and a database whose clock is right by definition."""

    clock: Clock
    at: float = 100.0
    server: float = float(SERVER)

    def pass_(self, seconds: float, ppm: float = 0.0) -> None:
        self.at += seconds
        self.server += seconds * 1000 + seconds * ppm / 1000

    def read(self, before: float, after: float) -> float:
        """A reading, so many seconds after it was asked for, of which the answer takes so many."""
        started = self.at
        self.pass_(before)
        reading = int(self.server)
        self.pass_(after)
        return self.clock.observe(started, self.at, reading)

    @property
    def ahead_ms(self) -> float:
        return -self.clock.seconds_until(self.server) * 1000


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(Clock())
    monkeypatch.setattr(time, "monotonic", lambda: made.at)
    return made


def test_a_slow_reading_after_a_freeze_does_not_make_the_clock_early(bench: Bench) -> None:
    """A node was frozen for half a minute, and its next question was delayed by 90 ms; the reading is from their end."""
    bench.read(0.001, 0.001)
    bench.pass_(25)
    bench.read(0.09, 0)
    assert -15 <= bench.ahead_ms <= MOST_EARLY_MS + 0.1


def test_a_slow_first_reading_does_not_make_the_clock_early(bench: Bench) -> None:
    """A node that starts on a busy machine is late rather than early, and exact with the first short trip."""
    bench.read(0.8, 0.0)
    assert bench.ahead_ms <= MOST_EARLY_MS + 0.1
    bench.read(0.001, 0.001)
    assert abs(bench.ahead_ms) <= 2


def test_another_primary_whose_clock_differs_a_little_is_believed_at_once(bench: Bench) -> None:
    """A small difference is believed, and is no jump."""
    bench.read(0.001, 0.001)
    for step in (300, -300):
        bench.server += step
        bench.pass_(1)
        assert bench.read(0.001, 0.001) == 0
        assert abs(bench.ahead_ms) <= 3


@pytest.mark.parametrize("step", [JUMP_MS + 100, -JUMP_MS - 100, 300_000, -300_000])
def test_a_difference_of_more_than_two_seconds_is_a_jump(bench: Bench, step: int) -> None:
    """The jump is reported once, with its size."""
    bench.read(0.001, 0.001)
    bench.pass_(1)
    bench.server += step
    assert bench.read(0.001, 0.001) == pytest.approx(step, abs=5)
    bench.pass_(1)
    assert bench.read(0.001, 0.001) == 0


@pytest.mark.parametrize(("step", "before", "after"), [(3000, 0.001, 1.5), (-3000, 1.5, 0.001)])
def test_a_jump_whose_first_reading_is_slow_is_reported_by_the_next(
    bench: Bench, step: int, before: float, after: float
) -> None:
    """A change of primary comes with slow answers; both readings together give the size of the jump."""
    bench.read(0.001, 0.001)
    bench.pass_(1)
    bench.server += step
    assert bench.read(before, after) == 0
    bench.pass_(1)
    assert bench.read(0.001, 0.001) == pytest.approx(step, abs=10)


def test_bounds_widen_as_they_age(bench: Bench) -> None:
    """A node whose clock is fast, and that gets only slow answers, does not become early."""
    bench.read(0.001, 0.001)
    for _ in range(3):
        bench.pass_(30, -495)
        bench.read(0.3, 0.3)
    assert bench.ahead_ms <= MOST_EARLY_MS + 0.1


def test_a_reading_that_took_long_is_no_jump(bench: Bench) -> None:
    """A reading that took ten seconds says nothing about the clock."""
    bench.read(0.001, 0.001)
    for before, after in ((10, 0), (0, 10)):
        assert bench.read(before, after) == 0
        assert -15 <= bench.ahead_ms <= MOST_EARLY_MS + 0.1


TRIP = st.floats(0, 0.5)


@given(st.lists(st.tuples(st.floats(0, 30), TRIP, TRIP, st.floats(-1, 1)), min_size=1, max_size=30))
def test_the_clock_is_never_early_and_as_late_as_the_best_reading_allows(
    steps: list[tuple[float, float, float, float]],
) -> None:
    """For any round trips, and clocks that diverge as fast as they may: ahead by 5 ms at most, behind within the bounds."""
    with pytest.MonkeyPatch.context() as patch:
        bench = Bench(Clock())
        patch.setattr(time, "monotonic", lambda: bench.at)
        known = float("inf")
        for wait, before, after, slew in steps:
            ppm = slew * SKEW_MS_PER_SECOND * 1000 * 0.99
            bench.pass_(wait, ppm)
            bench.read(before, after)
            widened = 2 * SKEW_MS_PER_SECOND * (wait + before + after)
            known = min(known + widened, after * 1000 + 1)
            assert -known - 0.1 <= bench.ahead_ms <= MOST_EARLY_MS + 0.1


@pytest.mark.parametrize("jump_ms", [120_000, -120_000])
@pytest.mark.parametrize("took", [0.002, 0.4, 1.5])
def test_cluster_time_goes_on_as_it_did_however_long_the_first_wrong_reading_took(took: float, jump_ms: int) -> None:
    """That reading tells only roughly how wrong the primary's clock is. Those that follow it tell more closely, and move
    nothing: what was held at the wrong distance would be sent early."""
    clock = SetClock()
    watch = ClockWatch(clock, "host", 0.0)

    def read(at: float, seconds: float, off_ms: int) -> None:
        """A reading that ends at an instant; the database looked at its clock when half of it was over."""
        clock.at = at
        jumped = clock.observe(at - seconds, at, SERVER + round((at - seconds / 2) * 1000) + off_ms)
        if jumped:
            watch.jumped(jumped)

    for second in range(5):
        read(float(second), 0.002, 0)
    read(6.0, took, jump_ms)
    for second in range(7, 20):
        read(float(second), 0.002, jump_ms)
        assert abs(clock.now_ms() - (SERVER + second * 1000)) <= 10, f"{second} s"
    assert abs(clock.held_ms - jump_ms) <= 10, "and by how much it is wrong is known closely by then"
    read(20.0, took, 0)
    for second in range(21, 25):
        read(float(second), 0.002, 0)
    assert clock.held_ms == 0
    assert abs(clock.now_ms() - (SERVER + 24_000)) <= 10


class SetClock(Clock):
    """A clock whose monotonic time is set."""

    at = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.at
